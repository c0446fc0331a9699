"""What is pulled is what was pushed, or nothing; whatever lies in the remote, and whoever writes to it."""

import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from kflow.artifacts import digest_json
from kflow.artifacts.travel import Home
from kflow.store.entry import Entry, Manifest, Output, seal, unseal
from kflow.store.place import FolderPlace, RemoteError
from kflow.store.portable import RefusedError
from kflow.store.remote import Expected, Remote
from kflow.store.store import Store

KEY = "ab" * 32
NUMBERS = {"loss": 0.5}
EXPECTED = Expected(KEY, "demo", {"picture": "image", "numbers": "metrics"}, Home(lambda _: None))


def publish(store: Store, content: bytes = b"x" * 1000) -> Entry:
    digest = hashlib.sha256(content).hexdigest()
    with store.stage() as staging:
        (staging.folder / "picture").mkdir()
        (staging.folder / "picture" / "a.png").write_bytes(content)
        outputs = {
            "picture": Output("image", digest, {"name": "a.png"}),
            "numbers": Output("metrics", digest_json(NUMBERS), {"metrics": NUMBERS}),
        }
        return store.commit(staging, Manifest(KEY, "demo", outputs))


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """Give the folder of a remote that has one entry."""
    assert Remote(FolderPlace(tmp_path / "remote")).push(publish(Store(tmp_path / "first")))
    return tmp_path / "remote" / "kflow-1"


def pull(tmp_path: Path, remote: Remote | None = None) -> Entry | None:
    return (remote or Remote(FolderPlace(tmp_path / "remote"))).pull(EXPECTED, Store(tmp_path / "second"))


def the_file(there: Path) -> Path:
    (path,) = (path for path in (there / "files").rglob("*") if path.is_file())
    return path


def the_manifest(there: Path) -> Path:
    (path,) = (there / "entries").rglob("*.json")
    return path


def is_empty(store: Path) -> bool:
    """Tell whether a store has neither an entry nor a part of one."""
    return not [path for path in store.rglob("*") if path.is_file() and path.parent.name != "locks"]


# --- there and back ------------------------------------------------------------------------------------------


def test_what_was_pushed_is_pulled(tmp_path: Path, there: Path) -> None:
    """Files, digests and descriptions are the same, and the store finds it from then on."""
    entry = pull(tmp_path)

    assert entry is not None
    assert (entry.folder / "picture" / "a.png").read_bytes() == b"x" * 1000
    found = Store(tmp_path / "second").lookup(KEY)
    assert found is not None
    assert found.manifest == replace(publish(Store(tmp_path / "first")).manifest, files=found.manifest.files)
    assert the_file(there).name == hashlib.sha256(b"x" * 1000).hexdigest()


def test_a_file_of_any_name_is_pulled(tmp_path: Path) -> None:
    """Also one with the name that the manifest of an entry has, above it."""
    content = b'{"of": "the user"}'
    output = Output("file", hashlib.sha256(content).hexdigest(), {"name": "manifest.json"})
    with Store(tmp_path / "first").stage() as staging:
        (staging.folder / "file").mkdir()
        (staging.folder / "file" / "manifest.json").write_bytes(content)
        entry = Store(tmp_path / "first").commit(staging, Manifest(KEY, "fetch", {"file": output}))
    remote = Remote(FolderPlace(tmp_path / "remote"))
    remote.push(entry)
    pulled = remote.pull(replace(EXPECTED, kind="fetch", outputs={"file": "file"}), Store(tmp_path / "second"))

    assert pulled is not None
    assert (pulled.folder / "file" / "manifest.json").read_bytes() == content
    assert Store(tmp_path / "second").lookup(KEY) == pulled


def test_nothing_is_pulled_from_an_empty_remote(tmp_path: Path) -> None:
    """Nor is anything made there."""
    assert pull(tmp_path) is None
    assert not (tmp_path / "remote").exists()


def test_what_is_there_is_not_pushed_again(tmp_path: Path, there: Path) -> None:
    """Though it may be another result of the same step: what others may have used stays."""
    before = the_manifest(there).read_bytes()

    assert not Remote(FolderPlace(tmp_path / "remote")).push(publish(Store(tmp_path / "third"), b"y"))
    assert the_manifest(there).read_bytes() == before


# --- poison --------------------------------------------------------------------------------------------------


def change(path: Path, text: Callable[[dict[str, Any]], Any]) -> None:
    """Write a manifest anew after a change, with a digest that fits: whoever poisons one can do that."""
    value = unseal(path.read_bytes())
    text(value)
    path.write_bytes(seal(json.dumps(value)))


