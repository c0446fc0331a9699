"""A log has the beginning and the end of what a step printed, however much it was."""

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kflow.run.log import StepLog


@given(st.lists(st.binary(max_size=60)))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_log_is_whole_or_has_a_gap_that_it_tells(tmp_path: Path, pieces: list[bytes]) -> None:
    """Never longer than its limit, but for one line and one piece."""
    path = tmp_path / "step.log"
    path.unlink(missing_ok=True)
    log = StepLog(path, head=40, tail=50)
    for piece in pieces:
        log.write(piece)
    log.close()

    text, printed = path.read_bytes() if path.exists() else b"", b"".join(pieces)
    if b"bytes are left out here" not in text:
        assert text == printed
    else:
        head, _, tail = text.partition(b"\n... ")
        note, _, tail = tail.partition(b" bytes are left out here ...\n")
        assert printed == head + printed[40 : 40 + int(note)] + tail
        assert len(head) == 40
        assert 50 <= len(tail) < 110
