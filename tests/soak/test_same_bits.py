"""``kflow verify`` over every kind of step, with several workers."""

from collections.abc import Callable
from typing import Any

from tests.run.test_same_bits import CODE, WORKFLOW


def test_every_kind_of_artifact_is_verified(make_folder: Callable[..., Any]) -> None:
    """All outputs are identical, whichever worker made them."""
    folder = make_folder(WORKFLOW, {"user.py": CODE})
    done = folder.kflow("run", "w.yaml", "--jobs", "3")
    assert done.returncode == 0, done.stdout + done.stderr
    verified = folder.kflow("verify", "latest")

    assert verified.returncode == 0, verified.stdout
    outputs = sum(len(step.outputs) for step in folder.records()[0].steps.values())
    assert verified.stdout.count(" identical") == outputs
