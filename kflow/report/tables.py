"""Plans, runs and records as text."""

from collections.abc import Iterable, Sequence

from kflow.diagnostics import visible
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


def describe_plan(actions: Sequence[Action], kinds: Sequence[str]) -> str:
    """Show the verdict on each step with its reason, and how many there are of each."""
    rows = [
        (action.verdict.value, action.step, kind, action.reason) for action, kind in zip(actions, kinds, strict=True)
    ]
    counts = {verdict: sum(row[0] == verdict for row in rows) for verdict in ("run", "reuse", "wait")}
    total = ", ".join(f"{count} to {verdict}" for verdict, count in counts.items() if count)
    return f"{columns(rows)}\n{total}"


def describe_runs(records: Sequence[RunRecord]) -> str:
    """Show runs, one line each."""
    rows = [("run", "status", "started (UTC)", "duration", "metrics")]
    for record in records:
        duration = f"{record.duration:.1f} s" if record.duration is not None else "-"
        rows.append((record.id, record.status, record.started[:19].replace("T", " "), duration, _metrics(record)))
    return columns(rows)


def describe_run(record: RunRecord) -> str:
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


def _metrics(record: RunRecord) -> str:
    return "; ".join(f"{step}: {_numbers(metrics)}" for step, metrics in record.metrics.items())


def _numbers(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
