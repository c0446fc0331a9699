"""Parts of a workflow: a step alone, what it needs, what hangs on it."""

import pytest

from kflow.errors import UsageError
from kflow.plan.select import select_steps

NEEDS = {"data": (), "model": (), "fit": ("data", "model"), "test": ("fit", "data"), "picture": ("model",)}


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        ({"only": ["fit", "picture"]}, {"fit", "picture"}),
        ({"first": ["model"]}, {"model", "fit", "test", "picture"}),
        ({"last": ["fit"]}, {"data", "model", "fit"}),
        ({"first": ["model"], "last": ["test"]}, {"model", "fit", "test"}),
    ],
)
def test_the_steps_that_are_chosen(wish: dict[str, list[str]], expected: set[str]) -> None:
    """A step, what it needs, what hangs on it, and what lies between two."""
    assert select_steps(NEEDS, **wish) == expected


def test_without_a_wish_all_are() -> None:
    """None stands for all, so that nothing is listed."""
    assert select_steps(NEEDS) is None


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"only": ["fti"]}, r"--only fti: there is no step 'fti'; did you mean 'fit'\?"),
        ({"first": ["fit"], "only": ["test"]}, "--only names steps alone"),
        ({"first": ["picture"], "last": ["data"]}, "no step lies between picture and data"),
    ],
)
def test_a_wish_that_cannot_be_met(wish: dict[str, list[str]], message: str) -> None:
    """Says which, and what there is."""
    with pytest.raises(UsageError, match=message):
        select_steps(NEEDS, **wish)
