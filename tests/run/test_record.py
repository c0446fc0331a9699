"""The record says what was run, with what, and what came of it; it holds no value of an environment variable."""

import contextlib
import json
import math
import os
import platform
import subprocess
import sys
import threading
from collections.abc import Callable
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any

import h5py
import jsonschema
import pytest

from kflow.run.history import read_previous
from kflow.run.journal import Journal, read_journal
from kflow.run.record import (
    RECORD,
    RunRecord,
    close_record,
    read_record,
    read_records,
    record_schema,
    write_record,
)
from kflow.run.surroundings import git_state
from kflow.store.locks import held, is_held

MakeFolder = Callable[..., Any]
SCHEMA = Path(__file__).parents[2] / "schemas" / "run-record.schema.json"


def make_record(number: int = 0, **changes: Any) -> RunRecord:
    value = {
        "id": f"20250101T00000{number}-name-abc",
        "status": "succeeded",
        "started": "2025-01-01T00:00:00+00:00",
        "workflow": {"path": "w.yaml", "sha256": "0", "name": "name", "seed": 0, "params": {}, "steps": {}},
        "steps": {},
        "versions": {},
        "platform": "",
        "devices": {},
    }
    return RunRecord.model_validate(value | changes)


def put(root: Path, record: RunRecord) -> Path:
    folder = root / "runs" / record.id
    folder.mkdir(parents=True)
    return write_record(record, folder)


