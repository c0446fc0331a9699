"""Entries are published whole or not at all, by one of those who try."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kflow.artifacts import ExternalFile
from kflow.store.entry import Entry, Manifest, Output, seal
from kflow.store.removal import sweep
from kflow.store.store import Store
from kflow.store.upkeep import Fate, inspect, set_aside

KEY = "ab" * 32


def publish(store: Store, content: str = "12345", key: str = KEY) -> Path:
    with store.stage() as staging:
        (staging.folder / "out").mkdir()
        (staging.folder / "out" / "a.txt").write_text(content)
        manifest = Manifest(key, "kind", {"a": Output("file", "digest", {"name": "a"})})
        return store.commit(staging, manifest).folder


def test_what_is_committed_is_found(tmp_path: Path) -> None:
    """A look-up gives the manifest and the files."""
    publish(Store(tmp_path))

    entry = Store(tmp_path).lookup(KEY)
    assert entry is not None
    assert (entry.folder / "out" / "a.txt").read_text() == "12345"
    assert entry.digests == {"a": "digest"}


def test_looking_up_writes_nothing(tmp_path: Path) -> None:
    """Not even the folder of the store."""
    store = Store(tmp_path / "store")

    assert store.lookup(KEY) is None
    assert not store.root.exists()


def test_what_is_staged_and_not_committed_is_removed(tmp_path: Path) -> None:
    """Also when the work on it fails."""
    store = Store(tmp_path)

    def fail() -> None:
        with store.stage() as staging:
            (staging.folder / "part").write_text("x")
            raise ValueError("no luck")

    with pytest.raises(ValueError, match="no luck"):
        fail()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_the_first_of_two_commits_stays(tmp_path: Path) -> None:
    """The second runner gets the entry that is there."""
    store = Store(tmp_path)
    first = publish(store, "first")
    second = publish(store, "again")

    assert second == first
    assert (first / "out" / "a.txt").read_text() == "first"


@pytest.mark.parametrize("damage", ["file truncated", "manifest gone", "manifest cut"])
def test_a_damaged_entry_is_a_miss_and_is_set_aside(tmp_path: Path, damage: str) -> None:
    """The next commit takes its place, and the damaged one is kept."""
    store = Store(tmp_path)
    folder = publish(store)
    match damage:
        case "file truncated":
            os.truncate(folder / "out" / "a.txt", 2)
        case "manifest gone":
            (folder / "manifest.json").unlink()
        case "manifest cut":
            os.truncate(folder / "manifest.json", 20)

    assert store.lookup(KEY) is None
    publish(store, "anew!")
    found = store.lookup(KEY)
    assert found is not None
    assert (found.folder / "out" / "a.txt").read_text() == "anew!"
    assert len(list((tmp_path / "damaged").iterdir())) == 1


def test_every_flipped_bit_of_a_manifest_is_a_miss(tmp_path: Path) -> None:
    """And is found by reading the store; the other entry is still sound."""
    store, other = Store(tmp_path), "cd" * 32
    publish(store, key=other)
    path = publish(store) / "manifest.json"
    text = path.read_bytes()
    missed, unseen = [], []
    for number in range(8 * len(text)):
        flipped = bytearray(text)
        flipped[number // 8] ^= 1 << number % 8
        path.write_bytes(flipped)
        if store.lookup(KEY):
            missed.append(number)
        if [(each.fingerprint, each.damaged) for each in inspect(store) if each.damaged] != [(KEY, ["manifest.json"])]:
            unseen.append(number)
    path.write_bytes(text)

    assert (missed, unseen) == ([], [])
    assert store.lookup(KEY) is not None


@pytest.mark.parametrize("what", ["deep JSON", "deep JSON with a digest", "a pipe", "a folder", "a device", "a hole"])
def test_whatever_lies_in_the_place_of_a_manifest_is_damage(tmp_path: Path, what: str) -> None:
    """It is waited for by nobody, found by reading the store, set aside and made again."""
    store = Store(tmp_path)
    path = publish(store) / "manifest.json"
    path.unlink()
    match what:
        case "deep JSON":
            path.write_text("[" * 200_000)
        case "deep JSON with a digest":
            path.write_bytes(seal(f'{{"a": {"[" * 200_000}{"]" * 200_000}}}'))
        case "a pipe":
            os.mkfifo(path)
        case "a folder":
            path.mkdir()
        case "a device":
            path.symlink_to("/dev/zero")
        case "a hole":
            path.touch()
            os.truncate(path, 2**40)

    assert store.lookup(KEY) is None
    assert [each.damaged for each in inspect(store)] == [["manifest.json"]]
    assert store.explain_miss(KEY) == "its stored result is damaged"
    publish(store)
    assert store.lookup(KEY) is not None


@pytest.mark.parametrize("what", ["deep JSON", "a pipe"])
def test_whatever_lies_in_the_place_of_a_note_on_reading_is_read_past(tmp_path: Path, what: str) -> None:
    """The entry is read anew."""
    store = Store(tmp_path)
    publish(store)
    entry = store.lookup(KEY)
    assert entry is not None
    path = tmp_path / "verified" / KEY
    path.parent.mkdir()
    if what == "a pipe":
        os.mkfifo(path)
    else:
        path.write_text("[" * 200_000)

    assert Store(tmp_path).is_sound(entry)


def test_an_entry_is_read_by_the_first_process_that_takes_it(tmp_path: Path) -> None:
    """The one that has published it need not; the reading is noted."""
    store = Store(tmp_path)
    publish(store)
    entry = store.lookup(KEY)
    assert entry is not None
    note = tmp_path / "verified" / KEY
    told = []
    for each in (store, Store(tmp_path)):
        told.append((each.is_sound(entry), note.exists()))

    assert told == [(True, False), (True, True)]


def test_what_was_read_is_not_read_again_until_it_changes(tmp_path: Path) -> None:
    """Its state is noted, with the time of its last change of any kind, which nobody can set back."""
    file = publish(Store(tmp_path)) / "out" / "a.txt"
    store, entry = Store(tmp_path), Store(tmp_path).lookup(KEY)
    assert entry is not None
    before = store.is_sound(entry)
    times = file.stat().st_mtime_ns
    file.write_text("54321")
    os.utime(file, ns=(times, times))

    assert (before, store.is_sound(entry), Store(tmp_path).is_sound(entry)) == (True, False, False)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["format", "outputs", "files"]), inner),
    max_leaves=8,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=json_values)
def test_any_json_in_the_place_of_a_manifest_is_a_miss(tmp_path: Path, value: object) -> None:
    """A look-up never fails on what others wrote."""
    folder = tmp_path / "entries" / KEY[:2] / KEY
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_bytes(seal(json.dumps({"format": 3, "outputs": value, "files": value})))

    assert Store(tmp_path).lookup(KEY) is None


def test_an_entry_under_the_name_of_another_is_a_miss(tmp_path: Path) -> None:
    """A folder that was renamed by hand proves nothing."""
    store = Store(tmp_path)
    folder = publish(store)
    other = "ab" + "cd" * 31
    folder.rename(folder.with_name(other))

    assert store.lookup(other) is None


def test_a_claim_keeps_another_waiting(tmp_path: Path) -> None:
    """Until the holder lets go; a claim on another fingerprint does not wait."""
    store = Store(tmp_path)
    order: list[str] = []

    def wait() -> None:
        with Store(tmp_path).claim(KEY):
            order.append("second")

    other = threading.Thread(target=wait)
    with store.claim(KEY):
        other.start()
        with store.claim("cd" * 32):
            time.sleep(0.3)
        order.append("first")
    other.join(10)

    assert order == ["first", "second"]


def test_a_claim_keeps_another_process_waiting(tmp_path: Path) -> None:
    """It says so before it waits, and goes on when the holder has let go; all claims share one file."""
    code = (
        "import sys, time; from pathlib import Path; from kflow.store.store import Store\n"
        "def wait(seconds):\n"
        "    print('waits', flush=True)\n"
        "    time.sleep(60 * seconds)\n"
        f"with Store(Path(sys.argv[1])).claim({KEY!r}, wait): print('holds')\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with Store(tmp_path).claim("cd" * 32), Store(tmp_path).claim(KEY):
        other = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert other.stdout is not None
        first = other.stdout.readline()
    rest, _ = other.communicate(timeout=30)

    assert (first, rest) == ("waits\n", "holds\n")
    assert [each.name for each in (tmp_path / "locks").iterdir()] == ["claims"]


def test_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    """The kernel lets go of the lock of a process that is no more."""
    code = (
        "import sys, time; from pathlib import Path; from kflow.store.store import Store\n"
        f"with Store(Path(sys.argv[1])).claim({KEY!r}): print('held', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        holder.kill()

    with Store(tmp_path).claim(KEY):
        assert holder.wait() == -9


def test_many_who_publish_one_entry_at_once(tmp_path: Path) -> None:
    """Without any lock all of them get a whole entry, and one stays."""
    store = Store(tmp_path)
    threads = [threading.Thread(target=publish, args=(store, f"{number:05}")) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert store.lookup(KEY) is not None
    assert not (tmp_path / "damaged").exists()
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("supersede", [False, True])
def test_what_gives_way_and_was_not_damaged_is_not_kept_for_study(tmp_path: Path, *, supersede: bool) -> None:
    """An entry whose data outside was touched, and one that a run by force replaces, are called damaged by nobody."""
    store, source = Store(tmp_path / "store"), tmp_path / "a.txt"
    source.write_text("a")
    for digest in ("one", "other"):
        with store.stage() as staging:
            (staging.folder / "b.txt").write_text("b")
            external = () if supersede else (ExternalFile.of(source),)
            manifest = Manifest(KEY, "fetch", {"a": Output("file", digest, {"name": "a"})}, external=external)
            store.commit(staging, manifest, supersede=supersede)
        if not supersede:
            os.utime(source, (0, 0))

    found = store.lookup(KEY)
    assert found
    assert found.digests == {"a": "other"}
    assert not (tmp_path / "store" / "damaged").exists()
    assert list((tmp_path / "store" / "tmp").iterdir()) == []


def test_what_has_gone_is_not_sound(tmp_path: Path) -> None:
    """Though it was there when it was looked up, and even if it was published here."""
    store = Store(tmp_path)
    publish(store)
    entry = store.lookup(KEY)
    assert entry
    first = store.is_sound(entry)
    entry.folder.rename(tmp_path / "elsewhere")

    assert (first, store.is_sound(entry), Store(tmp_path).is_sound(entry)) == (True, False, False)


def test_an_entry_that_was_made_again_since_is_not_set_aside(tmp_path: Path) -> None:
    """Reading all of a store takes its time."""
    store = Store(tmp_path)
    (publish(store) / "out" / "a.txt").write_text("54321")
    (found,) = [each.fingerprint for each in inspect(store) if each.damaged]
    publish(store)

    assert set_aside(store, found) is Fate.SOUND
    assert store.lookup(KEY)
    assert len(list((tmp_path / "damaged").iterdir())) == 1


def test_an_entry_that_was_removed_while_it_was_read_is_gone(tmp_path: Path) -> None:
    """Somebody has collected it; nothing is damaged."""
    store = Store(tmp_path)
    shutil.rmtree(publish(store))

    assert set_aside(store, KEY) is Fate.GONE
    assert not (tmp_path / "damaged").exists()


def test_what_was_replaced_while_it_was_read_is_read_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a damaged file was put in the place of a damaged one, there is no sound entry."""
    file = publish(Store(tmp_path)) / "out" / "a.txt"
    file.write_text("54321")
    find_damage = Entry.find_damage

    def restore_another(self: Entry) -> list[str]:
        damage = find_damage(self)
        (tmp_path / "restored").write_text("33333")
        (tmp_path / "restored").replace(file)
        return damage

    with monkeypatch.context() as patch:
        patch.setattr(Entry, "find_damage", restore_another)
        found = Store(tmp_path).lookup_sound(KEY)

    assert found is None
    assert Store(tmp_path).lookup_sound(KEY) is None
    assert Store(tmp_path).lookup(KEY) is None


