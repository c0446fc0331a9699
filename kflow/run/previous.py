"""Planning with what earlier runs tell: what each step was made of when it was last done."""

from typing import TYPE_CHECKING

from kflow.plan.planner import Lookup, Planner
from kflow.plan.resolve import Bound
from kflow.store.store import Store
from kflow.workspace import Workspace

if TYPE_CHECKING:
    from kflow.run.sharing import Sharing


def make_planner(
    bound: Bound, store: Store, workspace: Workspace, path: str, sharing: "Sharing | None" = None
) -> Planner:
    """Return a planner that knows the last run of the workflow at a path, and may look into a remote."""
    lookup: Lookup = store
    if sharing:
        from kflow.run.sharing import BothStores

        lookup = BothStores(store, sharing.remote)
    if not (store.root / "runs").is_dir():  # nothing was run here: no record needs to be read
        return Planner(bound, lookup, workspace, {})
    from kflow.run.history import read_previous
    from kflow.run.record import workflow_place

    place = workflow_place(workspace.root, path)
    previous = read_previous(store.root, place, bound.order)
    return Planner(bound, lookup, workspace, dict(previous.components), previous.unfinished)
