import json
import os
import pickle
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context

import h5py
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kflow.core.hdf5 import DatasetInfo, HDF5Matrix, describe_dataset

ROWS = np.arange(20 * 3 * 4, dtype="int32").reshape(20, 3, 4)
START, END = 4, 15
WINDOW = ROWS[START:END]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A file with the same rows in every layout that is read in a way of its own."""
    path = tmp_path_factory.mktemp("hdf5") / "rows.h5"
    with h5py.File(path, "w", userblock_size=512) as file:
        file["contiguous"] = ROWS
        file.create_dataset("chunked", data=ROWS, chunks=(7, 2, 4))
        file.create_dataset("gzip", data=ROWS, chunks=(3, 3, 4), compression="gzip", shuffle=True)
        file["big-endian"] = ROWS.astype(">i4")
        file["train/images"] = ROWS.astype("uint8")
        file["flags"] = np.arange(20) % 3 == 0
        file["scalar"] = 3.5
        file.create_dataset("unwritten", (6,), "f4", fillvalue=2.5)
    return path


@pytest.fixture(scope="module", params=["contiguous", "chunked", "gzip", "big-endian"])
def window(path, request):
    """A window on the rows in one layout."""
    with HDF5Matrix(path, request.param, start=START, end=END) as matrix:
        yield matrix


ints = st.integers(-14, 14)
bounds = st.none() | ints | st.sampled_from([sign * size for sign in (-1, 1) for size in (2**31, 2**63, 10**20)])
index_lists = st.lists(ints, max_size=6)
index_arrays = hnp.arrays("int64", hnp.array_shapes(max_dims=2, max_side=3), elements=ints)
row_masks = hnp.arrays(bool, st.sampled_from([11, (11, 3), (11, 3, 4), 10, 0, (0, 3), (11, 0), (0, 5), (0, 3, 4)]))
row_parts = st.one_of(
    ints,
    ints.map(np.int16),
    ints.map(np.array),
    st.slices(11),
    st.builds(slice, bounds, bounds, bounds.filter(lambda step: step != 0)),
    bounds,
    index_lists,
    index_arrays,
    row_masks,
    st.sampled_from([None, ..., True, False, np.True_, range(3), [True] * 11, 1.5, "x", [0.5], np.zeros(0)]),
)
column_parts = st.one_of(
    st.integers(-3, 3),
    st.slices(3),
    st.builds(slice, bounds, bounds, bounds.filter(lambda step: step != 0)),
    st.lists(st.integers(-3, 2), max_size=3),
    st.sampled_from([None, ..., [True, False, True]]),
)
keys = row_parts | st.tuples(row_parts) | st.tuples(row_parts, column_parts)
keys = keys | st.tuples(row_parts, column_parts, column_parts) | st.tuples(st.none(), row_parts, column_parts)


@settings(max_examples=150, deadline=None)
@given(key=keys)
@example(key=np.zeros(0, bool))
@example(key=(np.zeros((11, 0), bool), 0))
@example(key=([14], []))
@example(key=(14, []))
@example(key=np.s_[:: 10**20])
def test_every_index_gives_what_numpy_gives_for_the_window(window, key):
    """Indexing is NumPy's, and an index that NumPy refuses is refused with the same exception."""
    try:
        expected = WINDOW[key]
    except (IndexError, OverflowError, TypeError, ValueError) as error:
        kind = IndexError if isinstance(error, OverflowError) else type(error)  # a row so far away is outside, too
        with pytest.raises(kind, match=r"."):
            window[key]
        return

    got = window[key]

    np.testing.assert_array_equal(got, expected)
    assert np.shape(got) == np.shape(expected)
    assert type(got) is type(expected)


@pytest.mark.parametrize("step", [10**20, -(10**20), 2**63, -(2**63), 12, -12])
def test_a_step_beyond_the_window_takes_one_row(window, step):
    """However long it is."""
    np.testing.assert_array_equal(window[::step], WINDOW[::step])
    np.testing.assert_array_equal(window[20:3:step], WINDOW[20:3:step])