def test_the_metrics_of_an_entry(tmp_path: Path) -> None:
    """Those of all its outputs."""
    outputs = {name: Output("metrics", "d", {"metrics": {name: 1.0}}) for name in ("loss", "accuracy")}

    assert Entry(str(tmp_path), Manifest(KEY, "kind", outputs)).metrics == {"loss": 1.0, "accuracy": 1.0}


def test_why_there_is_no_entry(tmp_path: Path) -> None:
    """Never made, damaged, and made from a file that has been touched are told apart."""
    store, source = Store(tmp_path / "store"), tmp_path / "a.txt"
    source.write_text("a")
    missing = store.explain_miss("0" * 64)
    with store.stage() as staging:
        (staging.folder / "b.txt").write_text("b")
        external = (ExternalFile.of(source),)
        entry = store.commit(staging, Manifest("0" * 64, "fetch", {}, external=external))
    os.utime(source, (0, 0))
    touched = store.explain_miss("0" * 64)
    (entry.folder / "manifest.json").write_text("{")

    assert missing == "its result is not in the store"
    assert touched == f"{source} was touched, moved or changed"
    assert store.explain_miss("0" * 64) == "its stored result is damaged"


def test_unfinished_work_of_the_dead_is_swept(tmp_path: Path) -> None:
    """A folder that somebody holds stays, and so does one that was just made."""
    store = Store(tmp_path)
    for name in ("dead", "new"):
        (tmp_path / "tmp" / name).mkdir(parents=True)
    os.utime(tmp_path / "tmp" / "dead", (0, 0))
    with store.stage() as staging:
        os.utime(staging.folder, (0, 0))
        sweep(store)

        assert {path.name for path in (tmp_path / "tmp").iterdir()} == {"new", staging.folder.name}