def add_file(name: str) -> Callable[[dict[str, Any]], Any]:
    def add(value: dict[str, Any]) -> None:
        value["files"][name] = value["files"]["picture/a.png"]

    return add


def set_numbers(there: Path, number: Any) -> None:
    def put(value: dict[str, Any]) -> None:
        numbers = {"loss": number}
        digest = digest_json(numbers)
        value["outputs"]["numbers"] = {"type": "metrics", "digest": digest, "description": {"metrics": numbers}}

    change(the_manifest(there), put)


def set_size(there: Path, size: Any) -> None:
    change(the_manifest(there), lambda value: value["files"]["picture/a.png"].update(size=size))


POISON: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "another byte": ("other bytes", lambda there: the_file(there).write_bytes(b"x" * 999 + b"y")),
    "cut short": ("other bytes", lambda there: the_file(there).write_bytes(b"x" * 500)),
    "longer": ("other bytes", lambda there: the_file(there).write_bytes(b"x" * 1001)),
    "empty": ("other bytes", lambda there: the_file(there).write_bytes(b"")),
    "gone": ("is not there", lambda there: the_file(there).unlink()),
    "no manifest": ("cannot be read", lambda there: the_manifest(there).write_text("[]")),
    "half a manifest": ("cannot be read", lambda there: the_manifest(there).write_bytes(b'{"format": 1')),
    "an endless manifest": ("cannot be read", lambda there: the_manifest(there).write_bytes(b"[" * 9_000_000)),
    "a deep manifest": ("cannot be read", lambda there: the_manifest(there).write_bytes(b"[" * 200_000)),
    "a deep manifest with a digest": (
        "cannot be read",
        lambda there: the_manifest(there).write_bytes(seal(f'{{"a": {"[" * 200_000}{"]" * 200_000}}}')),
    ),
    "one bit of a manifest": (
        "cannot be read",
        lambda there: the_manifest(there).write_bytes(the_manifest(there).read_bytes().replace(b"a.png", b"a.pnf")),
    ),
    "a manifest without a digest": (
        "cannot be read",
        lambda there: the_manifest(there).write_text(json.dumps(unseal(the_manifest(there).read_bytes()))),
    ),
    "another entry's": (
        "another entry",
        lambda there: change(the_manifest(there), lambda v: v.update(fingerprint="c")),
    ),
    "another format": ("cannot be read", lambda there: change(the_manifest(there), lambda v: v.update(format=9))),
    "another kind": (
        "not that of such a step",
        lambda there: change(the_manifest(there), lambda v: v.update(kind="k")),
    ),
    "no output": ("not that of such", lambda there: change(the_manifest(there), lambda v: v["outputs"].pop("numbers"))),
    "other numbers": (
        "its metrics is not what",
        lambda there: change(
            the_manifest(there), lambda v: v["outputs"]["numbers"]["description"]["metrics"].update(loss=0.1)
        ),
    ),
    "another digest": (
        "its image is not what",
        lambda there: change(the_manifest(there), lambda v: v["outputs"]["picture"].update(digest="0" * 64)),
    ),
    "a name that is a list": (
        "its image is described as no image can be",
        lambda there: change(the_manifest(there), lambda v: v["outputs"]["picture"]["description"].update(name=[])),
    ),
    "numbers that are none": ("its metrics is described as no metrics can be", lambda there: set_numbers(there, "low")),
    "a list of numbers": ("its metrics is described as no metrics can be", lambda there: set_numbers(there, [0.5])),
    "a number beyond numbers": ("its metrics is described as no", lambda there: set_numbers(there, 10**400)),
    "a number with half a name": (
        "its metrics is described as no",
        lambda there: change(
            the_manifest(there), lambda v: v["outputs"]["numbers"]["description"].update(metrics={"\ud800": 1.0})
        ),
    ),
    "an output of an unknown type": (
        "knows no values of type 'hologram'",
        lambda there: change(the_manifest(there), lambda v: v["outputs"]["numbers"].update(type="hologram")),
    ),
    **{
        f"a size of {size!r}": (reason, partial(set_size, size=size))
        for reason, sizes in {
            "its file 'picture/a.png' holds other bytes": (0, 1, 999, 1001, 10**18),
            "cannot be read": (-1, 1000.0, True, "1000", None, 2**63, [1000]),
        }.items()
        for size in sizes
    },
    "a digest that is a path": (
        "cannot be read",
        lambda there: change(
            the_manifest(there), lambda v: v["files"]["picture/a.png"].update(sha256="../" * 21 + "x")
        ),
    ),
    "one more file": (
        "its image is not what",
        lambda there: change(the_manifest(there), add_file("picture/b.png")),
    ),
}


