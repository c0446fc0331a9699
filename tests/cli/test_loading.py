"""From arguments to values."""

from pathlib import Path

import pytest

from kflow.cli.loading import open_store, open_workspace, parse_overrides
from kflow.errors import UsageError


def test_overrides_are_read_as_yaml() -> None:
    """Only the first equals sign separates; the last of two counts."""
    texts = ["n=3", "rate=1e-3", "on=no", "text=a=b", "list=[1, 2]", "empty=", " spaced = x", "n=4"]

    assert parse_overrides(texts) == {
        "n": 4,
        "rate": 0.001,
        "on": "no",
        "text": "a=b",
        "list": [1, 2],
        "empty": None,
        "spaced": "x",
    }


@pytest.mark.parametrize("text", ["", "=3", "epochs", " =3", "a=[1"])
def test_what_is_no_override_is_told(text: str) -> None:
    """With the text that was given."""
    with pytest.raises(UsageError, match="--set"):
        parse_overrides([text])


def test_places_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store is in the current folder, the workspace is the folder of the file; neither is made."""
    monkeypatch.chdir(tmp_path)

    assert open_store(None).root == tmp_path / ".kflow"
    assert open_store(Path("a/../b")).root == tmp_path / "b"
    assert open_workspace(Path("sub/w.yaml")).root == tmp_path / "sub"
    assert open_workspace(Path("sub/../w.yaml")).root == tmp_path
    assert list(tmp_path.iterdir()) == []
