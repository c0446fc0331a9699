"""The store: entries by fingerprint below one folder.

An entry is built in ``tmp/`` on the same file system, made durable, and renamed into ``entries/``; nothing
else ever writes there. That is correct without any lock; the lock only keeps two runners from doing the
same work twice.
"""

import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from kflow import durable
from kflow.signature import ABSENT
from kflow.store.entry import MANIFEST, Entry, Manifest, describe_files, read_manifest, was_replaced
from kflow.store.locks import claimed, guarded, held

_TAKEN = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}
"""How renaming a folder fails where something else has its name."""
FINGERPRINT = re.compile(r"[0-9a-f]{64}")


@dataclass(slots=True)
class Staging:
    """A folder that an entry is built in, held until it is published or given up."""

    folder: Path
    descriptor: int
    """Of the folder."""
    is_published: bool = False


@dataclass(frozen=True, slots=True)
class Store:
    """A folder of entries, and perhaps another store below it, which is looked into and never written to."""

    root: Path
    base: "Store | None" = None
    _published: dict[str, dict[str, list[int | str]]] = field(default_factory=dict, repr=False, compare=False)
    """The stamps of the entries that this process has published, by fingerprint."""

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
        try:
            place = self._place(fingerprint)
            entry = Entry(place, read_manifest(place))
            if entry.manifest.fingerprint == fingerprint and entry.is_whole():
                return entry
        except (OSError, ValueError):  # there is none, or a damaged one
            pass
        return self.base.lookup(fingerprint) if self.base else None

    def take(self, entry: Entry) -> bool:
        """Note that an entry is used, so that collecting garbage spares it for a while; tell whether it is there.

        Where the store cannot be written, it is not noted, and used all the same.
        """
        with guarded(self.guard, fcntl.LOCK_SH):
            try:
                os.utime(entry.place)
            except FileNotFoundError:
                return False
            except OSError:
                pass
        return True

    def is_sound(self, entry: Entry) -> bool:
        """Tell whether an entry holds the bytes that were published.

        They are read by the first process that asks, unless it has published them itself, and again only if a file was
        touched.
        """
        if not entry.manifest.files:
            return True
        try:
            stamp = entry.stamp()
            if any(tuple(state[:-1]) == ABSENT for state in stamp.values()):
                return False
            if self._is_known(entry.manifest.fingerprint, stamp):
                return True
            is_sound = not entry.find_damage()
        except OSError:
            return False
        if is_sound:
            self._note_verified(entry.manifest.fingerprint, stamp)
        return is_sound

    def _is_known(self, fingerprint: str, stamp: dict[str, list[int | str]]) -> bool:
        """Tell whether the files of an entry are in the state in which their bytes were last known."""
        if self._published.get(fingerprint) == stamp:
            return True
        with contextlib.suppress(OSError, ValueError, RecursionError):
            return bool(json.loads(durable.read_bytes(self.root / "verified" / fingerprint)) == stamp)
        return False

    def _note_verified(self, fingerprint: str, stamp: dict[str, list[int | str]]) -> None:
        """Remember that an entry has been read; losing this costs no more than reading it again."""
        note = self.root / "verified" / fingerprint
        with contextlib.suppress(OSError):
            note.parent.mkdir(exist_ok=True)
            with open(note, "w", encoding="utf-8", opener=durable.open_at_once) as stream:
                stream.write(json.dumps(stamp))

    def folders(self, on_error: Callable[[OSError], object] | None = None) -> Iterator[Path]:
        """Yield the folder of each entry, whole or not, in order; what lies there besides is none.

        Parameters
        ----------
        on_error : callable, optional
            Takes the error about a folder that may not be looked into; by default it is raised.
        """
        for shelf in look_into(self.root / "entries", on_error):
            for folder in look_into(shelf, on_error):
                if FINGERPRINT.fullmatch(folder.name) and folder.name.startswith(shelf.name):
                    yield folder

    def entries(self) -> Iterator[Entry]:
        """Yield every entry that has a manifest, in order."""
        for folder in self.folders():
            with contextlib.suppress(OSError, ValueError):
                yield Entry(str(folder), read_manifest(folder))

    def lookup_sound(self, fingerprint: str) -> Entry | None:
        """Return the entry of a fingerprint if it holds the bytes that were published; a damaged one is set aside.

        Only for those who hold the fingerprint: somebody else might have made it anew while it was read.
        """
        for _ in range(2):
            entry = self.lookup(fingerprint)
            seen = entry.glance() if entry else {}
            if entry is None or self.is_sound(entry):
                return entry
            if not was_replaced(seen, entry.glance()):
                self.set_aside(fingerprint)
                return None
            # Where locks keep nobody out, another run has made it anew, or somebody has put other bytes there.
        return None

    def set_aside(self, fingerprint: str) -> None:
        """Keep a damaged entry for study; from now on it is a miss. Only for those who hold the fingerprint."""
        self._set_aside(self.place(fingerprint))

    def checkpoints(self, fingerprint: str) -> Path:
        """Return the folder for what a step has done that was not finished; it may not be there."""
        return Path(f"{self.root}/checkpoints/{fingerprint}")

    def explain_miss(self, fingerprint: str) -> str:
        """Say why there is no entry that could be reused."""
        folder = self.place(fingerprint)
        try:
            manifest = read_manifest(folder)
        except (OSError, ValueError):
            if folder.exists():
                return "its stored result is damaged"
            is_aside = any((self.root / "damaged").glob(f"{fingerprint[:16]}-*"))
            return "its stored result was damaged" if is_aside else "its result is not in the store"
        changed = [each.path for each in manifest.external if not each.is_unchanged()]
        return f"{changed[0]} was touched, moved or changed" if changed else "its stored result is damaged"

    @contextlib.contextmanager
    def stage(self) -> Iterator[Staging]:
        """Give an empty folder to build an entry in; it is removed at the end if it was not published."""
        folder, staging = self.new_folder(), None
        folder.mkdir(parents=True)
        try:
            with held(folder) as descriptor:
                staging = Staging(folder, descriptor)
                yield staging
        finally:
            if not (staging and staging.is_published):
                shutil.rmtree(folder, ignore_errors=True)

    def commit(self, staging: Staging, manifest: Manifest, *, supersede: bool = False) -> Entry:
        """Publish a staged folder as the entry of its fingerprint.

        Parameters
        ----------
        staging : Staging
            What `stage` gives, complete but for the manifest.
        manifest : Manifest
            What lies in it; the list of its files is made here.
        supersede : bool
            Whether an entry that is there already gives way if its content is another; default False.

        Returns
        -------
        Entry
            The published entry; that of another runner if it was first, and is whole.

        Raises
        ------
        OSError
            If the disk is full or read-only; nothing is published then.
        """
        files = describe_files(staging.folder)
        if files:
            manifest = replace(manifest, files=files)
            durable.sync_tree(staging.folder)
        durable.write_new(f"{staging.folder}/{MANIFEST}", manifest.to_bytes())
        durable.sync_open_folder(staging.descriptor)
        entry = Entry(self._place(manifest.fingerprint), manifest)
        stamp = Entry(str(staging.folder), manifest).stamp()  # once it is published, another one may take its place
        shelf = os.path.dirname(entry.place)  # noqa: PTH120
        while not self._move(staging, entry.place):
            present = self.lookup(manifest.fingerprint)
            gives_way = present and supersede and present.digests != entry.digests
            if present and not gives_way and self.is_sound(present):
                return present
            if gives_way or _is_outdated(entry.folder):  # nothing is wrong with it
                self._drop(entry.folder)
            else:
                self._set_aside(entry.folder)
        durable.sync_folder(shelf)
        if files:
            self._published[manifest.fingerprint] = stamp
        return entry

    def _move(self, staging: Staging, target: str) -> bool:
        """Rename a staged folder; tells whether the name was free."""
        try:
            try:
                os.rename(staging.folder, target)  # noqa: PTH104  pathlib reads the name again
            except FileNotFoundError:  # it is the first on its shelf
                durable.make_folder(os.path.dirname(target))  # noqa: PTH120
                os.rename(staging.folder, target)  # noqa: PTH104
        except OSError as error:
            if error.errno == errno.EXDEV:
                message = "its tmp/ and entries/ must lie on one file system"
                raise OSError(errno.EXDEV, message, str(self.root)) from None
            if error.errno not in _TAKEN:
                raise
            return False
        staging.is_published = True
        return True

    @contextlib.contextmanager
    def claim(self, fingerprint: str, wait: Callable[[float], None] = time.sleep) -> Iterator[None]:
        """Hold a fingerprint while computing it; another runner waits, and then finds the result.

        `wait` takes the seconds until the next look; what it raises ends the wait. The lock file is never removed: a
        lock on a removed file excludes nobody. Where the file system does not lock, the work may be done twice, and the
        result is right all the same.
        """
        with claimed(f"{self.root}/locks/claims", int(fingerprint[:15], 16), wait):
            yield

    @property
    def guard(self) -> str:
        """The file that is locked while something is looked up or removed: see `guarded`."""
        return f"{self.root}/locks/guard"

    def place(self, fingerprint: str) -> Path:
        """Return the folder of an entry, whether it is there or not."""
        return Path(self._place(fingerprint))

    def _place(self, fingerprint: str) -> str:
        """Return the folder of an entry, as a text: a path would take longer than the look into it."""
        return f"{self.root}/entries/{fingerprint[:2]}/{fingerprint}"

    def new_folder(self) -> Path:
        """Return the name of a folder that is nobody's."""
        return Path(self.root, "tmp", os.urandom(16).hex())

    def _drop(self, folder: Path) -> None:
        """Remove an entry that another one takes the place of."""
        trash = self.new_folder()
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(folder.rename(trash), ignore_errors=True)

    def _set_aside(self, folder: Path) -> None:
        """Keep a damaged entry for study instead of deleting it."""
        aside = self.root / "damaged"
        aside.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            kept = folder.rename(aside / f"{folder.name[:16]}-{os.urandom(4).hex()}")
            with contextlib.suppress(OSError):  # those who collect count from here
                os.utime(kept)


def _is_outdated(folder: Path) -> bool:
    """Tell whether all that is wrong with an entry is that files outside, which it refers to, were touched."""
    try:
        entry = Entry(str(folder), read_manifest(folder))
        return not all(each.is_unchanged() for each in entry.manifest.external) and not entry.find_damage()
    except (OSError, ValueError):
        return False


def look_into(folder: Path, on_error: Callable[[OSError], object] | None = None) -> list[Path]:
    """Return what lies in a folder, in order; nothing where there is none."""
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        if on_error is None:
            raise
        on_error(error)
        return []