@pytest.mark.parametrize("poison", POISON)
def test_a_poisoned_entry_is_refused(tmp_path: Path, there: Path, poison: str) -> None:
    """The reason is named, nothing of it is kept, and what was made instead takes its place."""
    reason, spoil = POISON[poison]
    spoil(there)
    remote = Remote(FolderPlace(tmp_path / "remote"))

    with pytest.raises(RefusedError, match=reason):
        pull(tmp_path, remote)
    assert is_empty(tmp_path / "second")
    assert remote.failure is None
    assert remote.push(publish(Store(tmp_path / "third"), b"made again"))
    again = pull(tmp_path)
    assert again is not None
    assert (again.folder / "picture" / "a.png").read_bytes() == b"made again"


def test_a_digest_that_the_workflow_gives_must_be_met(tmp_path: Path, there: Path) -> None:
    """A download with a file_hash cannot be poisoned, though all else of the entry is right."""
    digest = hashlib.sha256(b"x" * 1000).hexdigest()
    remote = Remote(FolderPlace(there.parent))

    with pytest.raises(RefusedError, match="not the digest that the workflow gives"):
        remote.pull(replace(EXPECTED, promises={"picture": "0" * 64}), Store(tmp_path / "second"))
    assert remote.pull(replace(EXPECTED, promises={"picture": digest}), Store(tmp_path / "second")) is not None


def test_an_empty_file_that_is_not_there_is_refused(tmp_path: Path, there: Path) -> None:
    """What is not there is not taken for what holds nothing."""
    empty = hashlib.sha256(b"").hexdigest()
    change(the_manifest(there), lambda value: value["files"].update({"picture/a.png": {"size": 0, "sha256": empty}}))

    with pytest.raises(RefusedError, match="is not there"):
        pull(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../a.png",
        "picture/../../a.png",
        "picture/./a",
        "picture//a",
        "picture/",
        "",
        "a.png",
        "other/a.png",
        "picture/a\\b",
        "picture/a\nb",
        "picture/a\0b",
        "manifest.json",
        "picture/a.png/b",
        "picture/" + "a" * 300,
        "picture/" + "é" * 200,
        "picture/\ud800",
        "picture/" + "/".join(["a" * 250] * 5),
        "picture/" + "/".join("a" * 30),
    ],
)
def test_a_name_that_no_entry_may_hold_is_refused(tmp_path: Path, there: Path, name: str) -> None:
    """Before anything is written."""
    change(the_manifest(there), add_file(name))

    with pytest.raises(RefusedError, match="which no entry may hold"):
        pull(tmp_path)
    assert not (tmp_path / "second").exists()


@pytest.mark.parametrize("name", ["é" * 127, "a" * 255, "\udce9.png", "/".join("abcdefgh")])
def test_a_name_that_a_disk_takes_is_one(tmp_path: Path, there: Path, name: str) -> None:
    """Up to the last byte, and of any bytes."""

    def rename(value: dict[str, Any]) -> None:
        value["files"] = {f"picture/{name}": value["files"]["picture/a.png"]}
        value["outputs"]["picture"]["description"]["name"] = name

    change(the_manifest(there), rename)
    entry = pull(tmp_path)

    assert entry is not None
    assert (entry.folder / "picture" / name).read_bytes() == b"x" * 1000


