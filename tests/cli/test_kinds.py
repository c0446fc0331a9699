"""``kflow kinds``: the manual."""

import pytest

from kflow.adapters import BUILTIN
from kflow.cli import kinds
from kflow.errors import UsageError


def test_every_kind_has_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """With a sentence on what it does."""
    assert kinds.run(None) == 0

    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines] == sorted(BUILTIN)
    assert all(line[1].endswith(".") for line in lines)


@pytest.mark.parametrize("kind", sorted(BUILTIN))
def test_the_manual_of_a_kind(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Shows an example, the outputs and the fields."""
    assert kinds.run(kind) == 0

    text = capsys.readouterr().out
    assert f"kind: {kind}" in text
    assert "Outputs:" in text
    assert "Fields:" in text


def test_an_unknown_kind() -> None:
    """A near name is offered."""
    with pytest.raises(UsageError, match="unknown kind 'trian'; did you mean 'train'"):
        kinds.run("trian")
    with pytest.raises(UsageError, match="'kflow kinds' lists them"):
        kinds.run("xyzzy")
