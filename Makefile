# One command per purpose; each does its own set-up. `make` alone lists them.
# Every path is relative, so that a clone in a folder with blanks in its name works.
.DEFAULT_GOAL := help
.PHONY: help setup run test test-all hostile soak lint types check schema docs lock data bench bench-runner peers container-check wheel-check clean
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

help:  ## list the commands
	@sed -n 's/^\([a-z-]*\):.*##/make \1\t/p' $(MAKEFILE_LIST) | expand -t 24

# Two stages: what kflow needs to run, and on top of it what its developers need.
.venv/run.stamp: requirements/run.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing kflow and what it needs into .venv (about 2 GB, once)"
	$(PIP) install --require-hashes -r requirements/run.txt
	$(PIP) install --no-deps --no-build-isolation --config-settings editable_mode=compat --editable .
	@touch $@

.venv/dev.stamp: requirements/dev.txt .venv/run.stamp
	$(PIP) install --require-hashes -r requirements/dev.txt
	@touch $@

# The S3 server of the tests, in an environment of its own (140 MB).
.venv/s3.stamp: requirements/s3-server.txt .venv/run.stamp
	test -x .venv/s3/bin/python || $(BIN)/python -m venv .venv/s3
	.venv/s3/bin/python -m pip --quiet --disable-pip-version-check install --require-hashes -r requirements/s3-server.txt
	@touch $@

setup: .venv/dev.stamp .venv/s3.stamp  ## make .venv with everything below

run: .venv/run.stamp  ## run the main example on real data
	$(BIN)/kflow run workflows/digits.yaml

test: .venv/dev.stamp .venv/s3.stamp  ## run the tests but the long ones
	$(BIN)/python -m pytest --numprocesses 2 --dist loadgroup -m "not long"

test-all: .venv/dev.stamp .venv/s3.stamp  ## run all tests: those too that train for long, kill runs, or share results
	$(BIN)/python -m pytest --numprocesses 2 --dist loadgroup

hostile: .venv/dev.stamp  ## what kflow, Keras and pooch make of faulty servers and hostile archives (minutes)
	$(BIN)/python -m tests.hostile.table

soak: .venv/dev.stamp  ## kill runs at every system call and at random, cut the power, share a store (hours; needs strace)
	$(BIN)/python -m tests.soak.killpoints
	$(BIN)/python -m tests.soak.powerloss
	$(BIN)/python -m pytest tests/soak

lint: .venv/dev.stamp  ## check style and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: .venv/dev.stamp  ## check types
	$(BIN)/mypy

schema: .venv/dev.stamp  ## write what is generated anew: schemas and the names of Keras
	$(BIN)/python schemas/make_keras_names.py
	$(BIN)/kflow schema > schemas/workflow.schema.json
	$(BIN)/kflow schema --record > schemas/run-record.schema.json

docs: .venv/dev.stamp  ## write the documentation as a site to site/; warnings are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

check: lint types docs test-all  ## all that CI checks
	$(BIN)/kflow schema | diff - schemas/workflow.schema.json
	$(BIN)/kflow schema --record | diff - schemas/run-record.schema.json

lock: .venv/dev.stamp  ## resolve the dependencies anew
	$(eval COMPILE := $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-emit-find-links --no-header --no-annotate)
	$(COMPILE) pyproject.toml --output-file requirements/run.txt
	$(COMPILE) pyproject.toml --extra remote --group dev --constraint requirements/run.txt --output-file requirements/dev.txt
	$(COMPILE) pyproject.toml --extra gpu --constraint requirements/run.txt --output-file requirements/gpu.txt
	$(COMPILE) --group s3-server --output-file requirements/s3-server.txt

data: .venv/run.stamp  ## make the data of workflows/fashion_mnist.yaml (a download of 31 MB)
	test -f workflows/data/fashion-mnist.h5 || $(BIN)/python workflows/data/make_fashion_mnist.py

bench: .venv/dev.stamp  ## measure the start-up against bare Python, and the core against its limits and neighbours
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/core.py

.bench/peers/peers.stamp: benchmarks/peers.txt
	test -x .bench/peers/bin/python || $(PYTHON) -m venv .bench/peers
	.bench/peers/bin/python -m pip --quiet --disable-pip-version-check install -r benchmarks/peers.txt
	@touch $@

peers: .bench/peers/peers.stamp  ## install ninja, doit, Snakemake and DVC in .bench, for bench-runner (make is Debian's)

bench-runner: .venv/dev.stamp  ## measure what steps cost beside the peers that are installed (20 minutes)
	$(BIN)/python benchmarks/runner.py

wheel-check: .venv/dev.stamp  ## build the wheel and use it in an environment of its own
	bash .ci/check-wheel

container-check:  ## build the Dockerfile without an engine and use the image (root, buildah)
	bash .ci/check-container

clean:  ## remove the environment, the store and all results
	rm -rf .venv .bench .kflow workflows/results build dist site *.egg-info
