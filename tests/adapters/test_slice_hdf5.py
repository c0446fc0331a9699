"""Tests of the kind slice_hdf5."""

import h5py
import numpy as np
import pytest

from kflow.adapters.slice_hdf5 import SliceHdf5
from kflow.spec.facts import ArrayFact


def _images(bench):
    with h5py.File(bench.root / "digits.h5") as file:
        return file["images"][:]


@pytest.mark.parametrize(("start", "end"), [(0, None), (3, 7), (1790, 1797), (0, 1)])
def test_the_window_is_that_of_h5py(bench, start, end):
    """The rows are those that h5py reads."""
    rows = bench.run(SliceHdf5, datapath="digits.h5", dataset="images", start=start, end=end)["array"]

    np.testing.assert_array_equal(rows[:], _images(bench)[start:end])


def test_scaling_is_done_when_read(bench):
    """The stored form is a description; values are scaled to float32 on reading."""
    normalizer = {"scale": 0.5, "offset": -1.0}
    rows = bench.run(SliceHdf5, datapath="digits.h5", dataset="images", end=5, normalizer=normalizer)["array"]

    assert rows[:].dtype == np.float32
    np.testing.assert_allclose(rows[:], _images(bench)[:5] * 0.5 - 1.0)
    assert not list(bench.root.rglob("*.npy"))


def test_all_rows_are_the_same_as_many_as_there_are(bench):
    """Whether their number is written down or not, what hangs on them is not done again."""
    fields = {"datapath": "digits.h5", "dataset": "images", "start": 1790}
    one, other = (bench.run(SliceHdf5, **fields, **end)["array"] for end in ({}, {"end": 1797}))

    assert one.describe() == other.describe()
    assert one.describe()["source"]["end"] == 1797


def test_a_function_of_the_users_can_normalize(bench):
    """A function gets a block of rows, and its result is stored."""
    (bench.root / "scaling.py").write_text("def center(x):\n    return x - 8.0\n")

    rows = bench.run(SliceHdf5, datapath="digits.h5", dataset="images", end=9, normalizer="scaling.py:center")["array"]

    np.testing.assert_array_equal(rows[:], _images(bench)[:9] - 8.0)


def test_an_array_notices_that_its_file_changed(bench):
    """What was promised about a file does not hold for another one."""
    (bench.root / "copy.h5").write_bytes((bench.root / "digits.h5").read_bytes())
    rows = bench.run(SliceHdf5, datapath="copy.h5", dataset="images")["array"]
    description, digest = rows.describe(), rows.source.content

    assert description["source"]["content"] == digest
    assert description["shape"] == [1797, 8, 8, 1]


def test_the_shape_is_known_beforehand(bench):
    """The header of the file tells it."""
    facts, problems = bench.examine(SliceHdf5(datapath="digits.h5", dataset="images", start=7, end=17))

    assert (facts, problems) == ({"array": ArrayFact((10, 8, 8, 1))}, [])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dataset": "image"}, "has no data set 'image'"),
        ({"dataset": "images", "end": 1798}, "has 1797 rows; a slice cannot end at 1798"),
        ({"dataset": "images", "start": 9, "end": 3}, "cannot start at row 9 and end before row 3"),
        ({"dataset": "one"}, "data set 'one' is a single value; a slice takes rows of an array"),
        ({"dataset": "none"}, "data set 'none' has no rows"),
        ({"dataset": "images", "start": 1797}, "from row 1797 to row 1797 is empty"),
    ],
)
def test_what_is_wrong_is_found_beforehand(bench, fields, message):
    """A window that is not there is a problem before anything runs."""
    with h5py.File(bench.root / "digits.h5", "a") as file:
        file["one"] = 1.0
        file["none"] = np.zeros((0, 3))

    _, problems = bench.examine(SliceHdf5(datapath="digits.h5", **fields))

    assert message in problems[0]
