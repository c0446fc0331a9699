"""The threads that carry steps out: they are kept between steps, as starting one takes as long as a small step."""

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

_PATIENCE = 2.0
"""Seconds to wait at the end for threads that are still at work: a download may hear nothing for long."""


class Threads:
    """As many threads as there have been calls under way at once."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._deadline: float | None = None

    def call(self, work: Callable[[], None], *, beside: int) -> None:
        """Let a thread call a function, beside so many that are not done yet."""
        if len(self._threads) <= beside:
            thread = threading.Thread(target=self._serve, daemon=True, name=f"steps {beside}")
            thread.start()
            self._threads.append(thread)
        self._calls.put(work)

    def stop(self) -> None:
        """Wait for the calls under way, though not forever; a second time no longer than the first time allowed."""
        self._deadline = self._deadline or time.monotonic() + _PATIENCE
        for _ in self._threads:
            self._calls.put(None)
        for thread in self._threads:
            thread.join(max(0.0, self._deadline - time.monotonic()))

    def _serve(self) -> None:
        while work := self._calls.get():
            work()
