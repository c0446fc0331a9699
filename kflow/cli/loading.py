"""From the arguments of a command to a bound workflow."""

import contextlib
import errno
import gc
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kflow.cli.output import say
from kflow.document import Document, load_document, parse_scalar
from kflow.errors import RunError, UsageError, describe_disk_error, is_hidden
from kflow.plan.resolve import Bound, bind
from kflow.registry import Registry
from kflow.spec.parse import parse_workflow
from kflow.workspace import Workspace

if TYPE_CHECKING:
    from kflow.plan.planner import Action, Planner
    from kflow.plan.select import Needs
    from kflow.run.sharing import Sharing
    from kflow.store.store import Store


def parse_overrides(texts: Sequence[str]) -> dict[str, Any]:
    """Read ``--set name=value``; the value is YAML.

    Examples
    --------
    >>> parse_overrides(["epochs=3", "rate=1e-3"])
    {'epochs': 3, 'rate': 0.001}
    """
    overrides = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not name.strip():
            message = f"--set {text!r}: expected NAME=VALUE, such as --set epochs=3"
            raise UsageError(message)
        try:
            overrides[name.strip()] = parse_scalar(value)
        except UsageError as error:
            message = f"--set {text!r}: {error}"
            raise UsageError(message) from None
    return overrides


def plain_path(file: Path) -> str:
    """Return the shortest path of the file that the system opens: behind a link '..' leads to where the link leads."""
    folder, name = os.path.split(file)
    short = os.path.normpath(file)
    if os.path.realpath(os.path.dirname(short)) == os.path.realpath(folder):  # noqa: PTH120
        return short
    return os.path.join(os.path.realpath(folder), name)  # noqa: PTH118


def is_steady(file: Path) -> bool:
    """Tell whether there is no '..' behind a link in a path: where that link leads is not watched."""
    return plain_path(file) == os.path.normpath(file)


def open_workspace(file: Path) -> Workspace:
    """Return the workspace of a workflow file: its folder."""
    return Workspace(Path(os.path.abspath(plain_path(file))).parent)  # noqa: PTH100  resolve() would follow links


def load_workflow(
    file: Path,
    overrides: Mapping[str, Any],
    workspace: Workspace,
    store: Path | None = None,
    *,
    writes: bool = True,
    params: Mapping[str, Any] | None = None,
) -> Bound:
    """Read, type and bind a workflow file.

    Parameters
    ----------
    file : Path
        The workflow file.
    overrides : mapping
        Params that replace those of the file.
    workspace : Workspace
        Its folder.
    store : Path, optional
        The folder of the store, in which no step may write by path; as for `open_store`.
    writes : bool
        Whether the files that steps write by path will be put in their places; default True.
    params : mapping, optional
        All params, in the place of those of the file: whatever dots their names have.

    Raises
    ------
    WorkflowError
        With everything that is wrong with it.
    UsageError
        If the file cannot be read, or an override names no param.
    """
    if file.suffix == ".json":
        _refuse_plan(file)
    with contextlib.suppress(OSError, ValueError):  # reading it tells why
        workspace.note(os.path.abspath(plain_path(file)))  # noqa: PTH100  resolve() would follow links
    try:
        with making_what_stays():
            document: Document = load_document(file)
            if params is not None:
                document = replace(document, value={**document.value, "params": dict(params)})
            parsed = parse_workflow(document, Registry(), overrides=overrides, environ=os.environ)
            return bind(parsed, workspace, store=_store_folder(store), writes=writes)
    finally:
        workspace.probe.stop()


