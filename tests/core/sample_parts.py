"""A layer, a function and a description, for the tests of what is written of them."""

from typing import Any

import keras


def twice(x: Any) -> Any:
    """Double."""
    return 2 * x


class Affine(keras.layers.Layer):
    """Applies a function, then adds a constant."""

    def __init__(self, shift: float = 0.0, function: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shift = shift
        self.function = keras.activations.get(function)

    def call(self, x: Any) -> Any:
        """Apply and add."""
        return self.function(x) + self.shift

    def get_config(self) -> dict[str, Any]:
        """Return the constant and the function's name too."""
        function = keras.activations.serialize(self.function)
        return {**super().get_config(), "shift": self.shift, "function": function}


def old(class_name: str, **config: Any) -> dict[str, Any]:
    """A description as Keras 2.1 wrote it."""
    return {"class_name": class_name, "config": config}