def leave_checkpoint(store: Store) -> Path:
    """Leave what a training has done so far."""
    folder = store.checkpoints(KEY)
    folder.mkdir(parents=True)
    (folder / "checkpoint.npz").write_bytes(b"x")
    return folder


def test_a_checkpoint_goes_when_its_training_is_published(tmp_path: Path) -> None:
    """Its runner was killed before it could tidy up; nothing else of it stays either."""
    store = Store(tmp_path)
    publish(store)
    folder = leave_checkpoint(store)
    sweep(store)

    assert not folder.exists()
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("what", ["nothing", "another format", "cut off"])
def test_a_checkpoint_stays_while_its_training_is_to_be_done(tmp_path: Path, what: str) -> None:
    """An entry that counts as missing is made again, from where the training was killed."""
    store = Store(tmp_path)
    if what != "nothing":
        entry = publish(store)
        (entry / "manifest.json" if what == "another format" else entry / "out" / "a.txt").write_text("{}")
    folder = leave_checkpoint(store)
    sweep(store)

    assert (folder / "checkpoint.npz").exists()


def test_a_checkpoint_stays_while_somebody_trains(tmp_path: Path) -> None:
    """As with ``--force``, though a result is there."""
    store = Store(tmp_path)
    publish(store)
    folder = leave_checkpoint(store)
    with store.claim(KEY):
        sweep(Store(tmp_path))

    assert (folder / "checkpoint.npz").exists()


def test_a_damaged_entry_gives_way_to_a_sound_one(tmp_path: Path) -> None:
    """A file with other bytes and the same size is no reason to throw a good result away."""
    store = Store(tmp_path)
    (publish(store) / "out" / "a.txt").write_text("54321")

    assert (publish(store) / "out" / "a.txt").read_text() == "12345"
    assert len(list((tmp_path / "damaged").iterdir())) == 1
