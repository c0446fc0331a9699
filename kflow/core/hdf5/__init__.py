"""Rows of an HDF5 data set, read when they are asked for."""

from kflow.core.hdf5.description import DatasetInfo, describe_dataset
from kflow.core.hdf5.matrix import HDF5Matrix

__all__ = ["DatasetInfo", "HDF5Matrix", "describe_dataset"]
