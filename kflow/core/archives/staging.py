"""Temporary folders beside the place that their content is meant for, swept away when their maker was killed."""

import contextlib
import ctypes
import fcntl
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

_SYNC_ALL_FROM = 64  # paths; from here one sync of the whole file system is quicker


def short_name(name: str) -> str:
    """Return what stands for a file's name in the names of its hidden siblings, which are longer."""
    return name if len(os.fsencode(name)) <= 200 else hashlib.sha256(os.fsencode(name)).hexdigest()


@contextlib.contextmanager
def staged(parent: Path, name: str) -> Iterator[tuple[Path, Path]]:
    """Give a stage below `parent`, and the folder to fill in it; what is left of them in the end is removed."""
    stem = short_name(name)
    _sweep(parent, stem)
    with contextlib.ExitStack() as stack:
        stage = _make_stage(parent, stem, stack)
        tree = stage / "tree"  # apart, since the stage admits nobody else and this becomes an ordinary folder
        tree.mkdir()
        yield stage, tree


def _make_stage(parent: Path, stem: str, stack: contextlib.ExitStack) -> Path:
    """Make a locked folder that only we can enter; the lock tells `_sweep` that its owner lives."""
    while True:
        stage = parent / f".{stem}.{secrets.token_hex(8)}.unpack"
        stage.mkdir(0o700)
        try:
            descriptor = os.open(stage, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except FileNotFoundError:
            continue  # swept by another process before it was locked
        stack.callback(os.close, descriptor)
        stack.callback(shutil.rmtree, stage, ignore_errors=True)
        with contextlib.suppress(OSError):  # no locks on this file system: nobody can sweep either
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.path.lexists(stage):
            return stage


def _sweep(parent: Path, stem: str) -> None:
    """Remove the temporary folders that killed extractions of this name left."""
    pattern = re.compile(rf"\.{re.escape(stem)}\.[0-9a-f]{{16}}\.unpack")
    for entry in [entry for entry in parent.iterdir() if pattern.fullmatch(entry.name)]:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            descriptor = os.open(entry, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Renamed first: were the lock a lie (NFS), its owner would fail, not publish half a folder.
            doomed = entry.rename(parent / f".{stem}.{secrets.token_hex(8)}.unpack")
            shutil.rmtree(doomed, ignore_errors=True)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let no other process put files into a folder in this way."""
    with opened(folder) as descriptor:
        with contextlib.suppress(OSError):  # no locks on this file system
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


def sync_each(paths: Sequence[str | Path]) -> None:
    """Bring files, and the names in folders, to the disk; all of them on one file system."""
    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if syncfs is None or len(paths) < _SYNC_ALL_FROM:
        for path in paths:
            sync(path)
        return
    with opened(paths[0]) as descriptor:
        if syncfs(descriptor):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(paths[0]))


def sync(path: str | Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    with opened(path) as descriptor:
        os.fsync(descriptor)


@contextlib.contextmanager
def opened(path: str | Path) -> Iterator[int]:
    """Give a descriptor of a file or folder."""
    descriptor = os.open(path, os.O_RDONLY)  # a link to a folder on a larger disk is as good
    try:
        yield descriptor
    finally:
        os.close(descriptor)
