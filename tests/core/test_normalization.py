import math
import pickle
import subprocess
import sys

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kflow.core import HDF5Matrix, normalize
from kflow.core.arrays import blocks

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


half_floats = hnp.arrays(
    "float16",
    hnp.array_shapes(max_dims=2, max_side=5),
    elements=st.floats(0, 65504, width=16) | st.sampled_from([6e-8]),
)


@settings(deadline=None, max_examples=200)
@given(half_floats, st.sampled_from([-1, -2, -0.5, -math.inf, 0.5, 1]), st.sampled_from([0, -1]))
def test_float16_is_infinite_only_where_the_quotient_is_beyond_it(x, order, axis):
    """With negative orders it may be; the result is the quotient of float64, rounded once."""
    exact = normalize(x.astype("float64"), axis, order)

    got = normalize(x, axis, order)

    with np.errstate(over="ignore"):
        lowest, highest = (exact * (1 - 1e-6)).astype("float16"), (exact * (1 + 1e-6)).astype("float16")
    assert ((lowest <= got) & (got <= highest)).all()


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


BLOCKS = (3, 2**19)  # more than is worked on at a time


@pytest.mark.parametrize("axis", [0, 1, (0, 1)])
@pytest.mark.parametrize("order", [1, 2, 3, 0, math.inf, -math.inf, -1])
def test_the_seams_between_blocks_do_not_show(axis, order):
    """Vectors within and across blocks are divided by NumPy's norm."""
    x = np.random.default_rng(0).uniform(0.5, 2, BLOCKS).astype("float32")
    x[0] *= 1e20  # squares of these overflow in float32

    got = normalize(x, axis, order)

    norm = np.linalg.vector_norm(x.astype("float64"), axis=axis, ord=order, keepdims=True)
    np.testing.assert_allclose(got, x / norm, rtol=1e-5)


@pytest.mark.parametrize(("axis", "order"), [(-1, 2), (-1, 1), (0, 2), (-1, 3)])
@pytest.mark.parametrize("width", [16, 784])
def test_threads_change_no_bit(monkeypatch, axis, order, width):
    """Whatever the number of processors; rows of zeros, huge and NaN entries are met in them as elsewhere."""
    x = np.random.default_rng(0).normal(size=(2**25 // 4 // width, width)).astype("float32")
    x[::1000], x[7::1000], x[9::1000, 3] = 0, 3e38, np.nan
    many = normalize(x, axis, order)
    monkeypatch.setattr(blocks, "_THREADS", 1)
    one = normalize(x, axis, order)
    here = normalize(x.copy(), axis, order, out=np.empty_like(x))

    assert many.tobytes() == one.tobytes() == here.tobytes()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("width", [5, 80])
def test_zero_vectors_beside_huge_and_tiny_ones(dtype, axis, width):
    """What one vector needs does not change the others."""
    limits = np.finfo(dtype)
    scale = np.array([0, limits.max, limits.tiny, 1, 300]).astype(dtype)
    x = np.outer(scale, np.ones(width, dtype)) if axis else np.outer(np.ones(width, dtype), scale)

    got = normalize(x, axis)

    expected = np.where(x == 0, 0, width**-0.5)
    np.testing.assert_allclose(got, expected, rtol=4 * limits.eps)


@settings(deadline=None)
@given(vectors(), orders, st.data())
def test_a_lazy_form_is_the_eager_form(case, order, data):
    """Every index of a view gives what it gives of the normalized array, also after pickling."""
    x, axis = case
    whole = normalize(x, axis, order)
    view = pickle.loads(pickle.dumps(normalize(x, axis, order, lazy=True)))
    key = data.draw(hnp.basic_indices(whole.shape) | hnp.integer_array_indices(whole.shape[:1]))

    assert (view.shape, view.dtype) == (whole.shape, whole.dtype)
    np.testing.assert_allclose(view[key], whole[key], rtol=1e-12)
    np.testing.assert_allclose(np.asarray(view), whole, rtol=1e-12)


@pytest.fixture
def stored(tmp_path):
    """Give the path of an HDF5 file, and what is in its data set x: 20 rows of integers."""
    x = np.random.default_rng(0).integers(-9, 9, (20, 3, 4))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = x
    return tmp_path / "x.h5", x


@pytest.mark.parametrize("axis", [0, -1, (1, 2), (0, 2)])
def test_a_file_is_normalized_in_blocks(stored, tmp_path, axis, monkeypatch):
    """A window of a file goes to an array, to a view, and to another file, and is never read whole."""
    path, x = stored
    rows = x[2:18].astype("float64")
    expected = rows / np.linalg.vector_norm(rows, axis=axis, keepdims=True)
    monkeypatch.setattr("kflow.core.rows.views._READ", 5 * rows[0].nbytes)
    monkeypatch.delattr(HDF5Matrix, "__array__")
    with HDF5Matrix(path, "x", 2, 18) as window, h5py.File(tmp_path / "unit.h5", "w") as file:
        out = file.create_dataset("x", rows.shape, "float32")

        np.testing.assert_allclose(normalize(window, axis), expected)
        np.testing.assert_allclose(normalize(window, axis, lazy=True)[[7, -1]], expected[[7, -1]])
        assert normalize(window, axis, out=out) is out
        np.testing.assert_allclose(out[:], expected, rtol=1e-6)


@pytest.mark.parametrize("axis", [0, 1])
def test_the_result_goes_where_it_is_asked_to_go(axis):
    """An array given as out is filled and returned: another one, the input itself, or one that overlaps it."""
    memory = np.random.default_rng(0).normal(size=(400_001, 3))
    x = memory[:-1].copy()
    expected = normalize(x, axis)
    single, itself = np.empty(x.shape, "float32"), x.copy()

    assert normalize(x, axis, out=single) is single
    assert normalize(itself, axis, out=itself) is itself
    assert normalize(memory[:-1], axis, out=memory[1:]).base is memory

    np.testing.assert_allclose(single, expected, rtol=1e-6)
    np.testing.assert_array_equal(itself, expected)
    np.testing.assert_array_equal(memory[1:], expected)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"out": np.empty((2, 3))}, ValueError, r"out has shape \(2, 3\), and the result \(2, 2\)"),
        (
            {"out": np.empty((2, 2), int)},
            TypeError,
            "out has type int64, which cannot hold the result, of type float64",
        ),
        ({"out": np.empty((2, 2)), "lazy": True}, ValueError, "give out or lazy, not both"),
    ],
)
def test_out_and_lazy_are_checked(options, error, message):
    """Each mistake has its own message."""
    with pytest.raises(error, match=message):
        normalize([[1, 2], [3, 4]], **options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"axis": 1.0}, "axis must be an integer or a tuple of integers, not 1.0"),
        ({"order": None}, "order must be a number, not None"),
        ({"order": 1j}, "order must be a number, not 1j"),
        ({"order": np.array([1, 2])}, r"order must be a number, not array\(\[1, 2\]\)"),
        ({"x": None}, "only real numbers can be normalized, not type object"),
        ({"out": [1.0, 2.0]}, "out must be an array or an HDF5 data set to write to, not a list"),
    ],
)
def test_arguments_of_a_wrong_type_are_named(arguments, message):
    """A wrong type is told as that."""
    with pytest.raises(TypeError, match=message):
        normalize(**{"x": [3.0, 4.0], **arguments})


