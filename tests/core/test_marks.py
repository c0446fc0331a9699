"""Archives are merged into shared folders whole, and not again while nothing has changed."""

import json
import os
from pathlib import Path

import pytest

from kflow.core.archives import ArchiveError, Extraction, is_merged, merge_archive
from kflow.core.files import get_file
from tests.hostile.archive_case import TREE
from tests.hostile.packing import Member, entry, folder, tar, zipped

MARK = ".x.unpacked"


@pytest.fixture(autouse=True)
def surroundings() -> None:
    """Make no home below tmp_path, whose whole content is asserted here and which needs none."""


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """Give a folder with an archive, which is unpacked there."""
    (tmp_path / "x").write_bytes(good_zip())
    merge_archive(tmp_path / "x", tmp_path)
    return tmp_path


def good_zip() -> bytes:
    return zipped(Member(b"empty/", mode=0o40755, method=0), *(Member(name.encode(), TREE[name]) for name in TREE))


def tree_of(folder: Path) -> dict[str, bytes]:
    """Read every file below a folder but the mark."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if name != MARK}


def inodes(folder: Path) -> dict[str, int]:
    """Tell files that were written anew from those that were left alone."""
    return {str(path): path.stat().st_ino for path in folder.rglob("*")}


def test_adds_and_replaces(tmp_path: Path) -> None:
    """Merging replaces files of the same name and keeps the neighbours."""
    (tmp_path / "x").write_bytes(good_zip())
    (tmp_path / "data").mkdir()
    (tmp_path / "data/mine").write_text("mine")
    (tmp_path / "data/a.bin").write_text("old")

    merge_archive(tmp_path / "x", tmp_path)

    assert tree_of(tmp_path) == {**TREE, "data/mine": b"mine", "x": good_zip()}


def test_merges_into_a_linked_folder(tmp_path: Path) -> None:
    """A folder may be a link to a larger disk."""
    (tmp_path / "x").write_bytes(good_zip())
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")

    merge_archive(tmp_path / "x", tmp_path / "link")

    assert tree_of(tmp_path / "disk") == TREE


def test_places_one_entry_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who sees that entry sees the rest as well; the mark comes after all."""
    (tmp_path / "x").write_bytes(zipped(Member(b"a"), Member(b"b"), Member(b"c")))
    order: list[str] = []
    rename = Path.replace

    def recorded(self: Path, target: Path) -> Path:
        order.append(Path(target).name)
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", recorded)
    merge_archive(tmp_path / "x", tmp_path, last="a")

    assert order == ["b", "c", "a", MARK]


@pytest.mark.parametrize("obstacle", ["link", "kind", "itself", "foreign", "reserved"])
def test_refuses_before_the_first_rename(obstacle: str, tmp_path: Path) -> None:
    """A link, another kind, the archive itself, a cache's own file or a foreign one stops a merge before it began."""
    victim = tmp_path / "victim"
    victim.mkdir()
    place = tmp_path / "shared"
    place.mkdir()
    more = {"itself": [Member(b"x", b"new")], "reserved": [Member(b".other.npz.verified", b"{}")]}
    (place / "x").write_bytes(zipped(Member(b"data/a"), Member(b"top.txt"), *more.get(obstacle, [])))
    if obstacle == "link":
        (place / "data").symlink_to(victim)
    if obstacle == "kind":
        (place / "data").write_text("a file")
    if obstacle == "foreign":
        (place / "top.txt").write_text("mine")
    before = tree_of(place)
    words = {"reserved": r"'\.other\.npz\.verified' has the name of a file"}

    with pytest.raises(ArchiveError, match=words.get(obstacle, "it would replace")):
        merge_archive(place / "x", place, replace=obstacle != "foreign")
    assert tree_of(place) == before
    assert list(victim.iterdir()) == []


def test_does_not_unpack_again(shared: Path) -> None:
    """A further call says the same as the first one and writes nothing."""
    before = inodes(shared)

    done = merge_archive(shared / "x", shared)

    assert done == Extraction(shared, "zip", 4, sum(map(len, TREE.values())))
    assert is_merged(shared / "x", shared)
    assert inodes(shared) == before


