"""Unpack tar and zip archives whole or not at all.

An archive is unpacked by `kflow.core.archives.tars` or `kflow.core.archives.zips`, which trust nothing that it
says, into a temporary folder beside the place it is meant for. When all of it is on the disk, the folder, or each
top-level entry of it, is renamed into place. What a killed process leaves is swept away by the next one.
"""

import contextlib
import errno
import filecmp
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kflow.core.archives.marks import Extraction, claimed, identity, recall, remember, take_back
from kflow.core.archives.members import ArchiveError, Intake, Limits, OccupiedError, Tree, refuse
from kflow.core.archives.staging import locked, opened, short_name, staged, sync, sync_each
from kflow.core.archives.tars import is_tar, unpack_tar
from kflow.core.archives.zips import is_zip, unpack_zip

__all__ = [
    "ArchiveError",
    "Extraction",
    "extract_archive",
    "is_merged",
    "is_reserved",
    "merge_archive",
    "short_name",
    "sync",
    "take_back_merge",
]

FORMATS = ("tar", "zip")
_RESERVED = (".lock", ".note", ".part", ".unpack", ".unpacked", ".verified")
MAX_BYTES, MAX_MEMBERS, MAX_RATIO = Limits.max_bytes, Limits.max_members, Limits.max_ratio


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
    OSError
        When the disk is full or cannot be written; nothing is left behind.

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
    limits = Limits(max_bytes, max_members, max_ratio)
    with _unpacked(Path(path), target.parent, target.name, formats, limits) as new:
        try:
            new.tree.rename(target)
        except OSError as error:
            if error.errno in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
                raise occupied from None  # another process was quicker
            raise
    sync(target.parent)
    return new.placed(target)


def merge_archive(
    path: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    archive_format: str | Sequence[str] | None = "auto",
    *,
    last: str | None = None,
    replace: bool = True,
    max_bytes: int = MAX_BYTES,
    max_members: int = MAX_MEMBERS,
    max_ratio: int = MAX_RATIO,
) -> Extraction | None:
    """Unpack an archive among the files of a shared folder.

    The archive is unpacked and checked whole in a temporary folder inside `folder`. Then each of its
    top-level entries is renamed into place: in one step where nothing of that name exists, otherwise folder
    into folder and file over file. Files that the archive does not hold are never touched. A process killed
    between two renames leaves whole files only, and the next call completes them.

    A hidden mark beside the files says that all is done. While the archive and each file that came out of it
    stay as they were, a further call reads only their sizes and times, and unpacks nothing.

    Parameters
    ----------
    path, archive_format, max_bytes, max_members, max_ratio
        As for `extract_archive`.
    folder : path
        The folder to add to; it must exist.
    last : str, optional
        A top-level entry that is placed after all others, if the archive holds it, so that it exists only when all
        of the archive does.
    replace : bool, default True
        Whether files that are there give way. With False only those do that came out of this archive, or out of an
        earlier one of its name, and those that hold the same bytes.

    Returns
    -------
    Extraction or None
        What was written, now or by an earlier call, or None when no format was asked for.

    Raises
    ------
    ArchiveError
        As `extract_archive`; also when a member would replace a link, the archive itself, a folder by a file, a file
        by a folder, a hidden file of the cache or, without `replace`, a file that is not the archive's. Nothing
        has been placed then.
    OSError
        As `extract_archive`.

    Examples
    --------
    >>> import tempfile, zipfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with zipfile.ZipFile(folder / "a.zip", "w") as archive:
    ...     archive.writestr("x.txt", "hello")
    >>> merge_archive(folder / "a.zip", folder).members
    1
    >>> sorted(entry.name for entry in folder.iterdir())
    ['.a.zip.unpacked', 'a.zip', 'x.txt']
    """
    formats = _formats(archive_format)
    if not formats:
        return None
    source, base, limits = Path(path), Path(folder), Limits(max_bytes, max_members, max_ratio)
    if done := _recalled(source, base, formats, limits):
        return done
    which = identity(source)
    with _unpacked(source, base, source.name, formats, limits) as new, locked(base):
        ours = claimed(source, base)

        def may_replace(staged: Path, place: Path) -> bool:
            return replace or str(place.relative_to(base)) in ours or _is_same(staged, place)

        tops = sorted((entry.name for entry in new.tree.iterdir()), key=lambda name: (name == last, name))
        _refuse_reserved(tops)
        moves = [move for name in tops for move in _moves(new.tree / name, base / name, source, may_replace)]
        take_back(source, base, new.stage)
        for entry, place in moves:
            entry.replace(place)
        sync_each(sorted({place.parent for _, place in moves}))
        done = new.placed(base)
        remember(source, which, done, new.intake.paths(), new.stage)
    return done


