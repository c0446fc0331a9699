"""Binding: references followed to outputs of the right type, steps in order, files and contents checked."""

import os
from pathlib import Path

import pytest

from kflow.document import parse_document
from kflow.errors import WorkflowError
from kflow.plan.resolve import Bound, bind, describe_broken_module
from kflow.registry import Registry
from kflow.spec.parse import parse_workflow
from kflow.workspace import Workspace

HEAD = "kflow: 1\nname: a\nsteps:\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file to read and a module."""
    (tmp_path / "a.h5").write_bytes(b"any bytes")
    (tmp_path / "layers.py").write_text("class Swish: pass\n")
    return tmp_path


def bind_text(folder: Path, steps: str, *, check_contents: bool = False) -> Bound:
    """Bind a workflow in a folder."""
    parsed = parse_workflow(parse_document(HEAD + steps, "a.yaml"), Registry())
    workspace = Workspace(folder)
    try:
        return bind(parsed, workspace, check_contents=check_contents)
    finally:
        workspace.probe.stop()


def complaints(folder: Path, steps: str, *, check_contents: bool = False) -> list[tuple[str, int, str | None]]:
    """Return message, line (counted from the first step) and hint of all that is wrong."""
    with pytest.raises(WorkflowError, match="problem") as caught:
        bind_text(folder, steps, check_contents=check_contents)
    found = [(each.message, each.mark.line - 3, each.hint) for each in caught.value.diagnostics if each.mark]
    return sorted(found, key=lambda each: each[1])


def test_a_bound_workflow_has_its_order_and_links(folder: Path) -> None:
    """Each reference becomes a link to an output; the only output of a step needs no name."""
    bound = bind_text(
        folder,
        '  b: {kind: normalize, x: "${a}"}\n'
        '  a: {kind: slice_hdf5, datapath: "${f.file}", dataset: x}\n'
        "  f: {kind: fetch, origin: a.h5}\n"
        '  p: {kind: predict, model: "${m.model}", x: {left: "${a}", right: "${b.array}"}}\n'
        '  m: {kind: load_model, filepath: "${f}"}\n',
    )

    assert bound.order == ("f", "a", "b", "m", "p")
    assert [(link.path, link.text, link.source) for link in bound.links["p"]] == [
        (("model",), "${m.model}", "m.model"),
        (("x", "left"), "${a}", "a.array"),
        (("x", "right"), "${b.array}", "b.array"),
    ]
    assert [link.source for link in bound.links["a"]] == ["f.file"]
    assert bound.links["f"] == ()


@pytest.mark.parametrize(
    ("fields", "message", "hint"),
    [
        ('kind: normalize, x: "${aray}"', "there is no step 'aray'", "did you mean 'array'?"),
        (
            'kind: normalize, x: "${array.aray}"',
            "step 'array' (kind slice_hdf5) has no output 'aray'",
            "did you mean 'array'?",
        ),
        ('kind: normalize, x: "${array.q}"', "step 'array' (kind slice_hdf5) has no output 'q'", "it has array"),
        (
            'kind: plot_model, model: "${fit}"',
            "step 'fit' has 2 outputs; say which one",
            "one of ${fit.model}, ${fit.history}",
        ),
        (
            'kind: normalize, x: "${model}"',
            "field 'x' of kind normalize takes an array, but ${model.model} is a model",
            None,
        ),
        (
            'kind: predict, model: "${model}", x: ["${array}", "${fit.history}"]',
            "field 'x.1' of kind predict takes an array, but ${fit.history} is a history",
            None,
        ),
        (
            'kind: slice_hdf5, dataset: x, datapath: "${array}"',
            "field 'datapath' of kind slice_hdf5 takes a file, but ${array.array} is an array",
            None,
        ),
        (
            'kind: predict, model: "${model}", x: "${array}", objects: "${array}"',
            "field 'objects' of kind predict takes objects, but ${array.array} is an array",
            None,
        ),
    ],
)
def test_a_reference_that_leads_nowhere_is_told(folder: Path, fields: str, message: str, hint: str | None) -> None:
    """Steps, outputs and types are checked, with what was probably meant."""
    steps = (
        "  array: {kind: slice_hdf5, datapath: a.h5, dataset: x}\n"
        "  model: {kind: load_model, filepath: a.h5}\n"
        '  fit: {kind: train, model: "${model}", x: "${array}", y: "${array}", loss: mse}\n'
    )

    assert complaints(folder, f"{steps}  last: {{{fields}}}\n") == [(message, 4, hint)]


