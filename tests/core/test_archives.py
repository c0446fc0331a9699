"""Archives come out whole and inside, or not at all; `tests/hostile` has the list of hostile ones."""

import bz2
import gzip
import io
import lzma
import os
import stat
import subprocess
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kflow.core.archives import ArchiveError, extract_archive
from tests.hostile.archive_case import TREE
from tests.hostile.packing import BLOCK, Member, deflated, entry, folder, header, pax, tar, zipped
from tests.hostile.zip_cases import large


@pytest.fixture(autouse=True)
def surroundings() -> None:
    """Make no home below tmp_path, whose whole content is asserted here and which needs none."""


def tree_of(folder: Path) -> dict[str, bytes]:
    """Read every file below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def good_tar() -> bytes:
    return tar(*(entry(name, data) for name, data in TREE.items()))


def good_zip() -> bytes:
    return zipped(*(Member(name.encode(), data) for name, data in TREE.items()))


def flipped(data: bytes, at: int) -> bytes:
    """Change one byte."""
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


def one_header_lies(offset: int, value: bytes) -> bytes:
    """Change the directory's entry, but not the local header."""
    data = zipped(Member(b"a", b"abc"))
    at = data.index(b"PK\x01\x02") + offset
    return data[:at] + value + data[at + len(value) :]