def test_masked_entries_are_refused():
    """They would count like the others."""
    with pytest.raises(TypeError, match="x has masked entries"):
        normalize(np.ma.masked_greater([1.0, 2.0], 1.5))


@pytest.mark.parametrize("order", [-1, -2, -3.5, -0.5])
@pytest.mark.parametrize("values", [[1e200, 3e200], [1e-200, 3e-200], [1e-150, 1e150], [2.0, 5.0]])
def test_negative_orders_neither_over_nor_underflow(order, values):
    """The smallest entry decides; the reference divides by it first."""
    ratios = np.array(values) / min(values)

    got = normalize(values, order=order)

    np.testing.assert_allclose(got, ratios / np.sum(ratios**order) ** (1 / order), rtol=1e-12)


@pytest.mark.parametrize("order", [-1, -2])
def test_a_zero_makes_a_vector_of_length_0_for_negative_orders(order):
    """Such vectors stay as they are, however large their other entries are."""
    x = np.array([[1e200, 0.0], [3.0, 0.0], [0.0, 0.0]])

    np.testing.assert_array_equal(normalize(x, order=order), x)


@pytest.mark.parametrize("turn", [lambda x: x[:, ::-1], lambda x: np.broadcast_to(x[:, :1], x.shape)])
def test_rows_that_are_read_backwards_or_repeated_do_not_drift(turn):
    """Whatever the strides, the sum is as exact."""
    x = turn(np.ones((1, 2_000_000), "float32"))

    np.testing.assert_allclose(normalize(x), np.full(x.shape, 2e6**-0.5), rtol=1e-6)


def test_threads_outlive_the_main_thread(tmp_path):
    """A thread that goes on when the script has ended, and what is called at exit, normalize as ever."""
    code = (
        "import atexit, threading, time\n"
        "import numpy as np\n"
        "from kflow.core import normalize\n"
        "x = np.ones((400_000, 16))\n"
        "def work():\n"
        "    time.sleep(0.5)\n"
        "    print(normalize(x)[-1, -1])\n"
        "threading.Thread(target=work).start()\n"
        "atexit.register(lambda: print(normalize(x)[0, 0]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (done.stdout, done.stderr) == ("0.25\n0.25\n", "")