def test_one_step_that_is_not_sound_hides_nothing(folder: Path) -> None:
    """References of a broken step, references to it, and cycles through it are checked all the same."""
    steps = (
        '  a: {kind: normalize, x: "${nowhere}", axes: 1}\n'
        '  b: {kind: normalize, x: "${a.aray}"}\n'
        '  c: {kind: normalize, x: "${c}", axes: 1}\n'
        '  d: {kind: normalise, x: "${f}"}\n'
        '  e: {kind: normalize, x: "${d.anything}"}\n'
        "  f: 3\n"
        '  g: {kind: normalize, x: "${f}"}\n'
    )

    assert [each[:2] for each in complaints(folder, steps)] == [
        ("unknown field 'axes' of kind normalize", 1),
        ("there is no step 'nowhere'", 1),
        ("step 'a' (kind normalize) has no output 'aray'", 2),
        ("unknown field 'axes' of kind normalize", 3),
        ("step 'c' refers to itself", 3),
        ("unknown kind 'normalise'", 4),
        ("expected a mapping, got 3", 6),
    ]


def test_cycles_are_told_as_paths(folder: Path) -> None:
    """Every cycle stands at the reference of its first step."""
    steps = (
        '  c: {kind: normalize, x: "${b}"}\n'
        '  a: {kind: normalize, x: "${c}"}\n'
        '  b: {kind: normalize, x: "${a}"}\n'
        '  d: {kind: normalize, x: "${d.array}"}\n'
    )

    assert complaints(folder, steps) == [
        ("steps wait for each other: c -> b -> a -> c", 1, None),
        ("step 'd' refers to itself", 4, None),
    ]


def test_files_that_cannot_be_read_are_told(folder: Path) -> None:
    """What is not there, or no file, is found without running anything."""
    (folder / "sub").mkdir()
    os.mkfifo(folder / "pipe")
    long = "x" * 300
    steps = (
        "  a: {kind: fetch, origin: b.h5}\n"
        "  b: {kind: fetch, origin: sub}\n"
        f"  c: {{kind: fetch, origin: {long}}}\n"
        f"  d: {{kind: fetch, origin: 'file://{folder}/a.h5'}}\n"
        "  e: {kind: fetch, origin: 'http://example.org/a.h5'}\n"
        "  f: {kind: fetch, origin: pipe}\n"
        "  g: {kind: load_model, filepath: /dev/null}\n"
    )

    assert complaints(folder, steps) == [
        ("the file 'b.h5' does not exist", 1, f"looked for {folder}/b.h5"),
        ("the file 'sub' is a folder, not a file", 2, f"looked for {folder}/sub"),
        (f"the file {long!r} cannot be read: {os.strerror(36)}", 3, f"looked for {folder}/{long}"),
        ("the file 'pipe' is no regular file", 6, f"looked for {folder}/pipe"),
        ("the file '/dev/null' is no regular file", 7, "looked for /dev/null"),
    ]


def test_no_step_writes_over_what_another_reads_or_writes(folder: Path) -> None:
    """Two names of one file are the same file; a folder is no file to write."""
    (folder / "sub").mkdir()
    steps = (
        "  m: {kind: load_model, filepath: a.h5}\n"
        '  p: {kind: plot_model, model: "${m}", to_file: out.png}\n'
        '  q: {kind: plot_model, model: "${m}", to_file: sub/../out.png}\n'
        '  r: {kind: plot_model, model: "${m}", to_file: ./a.h5}\n'
        '  s: {kind: plot_model, model: "${m}", to_file: sub}\n'
    )

    assert complaints(folder, steps) == [
        ("steps 'p' and 'q' both write 'sub/../out.png'", 3, None),
        ("step 'r' writes './a.h5', which 'm' reads", 4, None),
        ("'sub' is a folder, not a file to write", 5, None),
    ]


