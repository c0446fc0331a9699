"""Every line of the list of hostile archives is met."""

from pathlib import Path

import pytest

from tests.hostile.archives import CASES, RIGHT, Case, outcome


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_kflow_does_what_the_list_expects(case: Case, tmp_path: Path) -> None:
    """An archive is refused whole, with its member named, or unpacked whole; nothing else is touched."""
    assert outcome(case, "kflow", tmp_path) == RIGHT


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.name.startswith("tar") and not case.limits], ids=lambda case: case.name
)
def test_untar_does_the_same(case: Case, tmp_path: Path) -> None:
    """The other way to unpack a tar trusts it no more, whatever names it holds."""
    assert outcome(case, "untar", tmp_path) == RIGHT


@pytest.mark.parametrize("case", [case for case in CASES if case.bites], ids=lambda case: case.name)
def test_archive_bites_who_trusts_it(case: Case, tmp_path: Path) -> None:
    """The archives are as hostile as they claim, and what they do is seen."""
    assert outcome(case, "trusting", tmp_path).startswith(case.bites)


def test_no_line_is_left_out() -> None:
    """The corpus has all 81 lines, each once and under a name of its own."""
    assert [case.line for case in CASES] == list(range(1, 82))
    assert len({case.name for case in CASES}) == 81
