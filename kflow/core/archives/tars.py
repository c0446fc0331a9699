"""Read tar archives forwards, once, with a limit on every byte that is unpacked.

Headers are parsed by `tarfile.TarInfo`; ``tarfile.extractall`` is not used. Its filters have been passed by
(CVE-2025-4517), it drops members silently, and it leaves half an archive behind.
"""

import bz2
import io
import lzma
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO, cast

from isal import igzip

from kflow.core.archives.members import BLOCK, ArchiveError, InflateError, Intake, Tree, refuse

_END = bytes(tarfile.BLOCKSIZE)
_MAX_HEADER = 2**24  # a header that asks for more than this is an attack on the memory
_KINDS = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a character device",
    tarfile.BLKTYPE: "a block device",
    tarfile.FIFOTYPE: "a named pipe",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}
_UNPACKING = (EOFError, InflateError, lzma.LZMAError, OSError)
_PARSING = (tarfile.TarError, EOFError, ValueError, LookupError, ArithmeticError, RecursionError)


def is_tar(path: Path) -> bool:
    """Say whether a file begins with a tar header, plain or packed with gzip, bzip2 or xz."""
    with path.open("rb") as raw, _plain(raw) as stream:
        try:
            tarfile.TarInfo.frombuf(stream.read(tarfile.BLOCKSIZE), "utf-8", "surrogateescape")
        except tarfile.HeaderError:
            return False
        except _UNPACKING as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
        return True  # or packed and damaged, which is better told than that it is no archive


def unpack_tar(path: Path, tree: Tree, intake: Intake) -> None:
    """Copy the members of a tar archive into a tree."""
    with path.open("rb") as raw, _plain(raw) as stream:
        forward = _Forward(stream, intake.most)
        with tarfile.TarFile(fileobj=cast("IO[bytes]", forward), encoding="utf-8", errors="surrogateescape") as tar:
            while (member := _next(tar, forward)) is not None:
                _unpack_member(member, forward, tree, intake)
        while block := forward.read(BLOCK):  # to the end, where the packer's own sum is checked
            if block.strip(b"\0"):
                refuse("something follows its end")


def _next(tar: tarfile.TarFile, forward: "_Forward") -> tarfile.TarInfo | None:
    """Return the next header, or None at the end; whatever a damaged one raises becomes one kind of error."""
    try:
        member = tar.next()
    except ArchiveError:
        raise
    except _PARSING as error:
        msg = f"it is damaged ({type(error).__name__}: {error})"
        raise ArchiveError(msg) from error
    if member is None and forward.last != _END:  # tarfile takes any header that it cannot read for the end
        refuse("it is cut off or damaged where a header should be")
    tar.members.clear()  # type: ignore[attr-defined]  # untyped; they would fill the memory
    return member


def _unpack_member(member: tarfile.TarInfo, forward: "_Forward", tree: Tree, intake: Intake) -> None:
    """Copy one member, whose data is where the stream stands."""
    kind = _KINDS.get(tarfile.GNUTYPE_SPARSE if member.issparse() else member.type)
    is_folder = member.isdir()
    if kind or not (is_folder or member.type in {tarfile.REGTYPE, tarfile.AREGTYPE}):
        refuse(f"member {member.name!r} is {kind or f'of the unknown type {member.type!r}'}")
    # A folder's size, where a tar has one, says nothing: no data follows.
    path = intake.accept(member.name, is_folder=is_folder, size=0 if is_folder else member.size)
    if is_folder:
        tree.add_folder(path)
    else:
        tree.add_file(path, forward.blocks(member))


def _plain(raw: BinaryIO) -> IO[bytes]:
    """Return a reader of what gzip, bzip2 or xz packed, told by the first bytes."""
    magic = raw.read(6)
    raw.seek(0)
    if magic.startswith(b"\x1f\x8b"):
        return cast("IO[bytes]", igzip.IGzipFile(fileobj=raw))  # type: ignore[no-untyped-call]
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
        self.last = b""
        """What was read last."""

    def tell(self) -> int:
        """Return how many unpacked bytes were read."""
        return self._position

    def read(self, size: int = -1) -> bytes:
        """Read exactly `size` bytes, or fewer at the end."""
        if not 0 <= size <= _MAX_HEADER:
            refuse(f"a header asks for {size} bytes at once")
        try:
            block = self._stream.read(size)
        except _UNPACKING as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the disk's, not the unpacker's
            msg = f"it is damaged after {self._position:,} unpacked bytes ({error})"
            raise ArchiveError(msg) from error
        self._position += len(block)
        self.last = block
        if self._position > self._limit:
            refuse(f"it unpacks to more than {self._limit:,} bytes; raise max_bytes or max_ratio if that is right")
        return block

    def blocks(self, member: tarfile.TarInfo) -> Iterator[bytes]:
        """Read the data of a member."""
        left = member.size
        while left:
            block = self.read(min(BLOCK, left))
            if not block:
                refuse(f"it is cut off within member {member.name!r}")
            left -= len(block)
            yield block

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Skip forward, reading what is passed by so that the limit holds for it as well."""
        if whence != os.SEEK_SET or offset < self._position:
            refuse("a header points backwards")
        while self._position < offset and self.read(min(BLOCK, offset - self._position)):
            pass
        return self._position
