# kflow in a container.
#
#   docker build -t kflow .                               with TensorFlow's CUDA libraries (needs the NVIDIA runtime)
#   docker build -t kflow:cpu --build-arg VARIANT=cpu .   without the 2.8 GB of CUDA wheels
#   docker run --rm --init --user "$(id -u):$(id -g)" -v "$PWD:/workspace" kflow:cpu run workflows/digits.yaml
#
# BASE may be any image with Python 3.11 to 3.13 and its venv module as `python3`. For a build that can be repeated
# name it by digest: --build-arg BASE=python:3.12-slim-bookworm@sha256:...
ARG BASE=python:3.12-slim-bookworm

FROM ${BASE} AS build
ARG VARIANT=gpu
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ONLY_BINARY=:all: \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /src

# The dependencies first: they change least, and every one is checked against its hash.
COPY requirements/ requirements/
RUN case "${VARIANT}" in \
      cpu) lock=run ;; \
      gpu) lock=gpu ;; \
      *) echo "VARIANT is '${VARIANT}'; it must be 'gpu' or 'cpu'" >&2; exit 2 ;; \
    esac \
    && python3 -m venv /opt/kflow \
    && /opt/kflow/bin/python -m pip install --require-hashes -r "requirements/${lock}.txt"

# kflow itself as a wheel; setuptools, which builds it, is one of the locked dependencies of TensorFlow.
COPY LICENSE README.md pyproject.toml ./
COPY kflow/ kflow/
RUN /opt/kflow/bin/python -m pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
    && /opt/kflow/bin/python -m pip install --no-deps --no-index dist/*.whl \
    && /opt/kflow/bin/python -m pip check

FROM ${BASE}
LABEL org.opencontainers.image.title="kflow" \
      org.opencontainers.image.description="Typed YAML workflows for repeatable Keras experiments." \
      org.opencontainers.image.licenses="Apache-2.0"

# The environment is root's and read-only for everybody else; work happens in /workspace, which anyone may write.
COPY --from=build /opt/kflow /opt/kflow
RUN install -d -m 1777 /workspace

# Nothing here needs a home or an entry in /etc/passwd, so `--user` may name any uid; caches go to /tmp.
ENV PATH=/opt/kflow/bin:${PATH} \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    KERAS_HOME=/tmp/kflow-cache/keras \
    MPLCONFIGDIR=/tmp/kflow-cache/matplotlib \
    XDG_CACHE_HOME=/tmp/kflow-cache
WORKDIR /workspace
USER 10001:10001

# As process 1 Python ignores SIGTERM unless a program handles it; SIGINT always ends it in good order.
STOPSIGNAL SIGINT
HEALTHCHECK NONE
ENTRYPOINT ["kflow"]
CMD ["--help"]
