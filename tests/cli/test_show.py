"""``kflow show`` finds a record and shows it."""

import json
import re
from pathlib import Path

import pytest

from kflow.cli import show
from kflow.errors import UsageError


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("20250203T000000-a-3", "20250203T000000-a-3"),
        ("20250101T000002-a-2", "20250101T000002-a-2"),
        ("202502", "20250203T000000-a-3"),
    ],
)
def test_a_run_is_shown_by_id_or_start(
    three_runs: Path, capsys: pytest.CaptureFixture[str], asked: str, found: str
) -> None:
    """As text, and as JSON that says the same."""
    assert show.run(asked, three_runs, as_json=False) == 0
    assert capsys.readouterr().out.splitlines()[0].split() == ["run", found]
    assert show.run(asked, three_runs, as_json=True) == 0
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["id"] == found


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("202501", "2 runs start with '202501'; 'kflow runs' lists them"),
        ("", "4 runs start with ''"),
        ("2024", "no run starts with '2024'"),
        ("20250909", "the run 20250909T000000-broken cannot be read (record.json: it is damaged)"),
        ("latest", "the run 20250909T000000-broken cannot be read (record.json: it is damaged)"),
    ],
)
def test_a_run_that_cannot_be_told(three_runs: Path, asked: str, message: str) -> None:
    """Ambiguous, unknown, or unreadable."""
    with pytest.raises(UsageError, match=re.escape(message)):
        show.run(asked, three_runs, as_json=False)


def test_show_without_runs(tmp_path: Path) -> None:
    """Says where it looked."""
    with pytest.raises(UsageError, match=r"no runs in .*none"):
        show.run("latest", tmp_path / "none", as_json=False)
