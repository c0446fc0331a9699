"""Events become lines for a person, and a bar where the person watches a terminal."""

import io
import os
import pty
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from kflow.diagnostics import Diagnostic, Mark, Source
from kflow.report.console import Console
from kflow.run import events

EPOCH = {"event": "epoch", "epoch": 1, "epochs": 2, "batch": 10, "batches": 10, "metrics": {"loss": 0.51234}}
BATCH = {"event": "batch", "epoch": 2, "epochs": 2, "batch": 5, "batches": 10, "metrics": {"loss": 0.25}}


def tell(*told: events.Event, is_debug: bool = False) -> str:
    stream = io.StringIO()
    console = Console(stream, is_debug=is_debug)
    for event in told:
        console(event)
    return stream.getvalue()


def on_terminal(tell_all: Callable[[Console], None]) -> str:
    """Give what arrives at the other side of a real terminal."""
    ours, theirs = pty.openpty()
    seen: list[bytes] = []

    def read() -> None:
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # the other side has closed
                return
            seen.append(part)

    reader = threading.Thread(target=read)
    reader.start()
    with os.fdopen(theirs, "w") as stream:
        tell_all(Console(stream))
    reader.join(10)
    os.close(ours)
    return b"".join(seen).decode()


def test_a_run_in_plain_lines() -> None:
    """A line for each start, end and epoch, none for a batch; the last lines say where things lie."""
    text = tell(
        events.RunStarted("id-1", "w.yaml", ("a", "fit")),
        events.StepReused("a", "fetch"),
        events.StepStarted("fit", "train", "epochs: 1 -> 2"),
        events.StepProgress("fit", EPOCH),
        events.StepProgress("fit", BATCH),
        events.StepFinished("fit", "train", 61.0, "loss 0.5"),
        events.RunFinished(
            "id-1",
            "w",
            "succeeded",
            3725.0,
            {"run": 1, "reused": 1, "failed": 0},
            {"test": {"accuracy": 0.98765}},
            {"fit.model": Path("/far/model.keras")},
            Path("/far/record.json"),
        ),
    )

    assert [line.split() for line in text.splitlines()] == [
        line.split()
        for line in (
            "run id-1",
            "a (fetch) reused",
            "fit (train) starts: epochs: 1 -> 2",
            "epoch 1/2 loss 0.5123",
            "fit (train) done in 1:01 min: loss 0.5",
            "",
            "w succeeded in 1:02:05: 1 run, 1 reused",
            "metrics of test accuracy 0.9877",
            "fit.model /far/model.keras",
            "run record /far/record.json",
        )
    ]
    assert "\x1b" not in text


def test_a_download_in_plain_lines() -> None:
    """A line at each quarter, however many parts arrive."""
    text = tell(
        *(
            events.StepProgress("a", {"event": "download", "done": n, "total": 4_000_000})
            for n in range(0, 4_000_001, 9999)
        )
    )

    assert text.split("\n") == [f"    {percent} % of 4.0 MB" for percent in (0, 25, 50, 75)] + [""]


def test_a_further_try_in_a_plain_line() -> None:
    """Who waits is told why; what a server said cannot steer the terminal."""
    told = events.StepProgress("a", {"event": "retry", "text": "try 2 of 5 of http://h/x: no\x1b answer"})

    text = tell(told)

    assert text.startswith("    try 2 of 5 of http://h/x: no")
    assert "\x1b" not in text


FAILURE = events.StepFailed(
    "fit",
    Diagnostic("step 'fit' failed: no luck", Mark(2, 3, 3)),
    Source("w.yaml", "steps:\n  fit: {}\n"),
    Path("/far/fit.log"),
    "Traceback:\n  deep",
)


def test_a_failure_has_place_cause_and_log_and_no_traceback() -> None:
    """Unless it is asked for."""
    lines = tell(FAILURE).splitlines()

    assert lines == [
        "",
        "w.yaml:2:3: step 'fit' failed: no luck",
        "  fit: {}",
        "  ^^^",
        "  the full log is in /far/fit.log",
    ]
    assert tell(FAILURE, is_debug=True).splitlines() == [*lines, "  Traceback:", "    deep"]


def test_what_comes_from_elsewhere_cannot_steer_the_terminal() -> None:
    """Control characters of names, metrics and messages are shown by their escapes, with bar and without."""
    evil = "a\x1b]0;title\x07\x1b[2Jb"
    told = [
        events.StepStarted("fit", "train", evil),
        events.StepProgress("fit", {**BATCH, "metrics": {evil: 1.0}}),
        events.StepProgress("fit", {**EPOCH, "metrics": {evil: 1.0}}),
        events.StepFinished("fit", "train", 1.0, evil),
    ]

    def tell_all(console: Console) -> None:
        for event in told:
            console(event)

    for text in (tell(*told), on_terminal(tell_all)):
        assert "\x07" not in text
        assert "\x1b[2J" not in text
        assert "title" in text


def test_a_terminal_gets_a_bar_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """It shows step, epoch and metrics; the lines of the epochs stay above it, and the cursor comes back."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")

    def tell_all(console: Console) -> None:
        console(events.StepStarted("fit", "train", "never run before"))
        console(events.StepProgress("fit", EPOCH))
        console(events.StepProgress("fit", {**BATCH, "metrics": {"[red]:smile:": 1.0}}))
        console(events.StepFinished("fit", "train", 1.0, ""))

    text = on_terminal(tell_all)
    assert "fit  epoch 2/2" in text
    assert "[red]:smile: 1" in text
    assert "epoch 1/2  loss 0.5123" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    assert text.rstrip().endswith("done in 1.0 s")


@pytest.mark.parametrize("total", [2_500_000, None])
def test_a_terminal_gets_a_bar_for_a_download(total: int | None) -> None:
    """With the bytes so far, also where nobody knows how many will come."""

    def tell_all(console: Console) -> None:
        console(events.StepProgress("data", {"event": "download", "done": 1_200_000, "total": total}))
        console.close()

    text = on_terminal(tell_all)
    assert "data" in text
    assert ("1.2 MB of 2.5 MB" if total else "1.2 MB") in text


def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as that of an editor."""
    monkeypatch.setenv("TERM", "dumb")

    assert "\x1b" not in on_terminal(lambda console: console(events.StepProgress("fit", EPOCH)))


def test_progress_of_an_unknown_sort_is_no_error() -> None:
    """A kind of somebody else's may report what this console has no words for."""
    assert tell(events.StepProgress("a", {"event": "thinking"})) == ""
    assert "done" in on_terminal(
        lambda console: [
            console(event)
            for event in (events.StepProgress("a", {"event": "thinking"}), events.StepFinished("a", "k", 1.0, ""))
        ].clear()
    )


def test_a_reader_that_has_gone_is_no_error() -> None:
    """Nothing can be told any more, and nothing fails."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "w") as stream:
        console = Console(stream)
        console(events.StepReused("a", "fetch"))
        console(events.StepReused("b", "fetch"))

        assert os.fstat(stream.fileno()).st_rdev == Path(os.devnull).stat().st_rdev
