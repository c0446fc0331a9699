"""Custom objects for the test workflows."""

import keras


def Swish(x):  # noqa: N802  the name in the workflow
    """x * sigmoid(x)."""
    return x * keras.ops.sigmoid(x)
