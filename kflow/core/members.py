"""Check and copy the members of a tar or zip archive, trusting nothing that it says.

Neither ``tarfile.extractall`` nor ``zipfile.extractall`` is used: their filters have been passed by
(CVE-2025-4517), they drop members silently, and they leave half an archive behind. Here each member is
checked and copied by our own loop, into a folder that `kflow.core.archives` makes and publishes.
"""

import bz2
import contextlib
import gzip
import io
import lzma
import os
import shutil
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO, NoReturn, Self, cast

FORMATS = ("tar", "zip")
_RATIO_FLOOR = 2**20  # a tiny archive may well unpack to a thousand times its size
_BLOCK = 2**20
_MAX_HEADER = 2**24  # a tar header that asks for more than this is an attack on the memory
_MAX_DEPTH = 32
_MAX_NAME = 255  # bytes of one component: what Linux file systems take
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_END_RECORD = struct.Struct("<4s4H2LH")
_ZIP64_LOCATOR = struct.Struct("<4sLQL")
_ZIP64_RECORD_SIZE = 56
_KINDS = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a character device",
    tarfile.BLKTYPE: "a block device",
    tarfile.FIFOTYPE: "a named pipe",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}
_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    ValueError,
    LookupError,
    ArithmeticError,
    RecursionError,
    NotImplementedError,
)


class ArchiveError(ValueError):
    """An archive that is damaged, hostile or of no known format."""


class Intake:
    """The members accepted so far, against which the next one is checked."""

    def __init__(self, max_bytes: int, max_members: int, max_ratio: int) -> None:
        self.max_bytes = max_bytes
        self.max_members = max_members
        self.max_ratio = max_ratio
        self.members = 0
        self.size = 0
        # Keys are what a file system that ignores case and normalizes would see: spelling, is it a folder.
        self._taken: dict[tuple[str, ...], tuple[tuple[str, ...], bool]] = {}

    def most_from(self, packed: int) -> int:
        """Return how many bytes may come out of so many packed ones."""
        return min(self.max_bytes, packed * self.max_ratio + _RATIO_FLOOR)

    def accept(self, name: str, *, is_folder: bool, size: int) -> tuple[str, ...]:
        """Check and count a member; return the components of its name."""
        self.members += 1
        if self.members > self.max_members:
            _refuse(f"it holds more than {self.max_members:,} members; raise max_members if that is right")
        if size < 0 or (is_folder and size):
            _refuse(f"member {name!r} declares an impossible size of {size}")
        self.size += size
        if self.size > self.max_bytes:
            _refuse(f"with {name!r} it exceeds {self.max_bytes:,} bytes; raise max_bytes if that is right")
        parts = _components(name)
        for depth in range(1, len(parts)):
            self._take(name, parts[:depth], is_folder=True)
        if parts:
            self._take(name, parts, is_folder=is_folder)
        elif not is_folder:
            _refuse(f"member {name!r} has no name")
        return parts

    def _take(self, name: str, parts: tuple[str, ...], *, is_folder: bool) -> None:
        key = tuple(unicodedata.normalize("NFC", part).casefold() for part in parts)
        spelling, was_folder = self._taken.setdefault(key, (parts, is_folder))
        if spelling is parts:
            return
        if not (is_folder and was_folder):
            other = "/".join(spelling)
            _refuse(f"member {name!r} collides with {other!r}")
        if spelling != parts:
            _refuse(f"member {name!r} differs from {'/'.join(spelling)!r} only in case or normalization")


def unpack_members(path: Path, stage: Path, formats: tuple[str, ...], intake: Intake) -> str:
    """Copy the members of an archive into an empty folder; return the format found.

    Raises
    ------
    ArchiveError
        When the archive, one of its members or a limit is refused; the folder then holds any part of it.
    """
    found = _detect(path, formats)
    (_unpack_tar if found == "tar" else _unpack_zip)(path, stage, intake)
    if not intake.members:
        _refuse("it holds no files")
    return found


def _refuse(why: str) -> NoReturn:
    raise ArchiveError(why)


def _components(name: str) -> tuple[str, ...]:
    """Split a member's name, refusing what could leave the folder or fool a reader."""
    if name.startswith("/"):
        _refuse(f"member {name!r} has an absolute name")
    if "\\" in name:
        _refuse(f"member {name!r} has a backslash in its name")
    if any(unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for char in name):
        _refuse(f"member {name!r} has control, formatting or undecodable characters in its name")
    parts = tuple(part for part in name.split("/") if part not in {"", "."})
    if ".." in parts:
        _refuse(f"member {name!r} has '..' in its name")
    if len(parts) > _MAX_DEPTH:
        _refuse(f"member {name!r} lies more than {_MAX_DEPTH} folders deep")
    if any(len(part.encode()) > _MAX_NAME for part in parts):
        _refuse(f"member {name!r} has a component of more than {_MAX_NAME} bytes")
    return parts


