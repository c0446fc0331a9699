"""Batches of data by index: ``Sequence``, and the two enqueuers that fetch batches ahead in threads.

``Sequence`` subclasses a Keras class, so it is made when the name is first used: importing this module
does not load Keras.
"""

from __future__ import annotations

import random
import threading
from collections import deque
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from functools import partial, wraps
from inspect import currentframe
from itertools import count, islice, repeat
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["GeneratorEnqueuer", "OrderedEnqueuer", "Sequence"]

_HOOKS = ("on_epoch_begin", "on_epoch_end")
# The functions of Keras 3.15 that call the hooks with no epoch running: `EpochIterator.reset` calls the end
# hook before every fit and evaluate, the trainers' symbolic build begins an epoch to look at one batch.
_REHEARSALS = frozenset({"reset", "_maybe_symbolic_build", "_symbolic_build"})
_END = object()


class _Batches:
    """Base class of data sets that give whole batches by index, for ``fit``, ``evaluate`` and ``predict``.

    A subclass defines ``__getitem__(index)``, which returns batch ``index`` (an array, ``(x, y)`` or
    ``(x, y, sample_weight)``), and ``__len__()``, the number of batches of an epoch. It need not call
    ``super().__init__()``.

    Parameters
    ----------
    workers : int, default 1
        Threads that make batches under ``fit``. One is best unless ``__getitem__`` is slow and releases the
        GIL. With more than one, batches may be asked for before ``on_epoch_begin`` has run.
    use_multiprocessing : bool, default False
        Let Keras make batches in forked processes. TensorFlow does not survive every fork: prefer threads.
    max_queue_size : int, default 10
        Batches that wait in the queue when there are several workers.

    Raises
    ------
    NotImplementedError
        When ``__getitem__`` or ``__len__`` is used and the subclass does not define it.

    Notes
    -----
    ``on_epoch_begin()`` and ``on_epoch_end()`` run exactly once per epoch, before its first and after its
    last batch, with training and validation data alike. Keras 3.15.1 itself also calls the end hook once
    before each ``fit`` and ``evaluate`` (its ``EpochIterator.reset``); such calls are not passed on. Calls
    made by anyone else, such as ``self.on_epoch_end()`` in ``__init__``, always are. Before the first
    epoch Keras asks for batches 0 and 1 an extra time, to learn their shapes and dtypes. An epoch that is
    broken off (an exception, ``stop_training``) has no end. The contract is the one of
    ``keras.utils.Sequence`` in Keras 2.1.6, with the finite iteration of 2.2.3.

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

    def __init__(self, workers: int = 1, use_multiprocessing: bool = False, max_queue_size: int = 10) -> None:
        self.workers = workers
        self.use_multiprocessing = use_multiprocessing
        self.max_queue_size = max_queue_size

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in _HOOKS:
            hook = getattr(cls, name)
            if not hasattr(hook, "skips_rehearsals"):  # inherited from a guarded class
                setattr(cls, name, _skip_rehearsals(hook))

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


def _skip_rehearsals(hook: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return the hook, deaf to the calls that Keras makes while no epoch runs."""

    @wraps(hook)
    def heard(self: Any) -> Any:
        return None if _called_in_rehearsal() else hook(self)

    heard.skips_rehearsals = True  # type: ignore[attr-defined]  # functions take attributes, their type does not
    return heard


def _called_in_rehearsal() -> bool:
    """Whether the hook that asks was called by Keras outside of an epoch.

    Only the stack tells these calls from the real ones. It is walked from the caller of the hook up to the
    first function that is not Keras's, so that a hook called by a user (or by a subclass with
    ``super().on_epoch_end()``) is never skipped.
    """
    frame = currentframe()
    for _ in range(2):  # this function, then the guard around the hook
        frame = frame and frame.f_back
    while frame is not None and str(frame.f_globals.get("__name__")).startswith("keras."):
        if frame.f_code.co_name in _REHEARSALS:
            return True
        frame = frame.f_back
    return False


if TYPE_CHECKING:
    Sequence = _Batches

_making = threading.Lock()


