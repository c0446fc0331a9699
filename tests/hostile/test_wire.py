"""get_file meets every fault between a server and a client as it should."""

from pathlib import Path

import pytest

from tests.hostile.wire import CASES, Case, outcome


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_meets_a_fault_of_the_wire(case: Case, tmp_path: Path) -> None:
    """What can be mended is delivered, the rest refused, and the next healthy call is right."""
    assert outcome(case, "kflow", tmp_path) == "right"


def test_the_list_is_whole() -> None:
    """There are sixty-four faults, each with a name and a sentence of its own."""
    assert len(CASES) == len({case.name for case in CASES}) == len({case.what for case in CASES}) == 64
