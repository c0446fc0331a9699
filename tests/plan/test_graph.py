"""The order of steps, and cycles."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kflow.plan.graph import CycleError, order_steps


@pytest.mark.parametrize(
    ("needs", "order"),
    [
        ({}, ()),
        ({"a": [], "b": [], "c": []}, ("a", "b", "c")),
        ({"c": ["a"], "b": [], "a": []}, ("a", "c", "b")),
        ({"d": ["b", "c"], "b": ["a"], "c": ["a"], "a": []}, ("a", "b", "c", "d")),
        ({"b": ["a", "a"], "a": []}, ("a", "b")),
    ],
)
def test_steps_come_after_those_they_need_and_else_as_in_the_file(
    needs: dict[str, list[str]], order: tuple[str, ...]
) -> None:
    """Only what is needed moves a step from its place."""
    assert order_steps(needs) == order


@given(st.lists(st.sets(st.integers(0, 30)), max_size=30).flatmap(lambda steps: st.permutations([*enumerate(steps)])))
def test_whatever_has_no_cycle_is_ordered(steps: list[tuple[int, set[int]]]) -> None:
    """Each step comes once, and after all that it needs, wherever it stands in the file."""
    needs = {str(step): [str(each) for each in sorted(those) if each < step] for step, those in steps}

    order = order_steps(needs)

    assert sorted(order) == sorted(needs)
    assert all(order.index(need) < order.index(step) for step, those in needs.items() for need in those)


@pytest.mark.parametrize(
    ("needs", "paths"),
    [
        ({"a": ["a"]}, (("a", "a"),)),
        ({"c": ["b"], "a": ["c"], "b": ["a"]}, (("c", "b", "a", "c"),)),
        ({"x": ["b"], "a": ["b"], "b": ["a"]}, (("a", "b", "a"),)),
        ({"a": ["b"], "b": ["a"], "c": ["c"], "d": ["a"]}, (("a", "b", "a"), ("c", "c"))),
    ],
)
def test_a_cycle_is_a_path_from_its_first_step_in_the_file(
    needs: dict[str, list[str]], paths: tuple[tuple[str, ...], ...]
) -> None:
    """All cycles that share no step are told, each as a path back to where it starts."""
    with pytest.raises(CycleError, match=" -> ") as caught:
        order_steps(needs)

    assert caught.value.paths == paths


def _seconds(needs: dict[str, list[str]]) -> float:
    start = time.process_time()
    order_steps(needs)
    return time.process_time() - start


@pytest.mark.parametrize("is_forward", [True, False], ids=["as in the file", "against the file"])
def test_a_long_chain_is_ordered_without_recursion(is_forward: bool) -> None:
    """A chain longer than Python's stack is ordered, in time that grows with its length only."""
    names = [f"s{number}" for number in range(5_000)]
    chain = {name: names[number - 1 : number] for number, name in enumerate(names)}
    needs = chain if is_forward else dict(reversed(chain.items()))

    assert order_steps(needs) == tuple(names)
    assert _seconds(needs) < 0.5


def test_a_wide_fan_in_is_ordered() -> None:
    """One step can need thousands, and thousands one step."""
    names = [f"s{number}" for number in range(5_000)]
    needs = {"last": names, **{name: ["first"] for name in names}, "first": []}

    assert order_steps(needs) == ("first", *names, "last")
    assert _seconds(needs) < 0.5


def test_a_cycle_of_thousands_is_told() -> None:
    """A long cycle is found without recursion too."""
    names = [f"s{number}" for number in range(5_000)]

    with pytest.raises(CycleError, match="s0 -> s1 -> ") as caught:
        order_steps({name: [names[(number + 1) % 5_000]] for number, name in enumerate(names)})

    assert caught.value.paths == ((*names, "s0"),)