def test_a_name_that_only_this_disk_does_not_take_is_in_the_way_of_one_entry(tmp_path: Path, there: Path) -> None:
    """The remote has no part in it, and neither has the disk: others can still be pulled."""
    change(the_manifest(there), add_file("picture/" + "/".join(["a" * 240] * 4)))
    deep = tmp_path / "/".join(["d" * 250] * ((4096 - 500 - len(str(tmp_path))) // 251))
    remote = Remote(FolderPlace(tmp_path / "remote"))

    with pytest.raises(RefusedError, match="cannot have this name here"):
        remote.pull(EXPECTED, Store(deep))
    assert remote.failure is None


def test_a_store_that_cannot_be_written_is_not_the_remotes_fault(tmp_path: Path, there: Path) -> None:
    """A link that leads nowhere is in the place of its folder when the result comes."""

    class Removing(FolderPlace):
        def read(self, name: str, most: int) -> Iterator[bytes]:
            if "files/" in name:
                shutil.rmtree(tmp_path / "second" / "tmp")
                (tmp_path / "second" / "tmp").symlink_to("tmp")
            return super().read(name, most)

    remote = Remote(Removing(there.parent))
    with pytest.raises(OSError, match="Too many levels"):
        pull(tmp_path, remote)
    assert remote.failure is None


def test_a_link_or_a_pipe_in_the_place_of_a_file_brings_nothing_in(tmp_path: Path, there: Path) -> None:
    """What a link leads to is read and found wrong; a pipe is not waited for."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"s" * 1000)
    path = the_file(there)
    path.unlink()
    path.symlink_to(secret)
    with pytest.raises(RefusedError, match="other bytes"):
        pull(tmp_path)
    path.unlink()
    os.mkfifo(path)

    with pytest.raises(RefusedError, match="other bytes"):
        pull(tmp_path)
    assert is_empty(tmp_path / "second")


@pytest.mark.parametrize("of", [the_file, the_manifest])
def test_a_folder_in_the_place_of_a_file_is_in_the_way_of_one_entry(
    tmp_path: Path, there: Path, of: Callable[[Path], Path]
) -> None:
    """It is refused, and cannot be replaced; the path is named, and the remote serves all others."""
    path = of(there)
    path.unlink()
    path.mkdir()
    remote = Remote(FolderPlace(tmp_path / "remote"))
    with pytest.raises(RefusedError):
        pull(tmp_path, remote)

    with pytest.raises(IsADirectoryError, match=f"Is a directory: '{path}'"):
        remote.push(publish(Store(tmp_path / "third")))
    assert remote.failure is None


def test_a_damaged_file_is_mended_where_the_result_is_the_same(tmp_path: Path, there: Path) -> None:
    """A name that is a digest says which bytes belong there."""
    the_file(there).write_bytes(b"x" * 999 + b"y")
    remote = Remote(FolderPlace(tmp_path / "remote"))
    with pytest.raises(RefusedError):
        pull(tmp_path, remote)
    remote.push(publish(Store(tmp_path / "third")))

    assert the_file(there).read_bytes() == b"x" * 1000
    assert pull(tmp_path) is not None


# --- a remote that fails -------------------------------------------------------------------------------------


@dataclass
class FailingPlace:
    """A folder that fails at a certain name, or hangs there until it is let go."""

    folder: FolderPlace
    at: str
    hangs: threading.Event | None = None
    asked: list[str] = field(default_factory=list)

    def _fail(self, name: str) -> None:
        self.asked.append(name)
        if self.at in name:
            if self.hangs:
                self.hangs.wait()
            raise ConnectionResetError(104, "Connection reset by peer")

    def require(self) -> None:
        """Pass it on."""
        self.folder.require()

    def size(self, name: str) -> int | None:
        """Pass it on."""
        return self.folder.size(name)

    def read(self, name: str, most: int) -> Iterator[bytes]:
        """Pass it on, or fail."""
        self._fail(name)
        return self.folder.read(name, most)

    def put(self, source: Path, name: str) -> None:
        """Pass it on, or fail."""
        self._fail(name)
        self.folder.put(source, name)


@pytest.mark.parametrize("at", ["files/", "entries/"])
def test_half_a_push_is_no_entry(tmp_path: Path, at: str) -> None:
    """Cut off before or after the files it is a miss, and the next push ends it."""
    place = FailingPlace(FolderPlace(tmp_path / "remote"), at)
    entry = publish(Store(tmp_path / "first"))
    with pytest.raises(RemoteError, match="Connection reset"):
        Remote(place).push(entry)

    assert pull(tmp_path) is None
    assert Remote(FolderPlace(tmp_path / "remote")).push(entry)
    assert pull(tmp_path) is not None


@pytest.mark.parametrize("at", ["files/", "entries/"])
def test_a_remote_that_failed_is_not_asked_again(tmp_path: Path, there: Path, at: str) -> None:
    """The first failure is told; from then on there is nothing in it."""
    place = FailingPlace(FolderPlace(there.parent), at)
    remote = Remote(place)
    with pytest.raises(RemoteError, match="Connection reset"):
        pull(tmp_path, remote)
    count = len(place.asked)

    assert pull(tmp_path, remote) is None
    assert not remote.push(publish(Store(tmp_path / "third")))
    assert len(place.asked) == count
    assert is_empty(tmp_path / "second") or at == "files/"


def test_a_remote_that_hangs_is_left_behind(tmp_path: Path, there: Path) -> None:
    """Nobody waits longer than its patience."""
    let_go = threading.Event()
    remote = Remote(FailingPlace(FolderPlace(there.parent), "entries/", let_go), patience=0.01)
    try:
        with pytest.raises(RemoteError, match="did not answer within"):
            remote.look_up(KEY)
    finally:
        let_go.set()
    assert remote.failure is not None


def test_the_size_in_a_manifest_is_nothing_to_wait_for(tmp_path: Path, there: Path) -> None:
    """The time for 10**18 bytes would be centuries."""
    set_size(there, 10**18)
    let_go = threading.Event()
    remote = Remote(FailingPlace(FolderPlace(there.parent), "files/", let_go), patience=0.5)
    late = threading.Timer(10, let_go.set)
    late.start()
    try:
        with pytest.raises(RemoteError, match="did not answer within"):
            pull(tmp_path, remote)
    finally:
        late.cancel()
        let_go.set()


def test_what_comes_is_waited_for(tmp_path: Path, there: Path) -> None:
    """However long it takes in all, as long as it comes fast enough."""

    class Slow(FolderPlace):
        def read(self, name: str, most: int) -> Iterator[bytes]:
            for block in super().read(name, most):
                for start in range(0, len(block), 100_000):
                    time.sleep(0.4)
                    yield block[start : start + 100_000]

    Remote(FolderPlace(tmp_path / "other")).push(publish(Store(tmp_path / "big"), b"z" * 500_000))

    assert pull(tmp_path, Remote(Slow(tmp_path / "other"), patience=1.0)) is not None


def test_nobody_waits_for_a_remote_when_the_run_is_over(tmp_path: Path, there: Path) -> None:
    """Though it still hangs."""
    let_go, over = threading.Event(), threading.Event()
    over.set()
    try:
        with pytest.raises(RemoteError, match="the run is over"):
            pull(tmp_path, Remote(FailingPlace(FolderPlace(there.parent), "entries/", let_go), over))
    finally:
        let_go.set()


def test_a_folder_on_a_disk_that_is_not_there_is_no_empty_remote(tmp_path: Path) -> None:
    """It could not be used; nothing is made in its place."""
    remote = Remote(FolderPlace(tmp_path / "gone" / "remote"))

    with pytest.raises(RemoteError, match="there is no folder"):
        remote.look_up(KEY)
    assert not (tmp_path / "gone").exists()


def test_a_full_disk_here_is_not_the_remotes_fault(tmp_path: Path, there: Path) -> None:
    """It is the store that cannot be written."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    import signal

    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    big = publish(Store(tmp_path / "big"), b"z" * 2_000_000)
    Remote(FolderPlace(tmp_path / "other")).push(big)
    remote = Remote(FolderPlace(tmp_path / "other"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            pull(tmp_path, remote)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert remote.failure is None


def test_pushes_of_two_machines_do_not_disturb_each_other(tmp_path: Path) -> None:
    """Of two results of one step one is there in the end, whole, in every round."""
    entries = [publish(Store(tmp_path / name), name.encode() * 50_000) for name in ("one", "two")]
    for number in range(10):
        place = FolderPlace(tmp_path / f"remote{number}")
        together = threading.Barrier(2)

        def push(entry: Entry, place: FolderPlace = place, together: threading.Barrier = together) -> None:
            together.wait()
            Remote(place).push(entry)

        threads = [threading.Thread(target=push, args=(entry,)) for entry in entries]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        found = Remote(place).pull(EXPECTED, Store(tmp_path / f"store{number}"))
        assert found is not None
        assert found.digests in [entry.digests for entry in entries]


def test_a_push_sends_again_what_was_lost_there(tmp_path: Path, there: Path) -> None:
    """Somebody removed the files and left the manifest."""
    the_file(there).unlink()

    assert Remote(FolderPlace(tmp_path / "remote")).push(publish(Store(tmp_path / "third")))
    assert the_file(there).exists()


def test_what_was_damaged_here_is_not_pushed(tmp_path: Path) -> None:
    """With size and times as they were, so that nobody sees it who does not read it; nothing of it is there."""
    entry = publish(Store(tmp_path / "first"))
    path = entry.folder / "picture" / "a.png"
    before = path.stat()
    path.write_bytes(b"y" * 1000)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    remote = Remote(FolderPlace(tmp_path / "remote"))

    with pytest.raises(OSError, match=f"does not hold the bytes that were published.*: '{path}'"):
        remote.push(entry)
    assert remote.failure is None
    assert not [each for each in (tmp_path / "remote").rglob("*") if each.is_file()]
    assert remote.push(publish(Store(tmp_path / "second")))


def test_a_file_that_is_gone_here_is_not_the_remotes_fault(tmp_path: Path) -> None:
    """It cannot be pushed, and others can."""
    entry = publish(Store(tmp_path / "first"))
    (entry.folder / "picture" / "a.png").unlink()
    remote = Remote(FolderPlace(tmp_path / "remote"))

    with pytest.raises(OSError, match="does not hold the bytes"):
        remote.push(entry)
    assert remote.failure is None
