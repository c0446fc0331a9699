"""``kflow diff``: how two runs differ."""

import json
from pathlib import Path

from kflow.cli.loading import open_store
from kflow.cli.output import say
from kflow.cli.show import find_run
from kflow.report.compare import compare_runs, timings
from kflow.report.tables import describe_differences


def run(first: str, second: str, store: Path | None, *, as_json: bool) -> int:
    """Print what differs."""
    root = open_store(store).root
    one, other = find_run(first, root), find_run(second, root)
    found, seconds = compare_runs(one, other), timings(one, other)
    if as_json:
        say(json.dumps({"runs": [one.id, other.id], **found, "seconds": seconds}, indent=1))
    else:
        say(describe_differences(one.id, other.id, found, seconds))
    return 0
