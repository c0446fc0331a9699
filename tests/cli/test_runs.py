"""``kflow runs`` lists the records of a store."""

import json
from pathlib import Path

import pytest

from kflow.cli import runs

NEWEST_FIRST = ["20250203T000000-a-3", "20250101T000002-a-2", "20250101T000001-a-1"]


def test_runs_are_listed_newest_first(three_runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Below a head line, without the one that cannot be read."""
    assert runs.run(three_runs, None, as_json=False, least_first=False) == 0

    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["run", *NEWEST_FIRST]


def test_runs_as_json(three_runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Strict JSON, whatever the metrics are."""
    runs.run(three_runs, None, as_json=True, least_first=False)

    listed = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert [record["id"] for record in listed] == NEWEST_FIRST
    assert listed[0]["metrics"] == {"test": {"loss": "NaN", "accuracy": 0.5}}


def test_no_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Is no error; the place is named, and not made."""
    assert runs.run(tmp_path / "none", None, as_json=False, least_first=False) == 0
    assert capsys.readouterr().out == f"no runs in {tmp_path / 'none'}\n"
    assert runs.run(tmp_path / "none", None, as_json=True, least_first=False) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert not (tmp_path / "none").exists()


def test_runs_that_cannot_be_read_are_named(three_runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Beside those that can be, and never in their JSON."""
    told = []
    for as_json in (False, True):
        assert runs.run(three_runs, None, as_json=as_json, least_first=False) == 0
        told.append(capsys.readouterr().err)

    assert told == [f"{three_runs}/runs/20250909T000000-broken/record.json cannot be read: it is damaged\n"] * 2