def _detect(path: Path, formats: tuple[str, ...]) -> str:
    """Return the format of an archive, told by its first bytes."""
    with path.open("rb") as raw:
        is_zip = raw.read(4) in {b"PK\x03\x04", b"PK\x05\x06"}
        raw.seek(0)
        is_tar = False
        no_tar = contextlib.suppress(tarfile.HeaderError, zlib.error, lzma.LZMAError, EOFError, OSError)
        with no_tar, _plain(raw) as stream:
            tarfile.TarInfo.frombuf(stream.read(tarfile.BLOCKSIZE), "utf-8", "surrogateescape")
            is_tar = True
    if is_zip and is_tar:
        _refuse("it is a tar and a zip archive at once")
    found = "zip" if is_zip else "tar" if is_tar else ""
    if found not in formats:
        _refuse(f"it is not a {' or '.join(dict.fromkeys(formats))} archive")
    return found


def _plain(raw: BinaryIO) -> IO[bytes]:
    """Return a reader of what gzip, bzip2 or xz packed, told by the first bytes."""
    magic = raw.read(6)
    raw.seek(0)
    if magic.startswith(b"\x1f\x8b"):
        return cast("IO[bytes]", gzip.GzipFile(fileobj=raw))
    if magic.startswith(b"BZh"):
        return bz2.BZ2File(raw)
    if magic == b"\xfd7zXZ\x00":
        return lzma.LZMAFile(raw)
    return raw


class _Forward(io.RawIOBase):
    """A packed stream as `tarfile` may see it: forwards only, and never beyond the limit."""

    def __init__(self, stream: IO[bytes], limit: int) -> None:
        self._stream = stream
        self._limit = limit
        self._position = 0

    def tell(self) -> int:
        """Return how many unpacked bytes were read."""
        return self._position

    def read(self, size: int = -1) -> bytes:
        """Read exactly `size` bytes, or fewer at the end."""
        if not 0 <= size <= _MAX_HEADER:
            _refuse(f"a header asks for {size} bytes at once")
        try:
            block = self._stream.read(size)
        except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
            msg = f"it is damaged after {self._position:,} unpacked bytes ({error})"
            raise ArchiveError(msg) from error
        self._position += len(block)
        if self._position > self._limit:
            _refuse(f"it unpacks to more than {self._limit:,} bytes; raise max_bytes or max_ratio if right")
        return block

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Skip forward, reading what is passed by so that the limit holds for it as well."""
        if whence != os.SEEK_SET or offset < self._position:
            _refuse("a header points backwards")
        while self._position < offset and self.read(min(_BLOCK, offset - self._position)):
            pass
        return self._position


class _StrictTarInfo(tarfile.TarInfo):
    """A header that says when it is damaged, where `tarfile` would take it for the end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Parse one block; only a block of zeros ends the archive."""
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                raise
            msg = f"it is cut off or damaged where a header should be ({error})"
            raise ArchiveError(msg) from error


def _unpack_tar(path: Path, stage: Path, intake: Intake) -> None:
    """Copy the members of a tar archive into the stage."""
    limit = intake.most_from(path.stat().st_size)
    with path.open("rb") as raw, _plain(raw) as stream, _damage_refused():
        forward = _Forward(stream, limit)
        with tarfile.TarFile(
            fileobj=cast("IO[bytes]", forward),
            tarinfo=_StrictTarInfo,
            encoding="utf-8",
            errors="surrogateescape",
        ) as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # untyped; they would fill the memory
                _unpack_tar_member(member, forward, stage, intake)
        while block := forward.read(_BLOCK):  # to the end, where the packer's own sum is checked
            if block.strip(b"\0"):
                _refuse("something follows its end")


def _unpack_tar_member(member: tarfile.TarInfo, forward: _Forward, stage: Path, intake: Intake) -> None:
    """Copy one member, whose data is where the stream stands."""
    kind = _KINDS.get(tarfile.GNUTYPE_SPARSE if member.issparse() else member.type)
    if kind or not (member.isdir() or member.type in {tarfile.REGTYPE, tarfile.AREGTYPE}):
        _refuse(f"member {member.name!r} is {kind or f'of the unknown type {member.type!r}'}")
    # A folder's size, where a tar has one, says nothing: no data follows.
    parts = intake.accept(member.name, is_folder=member.isdir(), size=0 if member.isdir() else member.size)
    if member.isdir():
        stage.joinpath(*parts).mkdir(parents=True, exist_ok=True)
        return
    with _new_file(stage.joinpath(*parts)) as target:
        left = member.size
        while left:
            block = forward.read(min(_BLOCK, left))
            if not block:
                _refuse(f"it is cut off within member {member.name!r}")
            target.write(block)
            left -= len(block)


def _unpack_zip(path: Path, stage: Path, intake: Intake) -> None:
    """Copy the members of a zip archive into the stage."""
    with path.open("rb") as raw, _damage_refused():
        _check_zip_end(raw)
        with zipfile.ZipFile(raw) as archive:
            for info, parts in _check_zip_directory(raw, archive, intake):
                _unpack_zip_member(archive, info, stage.joinpath(*parts))


def _unpack_zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path) -> None:
    """Copy one member, and see that it is as long as its headers say."""
    if info.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        return
    try:
        with archive.open(info) as member, _new_file(target) as file:
            shutil.copyfileobj(member, file, _BLOCK)
            written = file.tell()
    except (*_DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's, not the decompressor's
        msg = f"member {info.orig_filename!r} is damaged ({error})"
        raise ArchiveError(msg) from error
    if written != info.file_size:
        _refuse(f"member {info.orig_filename!r} has {written:,} bytes, not {info.file_size:,}")


def _check_zip_directory(
    raw: BinaryIO, archive: zipfile.ZipFile, intake: Intake
) -> list[tuple[zipfile.ZipInfo, tuple[str, ...]]]:
    """Check every entry before the first is written; return them with their names' components."""
    infos = sorted(archive.infolist(), key=lambda info: info.header_offset)
    if not infos:
        return []
    if infos[0].header_offset != 0:
        _refuse("something precedes its first member")
    checked = []
    ends = [info.header_offset for info in infos[1:]] + [archive.start_dir]
    for info, end in zip(infos, ends, strict=True):
        name = info.orig_filename
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in {0, stat.S_IFDIR if info.is_dir() else stat.S_IFREG}:
            _refuse(f"member {name!r} is not a regular file or folder (a link or a device)")
        if info.flag_bits & 0x41:
            _refuse(f"member {name!r} is encrypted; unpack the archive yourself")
        checked.append((info, intake.accept(name, is_folder=info.is_dir(), size=info.file_size)))
        if info.file_size > intake.most_from(info.compress_size):
            _refuse(f"member {name!r} unpacks to {info.file_size:,} bytes, more than max_ratio allows")
        _check_zip_entry(raw, info, end)
    return checked


