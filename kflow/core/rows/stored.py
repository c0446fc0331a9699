"""Arrays that TensorFlow takes as they lie: new ones, and those in mapped files."""

from __future__ import annotations

import ctypes
import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["empty_aligned", "tensor_on"]

_ALIGNED = 64  # TensorFlow ends the process if it finds a tensor elsewhere
_SIZES = {"f": (2, 4, 8), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8)}


def tensor_on(array: NDArray[Any]) -> Any:
    """Return a tensor on the bytes of an array, not to be written to; None if TensorFlow cannot use them as they lie.

    Examples
    --------
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


def empty_aligned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return a new array, not filled, that begins at a multiple of 64, so that TensorFlow need not copy it.

    Examples
    --------
    >>> empty_aligned((2, 3), np.dtype("float32")).ctypes.data % 64
    0
    """
    size = math.prod(shape) * dtype.itemsize
    space = np.empty(size + _ALIGNED, np.uint8)
    first = -space.ctypes.data % _ALIGNED
    return space[first : first + size].view(dtype).reshape(shape)