def __getattr__(name: str) -> object:
    """Make ``Sequence`` when it is first used (PEP 562), since its base class needs Keras."""
    if name != "Sequence":
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    from keras.utils import PyDataset

    with _making:  # two threads must get the same class
        if name not in globals():
            namespace = {"__module__": __name__, "__doc__": _Batches.__doc__}
            globals()[name] = type(name, (_Batches, PyDataset), namespace)
    return globals()[name]


class BatchSource(Protocol):
    """What ``OrderedEnqueuer`` reads: a ``Sequence``, or anything with these three methods."""

    def __getitem__(self, index: int, /) -> Any:
        """Return batch ``index``."""

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""

    def on_epoch_end(self) -> None:
        """Run after the last batch of an epoch."""


class _Enqueuer:
    """Runs jobs ahead of their consumer in threads, and hands over their results in order."""

    def __init__(self, use_multiprocessing: bool) -> None:
        if use_multiprocessing:
            msg = (
                f"{type(self).__name__} works with threads only, as forked processes deadlock with "
                "TensorFlow; leave use_multiprocessing out"
            )
            raise ValueError(msg)
        self._pool: ThreadPoolExecutor | None = None
        self._ahead = 1
        self._pending: deque[tuple[int, Future[Any]]] = deque()

    def start(self, workers: int = 1, max_queue_size: int = 10) -> None:
        """Start the threads; the first jobs begin when the first result is asked for.

        Parameters
        ----------
        workers : int, default 1
            The number of threads.
        max_queue_size : int, default 10
            How many batches may be made ahead of the consumer.

        Raises
        ------
        ValueError
            If either number is less than 1.
        RuntimeError
            If it has been started already.
        """
        if workers < 1 or max_queue_size < 1:
            msg = f"workers and max_queue_size must be at least 1, not {workers} and {max_queue_size}"
            raise ValueError(msg)
        if self.is_running():
            msg = f"this {type(self).__name__} runs already; call stop() before start()"
            raise RuntimeError(msg)
        self._ahead = max_queue_size
        self._pending.clear()
        self._pool = ThreadPoolExecutor(self._threads(workers), thread_name_prefix=type(self).__name__)

    def is_running(self) -> bool:
        """Whether it has been started and not been stopped."""
        return self._pool is not None

    def stop(self, timeout: float | None = None) -> None:
        """Drop the batches not yet handed over and end the threads; ``get()`` then ends.

        Parameters
        ----------
        timeout : float, optional
            How many seconds to wait for the batches being made; None waits until they are done.
        """
        pool, self._pool = self._pool, None
        if pool is None:
            return
        pool.shutdown(wait=False)
        wait([future for _, future in tuple(self._pending) if not future.cancel()], timeout)

    def _threads(self, workers: int) -> int:
        """Return how many threads may run jobs at once."""
        return workers

    def _require_running(self) -> None:
        """Raise unless started."""
        if not self.is_running():
            msg = f"this {type(self).__name__} does not run; call start() before get()"
            raise RuntimeError(msg)

    def _results(self, jobs: Iterable[Callable[[], Any]], indices: Iterable[int]) -> Iterator[tuple[Any, bool]]:
        """Yield each job's result in order, and whether it is the last."""
        todo = zip(indices, jobs, strict=False)
        self._submit(todo, self._ahead)
        while self._pending and self.is_running():
            index, future = self._pending[0]
            try:
                error = future.exception()
            except CancelledError:  # stopped by another thread
                return
            if error is not None:
                self.stop()
                error.add_note(f"raised while making batch {index}")
                raise error
            self._pending.popleft()
            self._submit(todo, 1)
            yield future.result(), not self._pending

    def _submit(self, todo: Iterator[tuple[int, Callable[[], Any]]], limit: int) -> None:
        """Give the threads up to ``limit`` more jobs."""
        for index, job in islice(todo, limit):
            pool = self._pool
            if pool is None:
                return
            self._pending.append((index, pool.submit(job)))


