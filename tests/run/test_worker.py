"""A step runs in the worker: its outputs are stored, its output goes to its log, its failure is one sentence."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from kflow.run.worker import describe_error
from kflow.run.workers import Worker

DIGITS = Path(__file__).parents[2] / "workflows" / "data" / "digits.h5"


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    """Give one warm worker to all tests."""
    made = Worker()
    yield made
    made.stop()
    made.server.stop()


def serve(worker: Worker, task: Mapping[str, Any]) -> dict[str, Any]:
    return worker.run(task, lambda event: None)


def make_task(folder: Path, kind: str, **fields: Any) -> dict[str, Any]:
    (folder / "staging").mkdir(parents=True)
    return {
        "kind": kind,
        "fields": fields,
        "root": str(folder),
        "staging": str(folder / "staging"),
        "log": str(folder / "step.log"),
        "seed": 0,
        "gpus": 0,
        "artifacts": {},
        "sources": {},
    }


def test_a_step_gives_its_outputs_with_digest_and_description(worker: Worker, tmp_path: Path) -> None:
    """A view is described by shape and dtype, and refers to the file that it is a view of."""
    task = make_task(tmp_path, "slice_hdf5", datapath=str(DIGITS), dataset="images", end=3)

    reply = serve(worker, task)

    assert reply["event"] == "done"
    saved = reply["outputs"]["array"]
    assert (saved["type"], saved["description"]["shape"], saved["description"]["dtype"]) == (
        "array",
        [3, 8, 8, 1],
        "uint8",
    )
    assert [each["path"] for each in saved["external"]] == [str(DIGITS)]


def test_a_failure_is_one_sentence_and_the_log_has_the_traceback(worker: Worker, tmp_path: Path) -> None:
    """The worker itself lives on."""
    task = make_task(tmp_path, "slice_hdf5", datapath=str(tmp_path / "none.h5"), dataset="images")

    reply = serve(worker, task)

    assert reply["event"] == "failed"
    assert "none.h5" in reply["message"]
    assert "\n" not in reply["message"]
    assert "Traceback" in (tmp_path / "step.log").read_text()


def test_what_a_step_prints_goes_to_its_log(worker: Worker, tmp_path: Path) -> None:
    """From Python, and from a child process that a step starts."""
    (tmp_path / "loud.py").write_text(
        "import os, sys\n"
        "def speak(block):\n"
        "    print('from python')\n"
        "    os.system('echo from a child; echo to error >&2')\n"
        "    return block\n"
    )
    task = make_task(tmp_path, "slice_hdf5", datapath=str(DIGITS), dataset="labels", end=3, normalizer="loud.py:speak")

    reply = serve(worker, task)

    assert reply["event"] == "done"
    assert {"from python", "from a child", "to error"} <= set((tmp_path / "step.log").read_text().splitlines())


def test_a_log_that_cannot_be_written_stops_nothing(worker: Worker, tmp_path: Path) -> None:
    """As on a full disk: what is printed is lost, and the step goes on."""
    task = make_task(tmp_path, "slice_hdf5", datapath=str(DIGITS), dataset="labels", normalizer="user.py:change")
    (tmp_path / "user.py").write_text("def change(block):\n    print('lost')\n    return block\n")
    task["log"] = str(tmp_path / "no such folder" / "step.log")

    assert serve(worker, task)["event"] == "done"


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ValueError("bad value"), "bad value"),
        (
            OSError("2560 requested and 2032 written"),
            "a file could not be written to its end; the disk may be full (2560 requested and 2032 written)",
        ),
        (KeyError("x"), "KeyError: 'x'"),
        (RuntimeError(""), "RuntimeError"),
        (ValueError(""), "ValueError"),
        (TypeError("first line\nsecond line\n\nGraph execution error"), "TypeError: first line second line"),
        (ZeroDivisionError("y" * 200_001), "ZeroDivisionError: " + "y" * 200_000),
        (
            OSError("'x' of a.h5 has changed since it was opened; make a new HDF5Matrix to read what it holds now"),
            "'x' of a.h5 has changed since it was opened; run again to use what it holds now",
        ),
    ],
)
def test_an_error_in_one_line(error: Exception, sentence: str) -> None:
    """The type is named unless the sentence says enough; what follows an empty line is for the log."""
    assert describe_error(error) == sentence


def test_a_worker_ends_itself_when_its_input_closes() -> None:
    """With what it started: its process group gets SIGKILL."""
    read_end, write_end = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "kflow.run.worker", str(write_end)],
        stdin=subprocess.PIPE,
        pass_fds=[write_end],
        start_new_session=True,
    ) as worker:
        os.close(write_end)
        assert worker.stdin is not None
        worker.stdin.close()

        assert worker.wait(30) == -9
    os.close(read_end)