@pytest.mark.parametrize("index", [-12, 11, np.int64(11), [0, 11], [-12], np.array([[3, -12]])])
def test_no_index_reaches_a_row_outside_of_the_window(window, index):
    """Rows before and after the window exist in the file, and are still out of range."""
    with pytest.raises(IndexError, match=r"row -?1[12] is outside of the window, which has 11 rows"):
        window[index]


def test_what_is_read_may_be_written_to_without_effect_on_the_file(window):
    """Reads are copies in private memory."""
    first = window[:]
    first[:] = 0

    np.testing.assert_array_equal(window[:], WINDOW)


def test_a_window_looks_like_an_array(window):
    """Shape, sizes, length, iteration and conversion are those of the array."""
    assert (window.shape, window.ndim, window.size, len(window)) == ((11, 3, 4), 3, 132, 11)
    assert window.dtype == h5py.File(window.datapath)[window.dataset].dtype
    np.testing.assert_array_equal(list(window), list(WINDOW))
    np.testing.assert_array_equal(np.asarray(window), WINDOW)
    assert np.asarray(window, dtype="float32").dtype == np.float32
    with pytest.raises(ValueError, match="always a copy"):
        np.array(window, copy=False)


def test_iteration_covers_rows_that_do_not_fit_in_one_block(tmp_path):
    """Iteration reads block by block and yields each row once."""
    rows = np.random.default_rng(0).random((300, 2000))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = rows

    seen = list(HDF5Matrix(tmp_path / "a.h5", "x", start=1))

    np.testing.assert_array_equal(seen, rows[1:])


def test_booleans_and_unwritten_data_are_read(path):
    """Booleans keep their dtype and rows never written have the fill value."""
    flags, unwritten = HDF5Matrix(path, "flags", 2), HDF5Matrix(path, "unwritten")

    assert flags.dtype == bool
    np.testing.assert_array_equal(flags[::-1], (np.arange(20) % 3 == 0)[:1:-1])
    np.testing.assert_array_equal(unwritten[[5, 0]], np.full(2, 2.5, "float32"))


@pytest.mark.parametrize(
    ("bounds", "error", "message"),
    [
        ((0, 21), IndexError, "rows 0 to 21 of .*'contiguous' of .*rows.h5: it has 20 rows only"),
        ((21, None), IndexError, "it has 20 rows only"),
        ((-1, 5), ValueError, "must not be negative"),
        ((0, -5), ValueError, "must not be negative"),
        ((6, 5), ValueError, "start must not be greater than end"),
        ((0.0, 5), TypeError, "start and end must be integers, not 0.0 and 5"),
        ((0, "5"), TypeError, "start and end must be integers"),
    ],
)
def test_a_window_must_lie_in_the_data(path, bounds, error, message):
    """A window that the data does not have is refused at once, with its rows."""
    with pytest.raises(error, match=message):
        HDF5Matrix(path, "contiguous", *bounds)


def test_an_empty_window_is_allowed(path):
    """A window from a row to itself gives no rows, also with a normalizer that needs one to be probed."""
    empty = HDF5Matrix(path, "contiguous", 20, 20, normalizer=lambda x: x / x.max(initial=1))

    assert empty.shape == (0, 3, 4)
    assert empty[:].shape == (0, 3, 4)
    assert list(empty) == []


@pytest.mark.parametrize("key", [[], slice(3, 3), slice(None, 0, 2), np.zeros(END - START, bool), ([], 0)])
def test_a_normalizer_that_takes_no_empty_block_is_given_none(path, key):
    """What it makes of no rows is known without it."""
    matrix = HDF5Matrix(path, "contiguous", START, END, normalizer=lambda block: block / np.float32(block.max()))

    got = matrix[key]

    assert (got.shape, got.dtype) == (WINDOW[key].shape, matrix.dtype)


