"""A store elsewhere, as a second level: entries are pulled from it when they have been checked, and pushed to it.

Files lie there under their SHA-256, and a manifest under the fingerprint of its entry. The files are put there before
the manifest that names them, and none is ever replaced by other bytes: so half a push is no entry, and pushes of
several machines do not disturb each other, without any lock.
"""

import contextlib
import errno
import hashlib
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from kflow.artifacts import ExternalFile
from kflow.artifacts.travel import Arrival, Home, NotHereError, UnfitError, settle
from kflow.store.entry import Content, Entry, Manifest, Output, holds
from kflow.store.place import Place, RemoteError, describe_failure
from kflow.store.portable import LARGEST, Portable, RefusedError, read_portable, write_portable
from kflow.store.store import Store

T = TypeVar("T")
LAYOUT = "kflow-1"
"""The folder that all lies in; another form of remote will have another."""
PATIENCE = 60.0
"""Seconds that the remote may take for a small file before it counts as dead."""
_SLOWEST = 100_000
"""Bytes in a second below which a transfer counts as dead."""
_AT_ONCE = 4
"""Entries that are moved at the same time."""
_NO_NAME = {errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.EEXIST, errno.EISDIR, errno.ENOTDIR}
"""How a file fails to be made in a new folder when the disk does not take its name, or not beside the others."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a step knows of the entry that it asks for."""

    fingerprint: str
    kind: str
    outputs: Mapping[str, str]
    """The type of each output."""
    home: Home
    promises: Mapping[str, str] = field(default_factory=dict)
    """The digest of each output for which the workflow says it."""


@dataclass
class Remote:
    """A store elsewhere; safe to use from several threads.

    Parameters
    ----------
    place : Place
        Where it lies.
    over : threading.Event
        Set when nothing is waited for any more.
    patience : float
        Seconds that a small file may take.
    """

    place: Place
    over: threading.Event = field(default_factory=threading.Event)
    patience: float = PATIENCE
    failure: str | None = None
    """Why it is not asked any more, once it could not be used."""
    _is_there: bool = False
    _useless: set[str] = field(default_factory=set)
    """What was found there that no machine can use: fingerprints, and digests of files."""
    _room: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(_AT_ONCE))

    def look_up(self, fingerprint: str) -> Portable | None:
        """Return what the remote says of an entry; its files are not looked at.

        Raises
        ------
        RefusedError
            If that is no good manifest.
        RemoteError
            If the remote cannot be used; from then on it is not asked any more.
        """
        if self.failure:
            return None
        text = self._within(lambda: self._read_small(_manifest_name(fingerprint)))
        try:
            return None if text is None else read_portable(text, fingerprint)
        except RefusedError:
            self._useless.add(fingerprint)
            raise

    def pull(self, expected: Expected, store: Store) -> Entry | None:
        """Bring an entry into a store, once all of it has been checked.

        Returns
        -------
        Entry or None
            None if it is not there, or refers to a file that this machine does not have.

        Raises
        ------
        RefusedError
            If it is not what it says, or not what the step expects; nothing is kept of it.
        RemoteError
            If the remote cannot be used.
        OSError
            If the store cannot be written.
        """
        with self._room:
            found = self.look_up(expected.fingerprint)
            if found is None:
                return None
            try:
                return self._bring(found, expected, store)
            except RefusedError:
                self._useless.add(expected.fingerprint)
                raise

    def push(self, entry: Entry) -> bool:
        """Send an entry; tells whether that was needed.

        What is there stays, unless it is of no use to any machine; files of it that were lost are sent again.

        Raises
        ------
        RemoteError
            If the remote cannot be used.
        OSError
            If this entry cannot be sent; others can.
        """
        fingerprint = entry.manifest.fingerprint
        name, files = _manifest_name(fingerprint), entry.manifest.files.items()
        with self._room:
            if self.failure:
                return False
            there = self._files_of(fingerprint)
            if there is not None:
                sent = [self._send(entry.folder / inside, each) for inside, each in files if each.sha256 in there]
                return any(sent)
            for inside, content in files:
                self._send(entry.folder / inside, content)
            import tempfile

            with tempfile.NamedTemporaryFile(prefix="kflow-") as stream:
                stream.write(write_portable(entry.manifest))
                stream.flush()
                path = Path(stream.name)
                self._put(path, name, 0)
        self._useless.discard(fingerprint)
        return True

    def _files_of(self, fingerprint: str) -> set[str] | None:
        """Return the digests of the files of an entry that is there; None where there is none that is of any use."""
        if fingerprint in self._useless:
            return None
        try:
            found = self.look_up(fingerprint)
        except RefusedError:
            return None
        return None if found is None else {content.sha256 for content in found.files.values()}

    def _send(self, source: Path, content: Content) -> bool:
        """Send a file that is not there, or not whole; tells whether that was needed."""
        name = _file_name(content.sha256)
        if content.sha256 not in self._useless and self._within(lambda: self.place.size(name)) == content.size:
            return False
        if not holds(source, content):  # it may have been damaged in a way that nobody sees who does not read it
            message = "it does not hold the bytes that were published; 'kflow store verify' sets its entry aside"
            raise OSError(errno.EIO, message, str(source))
        self._put(source, name, content.size)
        self._useless.discard(content.sha256)
        return True

    def _put(self, source: Path, name: str, size: int) -> None:
        try:
            self._within(lambda: self.place.put(source, name), lambda: size)
        except FileNotFoundError as error:
            self.failure = describe_failure(error)
            raise RemoteError(self.failure) from None

    # --- pulling ---------------------------------------------------------------------------------------

    def _bring(self, found: Portable, expected: Expected, store: Store) -> Entry | None:
        types = {name: output.type for name, output in found.outputs.items()}
        if found.kind != expected.kind or types != expected.outputs:
            raise RefusedError("its manifest is not that of such a step")
        for name, digest in expected.promises.items():
            if found.outputs[name].digest != digest:
                message = f"its output {name!r} has not the digest that the workflow gives"
                raise RefusedError(message)
        with store.stage() as staging:
            for name, content in found.files.items():
                self._fetch(name, content, staging.folder / name)
            try:
                manifest = _settle(found, staging.folder, expected.home)
            except NotHereError:
                return None
            except (UnfitError, RecursionError) as error:
                raise RefusedError(str(error)) from None
            except (ValueError, TypeError, KeyError, AttributeError):  # JSON of a form that nobody writes
                raise RefusedError("its manifest cannot be read") from None
            return store.commit(staging, manifest)

    def _fetch(self, name: str, content: Content, target: Path) -> None:
        """Bring a file, and make sure of every byte of it."""
        source, copy = _file_name(content.sha256), _Copy(target)
        try:
            self._within(lambda: copy.write(self.place.read(source, content.size), content.size), lambda: copy.count)
            what = "holds other bytes than its manifest says"
        except FileNotFoundError:
            what = "is not there"
        except LocalError as error:
            if error.errno not in _NO_NAME:
                raise
            what = "cannot have this name here"
        else:
            if copy.digest.hexdigest() == content.sha256 and copy.count == content.size:
                return
        self._useless.add(content.sha256)
        message = f"its file {name!r} {what}"
        raise RefusedError(message)

    def _read_small(self, name: str) -> bytes | None:
        text: bytes | None
        try:
            text = b"".join(_at_most(self.place.read(name, LARGEST), LARGEST))
        except FileNotFoundError:
            if not self._is_there:
                self.place.require()  # tells an empty remote from one that is not there
            text = None
        self._is_there = True
        return text

    # --- patience --------------------------------------------------------------------------------------

    def _within(self, work: Callable[[], T], moved: Callable[[], int] = lambda: 0) -> T:
        """Do something with the place, for no longer than it may take for the bytes that it moves.

        These are counted, and never believed: who waits for as many as a manifest says may wait for centuries. It is
        done in a thread that is left behind if it hangs: a dead network disk lets nobody go.
        """
        if self.failure:
            raise RemoteError(self.failure)
        answer: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()
        threading.Thread(target=_answer, args=(work, answer), daemon=True, name="remote").start()
        waited = 0.0
        while True:
            try:
                value, error = answer.get(timeout=0.25)
                break
            except queue.Empty:
                waited += 0.25
            if self.over.is_set():
                raise RemoteError("the run is over")
            if waited >= self.patience + moved() / _SLOWEST:
                self.failure = f"it did not answer within {waited:.0f} seconds"
                raise RemoteError(self.failure)
        if isinstance(error, FileNotFoundError | IsADirectoryError | LocalError):
            raise error
        if error is not None:
            self.failure = str(error) if isinstance(error, RemoteError) else describe_failure(error)
            raise RemoteError(self.failure) from None
        return value  # type: ignore[return-value]