class OrderedEnqueuer(_Enqueuer):
    """Makes the batches of a ``Sequence`` ahead in threads, and gives them in order, epoch after epoch.

    Parameters
    ----------
    sequence : Sequence
        Where the batches come from. Its ``__getitem__`` must be safe to call from several threads when
        there are several workers. Its length is read anew for each epoch.
    use_multiprocessing : bool, default False
        Must be False: batches are made in threads.
    shuffle : bool, default False
        Draw a new order for each epoch from Python's global ``random``, as Keras 2.1 does.

    Raises
    ------
    ValueError
        If ``use_multiprocessing`` is true.

    Notes
    -----
    No batch of an epoch is asked for before ``on_epoch_end()`` of the epoch before it has returned.

    Examples
    --------
    >>> class Squares:
    ...     def __len__(self): return 3
    ...     def __getitem__(self, index): return index**2
    ...     def on_epoch_end(self): pass
    >>> enqueuer = OrderedEnqueuer(Squares())
    >>> enqueuer.start(workers=2)
    >>> batches = enqueuer.get()
    >>> [next(batches) for _ in range(5)]
    [0, 1, 4, 0, 1]
    >>> enqueuer.stop()
    """

    def __init__(self, sequence: BatchSource, use_multiprocessing: bool = False, shuffle: bool = False) -> None:
        super().__init__(use_multiprocessing)
        self.sequence = sequence
        self.shuffle = shuffle

    def get(self) -> Iterator[Any]:
        """Return an endless iterator over the batches; a batch that is None is skipped.

        Returns
        -------
        Iterator
            The batches, epoch after epoch, until ``stop()``.

        Raises
        ------
        RuntimeError
            If it has not been started.
        ValueError
            From the iterator, if the sequence has no batches.
        Exception
            From the iterator: what ``__getitem__`` raised, the same object, with the index of the batch
            added as a note (PEP 678); the threads have then been stopped.
        """
        self._require_running()
        return self._epochs()

    def _epochs(self) -> Iterator[Any]:
        """Yield batches, and call the end hook when an epoch's last batch has been made."""
        while self.is_running():
            order = list(range(len(self.sequence)))
            if not order:
                msg = f"{type(self.sequence).__name__} has no batches: its length is 0"
                raise ValueError(msg)
            if self.shuffle:
                random.shuffle(order)
            jobs = (partial(self.sequence.__getitem__, index) for index in order)
            for batch, last in self._results(jobs, order):
                if last:
                    self.sequence.on_epoch_end()
                if batch is not None:
                    yield batch


class GeneratorEnqueuer(_Enqueuer):
    """Draws from a generator ahead of its consumer, in a thread.

    Parameters
    ----------
    generator : iterator
        Where the batches come from. It is only ever advanced by one thread, so that order is kept whatever
        the number of workers.
    use_multiprocessing : bool, default False
        Must be False: batches are made in a thread.
    wait_time : float, default 0.05
        Accepted for the sake of Keras 2.1 calls; nothing polls here.
    seed : int, optional
        Accepted for the sake of Keras 2.1 calls; it seeded forked processes.

    Raises
    ------
    ValueError
        If ``use_multiprocessing`` is true.

    Examples
    --------
    >>> enqueuer = GeneratorEnqueuer(iter([1, 2, 3]))
    >>> enqueuer.start()
    >>> list(enqueuer.get())
    [1, 2, 3]
    >>> enqueuer.stop()
    """

    def __init__(
        self,
        generator: Iterator[Any],
        use_multiprocessing: bool = False,
        wait_time: float = 0.05,
        seed: int | None = None,
    ) -> None:
        super().__init__(use_multiprocessing)
        self.generator = generator
        self.wait_time = wait_time
        self.seed = seed

    def get(self) -> Iterator[Any]:
        """Return an iterator over what the generator gives; None is skipped.

        Returns
        -------
        Iterator
            The batches, until the generator ends or ``stop()`` is called.

        Raises
        ------
        RuntimeError
            If it has not been started.
        Exception
            From the iterator: what the generator raised, the same object, with the index of the batch
            added as a note (PEP 678); the thread has then been stopped.
        """
        self._require_running()
        return self._batches()

    def _threads(self, workers: int) -> int:
        """Return one: a generator cannot be advanced by two threads."""
        del workers
        return 1

    def _batches(self) -> Iterator[Any]:
        """Yield batches until the generator ends."""
        draw = partial(next, self.generator, _END)
        for batch, _ in self._results(repeat(draw), count()):
            if batch is _END:
                return
            if batch is not None:
                yield batch
