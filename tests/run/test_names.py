"""Names that a step gives to code of the user's never reach another step, though workers are used again."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.run.same_names import count_right

pytestmark = pytest.mark.long


def test_each_step_runs_its_own_code(make_folder: Callable[..., Any]) -> None:
    """Sixteen chains of steps that register the same names from modules of the same names, in two workers.

    The second worker comes to its first array in 'predict', which must be able to read it all the same.
    """
    right = count_right(make_folder, steps=16, jobs=2)

    assert right == 16
