"""``kflow store``: what is in the store, whether it is whole, and what may go."""

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from kflow.cli.loading import open_sharing, open_store
from kflow.cli.output import say
from kflow.cli.show import find_run
from kflow.errors import RunError, UsageError
from kflow.report.tables import columns, describe_bytes
from kflow.run.record import RunRecord, read_records, unreadable_records
from kflow.run.sharing import Sharing
from kflow.spec.quantities import read_bytes, read_duration
from kflow.store.entry import Entry
from kflow.store.place import describe_failure
from kflow.store.removal import sweep
from kflow.store.store import Store
from kflow.store.upkeep import Fate, Finding, Policy, Usage, collect, inspect, list_usage, measure, set_aside

PARTS = {
    "entries": "results by fingerprint",
    "runs": "records and logs",
    "checkpoints": "trainings that were not finished",
    "damaged": "entries that were set aside",
    "tmp": "work under way",
}
_COUNTED = {"checkpoints": "checkpoints", "damaged": "that were set aside"}
"""How what is no entry is called where it is counted."""


def _open(store: Path | None) -> Store:
    """Return the store; one that was named must be there, or a slip of the pen would look like an empty store."""
    kept = open_store(store)
    if store is not None and not kept.root.is_dir():
        message = f"there is no store {kept.root}"
        raise UsageError(message)
    return kept


def list_entries(store: Path | None) -> int:
    """Print every entry, the one used last in front."""
    usages = list_usage(_open(store))
    rows = [(each.fingerprint[:16], each.kind, *_facts(each)) for each in usages]
    say(columns([("fingerprint", "kind", "size", "last used (UTC)"), *rows]) if rows else "no entries")
    return 0


def _facts(usage: Usage) -> tuple[str, str]:
    return describe_bytes(usage.size), datetime.fromtimestamp(usage.used, UTC).strftime("%Y-%m-%d %H:%M")


def show_sizes(store: Path | None) -> int:
    """Print how much each part of the store takes."""
    kept = _open(store)
    sizes = {part: measure(kept.root / part) for part in PARTS}
    rows = [(part, describe_bytes(size), PARTS[part]) for part, size in sizes.items()]
    say(columns([*rows, ("all", describe_bytes(sum(sizes.values())), str(kept.root))]))
    return 0


def verify(store: Path | None) -> int:
    """Read every entry; the damaged ones are set aside, and the exit code is 1 if one is damaged or cannot be read."""
    kept = _open(store)
    found = list(inspect(kept))
    unreadable = [each for each in found if each.unreadable]
    fates = Counter(_set_aside(kept, each) for each in found if each.damaged)
    for each in unreadable:
        say(f"{each.fingerprint[:16]} cannot be read: {each.unreadable}")
    aside = "; the next run makes the damaged ones again" if fates[Fate.ASIDE] else ""
    damaged, there = fates[Fate.ASIDE] + fates[Fate.LEFT], len(found) - fates[Fate.GONE]
    say(f"{there - damaged - len(unreadable)} of {there} entries hold what was published{aside}")
    return 1 if damaged or unreadable else 0


def _set_aside(kept: Store, each: Finding) -> Fate:
    """Set an entry aside, unless somebody makes it anew or has done so, and tell of it if it is damaged."""
    damage = f"{each.fingerprint[:16]} ({each.kind}) is damaged: {', '.join(each.damaged)}"
    try:
        fate = set_aside(kept, each.fingerprint)
    except OSError as error:
        say(damage)
        message = f"it cannot be set aside: {error.strerror}"
        raise RunError(message) from None
    if fate in {Fate.ASIDE, Fate.LEFT}:
        say(damage)
    if fate is Fate.LEFT:
        say(f"  {fate}")
    return fate


