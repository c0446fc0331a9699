"""Records, journals and locks cut at every byte."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.run.truncation import check_lock, check_records, make_scene


@pytest.mark.timeout(0)
def test_every_byte(make_folder: Callable[..., Any], tmp_path: Path) -> None:
    """0 tracebacks, and no wrong word on what is done."""
    scene = make_scene(make_folder, tmp_path / "store")

    assert check_records(scene, stride=1) == []
    assert check_lock(scene, stride=1) == []
