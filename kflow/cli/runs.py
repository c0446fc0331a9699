"""``kflow runs``: list the runs."""

from pathlib import Path

import typer

from kflow.cli.loading import open_store
from kflow.report.tables import describe_runs
from kflow.run.record import read_records


def run(store: Path | None, as_json: bool) -> int:
    """Print the runs, newest first."""
    kept = open_store(store)
    records = list(read_records(kept.root))
    if as_json:
        typer.echo(f"[{','.join(record.model_dump_json() for record in records)}]")
    else:
        typer.echo(describe_runs(records) if records else f"no runs in {kept.root}")
    return 0
