"""Print what kflow, Keras and pooch make of every fault of the wire and every hostile archive: `make hostile`.

    python -m tests.hostile.table [wire | archives ...]

Each library meets the cases in a process of its own, which is ended when a case takes too long. The exit status
says whether kflow was right in all of them.
"""

import importlib
import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any

PARTS = ("wire", "archives")
SUBJECTS = ("kflow", "keras", "pooch")
PATIENCE = 20.0
"""Seconds for a case, which takes kflow less than three."""


def main() -> int:
    """Print a table for each part."""
    parts = [(name, importlib.import_module(f"tests.hostile.{name}")) for name in sys.argv[1:] or PARTS]
    is_right = True
    for name, part in parts:
        with ThreadPoolExecutor(len(SUBJECTS)) as pool:
            columns = list(pool.map(lambda subject, name=name, part=part: _meet_all(name, part, subject), SUBJECTS))
        print(_table(name, part, columns))  # noqa: T201
        is_right &= all(found == "right" for found in columns[0])
    return 0 if is_right else 1


def _table(name: str, part: ModuleType, columns: list[list[str]]) -> str:
    totals = [f"{sum(text == 'right' for text in found)} of {len(found)}" for found in columns]
    cells = [(str(case.line), case.name, _expected(case)) for case in part.CASES]
    rows = [
        (name, "case", "expected", *SUBJECTS),
        *((*cell, *found) for cell, *found in zip(cells, *columns, strict=True)),
        ("", "right", "", *totals),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join(["", *lines])


def _expected(case: Any) -> str:
    """Return what is expected of a case, in the words of its part."""
    if hasattr(case, "expected"):
        return str(case.expected)
    return "either" if case.either else "refuse" if case.refused is not None else "unpack"


def _meet_all(name: str, part: ModuleType, subject: str) -> list[str]:
    """Let a library meet all cases of a part, in a child that is replaced when it hangs or dies."""
    found: list[str] = []
    context = get_context("spawn")
    while len(found) < len(part.CASES):
        ours, theirs = context.Pipe()
        child = context.Process(target=_meet, args=(name, subject, len(found), theirs), daemon=True)
        child.start()
        theirs.close()
        try:
            ours.recv()  # it has imported the library
            while len(found) < len(part.CASES) and ours.poll(PATIENCE):
                found.append(ours.recv())
            if len(found) < len(part.CASES):
                found.append(f"HANGS (over {PATIENCE:g} s)")
        except EOFError:
            found.append("DIES")
        child.kill()
        child.join()
    return found


def _meet(name: str, subject: str, first: int, answers: Connection) -> None:
    """Meet the cases from one on, sending what comes of each."""
    with Path(os.devnull).open("w") as nowhere:  # what libraries say is not the table
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    importlib.import_module("kflow.core.files" if subject == "kflow" else subject)
    part = importlib.import_module(f"tests.hostile.{name}")
    answers.send("ready")
    for case in part.CASES[first:]:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            answers.send(part.outcome(case, subject, Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
