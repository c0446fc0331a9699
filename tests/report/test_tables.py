"""Plans and records as text."""

from typing import Any

from kflow.plan.planner import Action, Verdict
from kflow.report.tables import columns, describe_plan, describe_run, describe_runs
from kflow.run.record import RunRecord

RECORD: dict[str, Any] = {
    "id": "20250101T000000-digits-abc",
    "status": "failed",
    "started": "2025-01-01T10:11:12.345+00:00",
    "duration": 12.34,
    "workflow": {"path": "w.yaml", "sha256": "ab" * 32, "name": "digits", "seed": 7, "params": {"n": 3}, "steps": {}},
    "steps": {
        "fit": {
            "kind": "train",
            "status": "run",
            "verdict": "run",
            "reason": "epochs: 1 -> 2",
            "fingerprint": "cd" * 32,
            "duration": 2.0,
            "outputs": {"model": {"type": "model", "digest": "0", "path": "out/model.keras"}},
        },
        "test": {"kind": "evaluate", "status": "failed", "verdict": "run", "reason": "new", "error": "no luck"},
    },
    "metrics": {"test": {"accuracy": 0.98765}},
    "versions": {"python": "3.11.7", "keras": "3.15.1"},
    "platform": "Linux",
    "devices": {"cpus": 2, "gpus": []},
    "git": {"commit": "ef" * 20, "is_dirty": True},
}


def test_columns_are_as_wide_as_they_must_be() -> None:
    """No blanks at the ends of lines, and nothing for nothing."""
    assert columns([("a", "bb", ""), ("ccc", "d", "e")]) == "a    bb\nccc  d   e"
    assert columns([]) == ""


def test_a_cell_cannot_break_the_table_or_steer_the_terminal() -> None:
    """Control characters are shown by their escapes."""
    text = columns([("a\nb", "\x1b[31mred")])

    assert "\n" not in text
    assert "\x1b" not in text


def test_a_plan_counts_its_verdicts() -> None:
    """A line for each step with its reason, then how many there are of each."""
    actions = [
        Action("a", Verdict.REUSE, "unchanged"),
        Action("b", Verdict.RUN, "new"),
        Action("c", Verdict.WAIT, "waits"),
    ]

    lines = describe_plan(actions, ["fetch", "train", "predict"]).splitlines()
    assert [line.split() for line in lines] == [
        ["reuse", "a", "fetch", "unchanged"],
        ["run", "b", "train", "new"],
        ["wait", "c", "predict", "waits"],
        ["1", "to", "run,", "1", "to", "reuse,", "1", "to", "wait"],
    ]


def test_runs_have_a_line_each() -> None:
    """With status, time and metrics; one that has no end yet has no duration."""
    running = RunRecord.model_validate({**RECORD, "status": "running", "duration": None, "metrics": {}})

    _, first, second = describe_runs([RunRecord.model_validate(RECORD), running]).splitlines()
    assert first.split() == [
        "20250101T000000-digits-abc", "failed", "2025-01-01", "10:11:12", "12.3", "s", "test:", "accuracy", "0.9877"
    ]  # fmt: skip
    assert second.split()[1:] == ["running", "2025-01-01", "10:11:12", "-"]


def test_a_run_in_full() -> None:
    """Its steps with reasons or errors, its surroundings, metrics and files."""
    text = describe_run(RunRecord.model_validate(RECORD))

    for part in (
        "epochs: 1 -> 2",
        "no luck",
        "cdcdcdcdcdcd",
        "efefefefefef (with changes)",
        "2 CPUs, 0 GPUs",
        "python 3.11.7, keras 3.15.1",
        "n=3",
        "accuracy 0.9877",
        "out/model.keras",
        "12.3 s",
    ):
        assert part in text


def test_a_run_outside_git_without_params() -> None:
    """What is not known is a dash."""
    workflow = {**RECORD["workflow"], "params": {}}
    lines = describe_run(RunRecord.model_validate({**RECORD, "git": None, "workflow": workflow})).splitlines()

    assert {"git       -", "params    -"} <= set(lines)
