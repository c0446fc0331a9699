"""Two machines that share results: the second has a folder and a store of its own, and knows but a URL."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from kflow.artifacts import digest_json
from kflow.store.entry import seal, unseal
from kflow.store.place import BucketPlace, open_place
from tests.run.google import Google, serve

pytestmark = pytest.mark.long

MakeFolder = Callable[..., Any]
Spy = Callable[[], dict[str, set[str]]]
Machine = Callable[[str], Any]

# Views on a file of the user's, two arrays that are computed, and code.
SHARED = """
kflow: 1
name: shared
params: {end: 9}
steps:
  digits: {kind: fetch, origin: digits.h5}
  x: {kind: slice_hdf5, datapath: "${digits}", dataset: images, end: "${params.end}"}
  unit: {kind: normalize, x: "${x}", axis: 0}
  changed: {kind: slice_hdf5, datapath: "${digits}", dataset: labels, end: 9, normalizer: user.py:change}
  y: {kind: encode_labels, y: "${changed}", num_classes: 11}
  code: {kind: register_objects, objects: {Change: user.py:change}}
"""
CODE = {"user.py": "def change(block):\n    return block + 1\n"}
NOWHERE = "http://127.0.0.1:9"
"""No server listens there."""
ONE = "kflow: 1\nname: one\nsteps:\n  digits: {kind: fetch, origin: digits.h5}\n"


@pytest.fixture
def machine(make_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Return a function that makes a folder, and takes a store for it that is empty."""

    def make(name: str, workflow: str = SHARED) -> Any:
        monkeypatch.setenv("KFLOW_STORE", str(tmp_path / f"store of {name}"))
        return make_folder(workflow, CODE, name=name)

    return make


def digests(folder: Any) -> dict[str, dict[str, str]]:
    """Return the digests of all outputs of the last run."""
    steps = folder.records()[0].steps
    return {name: {key: output.digest for key, output in step.outputs.items()} for name, step in steps.items()}


def reasons(folder: Any) -> set[str]:
    """Return why the steps of the last run were run or reused."""
    return {step.reason for step in folder.records()[0].steps.values()}


def test_a_job_that_finds_every_step_runs_nothing(machine: Machine, tmp_path: Path, spy: Spy) -> None:
    """The plan says so, no worker is started, the results are those of the first machine, and they can be used."""
    first = machine("first")
    assert first.kflow("run", "w.yaml", "--remote", "../remote").returncode == 0
    made = digests(first)
    sent = [path for path in (tmp_path / "remote").rglob("*") if path.is_file()]
    assert len(sent) == 6 + 3
    assert not [path for path in sent if str(tmp_path).encode() in path.read_bytes()], "paths stay at home"
    shutil.rmtree(first.path)
    shutil.rmtree(tmp_path / "store of first")
    spy()
    second = machine("second")
    plan = second.kflow("plan", "w.yaml", "--exit-code", KFLOW_REMOTE="../remote")
    done = second.kflow("run", "w.yaml", KFLOW_REMOTE="../remote")

    assert plan.returncode == 0, plan.stdout
    assert done.returncode == 0, done.stderr
    assert "kflow.run.forkserver" not in spy()
    assert set(second.statuses().values()) == {"reused"}
    assert reasons(second) == {"pulled from the remote"}
    assert done.stdout.count("reused: pulled from the remote") == 6
    assert "starts" not in done.stdout
    assert digests(second) == made
    assert second.kflow("store", "verify").returncode == 0

    changed = (second.path / "w.yaml").read_text().replace("axis: 0", "axis: 1").replace("11", "12")
    second.write("w.yaml", changed)
    assert second.kflow("run", "w.yaml").returncode == 0, "what was pulled is taken by steps that run"
    assert second.statuses()["x"] == "reused"
    assert second.statuses()["unit"] == "run"


def test_a_poisoned_result_is_refused_and_made_again(machine: Machine, tmp_path: Path) -> None:
    """With the reason on the screen and in the record; then the remote is whole again."""
    machine("first").kflow("run", "w.yaml", "--remote", "../remote")
    for path in (tmp_path / "remote").rglob("files/*/*"):
        path.write_bytes(b"poison")
    second = machine("second")
    done = second.kflow("run", "w.yaml", "--remote", "../remote")

    assert done.returncode == 0, done.stderr
    assert {name for name, status in second.statuses().items() if status == "run"} == {"unit", "changed", "code"}
    assert "what the remote has of unit is refused: its file 'array/array.npy' holds other bytes" in done.stdout
    assert "what the remote has of it was refused" in second.records()[0].steps["unit"].reason
    third = machine("third")
    third.kflow("run", "w.yaml", "--remote", "../remote")
    assert reasons(third) == {"pulled from the remote"}


