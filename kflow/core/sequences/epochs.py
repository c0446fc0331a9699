"""The epochs of a sequence: their hooks, their order, and the workers that make their batches."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Protocol

from kflow.core.sequences.workers import GIVES_UP_AFTER, InThread, Pool

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kflow.core.sequences.processes import InProcess


class BatchSource(Protocol):
    """What batches are read from: a ``Sequence``, or anything with these three methods."""

    def __getitem__(self, index: int, /) -> Any:
        """Return batch ``index``."""

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""

    def on_epoch_end(self) -> None:
        """Run after the last batch of an epoch."""


def begin_epoch(source: Any) -> None:
    """Call the hook that comes before the first batch; classes of the time of Keras 2.1 have none."""
    hook = getattr(source, "on_epoch_begin", None)
    if hook is not None:
        hook()


def end_epoch(source: Any) -> None:
    """Count the epoch, and call the hook that comes after the last batch."""
    if hasattr(source, "epochs_done"):
        source.epochs_done += 1
    source.on_epoch_end()


class Draws:
    """What is drawn at random for the epochs of one training.

    Python's global ``random`` gives the seed and nothing more: what a sequence draws from it while it makes batches,
    which depends on the workers, does not change the order of the epochs; nor do the seeds that only processes need.
    """

    def __init__(self) -> None:
        self._start: int | None = None
        self._generators: dict[str, random.Random] = {}

    def begin(self) -> None:
        """Take the seed now, before batches that are made here draw from the same generator."""
        if self._start is None:
            self._start = random.getrandbits(64)

    def order(self, length: int, *, shuffle: bool) -> list[int]:
        """Return the indices of an epoch."""
        order = list(range(length))
        if shuffle:
            self._generator("orders").shuffle(order)
        return order

    def seed(self) -> int:
        """Return a seed for what processes draw in an epoch."""
        return self._generator("seeds").getrandbits(64)

    def _generator(self, purpose: str) -> random.Random:
        self.begin()
        if purpose not in self._generators:
            self._generators[purpose] = random.Random(f"{self._start} {purpose}")  # noqa: S311 - not a secret
        return self._generators[purpose]


class Crew:
    """The workers of one sequence, over all of its epochs.

    Parameters
    ----------
    source : BatchSource
        Where the batches come from.
    workers : int
        How many there are.
    use_multiprocessing : bool
        Whether each of them makes its batches in a process of its own.
    max_queue_size : int
        How many batches may be made ahead of the consumer.
    timeout : float, optional
        The seconds that one batch may take.
    """

    def __init__(
        self,
        source: Any,
        workers: int,
        *,
        use_multiprocessing: bool = False,
        max_queue_size: int = 10,
        timeout: float | None = None,
    ) -> None:
        self._source = source
        self._ahead = max(max_queue_size, 1)
        name = type(source).__name__
        self._processes: list[InProcess] = []
        if use_multiprocessing:
            from kflow.core.sequences.processes import InProcess

            self._processes = [InProcess(f"{name} worker {number}") for number in range(workers)]
        makers: list[Any] = list(self._processes) or [InThread(source.__getitem__)] * workers
        self.pool = Pool(name, makers, GIVES_UP_AFTER if timeout is None else timeout)

    def prepare(self, draws: Draws) -> None:
        """Get ready for an epoch: processes work with the sequence as it is now.

        Raises
        ------
        TypeError
            When there are processes and the sequence cannot be sent to them.
        """
        if self._processes:
            from kflow.core.sequences.processes import take_snapshot

            snapshot = take_snapshot(self._source, draws.seed())
            for process in self._processes:
                process.snapshot = snapshot

    def batches(self, indices: Iterable[int]) -> Iterator[tuple[int, Any]]:
        """Yield ``(index, batch)`` in the order of the indices, as `kflow.core.sequences.workers.Pool.in_order`."""
        return self.pool.in_order(indices, self._ahead)
