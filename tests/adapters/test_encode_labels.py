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