MEASURED = """
kflow: 1
name: measured
steps:
  model: {kind: build_model, layers: [{Input: {shape: [8, 8, 1]}}, {Activation: {activation: linear}}]}
  x: {kind: slice_hdf5, datapath: digits.h5, dataset: images, end: 20, normalizer: {scale: 1}}
  test: {kind: evaluate, model: "${model}", x: "${x}", y: "${x}", loss: mse}
"""


def put_words_for_numbers(manifest: dict[str, Any]) -> None:
    """Write words in the place of metrics, with a digest that fits."""
    for output in manifest["outputs"].values():
        if output["type"] == "metrics":
            output.update(description={"metrics": {"loss": "low"}}, digest=digest_json({"loss": "low"}))


def put_name(name: str, manifest: dict[str, Any]) -> None:
    """Name the file of a model otherwise."""
    if manifest["kind"] == "build_model":
        (content,) = manifest["files"].values()
        manifest["files"] = {f"model/{name}": content}
        manifest["outputs"]["model"]["description"]["name"] = name


@pytest.mark.parametrize(
    ("step", "spoil", "reason"),
    [
        ("test", put_words_for_numbers, "its metrics is described as no metrics can be"),
        ("model", partial(put_name, "é" * 200), "its manifest names a file"),
        ("model", partial(put_name, "\ud800"), "its manifest names a file"),
    ],
)
def test_a_manifest_that_nobody_writes_costs_one_result(
    machine: Machine, tmp_path: Path, step: str, spoil: Callable[[dict[str, Any]], None], reason: str
) -> None:
    """It is refused and made again, here and there; the others are pulled."""
    machine("first", MEASURED).kflow("run", "w.yaml", "--remote", "../remote")
    for path in (tmp_path / "remote").rglob("entries/*/*"):
        manifest = unseal(path.read_bytes())
        spoil(manifest)
        path.write_bytes(seal(json.dumps(manifest)))
    second = machine("second", MEASURED)
    plan = second.kflow("plan", "w.yaml", "--remote", "../remote", "--exit-code")
    done = second.kflow("run", "w.yaml", "--remote", "../remote")

    assert plan.returncode == 3, "the plan knows of it"
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert f"what the remote has of {step} is refused: {reason}" in done.stdout
    assert {name for name, status in second.statuses().items() if status == "run"} == {step}
    third = machine("third", MEASURED)
    third.kflow("run", "w.yaml", "--remote", "../remote")
    assert reasons(third) == {"pulled from the remote"}


def test_a_store_that_took_words_for_numbers_mends_itself(machine: Machine, tmp_path: Path) -> None:
    """As an earlier kflow did: the result counts as damaged, and is made again."""
    folder = machine("first", MEASURED)
    folder.kflow("run", "w.yaml")
    for path in (tmp_path / "store of first").rglob("manifest.json"):
        manifest = unseal(path.read_bytes())
        put_words_for_numbers(manifest)
        path.write_bytes(seal(json.dumps({key: value for key, value in manifest.items() if key != "digest"})))
    done = folder.kflow("run", "w.yaml")

    assert done.returncode == 0, done.stderr
    assert folder.statuses() == {"model": "reused", "x": "reused", "test": "run"}
    assert folder.records()[0].steps["test"].reason == "its stored result is damaged"


def test_what_was_damaged_here_is_not_pushed(machine: Machine, tmp_path: Path) -> None:
    """With size and times as they were; that is said, and the other results are pushed."""
    folder = machine("first")
    folder.kflow("run", "w.yaml")
    (path,) = (tmp_path / "store of first").rglob("user.py")
    before = path.stat()
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    pushed = folder.kflow("store", "push", "--remote", "../remote")

    assert pushed.returncode == 1
    assert "code: damaged or not in the store any more" in pushed.stdout.splitlines()
    assert pushed.stdout.splitlines()[-1] == "5 pushed, 1 damaged or not in the store any more"
    assert len([each for each in (tmp_path / "remote").rglob("*") if each.is_file()]) == 5 + 2