def test_the_normalizer_is_applied_and_reported_truly(path):
    """Shape and dtype are what reading gives, for a block, a row and an index into further axes."""

    def flat_means(block):
        return block.reshape(len(block), -1).mean(axis=1, keepdims=True, dtype="float32")

    matrix = HDF5Matrix(path, "contiguous", START, END, normalizer=flat_means)
    expected = flat_means(WINDOW)

    assert (matrix.shape, matrix.dtype, matrix.ndim) == ((11, 1), np.float32, 2)
    np.testing.assert_array_equal(matrix[:], expected)
    np.testing.assert_array_equal(matrix[-2], expected[-2])
    np.testing.assert_array_equal(matrix[[3, 1, 3], 0], expected[[3, 1, 3], 0])


def test_a_normalizer_must_keep_the_rows(path):
    """A normalizer that folds the rows is refused when the window is made."""
    with pytest.raises(ValueError, match=r"normalizer of 'contiguous' made shape \(3, 4\) of \(1, 3, 4\)"):
        HDF5Matrix(path, "contiguous", normalizer=lambda block: block.sum(axis=0))


def test_a_pickled_window_reads_the_same_in_a_spawned_process(path, window):
    """The path is pickled, not the open file."""
    with get_context("spawn").Pool(1) as pool:
        got = pool.apply(np.asarray, [window])

    np.testing.assert_array_equal(got, WINDOW)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")  # a fork is what is tested
def test_windows_work_across_a_fork_while_threads_read(path):
    """Children forked in the middle of reads are neither stuck nor wrong, and leave the parent alone."""
    matrix = HDF5Matrix(path, "gzip", START, END)
    stop = threading.Event()

    def read():
        while not stop.is_set():
            matrix[::2]

    reader = threading.Thread(target=read)
    reader.start()
    context = get_context("fork")
    results = context.SimpleQueue()
    children = [context.Process(target=lambda: results.put(matrix[[7, 3]])) for _ in range(10)]
    try:
        for child in children:
            child.start()
        for child in children:
            child.join(30)
    finally:
        stop.set()
        reader.join()

    assert [child.exitcode for child in children] == [0] * 10
    for _ in children:
        np.testing.assert_array_equal(results.get(), WINDOW[[7, 3]])
    np.testing.assert_array_equal(matrix[:], WINDOW)


def test_many_threads_read_one_window(window):
    """Reads from threads do not mix."""
    index = np.random.default_rng(0).integers(-11, 11, (200, 5))

    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(window.__getitem__, index))

    np.testing.assert_array_equal(got, WINDOW[index])


