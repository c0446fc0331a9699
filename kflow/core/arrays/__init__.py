"""Labels to matrices, vectors to unit length: in NumPy, on tensors, and inside a model."""

from kflow.core.arrays.categorical import from_categorical, to_categorical
from kflow.core.arrays.normalization import normalize

__all__ = ["from_categorical", "normalize", "to_categorical"]
