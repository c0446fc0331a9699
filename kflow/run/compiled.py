"""A command that had nothing to do, compiled: all that it looked at, and all that it told.

As long as what it looked at is the same, it would tell the same again; so `replay` compares, and tells it, without
reading YAML, building models or importing anything that would take longer than the work. Whatever differs, or is
not there, or cannot be told for sure, is left to the long way, which then compiles anew.
"""

import contextlib
import fcntl
import json
import os
import sys
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kflow import durable
from kflow.run.clock import new_id, now
from kflow.run.surroundings import devices, git_state
from kflow.signature import states

FORMAT = 1
FOLDER = "compiled"
COMMANDS = ("plan", "run")
BEGAN = time.time_ns()
"""When this command began: this module is imported before anything is read."""
RUN_ID, DURATION = "\0", "\1"
"""Stand in what is told for the id and the duration of a run; no text that is shown holds such characters."""
_KEPT = 20
"""Compiled commands that a store keeps."""
_METADATA = (".dist-info", ".egg-info", ".egg-link", ".pth")


def identity(arguments: Sequence[str]) -> list[Any]:
    """Return what a command is, and in what surroundings: compiled, it stands for no other."""
    environ = {name: text for name, text in sorted(os.environ.items()) if name.startswith(("KFLOW_", "CUDA_VISIBLE"))}
    machine = os.uname()
    return [
        FORMAT,
        list(arguments),
        os.getcwd(),  # noqa: PTH109
        os.geteuid(),
        environ,
        [sys.version, sys.executable, sys.path],
        [machine.sysname, machine.release, machine.version, machine.machine],
        devices(),
    ]


def installed() -> list[list[str]]:
    """Return the names that installed packages have, with their versions, in each folder that Python imports from."""
    found = []
    for folder in sys.path:
        try:
            names = os.listdir(folder or ".")  # noqa: PTH208
        except OSError:  # a zip file, or nothing
            names = []
        found.append(sorted(name for name in names if name.endswith(_METADATA)))
    return found


def place(store: str, key: Sequence[Any]) -> str:
    """Return the file for a compiled command."""
    return f"{store}/{FOLDER}/{zlib.crc32(json.dumps(key).encode()):08x}"


def write(store: str, key: Sequence[Any], value: Mapping[str, Any]) -> None:
    """Put a compiled command in place; those that were not used for longest go.

    Raises
    ------
    OSError
        If the store cannot be written.
    """
    path = place(store, key)
    folder = os.path.dirname(path)  # noqa: PTH120
    os.makedirs(folder, exist_ok=True)  # noqa: PTH103
    facts = {name: each for name, each in value.items() if name != "record"}
    # The record stands as it is: as a text within JSON it would take as long to read as all else.
    body = f"{json.dumps({'key': key, **facts})}\n{value.get('record') or ''}"
    durable.write_text(path, f"{zlib.crc32(body.encode()):08x}\n{body}")
    others = sorted(os.scandir(folder), key=lambda each: each.stat().st_mtime, reverse=True)
    for each in others[_KEPT:]:
        os.unlink(each)  # noqa: PTH108


def read(store: str, key: Sequence[Any]) -> dict[str, Any] | None:
    """Return a compiled command; None where there is none, or not a whole one."""
    try:
        check, _, body = durable.read_bytes(place(store, key)).decode("utf-8").partition("\n")
    except (OSError, ValueError):
        return None
    if check != f"{zlib.crc32(body.encode()):08x}":
        return None
    facts, _, record = body.partition("\n")
    found: dict[str, Any] = json.loads(facts)
    found["record"] = record or None
    return found if found["key"] == json.loads(json.dumps(key)) else None


def replay(arguments: Sequence[str]) -> int | None:
    """Do a command again that had nothing to do, if it still has nothing to do.

    Parameters
    ----------
    arguments : sequence of str
        The command line, without the program.

    Returns
    -------
    int or None
        The exit code; None, and nothing was done, if the command must go the long way.
    """
    began = time.monotonic()
    started = now()
    if not arguments or arguments[0] not in COMMANDS or "_KFLOW_COMPLETE" in os.environ:
        return None
    try:
        store = os.path.abspath(_named_store(arguments))  # noqa: PTH100
        found = read(store, identity(arguments))
        if found is None or not _is_as_it_was(found, store):
            return None
        if found["record"] is None:
            return _tell(found["told"], "", 0.0)
        return _record(found, store, started, began)
    except OSError:
        return None


