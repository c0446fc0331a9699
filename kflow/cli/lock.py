"""``kflow lock``: write down what a workflow gave."""

from collections.abc import Sequence
from pathlib import Path

from kflow.cli.loading import load_workflow, open_store, open_workspace, parse_overrides, plain_path
from kflow.cli.output import say
from kflow.run.lock import make_lock, own_lock_path, require_free, write_lock
from kflow.run.previous import make_planner


def run(file: Path, overrides: Sequence[str], store: Path | None) -> int:
    """Lock the results in the store."""
    workspace = open_workspace(file)
    bound = load_workflow(file, parse_overrides(overrides), workspace, store, writes=False)
    path = own_lock_path(file)
    require_free(path)
    planner = make_planner(bound, open_store(store), workspace, plain_path(file))
    lock = make_lock(bound.workflow.name, planner.preview())
    write_lock(lock, path)
    say(f"{path}: {len(lock.steps)} steps locked")
    return 0
