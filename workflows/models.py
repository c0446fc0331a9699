"""Models of the example workflows that are built by a function."""

import keras


def small_cnn(input_shape, classes, width):
    """Build a small convolutional classifier.

    Parameters
    ----------
    input_shape : list of int
        Height, width and channels of an image.
    classes : int
        The number of classes.
    width : int
        The number of filters of the first layer; the second has twice as many.
    """
    inputs = keras.Input(input_shape)
    x = keras.layers.Conv2D(width, 3, padding="same", activation="relu")(inputs)
    x = keras.layers.MaxPooling2D()(x)
    x = keras.layers.Conv2D(2 * width, 3, padding="same", activation="relu")(x)
    x = keras.layers.MaxPooling2D()(x)
    x = keras.layers.Dropout(0.3)(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(128, activation="relu")(x)
    outputs = keras.layers.Dense(classes, activation="softmax")(x)
    return keras.Model(inputs, outputs)
