"""Eight steps at once that register one name with different code, KFLOW_SOAK_ROUNDS times."""

import os
from collections.abc import Callable
from typing import Any

import pytest

from tests.run.same_names import count_right

ROUNDS = int(os.environ.get("KFLOW_SOAK_ROUNDS", "50"))


@pytest.mark.timeout(0)
def test_each_step_runs_its_own_code(make_folder: Callable[..., Any]) -> None:
    """400 of 400."""
    right = count_right(make_folder, steps=8 * ROUNDS, jobs=8)

    assert right == 8 * ROUNDS
