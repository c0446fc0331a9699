"""Every example in a docstring runs, and every manual of a kind shows YAML that is right."""

import doctest
import importlib
import pkgutil
import re
import textwrap

import pytest

import kflow
from kflow.adapters import BUILTIN
from kflow.document import parse_document
from kflow.registry import Registry
from kflow.spec.parse import parse_workflow

MODULES = [each.name for each in pkgutil.walk_packages(kflow.__path__, "kflow.") if each.name != "kflow.__main__"]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run(name, tmp_path, monkeypatch):
    """What a docstring shows is what happens."""
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)

    failed, _ = doctest.testmod(module, extraglobs={"Sequence": getattr(module, "Sequence", None)})

    assert failed == 0


def _blocks(manual):
    """Return the indented blocks of a manual that show steps."""
    found = re.findall(r"(?:^|\n)((?:    .*\n|\n)+)", manual + "\n")
    return [textwrap.dedent(block) for block in found if "kind:" in block]


@pytest.mark.parametrize("kind", sorted(BUILTIN))
def test_the_manual_of_a_kind_shows_what_can_be_written(kind):
    """Each block of steps in a manual is YAML, and its fields are those of the kind."""
    blocks = _blocks(Registry()[kind].manual())
    # The steps of a manual may have one name, for they are alternatives; each is read by itself.
    steps = [step for block in blocks for step in re.split(r"\n(?=\w+:\n)", block.strip("\n"))]
    assert steps
    for step in steps:
        text = "kflow: 1\nname: manual\nsteps:\n" + textwrap.indent(step.replace("...", "x"), "  ")

        parsed = parse_workflow(parse_document(text, "manual.yaml"), Registry())

        messages = [each.message for each in parsed.diagnostics]
        assert all("digest" in message for message in messages), messages
