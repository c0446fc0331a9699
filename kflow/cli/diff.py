"""``kflow diff``: how two runs differ."""

import json
from pathlib import Path

from pydantic_core import to_json

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
        told = to_json({"runs": [one.id, other.id], **found, "seconds": seconds}, inf_nan_mode="strings")
        say(json.dumps(json.loads(told), indent=1))  # in characters that any terminal has
    else:
        say(describe_differences(one.id, other.id, found, seconds))
    return 0
