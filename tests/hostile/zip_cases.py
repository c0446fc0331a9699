"""The zip archives of the corpus, and one that is a tar as well."""

import bz2
import struct
import zlib
from dataclasses import replace
from pathlib import Path

from tests.hostile.archive_case import TREE, Case
from tests.hostile.packing import Member, entry, tar, zip64_end, zipped

UTF8 = 0x800
OK = Member(b"ok.txt", b"ok")
HONEST = tuple(Member(name.encode(), data) for name, data in TREE.items())
OTHER_NAME = struct.pack("<2HBL", 0x7075, 12, 1, zlib.crc32(b"plain.txt")) + b"../evil"


def quoted(_: Path) -> bytes:
    """Let one member's data hold the whole next member, as Fifield's bombs do: its header in a stored block."""
    inner = Member(b"b", bytes(100_000))
    stored = b"\0" + struct.pack("<2H", len(inner.local), len(inner.local) ^ 0xFFFF)
    outer = Member(b"a", inner.local + inner.data, packed=stored + inner.local + inner.body)
    return zipped(outer, replace(inner, offset=len(outer.local) + len(stored)))


def large(lie: int) -> bytes:
    """End a zip as large ones do; the locator can point elsewhere."""
    data = zipped(*HONEST)
    *_, members, size, start, _comment = struct.unpack("<4s4H2LH", data[-22:])
    return data[:-22] + zip64_end(members, size, start, lie)


ZIPS = (
    Case("zip_ok", 53, "an honest archive", lambda _: zipped(Member(b"data/", mode=0o40755, method=0), *HONEST),
         files=TREE),
    Case("zip_traversal", 54, "a name above the folder", lambda _: zipped(OK, Member(b"../evil", b"evil")),
         r"'\.\./evil' has '\.\.'"),
    Case("zip_absolute", 55, "an absolute name",
         lambda victim: zipped(OK, Member(f"{victim}/evil".encode(), b"evil")), "/evil' has an absolute name",
         either=True),
    Case("zip_backslash", 56, "a name as Windows spells it", lambda _: zipped(OK, Member(rb"..\evil", b"evil")),
         "has a backslash", either=True),
    Case("zip_symlink", 57, "a file through a link",
         lambda victim: zipped(Member(b"out", str(victim).encode(), mode=0o120777), Member(b"out/evil", b"evil")),
         "'out' is not a regular file"),
    Case("zip_symlink_leak", 58, "a link to a foreign file",
         lambda victim: zipped(OK, Member(b"leak", f"{victim}/secret".encode(), mode=0o120777)),
         "'leak' is not a regular file"),
    Case("zip_setuid", 59, "a setuid program", lambda _: zipped(Member(b"suid", b"#!", mode=0o106755)),
         files={"suid": b"#!"}, either=True),
    Case("zip_device", 60, "a device", lambda _: zipped(OK, Member(b"dev", mode=0o020644, method=0)),
         "'dev' is not a regular file", either=True),
    Case("zip_duplicate", 61, "one name twice", lambda _: zipped(Member(b"a", b"first"), Member(b"a", b"second")),
         "'a' collides with 'a'", either=True),
    Case("zip_file_then_dir", 62, "a file, and a file below it",
         lambda _: zipped(Member(b"a", b"x"), Member(b"a/b", b"y")), "'a/b' collides with 'a'"),
    Case("zip_weird_names", 63, "names that fool a terminal",
         lambda _: zipped(*(Member(name, b"x", flags=UTF8) for name in (b"-rf", b" ", b"a\nb", "\u202etxt".encode()))),
         r"'a\\nb' has control", either=True),
    Case("zip_bomb", 64, "16 MiB of zeros from a few hundred bytes",
         lambda _: zipped(Member(b"zeros", bytes(2**24), method=12, packed=bz2.compress(bytes(2**24)))),
         "with member 'zeros' it unpacks to more"),
    Case("zip_many", 65, "more members than allowed",
         lambda _: zipped(*(Member(b"%d" % index, method=0) for index in range(2_001))),
         "it holds more than 2,000 members", limits={"max_members": 2_000}),
    Case("zip_overlap", 66, "two entries for the same bytes",
         lambda _: zipped(Member(b"a", b"x" * 50), Member(b"b", b"x" * 50, offset=0)), "'a' overlaps the next one"),
    Case("zip_quoted_overlap", 67, "a member that holds the next one", quoted, "'a' overlaps the next one"),
    Case("zip_name_mismatch", 68, "another name in the local header",
         lambda _: zipped(OK, Member(b"good", b"x", local_name=b"evil")), "'good' is described differently"),
    Case("zip_bad_crc", 69, "a wrong sum", lambda _: zipped(OK, Member(b"f", b"data", crc=1)), "'f' is damaged"),
    Case("zip_nul_name", 70, "a name with a NUL", lambda _: zipped(OK, Member(b"good.txt\0.exe", b"x")),
         r"'good\.txt\\x00\.exe' has control"),
    Case("zip_encrypted", 71, "an encrypted member",
         lambda _: zipped(Member(b"secret", b"x", flags=1, packed=bytes(13), method=0)), "'secret' is encrypted"),
    Case("zip_method99", 72, "a method that nobody knows",
         lambda _: zipped(Member(b"f", b"x", method=99)), "'f' is packed with the unknown method 99"),
    Case("zip_size_lie", 73, "more data than declared", lambda _: zipped(OK, Member(b"f", b"abcdef", size=3)),
         "'f' has more than the 3 bytes"),
    Case("zip_size_lie_big", 74, "less data than declared", lambda _: zipped(OK, Member(b"f", b"abc", size=9)),
         "'f' has 3 bytes, not 9"),
    Case("zip_nonutf8", 75, "a name in the old code page", lambda _: zipped(Member(b"caf\x82.txt", b"x")),
         files={"caf\u00e9.txt": b"x"}, either=True),
    Case("zip_unicode_extra", 76, "another name in an extra field",
         lambda _: zipped(Member(b"plain.txt", b"x", extra=OTHER_NAME)), files={"plain.txt": b"x"}, either=True),
    Case("zip_prefix", 77, "a program before the archive", lambda _: b"#!/bin/sh\nexit 1\n" + zipped(*HONEST),
         "not a tar or zip archive", either=True),
    Case("polyglot", 78, "a tar and a zip at once",
         lambda _: tar(entry("harmless", b"x")) + zipped(*HONEST), "something follows its end"),
    Case("zip_truncated", 79, "a zip that was cut off", lambda _: zipped(*HONEST)[:-40], "cut off"),
    Case("zip64_locator_lie", 80, "a zip64 locator that points elsewhere (CVE-2025-8291)", lambda _: large(-9),
         "zip64 locator points elsewhere"),
    Case("zip_nested", 81, "eight archives in an archive",
         lambda _: zipped(*(Member(b"%d.zip" % index, zipped(OK), method=0) for index in range(8))),
         files={f"{index}.zip": zipped(OK) for index in range(8)}, either=True),
)  # fmt: skip
