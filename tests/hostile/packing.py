"""Tar and zip archives written byte by byte, since honest packers refuse to write what hostile ones do.

The formats are those of POSIX.1-2001 (ustar and pax), of GNU tar's manual and of PKWARE's APPNOTE.
"""

import struct
import zlib
from dataclasses import dataclass

BLOCK = 512


def number(value: int) -> bytes:
    """Write a size as tar does: octal digits, or base 256 where these do not reach."""
    if 0 <= value < 8**11:
        return b"%011o\0" % value
    return (value & (2**96 - 1) | 1 << 95).to_bytes(12, "big")


def padded(data: bytes) -> bytes:
    """Fill the last block."""
    return data + bytes(-len(data) % BLOCK)


def header(
    name: bytes,
    size: int = 0,
    kind: bytes = b"0",
    *,
    link: bytes = b"",
    mode: int = 0o644,
    owner: int = 0,
    device: tuple[int, int] = (0, 0),
) -> bytes:
    """Write one ustar header with a right sum."""
    block = bytearray(BLOCK)
    block[0:100] = name[:100].ljust(100, b"\0")
    block[100:124] = b"%07o\0%07o\0%07o\0" % (mode, owner, owner)
    block[124:136] = number(size)
    block[136:148] = b"%011o\0" % 1_600_000_000
    block[156:157] = kind
    block[157:257] = link[:100].ljust(100, b"\0")
    block[257:265] = b"ustar\x0000"
    block[329:345] = b"%07o\0%07o\0" % device
    return summed(block)


def summed(block: bytearray) -> bytes:
    """Write the sum of a header into it."""
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def entry(
    name: str | bytes,
    data: bytes = b"",
    *,
    kind: bytes = b"0",
    link: str | bytes = b"",
    mode: int = 0o644,
    owner: int = 0,
    device: tuple[int, int] = (0, 0),
    size: int | None = None,
) -> bytes:
    """Write one member; long names and link targets go into GNU's records before it."""
    raw_name, raw_link = (text.encode() if isinstance(text, str) else text for text in (name, link))
    before = b""
    for text, record in ((raw_link, b"K"), (raw_name, b"L")):
        if len(text) > 100:
            before += header(b"././@LongLink", len(text) + 1, record) + padded(text + b"\0")
    told = len(data) if size is None else size
    return before + header(raw_name, told, kind, link=raw_link, mode=mode, owner=owner, device=device) + padded(data)


def folder(name: str, mode: int = 0o755) -> bytes:
    """Write a folder."""
    return entry(name, kind=b"5", mode=mode)


def symlink(name: str, target: str) -> bytes:
    """Write a symbolic link."""
    return entry(name, kind=b"2", link=target, mode=0o777)


def hard_link(name: str, target: str) -> bytes:
    """Write a hard link."""
    return entry(name, kind=b"1", link=target)


def pax(kind: bytes = b"x", **records: str) -> bytes:
    """Write extended records, for the next member ('x') or for all that follow ('g')."""
    body = b""
    for key, value in records.items():
        line = b" %s=%s\n" % (key.encode(), value.encode())
        length = len(line)
        while length != len(line) + len(str(length)):
            length = len(line) + len(str(length))
        body += b"%d" % length + line
    return entry("pax", body, kind=kind)


def tar(*entries: bytes) -> bytes:
    """Put members together and end the archive with two blocks of zeros."""
    return b"".join(entries) + bytes(2 * BLOCK)


def sparse(name: bytes, size: int) -> bytes:
    """Write a file of GNU's old sparse format that is one hole."""
    block = bytearray(header(name, 0, b"S"))
    block[257:265] = b"ustar  \0"
    block[386:410] = number(size) + number(0)
    block[483:495] = number(size)
    return summed(block)


@dataclass(frozen=True)
class Member:
    """A zip member; what is not given is told truly, and the same in both headers."""

    name: bytes
    data: bytes = b""
    method: int = 8
    flags: int = 0
    mode: int = 0o100644
    extra: bytes = b""
    packed: bytes | None = None
    size: int | None = None
    crc: int | None = None
    local_name: bytes | None = None
    offset: int | None = None

    @property
    def body(self) -> bytes:
        """The bytes that stand in the archive."""
        if self.packed is not None:
            return self.packed
        return deflated(self.data) if self.method == 8 else self.data

    @property
    def sums(self) -> bytes:
        """The CRC-32 and the two sizes, as both headers have them."""
        crc = zlib.crc32(self.data) if self.crc is None else self.crc
        return struct.pack("<3L", crc, len(self.body), len(self.data) if self.size is None else self.size)

    @property
    def local(self) -> bytes:
        """The local header."""
        name = self.name if self.local_name is None else self.local_name
        start = struct.pack("<4s5H", b"PK\x03\x04", 20, self.flags, self.method, 0, 0x21)
        return start + self.sums + struct.pack("<2H", len(name), len(self.extra)) + name + self.extra

    def central(self, offset: int) -> bytes:
        """Write the entry of the directory."""
        start = struct.pack("<4s6H", b"PK\x01\x02", 0x314, 20, self.flags, self.method, 0, 0x21)
        rest = struct.pack("<5H2L", len(self.name), len(self.extra), 0, 0, 0, self.mode << 16, offset)
        return start + self.sums + rest + self.name + self.extra


def deflated(data: bytes) -> bytes:
    """Pack as deflate without a wrapper."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


def zipped(*members: Member) -> bytes:
    """Put members together; one with an offset of its own has an entry in the directory only."""
    body, directory = b"", b""
    for member in members:
        directory += member.central(len(body) if member.offset is None else member.offset)
        if member.offset is None:
            body += member.local + member.body
    return body + directory + zip_end(len(members), len(directory), len(body))


def zip_end(members: int, size: int, start: int) -> bytes:
    """Write the last record."""
    return struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, members, members, size, start, 0)


def zip64_end(members: int, size: int, start: int, lie: int = 0) -> bytes:
    """Write the last records of a large archive; the locator can point elsewhere."""
    record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, members, members, size, start)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, start + size + lie, 1)
    return record + locator + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 2**32 - 1, 2**32 - 1, 0)
