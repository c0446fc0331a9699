"""Convolution kernels turned between true convolution (Theano) and cross-correlation (TensorFlow).

The two differ by a rotation of 180 degrees over the spatial axes, which is its own inverse: the same call
converts in either direction.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["convert_all_kernels_in_model", "convert_dense_weights_data_format", "convert_kernel"]

# Where Keras 3 keeps the weights of a layer that depend on its input's layout. In a layer with low-rank
# adaptation `kernel` is computed, not stored: its parts are `_kernel` and `lora_kernel_a`.
_KERNEL_NAMES = ("_kernel", "kernel", "depthwise_kernel", "recurrent_kernel", "lora_kernel_a")


def convert_kernel(kernel: np.ndarray) -> np.ndarray:
    """Rotate a convolution kernel by 180 degrees.

    Parameters
    ----------
    kernel : ndarray
        Of shape ``(*spatial, channels, channels)`` with one to three spatial axes, any dtype. Grouped,
        depthwise and transposed kernels have the same layout.

    Returns
    -------
    ndarray
        A new array of the same shape and dtype with every spatial axis reversed and the channels untouched.

    Raises
    ------
    ValueError
        The array has not three to five axes.

    Notes
    -----
    With ``*`` for convolution, ``(x * k)[i] = sum_j x[i - j] k[j]``, while a cross-correlation sums
    ``x[i + j] k[j]``; substituting ``-j`` shows that they are equal for reversed kernels.

    Examples
    --------
    >>> import numpy as np
    >>> convert_kernel(np.array([1, 2, 3]).reshape(3, 1, 1)).ravel().tolist()
    [3, 2, 1]
    """
    kernel = np.asarray(kernel)
    if not 3 <= kernel.ndim <= 5:
        msg = (
            f"a kernel of shape {kernel.shape} is no convolution kernel: "
            "give an array (*spatial, channels, channels) with one to three spatial axes"
        )
        raise ValueError(msg)
    return np.flip(kernel, axis=tuple(range(kernel.ndim - 2))).copy()


def convert_all_kernels_in_model(model: Any) -> None:
    """Rotate every convolution kernel of a model by 180 degrees, in place.

    Parameters
    ----------
    model : keras.Model or keras.layers.Layer
        A built model. Convolutions of one to three dimensions are converted wherever they are: in nested
        models, inside wrappers and custom layers, in subclasses; plain, transposed, depthwise, separable
        (the depthwise kernel; the pointwise one has no spatial extent) and ConvLSTM. A kernel that is
        shared is converted once. Biases and all other weights stay as they are.

    Raises
    ------
    TypeError
        `model` is not a Keras model or layer.
    ValueError
        A convolution is not built yet, so it has no kernel. Nothing has been changed then.

    Notes
    -----
    Keras 2.1 converted top-level layers only, of four classes.

    Examples
    --------
    >>> import keras
    >>> model = keras.Sequential([keras.Input((8, 1)), keras.layers.Conv1D(1, 3)])
    >>> before = model.get_weights()[0]
    >>> convert_all_kernels_in_model(model)
    >>> bool((model.get_weights()[0] == before[::-1]).all())
    True
    """
    import keras

    if not isinstance(model, keras.layers.Layer):
        msg = f"model is a {type(model).__name__}; give a keras.Model or a layer"
        raise TypeError(msg)
    # All are found before the first is changed, so that an unbuilt layer leaves the model as it was.
    kernels = [kernel for layer in _convolutions(model) for kernel in _kernels(layer)]
    for kernel in _distinct(kernels):
        kernel.assign(convert_kernel(kernel.numpy()))


def convert_dense_weights_data_format(
    dense: Any,
    previous_feature_map_shape: Sequence[int],
    target_data_format: Literal["channels_first", "channels_last"] = "channels_first",
) -> None:
    """Reorder the rows of a Dense layer whose input is a flattened feature map, in place.

    A feature map flattens to another order when its channels move from one end to the other, so the first
    Dense layer after a Flatten must be converted with the convolutions before it.

    Parameters
    ----------
    dense : keras.layers.Dense
        A built layer, with or without bias, its kernel of shape ``(prod(shape), units)``.
    previous_feature_map_shape : sequence of int
        Shape of the map before Flatten, without the batch axis, in the *target* format: for example
        ``(channels, rows, columns)`` for 'channels_first'. Any number of spatial axes.
    target_data_format : {'channels_first', 'channels_last'}, default 'channels_first'
        The format that the model will run in from now on.

    Raises
    ------
    TypeError
        `dense` is not a Dense layer.
    ValueError
        The format is unknown, the layer is not built, or the shape does not match its kernel.

    Examples
    --------
    >>> import keras
    >>> dense = keras.layers.Dense(3)
    >>> dense.build((None, 2 * 4 * 4))
    >>> convert_dense_weights_data_format(dense, (2, 4, 4), "channels_first")
    """
    import keras

    if target_data_format not in {"channels_first", "channels_last"}:
        msg = f"target_data_format is {target_data_format!r}; use 'channels_first' or 'channels_last'"
        raise ValueError(msg)
    if not isinstance(dense, keras.layers.Dense):
        msg = f"dense is a {type(dense).__name__}; give a keras.layers.Dense"
        raise TypeError(msg)
    kernels = _kernels(dense)
    shape = tuple(int(size) for size in previous_feature_map_shape)
    rows = kernels[0].shape[0]
    if len(shape) < 2 or min(shape) < 1 or math.prod(shape) != rows:
        msg = (
            f"previous_feature_map_shape {shape} does not fit the layer {dense.name!r}, whose kernel has "
            f"{rows} rows; give the shape before Flatten, without the batch axis"
        )
        raise ValueError(msg)
    if target_data_format == "channels_first":
        order = np.moveaxis(np.arange(rows).reshape(*shape[1:], shape[0]), -1, 0)
    else:
        order = np.moveaxis(np.arange(rows).reshape(shape[-1], *shape[:-1]), 0, -1)
    for kernel in kernels:
        kernel.assign(kernel.numpy()[order.ravel()])


def _convolutions(model: Any) -> Iterator[Any]:
    """Walk through every layer at any depth that holds convolution kernels."""
    from keras import layers

    plain = (
        *(layers.Conv1D, layers.Conv2D, layers.Conv3D),
        *(layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose),
        *(layers.DepthwiseConv1D, layers.DepthwiseConv2D, layers.SeparableConv1D, layers.SeparableConv2D),
    )
    recurrent = (layers.ConvLSTM1D, layers.ConvLSTM2D, layers.ConvLSTM3D)
    for layer in model._flatten_layers():
        if isinstance(layer, plain):
            yield layer
        elif isinstance(layer, recurrent):
            yield layer.cell


def _kernels(layer: Any) -> list[Any]:
    """List the variables of one layer that depend on its input's layout."""
    import keras

    if not layer.built:
        msg = f"the layer {layer.name!r} has no kernel yet; build the layer or its model before converting it"
        raise ValueError(msg)
    found = (getattr(layer, name, None) for name in _KERNEL_NAMES)
    # `kernel` is mostly another name of `_kernel`.
    return _distinct(weight for weight in found if isinstance(weight, keras.Variable))


def _distinct(weights: Iterable[Any]) -> list[Any]:
    """Drop repetitions of the same variable; two variables with equal values are kept."""
    return list({id(weight): weight for weight in weights}.values())
