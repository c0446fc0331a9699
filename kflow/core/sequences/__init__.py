"""Batches of data by index: ``Sequence``, with the enqueuers and the check that go with it.

``Sequence`` subclasses a Keras class, so it is made when the name is first used: importing this module
does not load Keras.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from kflow.core.sequences import base as sequence_base
from kflow.core.sequences.checking import check_sequence
from kflow.core.sequences.enqueuers import GeneratorEnqueuer, OrderedEnqueuer
from kflow.core.sequences.processes import is_worker

if TYPE_CHECKING:
    from kflow.core.sequences.base import Sequence

__all__ = ["GeneratorEnqueuer", "OrderedEnqueuer", "Sequence", "check", "check_sequence"]

check = check_sequence

_making = threading.Lock()


def __getattr__(name: str) -> object:
    """Make ``Sequence`` when it is first used (PEP 562), since its base class needs Keras."""
    if name != "Sequence":
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    with _making:  # two threads must get the same class
        if name not in globals():
            globals()[name] = _make_class(name)
    return globals()[name]


def _make_class(name: str) -> type:
    namespace = {"__module__": __name__, "__doc__": sequence_base.Sequence.__doc__}
    if is_worker():  # a process that makes batches feeds no model
        return type(name, (sequence_base.Sequence,), namespace)
    from keras.utils import PyDataset

    kind = type(name, (sequence_base.Sequence, PyDataset), namespace)
    _feed_keras(kind)
    return kind


def _feed_keras(kind: type) -> None:
    """Let Keras's fit, evaluate and predict keep the contract of ``Sequence``."""
    import keras

    if keras.backend.backend() != "tensorflow":
        return
    try:
        from kflow.core.sequences.keras_epochs import take_over
    except ImportError as error:
        message = (
            f"kflow.core.Sequence does not fit Keras {keras.__version__}, whose way of reading data has changed "
            f"({error}); install a version of Keras that kflow asks for: pip install 'keras>=3.15.1,<3.16'"
        )
        raise ImportError(message) from error
    take_over(kind)