def is_merged(
    path: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    archive_format: str | Sequence[str] | None = "auto",
) -> bool:
    """Say whether `merge_archive` would find everything done, reading only the state of the files.

    That is so when an archive of one of the formats was unpacked there, it was not replaced since, and each of
    its files has the size and the time that it was left with; or when no format is asked for.
    """
    formats = _formats(archive_format)
    return not formats or _recalled(Path(path), Path(folder), formats, Limits()) is not None


def take_back_merge(path: Path, folder: Path) -> None:
    """Let a mark say, until the next `merge_archive`, that another archive is to take the place of this one."""
    with staged(folder, path.name) as (stage, _), locked(folder):
        take_back(path, folder, stage)


def _recalled(archive: Path, folder: Path, formats: tuple[str, ...], limits: Limits) -> Extraction | None:
    """Return a finished extraction that would have been allowed now as well."""
    done = recall(archive, folder)
    if done is None or done.archive_format not in formats:
        return None
    return done if done.members <= limits.max_members and done.size <= limits.max_bytes else None


def is_reserved(name: str) -> bool:
    """Say whether a name is like those of the hidden files by which a cache keeps its state."""
    return name.startswith(".") and name.endswith(_RESERVED)


def _refuse_reserved(tops: list[str]) -> None:
    """Refuse top-level entries that would pose as the cache's own files."""
    for name in tops:
        if is_reserved(name):
            refuse(f"member {name!r} has the name of a file by which a cache keeps its state")


def _moves(
    staged: Path, place: Path, archive: Path, may_replace: Callable[[Path, Path], bool]
) -> Iterator[tuple[Path, Path]]:
    """Give the renames that put one staged entry in place, without making any."""
    if not os.path.lexists(place):
        yield staged, place
        return
    if not place.is_symlink() and place.samefile(archive):
        refuse(f"it would replace itself, as it holds {place.name!r}; keep it under another name")
    if place.is_symlink() or staged.is_dir() != place.is_dir():
        msg = f"it would replace {place}, which is a link or of another kind; move that away"
        raise OccupiedError(msg)
    if staged.is_dir():
        for entry in sorted(staged.iterdir()):
            yield from _moves(entry, place / entry.name, archive, may_replace)
        return
    if not may_replace(staged, place):
        msg = (
            f"it would replace {place}, which is another file and did not come from it; move that away, or unpack "
            "into another folder"
        )
        raise OccupiedError(msg)
    yield staged, place


def _is_same(staged: Path, place: Path) -> bool:
    """Say whether a file that is there holds what would be put there."""
    try:
        return filecmp.cmp(staged, place, shallow=False)
    except OSError:  # it cannot be read
        return False


def _formats(archive_format: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the formats that the argument names."""
    # What is neither a text nor a list is refused below, by its own words.
    asked: list[Any] = list(archive_format) if isinstance(archive_format, list | tuple) else [archive_format]
    asked = [each for each in asked if each is not None]
    named = tuple(name for item in asked for name in (FORMATS if item == "auto" else (item,)))
    for name in named:
        if name not in FORMATS:
            msg = f"unknown archive format {name!r}; use 'auto', 'tar', 'zip', a list of these, or None"
            raise ValueError(msg)
    return named


@dataclass(frozen=True)
class _New:
    """An archive that is unpacked and on the disk, but not in place."""

    stage: Path
    tree: Path
    archive_format: str
    intake: Intake

    def placed(self, destination: Path) -> Extraction:
        return Extraction(destination, self.archive_format, self.intake.members, self.intake.size)


@contextlib.contextmanager
def _unpacked(path: Path, parent: Path, name: str, formats: tuple[str, ...], limits: Limits) -> Iterator[_New]:
    """Unpack into a temporary folder of `parent`, and remove what the caller leaves of it."""
    try:
        found = _format_of(path, formats)
        intake = Intake(limits, path.stat().st_size)
        with staged(parent, name) as (stage, tree):
            with opened(tree) as descriptor:
                (unpack_tar if found == "tar" else unpack_zip)(path, Tree(descriptor), intake)
            if not intake.members:
                refuse("it holds no files")
            sync_each([tree, *(f"{tree}/{path}" for path in intake.paths())])
            yield _New(stage, tree, found, intake)
    except ArchiveError as error:
        msg = f"cannot extract {path}: {error}. Nothing was extracted."
        raise type(error)(msg) from error.__cause__
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(parent)  # a full disk does not say which
        raise


def _format_of(path: Path, formats: tuple[str, ...]) -> str:
    """Return the format of an archive, told by its first bytes."""
    found = [name for name, is_it in (("tar", is_tar), ("zip", is_zip)) if is_it(path)]
    if len(found) > 1:
        refuse("it is a tar and a zip archive at once")
    if not set(found) & set(formats):
        refuse(f"it is not a {' or '.join(dict.fromkeys(formats))} archive")
    return found[0]
