"""Read zip archives whose two descriptions of each member agree.

The central directory is parsed by `zipfile`; ``zipfile.extractall`` is not used. It strips ``..`` silently,
writes links as text, and leaves half an archive behind. The names, sizes and kinds of all entries are
checked before the first is written.
"""

import os
import stat
import struct
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from isal import isal_zlib

from kflow.core.archives.members import BLOCK, ArchiveError, InflateError, Intake, Tree, refuse

_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_END_RECORD = struct.Struct("<4s4H2LH")
_ZIP64_LOCATOR = struct.Struct("<4sLQL")
_ZIP64_RECORD = struct.Struct("<4sQ2H2L4Q")
_SIZES_FOLLOW = 0x8
_UNREADABLE = 0x1 | 0x20 | 0x40  # encrypted, a patch of another archive, strongly encrypted
_UTF8 = 0x800
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
_UNPACKING = (
    zipfile.BadZipFile, InflateError, struct.error, EOFError, ValueError, LookupError, NotImplementedError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Entry:
    """An entry of the directory, where it has to end, and the path that it is unpacked to."""

    info: zipfile.ZipInfo
    end: int
    path: str


def is_zip(path: Path) -> bool:
    """Say whether a file begins as a zip archive does."""
    with path.open("rb") as raw:
        return raw.read(4) in {b"PK\x03\x04", b"PK\x05\x06"}


def unpack_zip(path: Path, tree: Tree, intake: Intake) -> None:
    """Copy the members of a zip archive into a tree."""
    try:
        with path.open("rb") as raw:
            said = _check_end(raw)
            intake.expect(said)
            with zipfile.ZipFile(raw) as archive:
                for entry in _checked(archive, said, intake):
                    _unpack_entry(archive, raw.fileno(), entry, tree)
    except ArchiveError:
        raise
    except _UNPACKING as error:
        msg = f"it is damaged ({type(error).__name__}: {error})"
        raise ArchiveError(msg) from error


def _check_end(raw: BinaryIO) -> int:
    """Return how many members the last record counts; it must end the file, and a zip64 locator point right."""
    size = raw.seek(0, os.SEEK_END)
    tail_start = max(0, size - 0xFFFF - _END_RECORD.size - _ZIP64_LOCATOR.size - _ZIP64_RECORD.size)
    raw.seek(tail_start)
    tail = raw.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or at + _END_RECORD.size > len(tail):
        refuse("it is a zip archive without its end: cut off")
    *_, members, _size, _start, comment = _END_RECORD.unpack_from(tail, at)
    if at + _END_RECORD.size + comment != len(tail):
        refuse("something follows its end")
    locator = at - _ZIP64_LOCATOR.size
    if locator >= 0 and tail.startswith(b"PK\x06\x07", locator):
        record = locator - _ZIP64_RECORD.size
        if record < 0 or _ZIP64_LOCATOR.unpack_from(tail, locator)[2] != tail_start + record:
            refuse("its zip64 locator points elsewhere than to the record before it")
        members = _ZIP64_RECORD.unpack_from(tail, record)[7]
    return int(members)


def _checked(archive: zipfile.ZipFile, said: int, intake: Intake) -> list[_Entry]:
    """Check the whole directory before anything is written."""
    infos = sorted(archive.infolist(), key=lambda info: info.header_offset)
    if (len(infos) - said) % 0x10000:  # a zip without zip64 counts no further than that
        refuse(f"its end counts {said:,} members, its directory has {len(infos):,}")
    if not infos:
        refuse("it holds no files")
    if infos[0].header_offset != 0:
        refuse("something precedes its first member")
    ends = [info.header_offset for info in infos[1:]] + [archive.start_dir]
    return [_Entry(info, end, _accepted(info, intake)) for info, end in zip(infos, ends, strict=True)]


def _accepted(info: zipfile.ZipInfo, intake: Intake) -> str:
    """Check one entry of the directory; return its path."""
    name = info.orig_filename
    is_folder = name.endswith("/")
    if stat.S_IFMT(info.external_attr >> 16) not in {0, stat.S_IFDIR if is_folder else stat.S_IFREG}:
        refuse(f"member {name!r} is not a regular file or folder (a link or a device)")
    if info.flag_bits & _UNREADABLE:
        refuse(f"member {name!r} is encrypted; unpack the archive yourself")
    if info.compress_type not in _METHODS:
        refuse(f"member {name!r} is packed with the unknown method {info.compress_type}")
    path = intake.accept(name, is_folder=is_folder, size=info.file_size)
    if info.file_size > intake.limits.most_from(info.compress_size):
        refuse(f"member {name!r} unpacks to {info.file_size:,} bytes, more than max_ratio allows")
    return path


def _unpack_entry(archive: zipfile.ZipFile, descriptor: int, entry: _Entry, tree: Tree) -> None:
    """Compare an entry's two descriptions, then copy it."""
    info = entry.info
    head = os.pread(descriptor, max(0, min(BLOCK, entry.end - info.header_offset)), info.header_offset)
    start = _check_header(head, entry)
    if info.orig_filename.endswith("/"):
        tree.add_folder(entry.path)
        return
    if info.compress_type == zipfile.ZIP_STORED:
        blocks = _packed(descriptor, info, head, start)
    elif info.compress_type == zipfile.ZIP_DEFLATED:
        blocks = _inflated(_packed(descriptor, info, head, start))
    else:
        blocks = _opened(archive, info)
    try:
        tree.add_file(entry.path, _verified(blocks, info))
    except _UNPACKING as error:
        if isinstance(error, ArchiveError):
            raise
        msg = f"member {info.orig_filename!r} is damaged ({error})"
        raise ArchiveError(msg) from error


def _check_header(head: bytes, entry: _Entry) -> int:
    """See that a local header agrees with the directory and that its data end in time; return where they start."""
    info, name = entry.info, entry.info.orig_filename
    overlaps = f"member {name!r} overlaps the next one"
    if len(head) < _LOCAL_HEADER.size:
        refuse(overlaps)
    _, _, flags, method, _, _, crc, packed, size, name_length, extra_length = _LOCAL_HEADER.unpack_from(head)
    start = _LOCAL_HEADER.size + int(name_length) + int(extra_length)
    if info.header_offset + start + info.compress_size > entry.end:
        refuse(overlaps)
    local_name = head[_LOCAL_HEADER.size :][:name_length].decode("utf-8" if flags & _UTF8 else "cp437")
    # With that bit the sizes follow the data; 0xffffffff says that they are in a zip64 field.
    pairs = [] if flags & _SIZES_FOLLOW else [(crc, info.CRC), (packed, info.compress_size), (size, info.file_size)]
    same_sizes = all(local in {central, 0xFFFFFFFF} for local, central in pairs)
    same_kind = method == info.compress_type and not flags & _UNREADABLE
    if not (head.startswith(b"PK\x03\x04") and local_name == name and same_sizes and same_kind):
        refuse(f"member {name!r} is described differently in its two headers")
    return start


def _packed(descriptor: int, info: zipfile.ZipInfo, head: bytes, start: int) -> Iterator[bytes]:
    """Read the packed bytes of a member, of which the first came with its header."""
    left = info.compress_size
    offset = info.header_offset + start
    block = head[start : start + left]
    while left:
        if not block:
            refuse(f"it is cut off within member {info.orig_filename!r}")
        yield block
        left -= len(block)
        offset += len(block)
        block = os.pread(descriptor, min(BLOCK, left), offset)


def _inflated(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Inflate what deflate packed, a block at a time however much comes out."""
    inflater = isal_zlib.decompressobj(-15)
    for packed in blocks:
        rest = packed
        while rest:
            yield inflater.decompress(rest, BLOCK)
            rest = inflater.unconsumed_tail
            if inflater.unused_data:
                refuse("a member has bytes behind its deflated data")
    while not inflater.eof:
        block = inflater.decompress(b"", BLOCK)
        if not block:
            raise EOFError("its deflated data are cut off")
        yield block


def _opened(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    """Unpack the rarer methods as `zipfile` does."""
    with archive.open(info) as member:
        while block := member.read(BLOCK):
            yield block


def _verified(blocks: Iterable[bytes], info: zipfile.ZipInfo) -> Iterator[bytes]:
    """Pass blocks on and see that they have the size and the sum that the headers say."""
    name, size, crc = info.orig_filename, 0, 0
    for block in blocks:
        size += len(block)
        if size > info.file_size:
            refuse(f"member {name!r} has more than the {info.file_size:,} bytes that it declares")
        crc = isal_zlib.crc32(block, crc)
        yield block
    if size != info.file_size:
        refuse(f"member {name!r} has {size:,} bytes, not {info.file_size:,}")
    if crc != info.CRC:
        refuse(f"member {name!r} is damaged (its CRC-32 is {crc:08x}, not {info.CRC:08x})")
