"""What is in a store can be listed, verified and collected, also while others use it."""

import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from kflow.store.entry import Manifest, Output
from kflow.store.removal import discard
from kflow.store.store import Store
from kflow.store.upkeep import Policy, collect, inspect, list_usage

NOW = time.time()


def publish(store: Store, number: int, size: int = 10) -> str:
    key = f"{number:064x}"
    with store.stage() as staging:
        (staging.folder / "a").mkdir()
        (staging.folder / "a" / "x").write_bytes(bytes(size))
        store.commit(staging, Manifest(key, "kind", {"a": Output("file", "digest", {"name": "a"})}))
    return key


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Give a store with four entries of 10 bytes, last used 0, 1, 2 and 3 days ago."""
    made = Store(tmp_path)
    for number in range(4):
        key = publish(made, number)
        age = number * 86400
        os.utime(tmp_path / "entries" / key[:2] / key, (NOW - age, NOW - age))
    return made


@pytest.mark.parametrize(
    ("policy", "gone"),
    [
        (Policy(), []),
        (Policy(older_than=1.5 * 86400), [3, 2]),
        (Policy(max_size=25), [3, 2]),
        (Policy(max_size=25, grace=2.5 * 86400), [3]),
        (Policy(referenced={f"{0:064x}", f"{2:064x}"}), [3, 1]),
        (Policy(referenced=set()), [3, 2, 1]),
        (Policy(older_than=2.5 * 86400, max_size=30, referenced={f"{1:064x}"}, grace=-9), [3, 2, 0]),
    ],
)
def test_what_a_policy_removes(store: Store, policy: Policy, gone: list[int]) -> None:
    """The least recently used first, never what was used within the grace period; a dry run removes nothing."""
    planned = [int(each.fingerprint, 16) for each in collect(store, policy, is_dry=True)]
    kept = len(list_usage(store))
    removed = [int(each.fingerprint, 16) for each in collect(store, policy)]

    assert (planned, removed, kept) == (gone, gone, 4)
    assert {int(each.fingerprint, 16) for each in list_usage(store)} == set(range(4)) - set(gone)
    assert list((store.root / "tmp").iterdir()) == []


def test_an_entry_that_is_used_meanwhile_stays(store: Store) -> None:
    """Between the choice and the removal a run has taken it."""
    (oldest,) = collect(store, Policy(older_than=2.5 * 86400), is_dry=True)
    os.utime(oldest.folder, (NOW, NOW))

    assert not discard(store, oldest.folder, NOW - 3600)
    entry = store.lookup(oldest.fingerprint)
    assert entry is not None
    assert store.take(entry)


def test_an_entry_that_was_collected_meanwhile_cannot_be_taken(store: Store) -> None:
    """Whoever has looked it up makes it again."""
    (oldest,) = collect(store, Policy(older_than=2.5 * 86400), is_dry=True)
    entry = store.lookup(oldest.fingerprint)
    assert discard(store, oldest.folder, NOW)

    assert entry is not None
    assert not store.take(entry)


def test_taking_an_entry_spares_it(store: Store) -> None:
    """It counts as used now."""
    entry = store.lookup(f"{3:064x}")
    assert entry is not None
    assert store.take(entry)

    assert [int(each.fingerprint, 16) for each in collect(store, Policy(referenced=set()))] == [2, 1]


def leave(store: Store, part: str, name: str, days: float, size: int = 10) -> Path:
    """Leave a folder in a part of the store, last written some days ago."""
    folder = store.root / part / name
    folder.mkdir(parents=True)
    (folder / "x").write_bytes(bytes(size))
    os.utime(folder, (NOW - days * 86400,) * 2)
    return folder


@pytest.mark.parametrize(
    ("policy", "gone"),
    [
        (Policy(), []),
        (Policy(older_than=4.5 * 86400), ["checkpoints", "damaged"]),
        (Policy(older_than=5.5 * 86400), ["damaged"]),
        (Policy(referenced={f"{number:064x}" for number in range(4)}), ["checkpoints", "damaged"]),
        (Policy(referenced={f"{number:064x}" for number in range(9)}), ["damaged"]),
        (Policy(referenced=set(), grace=9 * 86400), []),
        (Policy(max_size=55), ["damaged"]),
        (Policy(max_size=45), ["checkpoints", "damaged"]),
    ],
)
def test_what_was_left_goes_as_entries_do(store: Store, policy: Policy, gone: list[str]) -> None:
    """By age, by size, and where no run speaks of it; what was set aside no run asks for."""
    left = [leave(store, "checkpoints", f"{7:064x}", 5), leave(store, "damaged", f"{8:016x}-0123abcd", 6)]
    planned = sorted(each.part for each in collect(store, policy, is_dry=True) if each.part != "entries")
    removed = sorted(each.part for each in collect(store, policy) if each.part != "entries")

    assert (planned, removed) == (gone, gone)
    assert [each.parent.name for each in left if not each.exists()] == gone
    assert list((store.root / "tmp").iterdir()) == []


def test_the_checkpoints_of_a_training_under_way_stay(store: Store) -> None:
    """However long its epochs take: its runner holds the fingerprint."""
    folder = leave(store, "checkpoints", f"{7:064x}", 5)
    with store.claim(f"{7:064x}"):
        held = collect(store, Policy(older_than=4 * 86400))
        stayed = folder.exists()

    assert (held, stayed) == ([], True)
    assert [each.kind for each in collect(store, Policy(older_than=4 * 86400))] == ["checkpoint"]


def test_what_is_set_aside_is_kept_for_a_while(store: Store) -> None:
    """It counts from the moment at which it was found damaged."""
    store.set_aside(f"{3:064x}")

    assert [each.fingerprint for each in collect(store, Policy(older_than=2.5 * 86400))] == []
    assert len(collect(store, Policy(older_than=2.5 * 86400, grace=-9))) == 0
    assert len(collect(store, Policy(referenced={f"{number:064x}" for number in range(4)}, grace=-9))) == 1


def test_an_entry_whose_manifest_is_of_no_use_goes_as_others_do(store: Store) -> None:
    """It takes room, and is listed; an earlier version of kflow may have written it."""
    folder = store.root / "entries" / "00" / f"{3:064x}"
    (folder / "manifest.json").write_text('{"format": 2}')
    os.utime(folder, (NOW - 3 * 86400,) * 2)

    assert [each.kind for each in list_usage(store)] == ["kind", "kind", "kind", "unreadable"]
    assert [each.kind for each in collect(store, Policy(older_than=2.5 * 86400))] == ["unreadable"]
    assert not folder.exists()


def test_collecting_beside_those_who_use_and_make(tmp_path: Path) -> None:
    """What is taken is there, or a miss; nobody finds half an entry."""
    store, ends = Store(tmp_path), threading.Event()
    troubles: list[object] = []

    def use() -> None:
        for number in range(300):
            key = f"{number % 7:064x}"
            entry = store.lookup(key)
            if entry is None or not store.take(entry):
                publish(store, number % 7)
            elif entry.find_damage() and store.lookup(key) is not None:
                troubles.append(key)
        ends.set()

    def clean() -> None:
        while not ends.is_set():
            collect(store, Policy(referenced=set(), grace=0.02))

    threads = [threading.Thread(target=each) for each in (use, use, clean)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert troubles == []


@pytest.mark.parametrize("place", range(10))
def test_every_flipped_byte_is_found(store: Store, place: int) -> None:
    """By reading, whatever the size and the time say."""
    (entry,) = [each for each in store.entries() if each.manifest.fingerprint == f"{1:064x}"]
    path = entry.folder / "a" / "x"
    times = path.stat()
    path.write_bytes(bytes(place) + b"\1" + bytes(9 - place))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    assert [(each.fingerprint, each.damaged) for each in inspect(store) if each.damaged] == [(f"{1:064x}", ["a/x"])]


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"fingerprint": 5}'])
def test_a_damaged_manifest_is_found(store: Store, text: str | None) -> None:
    """Gone, empty, cut or of another form."""
    (entry,) = [each for each in store.entries() if each.manifest.fingerprint == f"{1:064x}"]
    path = entry.folder / "manifest.json"
    path.unlink()
    if text is not None:
        path.write_text(text)

    assert [(each.fingerprint, each.damaged) for each in inspect(store) if each.damaged] == [
        (f"{1:064x}", ["manifest.json"])
    ]


def test_what_lies_beside_the_entries_is_none(store: Store) -> None:
    """Files of the system, and an entry in a wrong place: no damage, as nobody will look for them."""
    (entry,) = [each for each in store.entries() if each.manifest.fingerprint == f"{1:064x}"]
    (store.root / "entries" / "zz").mkdir()
    (store.root / "entries" / "zz" / ".DS_Store").touch()
    shutil.copytree(entry.folder, store.root / "entries" / "zz" / entry.folder.name)

    assert [each.damaged for each in inspect(store) if each.damaged] == []


def test_an_entry_is_read_once_unless_it_is_touched(store: Store) -> None:
    """What was published is known to be sound; what was written to since is read again."""
    (entry,) = [each for each in store.entries() if each.manifest.fingerprint == f"{1:064x}"]
    path = entry.folder / "a" / "x"
    untouched = store.is_sound(entry)
    os.utime(path, (5, 5))
    touched = store.is_sound(entry)
    path.write_bytes(b"0123456789")

    assert (untouched, touched, store.is_sound(entry)) == (True, True, False)


def test_a_note_on_a_sound_entry_is_no_program(store: Store) -> None:
    """It has the mode of any other file."""
    (entry,) = [each for each in store.entries() if each.manifest.fingerprint == f"{1:064x}"]
    note = store.root / "verified" / entry.manifest.fingerprint
    Store(store.root).is_sound(entry)

    assert note.stat().st_mode & 0o777 == (entry.folder / "manifest.json").stat().st_mode & 0o777
