"""``Sequence`` as far as it does not need Keras: what it promises, and what is there when nothing is overridden."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


class Sequence:
    """Base class of data sets that give whole batches by index, for ``fit``, ``evaluate`` and ``predict``.

    A subclass defines ``__getitem__(index)``, which returns batch ``index`` (an array, ``(x, y)`` or
    ``(x, y, sample_weight)``, each an array or a nest of arrays), and ``__len__()``, the number of batches of an epoch.
    It need not call ``super().__init__()``.

    Parameters
    ----------
    workers : int, default 1
        How many threads or processes make batches under ``fit``, ``evaluate`` and ``predict``. One is best unless
        ``__getitem__`` is slow and, for threads, releases the GIL.
    use_multiprocessing : bool, default False
        Make batches in processes. They are started anew, not forked; the sequence is pickled and sent to them at the
        beginning of each epoch, after ``on_epoch_begin``, and once before the first one. Python's and NumPy's global
        random generators are seeded there for each batch, so that what is drawn does not depend on the number of
        processes.
    max_queue_size : int, default 10
        How many batches may be made ahead of the model when there are workers.
    timeout : float, optional
        The seconds that a worker may take for one batch; after them ``TimeoutError`` names the batch, the worker and
        the place in the code where it stands. Default: 600 with several threads or with processes. A single thread
        is not timed unless this is given.

    Attributes
    ----------
    workers, use_multiprocessing, max_queue_size, timeout
        The arguments; they may be set at any time and count from the next ``fit``, ``evaluate`` or ``predict`` on.
    epochs_done : int
        How many epochs have ended: the number of the epoch that is going on, counted from 0. Draw from
        ``numpy.random.default_rng([seed, self.epochs_done, index])`` to have the same batches for any number of
        workers. Set it before a training that goes on where another one stopped.

    Raises
    ------
    NotImplementedError
        When ``__getitem__`` or ``__len__`` is used and the subclass does not define it.
    Exception
        From ``fit``, ``evaluate`` and ``predict``: what ``__getitem__`` raised, with the index of the batch added as
        a note (PEP 678). Keras 3.15 raises TensorFlow's ``UnknownError`` in its place.
    ValueError
        From the same, when the length is 0.
    TypeError
        From the same, when there are to be processes and the sequence cannot be pickled, or was defined in a notebook.

    Notes
    -----
    ``on_epoch_begin()`` and ``on_epoch_end()`` run exactly once per epoch, before its first and after its last batch,
    with training and validation data alike, and no batch is asked for between the two hooks of different epochs.
    Before its first epoch a call of ``fit``, ``evaluate`` or ``predict`` reads up to two batches, to learn shapes and
    dtypes; the workers make them, if there are any. An epoch that is broken off (an exception, ``stop_training``) has
    no end. The length is read anew for each epoch, after ``on_epoch_begin``.

    With ``steps_per_epoch`` an epoch has so many batches, and the epochs share an endless stream of passes over the
    sequence, as in Keras 2.1: each goes on where the one before stopped. A batch that is None is skipped.

    The contract is the one of ``keras.utils.Sequence`` in Keras 2.1.6, with the finite iteration of 2.2.3. It holds
    on TensorFlow, the backend that kflow requires.

    Examples
    --------
    >>> import math
    >>> import numpy as np
    >>> class Rows(Sequence):
    ...     def __init__(self, x, batch_size):
    ...         self.x, self.batch_size = x, batch_size
    ...     def __len__(self):
    ...         return math.ceil(len(self.x) / self.batch_size)
    ...     def __getitem__(self, index):
    ...         return self.x[index * self.batch_size : (index + 1) * self.batch_size]
    >>> [len(batch) for batch in Rows(np.zeros((5, 2)), batch_size=2)]
    [2, 2, 1]
    """

    # Class attributes, so that a subclass that does not call super().__init__() has them too.
    workers: int = 1
    use_multiprocessing: bool = False
    max_queue_size: int = 10
    timeout: float | None = None
    epochs_done: int = 0

    def __init__(
        self,
        workers: int = 1,
        use_multiprocessing: bool = False,
        max_queue_size: int = 10,
        *,
        timeout: float | None = None,
    ) -> None:
        self.workers = workers
        self.use_multiprocessing = use_multiprocessing
        self.max_queue_size = max_queue_size
        self.timeout = timeout

    def __getitem__(self, index: int) -> Any:
        """Return batch ``index``, from 0 to ``len(self) - 1``."""
        msg = f"{type(self).__name__} must define __getitem__(self, index), which returns batch `index`"
        raise NotImplementedError(msg)

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        msg = f"{type(self).__name__} must define __len__(self), the number of batches of an epoch"
        raise NotImplementedError(msg)

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches of one epoch in order; the hooks are not called."""
        for index in range(len(self)):
            yield self[index]

    def on_epoch_begin(self) -> None:
        """Run before the first batch of each epoch; does nothing unless overridden."""

    def on_epoch_end(self) -> None:
        """Run after the last batch of each epoch; does nothing unless overridden."""
