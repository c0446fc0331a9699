"""Files are put in place whole or not at all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kflow import durable


def test_text_replaces_a_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    """The folder holds the one file, with the new text as UTF-8."""
    path = tmp_path / "here" / "a.json"
    path.parent.mkdir()
    path.write_text("old")

    durable.write_text(path, "né\n")

    assert path.read_bytes() == b"n\xc3\xa9\n"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("what", ["a pipe", "a device", "a folder", "a hole"])
def test_reading_waits_for_nothing_in_the_place_of_a_file(tmp_path: Path, what: str) -> None:
    """It is refused with its path."""
    path = tmp_path / "a"
    match what:
        case "a pipe":
            os.mkfifo(path)
        case "a device":
            path.symlink_to("/dev/zero")
        case "a folder":
            path.mkdir()
        case "a hole":
            path.touch()
            os.truncate(path, 2**40)

    with pytest.raises(OSError, match=f"'{path}'"):
        durable.read_bytes(path)


def test_a_full_disk_leaves_the_old_text(tmp_path: Path) -> None:
    """Where no more bytes can be written, the old file is still there and no part of the new one."""
    path = tmp_path / "a.json"
    path.write_text("old")
    code = (
        "import resource, sys; from pathlib import Path; from kflow import durable\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "durable.write_text(Path(sys.argv[1]), 'x' * 1000)\n"
    )

    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)

    assert "File too large" in done.stderr
    assert path.read_text() == "old"
    assert not list(tmp_path.glob(".*"))


def test_a_copy_is_whole_and_makes_its_folder(tmp_path: Path) -> None:
    """Bytes arrive as they were, in a folder that was not there."""
    source = tmp_path / "source"
    source.write_bytes(bytes(range(256)) * 100)

    durable.copy_file(source, tmp_path / "a" / "b" / "copy")

    assert (tmp_path / "a" / "b" / "copy").read_bytes() == source.read_bytes()
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["copy"]


def test_a_copy_to_a_folder_fails_and_leaves_nothing(tmp_path: Path) -> None:
    """A folder in the place of the target is not replaced."""
    source = tmp_path / "source"
    source.write_text("x")
    (tmp_path / "target").mkdir()

    with pytest.raises(IsADirectoryError, match="target"):
        durable.copy_file(source, tmp_path / "target")
    assert not list(tmp_path.glob(".*"))


def test_the_longest_name_that_a_file_may_have(tmp_path: Path) -> None:
    """The file written beside the target has a name that fits, whatever the target's is."""
    path = tmp_path / ("n" * 255)

    durable.write_text(path, "x")

    assert path.read_text() == "x"


def test_a_file_system_without_fsync_of_folders_is_no_error() -> None:
    """Such as /proc, and some network file systems."""
    descriptor = os.open("/proc", os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="Invalid argument"):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)

    durable.sync_folder(Path("/proc"))


def test_a_tree_with_folders_in_it_is_synced(tmp_path: Path) -> None:
    """Every file below is reached: one that cannot be opened shows."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_text("x")
    durable.sync_tree(tmp_path)
    (tmp_path / "a" / "b" / "gone").symlink_to("nowhere")

    with pytest.raises(FileNotFoundError, match="gone"):
        durable.sync_tree(tmp_path)


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    """But not what somebody may be writing still, and nothing of another file."""
    source = tmp_path / "source"
    source.write_text("x")
    left, young, other = (f".{name}.{'0' * 31}{number}.tmp" for number, name in enumerate(("copy", "copy", "copy.2")))
    for name in (left, young, other):
        (tmp_path / name).write_text("half")
    for name in (left, other):
        os.utime(tmp_path / name, (0, 0))

    durable.copy_file(source, tmp_path / "copy")

    assert {path.name for path in tmp_path.glob(".*")} == {young, other}


def test_a_folder_is_made_with_those_above_it(tmp_path: Path) -> None:
    """One that is there is left as it is; a file in its place is an error."""
    durable.make_folder(tmp_path / "a" / "b")
    durable.make_folder(tmp_path / "a" / "b")
    (tmp_path / "file").write_text("x")

    assert (tmp_path / "a" / "b").is_dir()
    with pytest.raises(OSError, match="file"):
        durable.make_folder(tmp_path / "file" / "c")


def test_no_pipe_or_device_is_replaced(tmp_path: Path) -> None:
    """Renaming onto /dev/null would take it from everybody."""
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(OSError, match="a device or a pipe"):
        durable.write_text(tmp_path / "pipe", "x")
    assert (tmp_path / "pipe").is_fifo()
    assert [each.name for each in tmp_path.iterdir()] == ["pipe"]
