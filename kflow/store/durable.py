"""Writing so that after a crash a file is either the old one, the new one, or absent: never a part of it.

The order is what counts: write beside the target, fsync, rename, fsync the folder.
"""

import errno
import os
import shutil
import uuid
from pathlib import Path


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
    staged = _beside(path)
    try:
        with staged.open("x", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        staged.replace(path)
        sync_folder(path.parent)
    finally:
        staged.unlink(missing_ok=True)


def copy_file(source: Path, target: Path) -> None:
    """Put a copy of a file in place in one step; missing folders are made."""
    target.parent.mkdir(parents=True, exist_ok=True)
    staged = _beside(target)
    try:
        shutil.copyfile(source, staged)
        sync_file(staged)
        staged.replace(target)
        sync_folder(target.parent)
    finally:
        staged.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name[:100]}.{uuid.uuid4().hex}.tmp")


def sync_file(path: Path) -> None:
    """Make the content of a file reach the disk."""
    _sync(path, os.O_RDONLY)


def sync_folder(path: Path) -> None:
    """Make the names in a folder reach the disk, where its file system can do that."""
    try:
        _sync(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:  # network file systems know no fsync of a folder
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
