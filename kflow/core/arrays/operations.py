"""The operations of a Keras model that encode labels and normalize vectors inside it.

A model that has one can be saved; to load it, import this module before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import keras

from kflow.core.arrays import tensors
from kflow.core.arrays.encoding import Encoding

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Normalize", "ToCategorical"]


@keras.saving.register_keras_serializable("kflow")
class ToCategorical(keras.Operation):  # type: ignore[misc]
    """`kflow.core.to_categorical` in a model.

    Examples
    --------
    >>> labels = keras.Input((1,), dtype="int32")
    >>> ToCategorical(10)(labels).shape
    (None, 10)
    """

    def __init__(
        self,
        num_classes: int,
        *,
        result_dtype: str = "float32",
        classes: Sequence[Any] | None = None,
        label_smoothing: float = 0.0,
        sparse: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        self.encoding = Encoding.of(num_classes, result_dtype, classes, label_smoothing, sparse)

    @classmethod
    def of(cls, encoding: Encoding) -> Self:
        """Return the operation that encodes so."""
        if encoding.columns is None:
            msg = "the labels are known only when the model runs; give num_classes or classes"
            raise ValueError(msg)
        names = None if encoding.classes is None else list(encoding.classes.names)
        return cls(
            encoding.columns,
            result_dtype=encoding.dtype.name,
            classes=names,
            label_smoothing=encoding.label_smoothing,
            sparse=encoding.sparse,
        )

    def call(self, y: Any) -> Any:
        """Encode a tensor of labels."""
        return tensors.encode(y, self.encoding)

    def compute_output_spec(self, y: Any) -> Any:
        """Tell shape and dtype."""
        return keras.KerasTensor(self.encoding.shape(y.shape), self.encoding.dtype.name)


@keras.saving.register_keras_serializable("kflow")
class Normalize(keras.Operation):  # type: ignore[misc]
    """`kflow.core.normalize` in a model.

    Examples
    --------
    >>> Normalize((1,), 2.0)(keras.Input((4,))).shape
    (None, 4)
    """

    def __init__(self, axes: Sequence[int], order: float, name: str | None = None) -> None:
        super().__init__(name=name)
        self.axes, self.order = tuple(axes), float(order)

    def call(self, x: Any) -> Any:
        """Normalize a tensor of vectors."""
        return tensors.normalize(x, self.axes, self.order)

    def compute_output_spec(self, x: Any) -> Any:
        """Tell shape and dtype."""
        dtype = x.dtype if "float" in x.dtype else keras.config.floatx()
        return keras.KerasTensor(x.shape, dtype)
