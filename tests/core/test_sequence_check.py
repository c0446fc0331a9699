import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kflow.core import check_sequence


class Listed:
    """A sequence of given batches that counts how often each was read."""

    def __init__(self, batches):
        self.batches, self.read = batches, [0] * len(batches)

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        self.read[index] += 1
        batch = self.batches[index]
        if isinstance(batch, Exception):
            raise batch
        return batch

    def on_epoch_end(self):
        """Fail: a check is no epoch."""
        raise AssertionError


def pair(rows=2, width=3, dtype="float32", fill=1.0):
    """Return a batch of inputs and targets."""
    return np.full((rows, width), fill, dtype), np.zeros((rows, 1), "int64")


def test_a_sound_sequence_is_described():
    """Shapes with the axes that vary, dtypes, ranges, and no problem."""
    sequence = Listed([pair(fill=2.0), pair(), pair(rows=1, fill=-3.0)])

    report = check_sequence(sequence)

    assert (report.length, report.rows, report.is_sound, report.is_deterministic) == (3, 5, True, True)
    x, y = report.arrays["x"], report.arrays["y"]
    assert (x.shape, x.dtype, x.minimum, x.maximum, x.nan, x.inf) == ((None, 3), "float32", -3.0, 2.0, 0, 0)
    assert (y.shape, y.dtype, y.minimum, y.maximum) == ((None, 1), "int64", 0.0, 0.0)
    lines = str(report).split("\n")
    assert lines[0].startswith("3 batches, 5 rows, ")
    assert lines[1] == "x: float32 (?, 3) from -3 to 2, 0 NaN, 0 infinite"
    assert lines[3] == "read again: the same; can be sent to processes: yes"


def test_each_batch_is_read_once_and_three_of_them_again():
    """The first, the middle and the last one; with a limit no others are read."""
    whole, part = Listed([pair()] * 9), Listed([pair()] * 9)

    check_sequence(whole)
    with pytest.raises(ValueError, match="limit must be at least 1"):
        check_sequence(part, limit=0)
    check_sequence(part, limit=3)

    assert whole.read == [2, 1, 1, 1, 2, 1, 1, 1, 2]
    assert part.read == [2, 2, 2, 0, 0, 0, 0, 0, 0]


def test_random_batches_are_told():
    """They are no problem, but not deterministic."""

    class Noise(Listed):
        def __getitem__(self, index):
            return np.random.default_rng(index if index < 4 else None).random((2, 3))

    report = check_sequence(Noise([0] * 5))

    assert (report.is_deterministic, report.differing, report.is_sound) == (False, (4,), True)
    assert "read again: not the same (batches 4)" in str(report)


@pytest.mark.parametrize(
    ("batches", "problem"),
    [
        ([], "there are no batches: the length is 0"),
        ([pair(), pair(fill=np.nan), pair(fill=np.nan)], "x holds NaN in batch 1, 2"),
        ([pair(), pair(fill=np.inf)], "x holds infinite values in batch 1"),
        ([pair(), pair(), pair(width=4)], "x has another shape than (?, 3) in batch 2"),
        ([pair(), pair(width=4), pair(width=5)], None),
        ([pair(), pair(dtype="float64")], "x has dtype float64 instead of float32 in batch 1"),
        ([pair(), (np.zeros((2, 3, 1), "float32"), pair()[1])], "x has 3 axes instead of 2 in batch 1"),
        ([pair(), pair()[0]], "there are x instead of x, y in batch 1"),
        ([pair(), (pair(rows=3)[0], pair()[1])], "the arrays have different numbers of rows in batch 1"),
        ([pair(), pair(rows=0)], "there are no rows in batch 1"),
        ([np.array(["a", None])], "x is of dtype object, which no model takes, in batch 0"),
        ([np.array([["NaT"]], "M8[s]")], "x is of dtype datetime64[s], which no model takes, in batch 0"),
        ([np.zeros(2, "f4,f4")], "x is of dtype [('f0', '<f4'), ('f1', '<f4')], which no model takes, in batch 0"),
        ([np.zeros((2, 1), "c8")], "x is complex, of which most layers drop the imaginary part, in batch 0"),
        ([1.5], "x is a single value in batch 0"),
        ([None, pair()], "nothing but None, which is skipped, in batch 0"),
        ([pair(), KeyError("left.png")], "KeyError: 'left.png', in batch 1"),
        ([(1, 2, 3, 4)], "a batch is x, (x, y) or (x, y, sample_weight), and not 4 things, in batch 0"),
        ([pair(fill=np.nan)] * 7, "x holds NaN in batch 0, 1, 2, 3, 4 and 2 more"),
    ],
)
def test_each_problem_is_told_with_its_batches(batches, problem):
    """One line for each, and all batches are read all the same."""
    sequence = Listed(batches)

    report = check_sequence(sequence)

    assert report.problems == (() if problem is None else (problem,))
    assert 0 not in sequence.read


def test_a_length_that_changes_by_reading_is_told():
    """It would end an epoch too early or too late."""

    class Eaten(Listed):
        def __getitem__(self, index):
            return self.batches.pop() if self.batches else None

    report = check_sequence(Eaten([pair()] * 4))

    assert "the length was 4 and became, by reading, 0" in report.problems


def test_nests_are_named_by_their_places():
    """Several inputs, by number and by name."""
    report = check_sequence(Listed([([np.ones((1, 1)), np.ones((1, 2))], {"left": np.ones((1, 3))}, np.ones(1))]))

    assert {place: array.shape for place, array in report.arrays.items()} == {
        "x[0]": (1, 1),
        "x[1]": (1, 2),
        "y['left']": (1, 3),
        "sample_weight": (1,),
    }


def test_what_cannot_be_sent_to_processes_is_told():
    """It is no problem for threads."""
    sequence = Listed([pair()])
    sequence.source = lambda: None

    report = check_sequence(sequence)

    assert (report.is_picklable, report.is_sound) == (False, True)


@pytest.mark.parametrize("other", [{1, 2}, iter(())])
def test_what_is_no_sequence_is_refused(other):
    """With the name of what it lacks."""
    with pytest.raises(TypeError, match="is not a sequence of batches: it has no __"):
        check_sequence(other)


ARRAYS = hnp.arrays(
    st.sampled_from([np.float32, np.float64, np.int16, np.uint8, np.bool_]), hnp.array_shapes(min_dims=2, max_dims=3)
)


@settings(max_examples=60, deadline=None)
@given(st.lists(ARRAYS, min_size=1, max_size=4))
def test_ranges_and_counts_are_numpy_s(batches):
    """Compared with all values of all batches in one array, where the batches go together."""
    batches = [each for each in batches if each.shape[1:] == batches[0].shape[1:] and each.dtype == batches[0].dtype]
    everything = np.concatenate(batches)

    report = check_sequence(Listed(batches)).arrays["x"]

    finite = everything[np.isfinite(everything)]
    assert report.nan == np.isnan(everything).sum()
    assert report.inf == np.isinf(everything).sum()
    assert report.minimum == (finite.min() if finite.size else None)
    assert report.maximum == (finite.max() if finite.size else None)


def test_the_check_does_not_need_tensorflow():
    """Nor do the enqueuers."""
    code = """
import sys
import numpy as np
from kflow.core import GeneratorEnqueuer, OrderedEnqueuer, check_sequence
check_sequence([np.ones((2, 3))])
print({"keras", "tensorflow"} & set(sys.modules))
"""

    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert output.stdout == "set()\n"