def test_a_record_holds_what_was_run_and_where(make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that a reader needs to know of a run, as the published schema describes it, and no environment."""
    monkeypatch.setenv("PLANTED", "digits.h5")
    monkeypatch.setenv("UNUSED", "s3cr3t-value")
    folder = make_folder()
    text = (folder.path / "w.yaml").read_text()
    folder.write("w.yaml", text.replace("origin: digits.h5", "origin: '${env.PLANTED}'"))
    assert folder.kflow("run", "w.yaml", "--set", "rows=30").returncode == 0

    (path,) = (Path(os.environ["KFLOW_STORE"]) / "runs").glob(f"*/{RECORD}")
    record = json.loads(path.read_text())
    jsonschema.validate(record, json.loads(SCHEMA.read_text()))
    assert record["status"] == "succeeded"
    assert record["duration"] > 0
    assert record["workflow"]["sha256"] == sha256((folder.path / "w.yaml").read_bytes()).hexdigest()
    assert record["workflow"]["params"] == {"rows": 30, "classes": 10, "order": 2}
    assert record["workflow"]["steps"]["x"]["end"] == 30
    libraries = {name: version(name) for name in ("kflow", "keras", "tensorflow", "numpy", "h5py")}
    assert record["versions"] == {"python": platform.python_version(), **libraries}
    assert record["platform"].startswith("Linux-")
    assert record["devices"]["cpus"] == len(os.sched_getaffinity(0))
    for step in record["steps"].values():
        assert (step["status"], step["verdict"], step["reason"]) == ("run", "run", "never run before")
        assert len(step["fingerprint"]) == 64
        assert step["duration"] >= 0
    outputs = {name: step["outputs"] for name, step in record["steps"].items()}
    with h5py.File(folder.path / "digits.h5") as file:
        assert file["images"].shape[0] > 30
    assert outputs["digits"]["file"]["digest"] == sha256((folder.path / "digits.h5").read_bytes()).hexdigest()
    assert list(record["steps"]["unit"]["inputs"].values()) == [outputs["x"]["array"]["digest"]]
    assert record["workflow"]["steps"]["digits"]["origin"] == "${env.PLANTED}"
    assert "digits.h5" not in path.read_text()
    assert "s3cr3t-value" not in path.read_text()


@pytest.mark.parametrize("name", ["record.json", "journal.jsonl"])
@pytest.mark.parametrize("what", ["deep JSON", "a pipe"])
def test_whatever_lies_in_the_place_of_a_record_does_no_harm(tmp_path: Path, name: str, what: str) -> None:
    """It is read past, and waited for by nobody; the other records are read."""
    put(tmp_path, make_record(1))
    path = put(tmp_path, make_record(2, status="running")).with_name(name)
    path.unlink(missing_ok=True)
    if what == "a pipe":
        os.mkfifo(path)
    else:
        path.write_text("[" * 200_000 + "\n")

    statuses = [record.status for record in read_records(tmp_path)]
    assert statuses == ["succeeded"] if name == "record.json" else ["interrupted", "succeeded"]


class _NotThere(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the signature of http.server
        del format, args


def test_a_variable_in_an_error_is_not_in_the_record(make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name stands for it."""
    monkeypatch.setenv("TOKEN", "s3cr3t")
    server = HTTPServer(("127.0.0.1", 0), _NotThere)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    origin = f"http://127.0.0.1:{server.server_port}/${{env.TOKEN}}/a.h5"
    folder = make_folder(f"kflow: 1\nname: a\nsteps:\n  data: {{kind: fetch, origin: '{origin}'}}\n")
    failed = folder.kflow("run", "w.yaml")
    server.shutdown()
    server.server_close()

    assert failed.returncode == 1
    record = folder.records()[0]
    assert "/${env.TOKEN}/a.h5" in str(record.steps["data"].error)
    assert "s3cr3t" not in record.model_dump_json()


def test_the_published_schema_is_that_of_the_code() -> None:
    """``kflow schema --record`` writes it."""
    jsonschema.Draft202012Validator.check_schema(record_schema())

    assert json.loads(SCHEMA.read_text()) == record_schema()


def test_a_loss_that_is_no_number_survives(tmp_path: Path) -> None:
    """JSON has no NaN and no infinity; the record is valid, and read back as it was."""
    path = put(tmp_path, make_record(metrics={"test": {"loss": math.nan, "worst": -math.inf, "good": 0.5}}))

    jsonschema.validate(json.loads(path.read_text(), parse_constant=pytest.fail), record_schema())
    (record,) = read_records(tmp_path)
    assert math.isnan(record.metrics["test"]["loss"])
    assert (record.metrics["test"]["worst"], record.metrics["test"]["good"]) == (-math.inf, 0.5)


def test_numbers_that_json_has_no_word_for_come_back(tmp_path: Path) -> None:
    """In params, wherever they stand; a text that looks like one stays a text."""
    params = {"a": math.inf, "b": [1.0, -math.inf, "Infinity"], "c.d": {"NaN": "NaN", "e": math.nan}, "f": 10**400}
    where = [["a"], ["b", 1], ["c.d", "e"]]
    record = make_record()
    record.workflow.params, record.workflow.not_finite = params, where
    path = put(tmp_path, record)

    jsonschema.validate(json.loads(path.read_text(), parse_constant=pytest.fail), record_schema())
    found = read_record(path.parent)
    assert found is not None
    assert repr(found.workflow.params) == repr(params)
    assert found.model_dump_json() == record.model_dump_json()


def test_records_come_newest_first_and_unreadable_ones_are_left_out(tmp_path: Path) -> None:
    """A record that is no JSON, of another form, or absent does not hide the others."""
    for number in (1, 3, 2):
        put(tmp_path, make_record(number))
    (tmp_path / "runs" / "20250101T000009-no-record").mkdir()
    put(tmp_path, make_record(8)).write_text("{")
    put(tmp_path, make_record(7)).write_text('{"format": 2}')
    put(tmp_path, make_record(6)).write_bytes(b"\xff\xfe")

    assert [record.id[:15] for record in read_records(tmp_path)] == [f"20250101T00000{number}" for number in (3, 2, 1)]
    assert list(read_records(tmp_path / "none")) == []


def test_components_of_the_last_run_of_a_workflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest that was done counts, of the same file only; older records start at the current folder."""

    def step(epochs: int, status: str) -> dict[str, Any]:
        return {"kind": "train", "status": status, "verdict": "run", "reason": "", "components": {"epochs": epochs}}

    monkeypatch.chdir(tmp_path)
    put(tmp_path, make_record(1, steps={"fit": step(1, "run"), "test": step(10, "run")}))
    put(tmp_path, make_record(2, steps={"fit": step(2, "reused")}))
    put(tmp_path, make_record(3, steps={"fit": step(3, "failed")}))
    other = make_record(4, steps={"fit": step(4, "run")})
    other.workflow.path = "other.yaml"
    put(tmp_path, other)
    elsewhere = make_record(5, steps={"fit": step(5, "run")})
    elsewhere.workflow.file = "/elsewhere/w.yaml"
    put(tmp_path, elsewhere)
    found = read_previous(tmp_path, str(tmp_path / "w.yaml"), ["fit", "test"])

    assert found.components == {"fit": {"epochs": 2}, "test": {"epochs": 10}}
    assert found.unfinished == {"fit": "failed"}


def test_the_runs_of_other_workflows_do_not_count(tmp_path: Path) -> None:
    """However many there are; of those of the workflow itself the last twenty do."""

    def note(day: int, place: str) -> None:
        step = {"kind": "train", "status": "run", "verdict": "run", "reason": "", "components": {"day": day}}
        record = make_record(id=f"202501{day:02}T000000-name-abc", steps={"fit": step} if day < 3 else {})
        record.workflow.file = place
        put(tmp_path, record)

    for day in range(1, 26):
        note(day, "/a/w.yaml" if day < 3 else "/b/w.yaml")

    assert read_previous(tmp_path, "/a/w.yaml", ["fit"]).components == {"fit": {"day": 2}}
    assert read_previous(tmp_path, "/b/w.yaml", ["fit"]).components == {}
    assert read_previous(tmp_path, "/a/w.yaml", ["fit", "other"], limit=1).components == {"fit": {"day": 2}}


def test_a_long_path_does_not_hide_a_run(tmp_path: Path) -> None:
    """Though the beginning of its record does not name the workflow."""
    step = {"kind": "train", "status": "run", "verdict": "run", "reason": "", "components": {"day": 1}}
    record = make_record(steps={"fit": step})
    place = record.workflow.file = f"/{'long/' * 900}w.yaml"
    put(tmp_path, record)

    assert read_previous(tmp_path, place, ["fit"]).components == {"fit": {"day": 1}}
    assert read_previous(tmp_path, "/w.yaml", ["fit"]).components == {}


@pytest.mark.parametrize("look", [read_journal, is_held], ids=lambda look: look.__name__)
def test_a_run_that_ends_while_its_record_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, look: Callable[[Path], Any]
) -> None:
    """Before any of the looks that follow the first: what is read is the record of its end."""
    step = {"kind": "train", "status": "run", "verdict": "run", "reason": "", "fingerprint": "f"}
    folder = put(tmp_path, make_record(status="running", steps={"fit": {**step, "status": "not run"}})).parent
    with Journal(folder) as journal:
        journal.note("fit", json.dumps(step), is_end=True)
    with contextlib.ExitStack() as stack:
        stack.enter_context(held(folder))

        def end_and_look(where: Path) -> Any:
            close_record(make_record(steps={"fit": step}), folder)
            stack.close()
            return look(where)

        monkeypatch.setattr(f"kflow.run.record.{look.__name__}", end_and_look)
        found = read_record(folder)

    assert found is not None
    assert (found.status, found.steps["fit"].status, found.steps["fit"].fingerprint) == ("succeeded", "run", "f")


MEASURING = """
kflow: 1
name: measuring
steps:
  good: {kind: measure, value: 0.5}
  bad: {kind: measure, value: .nan}
  wait: {kind: note, text: x, after: nowhere, needs: [good, bad]}
"""


@pytest.mark.usefixtures("kinds")
def test_the_metrics_of_a_run_are_there_before_it_ends(make_folder: MakeFolder) -> None:
    """And stay if it is killed."""
    folder = make_folder(MEASURING)
    runner = folder.start("run", "w.yaml")
    folder.wait_until_it_runs("wait")
    (under_way,) = folder.records()
    runner.kill()
    runner.communicate(timeout=60)
    (killed,) = folder.records()

    for record in (under_way, killed):
        assert record.metrics["good"] == {"value": 0.5}
        assert math.isnan(record.metrics["bad"]["value"])
    assert (under_way.status, killed.status) == ("running", "interrupted")


def test_a_workflow_that_is_piped_in_has_its_own_digest(make_folder: MakeFolder) -> None:
    """That of the bytes that were read: they can be read once only."""
    folder = make_folder()
    text = f"kflow: 1\nname: piped\nsteps:\n  digits: {{kind: fetch, origin: {folder.path}/digits.h5}}\n"
    command = [sys.executable, "-m", "kflow", "run", "/dev/stdin"]
    subprocess.run(command, cwd=folder.path, input=f"\ufeff{text}".encode(), capture_output=True, check=True)

    (record,) = folder.records()
    assert record.workflow.sha256 == sha256(f"\ufeff{text}".encode()).hexdigest()


def test_the_state_of_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commit and changes to known files; results, which git does not know, make no tree dirty."""
    for name in ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"):
        monkeypatch.setenv(name, "a@example.org")
    folder = tmp_path / "repository"
    folder.mkdir()

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    assert git_state(str(folder)) is None
    git("init")
    (folder / "w.yaml").write_text("a")
    git("add", ".")
    git("commit", "-m", "first")
    (folder / "result.png").write_text("x")
    clean = git_state(str(folder))
    (folder / "w.yaml").write_text("b")
    dirty = git_state(str(folder))

    assert clean is not None
    assert dirty is not None
    assert clean == (git("rev-parse", "HEAD"), False)
    assert dirty == (clean[0], True)


def test_words_of_the_system_may_name_paths_that_are_no_utf8(tmp_path: Path) -> None:
    """A full disk below such a folder is told as such, in the journal and in the record."""
    words = "no space left at /stra\udcdfe"
    step = {"kind": "fetch", "status": "failed", "verdict": "run", "reason": words, "error": words}
    record = make_record(steps={"a": step})
    with Journal(tmp_path) as journal:
        journal.note("a", record.steps["a"].model_dump_json(), is_end=True)
        ((_, noted, _),) = read_journal(tmp_path)
    write_record(record, tmp_path)
    found = read_record(tmp_path)

    assert found is not None
    assert noted["error"] == noted["reason"] == "no space left at /stra\\udcdfe"
    assert found.steps["a"].error == noted["error"]
