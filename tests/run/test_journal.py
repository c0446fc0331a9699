"""The journal of a run under way."""

import math
import time
from pathlib import Path

import pytest

from kflow.run import journal
from kflow.run.journal import Journal, read_journal


def test_ends_that_follow_each_other_reach_the_disk_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beginnings need not; the first end sets the time by which it and those after it are on the disk."""
    synced: list[int] = []
    monkeypatch.setattr(journal.os, "fsync", synced.append)

    with Journal(tmp_path) as kept:
        kept.note("a", '{"status":"running"}', is_end=False)
        idle = kept.catch_up()
        for name in "abc":
            kept.note(name, '{"status":"run"}', is_end=True)
        left = kept.catch_up()
        early = len(synced)
        assert left is not None
        time.sleep(left)
        after = kept.catch_up()

    assert (idle, early, after, len(synced)) == (None, 0, None, 1)
    assert 0 < left <= journal.LAG


def test_what_was_noted_can_be_read_at_once(tmp_path: Path) -> None:
    """A process that is killed loses nothing: what it wrote is with the system, on the disk or not."""
    with Journal(tmp_path) as kept:
        kept.note("a", '{"status":"run"}', is_end=True)
        found = list(read_journal(tmp_path))

    assert found == [("a", {"status": "run"}, {})]


def test_lines_that_say_nothing_are_left_out(tmp_path: Path) -> None:
    """Those of an older kflow have no metrics; those with metrics that are no numbers are damaged."""
    with Journal(tmp_path) as kept:
        kept.note("a", "{}", '{"loss": "-Infinity", "right": 1}', is_end=True)
        for damaged in ("3", "[0]", "null", '"x"', '{"loss": "x"}', '{"loss": []}', f'{{"loss": 1{"0" * 400}}}'):
            kept.note("b", "{}", damaged, is_end=True)
        kept.note("c", '{"status": "run"}', is_end=True)
    with (tmp_path / journal.JOURNAL).open("a") as stream:
        stream.write('[]\n3\n"x"\nnull\n{"step": "d", "state": {}')

    assert list(read_journal(tmp_path)) == [
        ("a", {}, {"loss": -math.inf, "right": 1.0}),
        ("c", {"status": "run"}, {}),
    ]