class LocalError(OSError):
    """The store here cannot be written; the remote has no part in it."""


def _answer(work: Callable[[], Any], answer: "queue.SimpleQueue[Any]") -> None:
    try:
        answer.put((work(), None))
    except BaseException as error:  # noqa: BLE001  whoever waits tells it
        answer.put((None, error))


def _at_most(blocks: Iterator[bytes], size: int) -> Iterator[bytes]:
    """Yield blocks up to the one with which they are more than they should be."""
    count = 0
    for block in blocks:
        yield block
        count += len(block)
        if count > size:
            return


@dataclass(slots=True)
class _Copy:
    """A file that comes, as far as it has come."""

    target: Path
    count: int = 0
    digest: Any = field(default_factory=hashlib.sha256)

    def write(self, blocks: Iterator[bytes], size: int) -> None:
        """Write what comes, up to one block more than it should be."""
        with self._here():
            self.target.parent.mkdir(parents=True, exist_ok=True)
            self.target.touch(exist_ok=False)
        for block in _at_most(blocks, size):
            self.digest.update(block)
            with self._here(), self.target.open("ab") as stream:
                stream.write(block)
            self.count += len(block)

    @contextlib.contextmanager
    def _here(self) -> Iterator[None]:
        """Tell what fails on this machine from what fails in the remote."""
        try:
            yield
        except OSError as error:
            raise LocalError(error.errno, error.strerror, str(self.target)) from None


def _settle(found: Portable, folder: Path, home: Home) -> Manifest:
    """Make the manifest of an entry of this machine."""
    outputs, outside = {}, set()
    for name, output in found.outputs.items():
        files = {
            inside.removeprefix(f"{name}/"): content.sha256
            for inside, content in found.files.items()
            if inside.startswith(f"{name}/")
        }
        description, path = settle(Arrival(output.type, output.digest, output.description, folder / name, files), home)
        outputs[name] = Output(output.type, output.digest, description)
        outside |= {ExternalFile.of(path)} if path else set()
    external = tuple(sorted(outside, key=lambda file: file.path))
    return Manifest(found.fingerprint, found.kind, outputs, external=external)


def _manifest_name(fingerprint: str) -> str:
    return f"{LAYOUT}/entries/{fingerprint[:2]}/{fingerprint}.json"


def _file_name(digest: str) -> str:
    return f"{LAYOUT}/files/{digest[:2]}/{digest}"
