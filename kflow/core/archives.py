"""Unpack tar and zip archives whole or not at all, trusting nothing that they say.

Neither ``tarfile.extractall`` nor ``zipfile.extractall`` is used: their filters have been passed by
(CVE-2025-4517), they drop members silently, and they leave half an archive behind. Here each member is
checked and copied by our own loop into a temporary folder, which is renamed when all of it is on the disk.
"""

import bz2
import contextlib
import ctypes
import errno
import fcntl
import gzip
import hashlib
import io
import lzma
import os
import re
import secrets
import shutil
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, NoReturn, Self, cast

_GIB = 2**30
MAX_BYTES = 100 * _GIB
MAX_MEMBERS = 1_000_000
MAX_RATIO = 1000
_RATIO_FLOOR = 2**20  # a tiny archive may well unpack to a thousand times its size
_BLOCK = 2**20
_MAX_HEADER = 2**24  # a tar header that asks for more than this is an attack on the memory
_MAX_DEPTH = 32
_MAX_NAME = 255  # bytes of one component: what Linux file systems take
_SYNC_ALL_FROM = 64  # files; from here one sync of the whole file system is quicker
_FORMATS = ("tar", "zip")
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


@dataclass(frozen=True)
class Extraction:
    """What one extraction put on the disk: where, from which format, how many members and bytes."""

    destination: Path
    archive_format: str
    members: int
    size: int


def extract_archive(
    path: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    archive_format: str | Sequence[str] | None = "auto",
    *,
    max_bytes: int = MAX_BYTES,
    max_members: int = MAX_MEMBERS,
    max_ratio: int = MAX_RATIO,
) -> Extraction | None:
    """Unpack an archive into a new folder, which appears only when it is complete.

    Members must be regular files or folders under plain relative names. Owners and modes of the archive are
    not kept: files and folders get the modes of any new file. Nested archives stay files.

    Parameters
    ----------
    path : path
        The archive.
    destination : path
        The folder to make; it must not exist. It is written as a temporary folder beside itself and renamed.
    archive_format : str, list of str or None, default 'auto'
        ``'tar'`` (plain, gzip, bzip2 or xz), ``'zip'``, or a list of them; ``'auto'`` is both. ``None`` and
        ``[]`` unpack nothing.
    max_bytes : int, default 100 GiB
        The most bytes that may come out.
    max_members : int, default 1,000,000
        The most members.
    max_ratio : int, default 1000
        The most bytes that may come out of each byte of the archive (beyond the first MiB).

    Returns
    -------
    Extraction or None
        What was written, or None when no format was asked for.

    Raises
    ------
    ArchiveError
        When a member, a limit or the archive itself is refused; nothing is left behind.
    ValueError
        When `archive_format` is unknown.
    FileExistsError
        When `destination` exists.

    Notes
    -----
    The rules follow PEP 706's ``data`` filter, made stricter: what that filter would change or drop is
    refused. The archive formats are those of POSIX.1-2001 (pax) and PKWARE's APPNOTE.

    Examples
    --------
    >>> import tempfile, zipfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with zipfile.ZipFile(folder / "a.zip", "w") as archive:
    ...     archive.writestr("data/x.txt", "hello")
    >>> extract_archive(folder / "a.zip", folder / "a").members
    1
    >>> (folder / "a/data/x.txt").read_text()
    'hello'
    """
    formats = _formats(archive_format)
    if not formats:
        return None
    target = Path(destination)
    occupied = FileExistsError(f"cannot extract into {target}: it exists; remove it or name another folder")
    if os.path.lexists(target):
        raise occupied
    target.parent.mkdir(parents=True, exist_ok=True)
    intake = _Intake(max_bytes, max_members, max_ratio)
    with _staged(Path(path), target.parent, target.name, formats, intake) as (stage, found):
        try:
            stage.rename(target)
        except OSError as error:
            if error.errno in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
                raise occupied from None  # another process was quicker
            raise
    _sync(target.parent)
    return Extraction(target, found, intake.members, intake.size)


