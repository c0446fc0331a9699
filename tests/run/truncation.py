"""A folder with a run that was killed and one that succeeded, whose files are cut, and all commands in one process."""

import contextlib
import io
import json
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest.mock import patch

from kflow.cli import main
from kflow.run.journal import JOURNAL
from kflow.run.record import RECORD

WORKFLOW = """
kflow: 1
name: cut
steps:
  file: {kind: fetch, origin: digits.h5}
  slow: {kind: fetch, origin: "http://127.0.0.1:@/data", fname: one.bin, needs: [file]}
"""


class _Sender(BaseHTTPRequestHandler):
    """Sends a file, or, from the second time on, half of it."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "8")
        self.end_headers()
        self.wfile.write(b"half")
        self.wfile.flush()
        if not self.server.is_slow:  # type: ignore[attr-defined]
            self.wfile.write(b"half")
            return
        self.server.begun.set()  # type: ignore[attr-defined]
        with contextlib.suppress(OSError):
            self.rfile.read(1)  # until the other side has gone

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@dataclass(frozen=True)
class Scene:
    """A folder whose newest run was killed in its second step, after one that succeeded."""

    path: Path
    store: Path
    killed: Path
    whole: Path
    """The folders of both runs."""


def call(*arguments: str) -> tuple[int, str, str]:
    """Give a command in this process; returns exit code, output and errors."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    code = 0
    try:
        with (
            patch.object(sys, "argv", ["kflow", *arguments]),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            main()
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
    return code, *(each.buffer.getvalue().decode() for each in (out, err))  # type: ignore[attr-defined,return-value]


def make_scene(make_folder: Callable[..., Any], store: Path) -> Scene:
    """Run a workflow, and kill a second run of it in the middle."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Sender)
    server.begun, server.is_slow = threading.Event(), False  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    folder = make_folder(WORKFLOW.replace("@", str(server.server_port)))
    assert folder.kflow("run", "w.yaml").returncode == 0
    assert folder.kflow("lock", "w.yaml").returncode == 0
    server.is_slow = True  # type: ignore[attr-defined]
    runner = folder.start("run", "w.yaml", "--force")
    assert server.begun.wait(60)  # type: ignore[attr-defined]
    runner.kill()
    runner.communicate(timeout=60)
    server.shutdown()
    server.server_close()
    whole, killed = sorted((store / "runs").iterdir())
    return Scene(folder.path, store, killed, whole)


LOOKS = (("runs",), ("show", "latest", "--json"), ("why", "slow"), ("diff", "latest", "latest"))


def check_records(scene: Scene, stride: int) -> list[str]:
    """Cut the journal and both records, at each so many bytes; returns what is wrong."""
    wrong = []
    for file in (scene.killed / JOURNAL, scene.killed / RECORD, scene.whole / RECORD):
        content = file.read_bytes()
        for size in sizes(content, stride):
            file.write_bytes(content[:size])
            wrong += [f"{file.name} cut at {size}: {each}" for each in _find_lies(scene)]
        file.write_bytes(content)
    return wrong


def check_lock(scene: Scene, stride: int) -> list[str]:
    """Cut the lock; returns where a locked run went wrong, or took another result than the one that was locked."""
    wrong = []
    file, workflow = scene.path / "w.lock.yaml", scene.path / "w.yaml"
    text = workflow.read_text()
    content = file.read_bytes()
    for size in sizes(content, stride):
        file.write_bytes(content[:size])
        workflow.write_text(text)
        same, out, err = run_again(scene, "--locked")
        workflow.write_text(text.replace("one.bin", "other.bin"))
        other, out2, err2 = run_again(scene, "--locked")
        if same not in {0, 1, 2} or other not in {1, 2} or _has_failed(out + err + out2 + err2):
            wrong.append(f"lock cut at {size}: {same} {other} {out}{err}{out2}{err2}")
    file.write_bytes(content)
    workflow.write_text(text)
    return wrong


def sizes(content: bytes, stride: int) -> list[int]:
    """Return where to cut: at each so many bytes, around each end of a line of a journal, and at the end."""
    ends = [place for place, byte in enumerate(content) if byte == ord("\n")] if len(content.splitlines()) < 20 else []
    places = {*range(0, len(content), stride), *(end + step for end in ends for step in (-1, 0, 1)), len(content)}
    return sorted(place for place in places if 0 <= place <= len(content))


def _find_lies(scene: Scene) -> list[str]:
    """Look at the runs in all ways and go on with them; returns what is not as it should be."""
    found = []
    shown: dict[str, Any] = {}
    for command in LOOKS:
        code, out, err = call(*command, "--store", str(scene.store))
        if code not in {0, 2} or _has_failed(out + err):
            found.append(f"{command}: {code} {out}{err}")
        if command[0] == "show" and code == 2 and "cannot be read" in err:  # then the other one is asked for
            code, out, err = call("show", scene.whole.name, "--json", "--store", str(scene.store))
        if command[0] == "show" and code == 0:
            shown = json.loads(out)
    found += _wrong_words(scene, shown)
    code, out, err = run_again(scene)
    if code != 0 or _has_failed(out + err):
        found.append(f"run: {code} {out}{err}")
    return found


def _wrong_words(scene: Scene, shown: dict[str, Any]) -> list[str]:
    """Return what a shown run says that is not true."""
    if not shown:
        return ["no run is left"]
    is_killed = shown["id"] == scene.killed.name
    done = {name for name, step in shown["steps"].items() if step["status"] in {"run", "reused"}}
    if shown["status"] != ("interrupted" if is_killed else "succeeded"):
        return [f"the run is {shown['status']}"]
    if not done <= {"file"} if is_killed else done != {"file", "slow"}:
        return [f"done: {done}"]
    return [f"{name} has no outputs" for name in done if not shown["steps"][name]["outputs"]]


def run_again(scene: Scene, *options: str) -> tuple[int, str, str]:
    """Run the workflow, and take the record of that away."""
    with contextlib.chdir(scene.path):
        told = call("run", "w.yaml", *options, "--store", str(scene.store))
    for folder in (scene.store / "runs").iterdir():
        if folder not in {scene.killed, scene.whole}:
            shutil.rmtree(folder)
    return told


def _has_failed(text: str) -> bool:
    return "Traceback" in text or "kflow has a bug" in text
