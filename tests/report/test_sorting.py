"""Runs in the order of a metric."""

import math
from typing import Any

import pytest

from kflow.errors import UsageError
from kflow.report.tables import sort_runs
from kflow.run.record import RunRecord


def make_run(name: str, metrics: dict[str, dict[str, float]]) -> RunRecord:
    workflow: dict[str, Any] = {"path": "w", "sha256": "0", "name": "n", "seed": 0, "params": {}, "steps": {}}
    surroundings: dict[str, Any] = {"versions": {}, "platform": "", "devices": {}}
    return RunRecord(
        id=name, status="succeeded", started="", workflow=workflow, steps={}, metrics=metrics, **surroundings
    )


RUNS = [
    make_run("none", {}),
    make_run("low", {"test": {"accuracy": 0.2, "loss": 3.0}}),
    make_run("nan", {"test": {"loss": math.nan}}),
    make_run("high", {"test": {"accuracy": 0.9}, "other": {"accuracy": 0.1}}),
]


@pytest.mark.parametrize(
    ("metric", "least_first", "expected"),
    [
        ("test.accuracy", False, ["high", "low", "none", "nan"]),
        ("test.accuracy", True, ["low", "high", "none", "nan"]),
        ("accuracy", True, ["high", "low", "none", "nan"]),
        ("loss", False, ["low", "none", "nan", "high"]),
    ],
)
def test_runs_are_sorted(metric: str, least_first: bool, expected: list[str]) -> None:
    """A bare name is that of the last step that has it; runs without a number come last, as they were."""
    assert [run.id for run in sort_runs(RUNS, metric, least_first=least_first)] == expected


def test_a_metric_that_nobody_has() -> None:
    """Is told with near ones."""
    with pytest.raises(UsageError, match=r"--sort test.acuracy: .*did you mean 'test.accuracy'\?"):
        sort_runs(RUNS, "test.acuracy")