def _check_zip_entry(raw: BinaryIO, info: zipfile.ZipInfo, end: int) -> None:
    """Compare an entry's two descriptions, and see that it ends before the next begins."""
    name = info.orig_filename
    raw.seek(info.header_offset)
    _, _, flags, method, _, _, crc, packed, size, name_length, extra_length = _LOCAL_HEADER.unpack(
        raw.read(_LOCAL_HEADER.size)
    )
    if info.header_offset + _LOCAL_HEADER.size + name_length + extra_length + info.compress_size > end:
        _refuse(f"member {name!r} overlaps the next one")
    # With bit 3 the sizes follow the data; 0xffffffff says that they are in a zip64 field.
    said = [] if flags & 8 else [(crc, info.CRC), (packed, info.compress_size), (size, info.file_size)]
    if method != info.compress_type or any(local not in (central, 0xFFFFFFFF) for local, central in said):
        _refuse(f"member {name!r} is described differently in its two headers")


def _check_zip_end(raw: BinaryIO) -> None:
    """See that the last record ends the file and that a zip64 locator points where readers look."""
    size = raw.seek(0, os.SEEK_END)
    tail_start = max(0, size - 0xFFFF - _END_RECORD.size)
    raw.seek(tail_start)
    tail = raw.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or at + _END_RECORD.size > len(tail):
        _refuse("it is a zip archive without its end: cut off")
    comment = _END_RECORD.unpack_from(tail, at)[-1]
    if at + _END_RECORD.size + comment != len(tail):
        _refuse("something follows its end")
    if tail[max(0, at - _ZIP64_LOCATOR.size) :].startswith(b"PK\x06\x07"):
        offset = _ZIP64_LOCATOR.unpack_from(tail, at - _ZIP64_LOCATOR.size)[2]
        if offset + _ZIP64_RECORD_SIZE != tail_start + at - _ZIP64_LOCATOR.size:
            _refuse("its zip64 locator points elsewhere than to the record before it")


@contextlib.contextmanager
def _damage_refused() -> Iterator[None]:
    """Turn whatever the parsers raise for damaged input into one kind of error."""
    try:
        yield
    except ArchiveError:
        raise
    except _DAMAGE as error:
        msg = f"it is damaged ({type(error).__name__}: {error})"
        raise ArchiveError(msg) from error


def _new_file(path: Path) -> BinaryIO:
    """Open a file that did not exist, making the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666), "wb")
