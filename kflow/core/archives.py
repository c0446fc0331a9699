"""Unpack tar and zip archives whole or not at all.

An archive is unpacked by `kflow.core.members`, which trusts nothing that it says, into a temporary folder
beside the place it is meant for. When all of it is on the disk, the folder, or each top-level entry of it,
is renamed into place. What a killed process leaves is swept away by the next one.
"""

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kflow.core.members import FORMATS, ArchiveError, Intake, unpack_members

__all__ = ["ArchiveError", "Extraction", "extract_archive", "merge_archive", "short_name", "sync"]

MAX_BYTES = 100 * 2**30
MAX_MEMBERS = 1_000_000
MAX_RATIO = 1000
_SYNC_ALL_FROM = 64  # files; from here one sync of the whole file system is quicker


@dataclass(frozen=True)
class Extraction:
    """What one extraction put on the disk: where, from which format, how many members and bytes."""

    destination: Path
    archive_format: str
    members: int
    size: int


def extract_archive(
    path: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    archive_format: str | Sequence[str] | None = "auto",
    *,
    max_bytes: int = MAX_BYTES,
    max_members: int = MAX_MEMBERS,
    max_ratio: int = MAX_RATIO,
) -> Extraction | None:
    """Unpack an archive into a new folder, which appears only when it is complete.

    Members must be regular files or folders under plain relative names. Owners and modes of the archive are
    not kept: files and folders get the modes of any new file. Nested archives stay files.

    Parameters
    ----------
    path : path
        The archive.
    destination : path
        The folder to make; it must not exist. It is written as a temporary folder beside itself and renamed.
    archive_format : str, list of str or None, default 'auto'
        ``'tar'`` (plain, gzip, bzip2 or xz), ``'zip'``, or a list of them; ``'auto'`` is both. ``None`` and
        ``[]`` unpack nothing.
    max_bytes : int, default 100 GiB
        The most bytes that may come out.
    max_members : int, default 1,000,000
        The most members.
    max_ratio : int, default 1000
        The most bytes that may come out of each byte of the archive (beyond the first MiB).

    Returns
    -------
    Extraction or None
        What was written, or None when no format was asked for.

    Raises
    ------
    ArchiveError
        When a member, a limit or the archive itself is refused; nothing is left behind.
    ValueError
        When `archive_format` is unknown.
    FileExistsError
        When `destination` exists.

    Notes
    -----
    The rules follow PEP 706's ``data`` filter, made stricter: what that filter would change or drop is
    refused. The archive formats are those of POSIX.1-2001 (pax) and PKWARE's APPNOTE.

    Examples
    --------
    >>> import tempfile, zipfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with zipfile.ZipFile(folder / "a.zip", "w") as archive:
    ...     archive.writestr("data/x.txt", "hello")
    >>> extract_archive(folder / "a.zip", folder / "a").members
    1
    >>> (folder / "a/data/x.txt").read_text()
    'hello'
    """
    formats = _formats(archive_format)
    if not formats:
        return None
    target = Path(destination)
    occupied = FileExistsError(f"cannot extract into {target}: it exists; remove it or name another folder")
    if os.path.lexists(target):
        raise occupied
    target.parent.mkdir(parents=True, exist_ok=True)
    intake = Intake(max_bytes, max_members, max_ratio)
    with _staged(Path(path), target.parent, target.name, formats, intake) as (stage, found):
        try:
            stage.rename(target)
        except OSError as error:
            if error.errno in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
                raise occupied from None  # another process was quicker
            raise
    sync(target.parent)
    return Extraction(target, found, intake.members, intake.size)


