"""Killed, crowded and full: what extractions leave is swept away, and never taken for finished."""

import os
import resource
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pytest

import kflow
from kflow.core.archives import extract_archive, is_merged, merge_archive
from tests.hostile.packing import entry, tar

TREE = {f"top/{number:04}/file": zlib.compress(bytes([number % 256]) * 9999) for number in range(200)}
EXTRACT = "from kflow.core.archives import extract_archive as e; e('x', 'out')"
DIE_RENAMING = """
import os, pathlib
rename = pathlib.Path.replace
def replace(self, target):
    if not left[0]:
        os.kill(os.getpid(), 9)
    left[0] -= 1
    return rename(self, target)
pathlib.Path.replace = replace
"""
MERGE = "from kflow.core.archives import merge_archive as m; m('x', '.')"


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path) -> None:
    """Put an archive of 200 files in the folder, and no home."""
    (tmp_path / "x").write_bytes(tar(*(entry(*item) for item in TREE.items())))


def python(code: str, folder: Path) -> "subprocess.Popen[bytes]":
    """Start a process there."""
    environ = {**os.environ, "PYTHONPATH": str(Path(kflow.__file__).parents[1])}
    return subprocess.Popen([sys.executable, "-c", code], cwd=folder, env=environ, stderr=subprocess.PIPE)


def tree_of(folder: Path) -> dict[str, bytes]:
    """Read every file below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_killed_extraction_leaves_nothing_or_everything(tmp_path: Path) -> None:
    """After SIGKILL at any time there is nothing or everything, and the next call sweeps and succeeds."""
    seen_partial = 0
    for delay in (0, 0.005, 0.01, 0.02, 0.04):
        before = set(tmp_path.glob(".out.*.unpack"))
        with python(EXTRACT, tmp_path) as child:
            while child.poll() is None and set(tmp_path.glob(".out.*.unpack")) <= before:
                time.sleep(0.001)
            time.sleep(delay)
            child.send_signal(signal.SIGKILL)
        seen_partial += any(tmp_path.glob(".out.*.unpack"))
        if (tmp_path / "out").exists():
            assert tree_of(tmp_path / "out") == TREE
            (tmp_path / "out").rename(tmp_path / f"done{delay}")

    extract_archive(tmp_path / "x", tmp_path / "out")

    assert seen_partial
    assert tree_of(tmp_path / "out") == TREE
    assert not list(tmp_path.glob(".out.*"))


@pytest.mark.parametrize("renames", [0, 121, 201])
def test_a_killed_merge_is_never_taken_for_finished(renames: int, tmp_path: Path) -> None:
    """After SIGKILL before, between or behind the renames of a second merge, the first of them that of its mark."""
    merge_archive(tmp_path / "x", tmp_path)
    for name in TREE:
        (tmp_path / name).write_bytes(b"old")

    python(f"left = [{renames}]\n{DIE_RENAMING}\n{MERGE}", tmp_path).communicate()

    kept = sum((tmp_path / name).read_bytes() == b"old" for name in TREE)
    assert (kept, is_merged(tmp_path / "x", tmp_path)) == (200 - max(0, renames - 1), False)
    merge_archive(tmp_path / "x", tmp_path)
    assert is_merged(tmp_path / "x", tmp_path)
    assert tree_of(tmp_path / "top") == {name.removeprefix("top/"): data for name, data in TREE.items()}
    assert sorted(path.name for path in tmp_path.iterdir()) == [".x.unpacked", "top", "x"]


def test_processes_may_unpack_at_once(tmp_path: Path) -> None:
    """Four processes merge one archive, or two with a common folder; all succeed and nothing is lost."""
    more = {f"top/more/{name.removeprefix('top/')}": data for name, data in TREE.items()}
    (tmp_path / "y").write_bytes(tar(*(entry(*item) for item in more.items())))

    children = [python(MERGE.replace("'x'", name), tmp_path) for name in ("'x'", "'x'", "'y'", "'x'")]
    errors = [child.communicate()[1] for child in children]

    assert errors == [b""] * 4
    found = tree_of(tmp_path / "top")
    assert found == {name.removeprefix("top/"): data for name, data in {**TREE, **more}.items()}
    assert sorted(path.name for path in tmp_path.iterdir()) == [".x.unpacked", ".y.unpacked", "top", "x", "y"]
    assert is_merged(tmp_path / "x", tmp_path)
    assert is_merged(tmp_path / "y", tmp_path)


def test_processes_may_extract_at_once(tmp_path: Path) -> None:
    """Of two processes that make the same folder, one does, and the other says that it exists."""
    children = [python(EXTRACT, tmp_path) for _ in range(2)]
    errors = [child.communicate()[1] for child in children]

    assert tree_of(tmp_path / "out") == TREE
    assert all(not error or b"FileExistsError: cannot extract into out: it exists" in error for error in errors)
    assert b"" in errors
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "x"]


@pytest.mark.parametrize("code", [EXTRACT, MERGE], ids=["extract", "merge"])
def test_a_disk_that_takes_no_more_is_left_as_it_was(code: str, tmp_path: Path) -> None:
    """When a file cannot be written to its end, the error is the system's, and nothing is left."""
    (tmp_path / "x").write_bytes(tar(entry("small", b"small"), entry("large", bytes(2**16))))
    # The kernel refuses to let a file grow beyond this, as a full disk would, in any environment.
    limit = f"import resource as r; r.setrlimit(r.RLIMIT_FSIZE, (2**15, {resource.RLIM_INFINITY})); "

    errors = python(limit + code, tmp_path).communicate()[1]

    assert b"OSError: [Errno 27] File too large: '.'" in errors
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x"]
