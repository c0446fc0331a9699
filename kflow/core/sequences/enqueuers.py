"""The two enqueuers of Keras 2.1, which make batches ahead of a loop that somebody writes by hand."""

from __future__ import annotations

import weakref
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

from kflow.core.sequences.epochs import Crew, Draws, begin_epoch, end_epoch
from kflow.core.sequences.workers import GIVES_UP_AFTER, InThread, Pool, require_limits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kflow.core.sequences.epochs import BatchSource

__all__ = ["GeneratorEnqueuer", "OrderedEnqueuer"]

_END = object()


class _Enqueuer:
    """Starts and stops the workers."""

    def __init__(self) -> None:
        self._pool: Pool | None = None
        self._stream: Iterator[Any] = iter(())

    def start(self, workers: int = 1, max_queue_size: int = 10, *, timeout: float | None = None) -> None:
        """Start the workers; the first batches are made when the first one is asked for.

        Parameters
        ----------
        workers : int, default 1
            The number of threads or processes.
        max_queue_size : int, default 10
            How many batches may be made ahead of the consumer.
        timeout : float, optional
            How many seconds the making of one batch may take; default 600.

        Raises
        ------
        ValueError
            If a number is too small, or none.
        RuntimeError
            If it has been started already.
        """
        require_limits(workers, max_queue_size, timeout, least=1)
        if self.is_running():
            msg = f"this {type(self).__name__} runs already; call stop() before start()"
            raise RuntimeError(msg)
        self._pool, self._stream = self._begin(workers, max_queue_size, timeout)
        weakref.finalize(self._stream, self._pool.close)  # for those who forget to call stop()

    def is_running(self) -> bool:
        """Whether it has been started and not been stopped."""
        return self._pool is not None and self._pool.is_open

    def stop(self, timeout: float | None = None) -> None:
        """Drop the batches not yet handed over and end the workers; ``get()`` then ends.

        Parameters
        ----------
        timeout : float, optional
            How many seconds to wait for the batches being made; None waits until they are done.
        """
        if self._pool is not None:
            self._pool.close()
            self._pool.join(timeout)

    def _begin(self, workers: int, max_queue_size: int, timeout: float | None) -> tuple[Pool, Iterator[Any]]:
        """Start the workers; return them and the stream of batches, neither of which may refer to the enqueuer."""
        raise NotImplementedError

    def _get(self) -> Iterator[Any]:
        """Return the stream of batches, or raise unless started."""
        if not self.is_running():
            msg = f"this {type(self).__name__} does not run; call start() before get()"
            raise RuntimeError(msg)
        return self._stream


