"""``kflow runs``: list the runs."""

from pathlib import Path

from kflow.cli.loading import open_store
from kflow.cli.output import say
from kflow.report.tables import describe_runs, sort_runs
from kflow.run.record import read_records


def run(store: Path | None, sort: str | None, *, as_json: bool, least_first: bool) -> int:
    """Print the runs, newest first or in the order of a metric."""
    kept = open_store(store)
    records = list(read_records(kept.root))
    if sort and records:
        records = sort_runs(records, sort, least_first=least_first)
    if as_json:
        say(f"[{','.join(record.model_dump_json() for record in records)}]")
    else:
        say(describe_runs(records) if records else f"no runs in {kept.root}")
    return 0
