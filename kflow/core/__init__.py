"""The thirteen utilities of ``keras.utils`` as Keras 2.1 documented them, on today's Keras.

A plain library: it knows nothing of YAML, workflows or the rest of kflow, and each name is imported
on first use, so that ``from kflow.core import get_file`` does not load TensorFlow.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kflow.core.arrays import from_categorical, normalize, to_categorical
    from kflow.core.files import get_file
    from kflow.core.hdf5 import HDF5Matrix
    from kflow.core.kernels import convert_all_kernels_in_model
    from kflow.core.objects import CustomObjectScope, custom_object_scope, get_custom_objects
    from kflow.core.parallel.multi_gpu import multi_gpu_model
    from kflow.core.plotting import plot_model
    from kflow.core.sequences import GeneratorEnqueuer, OrderedEnqueuer, Sequence, check_sequence
    from kflow.core.serialization import deserialize_keras_object, serialize_keras_object

__all__ = [
    "CustomObjectScope",
    "GeneratorEnqueuer",
    "HDF5Matrix",
    "OrderedEnqueuer",
    "Sequence",
    "check_sequence",
    "convert_all_kernels_in_model",
    "custom_object_scope",
    "deserialize_keras_object",
    "from_categorical",
    "get_custom_objects",
    "get_file",
    "multi_gpu_model",
    "normalize",
    "plot_model",
    "serialize_keras_object",
    "to_categorical",
]

_MODULE_OF = {
    "CustomObjectScope": "objects",
    "GeneratorEnqueuer": "sequences",
    "HDF5Matrix": "hdf5",
    "OrderedEnqueuer": "sequences",
    "Sequence": "sequences",
    "check_sequence": "sequences",
    "convert_all_kernels_in_model": "kernels",
    "custom_object_scope": "objects",
    "deserialize_keras_object": "serialization",
    "from_categorical": "arrays",
    "get_custom_objects": "objects",
    "get_file": "files",
    "multi_gpu_model": "parallel.multi_gpu",
    "normalize": "arrays",
    "plot_model": "plotting",
    "serialize_keras_object": "serialization",
    "to_categorical": "arrays",
}


def __getattr__(name: str) -> object:
    """Import the module of a utility when its name is first used (PEP 562)."""
    if name not in _MODULE_OF:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    """List the utilities, loaded or not."""
    return sorted(__all__)
