"""Archives come out whole and inside, or not at all."""

import bz2
import gzip
import io
import lzma
import os
import signal
import stat
import struct
import subprocess
import sys
import tarfile
import time
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kflow
from kflow.core.archives import ArchiveError, extract_archive, merge_archive

TREE = {"top.txt": b"one", "data/a.bin": bytes(range(256)) * 300, "data/deep/b": b""}


@pytest.fixture(autouse=True)
def surroundings() -> None:
    """Make no home below tmp_path, whose whole content is asserted here and which needs none."""


def entry(name: str, data: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    """Describe one tar member."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def tar_bytes(members: Iterable[tuple[tarfile.TarInfo, bytes]], **options: object) -> bytes:
    """Write a plain tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", **options) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def zip_bytes(members: Iterable[tuple[str | zipfile.ZipInfo, bytes]]) -> bytes:
    """Write a deflated zip archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for info, data in members:
            archive.writestr(info, data)
    return buffer.getvalue()


def tree_of(folder: Path) -> dict[str, bytes]:
    """Read every file below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def good_tar() -> bytes:
    return tar_bytes([entry(name, data) for name, data in TREE.items()])


def good_zip() -> bytes:
    return zip_bytes(TREE.items())


def flipped(data: bytes, at: int) -> bytes:
    """Change one byte."""
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


def zip_mode(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = mode << 16
    return info


def patched(data: bytes, signature: bytes, offset: int, value: bytes) -> bytes:
    """Overwrite bytes after the first record of a signature."""
    at = data.index(signature) + offset
    return data[:at] + value + data[at + len(value) :]


def encrypted_zip() -> bytes:
    """Set the encryption bit in both headers."""
    data = zip_bytes([("secret", b"x")])
    return patched(patched(data, b"PK\x03\x04", 6, b"\x01\x00"), b"PK\x01\x02", 8, b"\x01\x00")


def overlapping_zip() -> bytes:
    """Let two directory entries share one stored body, as Fifield's bombs do."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a", b"x" * 50)
        archive.writestr("b", b"x" * 50)
    data = buffer.getvalue()
    first = data.index(b"PK\x01\x02")
    second = data.index(b"PK\x01\x02", first + 1)
    return data[: second + 42] + struct.pack("<L", 0) + data[second + 46 :]


def zip64(lie: int = 0) -> bytes:
    """Add zip64 end records, as large archives have, to a zip; the locator may point elsewhere."""
    data = good_zip()
    *_, entries, size, start, _comment = struct.unpack("<4s4H2LH", data[-22:])
    record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, entries, entries, size, start)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, len(data) - 22 + lie, 1)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 2**32 - 1, 2**32 - 1, 0)
    return data[:-22] + record + locator + end


def sparse_tar() -> bytes:
    """Declare a terabyte with pax headers of GNU's sparse format 1.0."""
    headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(2**40)}
    body = b"1\n0\n0\n".ljust(512, b"\0")
    return tar_bytes([entry("big", body, pax_headers=headers)], format=tarfile.PAX_FORMAT)


def raw_header(name: bytes, size_field: bytes, kind: bytes = b"0") -> bytes:
    """Build a ustar header with any size field and a right checksum."""
    block = bytearray(512)
    block[0 : len(name)] = name
    block[100:108] = b"0000644\0"
    block[124:136] = size_field
    block[156:157] = kind
    block[257:265] = b"ustar\x0000"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "tar_traversal": (lambda: tar_bytes([entry("../evil", b"x")]), r"'\.\./evil' has '\.\.'"),
    "tar_dotdot_mid": (lambda: tar_bytes([entry("a/../../evil", b"x")]), r"has '\.\.'"),
    "tar_pax_traversal": (
        lambda: tar_bytes([entry("ok", b"x", pax_headers={"path": "../evil"})], format=tarfile.PAX_FORMAT),
        r"has '\.\.'",
    ),
    "tar_absolute": (lambda: tar_bytes([entry("/evil", b"x")]), r"'/evil' has an absolute"),
    "tar_backslash": (lambda: tar_bytes([entry("..\\evil", b"x")]), "backslash"),
    "tar_control": (lambda: tar_bytes([entry("a\nb", b"x")]), "control"),
    "tar_bidi": (lambda: tar_bytes([entry("a\u202eb", b"x")]), "control"),
    "tar_undecodable": (lambda: tar_bytes([entry("a\udcffb", b"x")]), "undecodable"),
    "tar_long_component": (lambda: tar_bytes([entry("\u00e9" * 128, b"x")]), "255 bytes"),
    "tar_deep": (lambda: tar_bytes([entry("a/" * 32 + "b", b"x")]), "folders deep"),
    "tar_no_name": (lambda: tar_bytes([entry("./", b"x", type=tarfile.REGTYPE)]), "member"),
    "tar_symlink": (
        lambda: tar_bytes([entry("ok"), entry("l", type=tarfile.SYMTYPE, linkname="/etc/passwd")]),
        "'l' is a symbolic link",
    ),
    "tar_hardlink": (
        lambda: tar_bytes([entry("a", b"x"), entry("h", type=tarfile.LNKTYPE, linkname="a")]),
        "'h' is a hard link",
    ),
    "tar_chardev": (lambda: tar_bytes([entry("d", type=tarfile.CHRTYPE)]), "'d' is a character device"),
    "tar_blockdev": (lambda: tar_bytes([entry("d", type=tarfile.BLKTYPE)]), "'d' is a block device"),
    "tar_fifo": (lambda: tar_bytes([entry("d", type=tarfile.FIFOTYPE)]), "'d' is a named pipe"),
    "tar_unknown_type": (lambda: tar_bytes([entry("d", type=b"V")]), "unknown type"),
    "tar_sparse": (sparse_tar, "'big' is a sparse file"),
    "tar_duplicate": (lambda: tar_bytes([entry("a", b"x"), entry("./a", b"y")]), "'./a' collides with 'a'"),
    "tar_case": (lambda: tar_bytes([entry("a", b"x"), entry("A", b"y")]), "'A' collides with 'a'"),
    "tar_case_folder": (lambda: tar_bytes([entry("d/a", b"x"), entry("D/b", b"y")]), "only in case"),
    "tar_normalization": (
        lambda: tar_bytes([entry("\u00e9", b"x"), entry("e\u0301", b"y")]),
        "collides",
    ),
    "tar_file_then_folder": (lambda: tar_bytes([entry("a", b"x"), entry("a/b", b"y")]), "'a/b' collides"),
    "tar_folder_then_file": (lambda: tar_bytes([entry("a/b", b"x"), entry("a", b"y")]), "'a' collides"),
    "tar_truncated": (lambda: good_tar()[:1500], "cut off"),
    "tar_without_end": (lambda: tar_bytes([entry("a", b"x" * 512)])[:1024], "cut off"),
    "tar_trailing": (lambda: good_tar() + b"more", "something follows"),
    "tar_bad_header": (lambda: flipped(good_tar(), 1024 + 5), "damaged where a header"),
    "tar_negative_size": (lambda: raw_header(b"n", b"\xff" * 12) + bytes(1024), "impossible size|backwards"),
    "tar_huge_size": (lambda: raw_header(b"n", b"77777777777\0") + bytes(1024), "cut off within member 'n'"),
    "tar_pax_negative": (
        lambda: tar_bytes([entry("n", b"x", pax_headers={"size": "-1024"})], format=tarfile.PAX_FORMAT),
        "impossible size",
    ),
    "tar_huge_long_name": (
        lambda: raw_header(b"././@LongLink", b"77777777777\0", b"L") + bytes(1024),
        "asks for [0-9]+ bytes at once",
    ),
    "tar_gz_truncated": (lambda: gzip.compress(good_tar())[:-20], "damaged"),
    "tar_gz_bad_crc": (lambda: flipped(gzip.compress(good_tar()), -6), "CRC"),
    "tar_gz_trailing": (lambda: gzip.compress(good_tar()) + b"PK\x05\x06", "damaged"),
    "tar_xz_truncated": (lambda: lzma.compress(good_tar())[:-20], "damaged"),
    "tar_bz2_bomb": (lambda: bz2.compress(tar_bytes([entry("b", bytes(2**24))])), "more than .* bytes"),
    "tar_xz_bomb": (lambda: lzma.compress(tar_bytes([entry("b", bytes(2**24))])), "more than .* bytes"),
    "tar_empty": (lambda: bytes(10240), "not a tar or zip"),
    "zip_traversal": (lambda: zip_bytes([("../evil", b"x")]), r"'\.\./evil' has '\.\.'"),
    "zip_absolute": (lambda: zip_bytes([("/evil", b"x")]), r"'/evil' has an absolute"),
    "zip_backslash": (lambda: zip_bytes([("a_b", b"x")]).replace(b"a_b", b"a\\b"), "backslash"),
    "zip_nul_name": (lambda: zip_bytes([("a_b", b"x")]).replace(b"a_b", b"a\0b"), "control"),
    "zip_symlink": (
        lambda: zip_bytes([(zip_mode("l", stat.S_IFLNK | 0o777), b"/etc/passwd")]),
        "'l' is not a regular file",
    ),
    "zip_device": (lambda: zip_bytes([(zip_mode("d", stat.S_IFCHR), b"")]), "'d' is not a regular file"),
    "zip_case": (lambda: zip_bytes([("a", b"x"), ("A", b"y")]), "'A' collides with 'a'"),
    "zip_file_then_folder": (lambda: zip_bytes([("a", b"x"), ("a/b", b"y")]), "'a/b' collides"),
    "zip_encrypted": (encrypted_zip, "'secret' is encrypted"),
    "zip_bad_method": (
        lambda: patched(
            patched(zip_bytes([("a", b"x")]), b"PK\x03\x04", 8, b"\x63\x00"), b"PK\x01\x02", 10, b"\x63\x00"
        ),
        "'a' is damaged",
    ),
    "zip_bad_crc": (lambda: flipped(good_zip(), 38), "'top.txt' is damaged"),
    "zip_size_lie": (
        lambda: patched(
            patched(zip_bytes([("a", b"abc")]), b"PK\x03\x04", 22, b"\x09\0\0\0"),
            b"PK\x01\x02",
            24,
            b"\x09\0\0\0",
        ),
        "'a' has 3 bytes, not 9",
    ),
    "zip_headers_differ": (
        lambda: patched(zip_bytes([("a", b"abc")]), b"PK\x01\x02", 24, b"\x09\0\0\0"),
        "described differently",
    ),
    "zip_names_differ": (
        lambda: patched(zip_bytes([("a", b"abc")]), b"PK\x01\x02", 46, b"b"),
        "'b' is damaged",
    ),
    "zip_overlap": (overlapping_zip, "overlaps"),
    "zip_truncated": (lambda: good_zip()[:-10], "cut off|follows"),
    "zip_trailing": (lambda: good_zip() + b"more", "something follows"),
    "zip_prefix": (lambda: b"MZ" + good_zip(), "not a tar or zip"),
    "zip_prefix_of_zip": (lambda: b"PK\x03\x04" + bytes(40) + good_zip(), "something precedes"),
    "zip64_lie": (lambda: zip64(-9), "zip64 locator points elsewhere"),
    "zip_bomb": (lambda: zip_bytes([("b", bytes(2**24))]), "more than max_ratio|bytes"),
    "zip_empty": (lambda: zip_bytes([]), "no files"),
    "polyglot": (lambda: good_tar() + good_zip(), "something follows"),
    "text": (lambda: b"hello, this is no archive" * 99, "not a tar or zip"),
    "nothing": (lambda: b"", "not a tar or zip"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses_whole(case: str, tmp_path: Path) -> None:
    """A hostile or damaged archive is refused by name and leaves nothing, inside or outside."""
    make, why = REFUSED[case]
    (tmp_path / "x").write_bytes(make())

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
        zip64,
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
    packed = zip_bytes(tree.items()) if is_zip else tar_bytes([entry(*item) for item in tree.items()])
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
    members = [
        entry("d", type=tarfile.DIRTYPE, mode=0),
        entry("d/s", b"x", mode=0o6777, uid=12345, gid=12345),
    ]
    (tmp_path / "x").write_bytes(tar_bytes(members))

    extract_archive(tmp_path / "x", tmp_path / "out")

    status = (tmp_path / "out/d/s").stat()
    (tmp_path / "ordinary").touch()
    assert stat.S_IMODE(status.st_mode) == stat.S_IMODE((tmp_path / "ordinary").stat().st_mode)
    assert status.st_uid == os.geteuid()


def test_limits_are_named(tmp_path: Path) -> None:
    """Each limit refuses and says which argument raises it."""
    (tmp_path / "x").write_bytes(good_zip())
    (tmp_path / "y").write_bytes(good_tar())

    for path in (tmp_path / "x", tmp_path / "y"):
        with pytest.raises(ArchiveError, match="more than 2 members; raise max_members"):
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


def test_unpacks_below_a_linked_folder(tmp_path: Path) -> None:
    """A folder may be a link to a larger disk."""
    (tmp_path / "x").write_bytes(good_zip())
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")

    extract_archive(tmp_path / "x", tmp_path / "link/out")
    merge_archive(tmp_path / "x", tmp_path / "link")

    assert tree_of(tmp_path / "disk") == {**TREE, **{f"out/{name}": data for name, data in TREE.items()}}


def test_merge_adds_and_replaces(tmp_path: Path) -> None:
    """Merging replaces files of the same name and keeps the neighbours."""
    (tmp_path / "x").write_bytes(good_zip())
    (tmp_path / "data").mkdir()
    (tmp_path / "data/mine").write_text("mine")
    (tmp_path / "data/a.bin").write_text("old")

    merge_archive(tmp_path / "x", tmp_path, expect="data")

    assert tree_of(tmp_path) == {**TREE, "data/mine": b"mine", "x": good_zip()}


def test_merge_places_the_expected_entry_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who sees the expected entry sees the rest as well."""
    (tmp_path / "x").write_bytes(zip_bytes([("a", b""), ("b", b""), ("c", b"")]))
    order: list[str] = []
    rename = Path.replace

    def recorded(self: Path, target: Path) -> Path:
        order.append(Path(target).name)
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", recorded)
    merge_archive(tmp_path / "x", tmp_path, expect="a")

    assert order == ["b", "c", "a"]


@pytest.mark.parametrize("obstacle", ["link", "kind", "itself", "missing"])
def test_merge_refuses_before_the_first_rename(obstacle: str, tmp_path: Path) -> None:
    """A link, another kind, the archive itself or a missing name stops a merge before it began."""
    victim = tmp_path / "victim"
    victim.mkdir()
    folder = tmp_path / "shared"
    folder.mkdir()
    (folder / "x").write_bytes(zip_bytes([*TREE.items(), *([("x", b"new")] if obstacle == "itself" else [])]))
    if obstacle == "link":
        (folder / "data").symlink_to(victim)
    if obstacle == "kind":
        (folder / "data").write_text("a file")
    before = tree_of(folder)

    with pytest.raises(ArchiveError, match="no 'nothing'" if obstacle == "missing" else "it would replace"):
        merge_archive(folder / "x", folder, expect="nothing" if obstacle == "missing" else None)
    assert tree_of(folder) == before
    assert list(victim.iterdir()) == []


def test_survives_kill(tmp_path: Path) -> None:
    """After SIGKILL at any time there is nothing or everything, and the next call sweeps and succeeds."""
    tree = {f"{number:04}/file": zlib.compress(bytes([number % 256]) * 9999) for number in range(400)}
    (tmp_path / "x").write_bytes(tar_bytes([entry(*item) for item in tree.items()]))
    code = "from kflow.core.archives import extract_archive as e; e('x', 'out')"
    seen_partial = 0
    for delay in (0, 0.01, 0.02, 0.04, 0.08):
        child = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path(kflow.__file__).parents[1])},
        )
        before = set(tmp_path.glob(".out.*.unpack"))
        while child.poll() is None and set(tmp_path.glob(".out.*.unpack")) <= before:
            time.sleep(0.001)
        time.sleep(delay)
        child.send_signal(signal.SIGKILL)
        child.wait()
        seen_partial += any(tmp_path.glob(".out.*.unpack"))
        if (tmp_path / "out").exists():
            assert tree_of(tmp_path / "out") == tree
            (tmp_path / "out").rename(tmp_path / f"done{delay}")

    extract_archive(tmp_path / "x", tmp_path / "out")

    assert seen_partial
    assert tree_of(tmp_path / "out") == tree
    assert not list(tmp_path.glob(".out.*"))