def test_a_folder_in_the_place_of_a_file_does_not_end_the_sharing(machine: Machine, tmp_path: Path) -> None:
    """The one result is made here and not pushed, with the path; the others are shared."""
    machine("first").kflow("run", "w.yaml", "--remote", "../remote")
    path, *_ = sorted((tmp_path / "remote").rglob("files/*/*"))
    path.unlink()
    path.mkdir()
    second = machine("second")
    done = second.kflow("run", "w.yaml", "--remote", "../remote")
    pushed = second.kflow("store", "push", "--remote", "../remote")

    assert done.returncode == 0, done.stderr
    assert f"the result was not pushed: {path}: Is a directory" in done.stdout
    assert "not used any more" not in done.stdout
    assert list(second.statuses().values()).count("reused") == 5
    assert pushed.returncode == 1
    assert f": not pushed: {path}: Is a directory" in pushed.stdout
    assert pushed.stdout.splitlines()[-1] == "5 there already, 1 not pushed"


def test_a_reader_sends_nothing_and_a_push_sends_what_is_missing(machine: Machine, tmp_path: Path) -> None:
    """``--no-push`` is for those who must not write; ``kflow store push`` for what was made without a remote."""
    folder = machine("first", ONE)
    folder.kflow("run", "w.yaml", "--remote", "../remote", "--no-push")
    folder.kflow("run", "w.yaml", KFLOW_REMOTE="../remote", KFLOW_NO_PUSH="1", KFLOW_STORE=str(tmp_path / "another"))
    assert (tmp_path / "another" / "entries").exists()
    assert not (tmp_path / "remote").exists()
    first = folder.kflow("store", "push", "--remote", "../remote")
    again = folder.kflow("store", "push", "latest", KFLOW_REMOTE="../remote")
    third = folder.kflow("run", "w.yaml", KFLOW_REMOTE="../remote", KFLOW_STORE=str(tmp_path / "third"))

    assert "reused: pulled from the remote" in third.stdout
    assert (first.returncode, first.stdout) == (0, "1 pushed\n")
    assert (again.returncode, again.stdout) == (0, "1 there already\n")
    assert folder.kflow("store", "push").returncode == 2


def test_a_part_of_a_workflow_takes_what_it_needs_from_the_remote(machine: Machine, tmp_path: Path) -> None:
    """Of what was not chosen nothing is run: it is pulled, or the command is refused."""
    machine("first").kflow("run", "w.yaml", "--remote", "../remote", "--until", "x")
    second = machine("second")
    without = second.kflow("run", "w.yaml", "--only", "unit")
    done = second.kflow("run", "w.yaml", "--only", "unit", "--remote", "../remote")

    assert without.returncode == 2
    assert done.returncode == 0, done.stderr + done.stdout
    statuses = second.statuses()
    assert (statuses["x"], statuses["unit"], statuses["y"]) == ("reused", "run", "not run")


def test_a_remote_that_cannot_be_used_does_not_stop_a_run(machine: Machine, tmp_path: Path) -> None:
    """It is told once, with what to do, and the steps run here."""
    folder = machine("first")
    done = folder.kflow("run", "w.yaml", "--remote", "../no disk/remote")

    assert done.returncode == 0
    assert done.stdout.count("warning: the remote is not used any more: there is no folder") == 1
    assert set(folder.statuses().values()) == {"run"}
    plan = folder.kflow("plan", "w.yaml", "--remote", "../no disk/remote", "--set", "end=8")
    part = folder.kflow("run", "w.yaml", "--remote", "../no disk/remote", "--only", "unit", "--set", "end=9")
    assert (plan.returncode, part.returncode) == (0, 0), plan.stderr + part.stderr
    assert "warning: the remote is not used: there is no folder" in plan.stderr
    pushed = folder.kflow("store", "push", "--remote", "../no disk/remote")
    assert pushed.returncode == 1
    assert "the remote cannot be used: there is no folder" in pushed.stderr
    assert "Traceback" not in pushed.stderr


def test_what_makes_no_remote_is_told_before_anything_runs(machine: Machine) -> None:
    """A package that is missing, or a URL with a key in it."""
    folder = machine("first", ONE)
    folder.write("sitecustomize.py", "import sys\nsys.modules['obstore'] = None\n")
    path = os.pathsep.join([str(folder.path), os.environ.get("PYTHONPATH", "")])
    missing = folder.kflow("run", "w.yaml", "--remote", "s3://bucket/a", PYTHONPATH=path)
    secret = folder.kflow("run", "w.yaml", "--remote", "s3://me:TOKEN@bucket/a")

    assert (missing.returncode, secret.returncode) == (2, 2)
    assert "pip install 'kflow[remote]'" in missing.stderr
    assert "TOKEN" not in secret.stderr + secret.stdout
    assert folder.records() == []


