"""Looking after a store: what is in it, whether it is whole, and what may go."""

import contextlib
import os
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from kflow.store.entry import MANIFEST, Entry, read_manifest
from kflow.store.locks import AtWorkError, wait_briefly
from kflow.store.removal import discard, discard_checkpoints, leftovers
from kflow.store.store import Store

GRACE = 3600.0
"""Seconds for which what was used stays, whatever else is wished."""
UNREADABLE = "unreadable"
"""Stands for the kind of an entry whose manifest is damaged, or of an earlier version of kflow."""
LEFTOVERS = {"checkpoints": "checkpoint", "damaged": "damaged"}
"""What lies beside the entries and takes room: for each folder what stands for the kind of what is in it."""


@dataclass(frozen=True, slots=True)
class Usage:
    """An entry, or what was left of one, with its size in bytes and the moment of its last use."""

    folder: Path
    kind: str
    """The kind of its step, or what else it is."""
    size: int
    used: float

    @property
    def fingerprint(self) -> str:
        """The fingerprint of its step; of what was set aside the beginning, and more."""
        return self.folder.name

    @property
    def part(self) -> str:
        """The part of the store that it lies in."""
        return self.folder.parent.name if self.folder.parent.name in LEFTOVERS else "entries"


@dataclass(frozen=True, slots=True)
class Policy:
    """What may go; an entry goes if any of these says so, and so does what was left of one."""

    older_than: float | None = None
    """Seconds since the last use."""
    max_size: int | None = None
    """Bytes that all may take together; the least recently used go first."""
    referenced: Collection[str] | None = None
    """The fingerprints that may stay; None where every entry may."""
    grace: float = GRACE
    in_use: Collection[str] = ()
    """The fingerprints of runs under way, which stay."""


def list_usage(store: Store) -> list[Usage]:
    """Return every entry, that used last in front.

    Raises
    ------
    PermissionError
        If it cannot be told what is there.
    """
    found = []
    for folder in store.folders():
        with contextlib.suppress(OSError):
            found.append(_measure_entry(folder))
    return sorted(found, key=lambda usage: usage.used, reverse=True)


def _measure_entry(folder: Path) -> Usage:
    try:
        manifest = read_manifest(folder)
    except PermissionError:
        raise
    except (OSError, ValueError):
        return Usage(folder, UNREADABLE, measure(folder), folder.stat().st_mtime)
    return Usage(folder, manifest.kind, Entry(str(folder), manifest).size, folder.stat().st_mtime)


def list_leftovers(store: Store) -> list[Usage]:
    """Return what trainings left that were not finished, and what was set aside."""
    found = []
    for part, kind in LEFTOVERS.items():
        for folder in leftovers(store, part):
            with contextlib.suppress(OSError):
                found.append(Usage(folder, kind, measure(folder), folder.stat().st_mtime))
    return found


def choose_garbage(usages: list[Usage], policy: Policy, now: float) -> list[Usage]:
    """Return what may go, in the order in which it would.

    Parameters
    ----------
    usages : list of Usage
        Everything that takes room.
    policy : Policy
        What may go.
    now : float
        Seconds since the epoch.

    Returns
    -------
    list of Usage
        The least recently used first; none that was used within the grace period, or by a run under way.
    """
    total, chosen = sum(usage.size for usage in usages), []
    for usage in sorted(usages, key=lambda each: each.used):
        age = now - usage.used
        is_old = policy.older_than is not None and age > policy.older_than
        is_unknown = policy.referenced is not None and usage.fingerprint not in policy.referenced
        is_too_much = policy.max_size is not None and total > policy.max_size
        is_spared = age <= policy.grace or usage.fingerprint in policy.in_use
        if not is_spared and (is_old or is_unknown or is_too_much):
            chosen.append(usage)
            total -= usage.size
    return chosen


def collect(store: Store, policy: Policy, *, is_dry: bool = False) -> list[Usage]:
    """Remove what may go; safe beside running runs.

    Returns
    -------
    list of Usage
        What was removed, or would be.
    """
    now = time.time()
    chosen = choose_garbage([*list_usage(store), *list_leftovers(store)], policy, now)
    if is_dry:
        return chosen
    return [usage for usage in chosen if _discard(store, usage, now - policy.grace)]


def _discard(store: Store, usage: Usage, not_after: float) -> bool:
    remove = discard_checkpoints if usage.part == "checkpoints" else discard
    try:
        return remove(store, usage.folder, not_after)
    except FileNotFoundError:  # another one collects as well, or the step is done
        return False


@dataclass(frozen=True, slots=True)
class Finding:
    """What reading an entry has shown: its files that are not as they were published, or why it cannot be read."""

    fingerprint: str
    kind: str = "of an unknown kind"
    damaged: Sequence[str] = ()
    unreadable: str = ""


def inspect(store: Store) -> Iterator[Finding]:
    """Read every entry to its last byte, and tell of each what was found, and of what may not be looked into."""
    closed: list[OSError] = []
    for folder in store.folders(closed.append):
        yield _inspect(folder)
    for error in closed:
        yield Finding(Path(error.filename).name, unreadable=f"{error.filename}: {error.strerror}")


def _inspect(folder: Path) -> Finding:
    try:
        manifest = read_manifest(folder)
        damage = Entry(str(folder), manifest).find_damage()
    except PermissionError as error:
        return Finding(folder.name, unreadable=f"{error.filename or folder}: {error.strerror}")
    except (OSError, ValueError):
        return Finding(folder.name, damaged=[MANIFEST])
    if manifest.fingerprint != folder.name:
        damage = [MANIFEST]
    return Finding(folder.name, manifest.kind, damage)


class Fate(StrEnum):
    """What became of an entry that was found damaged."""

    ASIDE = "it was set aside"
    LEFT = "it stays, as a run is at work on it; give this command again later"
    SOUND = "it was made anew while it was read"
    GONE = "it was removed while it was read"


def set_aside(store: Store, fingerprint: str) -> Fate:
    """Keep a damaged entry for study, if it still is one when nobody is at work on it.

    Raises
    ------
    OSError
        If the store cannot be written.
    """
    try:
        with store.claim(fingerprint, wait_briefly()):
            place = store.place(fingerprint)
            if not os.path.lexists(place):
                return Fate.GONE
            if not _inspect(place).damaged:
                return Fate.SOUND
            store.set_aside(fingerprint)
    except AtWorkError:
        return Fate.LEFT
    return Fate.ASIDE


def measure(folder: Path) -> int:
    """Return the bytes of all files below a folder; 0 where there is none."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.lstat().st_size if path.is_file() else 0
    return total
