"""However much of a record, a journal or a lock is there: no traceback, and nothing counts as done that is not.

Here at some bytes; ``make soak`` cuts at every one.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.run.truncation import Scene, check_lock, check_records, make_scene


@pytest.fixture
def scene(make_folder: Callable[..., Any], tmp_path: Path) -> Scene:
    """Give a folder with a killed run and a whole one."""
    return make_scene(make_folder, tmp_path / "store")


def test_records_and_journals_that_are_cut(scene: Scene) -> None:
    """Are left out, or tell no more than is true; the next run does what is missing."""
    wrong = check_records(scene, stride=599)

    assert wrong == []


def test_a_lock_that_is_cut(scene: Scene) -> None:
    """Is refused, or holds in every word that is left."""
    wrong = check_lock(scene, stride=151)

    assert wrong == []