class OrderedEnqueuer(_Enqueuer):
    """Makes the batches of a ``Sequence`` ahead in threads or processes, and gives them in order, epoch after epoch.

    Parameters
    ----------
    sequence : Sequence
        Where the batches come from: anything with ``__getitem__``, ``__len__`` and ``on_epoch_end``. With several
        threads its ``__getitem__`` must be safe to call from all of them; with processes it must be picklable.
        Its length is read anew for each epoch.
    use_multiprocessing : bool, default False
        Make batches in processes. They are started anew, not forked, and load TensorFlow only if the module that
        defines the sequence does so.
    shuffle : bool, default False
        Draw a new order for each epoch. Python's global ``random`` decides it when the enqueuer is started.

    Raises
    ------
    TypeError
        From the iterator, when there are to be processes and the sequence cannot be sent to them.

    Notes
    -----
    ``on_epoch_begin()``, if there is one, runs before the first batch of each epoch, and ``on_epoch_end()`` after the
    last one has been made and before it is handed over. No batch of an epoch is asked for earlier.

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
        super().__init__()
        if not hasattr(type(sequence), "__getitem__") or not hasattr(type(sequence), "__len__"):
            msg = f"sequence must be a Sequence, or have its methods, not {sequence!r}"
            raise TypeError(msg)
        self.sequence = sequence
        self.use_multiprocessing = use_multiprocessing
        self.shuffle = shuffle

    def get(self) -> Iterator[Any]:
        """Return an endless iterator over the batches; a batch that is None is skipped.

        Returns
        -------
        Iterator
            The batches, epoch after epoch, until ``stop()``; the same iterator for each call.

        Raises
        ------
        RuntimeError
            If it has not been started; from the iterator, if a worker process died.
        ValueError
            From the iterator, if the sequence has no batches.
        TimeoutError
            From the iterator, if a batch takes too long; it names the worker and where it stands.
        Exception
            From the iterator: what ``__getitem__`` raised, with the index of the batch added as a note (PEP 678):
            the same object when there are threads, and its like with the text of its traceback when there are
            processes. The workers have then been stopped.
        """
        return self._get()

    def _begin(self, workers: int, max_queue_size: int, timeout: float | None) -> tuple[Pool, Iterator[Any]]:
        crew = Crew(
            self.sequence,
            workers,
            use_multiprocessing=self.use_multiprocessing,
            max_queue_size=max_queue_size,
            timeout=timeout,
        )
        return crew.pool, _epochs(self.sequence, crew, shuffle=self.shuffle)


def _epochs(sequence: BatchSource, crew: Crew, *, shuffle: bool) -> Iterator[Any]:
    """Yield the batches of all epochs until the workers are stopped."""
    draws = Draws()
    with _closing(crew.pool):
        while crew.pool.is_open:
            begin_epoch(sequence)
            order = draws.order(len(sequence), shuffle=shuffle)
            if not order:
                msg = f"{type(sequence).__name__} has no batches: its length is 0"
                raise ValueError(msg)
            crew.prepare(draws)
            yield from _epoch(sequence, crew, order)


def _epoch(sequence: BatchSource, crew: Crew, order: list[int]) -> Iterator[Any]:
    """Yield the batches of an epoch, and call the end hook when the last one has been made."""
    for number, (_, batch) in enumerate(crew.batches(order), 1):
        if number == len(order):
            end_epoch(sequence)
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
        Accepted for the sake of Keras 2.1 calls. A generator cannot be sent to another process, and forked copies of
        it, as Keras 2.1 had them, gave each batch once per process: it is drawn from in a thread all the same.
        Make it a ``Sequence`` to use processes.
    wait_time : float, default 0.05
        Accepted for the sake of Keras 2.1 calls; nothing polls here.
    seed : int, optional
        Accepted for the sake of Keras 2.1 calls; it seeded forked processes.

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
        super().__init__()
        self.generator = generator
        self.use_multiprocessing = use_multiprocessing
        self.wait_time = wait_time
        self.seed = seed

    def get(self) -> Iterator[Any]:
        """Return an iterator over what the generator gives; None is skipped.

        Returns
        -------
        Iterator
            The batches, until the generator ends or ``stop()`` is called; the same iterator for each call.

        Raises
        ------
        RuntimeError
            If it has not been started.
        TimeoutError
            From the iterator, if the generator takes too long; it tells where it stands.
        Exception
            From the iterator: what the generator raised, the same object, with the index of the batch
            added as a note (PEP 678); the thread has then been stopped.
        """
        return self._get()

    def _begin(self, workers: int, max_queue_size: int, timeout: float | None) -> tuple[Pool, Iterator[Any]]:
        del workers  # a generator cannot be advanced by two threads
        maker = InThread(partial(_draw, self.generator))
        pool = Pool("generator", [maker], GIVES_UP_AFTER if timeout is None else timeout)
        return pool, _drawn(pool, max_queue_size)


def _draw(generator: Iterator[Any], index: int) -> Any:
    del index  # a generator knows where it is
    return next(generator, _END)


def _drawn(pool: Pool, ahead: int) -> Iterator[Any]:
    """Yield what is drawn until the generator ends."""
    with _closing(pool):
        for _, batch in pool.in_order(count(), ahead):
            if batch is _END:
                return
            if batch is not None:
                yield batch


@contextmanager
def _closing(pool: Pool) -> Iterator[None]:
    """Let the workers go when something goes wrong, or when nobody wants the batches any more."""
    try:
        yield
    except BaseException:
        pool.close()
        raise