@pytest.mark.parametrize(
    "change", ["archive", "touched", "lost", "shortened", "altered", "folder", "mark", "deep mark", "no mark"]
)
def test_unpacks_again_after_a_change(change: str, shared: Path) -> None:
    """Another archive, a lost or altered file or folder, or a mark of somebody else: all comes out once more."""
    if change == "archive":
        (shared / "x").write_bytes(tar(folder("empty"), *(entry(*item) for item in TREE.items())))
    elif change == "touched":
        os.utime(shared / "x")
    elif change == "lost":
        (shared / "data/a.bin").unlink()
    elif change == "shortened":
        os.truncate(shared / "data/a.bin", 5)
    elif change == "altered":
        (shared / "top.txt").write_bytes(b"two")
    elif change == "folder":
        (shared / "empty").rmdir()
    elif change == "mark":
        (shared / MARK).write_text(json.dumps({"version": 0}))
    elif change == "deep mark":
        (shared / MARK).write_text("[" * 200_000)
    else:
        (shared / MARK).unlink()
    packed = (shared / "x").read_bytes()
    assert not is_merged(shared / "x", shared)

    merge_archive(shared / "x", shared)

    assert tree_of(shared) == {**TREE, "x": packed}
    assert (shared / "empty").is_dir()
    assert is_merged(shared / "x", shared)


def test_a_mark_excuses_nothing(shared: Path) -> None:
    """What would be refused without the mark is refused with it: another format, a lower limit."""
    with pytest.raises(ArchiveError, match="not a tar archive"):
        merge_archive(shared / "x", shared, "tar")
    with pytest.raises(ArchiveError, match="raise max_members"):
        merge_archive(shared / "x", shared, max_members=3)
    with pytest.raises(ArchiveError, match="raise max_bytes"):
        merge_archive(shared / "x", shared, max_bytes=100)


def test_what_an_archive_brought_stays_its_own(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new version replaces it without being told to, also after one that was killed between two renames."""
    (shared / "x").write_bytes(zipped(Member(b"data/a.bin", b"new"), Member(b"top.txt", b"new")))
    rename = Path.replace

    def killed(self: Path, target: Path) -> Path:
        if Path(target).name == "top.txt":
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        merge_archive(shared / "x", shared, replace=False)
    monkeypatch.undo()
    assert ((shared / "top.txt").read_bytes(), is_merged(shared / "x", shared)) == (TREE["top.txt"], False)

    merge_archive(shared / "x", shared, replace=False)

    assert (shared / "data/a.bin").read_bytes() == (shared / "top.txt").read_bytes() == b"new"


def test_get_file_unpacks_once(tmp_path: Path) -> None:
    """A second call of get_file writes nothing; a new download is unpacked."""
    origin, cache = tmp_path / "origin.zip", tmp_path / "cache"
    origin.write_bytes(good_zip())
    get_file("x", origin, extract=True, cache_dir=cache)
    before = inodes(cache)

    get_file("x", origin, extract=True, cache_dir=cache)
    assert inodes(cache) == before

    origin.write_bytes(zipped(Member(b"top.txt", b"new")))
    get_file("x", origin, extract=True, cache_dir=cache, force_download=True)
    assert (cache / "datasets/top.txt").read_bytes() == b"new"


@pytest.mark.parametrize("packed", [tar(entry("mine", b"new"))[:700], tar(entry("mine", b"new"), entry("../x"))])
def test_a_damaged_archive_harms_nobody(packed: bytes, tmp_path: Path) -> None:
    """A damaged or hostile archive leaves the folder of all data sets as it was."""
    origin, folder = tmp_path / "origin.tar", tmp_path / "cache/datasets"
    origin.write_bytes(packed)
    folder.mkdir(parents=True)
    (folder / "mine").write_bytes(b"mine")

    with pytest.raises(ArchiveError, match="Nothing was extracted"):
        get_file("x", origin, extract=True, cache_dir=tmp_path / "cache")
    assert {name: data for name, data in tree_of(folder).items() if name != ".x.lock"} == {"mine": b"mine"}


def test_nothing_asked_for_is_done(tmp_path: Path) -> None:
    """Without a format there is nothing to unpack, now or later."""
    assert merge_archive(tmp_path / "x", tmp_path, None) is None
    assert is_merged(tmp_path / "x", tmp_path, [])
    assert not is_merged(tmp_path / "x", tmp_path)
