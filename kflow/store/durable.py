"""Writing so that after a crash a file is either the old one, the new one, or absent: never a part of it.

The order is what counts: write beside the target, fsync, rename, fsync the folder.
"""

import contextlib
import errno
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a run with nothing to do writes its record and must not wait for a library
    from pathlib import Path


def write_text(path: "str | os.PathLike[str]", text: str) -> None:
    """Put a text file in place in one step.

    Parameters
    ----------
    path : path
        The file; its folder exists.
    text : str
        The content, written as UTF-8.

    Raises
    ------
    OSError
        If the disk is full or read-only; the old file is then still there.
    """
    staged = _beside(path)
    try:
        with open(staged, "x", encoding="utf-8", newline="\n") as stream:  # noqa: PTH123
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(staged, path)  # noqa: PTH105
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(staged)  # noqa: PTH108
    sync_folder(os.path.dirname(os.fspath(path)) or ".")  # noqa: PTH120


def copy_file(source: "Path", target: "Path") -> None:
    """Put a copy of a file in place in one step; missing folders are made."""
    import shutil

    target.parent.mkdir(parents=True, exist_ok=True)
    staged = _beside(target)
    try:
        shutil.copyfile(source, staged)
        sync_file(staged)
        os.replace(staged, target)  # noqa: PTH105
        sync_folder(target.parent)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(staged)  # noqa: PTH108


def _beside(path: "str | os.PathLike[str]") -> str:
    folder, name = os.path.split(os.fspath(path))
    return os.path.join(folder, f".{name[:100]}.{os.urandom(16).hex()}.tmp")  # noqa: PTH118


def sync_file(path: "str | os.PathLike[str]") -> None:
    """Make the content of a file reach the disk."""
    _sync(path, os.O_RDONLY)


def sync_folder(path: "str | os.PathLike[str]") -> None:
    """Make the names in a folder reach the disk, where its file system can do that."""
    try:
        _sync(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:  # network file systems know no fsync of a folder
            raise


def sync_tree(path: "str | os.PathLike[str]") -> None:
    """Make a folder with all that is below it reach the disk."""
    for folder, _, names in os.walk(path):
        for name in names:
            sync_file(os.path.join(folder, name))  # noqa: PTH118
        sync_folder(folder)


def _sync(path: "str | os.PathLike[str]", flags: int) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
