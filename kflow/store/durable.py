"""Writing so that after a crash a file is either the old one, the new one, or absent: never a part of it.

The order is what counts: write beside the target, fsync, rename, fsync the folder. What a killed process has left
beside a target is removed by the next one that writes it.
"""

import contextlib
import errno
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

_ABANDONED = 3600.0
"""Seconds without a change after which nobody can be writing a file any more."""


def write_text(path: Path, text: str) -> None:
    """Put a text file in place in one step.

    Parameters
    ----------
    path : Path
        The file; its folder exists.
    text : str
        The content, written as UTF-8.

    Raises
    ------
    OSError
        If the disk is full or read-only; the old file is then still there.
    """
    with _replacing(path) as staged, staged.open("x", encoding="utf-8", newline="\n") as stream:
        stream.write(text)


def copy_file(source: Path, target: Path) -> None:
    """Put a copy of a file in place in one step; missing folders are made.

    Raises
    ------
    OSError
        If the disk is full or read-only; it names the target, and the old file is still there.
    """
    with _replacing(target) as staged:
        shutil.copyfile(source, staged)


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Give a file to write beside a path, and put it in place when it is written."""
    staged = path.with_name(f".{path.name[:100]}.{uuid.uuid4().hex}.tmp")
    try:
        make_folder(path.parent)
        _sweep_beside(path)
        yield staged
        sync_file(staged)
        staged.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from None
    finally:
        with contextlib.suppress(OSError):  # it has its place; or the disk does not give it away, and a later run will
            staged.unlink()


def _sweep_beside(path: Path) -> None:
    left = re.compile(rf"\.{re.escape(path.name[:100])}\.[0-9a-f]{{32}}\.tmp")
    with contextlib.suppress(OSError):
        for each in os.scandir(path.parent):
            if left.fullmatch(each.name) and time.time() - each.stat().st_mtime > _ABANDONED:
                Path(each).unlink()


def make_folder(path: Path) -> None:
    """Make a folder with those above it, and make their names reach the disk; one that is there stays as it is."""
    missing = []
    while not path.is_dir():
        missing.append(path)
        path = path.parent
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
        sync_folder(each.parent)


def sync_file(path: Path) -> None:
    """Make the content of a file reach the disk."""
    _sync(path, os.O_RDONLY)


def sync_folder(path: Path) -> None:
    """Make the names in a folder reach the disk, where its file system can do that."""
    try:
        _sync(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        # Network file systems know no fsync of a folder, and one that we may write to need not be readable.
        if error.errno not in {errno.EINVAL, errno.ENOTSUP, errno.EACCES}:
            raise


def sync_tree(path: Path) -> None:
    """Make a folder with all that is below it reach the disk."""
    for folder, _, names in os.walk(path):
        for name in names:
            sync_file(Path(folder, name))
        sync_folder(Path(folder))


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
