"""``kflow run``: run a workflow."""

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from kflow.cli.loading import load_workflow, open_store, open_workspace, parse_overrides
from kflow.report.console import Console
from kflow.run.executor import execute


def run(file: Path, overrides: Sequence[str], store: Path | None, is_debug: bool) -> int:
    """Run the workflow; the exit code is 1 if a step failed."""
    # Set on purpose: in a container the first process ignores SIGTERM unless it says otherwise, and a
    # command started with & inherits SIGINT ignored.
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup is respected
        signal.signal(signal.SIGHUP, _interrupt)
    workspace = open_workspace(file)
    bound = load_workflow(file, parse_overrides(overrides), workspace)
    console = Console(is_debug=is_debug)
    try:
        record = execute(bound, open_store(store), workspace, os.path.normpath(file), console)
    finally:
        console.close()
    return 0 if record.status == "succeeded" else 1


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Stop the run, and let nothing disturb the tidying up: timeout and docker send several signals."""
    del number, frame
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt
