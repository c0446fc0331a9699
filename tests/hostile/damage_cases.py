"""The tar archives of the corpus that are too large, lie about sizes or are damaged, and two that are no archives."""

import bz2
import gzip
import lzma
from pathlib import Path

from tests.hostile.archive_case import TREE, Case
from tests.hostile.packing import BLOCK, entry, pax, sparse, tar

OK = entry("ok.txt", b"ok")
MEMBERS = tuple(entry(name, data) for name, data in TREE.items())


def damaged_header(_: Path) -> bytes:
    """Change a byte of the second header, whose sum is then wrong."""
    data = bytearray(tar(*MEMBERS))
    data[2 * BLOCK + 3] ^= 0xFF
    return bytes(data)


def wrong_sum(_: Path) -> bytes:
    """Change the CRC-32 at the end of a gzip file."""
    data = bytearray(gzip.compress(tar(*MEMBERS)))
    data[-6] ^= 0xFF
    return bytes(data)


SIZES = (
    Case(
        "tar_bomb",
        34,
        "16 MiB of zeros from a few hundred bytes",
        lambda _: bz2.compress(tar(entry("zeros", bytes(2**24)))),
        "with member 'zeros' it unpacks to more",
    ),
    Case(
        "tar_bomb_xz",
        35,
        "16 MiB of zeros from a few thousand bytes",
        lambda _: lzma.compress(tar(entry("zeros", bytes(2**24))), preset=0),
        "with member 'zeros' it unpacks to more",
    ),
    Case(
        "tar_many",
        36,
        "more members than allowed",
        lambda _: gzip.compress(tar(*(entry(str(index)) for index in range(2_001))), 1),
        "with member '2000' it holds more than 2,000",
        limits={"max_members": 2_000},
    ),
    Case(
        "tar_sparse_1tib",
        37,
        "a sparse file of 1 TiB",
        lambda _: tar(OK, sparse(b"big", 2**40)),
        "'big' is a sparse file",
    ),
    Case(
        "tar_pax_size_lie",
        38,
        "a size that an extended header corrects",
        lambda _: tar(pax(size="5"), entry("f", b"hello", size=0)),
        files={"f": b"hello"},
        either=True,
    ),
    Case(
        "tar_pax_size_huge",
        39,
        "a size of 2^60 in an extended header",
        lambda _: tar(OK, pax(size=str(2**60)), entry("f", b"hello")),
        "with member 'f' it unpacks to more",
    ),
    # Later releases of Python refuse a negative size as they parse the header, and say nothing of the member.
    Case(
        "tar_pax_size_negative",
        40,
        "a negative size in an extended header",
        lambda _: tar(OK, pax(size="-512"), entry("f", b"hello")),
        "points backwards|'f' declares an impossible|damaged where a header",
    ),
    Case(
        "tar_negative_size",
        41,
        "a negative size",
        lambda _: tar(OK, entry("f", size=-1)),
        "'f' declares an impossible size|damaged where a header",
    ),
    Case(
        "tar_negative_loop",
        42,
        "a size that leads back to its own header (CVE-2025-8194)",
        lambda _: tar(OK, entry("f", size=-512)),
        "points backwards|'f' declares an impossible|damaged where a header",
    ),
    Case(
        "tar_pax_path_traversal",
        43,
        "a name above the folder, in an extended header",
        lambda _: tar(OK, pax(path="../evil"), entry("f", b"evil")),
        r"'\.\./evil' has '\.\.'",
        bites="escaped",
    ),
    Case(
        "tar_pax_nul",
        44,
        "a name with a NUL",
        lambda _: tar(pax(path="ok.txt\0/../evil"), entry("f", b"x")),
        r"'ok\.txt\\x00/\.\./evil' has control",
    ),
    Case(
        "tar_pax_global",
        45,
        "extended headers for all members",
        lambda _: tar(pax(b"g", comment="all", mtime="0"), *MEMBERS),
        files=TREE,
        either=True,
    ),
)

DAMAGE = (
    Case("tar_truncated", 46, "a gzip file that was cut off", lambda _: gzip.compress(tar(*MEMBERS))[:-60],
         "is damaged after|cut off"),
    Case("tar_truncated_plain", 47, "a tar that was cut off within a member",
         lambda _: tar(OK, entry("f", bytes(2000)))[: 3 * BLOCK + 100], "cut off within member 'f'"),
    Case("tar_cut_between", 48, "a tar that was cut off between members",
         lambda _: tar(OK, OK)[: 2 * BLOCK], "cut off", either=True),
    Case("tar_bad_crc", 49, "a gzip file with a wrong sum", wrong_sum, "CRC"),
    Case("tar_corrupt_header_mid", 50, "a damaged header between members", damaged_header,
         "damaged where a header should be"),
    Case("not_archive", 51, "a page that says 404", lambda _: b"<!doctype html><title>404</title>" * 40,
         "not a tar or zip archive"),
    Case("empty_file", 52, "nothing", lambda _: b"", "not a tar or zip archive"),
)  # fmt: skip

DAMAGED_TARS = (*SIZES, *DAMAGE)