def merge_archive(
    path: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    archive_format: str | Sequence[str] | None = "auto",
    *,
    expect: str | None = None,
    max_bytes: int = MAX_BYTES,
    max_members: int = MAX_MEMBERS,
    max_ratio: int = MAX_RATIO,
) -> Extraction | None:
    """Unpack an archive among the files of a shared folder.

    The archive is unpacked and checked whole in a temporary folder inside `folder`. Then each of its
    top-level entries is renamed into place: in one step where nothing of that name exists, otherwise folder
    into folder and file over file. Files that the archive does not hold are never touched. A process killed
    between two renames leaves whole files only, and the next call completes them.

    Parameters
    ----------
    path, archive_format, max_bytes, max_members, max_ratio
        As for `extract_archive`.
    folder : path
        The folder to add to; it must exist.
    expect : str, optional
        A top-level entry that the archive must hold. It is placed last, so that it exists only when all
        of the archive does.

    Returns
    -------
    Extraction or None
        What was written, or None when no format was asked for.

    Raises
    ------
    ArchiveError
        As `extract_archive`; also when `expect` is missing, or when a member would replace a link, the
        archive itself, a folder by a file or a file by a folder. Nothing has been placed then.

    Examples
    --------
    >>> import tempfile, zipfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with zipfile.ZipFile(folder / "a.zip", "w") as archive:
    ...     archive.writestr("x.txt", "hello")
    >>> merge_archive(folder / "a.zip", folder).members
    1
    >>> sorted(entry.name for entry in folder.iterdir())
    ['a.zip', 'x.txt']
    """
    formats = _formats(archive_format)
    if not formats:
        return None
    source, base = Path(path), Path(folder)
    intake = _Intake(max_bytes, max_members, max_ratio)
    with _staged(source, base, source.name, formats, intake) as (stage, found):
        tops = sorted(entry.name for entry in stage.iterdir())
        if expect is not None and expect not in tops:
            shown = ", ".join(map(repr, tops[:5])) + (", ..." if len(tops) > 5 else "")
            msg = f"it holds {shown} but no {expect!r}; ask for one of these names, or unpack it as it is"
            raise ArchiveError(msg)
        tops.sort(key=lambda name: name == expect)
        moves = [move for name in tops for move in _moves(stage / name, base / name, source)]
        for staged, place in moves:
            staged.replace(place)
        for changed in {place.parent for _, place in moves}:
            _sync(changed)
    return Extraction(base, found, intake.members, intake.size)


def _moves(staged: Path, place: Path, archive: Path) -> Iterator[tuple[Path, Path]]:
    """Give the renames that put one staged entry in place, without making any."""
    if not os.path.lexists(place):
        yield staged, place
        return
    if place.is_symlink() or place.samefile(archive) or staged.is_dir() != place.is_dir():
        msg = f"it would replace {place}, which is a link, the archive or of another kind; move that away"
        raise ArchiveError(msg)
    if not staged.is_dir():
        yield staged, place
        return
    for entry in sorted(staged.iterdir()):
        yield from _moves(entry, place / entry.name, archive)