# --- a bucket ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cloud:
    """A bucket at a server on this machine, and how it comes to be of no use."""

    bucket: str
    close: Callable[[], object]
    """Takes all rights away."""
    denial: str
    """What the server says then."""
    lost: dict[str, str]
    """What the environment says where the server is not there."""
    unknown: dict[str, str]
    """What it says where nothing is known of credentials."""


@pytest.fixture(scope="module")
def amazon() -> Iterator[str]:
    """Start an S3 server on this machine, and return its URL."""
    program = Path(sys.prefix) / "s3" / "bin" / "moto_server"
    assert program.exists(), "'make setup' installs it"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environ = {"PATH": os.environ["PATH"], "NO_COLOR": "1"}
    process = subprocess.Popen(
        [program, "-H", "127.0.0.1", "-p", str(port)],
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                _ask(f"{url}/moto-api/")
                break
            except OSError:
                time.sleep(0.1)
        yield url
    finally:
        process.kill()
        process.wait()


def _ask(url: str, method: str = "GET", data: bytes | None = None) -> bytes:
    request = urllib.request.Request(url, data, {"Content-Type": "application/octet-stream"}, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return bytes(answer.read())


@pytest.fixture(scope="module")
def google() -> Iterator[Google]:
    """Start a server of Google's kind on this machine."""
    with serve() as server:
        yield server


def make_s3(server: str) -> tuple[Cloud, dict[str, str]]:
    """Return an empty bucket of S3's kind, and the environment for it."""
    _ask(f"{server}/moto-api/reset-auth", "POST", b"inf")
    _ask(f"{server}/moto-api/reset", "POST", b"")
    _ask(f"{server}/results", "PUT", b"")
    environ = {"AWS_ENDPOINT_URL": server, "AWS_REGION": "us-east-1"}
    return Cloud(
        bucket="s3://results/of/us",
        close=lambda: _ask(f"{server}/moto-api/reset-auth", "POST", b"0"),
        denial="InvalidAccessKeyId",
        lost={"AWS_ENDPOINT_URL": NOWHERE, "AWS_ACCESS_KEY_ID": "TOKENID", "AWS_SECRET_ACCESS_KEY": "TOKENSECRET"},
        unknown={**environ, "AWS_METADATA_ENDPOINT": NOWHERE},
    ), {**environ, "AWS_ACCESS_KEY_ID": "TOKENID", "AWS_SECRET_ACCESS_KEY": "TOKENSECRET"}


def make_gs(server: Google) -> tuple[Cloud, dict[str, str]]:
    """Return an empty bucket of Google's kind, and the environment for it."""
    server.reset()
    nobody = {"GCE_METADATA_HOST": NOWHERE.removeprefix("http://"), "GCE_METADATA_IP": NOWHERE.removeprefix("http://")}
    return Cloud(
        bucket="gs://results/of/us",
        close=lambda: setattr(server, "is_closed", True),
        denial="AccessDenied",
        lost={"GOOGLE_SERVICE_ACCOUNT_KEY": account(NOWHERE)},
        # With TLS: otherwise no credentials would be looked for.
        unknown={"GOOGLE_BASE_URL": NOWHERE.replace("http", "https"), **nobody},
    ), {"GOOGLE_SERVICE_ACCOUNT_KEY": account(server.url)}


def account(url: str) -> str:
    """Return a service account for a server of one's own."""
    secret = {"client_email": "me@TOKENHOST", "private_key": "TOKENSECRET", "private_key_id": "TOKENID"}
    return json.dumps({"gcs_base_url": url, "disable_oauth": True, **secret})


def set_environ(monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]) -> None:
    """Let the environment say this of clouds, and nothing else."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "GOOGLE_", "GCE_", "SERVICE_ACCOUNT"))]:
        monkeypatch.delenv(name)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(params=["s3", "gs"])
def cloud(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    """Give an empty bucket of each kind, and the credentials for it in the environment."""
    # Asked for here, so that only the server that is needed is started.
    made, environ = (
        make_s3(request.getfixturevalue("amazon"))
        if request.param == "s3"
        else make_gs(request.getfixturevalue("google"))
    )
    set_environ(monkeypatch, environ)
    return made


def test_a_bucket_is_a_remote(machine: Machine, cloud: Cloud, spy: Spy) -> None:
    """A job that finds every step in it runs nothing; no key is in any record or in what is printed."""
    first = machine("first")
    done = first.kflow("run", "w.yaml", "--remote", cloud.bucket)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stdout
    made = digests(first)
    spy()
    second = machine("second")
    plan = second.kflow("plan", "w.yaml", "--exit-code", "--remote", cloud.bucket)
    again = second.kflow("run", "w.yaml", "--remote", cloud.bucket)

    assert plan.returncode == 0, plan.stdout + plan.stderr
    assert again.returncode == 0, again.stderr
    assert "kflow.run.forkserver" not in spy()
    assert reasons(second) == {"pulled from the remote"}
    assert digests(second) == made
    assert again.stderr == ""
    told = done.stdout + again.stdout + second.records()[0].model_dump_json()
    assert "TOKEN" not in told


def test_a_bucket_is_poisoned(machine: Machine, cloud: Cloud) -> None:
    """By a file that was replaced, one that was cut off and one that is gone; all are refused and mended."""
    machine("first").kflow("run", "w.yaml", "--remote", cloud.bucket)
    place = open_place(cloud.bucket)
    assert isinstance(place, BucketPlace)
    names = [each["path"] for page in place.objects.list("kflow-1/files") for each in page]
    assert len(names) == 3
    place.objects.delete(names[0])
    place.objects.put(names[1], b"")
    place.objects.put(names[2], b"poison")
    second = machine("second")
    done = second.kflow("run", "w.yaml", "--remote", cloud.bucket)

    assert done.returncode == 0, done.stderr
    assert done.stdout.count("holds other bytes than its manifest says") == 2
    assert done.stdout.count("is not there; it is not taken") == 1
    third = machine("third")
    third.kflow("run", "w.yaml", "--remote", cloud.bucket)
    assert reasons(third) == {"pulled from the remote"}


def test_a_large_file_goes_to_a_bucket_in_parts(cloud: Cloud, tmp_path: Path) -> None:
    """And comes back in blocks, whole; one that is empty does too."""
    content = bytes(range(256)) * 50_000
    (tmp_path / "large").write_bytes(content)
    (tmp_path / "empty").touch()
    place = open_place(cloud.bucket)
    for name in ("large", "empty"):
        place.put(tmp_path / name, f"kflow-1/{name}")

    assert place.size("kflow-1/large") == len(content)
    assert b"".join(place.read("kflow-1/large", len(content))) == content
    assert b"".join(place.read("kflow-1/empty", 0)) == b""


@pytest.mark.parametrize("case", ["denied", "no bucket", "no server", "no credentials"])
def test_a_bucket_that_cannot_be_used_does_not_stop_a_run(
    machine: Machine, cloud: Cloud, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """It is told once and in one line, without a key, and the steps run here."""
    folder, bucket = machine("first", ONE), cloud.bucket
    match case:
        case "denied":
            cloud.close()
            said = f"the server says {cloud.denial}"
        case "no bucket":
            bucket, said = bucket.replace("results", "nobody"), "the server says NoSuchBucket"
        case "no server":
            set_environ(monkeypatch, cloud.lost)
            said = "its server cannot be reached"
        case _:
            set_environ(monkeypatch, cloud.unknown)
            said = "there are no credentials"
    done = folder.kflow("run", "w.yaml", "--remote", bucket)

    assert done.returncode == 0, done.stderr
    assert f"warning: the remote is not used any more: {said}" in done.stdout
    assert done.stdout.count("warning") == 1
    assert "TOKEN" not in done.stdout + done.stderr
    assert folder.statuses() == {"digits": "run"}


def test_no_token_goes_out_in_the_clear(
    machine: Machine, google: Google, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever listens could use it; a server of one's own without TLS does without."""
    google.reset()
    (tmp_path / "key.json").write_text(account(google.url))
    set_environ(monkeypatch, {"GOOGLE_SERVICE_ACCOUNT": str(tmp_path / "key.json"), "GOOGLE_BEARER_TOKEN": "TOKEN"})
    done = machine("first", ONE).kflow("run", "w.yaml", "--remote", "gs://results")

    assert done.returncode == 0, done.stderr
    assert len(google.buckets["results"]) == 1
    assert google.tokens == {""}
