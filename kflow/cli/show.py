"""``kflow show``: show the record of a run."""

from pathlib import Path

from kflow.cli.loading import open_store
from kflow.cli.output import say
from kflow.errors import UsageError
from kflow.report.tables import describe_run
from kflow.run.record import RunRecord, read_records


def run(run_id: str, store: Path | None, as_json: bool) -> int:
    """Print a record."""
    record = find_run(run_id, open_store(store).root)
    say(record.model_dump_json(indent=1) if as_json else describe_run(record))
    return 0


def find_run(run_id: str, root: Path) -> RunRecord:
    """Return the record of a run by its id, the start of one, or 'latest'.

    Raises
    ------
    UsageError
        If there is none, or more than one.
    """
    records = list(read_records(root))
    if not records:
        message = f"no runs in {root}"
        raise UsageError(message)
    found = records[:1] if run_id == "latest" else [record for record in records if record.id.startswith(run_id)]
    if len(found) != 1:
        what = f"{len(found)} runs start with {run_id!r}" if found else f"no run starts with {run_id!r}"
        message = f"{what}; 'kflow runs' lists them"
        raise UsageError(message)
    return found[0]
