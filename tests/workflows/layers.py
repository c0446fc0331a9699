"""Custom objects for the test workflows."""

import keras


def Swish(x):  # noqa: N802  the name in the workflow
    """Multiply by the sigmoid."""
    return x * keras.ops.sigmoid(x)
