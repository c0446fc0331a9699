"""Tests of the kind encode_labels."""

import numpy as np
import pytest

from kflow.adapters.encode_labels import EncodeLabels
from kflow.spec.facts import ArrayFact


def test_labels_become_rows_of_the_identity(bench):
    """Encoding is picking rows of the identity matrix."""
    labels = np.array([2, 0, 1, 2], dtype="uint8")

    rows = bench.run(EncodeLabels, {"${y}": ("array", labels)}, y="${y}", num_classes=4)["array"]

    np.testing.assert_array_equal(rows[:], np.eye(4, dtype="float32")[labels])
    assert rows[:].dtype == np.float32


def test_the_number_of_classes_is_found(bench):
    """Without num_classes it is the greatest label and one, over all blocks."""
    rows = bench.run(EncodeLabels, {"${y}": ("array", np.array([0, 5, 1]))}, y="${y}")["array"]

    assert rows.shape == (3, 6)


@pytest.mark.parametrize(("label", "message"), [(10, "10"), (-1, "-1")])
def test_a_label_out_of_range_fails_with_its_value(bench, label, message):
    """The message names value and place."""
    labels = np.array([1, 2, label])

    with pytest.raises(ValueError, match=message):
        bench.run(EncodeLabels, {"${y}": ("array", labels)}, y="${y}", num_classes=10)


def test_the_shape_is_known_beforehand(bench):
    """A trailing axis of length one is dropped, the classes come last."""
    facts, problems = bench.examine(EncodeLabels(y="${y}", num_classes=10), y=ArrayFact((5, 1)))

    assert (facts, problems) == ({"array": ArrayFact((5, 10), is_one_hot=True)}, [])


def test_named_classes_and_smoothing(bench):
    """Labels that do not count from 0 are found by their place in the list, and smoothed by the formula of Keras."""
    labels = np.array([[3], [1], [2]])

    options = {"classes": [1, 2, 3], "label_smoothing": 0.3, "dtype": "float64"}
    rows = bench.run(EncodeLabels, {"${y}": ("array", labels)}, y="${y}", **options)["array"]

    np.testing.assert_allclose(rows[:], np.eye(3)[[2, 0, 1]] * 0.7 + 0.1)
    np.testing.assert_allclose(rows[[2, 0]], np.eye(3)[[1, 2]] * 0.7 + 0.1)


def test_texts_as_classes(bench):
    """A text that is none of the classes is named, with its row and what may be meant."""
    labels = np.array(["dog", "cat", "dgo"])
    inputs = {"${y}": ("array", labels), "${good}": ("array", labels[:2])}

    rows = bench.run(EncodeLabels, inputs, y="${good}", classes=["cat", "dog"])["array"]

    np.testing.assert_array_equal(rows[:], [[0, 1], [1, 0]])
    with pytest.raises(ValueError, match="label 'dgo' at index 2 is none of the 2 classes; did you mean 'dog'"):
        bench.run(EncodeLabels, inputs, y="${y}", classes=["cat", "dog"])


@pytest.mark.parametrize(
    ("fields", "problems"),
    [
        ({"classes": [1, 2]}, []),
        ({"classes": [1, 2], "num_classes": 2}, []),
        ({"classes": [1, 2], "num_classes": 3}, ["there are 2 classes, not 3; leave this out"]),
        ({"classes": ["a", "b", "a"]}, ["the class 'a' is here twice"]),
        (
            {"label_smoothing": 0.1, "dtype": "uint8"},
            ["label_smoothing makes fractions, which uint8 cannot hold; use float32"],
        ),
    ],
)
def test_the_classes_are_checked_beforehand(bench, fields, problems):
    """What can be known before anything runs is said then, and the shape follows from the classes."""
    facts, found = bench.examine(EncodeLabels(y="${y}", **fields), y=ArrayFact((5,)))

    assert found == problems
    if "classes" in fields:
        assert facts["array"].shape == (5, len(fields["classes"]))


@pytest.mark.parametrize("fields", [{"classes": []}, {"label_smoothing": 1.5}, {"label_smoothing": -0.1}])
def test_values_out_of_range_are_refused(fields):
    """The spec itself says no."""
    with pytest.raises(ValueError, match=next(iter(fields))):
        EncodeLabels(y="${y}", **fields)