@pytest.mark.parametrize("chunks", [None, (5,)])
def test_a_file_that_changes_is_noticed(tmp_path, chunks):
    """A read, and the first read after unpickling, say that the file is another one."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.arange(10), chunks=chunks)
    matrix = HDF5Matrix(path, "x")
    pickled = pickle.dumps(matrix)
    os.truncate(path, path.stat().st_size // 2)

    with pytest.raises(OSError, match=r"'x' of .*a\.h5 has changed since it was opened; make a new HDF5Matrix to read"):
        matrix[0]
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["x"] = np.zeros(10)
    (tmp_path / "b.h5").replace(path)
    with pytest.raises(OSError, match="has changed since it was opened"):
        pickle.loads(pickled)[0]


def test_a_closed_window_says_so(path):
    """After the with block the shape is known and reading is an error."""
    with HDF5Matrix(path, "contiguous", START, END) as matrix:
        np.testing.assert_array_equal(matrix[0], WINDOW[0])

    assert matrix.shape == WINDOW.shape
    with pytest.raises(ValueError, match=r"window on 'contiguous' of .* is closed"):
        matrix[0]
    matrix.close()


def test_a_missing_file_is_not_created(tmp_path):
    """Opening only reads."""
    with pytest.raises(FileNotFoundError, match="there is no file"):
        describe_dataset(tmp_path / "new.h5", "x")

    assert not (tmp_path / "new.h5").exists()


def test_describe_dataset_reads_shape_and_dtype_only(path):
    """The description is that of the whole data set, scalars included."""
    assert describe_dataset(path, "/train/images") == DatasetInfo((20, 3, 4), "uint8")
    assert describe_dataset(path, "flags") == DatasetInfo((20,), "bool")
    assert describe_dataset(path, "scalar") == DatasetInfo((), "float64")


def test_the_command_describes_data_sets_one_by_one(path, tmp_path):
    """The probe answers each question, and one that fails does not spoil the others."""
    asked = [
        {"path": str(path), "dataset": "train/images"},
        {"path": str(path), "dataset": "train/image"},
        {"path": str(tmp_path / "gone.h5"), "dataset": "x"},
    ]

    answer = _probe(json.dumps(asked))

    shape, missing, gone = json.loads(answer.stdout)
    assert shape == {"shape": [20, 3, 4], "dtype": "uint8"}
    assert missing["error"].startswith(f"{path} has no data set 'train/image'; did you mean 'train/images'?")
    assert gone == {"error": f"there is no file {tmp_path / 'gone.h5'}"}
    assert (answer.returncode, answer.stderr) == (0, "")


@pytest.mark.parametrize("asked", ["{", '[{"path": "a.h5"}]', "[3]"])
def test_the_command_refuses_other_input(asked):
    """What is not a list of questions is one line on standard error."""
    answer = _probe(asked)

    assert answer.returncode == 2
    assert answer.stdout == ""
    assert answer.stderr.startswith('expected a JSON list of {"path": ..., "dataset": ...}: ')


def _probe(text):
    """Run the module as a command."""
    command = [sys.executable, "-m", "kflow.core.hdf5"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


def test_the_module_loads_neither_keras_nor_tensorflow():
    """Looking into a file does not cost the seconds that TensorFlow takes to load."""
    code = "import sys, kflow.core.hdf5; print({'keras', 'tensorflow'} & set(sys.modules))"

    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert loaded.stdout == "set()\n"


def test_a_normalizer_must_make_all_rows_alike(path):
    """What it makes of later rows is what shape and dtype say, or an error."""
    matrix = HDF5Matrix(path, "contiguous", normalizer=lambda block: block if len(block) == 1 else block[:, :1])

    assert matrix[0].shape == matrix.shape[1:]
    with pytest.raises(ValueError, match=r"normalizer of 'contiguous' made rows of shape .* it must make all alike"):
        matrix[:2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dataset": None}, "dataset must be the path of a data set in the file, such as 'train/images', not None"),
        ({"dataset": "contiguous", "normalizer": 3}, "normalizer must be a function that takes rows, not 3"),
        ({"datapath": None, "dataset": "x"}, "datapath must be the path of a file, not None"),
        ({"datapath": b"x", "dataset": "x"}, "datapath must be the path of a file, not b'x'"),
    ],
)
def test_arguments_of_a_wrong_type_are_named(path, arguments, message):
    """A name that is no text, and a normalizer that cannot be called, are found at once."""
    with pytest.raises(TypeError, match=re.escape(message)):
        HDF5Matrix(**{"datapath": path, **arguments})


def test_a_name_that_hdf5_cannot_hold_is_one_that_is_not_there(path):
    """Half a character, as Python makes of bytes that are no text, is no fault of the codec."""
    with pytest.raises(KeyError, match="has no data set 'a\\\\\\\\udce9'"):
        HDF5Matrix(path, "a\udce9")


def test_a_file_that_gave_way_to_another_is_an_error(tmp_path):
    """A rewrite by renaming leaves the open file as it was; reading it on would give what is no longer there."""
    for name, value in (("old.h5", 1), ("new.h5", 2)):
        with h5py.File(tmp_path / name, "w") as file:
            file["x"] = np.full(3, value)
    window = HDF5Matrix(tmp_path / "old.h5", "x")

    (tmp_path / "new.h5").replace(tmp_path / "old.h5")

    with pytest.raises(OSError, match="has changed since it was opened"):
        window[0]
    assert HDF5Matrix(tmp_path / "old.h5", "x")[0] == 2
