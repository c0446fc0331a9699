"""Functions that build models for the test workflows."""

import keras


def two_inputs(units: int = 4, classes: int = 10) -> keras.Model:
    """Two pictures of a digit in, one class out."""
    left = keras.Input((8, 8, 1), name="left")
    right = keras.Input((8, 8, 1), name="right")
    both = keras.layers.Concatenate()([keras.layers.Flatten()(left), keras.layers.Flatten()(right)])
    hidden = keras.layers.Dense(units, activation="relu")(both)
    return keras.Model([left, right], keras.layers.Dense(classes, activation="softmax", name="digit")(hidden))
