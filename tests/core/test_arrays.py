import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kflow.core.arrays import normalize, to_categorical

shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
label_types = ["int8", "uint8", "int64", "uint64", "float32", "float64", ">i4"]
labels = hnp.arrays(st.sampled_from(label_types), shapes, elements=st.integers(0, 6))


@settings(deadline=None)
@given(y=labels, spare=st.integers(0, 3), dtype=st.sampled_from(["float32", "uint8", "bool", "float64"]))
def test_rows_are_those_of_the_identity_matrix(y, spare, dtype):
    """Encoding is picking rows of the identity matrix, once a last axis of 1 is dropped."""
    classes = 7 + spare
    plain = y.reshape(y.shape[:-1]) if y.ndim > 1 and y.shape[-1] == 1 else y

    got = to_categorical(y, classes, dtype)

    assert got.dtype == dtype
    np.testing.assert_array_equal(got, np.eye(classes, dtype=dtype)[plain.astype(int)])


@given(y=hnp.arrays("int32", st.integers(1, 20), elements=st.integers(0, 50)))
def test_decoding_gives_the_labels_back(y):
    """The largest entry of each row is at its label, and the width is the largest label plus one."""
    got = to_categorical(y)

    assert got.shape == (y.size, y.max() + 1)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got.argmax(axis=-1), y)
    np.testing.assert_array_equal(got.sum(axis=-1), 1)


def test_more_labels_than_are_encoded_at_a_time():
    """Labels are encoded in blocks, and the seams do not show."""
    y = np.random.default_rng(0).integers(0, 3, 50_001)

    np.testing.assert_array_equal(to_categorical(y, 3), np.eye(3)[y])


@pytest.mark.parametrize(
    ("y", "expected"),
    [
        (2, [0, 0, 1]),
        ([True, False], [[0, 1], [1, 0]]),
        (["1", "0"], [[0, 1], [1, 0]]),
        (np.array([b"1", b"0"]), [[0, 1], [1, 0]]),
        (np.array([1, 0.0], object), [[0, 1], [1, 0]]),
        ([[1], [0]], [[0, 1], [1, 0]]),
        ([[1, 0]], [[[0, 1], [1, 0]]]),
    ],
)
def test_what_counts_as_labels(y, expected):
    """Whole numbers of any type are labels; the number of classes is found when it is not given."""
    np.testing.assert_array_equal(to_categorical(y), expected)
    np.testing.assert_array_equal(to_categorical(y, 0), expected)
    np.testing.assert_array_equal(to_categorical(y, num_classes=np.int8(4)).shape[-1], 4)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([0, -1], "label -1 at index 1 is negative"),
        (-2.0, r"label -2.0 at index \(\) is negative"),
        ([[0, 1], [3, 9]], r"label 3 at index \(1, 0\) does not fit in 3 classes \(0 to 2\)"),
        (np.array([2**64 - 1], "uint64"), "label 18446744073709551615 at index 0 does not fit"),
        ([0.0, 1.9], "label 1.9 at index 1 is not a whole number"),
        ([0.0, math.nan], "label nan at index 1 is not a whole number"),
        ([math.inf], "label inf at index 0 is not a whole number"),
        ([0, "cat"], "label 'cat' at index 1 is not a number"),
        ([0, None], "label None at index 1 is not a number"),
        (["1", "x"], "label 'x' at index 1 is not a number; give each class a number, from 0 on, first"),
        (["1.5"], "label 1.5 at index 0 is not a whole number"),
    ],
)
def test_a_wrong_label_is_named_with_its_index(y, message):
    """No label is silently wrapped, cut or dropped."""
    y = np.array(y, object) if "cat" in str(y) else y

    with pytest.raises(ValueError, match=message):
        to_categorical(y, 3)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([],), ValueError, "no labels to tell the number of classes from; give num_classes"),
        (([-3],), ValueError, "label -3 at index 0 is negative"),
        (([1], -1), ValueError, "num_classes must not be negative, but is -1"),
        (([1], 2.0), TypeError, r"num_classes must be an integer, not 2\.0"),
        (([1], 2, "U1"), TypeError, "dtype must be a number type or bool, not <U1"),
        (([1j],), TypeError, "labels must be whole numbers, not of type complex128"),
    ],
)
def test_other_arguments_are_checked(arguments, error, message):
    """Each argument has its own message."""
    with pytest.raises(error, match=message):
        to_categorical(*arguments)


def test_no_labels_give_no_rows():
    """Empty input keeps the width that was asked for."""
    assert to_categorical([], 4).shape == (0, 4)
    assert to_categorical(np.zeros((0, 1), int), 4).shape == (0, 4)


def test_labels_agree_with_keras():
    """The values are those of today's Keras, which gives float64 for NumPy labels."""
    import keras

    y = np.random.default_rng(0).integers(0, 5, (6, 2))

    np.testing.assert_array_equal(to_categorical(y, 5), keras.utils.to_categorical(y, 5))
    tensor = keras.ops.convert_to_tensor(y)
    np.testing.assert_array_equal(to_categorical(tensor, 5), to_categorical(y, 5))
    np.testing.assert_array_equal(normalize(tensor), normalize(y))


orders = st.sampled_from([1, 2, 3, 0.5, 2.5, 0, math.inf, -math.inf])
sane = st.floats(-1e3, 1e3).filter(lambda value: value == 0 or abs(value) > 1e-3)


