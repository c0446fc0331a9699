"""Marks of finished extractions, by which the next call knows that there is nothing left to do.

A mark is a hidden file beside what was unpacked. It describes the archive and every file that came out of
it, and holds only while all of them are as they were left. It is written last and removed first.
"""

import contextlib
import json
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kflow.core.archives.staging import short_name

_VERSION = 1


@dataclass(frozen=True)
class Extraction:
    """What one extraction put on the disk: where, from which format, how many members and bytes."""

    destination: Path
    archive_format: str
    members: int
    size: int


def identity(archive: Path) -> list[int]:
    """Return what tells an archive from one that replaced it, without reading it."""
    status = archive.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def recall(archive: Path, folder: Path) -> Extraction | None:
    """Return the finished extraction of an archive into a folder, if nothing has changed since."""
    try:
        mark = json.loads(_mark(archive, folder).read_bytes())
        if mark["version"] != _VERSION or mark["archive"] != identity(archive):
            return None
        entries = mark["entries"]
        if _seen(folder, entries) != entries:
            return None
        return Extraction(folder, mark["format"], mark["members"], mark["size"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None  # none, or not one of ours


def remember(archive: Path, which: list[int], done: Extraction, paths: Iterable[str], stage: Path) -> None:
    """Mark an extraction as finished, by way of a stage; without a mark the next call unpacks again."""
    mark = {
        "version": _VERSION,
        "archive": which,
        "format": done.archive_format,
        "members": done.members,
        "size": done.size,
        "entries": _seen(done.destination, paths),
    }
    with contextlib.suppress(OSError):
        (stage / "mark").write_text(json.dumps(mark, ensure_ascii=False), encoding="utf-8")
        (stage / "mark").replace(_mark(archive, done.destination))


def forget(archive: Path, folder: Path) -> None:
    """Remove a mark before anything that it describes is changed."""
    _mark(archive, folder).unlink(missing_ok=True)


def _mark(archive: Path, folder: Path) -> Path:
    return folder / f".{short_name(archive.name)}.unpacked"


def _seen(folder: Path, paths: Iterable[str]) -> dict[str, list[int] | None]:
    """Describe each file by size and time, and each folder by being one."""
    seen: dict[str, list[int] | None] = {}
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for path in paths:
            status = os.stat(path, dir_fd=descriptor)
            seen[path] = None if stat.S_ISDIR(status.st_mode) else [status.st_size, status.st_mtime_ns]
    finally:
        os.close(descriptor)
    return seen
