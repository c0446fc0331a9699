"""The threads that carry steps out."""

import threading
from queue import SimpleQueue

from kflow.run.threads import Threads


def test_calls_beside_each_other_have_a_thread_each() -> None:
    """Three calls that wait for each other all come to their end."""
    threads, meeting = Threads(), threading.Barrier(3)
    ended: SimpleQueue[int] = SimpleQueue()

    def meet() -> None:
        ended.put(meeting.wait(10))

    for number in range(3):
        threads.call(meet, beside=number)
    found = sorted(ended.get(timeout=20) for _ in range(3))
    threads.stop()

    assert found == [0, 1, 2]


def test_a_thread_is_used_again() -> None:
    """A hundred calls, one after another, are made by one thread."""
    threads = Threads()
    names: SimpleQueue[int] = SimpleQueue()
    for _ in range(100):
        threads.call(lambda: names.put(threading.get_ident()), beside=0)
    found = {names.get(timeout=20) for _ in range(100)}
    threads.stop()

    assert len(found) == 1


def test_at_the_end_it_waits_for_calls_under_way() -> None:
    """What was begun is done when `stop` returns, and no thread is left."""
    threads, before = Threads(), threading.active_count()
    go, ended = threading.Event(), []
    threads.call(lambda: ended.append(go.wait(10)), beside=0)
    threading.Timer(0.2, go.set).start()
    threads.stop()

    assert ended == [True]
    assert threading.active_count() <= before + 1  # the timer may still be about to end
