"""Tests of the artifact type array."""

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kflow.artifacts import array, digest_file
from kflow.artifacts.array import Rows, Source


@pytest.fixture
def stored(tmp_path):
    """Give 100 rows in an HDF5 file and in memory."""
    values = np.random.default_rng(0).integers(0, 255, (100, 6), dtype="uint8")
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["rows"] = values
    return path, values


def _rows(path, *operations, start=0, end=None):
    return Rows.of(Source(str(path), digest_file(path), "rows", start, end), operations)


def test_values_come_back(tmp_path):
    """An array that was computed is stored as it is."""
    values = np.arange(12, dtype="int16").reshape(3, 4)
    saved = array.save(values, tmp_path / "out")

    rows = array.load(saved.description, tmp_path / "out")

    np.testing.assert_array_equal(rows[:], values)
    assert rows[:].dtype == np.int16


def test_operations_compose(stored, tmp_path):
    """Scaling and normalizing are done in order, when rows are read."""
    path, values = stored
    scale = {"do": "scale", "scale": 0.5, "offset": 1.0, "dtype": "float64"}
    rows = _rows(path, scale).then({"do": "normalize", "axis": -1, "order": 2})
    saved = array.save(rows, tmp_path / "out")

    again = array.load(saved.description, tmp_path / "out")

    expected = values * 0.5 + 1.0
    expected /= np.linalg.norm(expected, axis=-1, keepdims=True)
    np.testing.assert_allclose(again[:], expected)
    assert not (tmp_path / "out").exists(), "nothing is copied"


def test_the_digest_does_not_depend_on_the_place(stored, tmp_path):
    """The same rows of the same bytes elsewhere have the same digest; other rows another one."""
    path, _ = stored
    copy = tmp_path / "b.h5"
    copy.write_bytes(path.read_bytes())

    digests = [array.save(each, tmp_path / "out").digest for each in (_rows(path), _rows(copy), _rows(path, end=9))]

    assert digests[0] == digests[1] != digests[2]


def test_a_changed_file_is_noticed(stored, tmp_path):
    """What was saved refers to the file with its size and time."""
    path, _ = stored
    (external,) = array.save(_rows(path), tmp_path / "out").external
    before = external.is_unchanged()
    path.write_bytes(path.read_bytes() + b"more")

    assert (before, external.is_unchanged()) == (True, False)


@pytest.mark.parametrize("is_shuffled", [False, True])
def test_unpacking_does_not_change_values(stored, is_shuffled):
    """Rows that are made quick to read are the rows that the file gives."""
    path, values = stored
    order = np.random.default_rng(1).permutation(90)[:17]
    rows = _rows(path, start=5, end=95)

    rows.unpack(0, 90, is_shuffled=is_shuffled)

    np.testing.assert_array_equal(rows[order], values[5:95][order])


def test_rows_lie_in_the_file_as_they_are_only_if_nothing_is_done_to_them(stored):
    """What is done to a block when it is read cannot be seen in the file."""
    path, values = stored
    rows = _rows(path, start=5, end=95)

    found, first = rows.stored(0, 90)

    np.testing.assert_array_equal(found[first : first + 90], values[5:95])
    assert rows.then({"do": "scale", "factor": 2.0}).stored(0, 90) is None


@given(count=st.integers(1, 100), block=st.integers(1, 700))
def test_blocks_are_all_rows(tmp_path_factory, count, block):
    """The blocks, one after another, are the array, whatever their size."""
    values = np.arange(count * 3).reshape(count, 3)
    folder = tmp_path_factory.mktemp("blocks")
    rows = array.load(array.save(values, folder / "out").description, folder / "out")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(array, "BLOCK_BYTES", block)
        blocks = list(rows.blocks())

    np.testing.assert_array_equal(np.concatenate([part for _, part in blocks]), values)
    assert [start for start, _ in blocks] == list(np.cumsum([0, *(len(part) for _, part in blocks[:-1])]))


def test_an_operation_of_a_later_version():
    """A description that this version cannot follow is an error, not a guess."""
    with pytest.raises(ValueError, match="knows no operation 'rotate'"):
        array.apply({"do": "rotate"}, np.zeros(3))


@pytest.mark.parametrize("size", [10, 100_000])
def test_a_full_disk_is_noticed(tmp_path, size):
    """Also where all fits into a buffer that is written when the file is closed, as np.save does not."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / array.NAME).symlink_to("/dev/full")

    with pytest.raises(OSError, match="No space left"):
        array.save(np.ones(size), tmp_path / "out")


@pytest.mark.parametrize("values", [np.ones((2, 3)), np.asfortranarray(np.eye(3)), np.float32(1), np.ones((0, 2))])
def test_the_file_is_one_of_numpy(tmp_path, values):
    """Byte for byte what np.save writes."""
    array.save(values, tmp_path / "out")
    np.save(tmp_path / "numpy.npy", values)

    assert (tmp_path / "out" / array.NAME).read_bytes() == (tmp_path / "numpy.npy").read_bytes()
