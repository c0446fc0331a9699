"""A step in its thread, beside another run that makes the same."""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from kflow.adapters.fetch import Fetch
from kflow.run.crew import Cancelled, Crew, Job
from kflow.run.steps import carry_out
from kflow.run.workers import Workers
from kflow.store.store import Store

KEY = "ab" * 32


def test_a_wait_for_another_run_ends_with_the_run(tmp_path: Path) -> None:
    """Though the other one still holds what is waited for; the wait is told once, however long it takes."""
    store, over = Store(tmp_path), threading.Event()
    spec = Fetch.model_validate({"origin": "a.txt"})
    told: list[Mapping[str, Any]] = []

    def listen(news: Mapping[str, Any]) -> None:
        told.append(news)
        threading.Timer(0.5, over.set).start()

    with store.claim(KEY), pytest.raises(Cancelled):
        carry_out(Job("s", spec, KEY, {}, 0, {}), Crew(store, Workers(), over), listen)

    assert told == [{"event": "waiting"}]