def test_no_step_writes_over_what_the_workflow_is_made_of(folder: Path) -> None:
    """Through links too: the workflow file, modules and what they import, and data are left alone."""
    (folder / "a.yaml").write_text(HEAD)
    (folder / "more.py").write_text("x = 1\n")
    (folder / "layers.py").write_text("import more\nclass Swish: pass\n")
    (folder / "link.h5").symlink_to("a.h5")
    (folder / "here").symlink_to(".")
    outputs = ("a.yaml", "here/a.yaml", "layers.py", "more.py", "a.h5", "out.png", "here/out.png")
    steps = "  m: {kind: load_model, filepath: link.h5}\n"
    steps += "  o: {kind: register_objects, objects: {Swish: 'layers.py:Swish'}}\n"
    for number, output in enumerate(outputs):
        steps += f'  p{number}: {{kind: plot_model, model: "${{m}}", to_file: {output}}}\n'

    assert complaints(folder, steps) == [
        ("step 'p0' writes 'a.yaml', which is this workflow itself", 3, None),
        ("steps 'p0' and 'p1' both write 'here/a.yaml'", 4, None),
        ("step 'p1' writes 'here/a.yaml', which is this workflow itself", 4, None),
        ("step 'p2' writes 'layers.py', which 'o' reads", 5, None),
        ("step 'p3' writes 'more.py', which 'o' reads", 6, None),
        ("step 'p4' writes 'a.h5', which 'm' reads", 7, None),
        ("steps 'p5' and 'p6' both write 'here/out.png'", 9, None),
    ]


def test_symbols_are_looked_for_in_their_modules(folder: Path) -> None:
    """A name that a module does not define, a module that is none and one that is missing are told."""
    (folder / "broken.py").write_text("def f(:\n")
    (folder / "binary.py").write_bytes(b"x = '\xff'\n")
    steps = (
        "  a:\n"
        "    kind: register_objects\n"
        "    objects:\n"
        "      A: layers.py:Swish\n"
        "      B: layers.py:Swich\n"
        "      C: broken.py:f\n"
        "      D: nowhere.py:f\n"
        "      E: binary.py:x\n"
    )

    found = complaints(folder, steps)

    assert [each[1] for each in found] == [5, 6, 7, 8]
    assert found[0] == ("layers.py defines no 'Swich'", 5, "did you mean 'Swish'?")
    assert found[1][0].startswith("broken.py:1:7: syntax error: ")
    assert found[2][0] == "the file 'nowhere.py' does not exist"
    assert found[3][0].startswith("binary.py")


def test_a_broken_module_that_a_module_imports_is_told(folder: Path) -> None:
    """The code of a step is all that its module imports."""
    (folder / "broken.py").write_text("def f(:\n")
    (folder / "layers.py").write_text("import broken\nclass Swish: pass\n")
    steps = "  a: {kind: register_objects, objects: {A: 'layers.py:Swish'}}\n"

    ((message, _, _),) = complaints(folder, steps)

    assert message == "layers.py imports a module that cannot be used: invalid syntax (broken.py, line 1)"


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ("from .rel import S as T", "write 'from rel import S as T', or "),
        ("from . import rel", "write 'import rel', or "),
        ("from . import *", ""),
        ("from ..pkg.rel import S", ""),
    ],
)
def test_a_relative_import_in_a_module_that_is_named_is_told(folder: Path, line: str, advice: str) -> None:
    """It is run as part of no package; what to write instead is told."""
    (folder / "pkg").mkdir()
    (folder / "pkg" / "rel.py").write_text("S = 1\n")
    (folder / "pkg" / "part.py").write_text(f"import os\n{line}\ndef f(x): return x\n")
    steps = "  x: {kind: slice_hdf5, datapath: a.h5, dataset: images, normalizer: 'pkg/part.py:f'}\n"

    found = complaints(folder, steps)

    message = f"pkg/part.py:2: '{line}' fails, as a module that a step names is part of no package"
    above = "name a module above the package that has 'from pkg.part import f'"
    assert found == [(message, 1, advice + above)]


