"""Looking after a store: what is in it, whether it is whole, and what may go."""

import contextlib
import re
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kflow.store.entry import MANIFEST, Entry, read_manifest
from kflow.store.store import Store

GRACE = 3600.0
"""Seconds for which an entry that was used stays, whatever else is wished."""


@dataclass(frozen=True, slots=True)
class Usage:
    """An entry with its size in bytes and the moment of its last use."""

    entry: Entry
    size: int
    used: float


@dataclass(frozen=True, slots=True)
class Policy:
    """What may go; an entry goes if any of these says so."""

    older_than: float | None = None
    """Seconds since the last use."""
    max_size: int | None = None
    """Bytes that the entries may take together; the least recently used go first."""
    referenced: Collection[str] | None = None
    """The fingerprints that may stay; None where every entry may."""
    grace: float = GRACE


def list_usage(store: Store) -> list[Usage]:
    """Return every entry, that used last in front."""
    found = []
    for entry in store.entries():
        with contextlib.suppress(OSError):
            found.append(Usage(entry, entry.size, entry.folder.stat().st_mtime))
    return sorted(found, key=lambda usage: usage.used, reverse=True)


def choose_garbage(usages: list[Usage], policy: Policy, now: float) -> list[Usage]:
    """Return the entries that may go, in the order in which they would.

    Parameters
    ----------
    usages : list of Usage
        Every entry.
    policy : Policy
        What may go.
    now : float
        Seconds since the epoch.

    Returns
    -------
    list of Usage
        The least recently used first; none that was used within the grace period.
    """
    total, chosen = sum(usage.size for usage in usages), []
    for usage in sorted(usages, key=lambda each: each.used):
        age = now - usage.used
        is_old = policy.older_than is not None and age > policy.older_than
        is_unknown = policy.referenced is not None and usage.entry.manifest.fingerprint not in policy.referenced
        is_too_much = policy.max_size is not None and total > policy.max_size
        if age > policy.grace and (is_old or is_unknown or is_too_much):
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
    chosen = choose_garbage(list_usage(store), policy, now)
    if is_dry:
        return chosen
    return [usage for usage in chosen if _discard(store, usage, now - policy.grace)]


def _discard(store: Store, usage: Usage, not_after: float) -> bool:
    try:
        return store.discard(usage.entry, not_after)
    except FileNotFoundError:  # another one collects as well
        return False


@dataclass(frozen=True, slots=True)
class Finding:
    """What reading an entry has shown: its files that are not as they were published, or why it cannot be read."""

    fingerprint: str
    kind: str = "of an unknown kind"
    damaged: Sequence[str] = ()
    unreadable: str = ""


def inspect(store: Store) -> Iterator[Finding]:
    """Read every entry to its last byte, and tell of each what was found; what lies there besides is none."""
    for folder in sorted((store.root / "entries").glob("*/*")):
        if re.fullmatch(r"[0-9a-f]{64}", folder.name) and folder.name.startswith(folder.parent.name):
            yield _inspect(folder)


def _inspect(folder: Path) -> Finding:
    try:
        manifest = read_manifest(folder)
        damage = Entry(folder, manifest).find_damage()
    except PermissionError as error:
        return Finding(folder.name, unreadable=f"{error.filename or folder}: {error.strerror}")
    except (OSError, ValueError):
        return Finding(folder.name, damaged=[MANIFEST])
    if manifest.fingerprint != folder.name:
        damage = [MANIFEST]
    return Finding(folder.name, manifest.kind, damage)


def measure(folder: Path) -> int:
    """Return the bytes of all files below a folder; 0 where there is none."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.lstat().st_size if path.is_file() else 0
    return total
