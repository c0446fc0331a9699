"""The registry: built-in kinds, and those of installed packages, imported when a workflow names them."""

import subprocess
import sys
from pathlib import Path

import pytest

from kflow.adapters import BUILTIN
from kflow.document import parse_document
from kflow.errors import UsageError
from kflow.registry import Registry
from kflow.spec.base import StepSpec
from kflow.spec.parse import parse_workflow
from kflow.spec.schema import workflow_schema

MODULE = '''"""Turn the rows of an array round."""

from kflow.spec.base import StepOutputs, StepSpec
from kflow.spec.types import Array


class Reverse(StepSpec, kind="reverse", version=1):
    """Rows, the last first."""

    x: Array

    class Outputs(StepOutputs):
        """What others may reference."""

        array: Array
'''


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages, on the path of Python for one test."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return tmp_path


def install(site: Path, package: str, points: str, module: str = MODULE) -> None:
    """Lay a package down as pip does."""
    (site / f"{package}.py").write_text(module)
    info = site / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[kflow.adapters]\n{points}\n")


@pytest.mark.parametrize("name", sorted(BUILTIN))
def test_a_built_in_kind_is_a_spec_of_its_name(name: str) -> None:
    """The table and the classes agree."""
    kind = Registry()[name]

    assert issubclass(kind, StepSpec)
    assert (kind.kind, kind.manual().partition("\n")[0][-1:]) == (name, ".")
    assert kind.Outputs.types()


def test_naming_the_kinds_imports_none() -> None:
    """Asking what there is costs no import of a kind."""
    code = (
        "import sys; from kflow.registry import Registry; kinds = Registry();"
        "assert 'train' in kinds and 'nothing' not in kinds and len(list(kinds)) == len(kinds);"
        "print(sorted(each for each in sys.modules if each.startswith('kflow.adapters.')))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


def test_an_installed_package_brings_a_kind(site: Path) -> None:
    """Its kind is listed without an import, and works like a built-in one once a workflow names it."""
    install(site, "turning", "reverse = turning:Reverse")
    kinds = Registry()

    assert list(kinds) == sorted([*BUILTIN, "reverse"])
    assert "reverse" in kinds
    assert "turning" not in sys.modules

    text = 'kflow: 1\nname: a\nsteps:\n  a: {kind: reverse, x: "${b}"}\n  b: {kind: reverse, y: 1}'
    parsed = parse_workflow(parse_document(text, "a.yaml"), kinds)

    assert type(parsed.workflow.steps["a"].spec).__name__ == "Reverse"
    assert "unknown field 'y' of kind reverse" in [each.message for each in parsed.diagnostics]
    assert kinds["reverse"].manual() == "Turn the rows of an array round."
    assert workflow_schema(kinds)["$defs"]["reverse"]["properties"]["x"]["description"].startswith("A reference to")


def test_a_workflow_of_built_in_kinds_imports_no_package(site: Path) -> None:
    """A broken package disturbs only those who use it."""
    install(site, "broken_package", "other = broken_package:Other", "raise RuntimeError('not today')")

    parsed = parse_workflow(
        parse_document("kflow: 1\nname: a\nsteps:\n  a: {kind: fetch, origin: x}", "a.yaml"), Registry()
    )

    assert list(parsed.workflow.steps) == ["a"]


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("raise RuntimeError('not today')", "the kind 'other' of the package 'some' cannot be imported: not today"),
        ("def broken(:", "the kind 'other' of the package 'some' cannot be imported: "),
        ("x = 1", "the kind 'other' of the package 'some' cannot be imported: .*Other"),
        ("Other = 3", "some:Other of the package 'some' is no step kind 'other'"),
        ("class Other: pass", "some:Other of the package 'some' is no step kind 'other'"),
        (MODULE + "\n\nOther = Reverse", "some:Other of the package 'some' is no step kind 'other'"),
    ],
)
def test_a_package_whose_kind_is_none_is_named(site: Path, module: str, words: str) -> None:
    """Whoever uses the kind is told which package is at fault."""
    install(site, "some", "other = some:Other", module)

    with pytest.raises(UsageError, match=words):
        Registry()["other"]


def test_no_package_replaces_a_built_in_kind(site: Path) -> None:
    """A workflow means the same on every machine."""
    install(site, "sly", "train = sly:Train")

    with pytest.raises(UsageError, match="the package 'sly' wants to replace the built-in kind 'train'; uninstall it"):
        list(Registry())


def test_two_packages_with_one_name_are_refused(site: Path) -> None:
    """Which of them was meant cannot be told."""
    install(site, "one", "reverse = one:Reverse")
    install(site, "two", "reverse = two:Reverse")

    with pytest.raises(UsageError, match="both bring a kind 'reverse'; uninstall one"):
        list(Registry())


def test_a_kind_that_is_not_there_is_a_key_error() -> None:
    """The registry is a mapping."""
    with pytest.raises(KeyError, match="nothing"):
        Registry()["nothing"]