def test_a_relative_import_that_need_not_be_reached_is_left_alone(folder: Path) -> None:
    """As one that another import stands in for, and those of modules that are imported as parts of a package."""
    (folder / "pkg").mkdir()
    (folder / "pkg" / "rel.py").write_text("from . import part\n")
    (folder / "pkg" / "part.py").write_text(
        "try:\n    from .rel import S\nexcept ImportError:\n    S = 1\ndef f(x):\n    from .rel import S\n"
    )
    (folder / "layers.py").write_text("from pkg import rel\nclass Swish: pass\n")
    steps = (
        "  x: {kind: slice_hdf5, datapath: a.h5, dataset: images, normalizer: 'pkg/part.py:f'}\n"
        "  a: {kind: register_objects, objects: {A: 'layers.py:Swish'}}\n"
    )

    assert bind_text(folder, steps).order == ("x", "a")


def test_a_module_that_another_one_comes_before_is_told_at_its_place(folder: Path) -> None:
    """What its import statement would run is not what lies beside it."""
    (folder / "yaml.py").write_text("")
    (folder / "layers.py").write_text("import yaml\nclass Swish: pass\n")
    steps = "  a: {kind: register_objects, objects: {A: 'layers.py:Swish'}}\n"

    ((message, _, _),) = complaints(folder, steps)

    assert message.startswith("layers.py imports a module that cannot be used: 'yaml' is yaml.py beside it and also /")
    assert message.endswith("/yaml/__init__.py, which comes first for Python; rename yaml.py")


def test_contents_are_looked_into_if_asked_for(folder: Path) -> None:
    """A file that is no HDF5, and names that Keras does not know, are found by the steps themselves."""
    steps = (
        "  x: {kind: slice_hdf5, datapath: a.h5, dataset: images}\n"
        "  m: {kind: build_model}\n"
        "  n:\n"
        "    kind: build_model\n"
        "    layers:\n"
        "      - Input: {shape: [3]}\n"
        "      - Dense: {units: 3, activation: rellu}\n"
    )

    found = complaints(folder, steps, check_contents=True)

    assert bind_text(folder, steps).order == ("x", "m", "n")
    assert [each[1:] for each in found] == [(1, None), (2, None), (7, "did you mean 'relu'?")]
    assert "is not a complete HDF5 file" in found[0][0]
    assert found[1][0] == "a model is built from exactly one of layers, config and function; this one has none"


def test_a_misspelt_key_is_marked_at_the_key_and_a_misspelt_value_at_the_value(folder: Path) -> None:
    """The caret stands under the word that is wrong."""
    steps = "  m: {kind: build_model, layers: [Input: {shape: [3]}, Dense: {unit: 3, activation: rellu}]}\n"

    with pytest.raises(WorkflowError, match="2 problems") as caught:
        bind_text(folder, steps, check_contents=True)

    marks = [each.mark for each in caught.value.diagnostics if each.mark]
    assert [steps[mark.column - 1 :][: mark.length] for mark in marks] == ["unit", "rellu"]


def test_a_file_that_may_not_be_read_is_a_complaint(folder: Path) -> None:
    """What a step finds unreadable while it looks is told with the file."""

    class Refusing(Workspace):
        """A workspace whose files may not be read."""

        def digest(self, path: str, algorithm: str = "sha256") -> str:
            """Refuse."""
            del algorithm
            raise PermissionError(13, "Permission denied", path)

    text = HEAD + f"  a: {{kind: fetch, origin: a.h5, file_hash: 'sha256:{'0' * 64}'}}\n"
    parsed = parse_workflow(parse_document(text, "a.yaml"), Registry())

    with pytest.raises(WorkflowError, match=r"a\.yaml:4:3: cannot look at a\.h5: Permission denied"):
        bind(parsed, Refusing(folder))


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (SyntaxError("bad", ("x", 3, 7, "", 3, 8)), "l.py:3:7: syntax error: bad"),
        (SyntaxError("bad"), "l.py: syntax error: bad"),
        (PermissionError(13, "Permission denied", "x"), "the file 'l.py' cannot be read: Permission denied"),
        (ValueError("source code string cannot contain null bytes"), "the file 'l.py' cannot be read: source code"),
    ],
)
def test_a_broken_module_is_described_in_one_sentence(error: Exception, sentence: str) -> None:
    """The reason names the module as the workflow does."""
    assert describe_broken_module("l.py", error).startswith(sentence)
