"""``kflow why``: tell why a step was run again."""

from pathlib import Path

from kflow.cli.loading import open_store
from kflow.cli.output import say
from kflow.cli.show import find_run
from kflow.diagnostics import suggest, visible
from kflow.errors import UsageError, listed
from kflow.report.compare import explain_step
from kflow.run.history import read_history
from kflow.run.record import RunRecord


def run(step: str, run_id: str, against: str | None, store: Path | None) -> int:
    """Print what differs between two runs of a step."""
    root = open_store(store).root
    new = find_run(run_id, root)
    _require_step(new, step)
    old = find_run(against, root) if against else _run_before(new, step, root)
    if old is None:
        say(f"{step}: {new.steps[step].reason}; no earlier run of {new.workflow.path} has done it")
        return 0
    _require_step(old, step)
    if old.id == new.id:
        say(f"{step}: nothing differs, as {new.id} is compared with itself")
        return 0
    lines = [f"{step} of {new.id} was {_status(new, step)}, compared with {old.id}:", *explain_step(new, old, step)]
    say("\n".join(map(visible, lines)))
    return 0


def _status(record: RunRecord, step: str) -> str:
    status, reason = record.steps[step].status, record.steps[step].reason
    return f"{status}: {reason}" if reason and reason != "unchanged" else status  # told by what follows


def _require_step(record: RunRecord, step: str) -> None:
    if step not in record.steps:
        hint = suggest(step, tuple(record.steps)) or f"it has {listed(record.steps)}"
        message = f"the run {record.id} has no step {step!r}; {hint}"
        raise UsageError(message)
    if record.steps[step].components is None:
        how = {
            "succeeded": "was not asked for",
            "failed": "failed, and did not come to",
            "running": "is still running, and has not come to",
        }
        message = f"the run {record.id} {how.get(record.status, 'ended before it came to')} step {step!r}"
        raise UsageError(f"{message}; 'kflow runs' lists others, and --run takes one of them")


def _run_before(new: RunRecord, step: str, root: Path) -> RunRecord | None:
    """Return the newest earlier run of the workflow that has done the step."""
    for record in read_history(root, new.workflow.place):
        done = record.steps.get(step)
        if record.id < new.id and done and done.components and done.status in {"run", "reused"}:
            return record
    return None
