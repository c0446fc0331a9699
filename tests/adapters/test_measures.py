"""Measures, one number to a name."""

import numpy as np

from kflow.adapters.measures import by_number, curves_by_number


def test_each_number_of_a_measure_has_a_name() -> None:
    """By its place, as in NumPy; a single one keeps the name of the measure."""
    measured = {"loss": np.float32(0.5), "f1": np.array([1.0, 0.25]), "table": [[1, 2]]}

    assert by_number(measured) == {"loss": 0.5, "f1[0]": 1.0, "f1[1]": 0.25, "table[0,0]": 1.0, "table[0,1]": 2.0}


def test_each_number_has_a_curve() -> None:
    """With a value for each epoch."""
    curves = {"loss": [0.5, 0.25], "f1": [np.array([0.0, 1.0]), np.array([2.0, 3.0])], "none": []}

    assert curves_by_number(curves) == {"loss": [0.5, 0.25], "f1[0]": [0.0, 2.0], "f1[1]": [1.0, 3.0], "none": []}
