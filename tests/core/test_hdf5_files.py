import os

import h5py
import numpy as np
import pytest

from kflow.core.hdf5 import HDF5Matrix, describe_dataset

ROWS = np.arange(24, dtype="int32").reshape(6, 4)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A file of what is read, and of what is not."""
    path = tmp_path_factory.mktemp("hdf5") / "rows.h5"
    with h5py.File(path, "w") as file:
        file["contiguous"] = file["train/images"] = ROWS
        file["text"] = ["a", "b"]
        file["complex"] = np.arange(3) * 1j
        file["scalar"] = 3.5
        file["empty"] = h5py.Empty("f4")
        file["loop"] = h5py.SoftLink("/loop")
        file["dangling"] = h5py.SoftLink("nowhere")
        file["linked"] = h5py.SoftLink("/train")
        h5py.h5d.create(file.id, b"time", h5py.h5t.UNIX_D32LE, h5py.h5s.create_simple((3,)))
        for filters in ({"compression": "gzip"}, {"compression": "lzf"}, {"shuffle": True, "fletcher32": True}):
            file.create_dataset(
                "-".join(filters) + str(filters.get("compression")), data=ROWS, chunks=(2, 4), **filters
            )
    return path


@pytest.mark.parametrize(
    ("dataset", "error", "message"),
    [
        ("contigous", KeyError, r"no data set 'contigous'; did you mean 'contiguous'\? \(it has: .*train/im"),
        ("train", KeyError, r"'train' of .*rows.h5 is a group, not a data set \(it holds train/images\)"),
        ("", KeyError, "'' of .*rows.h5 is a group"),
        ("contiguous/x", KeyError, "no data set 'contiguous/x'"),
        ("dangling", KeyError, "no data set 'dangling'"),
        ("loop", ValueError, "'loop' is an endless link"),
        ("scalar", ValueError, "'scalar' of .* is a single value"),
        ("text", TypeError, "'text' of .* has dtype object"),
        ("complex", TypeError, "'complex' of .* has dtype complex128"),
        ("time", TypeError, "'time' of .* has a type that NumPy does not know"),
        ("empty", TypeError, "'empty' of .* has no data, not even a shape"),
    ],
)
def test_what_is_not_an_array_of_numbers_is_refused(path, dataset, error, message):
    """The message names the data set, and those that exist."""
    with pytest.raises(error, match=message):
        HDF5Matrix(path, dataset)


def test_a_soft_link_inside_the_file_is_followed(path):
    """A link is only another name as long as it stays in the file."""
    np.testing.assert_array_equal(HDF5Matrix(path, "linked/images/")[0], ROWS[0])


def test_files_that_cannot_be_read_are_named(tmp_path):
    """Missing, foreign and cut files each get an error that says what they are."""
    (tmp_path / "page.h5").write_text("<!DOCTYPE html>")
    (tmp_path / "lfs.h5").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\n")
    with h5py.File(tmp_path / "cut.h5", "w") as file:
        file["x"] = np.zeros(10_000)
    os.truncate(tmp_path / "cut.h5", 5000)

    with pytest.raises(FileNotFoundError, match=r"there is no file .*/gone\.h5"):
        HDF5Matrix(tmp_path / "gone.h5", "x")
    with pytest.raises(OSError, match=r"page.h5 is not a complete HDF5 file: 15 bytes, .*DOCTYPE"):
        HDF5Matrix(tmp_path / "page.h5", "x")
    with pytest.raises(OSError, match="is a Git LFS pointer"):
        HDF5Matrix(tmp_path / "lfs.h5", "x")
    with pytest.raises(OSError, match=r"cut.h5 is not a complete HDF5 file: 5000 bytes"):
        HDF5Matrix(tmp_path / "cut.h5", "x")
    with pytest.raises(OSError, match="is not a file"):
        HDF5Matrix(tmp_path, "x")


@pytest.fixture
def traps(tmp_path):
    """A file whose data sets all lie elsewhere, or claim to be far larger than the file."""
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["group/secret"] = np.arange(4)
    (tmp_path / "secret.bin").write_bytes(bytes(16))
    with h5py.File(tmp_path / "traps.h5", "w") as file:
        file["inner"] = h5py.ExternalLink("other.h5", "/group")
        file["direct"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/group/secret")
        file["through"] = h5py.SoftLink("/inner/secret")
        file.create_dataset("external", (4,), "i4", external=[(str(tmp_path / "secret.bin"), 0, 16)])
        layout = h5py.VirtualLayout((4,), "i8")
        layout[:] = h5py.VirtualSource("other.h5", "group/secret", (4,))
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("bomb", (10**12,), "f4", chunks=(10**6,), compression="gzip")
        file.create_dataset("chunk", (10**9,), "u1", chunks=(2**29,), compression="gzip")
        file.create_dataset("packed", data=np.arange(4), chunks=(4,), scaleoffset=0)
        file.create_dataset("plugin", (4,), "i4", chunks=(4,), compression=32008, allow_unknown_filter=True)
    return tmp_path / "traps.h5"


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ("inner/secret", "refused: 'inner' is an external link to 'other.h5'"),
        ("direct", "refused: 'direct' is an external link to .*other.h5"),
        ("through", "refused: 'inner' is an external link"),
        ("external", "refused: it has external storage"),
        ("virtual", "refused: it is virtual"),
        ("bomb", "refused: it claims 4000000000000 bytes"),
        ("chunk", "refused: .* in chunks of 536870912"),
        ("packed", r"refused: it was written with filter 6 \(scaleoffset\); known are fletcher32, gzip, lzf"),
        ("plugin", r"refused: it was written with filter 32008 \(.*\); known are"),
    ],
)
def test_data_outside_of_the_file_and_traps_are_refused(traps, dataset, message):
    """No data set makes us read another file, or memory that the file does not fill; the error says what to allow."""
    message += r".*; if you trust the file, allow=\('\w+',\) reads it$"
    with pytest.raises(ValueError, match=message):
        HDF5Matrix(traps, dataset)
    with pytest.raises(ValueError, match=message):
        describe_dataset(traps, dataset)


def test_the_data_sets_of_other_files_are_not_listed(traps):
    """The list in an error message does not follow links either."""
    with pytest.raises(KeyError, match=r"\(it has: bomb, chunk, external, packed, plugin, virtual\)"):
        HDF5Matrix(traps, "nothing")


@pytest.mark.parametrize(
    ("dataset", "allow", "expected"),
    [
        ("inner/secret", ("external_links",), [0, 1, 2, 3]),
        ("direct", ("external_links",), [0, 1, 2, 3]),
        ("external", ("external_storage",), [0, 0, 0, 0]),
        ("virtual", ("virtual",), [0, 1, 2, 3]),
        ("packed", ("filters",), [0, 1, 2, 3]),
        ("bomb", ("size",), [0, 0, 0, 0]),
    ],
)
def test_what_is_allowed_by_name_is_read(traps, dataset, allow, expected):
    """A file that is trusted may do what others may not, and nothing else."""
    np.testing.assert_array_equal(HDF5Matrix(traps, dataset, allow=allow)[:4], expected)
    assert describe_dataset(traps, dataset, allow=allow).shape[0] >= 4
    with pytest.raises(ValueError, match="is refused"):
        HDF5Matrix(traps, dataset, allow=("dtype",))


@pytest.mark.parametrize(("dataset", "expected"), [("text", [b"b", b"a"]), ("complex", [1j, 0])])
def test_other_dtypes_are_read_when_allowed(path, dataset, expected):
    """Strings are Python's bytes, complex numbers NumPy's."""
    matrix = HDF5Matrix(path, dataset, allow=["dtype"])

    assert list(matrix[[1, 0]]) == expected


def test_an_unknown_allowance_is_an_error(path):
    """A misspelt name does not pass silently, and one name need not be in a list."""
    with pytest.raises(ValueError, match=r"allow takes names from dtype, external_links, .*; there is no 'links'"):
        HDF5Matrix(path, "contiguous", allow=("links",))
    assert HDF5Matrix(path, "text", allow="dtype").allow == {"dtype"}


@pytest.mark.parametrize("dataset", ["compressiongzip", "compressionlzf", "shuffle-fletcher32None"])
def test_the_filters_of_hdf5_and_lzf_are_known(path, dataset):
    """Compression, shuffling and check sums that come with h5py need no permission."""
    np.testing.assert_array_equal(HDF5Matrix(path, dataset)[::-1], ROWS[::-1])


def test_a_virtual_data_set_does_not_lead_to_external_storage(tmp_path):
    """Allowing the one does not allow the other, which could be any file of the machine."""
    path = tmp_path / "data.h5"
    (tmp_path / "secret").write_bytes(b"12345678")
    with h5py.File(path, "w") as file:
        file.create_dataset("outside", (8,), "uint8", external=[(str(tmp_path / "secret"), 0, 8)])
        layout = h5py.VirtualLayout((8,), "uint8")
        layout[:] = h5py.VirtualSource(".", "outside", (8,))
        file.create_virtual_dataset("v", layout)

    with pytest.raises(ValueError, match="what it is made of has external storage"):
        HDF5Matrix(path, "v", allow=("virtual",))
    assert HDF5Matrix(path, "v", allow=("virtual", "external_storage"))[0] == ord("1")
