"""What a run does with a remote: pull what it would have to make, push what it made, and never fail because of it."""

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kflow.artifacts import file_outside
from kflow.artifacts.travel import Home
from kflow.plan.planner import Stored
from kflow.spec.base import StepSpec
from kflow.store.entry import Entry
from kflow.store.place import RemoteError, describe_failure
from kflow.store.portable import RefusedError
from kflow.store.remote import Expected, Remote
from kflow.store.store import Store

Report = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Sharing:
    """A remote, and whether it is written to."""

    remote: Remote
    pushes: bool = True
    said: threading.Lock = field(default_factory=threading.Lock, repr=False)
    """Taken by the step that told first that the remote cannot be used."""

    def pull(self, expected: Expected, store: Store, report: Report) -> tuple[Entry | None, str | None]:
        """Bring the entry that a step expects.

        Returns
        -------
        Entry or None
            The entry; None if the step has to be run.
        str or None
            What the record should say of it.
        """
        if self.remote.failure or self.remote.over.is_set():
            return None, None
        try:
            return self.remote.pull(expected, store), None
        except RefusedError as error:
            note = f"what the remote has of it was refused: {error}"
            report({"event": "refused", "message": str(error)})
            return None, note
        except RemoteError as error:
            self._tell(error, report)
            return None, None

    def push(self, entry: Entry, report: Report) -> None:
        """Send an entry, if the remote has none."""
        if self.remote.failure or self.remote.over.is_set():
            return
        try:
            self.remote.push(entry)
        except RemoteError as error:
            self._tell(error, report)
        except OSError as error:  # the entry is gone again, there is no room for the manifest, a folder is in the way
            report({"event": "remote", "message": f"the result was not pushed: {describe_failure(error)}"})

    def _tell(self, error: RemoteError, report: Report) -> None:
        if not self.remote.over.is_set() and self.said.acquire(blocking=False):
            message = f"the remote is not used any more: {error}; 'kflow store push' can send results later"
            report({"event": "remote", "message": message})


@dataclass(frozen=True, slots=True)
class BothStores:
    """The store with the remote behind it, for looking up."""

    store: Store
    remote: Remote

    def lookup(self, fingerprint: str) -> Stored | None:
        """Return the entry of a fingerprint, or what the remote says of one; nothing where that cannot be used."""
        try:
            return self.store.lookup(fingerprint) or self.remote.look_up(fingerprint)
        except (RefusedError, RemoteError):
            return None

    def explain_miss(self, fingerprint: str) -> str:
        """Say why there is no entry that could be reused."""
        return self.store.explain_miss(fingerprint)


def expect(
    spec: StepSpec,
    fingerprint: str,
    components: Mapping[str, Any],
    files: Mapping[str, Path],
    inputs: Mapping[str, Entry],
) -> Expected:
    """Return what a step expects of its entry elsewhere.

    Parameters
    ----------
    spec : StepSpec
        The step.
    fingerprint : str
        The fingerprint of the entry.
    components : mapping
        What the fingerprint is made of.
    files : mapping of str to Path
        The files of the workspace that the step reads, by digest.
    inputs : mapping of str to Entry
        The entries that it takes outputs of.
    """

    def find(digest: str) -> Path | None:
        if digest in files:
            return files[digest]
        return next((path for entry in inputs.values() for path in _find(entry, digest)), None)

    outputs = {name: kind.type_name for name, kind in spec.Outputs.types().items()}
    home = Home(find, frozenset(components["code"].values()))
    return Expected(fingerprint, spec.kind, outputs, home, spec.promises())


def _find(entry: Entry, digest: str) -> Iterator[Path]:
    """Yield the files of this machine with a digest that an entry holds or refers to."""
    for name, content in entry.manifest.files.items():
        if content.sha256 == digest:
            yield entry.folder / name
    for output in entry.manifest.outputs.values():
        outside = file_outside(output.type, output.description, output.digest)
        if outside and outside[1] == digest:
            yield Path(outside[0])