SPARSE = pax(**{"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(2**40)})
HOLE = entry("GNUSparseFile.0/big", b"1\n0\n0\n".ljust(BLOCK, b"\0"))

REFUSED: dict[str, tuple[bytes, str]] = {
    "tar_backslash": (tar(entry("..\\evil")), "backslash"),
    "tar_long_component": (tar(entry("\u00e9" * 128)), "255 bytes"),
    "tar_long_name": (tar(entry("/".join(["d" * 200] * 30))), "name that this file system does not take"),
    "tar_no_name": (tar(entry("./", kind=b"7")), "member"),
    "tar_unknown_type": (tar(entry("d", kind=b"V")), "'d' is of the unknown type"),
    "tar_pax_sparse": (tar(SPARSE, HOLE), "is a sparse file"),
    "tar_case_folder": (tar(entry("d/a"), entry("D/b")), "only in case"),
    "tar_case_in_other_scripts": (tar(entry("\u03a3"), entry("\u03c2")), "collides"),
    "tar_folder_then_file": (tar(entry("a/b"), entry("a")), "'a' collides"),
    "tar_folder_with_a_file_twice": (tar(folder("a"), entry("./a")), "'./a' collides"),
    "tar_trailing": (good_tar() + b"more", "something follows"),
    "tar_huge_size": (tar(entry("n", size=8**11 - 1)), "with member 'n' it unpacks to more than"),
    "tar_size_beyond_the_end": (tar(entry("n", size=2**19)), "cut off within member 'n'"),
    "tar_huge_long_name": (header(b"././@LongLink", 8**11 - 1, b"L") + bytes(1024), "asks for [0-9]+ bytes at once"),
    "tar_gz_trailing": (gzip.compress(good_tar()) + b"PK\x05\x06", "damaged"),
    "tar_xz_truncated": (lzma.compress(good_tar())[:-20], "damaged"),
    "tar_bz2_damaged": (flipped(bz2.compress(good_tar()), 60), "damaged"),
    "tar_empty": (bytes(10240), "not a tar or zip"),
    "gz_of_something_else": (gzip.compress(b"hello" * 999), "not a tar or zip"),
    "zip_case": (zipped(Member(b"a"), Member(b"A")), "'A' collides with 'a'"),
    "zip_patch": (zipped(Member(b"a", flags=0x20)), "'a' is encrypted"),
    "zip_crc_differs": (one_header_lies(16, bytes(4)), "described differently"),
    "zip_size_differs": (one_header_lies(24, b"\x09\0\0\0"), "described differently"),
    "zip_method_differs": (one_header_lies(10, bytes(2)), "described differently"),
    "zip_folder_with_data": (zipped(Member(b"d/", b"x", mode=0o40755)), "impossible size"),
    "zip_cut_deflate": (zipped(Member(b"a", b"abc" * 99, packed=deflated(b"abc" * 99)[:-3])), "'a' is damaged"),
    "zip_hidden_bytes": (zipped(Member(b"a", b"abc", packed=deflated(b"abc") + b"hidden")), "behind its deflated data"),
    "zip_trailing": (good_zip() + b"more", "something follows"),
    "zip_prefix_of_zip": (b"PK\x03\x04" + bytes(40) + good_zip(), "something precedes"),
    "zip_ratio_of_one_member": (
        zipped(Member(b"zeros", bytes(2**24)), Member(b"noise", os.urandom(2**18), method=0)),
        "'zeros' unpacks to 16,777,216 bytes, more than max_ratio",
    ),
    "zip_end_counts_more": (good_zip()[:-14] + b"\x04\0\x04\0" + good_zip()[-10:], "counts 4 members, its directory"),
    "zip_empty": (zipped(), "no files"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refuses_whole(case: str, tmp_path: Path) -> None:
    """What the list of hostile archives lacks is refused as well, and leaves nothing, inside or outside."""
    packed, why = REFUSED[case]
    (tmp_path / "x").write_bytes(packed)

    with pytest.raises(ArchiveError, match=f"(?s)cannot extract .*(?:{why}).*Nothing was extracted"):
        extract_archive(tmp_path / "x", tmp_path / "out/target", max_ratio=100)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["out", "x"]


@pytest.mark.parametrize(
    "pack",
    [
        good_tar,
        lambda: gzip.compress(good_tar()),
        lambda: bz2.compress(good_tar()),
        lambda: lzma.compress(good_tar()),
        good_zip,
        lambda: large(0),
    ],
    ids=["tar", "gz", "bz2", "xz", "zip", "zip64"],
)
def test_unpacks_every_format(pack: Callable[[], bytes], tmp_path: Path) -> None:
    """What went in comes out, byte for byte, with nothing beside it."""
    (tmp_path / "x").write_bytes(pack())

    done = extract_archive(tmp_path / "x", tmp_path / "out")

    assert done is not None
    assert (done.members, done.size) == (3, sum(map(len, TREE.values())))
    assert tree_of(tmp_path / "out") == TREE
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "x"]


@pytest.mark.parametrize("tool", [["tar", "-czf"], ["tar", "--format=gnu", "-cf"], ["tar", "--format=posix", "-cf"]])
def test_unpacks_what_other_programs_pack(tool: list[str], tmp_path: Path) -> None:
    """The system's tar and ours agree, long names and folders included."""
    source = tmp_path / "source"
    expected = {**TREE, "data/" + "n" * 200: b"long", "\u00e9t\u00e9/\u96ea.txt": b"unicode"}
    for name, data in expected.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(data)
    (source / "empty").mkdir()
    subprocess.run([*tool, str(tmp_path / "x"), "-C", str(source), "."], check=True)

    extract_archive(tmp_path / "x", tmp_path / "out")

    assert tree_of(tmp_path / "out") == expected
    assert (tmp_path / "out/empty").is_dir()


def test_unpacks_streamed_and_zip64_entries(tmp_path: Path) -> None:
    """Zip entries written to a pipe (sizes after the data) or with zip64 fields are honest ones."""

    class Pipe(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data: bytes) -> int:  # type: ignore[override]  # as a pipe: no seek, no tell
            return sink.write(data)

    with (tmp_path / "x").open("wb") as sink, zipfile.ZipFile(Pipe(), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("folder/", b"")
        with archive.open("folder/a", "w", force_zip64=True) as member:
            member.write(b"abc" * 999)
        archive.comment = b"a comment"

    extract_archive(tmp_path / "x", tmp_path / "out")

    assert tree_of(tmp_path / "out") == {"folder/a": b"abc" * 999}


names = st.text(st.characters(categories=("L", "N"), include_characters=" -_."), min_size=1, max_size=12).filter(
    lambda name: name not in {".", ".."}
)
trees = st.dictionaries(names, st.binary(max_size=2000), min_size=1, max_size=6).filter(
    lambda tree: len({unicodedata.normalize("NFC", name).casefold() for name in tree}) == len(tree)
)


@settings(max_examples=40, deadline=None)
@given(tree=trees, is_zip=st.booleans())
def test_any_honest_tree_survives(
    tree: dict[str, bytes], is_zip: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Packing and unpacking is the identity for any names that do not collide."""
    folder = tmp_path_factory.mktemp("tree")
    if is_zip:
        packed = zipped(*(Member(name.encode(), data, flags=0x800) for name, data in tree.items()))
    else:
        packed = tar(*(entry(*item) for item in tree.items()))
    (folder / "x").write_bytes(packed)

    extract_archive(folder / "x", folder / "out")

    assert tree_of(folder / "out") == tree


@settings(max_examples=300, deadline=None)
@given(data=st.data(), pack=st.sampled_from([good_tar, good_zip, lambda: gzip.compress(good_tar())]))
def test_damage_is_refused_or_harmless(
    data: st.DataObject, pack: Callable[[], bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A changed byte gives ArchiveError or a tree inside the folder, never another error or half a tree."""
    folder = tmp_path_factory.mktemp("mutant")
    packed = pack()
    at = data.draw(st.integers(0, len(packed) - 1))
    (folder / "x").write_bytes(packed[:at] + data.draw(st.binary(min_size=1, max_size=4)) + packed[at + 1 :])

    try:
        extract_archive(folder / "x", folder / "out")
    except ArchiveError:
        assert [path.name for path in folder.iterdir()] == ["x"]
    else:
        assert sorted(path.name for path in folder.iterdir()) == ["out", "x"]


@pytest.mark.parametrize("size", range(0, 2049, 97))
def test_any_truncation_is_refused(size: int, tmp_path: Path) -> None:
    """An archive cut anywhere is refused."""
    for packed in (gzip.compress(good_tar()), good_zip()):
        (tmp_path / "x").write_bytes(packed[: size * (len(packed) - 1) // 2048])

        with pytest.raises(ArchiveError, match="cannot extract"):
            extract_archive(tmp_path / "x", tmp_path / "out")


def test_modes_and_owners_are_ours(tmp_path: Path) -> None:
    """Setuid bits, closed folders and foreign owners of a tar are not taken over."""
    members = folder("d", mode=0), entry("d/s", b"x", mode=0o6777, owner=12345)
    (tmp_path / "x").write_bytes(tar(*members))

    extract_archive(tmp_path / "x", tmp_path / "out")

    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for name, like in (("out/d/s", "file"), ("out/d", "folder"), ("out", "folder")):
        status, ordinary = (tmp_path / name).stat(), (tmp_path / like).stat()
        assert (stat.S_IMODE(status.st_mode), status.st_uid) == (stat.S_IMODE(ordinary.st_mode), os.geteuid())


def test_limits_are_named(tmp_path: Path) -> None:
    """Each limit refuses and says which argument raises it."""
    (tmp_path / "x").write_bytes(good_zip())
    (tmp_path / "y").write_bytes(good_tar())

    for path in (tmp_path / "x", tmp_path / "y"):
        with pytest.raises(ArchiveError, match=r"more than 2( members)?; raise max_members"):
            extract_archive(path, tmp_path / "out", max_members=2)
        with pytest.raises(ArchiveError, match="raise max_bytes"):
            extract_archive(path, tmp_path / "out", max_bytes=1000)


def test_formats(tmp_path: Path) -> None:
    """None and [] unpack nothing, a list restricts, an unknown name says which are known."""
    (tmp_path / "x").write_bytes(good_zip())

    assert extract_archive(tmp_path / "x", tmp_path / "out", None) is None
    assert extract_archive(tmp_path / "x", tmp_path / "out", []) is None
    assert not (tmp_path / "out").exists()
    with pytest.raises(ArchiveError, match="not a tar archive"):
        extract_archive(tmp_path / "x", tmp_path / "out", "tar")
    with pytest.raises(ValueError, match="unknown archive format 'rar'; use 'auto', 'tar', 'zip'"):
        extract_archive(tmp_path / "x", tmp_path / "out", ["zip", "rar"])
    done = extract_archive(tmp_path / "x", tmp_path / "out", ["tar", "zip"])
    assert done is not None
    assert done.archive_format == "zip"


def test_never_touches_what_exists(tmp_path: Path) -> None:
    """An existing destination is refused and kept."""
    (tmp_path / "x").write_bytes(good_zip())
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_text("mine")

    with pytest.raises(FileExistsError, match="it exists; remove it"):
        extract_archive(tmp_path / "x", tmp_path / "out")
    assert tree_of(tmp_path / "out") == {"mine": b"mine"}