def merge_archive(
    path: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    archive_format: str | Sequence[str] | None = "auto",
    *,
    expect: str | None = None,
    max_bytes: int = MAX_BYTES,
    max_members: int = MAX_MEMBERS,
    max_ratio: int = MAX_RATIO,
) -> Extraction | None:
    """Unpack an archive among the files of a shared folder.

    The archive is unpacked and checked whole in a temporary folder inside `folder`. Then each of its
    top-level entries is renamed into place: in one step where nothing of that name exists, otherwise folder
    into folder and file over file. Files that the archive does not hold are never touched. A process killed
    between two renames leaves whole files only, and the next call completes them.

    Parameters
    ----------
    path, archive_format, max_bytes, max_members, max_ratio
        As for `extract_archive`.
    folder : path
        The folder to add to; it must exist.
    expect : str, optional
        A top-level entry that the archive must hold. It is placed last, so that it exists only when all
        of the archive does.

    Returns
    -------
    Extraction or None
        What was written, or None when no format was asked for.

    Raises
    ------
    ArchiveError
        As `extract_archive`; also when `expect` is missing, or when a member would replace a link, the
        archive itself, a folder by a file or a file by a folder. Nothing has been placed then.

    Examples
    --------
    >>> import tempfile, zipfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with zipfile.ZipFile(folder / "a.zip", "w") as archive:
    ...     archive.writestr("x.txt", "hello")
    >>> merge_archive(folder / "a.zip", folder).members
    1
    >>> sorted(entry.name for entry in folder.iterdir())
    ['a.zip', 'x.txt']
    """
    formats = _formats(archive_format)
    if not formats:
        return None
    source, base = Path(path), Path(folder)
    intake = Intake(max_bytes, max_members, max_ratio)
    with _staged(source, base, source.name, formats, intake) as (stage, found):
        tops = sorted(entry.name for entry in stage.iterdir())
        if expect is not None and expect not in tops:
            shown = ", ".join(map(repr, tops[:5])) + (", ..." if len(tops) > 5 else "")
            msg = f"it holds {shown} but no {expect!r}; ask for one of these names, or unpack it as it is"
            raise ArchiveError(msg)
        tops.sort(key=lambda name: name == expect)
        moves = [move for name in tops for move in _moves(stage / name, base / name, source)]
        for staged, place in moves:
            staged.replace(place)
        for changed in {place.parent for _, place in moves}:
            sync(changed)
    return Extraction(base, found, intake.members, intake.size)


def _moves(staged: Path, place: Path, archive: Path) -> Iterator[tuple[Path, Path]]:
    """Give the renames that put one staged entry in place, without making any."""
    if not os.path.lexists(place):
        yield staged, place
        return
    if place.is_symlink() or place.samefile(archive) or staged.is_dir() != place.is_dir():
        msg = f"it would replace {place}, which is a link, the archive or of another kind; move that away"
        raise ArchiveError(msg)
    if not staged.is_dir():
        yield staged, place
        return
    for entry in sorted(staged.iterdir()):
        yield from _moves(entry, place / entry.name, archive)


def _formats(archive_format: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the formats that the argument names."""
    asked = [archive_format] if isinstance(archive_format, str) else list(archive_format or ())
    named = tuple(name for item in asked for name in (FORMATS if item == "auto" else (item,)))
    for name in named:
        if name not in FORMATS:
            msg = f"unknown archive format {name!r}; use 'auto', 'tar', 'zip', a list of these, or None"
            raise ValueError(msg)
    return named


def short_name(name: str) -> str:
    """Return what stands for a file's name in the names of its hidden siblings, which are longer."""
    return name if len(os.fsencode(name)) <= 200 else hashlib.sha256(os.fsencode(name)).hexdigest()


@contextlib.contextmanager
def _staged(
    path: Path, parent: Path, name: str, formats: tuple[str, ...], intake: Intake
) -> Iterator[tuple[Path, str]]:
    """Unpack into a temporary folder of `parent`, give it and the format found, and remove what is left."""
    stem = short_name(name)
    _sweep(parent, stem)
    with contextlib.ExitStack() as stack:
        stage = _make_stage(parent, stem, stack)
        try:
            found = unpack_members(path, stage, formats, intake)
            _sync_tree(stage)
            yield stage, found
        except ArchiveError as error:
            msg = f"cannot extract {path}: {error}. Nothing was extracted."
            raise ArchiveError(msg) from error.__cause__
        except OSError as error:
            if error.errno is not None and error.filename is None:
                error.filename = str(parent)  # a full disk does not say which
            raise


def _make_stage(parent: Path, stem: str, stack: contextlib.ExitStack) -> Path:
    """Make a locked temporary folder; the lock tells `_sweep` that its owner lives."""
    while True:
        stage = parent / f".{stem}.{secrets.token_hex(8)}.unpack"
        stage.mkdir()
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


def _sync_tree(folder: Path) -> None:
    """Bring all files and folders below to the disk, so that a rename never outruns the bytes."""
    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if syncfs and sum(len(names) for _, _, names in os.walk(folder)) >= _SYNC_ALL_FROM:
        with _descriptor(folder) as descriptor:
            if syncfs(descriptor):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(folder))
        return
    for base, _, names in os.walk(folder):
        for name in names:
            sync(Path(base, name))
        sync(Path(base))


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    with _descriptor(path) as descriptor:
        os.fsync(descriptor)


@contextlib.contextmanager
def _descriptor(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)  # a link to a folder on a larger disk is as good
    try:
        yield descriptor
    finally:
        os.close(descriptor)
