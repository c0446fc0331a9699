"""Plans, runs and records as text."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kflow.diagnostics import suggest, visible
from kflow.errors import UsageError, listed

if TYPE_CHECKING:  # what only lists stores or plans needs no records
    from kflow.plan.planner import Action
    from kflow.run.record import RunRecord


def columns(rows: Iterable[Sequence[str]]) -> str:
    """Lay out rows in columns that are as wide as they must be.

    Examples
    --------
    >>> print(columns([("a", "bb"), ("ccc", "d")]))
    a    bb
    ccc  d
    """
    shown = [[visible(cell) for cell in row] for row in rows]
    if not shown:
        return ""
    widths = [max(len(row[i]) for row in shown) for i in range(len(shown[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in shown
    )


def near(path: Path) -> str:
    """Show a path from here when it is below, else in full."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def describe_bytes(count: float) -> str:
    """Say a number of bytes with a fitting unit.

    Examples
    --------
    >>> describe_bytes(999), describe_bytes(1_500_000)
    ('999 B', '1.5 MB')
    """
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


def describe_plan(actions: "Sequence[Action]", kinds: Sequence[str]) -> str:
    """Show the verdict on each step with its reason, and how many there are of each."""
    rows = [
        (action.verdict.value, action.step, kind, action.reason) for action, kind in zip(actions, kinds, strict=True)
    ]
    counts = {verdict: sum(row[0] == verdict for row in rows) for verdict in ("run", "reuse", "wait")}
    total = ", ".join(f"{count} to {verdict}" for verdict, count in counts.items() if count)
    return f"{columns(rows)}\n{total}"


def describe_runs(records: "Sequence[RunRecord]") -> str:
    """Show runs, one line each."""
    rows = [("run", "status", "started (UTC)", "duration", "metrics")]
    for record in records:
        duration = f"{record.duration:.1f} s" if record.duration is not None else "-"
        rows.append((record.id, record.status, record.started[:19].replace("T", " "), duration, _metrics(record)))
    return columns(rows)


def sort_runs(records: "Sequence[RunRecord]", metric: str, *, least_first: bool = False) -> "list[RunRecord]":
    """Sort runs by a metric, ``accuracy`` or ``test.accuracy``, the greatest first; those without it come last.

    Raises
    ------
    UsageError
        If no run has the metric.
    """
    values = {record.id: _find_metric(record, metric) for record in records}
    there = [record for record in records if values[record.id] is not None]
    if not there:
        known = sorted(
            {f"{step}.{name}" for record in records for step, each in record.metrics.items() for name in each}
        )
        hint = suggest(metric, known) or (f"there are {listed(known)}" if known else "no run has any")
        message = f"--sort {metric}: no run has this metric; {hint}"
        raise UsageError(message)
    there.sort(key=lambda record: values[record.id] or 0.0, reverse=not least_first)
    return [*there, *(record for record in records if values[record.id] is None)]


def _find_metric(record: "RunRecord", metric: str) -> float | None:
    step, _, name = metric.rpartition(".")
    found = [each[name] for at, each in record.metrics.items() if name in each and step in {"", at}]
    return found[-1] if found and found[-1] == found[-1] else None


def describe_differences(
    first: str,
    second: str,
    found: Mapping[str, Mapping[str, tuple[Any, Any]]],
    seconds: Mapping[str, tuple[float, float]],
) -> str:
    """Show how two runs differ, part by part."""
    parts = [f"{first}\n{second}"]
    for part, differences in found.items():
        rows = [_difference(part, name, *pair) for name, pair in differences.items()]
        parts.append(f"{part}:\n" + columns(rows))
    if not found:
        parts.append("nothing differs but the time")
    if seconds:
        rows = [("  " + name, f"{one:.1f} s", "->", f"{other:.1f} s") for name, (one, other) in seconds.items()]
        parts.append("time:\n" + columns(rows))
    return "\n\n".join(parts)


def _difference(part: str, name: str, one: Any, other: Any) -> tuple[str, ...]:
    if part == "steps" and one == "":
        return (f"  {name}", str(other), "", "")
    if part == "outputs":
        one, other = (str(each)[:12] if each else None for each in (one, other))
    change = f"({other - one:+.4g})" if part == "metrics" and None not in {one, other} else ""
    return (f"  {name}", _shown(one), f"-> {_shown(other)}", change)


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def describe_run(record: "RunRecord") -> str:
    """Show a run: its steps with their reasons, its metrics, files, versions and surroundings."""
    git = record.git
    head = [
        ("run", record.id),
        ("status", record.status),
        ("workflow", f"{record.workflow.path}  sha256:{record.workflow.sha256[:16]}"),
        ("started", record.started),
        ("duration", f"{record.duration:.1f} s" if record.duration is not None else "-"),
        ("params", ", ".join(f"{name}={value}" for name, value in record.workflow.params.items()) or "-"),
        ("seed", str(record.workflow.seed)),
        ("git", f"{git.commit[:12]}{' (with changes)' if git.is_dirty else ''}" if git else "-"),
        ("platform", record.platform),
        ("devices", f"{record.devices.get('cpus')} CPUs, {len(record.devices.get('gpus', []))} GPUs"),
        ("versions", ", ".join(f"{name} {number}" for name, number in record.versions.items())),
    ]
    rows = [("step", "kind", "status", "seconds", "fingerprint", "reason")]
    for name, step in record.steps.items():
        seconds = f"{step.duration:.1f}" if step.duration is not None else "-"
        rows.append((name, step.kind, step.status, seconds, (step.fingerprint or "-")[:12], step.error or step.reason))
    files = [
        (f"{name}.{output}", each.path)
        for name, step in record.steps.items()
        for output, each in step.outputs.items()
        if each.path
    ]
    parts = [columns(head), columns(rows)]
    if record.metrics:
        parts.append(columns([(name, _numbers(metrics)) for name, metrics in record.metrics.items()]))
    if files:
        parts.append(columns(files))
    return "\n\n".join(parts)


def _metrics(record: "RunRecord") -> str:
    return "; ".join(f"{step}: {_numbers(metrics)}" for step, metrics in record.metrics.items())


def _numbers(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