def _named_store(arguments: Sequence[str]) -> str:
    """Return the store that a command names: where it is another, nothing compiled lies there for this command."""
    for number, text in enumerate(arguments):
        if text == "--store" and number + 1 < len(arguments):
            return arguments[number + 1]
        if text.startswith("--store="):
            return text.partition("=")[2]
    return os.environ.get("KFLOW_STORE") or ".kflow"


def _is_as_it_was(found: Mapping[str, Any], store: str) -> bool:
    """Tell whether everything that the command looked at is what it was then."""
    return (
        found["store"] == store
        and found["installed"] == installed()
        and all(_digest(os.environ.get(name)) == digest for name, digest in found["environ"].items())
        and found["folders"] == [identify(path) for path, *_ in found["folders"]]
        and _is_swept(store)
        and _are_there(found, store)
    )


def _are_there(found: Mapping[str, Any], store: str) -> bool:
    """Compare the files; entries that a run uses are noted as used, so that collecting garbage spares them."""
    entries = found["entries"]
    with _guard(store):
        if found["states"] != states([*(f"{entry}/manifest.json" for entry in entries), *found["files"]]):
            return False
        if found["record"] is not None:
            for entry in entries:
                with contextlib.suppress(OSError):
                    os.utime(entry)
    return True


@contextlib.contextmanager
def _guard(store: str) -> Iterator[None]:
    """Keep collecting away, as the store itself does."""
    descriptor = None
    try:
        with contextlib.suppress(OSError):
            descriptor = os.open(f"{store}/locks/guard", os.O_RDWR | os.O_CLOEXEC)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def identify(path: str) -> list[Any]:
    """Return a folder with what tells it from any other, whatever lies in it."""
    try:
        found = os.stat(path)  # noqa: PTH116
    except FileNotFoundError:
        return [path, -1, -1]
    return [path, found.st_dev, found.st_ino]


def _is_swept(store: str) -> bool:
    """Tell whether a run would find nothing to remove: checkpoints of a step that is not done stay where they are."""
    work, steps = (_list(f"{store}/{name}") for name in ("tmp", "checkpoints"))
    manifests = (f"{store}/entries/{step[:2]}/{step}/manifest.json" for step in steps)
    return not work and not any(map(os.path.exists, manifests))


def _list(folder: str) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208
    except FileNotFoundError:
        return []


def _digest(text: str | None) -> str | None:
    import hashlib  # most workflows use no variables

    return None if text is None else hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _record(found: Mapping[str, Any], store: str, started: str, began: float) -> int | None:
    """Write the record of the run, and tell it."""
    run = new_id(found["workflow"])
    folder = f"{store}/runs/{run}"
    git = git_state(found["root"])
    duration = round(time.monotonic() - began, 3)
    moments = {"id": run, "status": "succeeded", "started": started, "finished": now(), "duration": duration}
    os.makedirs(f"{folder}/logs")  # noqa: PTH103
    try:
        durable.write_text(f"{folder}/record.json", complete(found["record"], moments, git))
    except OSError:
        with contextlib.suppress(OSError):
            os.rmdir(f"{folder}/logs")  # noqa: PTH106
            os.rmdir(folder)  # noqa: PTH106
        raise
    return _tell(found["told"], run, duration)


def complete(record: str, moments: Mapping[str, Any], git: tuple[str, bool] | None) -> str:
    """Return the text of a record from what stays the same: put in when it was, and the state of git."""
    head = "".join(f'\n "{name}": {json.dumps(value)},' for name, value in moments.items())
    tail = "null"
    if git is not None:
        tail = f'{{\n  "commit": "{git[0]}",\n  "is_dirty": {"true" if git[1] else "false"}\n }}'
    return f'{{\n "format": 1,{head}{record}{tail}\n}}\n'


def _tell(told: str, run: str, duration: float) -> int:
    """Print what the command tells; whoever has gone is not told."""
    text = told.replace(RUN_ID, run).replace(DURATION, f"{duration:.1f} s")
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