def _formats(archive_format: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the formats that the argument names."""
    asked = [archive_format] if isinstance(archive_format, str) else list(archive_format or ())
    named = tuple(name for item in asked for name in (_FORMATS if item == "auto" else (item,)))
    for name in named:
        if name not in _FORMATS:
            msg = f"unknown archive format {name!r}; use 'auto', 'tar', 'zip', a list of these, or None"
            raise ValueError(msg)
    return named


@contextlib.contextmanager
def _staged(
    path: Path, parent: Path, name: str, formats: tuple[str, ...], intake: "_Intake"
) -> Iterator[tuple[Path, str]]:
    """Unpack into a temporary folder of `parent`, give it and the format found, and remove what is left."""
    stem = name if len(os.fsencode(name)) <= 200 else hashlib.sha256(os.fsencode(name)).hexdigest()
    _sweep(parent, stem)
    with contextlib.ExitStack() as stack:
        stage = _make_stage(parent, stem, stack)
        try:
            found = _detect(path, formats)
            (_unpack_tar if found == "tar" else _unpack_zip)(path, stage, intake)
            if not intake.members:
                _refuse("it holds no files")
            _sync_tree(stage)
            yield stage, found
        except ArchiveError as error:
            msg = f"cannot extract {path}: {error}. Nothing was extracted."
            raise ArchiveError(msg) from error.__cause__
        except OSError as error:
            if error.errno is not None and error.filename is None:
                error.filename = str(parent)  # a full disk does not say which
            raise


def _make_stage(parent: Path, stem: str, stack: contextlib.ExitStack) -> Path:
    """Make a locked temporary folder; the lock tells `_sweep` that its owner lives."""
    while True:
        stage = parent / f".{stem}.{secrets.token_hex(8)}.unpack"
        stage.mkdir()
        try:
            descriptor = os.open(stage, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except FileNotFoundError:
            continue  # swept by another process before it was locked
        stack.callback(os.close, descriptor)
        stack.callback(shutil.rmtree, stage, ignore_errors=True)
        with contextlib.suppress(OSError):  # no locks on this file system: nobody can sweep either
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.path.lexists(stage):
            return stage


def _sweep(parent: Path, stem: str) -> None:
    """Remove the temporary folders that killed extractions of this name left."""
    pattern = re.compile(rf"\.{re.escape(stem)}\.[0-9a-f]{{16}}\.unpack")
    for entry in [entry for entry in parent.iterdir() if pattern.fullmatch(entry.name)]:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            descriptor = os.open(entry, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Renamed first: were the lock a lie (NFS), its owner would fail, not publish half a folder.
            doomed = entry.rename(parent / f".{stem}.{secrets.token_hex(8)}.unpack")
            shutil.rmtree(doomed, ignore_errors=True)


def _refuse(why: str) -> NoReturn:
    raise ArchiveError(why)


class _Intake:
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
        with contextlib.suppress(tarfile.HeaderError, zlib.error, lzma.LZMAError, EOFError, OSError):
            with _plain(raw) as stream:
                tarfile.TarInfo.frombuf(stream.read(tarfile.BLOCKSIZE), "utf-8", "surrogateescape")
            is_tar = True
    if is_zip and is_tar:
        _refuse("it is a tar and a zip archive at once")
    found = "zip" if is_zip else "tar" if is_tar else None
    if found is None or found not in formats:
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


def _unpack_tar(path: Path, stage: Path, intake: _Intake) -> None:
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


def _unpack_tar_member(member: tarfile.TarInfo, forward: _Forward, stage: Path, intake: _Intake) -> None:
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


def _unpack_zip(path: Path, stage: Path, intake: _Intake) -> None:
    """Copy the members of a zip archive into the stage."""
    with path.open("rb") as raw, _damage_refused():
        _check_zip_end(raw)
        with zipfile.ZipFile(raw) as archive:
            for info, parts in _check_zip_directory(raw, archive, intake):
                target = stage.joinpath(*parts)
                if info.is_dir():
                    target.mkdir(parents=True, exist_ok=True)
                    continue
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
    raw: BinaryIO, archive: zipfile.ZipFile, intake: _Intake
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


def _sync_tree(folder: Path) -> None:
    """Bring all files and folders below to the disk, so that a rename never outruns the bytes."""
    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if syncfs and sum(len(names) for _, _, names in os.walk(folder)) >= _SYNC_ALL_FROM:
        with _descriptor(folder) as descriptor:
            if syncfs(descriptor):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(folder))
        return
    for base, _, names in os.walk(folder):
        for name in names:
            _sync(Path(base, name))
        _sync(Path(base))


def _sync(path: Path) -> None:
    with _descriptor(path) as descriptor:
        os.fsync(descriptor)


@contextlib.contextmanager
def _descriptor(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