def collect_garbage(
    store: Path | None, older_than: str | None, max_size: str | None, grace: str, *, unreferenced: bool, is_dry: bool
) -> int:
    """Remove what may go, and print it."""
    if older_than is None and max_size is None and not unreferenced:
        message = "say what may go: --older-than 30d, --max-size '10 GB' or --unreferenced"
        raise UsageError(message)
    kept = _open(store)
    policy = Policy(
        older_than=_seconds("--older-than", older_than) if older_than else None,
        max_size=_bytes("--max-size", max_size) if max_size else None,
        referenced=_referenced(kept) if unreferenced else None,
        grace=_seconds("--grace", grace),
        in_use=_fingerprints(record for record in read_records(kept.root) if record.status == "running"),
    )
    gone = collect(kept, policy, is_dry=is_dry)
    if not is_dry:
        sweep(kept)
    for usage in gone:
        say(f"{usage.fingerprint[:16]} ({usage.kind}) {' '.join(_facts(usage))}")
    counts = Counter(usage.part for usage in gone)
    more = "".join(f", {counts[part]} {name}" for part, name in _COUNTED.items() if counts[part])
    verb = "would be removed" if is_dry else "removed"
    say(f"{counts['entries']} entries{more} {verb}, {describe_bytes(sum(usage.size for usage in gone))}")
    return 0


def push(run_id: str, remote: str | None, store: Path | None) -> int:
    """Send the results of a run to a remote; the exit code is 1 if one that is wanted is not here any more."""
    sharing = open_sharing(remote, pushes=True)
    if sharing is None:
        message = "say where to: --remote URL, or KFLOW_REMOTE in the environment"
        raise UsageError(message)
    kept = _open(store)
    gone = "damaged or not in the store any more"
    counts = dict.fromkeys(("pushed", "there already", "not pushed", gone), 0)
    for name, step in find_run(run_id, kept.root).steps.items():
        entry = kept.lookup(step.fingerprint) if step.fingerprint and step.outputs else None
        if entry and kept.is_sound(entry):
            outcome = _push(sharing, entry, name)
        elif step.outputs:
            outcome = gone
            say(f"{name}: {outcome}")
        else:
            continue
        counts[outcome] += 1
    say(", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count) or "nothing to push")
    return 1 if counts[gone] or counts["not pushed"] else 0


def _push(sharing: Sharing, entry: Entry, step: str) -> str:
    try:
        return "pushed" if sharing.remote.push(entry) else "there already"
    except RunError as error:
        message = f"the remote cannot be used: {error}"
        raise RunError(message) from None
    except OSError as error:
        say(f"{step}: not pushed: {describe_failure(error)}")
        return "not pushed"


def _referenced(store: Store) -> set[str]:
    """Return the fingerprints that the runs in a store speak of.

    Raises
    ------
    RunError
        If a record cannot be read: its run may have used anything.
    """
    closed = list(unreadable_records(store.root))
    if closed:
        lines = ["it cannot be told what is referenced, and nothing was removed:"]
        lines += [f"  {path}: {reason}" for path, reason in closed]
        advice = "remove the folder of a run that you can do without, or use the kflow that wrote it; "
        raise RunError("\n".join([*lines, f"{advice}--older-than and --max-size ask no record"]))
    return _fingerprints(read_records(store.root))


def _fingerprints(records: Iterable[RunRecord]) -> set[str]:
    return {step.fingerprint for record in records for step in record.steps.values() if step.fingerprint}


def _seconds(option: str, text: str) -> float:
    if text.strip() == "0":
        return 0.0
    try:
        value = read_duration(text.strip())
    except ValueError:
        message = f"{option} {text!r}: expected a length of time, such as 30d or 12h"
        raise UsageError(message) from None
    assert isinstance(value, float), "it has been read"
    return value


def _bytes(option: str, text: str) -> int:
    if text.strip() == "0":
        return 0
    try:
        value = read_bytes(int(text) if text.isdecimal() else text.strip())
    except ValueError:
        message = f"{option} {text!r}: expected an amount of memory, such as '10 GB'"
        raise UsageError(message) from None
    assert isinstance(value, int), "it has been read"
    return value
