import gc
import os
import resource
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest

from kflow.core.hdf5 import HDF5Matrix
from kflow.core.hdf5.files import CHUNK_CACHE
from kflow.core.hdf5.rows import Rows

DATA = np.random.default_rng(0).random((2000, 100))
DEEP = 64


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Rows in chunks, compressed, and in big-endian order with a fill value that was never written."""
    path = tmp_path_factory.mktemp("rows") / "rows.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("chunked", data=DATA, chunks=(DEEP, 60))
        file.create_dataset("gzip", data=DATA, chunks=(DEEP, 100), compression="gzip")
        file["contiguous"] = DATA
        file.create_dataset("unwritten", (6, 2), ">f4", fillvalue=2.5)
        file["nothing"] = np.zeros((5, 0))
    return path


@pytest.fixture
def decoded(monkeypatch):
    """The ranges of rows that HDF5 is asked to decode."""
    ranges, original = [], Rows._decoded

    def noting(self, selection):
        rows = selection[0] if isinstance(selection, tuple) else selection
        ranges.append((int(rows.start), int(rows.stop)))
        return original(self, selection)

    monkeypatch.setattr(Rows, "_decoded", noting)
    return ranges


def test_far_rows_of_a_chunked_set_are_gathered_apart(path):
    """Rows further apart than one read are still put in the order asked for."""
    index = np.random.default_rng(1).integers(-2000, 2000, 50)

    got = HDF5Matrix(path, "chunked")[index]

    np.testing.assert_array_equal(got, DATA[index])


def test_rows_of_one_chunk_are_read_together(path, decoded):
    """No chunk is decoded twice for one index, however far apart its rows lie."""
    HDF5Matrix(path, "gzip")[np.random.default_rng(1).permutation(2000)[:80]]

    chunks = [set(range(first // DEEP, (stop - 1) // DEEP + 1)) for first, stop in decoded]
    assert sum(map(len, chunks)) == len(set().union(*chunks))


def test_iteration_reads_whole_chunks(path, decoded):
    """Each block of an iteration begins where a chunk begins, also in a window that does not."""
    matrix = HDF5Matrix(path, "gzip", start=10)

    np.testing.assert_array_equal(list(matrix), DATA[10:])
    assert [first % DEEP for first, _ in decoded[1:]] == [0] * (len(decoded) - 1)
    assert decoded[0][0] == 10
    assert len(decoded) > 1


def test_the_chunk_cache_does_not_depend_on_who_opened_the_file_first(path):
    """HDF5 would otherwise give the small cache of the first opening to everybody in the process."""
    with h5py.File(path, rdcc_nbytes=1000):
        rows = Rows(str(path), "gzip")

    assert rows._data.id.get_access_plist().get_chunk_cache()[1] == CHUNK_CACHE


# --- unpacking --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dataset", ["chunked", "gzip"])
def test_unpacking_decodes_each_chunk_once(path, dataset, decoded):
    """What is unpacked is read in any order without HDF5, and what is not is read as before."""
    matrix = HDF5Matrix(path, dataset, start=100, end=1900)
    matrix.unpack(50, 1000, is_shuffled=True)
    matrix.unpack(60, 900, is_shuffled=True)
    across = 1 if dataset == "gzip" else 2
    assert len(decoded) == across * (1100 // DEEP - 150 // DEEP + 1)
    decoded.clear()
    index = np.random.default_rng(0).permutation(np.arange(50, 1000))

    np.testing.assert_array_equal(matrix[index], DATA[100:1900][index])
    np.testing.assert_array_equal(matrix[50:60], DATA[150:160])
    assert not decoded
    np.testing.assert_array_equal(matrix[[0, 1799, 70]], DATA[100:1900][[0, 1799, 70]])
    assert decoded


def test_unpacking_is_left_out_where_it_gains_nothing(path, decoded):
    """Bytes that lie in the file as they are, rows in order, and rows without entries are read as they are."""
    for dataset, is_shuffled in (("contiguous", True), ("gzip", False), ("nothing", True)):
        HDF5Matrix(path, dataset).unpack(is_shuffled=is_shuffled)

    assert not decoded


def test_rows_never_written_are_unpacked(path):
    """The fill value is one of the things that only HDF5 knows."""
    matrix = HDF5Matrix(path, "unwritten")
    matrix.unpack(is_shuffled=True)

    np.testing.assert_array_equal(matrix[[5, 0]], np.full((2, 2), 2.5))


def _deleted():
    """List the mapped files that have no name any more."""
    return [line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith("(deleted)")]


@pytest.mark.parametrize("folder", ["there", "gone"])
def test_the_temporary_file_has_no_name_and_goes_with_the_window(path, tmp_path, monkeypatch, folder):
    """It lies in TMPDIR, if one can write there, leaves nothing behind, and is given back by close()."""
    (tmp_path / "there").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / folder))
    before = len(_deleted())
    matrix = HDF5Matrix(path, "gzip")
    matrix.unpack(is_shuffled=True)

    assert sum(str(tmp_path) in line for line in _deleted()) == (folder == "there")
    assert len(_deleted()) == before + 1
    assert not list((tmp_path / "there").iterdir())
    matrix.close()
    assert len(_deleted()) == before


@contextmanager
def _files_of_at_most(size):
    """Limit the size of the files that this process writes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_no_room_to_unpack_says_what_to_do(path, tmp_path, monkeypatch):
    """The bytes that are needed are taken at once, so a full disk is an error and not a crash."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    matrix = HDF5Matrix(path, "gzip")

    with _files_of_at_most(100_000), pytest.raises(OSError, match=r"1,600,000 bytes are needed in .*TMPDIR"):
        matrix.unpack(is_shuffled=True)


# --- the file ---------------------------------------------------------------------------------------------


def test_a_window_that_is_forgotten_closes_its_file(path):
    """No descriptor is left behind without close()."""

    def descriptors():
        links = (Path(link) for link in Path("/proc/self/fd").iterdir())
        return [link for link in links if link.is_symlink() and os.path.realpath(link) == str(path)]

    matrix = HDF5Matrix(path, "contiguous")
    opened = len(descriptors())
    del matrix
    gc.collect()

    assert (opened > 0, descriptors()) == (True, [])


def test_damaged_rows_are_named(tmp_path):
    """A chunk that cannot be unpacked is an error that names the rows."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("x", data=np.arange(1000), chunks=(1000,), compression="gzip")
        chunk = data.id.get_chunk_info(0)
    with path.open("r+b") as raw:
        raw.seek(chunk.byte_offset)
        raw.write(b"\xff" * chunk.size)
    matrix = HDF5Matrix(path, "x")

    with pytest.raises(OSError, match=r"rows 0 to 5 of data set 'x' of .*a\.h5 cannot be read"):
        matrix[:5]
