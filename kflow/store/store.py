"""The store: entries by fingerprint below one folder.

An entry is built in ``tmp/`` on the same file system, made durable, and renamed into ``entries/``; nothing
else ever writes there. That is correct without any lock; the lock only keeps two runners from doing the
same work twice.
"""

import contextlib
import fcntl
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kflow.store import durable
from kflow.store.entry import MANIFEST, Entry, Manifest
from kflow.store.locks import held, is_held

_SETTLED = 60.0
"""Seconds after which a folder under work is held, if somebody works there."""


@dataclass(frozen=True, slots=True)
class Store:
    """A folder of entries."""

    root: Path

    def lookup(self, fingerprint: str) -> Entry | None:
        """Return the entry of a fingerprint if it is there and whole; nothing is written.

        Parameters
        ----------
        fingerprint : str
            64 hexadecimal digits.

        Returns
        -------
        Entry or None
            None as well for a damaged entry: damage is a miss.
        """
        folder = self._folder(fingerprint)
        try:
            entry = Entry(folder, Manifest.from_json((folder / MANIFEST).read_text(encoding="utf-8")))
            return entry if entry.manifest.fingerprint == fingerprint and entry.is_whole() else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):  # no file, no JSON, JSON of another form
            return None

    def explain_miss(self, fingerprint: str) -> str:
        """Say why there is no entry that could be reused."""
        folder = self._folder(fingerprint)
        try:
            manifest = Manifest.from_json((folder / MANIFEST).read_text(encoding="utf-8"))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return "its stored result is damaged" if folder.exists() else "its result is not in the store"
        changed = [each.path for each in manifest.external if not each.is_unchanged()]
        return f"{changed[0]} was touched, moved or changed" if changed else "its stored result is damaged"

    @contextlib.contextmanager
    def stage(self) -> Iterator[Path]:
        """Give an empty folder to build an entry in; what is left of it at the end is removed."""
        folder = self.root / "tmp" / uuid.uuid4().hex
        folder.mkdir(parents=True)
        try:
            with held(folder):
                yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def sweep(self) -> None:
        """Remove what runners that were killed have left of unfinished work."""
        for folder in (self.root / "tmp").glob("*"):
            # A folder that another runner has just made may not be held yet.
            with contextlib.suppress(OSError):
                if time.time() - folder.stat().st_mtime > _SETTLED and not is_held(folder):
                    shutil.rmtree(folder, ignore_errors=True)

    def commit(self, staged: Path, manifest: Manifest, *, replace: bool = False) -> Entry:
        """Publish a staged folder as the entry of its fingerprint.

        Parameters
        ----------
        staged : Path
            A folder from `stage`, complete but for the manifest.
        manifest : Manifest
            What lies in it.
        replace : bool
            Whether an entry that is there already gives way if its content is another; default False.

        Returns
        -------
        Entry
            The published entry; that of another runner if it was first.

        Raises
        ------
        OSError
            If the disk is full or read-only; nothing is published then.
        """
        (staged / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
        durable.sync_tree(staged)
        target = self._folder(manifest.fingerprint)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            staged.rename(target)
        except OSError:
            present = self.lookup(manifest.fingerprint)
            if present and not (replace and present.digests != Entry(staged, manifest).digests):
                return present
            self._set_aside(target)
            staged.rename(target)
        durable.sync_folder(target.parent)
        return Entry(target, manifest)

    @contextlib.contextmanager
    def claim(self, fingerprint: str, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Hold a fingerprint while computing it; another runner waits, and then finds the result.

        `on_wait` is called before a wait begins. The lock file is never removed: a lock on a removed file excludes
        nobody. Where the file system does not lock, the work may be done twice, and the result is right all the same.
        """
        folder = self.root / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / fingerprint[:16], os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            with contextlib.suppress(OSError):
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    on_wait()
                    fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _folder(self, fingerprint: str) -> Path:
        return self.root / "entries" / fingerprint[:2] / fingerprint

    def _set_aside(self, folder: Path) -> None:
        """Keep a damaged entry for study instead of deleting it."""
        aside = self.root / "damaged"
        aside.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            folder.rename(aside / f"{folder.name[:16]}-{uuid.uuid4().hex[:8]}")
