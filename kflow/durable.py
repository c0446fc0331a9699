"""Writing so that after a crash a file is either the old one, the new one, or absent: never a part of it.

The order is what counts: write beside the target, fsync, rename, fsync the folder. What a killed process has left
beside a target is removed by the next one that writes it. Reading waits for nothing that may lie in the place of a
file. Paths are text, as a run that has nothing to do writes its record and must not wait for a library.
"""

import contextlib
import errno
import os
import stat
import time
from collections.abc import Iterator

Name = str | os.PathLike[str]
"""A path."""

_ABANDONED = 3600.0
"""Seconds without a change after which nobody can be writing a file any more."""
_LARGEST = 2**30
"""Bytes; no file that is read whole comes near it."""


def write_text(path: Name, text: str) -> None:
    """Put a text file in place in one step; missing folders are made.

    Parameters
    ----------
    path : path
        The file.
    text : str
        The content, written as UTF-8.

    Raises
    ------
    OSError
        If the disk is full or read-only; it names the file, and the old one is still there.
    """
    with replacing(path) as staged, open(staged, "x", encoding="utf-8", newline="\n") as stream:  # noqa: PTH123
        stream.write(text)


def copy_file(source: Name, target: Name) -> None:
    """Put a copy of a file in place in one step; missing folders are made.

    Raises
    ------
    OSError
        If the disk is full or read-only; it names the target, and the old file is still there.
    """
    import shutil

    with replacing(target) as staged:
        shutil.copyfile(source, staged)


@contextlib.contextmanager
def replacing(path: Name) -> Iterator[str]:
    """Give a file to write beside a path, and put it in place when it is written."""
    folder, name = os.path.split(os.path.abspath(path))  # noqa: PTH100
    beginning = os.fsencode(name)[:100].decode("utf-8", "ignore")  # bytes are what a name must not have too many of
    prefix = f"{folder}/.{beginning}."
    staged = f"{prefix}{os.urandom(16).hex()}.tmp"
    try:
        _refuse_special(path)
        make_folder(folder)
        _sweep(folder, prefix, len(staged))
        yield staged
        sync_file(staged)
        os.replace(staged, path)  # noqa: PTH105
        sync_folder(folder)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), os.fspath(path)) from None
    finally:
        with contextlib.suppress(OSError):  # it has its place; or the disk does not give it away, and a later run will
            os.unlink(staged)  # noqa: PTH108


def _refuse_special(path: Name) -> None:
    """Refuse to put a file in the place of a device or a pipe, or of /dev/stdout: that would take it from all."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:  # it is not there, or cannot be looked at; then writing tells why
        return
    is_link = stat.S_ISLNK(mode) and os.path.dirname(os.path.abspath(path)) != "/dev"  # noqa: PTH100, PTH120
    if not (stat.S_ISREG(mode) or is_link or stat.S_ISDIR(mode)):  # a folder is refused by the rename
        raise OSError(errno.EINVAL, "it is a device or a pipe, and no file")


def _sweep(folder: str, prefix: str, length: int) -> None:
    """Remove what was staged for the same file long ago."""
    with contextlib.suppress(OSError), os.scandir(folder) as found:
        for each in found:
            is_staged = len(each.path) == length and each.path.startswith(prefix) and each.path.endswith(".tmp")
            if is_staged and time.time() - each.stat().st_mtime > _ABANDONED:
                os.unlink(each)  # noqa: PTH108


def read_bytes(path: Name, count: int = -1) -> bytes:
    """Return the content of a file, or its first bytes; a pipe or a device is refused: reading from it may never end.

    Raises
    ------
    OSError
        If it cannot be read, or is no regular file of a bearable size.
    """
    with open(path, "rb", buffering=0, opener=open_at_once) as stream:
        found = os.fstat(stream.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_size > _LARGEST:
            raise OSError(errno.EINVAL, "it is no file of that kind", os.fspath(path))
        return stream.read(count)


def open_at_once(path: str, flags: int) -> int:
    """Open a file, as `open` wants it, without waiting for the other end of a pipe."""
    return os.open(path, flags | os.O_NONBLOCK, 0o666)


def make_folder(path: Name) -> None:
    """Make a folder with those above it, and make their names reach the disk; one that is there stays as it is."""
    missing, folder = [], os.path.abspath(path)  # noqa: PTH100
    while not os.path.isdir(folder):  # noqa: PTH112
        missing.append(folder)
        folder = os.path.dirname(folder)  # noqa: PTH120
    for each in reversed(missing):
        with contextlib.suppress(FileExistsError):  # somebody else made it meanwhile; a file there fails later
            os.mkdir(each)  # noqa: PTH102
        sync_folder(os.path.dirname(each))  # noqa: PTH120


def write_new(path: Name, data: bytes) -> None:
    """Write a file that is not there yet, in a folder that nobody else looks into; its content reaches the disk."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        written = 0
        while written < len(data):
            written += os.write(descriptor, data[written:])
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Name) -> None:
    """Make the content of a file reach the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Name) -> None:
    """Make the names in a folder reach the disk, where its file system can do that."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:  # one that we may write to need not be readable
        return
    try:
        sync_open_folder(descriptor)
    finally:
        os.close(descriptor)


def sync_open_folder(descriptor: int) -> None:
    """Make the names in a folder reach the disk, as `sync_folder`, by its descriptor."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP, errno.EACCES}:  # as network file systems have it
            raise


def sync_tree(path: Name) -> None:
    """Make a folder with all that is below it reach the disk."""
    for folder, _, names in os.walk(path):
        for name in names:
            sync_file(os.path.join(folder, name))  # noqa: PTH118
        sync_folder(folder)
