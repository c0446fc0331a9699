"""What has come of a download so far: a temporary file beside the target, which only its own process writes.

It becomes the target by being verified, brought to the disk and renamed. When it cannot be finished, but its
origin named the version with a strong ETag and a digest will decide in the end, it stays, with a note of both
beside it. The next process copies it to a temporary file of its own and goes on from there.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from kflow.core.archives.extraction import short_name, sync
from kflow.core.files.digests import new_hash
from kflow.core.files.transport import Answer, Origin, Started

__all__ = ["Partial", "beside", "partial_of"]

_NOTE = ".note"
_BLOCK = 2**20
_LARGE = 2**19  # bytes from which a second thread is worth its start


def beside(target: Path, suffix: str) -> Path:
    """Return a hidden sibling of a file, whose own name may be of any length."""
    return target.with_name(f".{short_name(target.name)}.{suffix}")


@dataclass
class Partial:
    """The bytes that have come of one file, and which version of which origin they belong to."""

    target: Path
    algorithm: str | None
    path: Path
    file: BinaryIO
    _running: "hashlib._Hash | None" = None
    _hashing: threading.Thread | None = None
    size: int = 0
    head: bytes = b""
    origin_key: str = ""
    version: Started | None = field(default=None)
    content_type: str = ""

    def started(self, origin: Origin) -> Started | None:
        """Return what an origin need not send again; never without a strong ETag and a digest to verify by."""
        if self.version is None or self.origin_key != _key(origin) or not 0 < self.size < self.version.total:
            return None
        return Started(self.size, self.version.total, self.version.etag)

    def begin(self, origin: Origin, answer: Answer) -> None:
        """Get ready for the bytes of an answer: the rest of these, or all of them."""
        self.content_type = answer.content_type
        if answer.start:
            return
        self.restart()
        if answer.etag is not None and answer.total is not None and self.algorithm is not None:
            self.origin_key = _key(origin)
            self.version = Started(0, answer.total, answer.etag)
            note = {"origin": self.origin_key, "etag": answer.etag, "total": answer.total}
            _note_of(self.path).write_text(json.dumps(note), encoding="utf-8")

    def restart(self) -> None:
        """Forget the bytes."""
        self.file.seek(0)
        self.file.truncate()
        self.finish_hashing()
        self._running = new_hash(self.algorithm) if self.algorithm else None
        self.size, self.head, self.version = 0, b"", None
        _note_of(self.path).unlink(missing_ok=True)

    def write(self, block: "bytes | memoryview") -> None:
        """Add bytes, which must stay what they are until the next are added, or the digest is asked for."""
        self.finish_hashing()
        if self._running is not None and len(block) < _LARGE:
            self._running.update(block)
        elif self._running is not None:  # it takes longer than receiving and writing; all let go of Python's lock
            self._hashing = threading.Thread(target=self._running.update, args=(block,))
            self._hashing.start()
        self.file.write(block)
        self.size += len(block)
        if len(self.head) < 256:
            self.head += bytes(block[:256])

    def finish_hashing(self) -> None:
        """Wait until the last block is not needed any more."""
        if self._hashing is not None:
            self._hashing.join()
            self._hashing = None

    def digest(self) -> str:
        """Return the digest of all bytes, in hexadecimal digits."""
        assert self._running is not None, "it was begun with the digest's algorithm"
        self.finish_hashing()
        return self._running.hexdigest()

    def commit(self) -> os.stat_result | None:
        """Make it the target; None when somebody has removed it, as may happen where locks do not work."""
        self.file.flush()
        os.fsync(self.file.fileno())
        _note_of(self.path).unlink(missing_ok=True)
        try:
            self.path.replace(self.target)
        except FileNotFoundError:
            self.file.close()
            self.path, self.file = _new_file(self.target)
            self.restart()
            return None
        sync(self.target.parent)
        return os.fstat(self.file.fileno())


@contextlib.contextmanager
def partial_of(target: Path, algorithm: str | None, origins: tuple[Origin, ...]) -> Iterator[Partial]:
    """Give a partial file beside the target, which begins with what an earlier process left of it.

    Who calls this holds the lock of the target, and so owns all that others left.
    """
    partial = Partial(target, algorithm, *_new_file(target))
    keeps = False
    try:
        partial.restart()
        _take_over(partial, {_key(origin) for origin in origins})
        yield partial
    except OSError as error:
        keeps = error.errno is None  # a disk that fails, or is full, gets its room back
        if error.errno is not None and error.filename is None:
            error.filename = str(target)  # a full disk does not say which
        raise
    except BaseException:
        keeps = True
        raise
    finally:
        partial.finish_hashing()
        with contextlib.suppress(OSError):  # what could not be written before cannot be now
            partial.file.close()
        if not (keeps and partial.version is not None and 0 < partial.size < partial.version.total):
            _remove(partial.path)


def _new_file(target: Path) -> tuple[Path, BinaryIO]:
    path = beside(target, f"{secrets.token_hex(8)}.part")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        error.filename = str(target)
        raise
    return path, os.fdopen(descriptor, "wb")


def _note_of(path: Path) -> Path:
    return path.with_name(path.name + _NOTE)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    _note_of(path).unlink(missing_ok=True)


def _key(origin: Origin) -> str:
    """Return what stands for an origin in a note, which must not hold its secrets."""
    return hashlib.sha256(os.fsencode(origin.text)).hexdigest()


# --- what others left -------------------------------------------------------------------------------------


def _take_over(partial: Partial, keys: set[str]) -> None:
    """Copy the longest usable beginning that was left, and remove all that was.

    A copy, because its writer may live on where locks do not work.
    """
    left = _left(partial)
    usable = [(path.stat().st_size, path, note) for path in left if (note := _read_note(path, keys, partial))]
    try:
        if usable:
            _, path, (key, version) = max(usable, key=lambda found: found[0])
            with path.open("rb") as file:
                while block := file.read(_BLOCK):
                    partial.write(block)
            partial.file.flush()
            partial.origin_key, partial.version = key, version
            _note_of(path).replace(_note_of(partial.path))
    except OSError as error:
        partial.restart()
        if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.ENOENT}:
            raise
    for path in left:
        _remove(path)


def _left(partial: Partial) -> list[Path]:
    """List the temporary files of processes that were killed."""
    pattern = re.compile(re.escape(beside(partial.target, "").name) + r"[0-9a-f]{16}\.part")
    found = {
        entry.with_name(entry.name.removesuffix(_NOTE))
        for entry in partial.target.parent.iterdir()
        if pattern.fullmatch(entry.name.removesuffix(_NOTE))
    }
    return sorted(found - {partial.path})


def _read_note(path: Path, keys: set[str], partial: Partial) -> tuple[str, Started] | None:
    """Read which version of which origin a temporary file was meant to be; None when that is of no use."""
    if partial.algorithm is None or not path.is_file() or path.is_symlink():
        return None
    try:
        note = json.loads(_note_of(path).read_text(encoding="utf-8"))
        key, version = str(note["origin"]), Started(0, int(note["total"]), str(note["etag"]))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return (key, version) if key in keys and 0 < path.stat().st_size < version.total else None
