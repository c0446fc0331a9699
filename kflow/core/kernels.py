"""Convolution kernels turned between true convolution (Theano) and cross-correlation (TensorFlow).

The two differ by a rotation of 180 degrees over the spatial axes, which is its own inverse: the same call
converts in either direction.
"""

from __future__ import annotations

import math
import operator
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "ConvertedKernel",
    "KernelReport",
    "convert_all_kernels_in_model",
    "convert_dense_weights_data_format",
    "convert_kernel",
]


@dataclass(frozen=True, slots=True)
class ConvertedKernel:
    """One kernel that is turned: the path of names that leads to its layer, and what it is there."""

    layer: str
    kind: str
    weight: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        """Say it in a line."""
        return f"{self.layer} ({self.kind}): {self.weight} {self.shape}"


@dataclass(frozen=True, slots=True)
class KernelReport:
    """What a conversion did, or would do when it was a dry run, and the model that has the turned kernels."""

    kernels: tuple[ConvertedKernel, ...]
    is_dry_run: bool
    model: Any = field(repr=False, compare=False)

    def __str__(self) -> str:
        """List the kernels, one in a line."""
        count = f"{len(self.kernels)} kernel{'' if len(self.kernels) == 1 else 's'}"
        done = "would be turned" if self.is_dry_run else "turned"
        return "\n  ".join([f"{count} {done} by 180 degrees", *map(str, self.kernels)])


@dataclass(frozen=True, slots=True)
class _Found:
    """A kernel and the variable that holds it."""

    kernel: ConvertedKernel
    variable: Any


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


