"""``kflow verify``: do a run again, elsewhere, and compare what comes of it."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kflow.artifacts import digest_file
from kflow.artifacts.compare import find_differences
from kflow.cli.loading import load_workflow, open_store, open_workspace, plain_path
from kflow.cli.output import say
from kflow.cli.run import heed_signals
from kflow.cli.show import find_run
from kflow.errors import Interrupted, UsageError
from kflow.plan.fingerprint import differences
from kflow.plan.select import select_steps
from kflow.report.console import Console
from kflow.report.tables import columns
from kflow.run.executor import execute
from kflow.run.record import OutputRecord, RunRecord
from kflow.run.state import Wishes
from kflow.store.entry import Entry
from kflow.store.store import Store

_SHOWN = 30
"""Lines of the log of a failed step."""


def run(run_id: str, only: Sequence[str], file: Path | None, store: Path | None, *, is_debug: bool) -> int:
    """Run a workflow again in a scratch store; the exit code is 1 if an output differs."""
    heed_signals()
    kept = open_store(store)
    record = find_run(run_id, kept.root)
    path = file or _find_workflow(record)
    _require_same(path, record, is_named=file is not None)
    workspace = open_workspace(path)
    bound = load_workflow(path, {}, workspace, store, writes=False, params=record.workflow.params)
    selected = select_steps(bound.needs, only=only) or _done_steps(record)
    _require_outputs(only, record)
    with _scratch_folder(kept) as folder:
        scratch = Store(folder, base=kept if selected else None)
        console = Console(is_debug=is_debug)
        try:
            wishes = Wishes(selected=selected, is_forced=True, exports=False)
            again = execute(bound, scratch, workspace, plain_path(path), console, wishes=wishes)
        except Interrupted:
            raise Interrupted("interrupted; 'kflow verify' does it all again") from None
        finally:
            console.close()
        _show_logs(again, scratch.root / "runs" / again.id)
        rows = list(_compare(record, again, kept, scratch, selected or bound.order))
    say("\n" + columns([("output", "verdict", "where"), *rows]))
    is_same = again.status == "succeeded" and all(row[1] == "identical" for row in rows)
    return 0 if is_same else 1


def _done_steps(record: RunRecord) -> frozenset[str] | None:
    """Return the steps that a run has outputs of; None where it has those of all."""
    done = frozenset(name for name, step in record.steps.items() if step.outputs)
    if not done:
        message = f"{record.id} has no outputs that could be compared"
        raise UsageError(message)
    return None if len(done) == len(record.steps) else done


def _require_outputs(only: Sequence[str], record: RunRecord) -> None:
    """Refuse to verify what there is nothing to compare with."""
    missing = [repr(name) for name in dict.fromkeys(only) if not record.steps[name].outputs]
    if missing:
        message = f"{record.id} has no outputs of {', '.join(missing)} that could be compared"
        raise UsageError(message)


def _show_logs(record: RunRecord, folder: Path) -> None:
    """Show the end of what failed steps printed: the logs go with the scratch store."""
    for name, step in record.steps.items():
        if step.status == "failed" and step.log:
            text = (folder / step.log).read_text(encoding="utf-8", errors="replace")
            say("\n".join([f"\nthe end of the log of {name}:", *(f"  {line}" for line in text.splitlines()[-_SHOWN:])]))


@contextlib.contextmanager
def _scratch_folder(kept: Store) -> Iterator[Path]:
    """Give a folder to run in; one in the store is swept away by the next run if this one is killed."""
    if os.access(kept.root, os.W_OK):
        with kept.stage() as staging:
            yield staging.folder
        return
    import tempfile

    with tempfile.TemporaryDirectory(prefix="kflow-verify-") as name:
        yield Path(name)


def _find_workflow(record: RunRecord) -> Path:
    """Return where the workflow was, or where it is after its project was moved with the user in it."""
    place, moved = Path(record.workflow.place), Path(record.workflow.path)
    return moved if moved.is_file() and not place.is_file() else place


def _require_same(path: Path, record: RunRecord, *, is_named: bool) -> None:
    if is_named and not path.is_file():
        message = f"{path}: there is no such file; --file takes the workflow that {record.id} ran"
        raise UsageError(message)
    if not path.is_file():
        message = f"the workflow of {record.id} was {path}, which is not here; --file says where it is now"
        raise UsageError(message)
    if digest_file(path) != record.workflow.sha256:
        message = f"{path} is not the file that {record.id} ran; 'kflow diff' compares two runs of different files"
        raise UsageError(message)


def _compare(
    before: RunRecord, after: RunRecord, kept: Store, scratch: Store, steps: Sequence[str] | frozenset[str]
) -> Iterator[tuple[str, str, str]]:
    """Yield each output with a verdict, and with where it differs and what else its step was made of this time."""
    for name, step in before.steps.items():
        if name not in steps:
            continue
        new = after.steps[name]
        causes = differences(step.components or {}, new.components) if new.components else []
        for output, old in step.outputs.items():
            title = f"{name}.{output}"
            if output not in new.outputs:
                yield title, "missing", "; ".join([new.error or "the step was not run", *causes])
            elif new.outputs[output].digest == old.digest:
                yield title, "identical", ""
            else:
                entries = (_entry(kept, step.fingerprint), _entry(scratch, new.fingerprint))
                yield title, "differs", "; ".join(filter(None, [_where(output, old, entries), *causes]))


def _entry(store: Store, fingerprint: str | None) -> Entry | None:
    return store.lookup(fingerprint) if fingerprint else None


def _where(output: str, old: OutputRecord, entries: tuple[Entry | None, Entry | None]) -> str:
    first, second = entries
    if first is None or second is None or first.manifest.outputs[output].digest != old.digest:
        return "what that run stored is not in the store any more"
    sides: list[tuple[Mapping[str, Any], Path]] = [
        (each.manifest.outputs[output].description, each.folder / output) for each in (first, second)
    ]
    return find_differences(old.type, sides[0], sides[1])
