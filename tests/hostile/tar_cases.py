"""The tar archives of the corpus whose members have hostile or odd names and kinds."""

from pathlib import Path

from tests.hostile.archive_case import TREE, Case
from tests.hostile.packing import entry, folder, hard_link, symlink, tar

OK = entry("ok.txt", b"ok")
MEMBERS = tuple(entry(name, data) for name, data in TREE.items())


def out(victim: Path) -> str:
    """Spell a path outside so that it leads there from any folder."""
    return "../" * 40 + str(victim)[1:]


def longest_path(_: Path) -> bytes:
    """Hide a link's target behind a path that is too long for realpath (CVE-2025-4517)."""
    members, above = [], ""
    for letter in "abcdefghijklmnop":
        members += [folder(above + "d" * 247), symlink(above + letter, "d" * 247)]
        above += "d" * 247 + "/"
    far = "/".join("abcdefghijklmnop") + "/" + "l" * 254
    return tar(*members, symlink(far, "../" * 16), symlink("escape", far + "/.."), entry("escape/evil", b"evil"))


PATHS = (
    Case("tar_ok", 1, "an honest archive", lambda _: tar(folder("data"), *MEMBERS), files=TREE),
    Case(
        "tar_symlink_inside",
        2,
        "a symbolic link to its neighbour",
        lambda _: tar(OK, symlink("link", "ok.txt")),
        "'link' is a symbolic link",
        either=True,
    ),
    Case(
        "tar_traversal",
        3,
        "a name above the folder",
        lambda _: tar(OK, entry("../evil", b"evil")),
        r"'\.\./evil' has '\.\.'",
        bites="escaped",
    ),
    Case(
        "tar_absolute",
        4,
        "an absolute name",
        lambda victim: tar(OK, entry(f"{victim}/evil", b"evil")),
        "/evil' has an absolute name",
        either=True,
        bites="escaped",
    ),
    Case(
        "tar_dotdot_mid",
        5,
        "a name that leaves by way of a folder",
        lambda _: tar(folder("data"), entry("data/../../evil", b"evil")),
        r"'data/\.\./\.\./evil' has '\.\.'",
        bites="escaped",
    ),
    Case(
        "tar_dotdot_inside",
        6,
        "'..' that stays inside",
        lambda _: tar(folder("data"), entry("data/../ok.txt", b"ok")),
        r"has '\.\.'",
        either=True,
    ),
    Case(
        "tar_symlink_abs_write",
        7,
        "a file through an absolute link",
        lambda victim: tar(OK, symlink("out", str(victim)), entry("out/evil", b"evil")),
        "'out' is a symbolic link",
        bites="escaped",
    ),
    Case(
        "tar_symlink_rel_write",
        8,
        "a file through a relative link",
        lambda victim: tar(OK, symlink("out", out(victim)), entry("out/evil", b"evil")),
        "'out' is a symbolic link",
        bites="escaped",
    ),
    Case(
        "tar_symlink_leak",
        9,
        "a link to a foreign file, to be read later",
        lambda victim: tar(OK, symlink("leak", f"{victim}/secret")),
        "'leak' is a symbolic link",
        bites="left a link out",
    ),
    Case(
        "tar_hardlink_abs",
        10,
        "a hard link to a foreign file",
        lambda victim: tar(OK, hard_link("hard", f"{victim}/secret")),
        "'hard' is a hard link",
    ),
    Case(
        "tar_hardlink_overwrite",
        11,
        "a hard link to a foreign file, then a file of that name",
        lambda victim: tar(OK, hard_link("hard", out(victim) + "/secret"), entry("hard", b"evil")),
        "'hard' is a hard link",
    ),
    Case(
        "tar_symlink_chain",
        12,
        "links that are harmless one by one",
        lambda _: tar(
            folder("a/b"), symlink("a/b/up", "../.."), symlink("top", "a/b/up/.."), entry("top/evil", b"evil")
        ),
        "'a/b/up' is a symbolic link",
        bites="escaped",
    ),
    Case(
        "tar_cve_2025_4330",
        13,
        "a hard link that moves a relative link upwards",
        lambda _: tar(folder("a/b"), symlink("a/b/s", "../escape"), hard_link("s", "a/b/s")),
        "'a/b/s' is a symbolic link",
        bites="left a link out",
    ),
    Case(
        "tar_parent_symlink",
        14,
        "a link to '.', and '..' behind it",
        lambda _: tar(symlink("current", "."), symlink("parent", "current/.."), entry("parent/evil", b"evil")),
        "'current' is a symbolic link",
        bites="escaped",
    ),
    Case(
        "tar_cve_2024_12718",
        15,
        "a folder through a link, whose mode is then set outside",
        lambda victim: tar(
            symlink("current", "."), symlink("parent", "current/" + out(victim)), folder("parent/folder", 0o777)
        ),
        "'current' is a symbolic link",
        bites="escaped",
    ),
    Case(
        "tar_cve_2025_4517",
        16,
        "a link that is too deep for realpath to follow",
        longest_path,
        "'a' is a symbolic link",
        bites="escaped",
    ),
    Case(
        "tar_cve_2025_4435",
        17,
        "members that depend on refused ones",
        lambda victim: tar(OK, symlink("out", str(victim)), entry("out/evil", b"evil"), entry("../evil", b"evil")),
        "'out' is a symbolic link",
        bites="escaped",
    ),
)

