"""What a step was given: whoever asks is told when it is not what it was, as long as that can be seen."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from kflow.artifacts import digest_file
from kflow.errors import RunError
from kflow.run.given import Given, Original
from kflow.signature import state
from kflow.store.entry import Entry, Manifest, Output, was_replaced
from kflow.store.store import Store


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Give a file outside the store."""
    path = tmp_path / "original.txt"
    path.write_text("12345")
    os.utime(path, (1, 1))
    return path


@pytest.fixture
def entry(tmp_path: Path) -> Entry:
    """Publish an entry with one file."""
    store = Store(tmp_path / "store")
    with store.stage() as staging:
        (staging.folder / "out").mkdir()
        (staging.folder / "out" / "a.txt").write_text("12345")
        os.utime(staging.folder / "out" / "a.txt", (1, 1))
        return store.commit(staging, Manifest("ab" * 32, "kind", {"a": Output("file", "d", {"name": "a"})}))


def give(entry: Entry, file: Path) -> Given:
    """Return both as another process takes them."""
    given = Given({entry.place: entry.glance()}, [Original(str(file), digest_file(file), state(file))])
    return Given.from_task(json.loads(json.dumps(given.to_task())))


def overwrite(path: Path) -> None:
    """Change the bytes, and neither size nor time."""
    path.write_text("54321")
    os.utime(path, (1, 1))


def replace(path: Path) -> None:
    """Put another file in its place."""
    path.rename(path.with_name("before"))
    path.write_text("54321")


def move_away_and_back(path: Path) -> None:
    """Have another file in its place for a while."""
    replace(path)
    path.with_name("before").replace(path)


@pytest.mark.parametrize("touch", [lambda path: None, os.utime, lambda path: path.write_text("12345")])
def test_what_holds_the_same_bytes_is_what_it_was(entry: Entry, file: Path, touch: Callable[[Path], object]) -> None:
    """A touch is no change, nor are bytes that are written again; asked twice, as each state is noted."""
    given = give(entry, file)
    for path in (entry.folder / "out" / "a.txt", file):
        touch(path)

    given.require()
    given.require()


def put_beside(path: Path) -> None:
    """Write a file of one's own, and remove it, as SQLite does with its log."""
    path.with_name("log").write_text("x")
    path.with_name("log").unlink()


def permit(path: Path) -> None:
    """Set permissions, which are what they were."""
    path.chmod(path.stat().st_mode)
    path.parent.chmod(path.parent.stat().st_mode)


@pytest.mark.parametrize("meddle", [put_beside, permit])
def test_what_is_done_around_a_file_is_no_change(entry: Entry, file: Path, meddle: Callable[[Path], object]) -> None:
    """Libraries put files of theirs beside what they read, and backups touch whatever they find."""
    given, before = give(entry, file), entry.glance()
    meddle(entry.folder / "out" / "a.txt")

    given.require()
    assert not was_replaced(before, entry.glance())


@pytest.mark.parametrize("change", [overwrite, replace, move_away_and_back, Path.unlink])
def test_a_change_of_an_entry_is_noticed(entry: Entry, file: Path, change: Callable[[Path], object]) -> None:
    """Also one that sets the time back, or that lasted only a while."""
    given = give(entry, file)
    change(entry.folder / "out" / "a.txt")

    with pytest.raises(RunError, match=f"what it was given was changed while it ran: {entry.place}"):
        given.require()


def test_an_entry_that_was_removed_is_noticed(entry: Entry, file: Path) -> None:
    """By somebody who collects, whatever they were told."""
    given = give(entry, file)
    shutil.rmtree(entry.place)

    with pytest.raises(RunError, match="what it was given was changed"):
        given.require()


@pytest.mark.parametrize("change", [overwrite, replace, Path.unlink])
def test_a_change_of_a_file_outside_is_noticed(entry: Entry, file: Path, change: Callable[[Path], object]) -> None:
    """That a step reads itself, or a result that it takes refers to."""
    given = give(entry, file)
    change(file)

    with pytest.raises(RunError, match=r"the file .*original.txt was changed while the step ran"):
        given.require()
