"""``kflow validate``: check workflows without running anything."""

import os
from collections.abc import Sequence
from pathlib import Path

from kflow.cli.loading import load_workflow, open_workspace, parse_overrides
from kflow.cli.output import say
from kflow.errors import KflowError


def run(files: Sequence[Path], overrides: Sequence[str]) -> int:
    """Check each file; the exit code is 2 if any is wrong."""
    values, store = parse_overrides(overrides), os.environ.get("KFLOW_STORE")
    code = 0
    for file in files:
        try:
            bound = load_workflow(file, values, open_workspace(file), Path(store) if store else None)
        except KflowError as error:
            say(str(error), to_error=True)
            code = error.exit_code
        else:
            count = len(bound.order)
            say(f"{file}: fine, {count} step{'s' * (count != 1)}")
    return code