KINDS = (
    Case(
        "tar_chardev",
        18,
        "a character device (/dev/null)",
        lambda _: tar(OK, entry("dev", kind=b"3", device=(1, 3))),
        "'dev' is a character device",
    ),
    Case(
        "tar_blockdev",
        19,
        "a block device (a loop device)",
        lambda _: tar(OK, entry("dev", kind=b"4", device=(7, 0))),
        "'dev' is a block device",
    ),
    Case(
        "tar_fifo",
        20,
        "a named pipe",
        lambda _: tar(OK, entry("pipe", kind=b"6")),
        "'pipe' is a named pipe",
        bites="left a device",
    ),
    Case(
        "tar_setuid",
        21,
        "a setuid program",
        lambda _: tar(entry("suid", b"#!", mode=0o6755)),
        files={"suid": b"#!"},
        either=True,
        bites="kept a setuid bit",
    ),
    Case(
        "tar_mode000_dir",
        22,
        "a folder that nobody may enter",
        lambda _: tar(folder("closed", 0), entry("closed/f", b"f")),
        files={"closed/f": b"f"},
        either=True,
    ),
    Case(
        "tar_root_mode000",
        23,
        "the folder itself with no permissions",
        lambda _: tar(folder("./", 0), entry("./f", b"f")),
        files={"f": b"f"},
        either=True,
    ),
    Case(
        "tar_owner",
        24,
        "a file of another user",
        lambda _: tar(entry("theirs", b"x", owner=12345)),
        files={"theirs": b"x"},
        either=True,
    ),
    Case(
        "tar_duplicate",
        25,
        "one name twice",
        lambda _: tar(entry("a", b"first"), entry("a", b"second")),
        "'a' collides with 'a'",
        either=True,
    ),
    Case(
        "tar_file_then_dir",
        26,
        "a file, and a file below it",
        lambda _: tar(entry("a", b"x"), entry("a/b", b"y")),
        "'a/b' collides with 'a'",
    ),
    Case(
        "tar_case_collide",
        27,
        "names that differ in case only",
        lambda _: tar(entry("Readme", b"x"), entry("README", b"y")),
        "'README' collides with 'Readme'",
        either=True,
    ),
    Case(
        "tar_unicode_nfc_nfd",
        28,
        "names that differ in normalization only",
        lambda _: tar(entry("\u00e9", b"x"), entry("e\u0301", b"y")),
        "collides",
        either=True,
    ),
    Case(
        "tar_nonutf8",
        29,
        "a name that is not UTF-8",
        lambda _: tar(entry(b"caf\xe9.txt", b"x")),
        r"'caf\\udce9\.txt' has .*undecodable",
        either=True,
    ),
    Case(
        "tar_weird_names",
        30,
        "names that fool a terminal",
        lambda _: tar(*(entry(name, b"x") for name in ("-rf", " ", "a\nb", "\x1b[2J", "\u202etxt.exe"))),
        r"'a\\nb' has control",
        either=True,
    ),
    Case(
        "tar_long_component",
        31,
        "a component of 300 bytes",
        lambda _: tar(OK, entry("n" * 300, b"x")),
        "'n{300}' has a component of more than 255 bytes",
    ),
    Case(
        "tar_deep",
        32,
        "100 folders in each other",
        lambda _: tar(entry("d/" * 100 + "f", b"x")),
        "d/f' lies more than 32 folders deep",
        either=True,
    ),
    Case(
        "tar_symlink_loop",
        33,
        "a link to itself, and a file through it",
        lambda _: tar(OK, symlink("loop", "loop"), entry("loop/x", b"x")),
        "'loop' is a symbolic link",
    ),
)

TARS = (*PATHS, *KINDS)
