"""``kflow show``: show the record of a run."""

import os
from pathlib import Path

from kflow.cli.loading import open_store
from kflow.cli.output import say
from kflow.errors import UsageError
from kflow.report.tables import describe_run
from kflow.run.record import RECORD, RunRecord, explain_unreadable, read_record, run_folders


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
        If there is none, or more than one, or it cannot be read.
    """
    # One that was killed before it wrote its first record has none.
    folders = [each for each in run_folders(root) if each.name[:1].isdigit() and os.path.lexists(each / RECORD)]
    if not folders:
        message = f"no runs in {root}"
        raise UsageError(message)
    found = folders[:1] if run_id == "latest" else [each for each in folders if each.name.startswith(run_id)]
    if len(found) != 1:
        what = f"{len(found)} runs start with {run_id!r}" if found else f"no run starts with {run_id!r}"
        message = f"{what}; 'kflow runs' lists them"
        raise UsageError(message)
    record = read_record(found[0])
    if record is None:
        reasons = "; ".join(f"{path.name}: {reason}" for path, reason in explain_unreadable(found[0]))
        message = f"the run {found[0].name} cannot be read ({reasons}); name another one of those in 'kflow runs'"
        raise UsageError(message)
    return record