def convert_all_kernels_in_model(
    model: Any,
    *,
    inplace: bool = True,
    dry_run: bool = False,
    check: bool = False,
) -> KernelReport:
    """Rotate every convolution kernel of a model by 180 degrees.

    Parameters
    ----------
    model : keras.Model or keras.layers.Layer
        A built model. Convolutions of one to three dimensions are converted wherever they are: in nested
        models, inside wrappers and custom layers, in subclasses; plain, transposed, depthwise, separable
        (the depthwise kernel; the pointwise one has no spatial extent) and ConvLSTM. What turns is each
        weight of such a layer whose leading axes are the layer's ``kernel_size``, so the further kernels of
        a subclass and the factor of a low-rank adaptation turn, too. A kernel that is shared is converted
        once. Biases and all other weights stay as they are.
    inplace : bool, default True
        Convert `model` itself. With False it stays as it is, and a copy with the same weights is converted.
        The copy is compiled like the model, with an optimizer that begins anew.
    dry_run : bool, default False
        Only report what would be converted; no weight is written and nothing is copied.
    check : bool, default False
        Put each kernel through Keras's own convolution in float64, before and after: on a mirrored input the
        new kernel must give the mirrored result of the old one, to 1e-9 of the largest finite value.

    Returns
    -------
    KernelReport
        ``kernels``: for each kernel the path of its layer, the layer's class, the weight's name and shape, in
        the order of the layers. ``model``: the model with the turned kernels, which is the argument itself
        unless a copy was asked for. Its `str` is a list to print.

    Raises
    ------
    TypeError
        `model` is not a Keras model or layer.
    ValueError
        A convolution is not built yet, so it has no kernel; its kernel is quantized; a subclass keeps it in
        another shape; or the model cannot be copied. Nothing was changed.
    ArithmeticError
        The check failed. The kernels are as they were.

    Notes
    -----
    Keras 2.1 converted top-level layers only, of four classes, and returned None. The momenta of an optimizer
    are not turned: compile the model anew before training goes on.

    Examples
    --------
    >>> import keras
    >>> model = keras.Sequential([keras.Input((8, 1)), keras.layers.Conv1D(1, 3, name="smooth")])
    >>> before = model.get_weights()[0]
    >>> print(convert_all_kernels_in_model(model, check=True))
    1 kernel turned by 180 degrees
      smooth (Conv1D): kernel (3, 1, 1)
    >>> bool((model.get_weights()[0] == before[::-1]).all())
    True
    """
    import keras

    if not isinstance(model, keras.layers.Layer):
        msg = f"model is a {type(model).__name__}; give a keras.Model or a layer"
        raise TypeError(msg)
    # All are found before the first is changed, so that an unbuilt layer leaves the model as it was.
    found = _find(model)
    if not (inplace or dry_run):
        model = _copy(model)
        found = _find(model)
    if check or not dry_run:
        _turn(found, is_dry_run=dry_run, is_checked=check)
    return KernelReport(tuple(each.kernel for each in found), dry_run, model)


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
        `dense` is not a Dense layer, or the shape no sequence of whole numbers.
    ValueError
        The format is unknown, the layer is not built or quantized, or the shape does not match its kernel.

    Examples
    --------
    >>> import keras
    >>> dense = keras.layers.Dense(3)
    >>> dense.build((None, 2 * 4 * 4))
    >>> convert_dense_weights_data_format(dense, (2, 4, 4), "channels_first")
    """
    import keras

    if target_data_format not in ("channels_first", "channels_last"):
        msg = f"target_data_format is {target_data_format!r}; use 'channels_first' or 'channels_last'"
        raise ValueError(msg)
    if not isinstance(dense, keras.layers.Dense):
        msg = f"dense is a {type(dense).__name__}; give a keras.layers.Dense"
        raise TypeError(msg)
    _require_ready(dense, dense.name)
    rows = int(dense._kernel.shape[0])
    try:
        shape = tuple(operator.index(size) for size in previous_feature_map_shape)
    except TypeError:
        msg = (
            "previous_feature_map_shape must be the sizes of the axes before Flatten, such as (channels, rows, "
            f"columns), not {previous_feature_map_shape!r}"
        )
        raise TypeError(msg) from None
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
    # With low-rank adaptation the kernel is `_kernel` plus a product whose first factor has its rows.
    for kernel in (dense._kernel, getattr(dense, "lora_kernel_a", None)):
        if kernel is not None:
            kernel.assign(kernel.numpy()[order.ravel()])


def _find(model: Any) -> list[_Found]:
    """Find each kernel at any depth once, in the order of the layers."""
    found: dict[int, _Found] = {}
    for path, layer in _convolutions(model):
        _require_ready(layer, path)
        size = tuple(layer.kernel_size)
        kernels = [each for each in _own(layer) if tuple(each.shape)[:-2] == size]
        if not kernels:
            msg = (
                f"the layer {path!r} is a {type(layer).__name__} of kernel_size {size}, but none of its weights has "
                "such leading axes, so its kernel is not known; turn it with convert_kernel()"
            )
            raise ValueError(msg)
        for each in kernels:
            kernel = ConvertedKernel(path, type(layer).__name__, each.name, tuple(each.shape))
            found.setdefault(id(each), _Found(kernel, each))
    return list(found.values())


def _convolutions(model: Any) -> Iterator[tuple[str, Any]]:
    """Walk through every layer at any depth that holds convolution kernels."""
    from keras import layers

    plain = (
        *(layers.Conv1D, layers.Conv2D, layers.Conv3D),
        *(layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose),
        *(layers.DepthwiseConv1D, layers.DepthwiseConv2D, layers.SeparableConv1D, layers.SeparableConv2D),
    )
    recurrent = (layers.ConvLSTM1D, layers.ConvLSTM2D, layers.ConvLSTM3D)
    stack: list[tuple[tuple[str, ...], Any]] = [((), model)]
    seen = set()
    while stack:  # not by recursion: layers may refer to each other in a circle
        names, layer = stack.pop()
        if id(layer) in seen:
            continue
        seen.add(id(layer))
        path = "/".join(names) or layer.name
        if isinstance(layer, plain):
            yield path, layer
        elif isinstance(layer, recurrent):
            yield f"{path}/{layer.cell.name}", layer.cell
        stack.extend(((*names, inner.name), inner) for inner in reversed(layer._layers))


def _own(layer: Any) -> list[Any]:
    """List the weights of a layer without those of the layers in it."""
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def _require_ready(layer: Any, path: str) -> None:
    """Refuse a layer that has no kernel, or one in which a number is not a weight by itself."""
    import keras

    if not layer.built:
        msg = f"the layer {path!r} has no kernel yet; build the layer or its model before converting it"
        raise ValueError(msg)
    for weight in _own(layer):
        if "kernel" in weight.name and not keras.backend.is_float_dtype(weight.dtype):
            msg = f"the layer {path!r} is quantized ({weight.name}: {weight.dtype}); convert it before you quantize it"
            raise ValueError(msg)


def _turn(found: Sequence[_Found], *, is_dry_run: bool, is_checked: bool) -> None:
    """Turn all kernels or none."""
    before = [each.variable.numpy() for each in found]
    try:
        for each, old in zip(found, before, strict=True):
            new = convert_kernel(old)
            if not is_dry_run:
                each.variable.assign(new)
                new = each.variable.numpy()  # what has really arrived
            if is_checked:
                _require_mirrored(each.kernel, old, new)
    except BaseException:
        if not is_dry_run:
            for each, old in zip(found, before, strict=True):
                each.variable.assign(old)
        raise


def _require_mirrored(kernel: ConvertedKernel, old: np.ndarray, new: np.ndarray) -> None:
    """Compare what two kernels do, which does not depend on how one was made from the other."""
    from keras import ops

    spatial = old.shape[:-2]
    axes = tuple(range(1, len(spatial) + 1))
    image = np.random.default_rng(0).normal(size=(1, *(size + 1 for size in spatial), old.shape[-2]))
    convolve = {"padding": "valid", "data_format": "channels_last"}
    expected = np.asarray(ops.conv(image, old.astype("float64"), **convolve))
    mirrored = np.asarray(ops.conv(np.flip(image, axes), new.astype("float64"), **convolve))
    tolerance = 1e-9 * np.max(np.abs(expected[np.isfinite(expected)]), initial=0)
    if not np.allclose(np.flip(mirrored, axes), expected, rtol=0, atol=tolerance, equal_nan=True):
        msg = (
            f"the check of {kernel} failed: the new kernel does not give the mirrored result of the old one; "
            "nothing was changed. Convert without check=True only if the layer rounds its weights on purpose"
        )
        raise ArithmeticError(msg)


def _copy(model: Any) -> Any:
    """Make a second model with the same weights."""
    import keras
    from keras.src.saving.serialization_lib import SafeModeScope

    try:
        with SafeModeScope(False):  # the code of a Lambda came from this process, not from a file
            if isinstance(model, keras.Model):  # recursive: what a model shares with one inside it stays shared
                copy = keras.models.clone_model(model, recursive=True)
            else:
                copy = type(model).from_config(model.get_config())
            if not copy.built:
                copy.build_from_config(model.get_build_config())
    except Exception as error:
        msg = (
            f"the model {model.name!r} cannot be copied; give its classes get_config() and register its custom "
            f"objects, or convert in place. Keras said: {str(error).strip().rpartition(chr(10))[2]}"
        )
        raise ValueError(msg) from error
    pairs = list(zip(model.weights, copy.weights, strict=False))
    if len(model.weights) != len(copy.weights) or any(a.shape != b.shape or _role(a) != _role(b) for a, b in pairs):
        msg = f"the copy of the model {model.name!r} has other weights than the model itself; convert in place"
        raise ValueError(msg)
    for old, new in pairs:
        new.assign(old)
    return copy


def _role(weight: Any) -> str:
    """Return the name of a weight without the number that Keras gives to names which are there already."""
    return re.sub(r"_\d+$", "", weight.name)
