"""Tests of blocks that are done in threads."""

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kflow.core.arrays.blocks import do_each


@given(count=st.integers(0, 50), threads=st.integers(-1, 9))
def test_each_block_is_done_once(count, threads):
    """Whatever the number of threads."""
    done = []

    do_each([(number, number + 1) for number in range(count)], lambda *block: done.append(block), threads=threads)

    assert sorted(done) == [(number, number + 1) for number in range(count)]


@pytest.mark.parametrize("where", range(6))
def test_what_a_thread_raises_is_raised(where):
    """Whichever thread it is, when all have ended; what was not begun is left alone."""
    before = threading.active_count()
    done = []

    def do(start, stop):
        del stop
        if start == where:
            raise ZeroDivisionError
        time.sleep(0.01)
        done.append(start)

    with pytest.raises(ZeroDivisionError):
        do_each([(number, number + 1) for number in range(100)], do, threads=2)

    assert len(done) < 20
    assert threading.active_count() == before


def test_the_caller_does_all_where_no_thread_is_to_be_had(monkeypatch):
    """As when Python is about to end."""

    def refuse(thread):
        del thread
        message = "can't start new thread"
        raise RuntimeError(message)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    done = []

    do_each([(0, 1), (1, 2)], lambda *block: done.append(block), threads=2)

    assert done == [(0, 1), (1, 2)]
