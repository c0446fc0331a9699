"""Tests of the kind normalize."""

import numpy as np
import pytest

from kflow.adapters.normalize import Normalize
from kflow.spec.facts import ArrayFact


@pytest.mark.parametrize("axis", [-1, 0, 1, [0, 1], [1, 2]])
@pytest.mark.parametrize("order", [1, 2, "inf"])
def test_the_result_is_that_of_numpy(bench, axis, order):
    """Each vector is divided by its norm."""
    x = np.random.default_rng(0).normal(size=(4, 3, 5))
    axes = tuple(axis) if isinstance(axis, list) else axis
    size = np.abs(x)
    norm = {1: size.sum(axes, keepdims=True), 2: np.sqrt((x * x).sum(axes, keepdims=True))}.get(
        order, size.max(axes, keepdims=True)
    )

    rows = bench.run(Normalize, {"${x}": ("array", x)}, x="${x}", axis=axis, order=order)["array"]

    np.testing.assert_allclose(rows[:], x / norm)


def test_an_axis_that_is_not_there_is_found_beforehand(bench):
    """The shape is known, so the axis can be checked."""
    _, problems = bench.examine(Normalize(x="${x}", axis=2), x=ArrayFact((4, 3)))

    assert problems == ["the array has 2 axes; there is no axis 2"]


def test_no_axis_is_found_beforehand(bench):
    """A vector has at least one axis."""
    _, problems = bench.examine(Normalize(x="${x}", axis=[]))

    assert problems == ["name at least one axis"]


def test_an_axis_given_twice_is_found_beforehand(bench):
    """Counted from either end, an axis is one axis."""
    _, problems = bench.examine(Normalize(x="${x}", axis=[1, -1]), x=ArrayFact((4, 3)))

    assert problems == ["an axis is here twice; the array has 2 axes, and -1 is axis 1"]


@pytest.mark.parametrize(("axis", "is_read_later"), [([1, 2], True), (0, False), ([0, 1], False)])
def test_only_vectors_across_the_rows_are_written(bench, axis, is_read_later):
    """Where each row stands alone nothing is stored but a description."""
    x = np.random.default_rng(0).normal(size=(4, 3, 5))

    stored = bench.run(Normalize, {"${x}": ("array", x)}, x="${x}", axis=axis).stored("array")

    assert ("operations" in stored.description) == is_read_later
