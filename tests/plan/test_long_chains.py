"""A chain of steps that is longer than Python's stack: read, bound, planned, chosen from and explained."""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from kflow.cli.loading import choose_actions
from kflow.document import parse_document
from kflow.plan.planner import Action, Planner
from kflow.plan.resolve import Bound, bind
from kflow.registry import Registry
from kflow.report.compare import explain_step
from kflow.run.record import RunRecord, StepRecord
from kflow.spec.parse import parse_workflow
from kflow.store.store import Store
from kflow.workspace import Workspace

LENGTH = 3 * sys.getrecursionlimit()


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bound, Workspace]:
    """Steps that each take what the one before gives, the last first in the file."""
    root = tmp_path_factory.mktemp("chain")
    (root / "a.txt").write_text("a")
    lines = [f"  s{i}: {{kind: normalize, x: '${{s{i - 1}}}', needs: [f{i - 1}]}}" for i in range(LENGTH - 1, 0, -1)]
    lines += [f"  f{i}: {{kind: fetch, origin: a.txt, needs: [f{i - 1}]}}" for i in range(LENGTH - 1, 0, -1)]
    lines += ["  f0: {kind: fetch, origin: a.txt}", "  s0: {kind: encode_labels, y: '${p}'}"]
    lines += ["  m: {kind: load_model, filepath: '${f0}'}", "  p: {kind: predict, model: '${m}', x: '${z}'}"]
    lines += ["  z: {kind: slice_hdf5, datapath: '${g}', dataset: x}"]
    lines += ["  g: {kind: fetch, origin: 'https://example.org/x.h5'}"]
    document = parse_document("kflow: 1\nname: chain\nsteps:\n" + "\n".join(lines), "w.yaml")
    workspace = Workspace(root)
    return bind(parse_workflow(document, Registry()), workspace), workspace


def test_the_order_of_a_long_chain(chain: tuple[Bound, Workspace]) -> None:
    """Each comes after what it needs, though the file has it the other way round."""
    order = [name for name in chain[0].order if name[0] == "s"]

    assert order == [f"s{i}" for i in range(LENGTH)]


def test_planning_and_choosing(chain: tuple[Bound, Workspace], tmp_path: Path) -> None:
    """Every step has a verdict; a part can be chosen from either end."""
    planner = Planner(chain[0], Store(tmp_path / "store"), chain[1], {})
    everything = choose_actions(planner)
    upwards = choose_actions(planner, last=[f"f{LENGTH - 1}"])

    verdicts = {action.step: action.verdict.value for action in everything.actions}
    assert (verdicts[f"f{LENGTH - 1}"], verdicts[f"s{LENGTH - 1}"]) == ("run", "wait")
    assert len(_steps(upwards.actions)) == LENGTH


def _steps(actions: Iterable[Action]) -> set[str]:
    return {action.step for action in actions}


def test_explaining_a_step_at_the_end_of_a_long_chain() -> None:
    """The change is followed up to the step that it comes from."""
    new, old = (_record(epochs) for epochs in (5, 6))

    lines = explain_step(new, old, f"s{LENGTH - 1}")

    assert len(lines) == LENGTH
    assert lines[0] == f"s{LENGTH - 1}: input x changed"
    assert lines[-1].strip() == "s0: epochs: 6 -> 5"


def _record(epochs: int) -> RunRecord:
    steps: Mapping[str, StepRecord] = {
        f"s{i}": StepRecord(
            kind="k",
            status="run",
            verdict="run",
            reason="",
            inputs={"x": f"{epochs}"} if i else {},
            components={"inputs": {"x": f"{epochs}"}} if i else {"fields": {"epochs": epochs}},
        )
        for i in range(LENGTH)
    }
    workflow = {
        "path": "w.yaml",
        "sha256": "",
        "name": "chain",
        "seed": 0,
        "params": {},
        "steps": {f"s{i}": {"kind": "k", "x": f"${{s{i - 1}}}"} for i in range(LENGTH)},
    }
    common = {"status": "succeeded", "started": "", "versions": {}, "platform": "", "devices": {}}
    return RunRecord.model_validate({"id": "1", "workflow": workflow, "steps": dict(steps), **common})
