"""Marks of finished extractions, by which the next call knows that there is nothing left to do.

A mark is a hidden file beside what was unpacked. It describes the archive and every file that came out of
it, and holds only while all of them are as they were left. It is written last and taken back first; what is left of
it then still tells which files came out of that archive.
"""

import contextlib
import json
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kflow.core.archives.staging import short_name

_VERSION = 1
_NO_MARK = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)


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
    mark = _read(archive, folder)
    try:
        if mark["archive"] != identity(archive) or _seen(folder, mark["entries"]) != mark["entries"]:
            return None
        return Extraction(folder, mark["format"], mark["members"], mark["size"])
    except _NO_MARK:
        return None


def claimed(archive: Path, folder: Path) -> frozenset[str]:
    """Return the paths that came out of an archive, or of an earlier one of its name, whatever became of them."""
    try:
        return frozenset(_read(archive, folder)["entries"])
    except _NO_MARK:
        return frozenset()


def remember(archive: Path, which: list[int], done: Extraction, paths: Iterable[str], stage: Path) -> None:
    """Mark an extraction as finished, by way of a stage; without a mark the next call unpacks again."""
    mark = {
        "archive": which,
        "format": done.archive_format,
        "members": done.members,
        "size": done.size,
        "entries": _seen(done.destination, paths),
    }
    with contextlib.suppress(OSError):
        _write(mark, archive, done.destination, stage)


def take_back(archive: Path, folder: Path, stage: Path) -> None:
    """Let a mark say no longer that all is done, before anything that it describes is changed."""
    mark = _read(archive, folder)
    try:
        if mark:
            _write({**mark, "archive": None}, archive, folder, stage)
            return
    except OSError:
        pass
    _mark(archive, folder).unlink(missing_ok=True)


def is_taken_back(archive: Path, folder: Path) -> bool:
    """Say whether what came out of an archive, or of an earlier one of its name, waits for being unpacked again."""
    mark = _read(archive, folder)
    return bool(mark) and mark.get("archive") is None


def _read(archive: Path, folder: Path) -> dict[str, Any]:
    """Return what a mark holds, nothing if there is none or it is not one of ours."""
    try:
        mark = json.loads(_mark(archive, folder).read_bytes())
        return dict(mark) if mark["version"] == _VERSION else {}
    except _NO_MARK:
        return {}


def _write(mark: dict[str, Any], archive: Path, folder: Path, stage: Path) -> None:
    new = stage / "mark"
    new.write_text(json.dumps({**mark, "version": _VERSION}, ensure_ascii=False), encoding="utf-8")
    new.replace(_mark(archive, folder))


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
