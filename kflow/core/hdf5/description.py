"""What an HDF5 data set holds, without reading its data."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kflow.core.hdf5.files import check_allowed, find_dataset, open_file
from kflow.core.hdf5.rows import hdf5_lock

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["DatasetInfo", "describe_dataset"]


@dataclass(frozen=True)
class DatasetInfo:
    """The shape of a data set and the NumPy name of its dtype."""

    shape: tuple[int, ...]
    dtype: str


def describe_dataset(datapath: str | os.PathLike[str], dataset: str, *, allow: Collection[str] = ()) -> DatasetInfo:
    """Return the shape and dtype of a data set without reading its data.

    Parameters
    ----------
    datapath : str or path
        The HDF5 file.
    dataset : str
        Path of the data set in the file, such as ``"train/images"``.
    allow : collection of str, default ()
        As for `HDF5Matrix`.

    Returns
    -------
    DatasetInfo
        The shape, which is ``()`` for a scalar, and the dtype as text.

    Raises
    ------
    FileNotFoundError, OSError, KeyError, ValueError, TypeError
        As for `HDF5Matrix`.

    Examples
    --------
    >>> import h5py, tempfile
    >>> import numpy as np
    >>> path = tempfile.mkdtemp() + "/digits.h5"
    >>> with h5py.File(path, "w") as file:
    ...     file["images"] = np.zeros((10, 8, 8), "uint8")
    >>> describe_dataset(path, "images")
    DatasetInfo(shape=(10, 8, 8), dtype='uint8')
    """
    path = str(Path(datapath).absolute())
    allowed = check_allowed(allow)
    with hdf5_lock(), open_file(path) as file:
        found = find_dataset(file, dataset, path, allowed)
        return DatasetInfo(tuple(found.shape), str(found.dtype))