@contextlib.contextmanager
def making_what_stays() -> Iterator[None]:
    """Look for no garbage: going through all that is made again and again would take a third of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _refuse_plan(file: Path) -> None:
    """Tell a saved plan from a workflow: it would be wrong in every line."""
    from kflow.plan.saved import is_saved_plan

    if not file.is_file():  # opening a pipe may wait for ever; reading the workflow tells what it is
        return
    with contextlib.suppress(OSError), file.open("rb") as stream:  # reading the workflow tells why
        if is_saved_plan("", stream.read(64)):
            message = f"{file} is a saved plan and no workflow; 'kflow run {file}' runs it"
            raise UsageError(message)


def open_store(store: Path | None) -> "Store":
    """Return the store: the one asked for, or ``.kflow`` in the current folder. Nothing is made yet.

    Raises
    ------
    RunError
        If it may not be looked into: it would seem to be empty.
    """
    from kflow.store.store import Store

    root = os.fspath(_store_folder(store))
    for folder in (root, f"{root}/entries", f"{root}/runs"):
        if is_hidden(folder):
            error = PermissionError(errno.EACCES, os.strerror(errno.EACCES), folder)
            raise RunError(describe_disk_error(error, root, root))
    return Store(Path(root))


def _store_folder(store: Path | None) -> Path:
    return Path(os.path.abspath(store or ".kflow"))  # noqa: PTH100  resolve() would follow links


def open_sharing(url: str | None, *, pushes: bool) -> "Sharing | None":
    """Return the remote that was asked for; nothing is looked at yet."""
    if not url:
        return None
    from kflow.run.sharing import Sharing
    from kflow.store.place import open_place
    from kflow.store.remote import Remote

    return Sharing(Remote(open_place(url)), pushes)


def warn_of(sharing: "Sharing | None") -> None:
    """Say that the remote could not be looked into, if that is so."""
    if sharing and sharing.remote.failure:
        say(f"warning: the remote is not used: {sharing.remote.failure}", to_error=True)


@dataclass(frozen=True, slots=True)
class Chosen:
    """The verdicts on the steps that were chosen, and on all that a run of them would come to."""

    actions: "Sequence[Action]"
    wanted: "Sequence[Action]"
    """With those of the steps that they need."""
    gap: "tuple[str, Action] | None"
    """A chosen step, and one that it needs, is not chosen, and has no result."""

    def describe_gap(self) -> str:
        """Say what is missing; nothing where there is no gap."""
        if self.gap is None:
            return ""
        user, action = self.gap
        return f"step {user!r} needs {action.step!r}, which is not chosen and has no result to reuse ({action.reason})"

    def require_results(self, sharing: "Sharing | None") -> "Chosen":
        """Return the same; UsageError where it could not be run, also with what a remote has, if one was asked."""
        warn_of(sharing)
        if self.gap is not None:
            nor = ", nor has the remote one that can be taken" if sharing and not sharing.remote.failure else ""
            raise UsageError(f"{self.describe_gap()}{nor}; '--until {self.gap[0]}' runs what a step needs as well")
        return self


def choose_actions(
    planner: "Planner",
    *,
    only: Sequence[str] = (),
    first: Sequence[str] = (),
    last: Sequence[str] = (),
    is_forced: bool = False,
) -> Chosen:
    """Return the verdicts on the steps that were chosen.

    Raises
    ------
    UsageError
        If a step is not there, or the choice is none.
    """
    from kflow.plan.select import needed, select_steps

    needs = planner.bound.needs
    selected = select_steps(needs, only=only, first=first, last=last)
    with making_what_stays():
        actions = planner.preview(frozenset(needs) if selected is None else selected, is_forced=is_forced)
    if selected is None:
        return Chosen(actions, actions, None)
    around = needed(needs, selected)
    wanted = [action for action in actions if action.step in around]
    chosen = [action for action in wanted if action.step in selected]
    return Chosen(chosen, wanted, _find_gap(needs, selected, wanted))


def _find_gap(needs: "Needs", selected: Collection[str], wanted: "Sequence[Action]") -> "tuple[str, Action] | None":
    from kflow.plan.planner import Verdict
    from kflow.plan.select import select_steps

    for action in wanted:
        if action.step not in selected and action.verdict is not Verdict.REUSE:
            followers = select_steps(needs, first=[action.step]) or frozenset()
            return next(name for name in needs if name in selected and name in followers), action
    return None
