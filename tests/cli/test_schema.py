"""``kflow schema`` prints what editors and readers of records need."""

import json

import jsonschema
import pytest

from kflow.adapters import BUILTIN
from kflow.cli import schema


@pytest.mark.parametrize("is_record", [False, True])
def test_a_schema_is_a_schema(is_record: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """JSON that ends with one line break, and that a validator takes."""
    assert schema.run(is_record) == 0

    text = capsys.readouterr().out
    assert text.endswith("}\n")
    jsonschema.validators.validator_for(json.loads(text)).check_schema(json.loads(text))


def test_every_kind_is_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    """By the text that a workflow has."""
    schema.run(is_record=False)

    text = capsys.readouterr().out
    assert all(f'"{kind}"' in text for kind in BUILTIN)