@st.composite
def vectors(draw):
    """An array of sane numbers, and axes of it."""
    x = draw(hnp.arrays("float64", hnp.array_shapes(max_dims=3, max_side=4), elements=sane))
    axis = draw(st.integers(-x.ndim, x.ndim - 1) | hnp.valid_tuple_axes(x.ndim, min_size=1))
    return x, axis


@settings(deadline=None)
@given(vectors(), orders)
def test_vectors_are_divided_by_their_norm(case, order):
    """The result is x over NumPy's vector norm for every axis, tuple of axes and order."""
    x, axis = case
    norm = np.linalg.vector_norm(x, axis=axis, ord=order, keepdims=True)

    got = normalize(x, axis, order)

    np.testing.assert_allclose(got, x / np.where(norm == 0, 1, norm), rtol=1e-12)
    assert got.dtype == x.dtype
    assert got is not x


any_floats = st.sampled_from(["float16", "float32", "float64"]).flatmap(
    lambda dtype: hnp.arrays(
        dtype,
        hnp.array_shapes(max_dims=2, max_side=4),
        elements=hnp.from_dtype(np.dtype(dtype), allow_nan=False, allow_infinity=False),
    )
)


@settings(deadline=None, max_examples=200)
@given(any_floats, st.sampled_from([1, 2, 3, math.inf]), st.sampled_from([0, -1]))
def test_every_finite_vector_gets_length_one(x, order, axis):
    """Neither huge nor tiny entries give NaN, zeros or other lengths, and zero vectors stay zero."""
    got = normalize(x, axis, order)

    lengths = np.linalg.vector_norm(got.astype("float64"), axis=axis, ord=order)
    expected = np.any(x != 0, axis=axis).astype("float64")
    assert got.dtype == x.dtype
    np.testing.assert_allclose(lengths, expected, atol=4 * np.finfo(x.dtype).eps)
    np.testing.assert_array_equal(np.sign(got)[np.abs(got) > 0], np.sign(x)[np.abs(got) > 0])


@pytest.mark.parametrize("width", [3, 64, 1000])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_float32_is_as_exact_as_float64_rounded(width, axis):
    """Whichever sum is used, the error is a few units in the last place."""
    x = np.random.default_rng(0).normal(size=(width, width)).astype("float32")

    got = normalize(x, axis)

    exact = x / np.linalg.norm(x.astype("float64"), axis=axis, keepdims=True)
    np.testing.assert_allclose(got, exact, rtol=2e-6)


def test_long_float32_sums_do_not_drift():
    """A sum of 40 million ones along the first axis does not stop at 2**24."""
    x = np.broadcast_to(np.float32(1), (40_000_000, 1))

    assert normalize(x, axis=0)[0, 0] == pytest.approx(40_000_000**-0.5, rel=1e-6)


@pytest.mark.parametrize(
    ("x", "dtype"),
    [
        ([[1, 2], [3, 4]], "float64"),
        (np.array([[1, 2], [3, 4]], "uint8"), "float64"),
        (np.array([[True, False]]), "float64"),
        (np.array([[1, 2]], "float16"), "float16"),
        (np.array([[1, 2]], ">f4"), ">f4"),
    ],
)
def test_the_dtype_of_the_result(x, dtype):
    """Floats keep their type, all else becomes float64, and the input is left alone."""
    before = np.array(x)

    got = normalize(x)

    assert isinstance(got, np.ndarray)
    assert got.dtype == dtype
    np.testing.assert_array_equal(x, before)
    np.testing.assert_allclose(np.linalg.norm(got.astype("float64"), axis=-1), 1, atol=1e-3)


def test_shapes_stay():
    """One vector stays one vector, and nothing stays nothing."""
    np.testing.assert_allclose(normalize([3, 4]), [0.6, 0.8])
    assert normalize(np.zeros((3, 0)), order=math.inf).shape == (3, 0)


def test_orders_below_zero_and_zero():
    """Order 0 counts entries; a negative order of a vector with a zero has length 0, so it stays."""
    np.testing.assert_allclose(normalize([3.0, 0, 4], order=0), [1.5, 0, 2])
    np.testing.assert_allclose(normalize([1.0, 2.0], order=-1), [1.5, 3.0])
    np.testing.assert_allclose(normalize([0.0, 2.0], order=-1), [0, 2])


def test_entries_that_are_nan_spread_in_their_vector_only():
    """What cannot be known is not invented."""
    got = normalize([[math.nan, 1], [3, 4]])

    np.testing.assert_array_equal(got, [[math.nan, math.nan], [0.6, 0.8]])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([[1, 2]], None), TypeError, "axis must be an integer or a tuple of integers, not None"),
        (([[1, 2]], 2), np.exceptions.AxisError, "axis 2 is out of bounds"),
        ((3.0,), np.exceptions.AxisError, "axis -1 is out of bounds"),
        (([[1, 2]], (0, 0)), ValueError, "repeated axis"),
        (([[1, 2]], -1, "fro"), TypeError, "order must be a number, not 'fro'"),
        (([[1, 2]], -1, math.nan), ValueError, "order must not be NaN"),
        ((["a"],), TypeError, "only real numbers can be normalized, not type <U1"),
        (([1j],), TypeError, "only real numbers can be normalized, not type complex128"),
    ],
)
def test_arguments_of_normalize_are_checked(arguments, error, message):
    """Each argument has its own message."""
    with pytest.raises(error, match=message):
        normalize(*arguments)


def test_the_module_loads_neither_keras_nor_tensorflow():
    """Arrays need NumPy alone."""
    code = "import sys, kflow.core.arrays; print({'keras', 'tensorflow', 'h5py'} & set(sys.modules))"

    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert loaded.stdout == "set()\n"
