"""What is known of a cached file without reading it: a sidecar holds the digests that it had, and its identity.

A file that was changed, replaced or restored since has another size, time or inode, and is hashed again.
"""

import contextlib
import json
import os
import secrets
import stat
from pathlib import Path

from kflow.core.files.partials import beside

__all__ = ["is_noted", "note_digest"]


def is_noted(target: Path, digest: tuple[str, str]) -> bool:
    """Say whether the file, as it is now, was once found to have a digest."""
    try:
        return _read(target, _identity(target.lstat())).get(digest[0]) == digest[1]
    except OSError:
        return False


def note_digest(target: Path, digest: tuple[str, str], status: os.stat_result) -> None:
    """Note the digest of a file that had this status while it was hashed; without success where that cannot be."""
    side = beside(target, "verified")
    new = beside(target, f"{secrets.token_hex(8)}.part")  # named so that a killed process's is swept
    note = {**_identity(status), "digests": {**_read(target, _identity(status)), digest[0]: digest[1]}}
    with contextlib.suppress(OSError):
        try:
            with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644), "w") as file:
                json.dump(note, file)
            new.replace(side)
        finally:
            new.unlink(missing_ok=True)


def _identity(status: os.stat_result) -> dict[str, int]:
    """Return what changes whenever the file does."""
    return {
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "ctime_ns": status.st_ctime_ns,
        "inode": status.st_ino,
    }


def _read(target: Path, identity: dict[str, int]) -> dict[str, str]:
    """Return the digests noted for this state of the file; what another user wrote is not believed."""
    try:
        descriptor = os.open(beside(target, "verified"), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, encoding="utf-8") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022:
                return {}
            note = json.load(file)
        digests = note.pop("digests")
        return {str(name): str(digits) for name, digits in digests.items()} if note == identity else {}
    except (OSError, ValueError, AttributeError, KeyError, TypeError, RecursionError):
        return {}
