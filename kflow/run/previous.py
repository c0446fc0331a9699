"""Planning with what earlier runs tell: what each step was made of when it was last done."""

from kflow.plan.planner import Planner
from kflow.plan.resolve import Bound
from kflow.store.store import Store
from kflow.workspace import Workspace


def make_planner(bound: Bound, store: Store, workspace: Workspace, path: str) -> Planner:
    """Return a planner that knows the last run of the workflow at a path."""
    if not (store.root / "runs").is_dir():  # nothing was run here: no record needs to be read
        return Planner(bound, store, workspace, {})
    from kflow.run.record import previous_components

    return Planner(bound, store, workspace, previous_components(store.root, path, bound.order))
