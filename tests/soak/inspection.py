"""What is left of a run that was stopped: an inspection of its store, and of the processes that it started."""

import os
import time
from pathlib import Path

from kflow.run.record import RECORD, read_record, run_folders
from kflow.store.store import Store
from tests.soak.store_audit import find_faults

MARK = "KFLOW_SOAK_MARK"
"""An environment variable: whoever has it was started by the run under test, or by one of its children."""


def find_corruption(root: Path) -> list[str]:
    """Return all that is wrong in a store: entries that are not whole, records that cannot be read or are not true."""
    found = [f"set aside: {each.name}" for each in (root / "damaged").glob("*")] + find_faults(root)
    for folder in run_folders(root):
        found += _find_lies(folder, Store(root))
    return found


def _find_lies(folder: Path, store: Store) -> list[str]:
    """Return what a record says is done, and is not; a run that was stopped before its first word has no record."""
    if not (folder / RECORD).exists():
        return []
    record = read_record(folder)
    if record is None:
        return [f"record {folder.name} cannot be read"]
    lies = []
    for name, step in record.steps.items():
        if step.status in {"run", "reused"}:
            entry = store.lookup(step.fingerprint or "")
            if entry is None or {output: each.digest for output, each in step.outputs.items()} != entry.digests:
                lies.append(f"record {folder.name}: {name} is not in the store as it says")
    return lies


def survivors(mark: str, patience: float = 30.0) -> list[str]:
    """Return the command lines of the processes with a mark that are still there when patience ends."""
    end = time.monotonic() + patience
    while (alive := _alive(mark)) and time.monotonic() < end:
        time.sleep(0.05)
    return alive


def _alive(mark: str) -> list[str]:
    alive = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and int(folder.name) != os.getpid():
            try:
                if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                    alive.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:  # it has ended meanwhile, or is somebody else's
                continue
    return alive
