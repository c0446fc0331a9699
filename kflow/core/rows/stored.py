"""Arrays in mapped files, as tensors of TensorFlow on the same bytes."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["tensor_on"]

_ALIGNED = 64  # TensorFlow ends the process if it finds a tensor elsewhere
_SIZES = {"f": (2, 4, 8), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8)}


def tensor_on(array: NDArray[Any]) -> Any:
    """Return a tensor on the bytes of an array, not to be written to; None if TensorFlow cannot use them as they lie.

    Examples
    --------
    >>> from kflow.core.rows.streaming import empty_aligned
    >>> rows = empty_aligned((2, 2**14), np.dtype("float32"))
    >>> tensor = tensor_on(rows)
    >>> rows[1, 0] = 7
    >>> int(tensor[1, 0])
    7
    """
    dtype = array.dtype
    if not dtype.isnative or dtype.itemsize not in _SIZES.get(dtype.kind, ()):
        return None
    if not array.flags.c_contiguous or not array.size or array.ctypes.data % _ALIGNED:
        return None
    import tensorflow as tf

    # NumPy hands on nothing that is read-only, and a mapping that may be written to would count as memory in use.
    span = (ctypes.c_char * array.nbytes).from_address(array.ctypes.data)
    span.owner = array  # type: ignore[attr-defined]  # the tensor keeps the mapping
    alias = np.frombuffer(memoryview(span), dtype).reshape(array.shape)
    return tf.experimental.dlpack.from_dlpack(alias.__dlpack__())
