"""``kflow runs``: list the runs."""

from pathlib import Path

from kflow.cli.loading import open_store
from kflow.cli.output import say
from kflow.diagnostics import visible
from kflow.report.tables import describe_runs, sort_runs
from kflow.run.record import RunRecord, explain_unreadable, read_record, run_folders


def run(store: Path | None, sort: str | None, *, as_json: bool, least_first: bool) -> int:
    """Print the runs, newest first or in the order of a metric."""
    kept = open_store(store)
    records, unread = list[RunRecord](), list[tuple[Path, str]]()
    for folder in run_folders(kept.root):
        record = read_record(folder)
        if record:
            records.append(record)
        else:
            unread += explain_unreadable(folder)
    if sort and records:
        records = sort_runs(records, sort, least_first=least_first)
    if as_json:
        say(f"[{','.join(record.model_dump_json() for record in records)}]")
    else:
        say(describe_runs(records) if records else f"no runs in {kept.root}")
    for path, reason in unread:
        say(f"{visible(str(path))} cannot be read: {reason}", to_error=True)
    return 0
