"""From a document to typed steps: params, overrides, the environment, and every complaint at its place."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kflow.document import load_document, parse_document
from kflow.errors import UsageError, WorkflowError
from kflow.plan.resolve import bind
from kflow.registry import Registry
from kflow.spec.complaints import describe_value
from kflow.spec.parse import Parsed, override, parse_workflow
from kflow.workspace import Workspace

WORKFLOWS = Path(__file__).parents[1] / "workflows"
KINDS = Registry()


def parse(text: str, overrides: dict[str, Any] | None = None, **environ: str) -> Parsed:
    """Parse the text of a workflow."""
    return parse_workflow(parse_document(text, "a.yaml"), KINDS, overrides=overrides, environ=environ)


def parse_step(fields: str, params: str = "{}", overrides: dict[str, Any] | None = None, **environ: str) -> Any:
    """Parse a workflow of one sound step, and return the step."""
    parsed = parse(f"kflow: 1\nname: a\nparams: {params}\nsteps:\n  a: {fields}", overrides, **environ)
    assert not parsed.diagnostics
    return parsed.workflow.steps["a"]


def complaints(parsed: Parsed) -> list[tuple[str, int, int]]:
    """Return every complaint with its line and column, in the order of the file."""
    found = [(each.message, each.mark.line, each.mark.column) for each in parsed.diagnostics if each.mark]
    return sorted(found, key=lambda each: each[1:])


# --- params, overrides and the environment ------------------------------------------------------------------


def test_a_param_keeps_its_type_and_becomes_text_inside_text() -> None:
    """A number stays a number where it stands alone; a nested param is named by its path."""
    step = parse_step(
        '{kind: slice_hdf5, datapath: "d-${params.run}.h5", dataset: "${params.in.set}", end: "${params.rows}"}',
        "{rows: 5, run: 3, in: {set: images}}",
    )

    assert (step.spec.datapath, step.spec.dataset, step.spec.end) == ("d-3.h5", "images", 5)
    assert step.fields == {"datapath": "d-3.h5", "dataset": "images", "end": 5}


def test_a_param_can_be_a_list_or_a_mapping() -> None:
    """What stands alone may be of any type, also a nested one."""
    step = parse_step(
        '{kind: slice_hdf5, datapath: a.h5, dataset: x, normalizer: "${params.scaling}"}',
        '{scaling: {scale: "${env.SCALE}", offset: 1}}',
        SCALE="0.5",
    )

    assert (step.spec.normalizer.scale, step.spec.normalizer.offset) == (0.5, 1)


def test_overrides_replace_params_at_any_depth() -> None:
    """`--set` wins over the file, for a param inside another one too."""
    step = parse_step(
        '{kind: slice_hdf5, datapath: a.h5, dataset: "${params.in.set}", end: "${params.rows}"}',
        "{rows: 5, in: {set: images}}",
        {"rows": 7, "in.set": "labels"},
    )

    assert (step.spec.dataset, step.spec.end) == ("labels", 7)


def test_an_override_leaves_its_argument_alone() -> None:
    """The params of the file are not changed."""
    params = {"a": 1, "b": {"c": 2, "d": 3}}

    assert override(params, {"b.c": [4], "a": None}) == {"a": None, "b": {"c": [4], "d": 3}}
    assert params == {"a": 1, "b": {"c": 2, "d": 3}}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("epohcs", "--set epohcs: there is no param 'epohcs'; did you mean 'epochs'?"),
        ("zzz", "there is no param 'zzz'; the workflow has epochs, net"),
        ("net.widht", "there is no param 'net.widht'; did you mean 'width'?"),
        ("epochs.x", "there is no param 'epochs.x'; 'epochs' is no mapping"),
    ],
)
def test_an_override_of_no_param_is_refused_with_a_suggestion(name: str, words: str) -> None:
    """A misspelt `--set` is an error, not a new param."""
    with pytest.raises(UsageError, match=words.replace("?", r"\?")):
        override({"epochs": 3, "net": {"width": 8}}, {name: 1})


def test_variables_are_typed_in_the_spec_and_hidden_in_the_fields() -> None:
    """A step sees the value; what is shown and kept is the name."""
    step = parse_step(
        '{kind: slice_hdf5, datapath: a.h5, dataset: "d/${env.SET}", end: "${env.ROWS}"}', SET="x", ROWS="5"
    )

    assert (step.spec.dataset, step.spec.end) == ("d/x", 5)
    assert step.fields == {"datapath": "a.h5", "dataset": "d/${env.SET}", "end": "${env.ROWS}"}
    assert step.variables == {"SET": "x", "ROWS": "5"}


def test_a_variable_is_never_read_as_a_reference() -> None:
    """What stands in the environment is a value: it can name neither a step nor another variable."""
    step = parse_step(
        '{kind: slice_hdf5, datapath: "a/${env.ODD}", dataset: "${env.ODDER}"}', ODD="${b}", ODDER="$${env.HOME}"
    )

    assert (step.spec.datapath, step.spec.dataset) == ("a/${b}", "$${env.HOME}")


@pytest.mark.parametrize(
    ("written", "meant"),
    [("$${b}", "${b}"), ("a $${params.x} b", "a ${params.x} b"), ("$$${b}", "$${b}"), ("$5", "$5")],
)
def test_two_dollars_make_text_of_a_reference(written: str, meant: str) -> None:
    """A literal `${` is written `$${`, in any text of a step, those in calls included."""
    step = parse_step(f'{{kind: slice_hdf5, datapath: "x/{written}", dataset: "{written}"}}')
    model = parse_step(
        f'{{kind: build_model, layers: [Input: {{shape: [1]}}, Dense: {{units: 1, name: "{written}"}}]}}'
    )

    assert (step.spec.datapath, step.spec.dataset) == (f"x/{meant}", meant)
    assert model.spec.layers[1].arguments["name"] == meant


# --- complaints ---------------------------------------------------------------------------------------------


def test_every_problem_of_a_file_is_told_at_its_place() -> None:
    """The top level and all steps complain together, each at line and column."""
    parsed = parse(
        "kflow: 1\n"
        "nmae: x\n"
        "seed: soon\n"
        "steps:\n"
        "  a: {kind: fetch, orign: x}\n"
        "  b:\n"
        "    kind: slice_hdf5\n"
        "    datapath: 3\n"
        '    dataset: "${params.x}"\n'
        "  c:\n"
        "    kind: slice_hdf5\n"
        "    datapath: 3\n"
        "    dataset: images\n"
        "    normalizer: {ofset: 1}\n"
        "  d: {}\n"
        "  e: {kind: fech}\n"
        "  f: [1]\n"
    )

    assert complaints(parsed) == [
        ("missing field 'name' of the workflow", 1, 1),
        ("unknown field 'nmae' of the workflow", 2, 1),
        ("expected a whole number, got the text 'soon'", 3, 7),
        ("missing field 'origin' of kind fetch", 5, 3),
        ("unknown field 'orign' of kind fetch", 5, 20),
        ("there is no param 'x'", 9, 14),
        ("expected a path, or a reference to a file such as ${step.file}, got 3", 12, 15),
        ("unknown field 'ofset' of 'normalizer'", 14, 18),
        ("step 'd' has no kind", 15, 3),
        ("unknown kind 'fech'", 16, 13),
        ("expected a mapping, got a list", 17, 6),
    ]
    assert list(parsed.kinds) == ["a", "b", "c", "d", "e", "f"]
    assert not parsed.workflow.steps


@pytest.mark.parametrize(
    ("step", "hint"),
    [
        ("{kind: fetch, orign: x}", "did you mean 'origin'?"),
        ("{kind: fech}", "did you mean 'fetch'?"),
        ("{kind: xxxxxxxx}", "'kflow kinds' lists them"),
        ("{}", "add 'kind: ...'; 'kflow kinds' lists them"),
        ('{kind: fetch, origin: "${params.epoch}"}', "did you mean 'epochs'?"),
        ('{kind: fetch, origin: "${params.zzz}"}', "there are epochs, net"),
        ('{kind: fetch, origin: "${params.net.widht}"}', "did you mean 'width'?"),
        ("{kind: normalize, x: b}", "did you mean '${b}'?"),
        ("{kind: slice_hdf5, datapath: x, dataset: y, normalizer: {ofset: 1}}", "did you mean 'offset'?"),
        ("{kind: evaluate, model: '${b}', x: '${b}', y: '${b}', expect: {acc: {mn: 1}}}", "did you mean 'min'?"),
    ],
)
def test_a_near_name_is_suggested(step: str, hint: str) -> None:
    """Whatever is misspelt, the complaint says what was probably meant."""
    parsed = parse(
        "kflow: 1\nname: a\nparams: {epochs: 3, net: {width: 8}}\n"
        f"steps:\n  a: {step}\n  b: {{kind: fetch, origin: x}}"
    )

    assert hint in [each.hint for each in parsed.diagnostics]


def test_a_variable_that_is_not_set_is_told() -> None:
    """A missing variable is a complaint at the place where it is used."""
    parsed = parse("kflow: 1\nname: a\nsteps:\n  a:\n    kind: fetch\n    origin: ${env.NOWHERE}")

    assert complaints(parsed) == [("the environment variable NOWHERE is not set", 6, 13)]


def test_a_variable_that_is_no_value_is_told_with_its_name_and_place() -> None:
    """But for its value, which may be a secret."""
    parsed = parse("kflow: 1\nname: a\nsteps:\n  a:\n    kind: fetch\n    origin: ${env.N}", N="[1")

    assert complaints(parsed) == [
        ("the environment variable N is read as YAML, and is none: a ',' or the ']' of a list is missing", 6, 13)
    ]


def test_a_param_in_a_param_is_refused_once() -> None:
    """It is told where the param is, and not again where it is used."""
    parsed = parse(
        'kflow: 1\nname: a\nparams: {a: 1, b: "${params.a}"}\nsteps:\n  a: {kind: fetch, origin: "${params.b}"}'
    )

    assert complaints(parsed) == [("a param cannot refer to a param, as in '${params.a}'", 3, 19)]


@pytest.mark.parametrize("name", ["params", "env"])
def test_names_with_a_meaning_cannot_name_a_step(name: str) -> None:
    """`${params.x}` would have two meanings."""
    parsed = parse(f"kflow: 1\nname: a\nsteps:\n  {name}: {{kind: fetch, origin: x}}")

    assert complaints(parsed) == [(f"{name!r} cannot name a step: ${{{name}.x}} means something else", 4, 3)]


@pytest.mark.parametrize("name", ["1a", "a b", "a.b", "é", "-a", "'${a}'"])
def test_a_step_has_a_name_that_a_reference_can_hold(name: str) -> None:
    """Other names are refused at the key."""
    parsed = parse(f"kflow: 1\nname: a\nsteps:\n  {name}: {{kind: fetch, origin: x}}")

    assert [(each[0].split(":")[0], *each[1:]) for each in complaints(parsed)] == [
        (f"{name.strip(chr(39))!r} cannot name a step", 4, 3)
    ]


def test_a_name_that_no_file_could_bear_is_refused() -> None:
    """The log of a step and the folder of a run are called after them."""
    good = parse(f"kflow: 1\nname: {'w' * 200}\nsteps:\n  {'s' * 200}: {{kind: fetch, origin: x}}")
    bad = parse(f"kflow: 1\nname: {'w' * 201}\nsteps:\n  {'s' * 300}: {{kind: fetch, origin: x}}")

    assert complaints(good) == []
    assert complaints(bad) == [
        ("the name of a workflow has at most 200 characters, this one has 201", 2, 7),
        ("the name of a step has at most 200 characters, this one has 300", 4, 3),
    ]


def test_the_branches_of_a_union_make_one_sentence() -> None:
    """Who writes something else altogether is told all that could stand there, once."""
    parsed = parse("kflow: 1\nname: a\nsteps:\n  a: {kind: predict, model: '${m}', x: 3, gpus: some}")

    assert complaints(parsed) == [
        ("expected a reference to an array, such as ${step.array}, a list or a mapping, got 3", 4, 40),
        ("expected a whole number or 'all', got the text 'some'", 4, 49),
    ]


def test_inside_a_list_only_the_wrong_item_is_told() -> None:
    """A list that fits but for an item is not told that it could have been something else."""
    parsed = parse("kflow: 1\nname: a\nsteps:\n  a: {kind: predict, model: '${m}', x: ['${a}', b]}")

    assert complaints(parsed) == [
        ("expected a reference to an array, such as ${step.array}, got the text 'b'", 4, 49),
    ]


@pytest.mark.parametrize(
    "fields",
    [
        'kind: slice_hdf5, datapath: a.h5, dataset: "${b}"',
        'kind: plot_model, model: "${m}", to_file: "${b}"',
        'kind: slice_hdf5, datapath: "${a.b.c}", dataset: x',
        'kind: build_model, layers: ["${b}"]',
        'kind: build_model, layers: [Dense: {units: "${b}"}]',
        'kind: build_model, layers: [Dense: {kernel_regularizer: {L2: {l2: "x ${b}"}}}]',
        'kind: build_model, config: {a: ["${b}"]}',
        'kind: fetch, origin: x, description: "${b}"',
    ],
)
def test_a_reference_where_a_plain_value_stands_is_refused(fields: str) -> None:
    """No `${...}` gets through as text, wherever it hides."""
    parsed = parse(f"kflow: 1\nname: a\nsteps:\n  a: {{{fields}}}")

    assert [(each.hint, each.mark and each.mark.line) for each in parsed.diagnostics] == [
        ("write '$${' for the text '${'", 4)
    ]
    assert not parsed.workflow.steps


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("x" * 80, f"the text '{'x' * 57}...'"),
        (None, "null"),
        (True, "true"),
        (1.5, "1.5"),
        ({"a": 1}, "a mapping"),
        ([], "an empty list"),
    ],
)
def test_a_value_is_named_as_its_writer_would(value: object, words: str) -> None:
    """No complaint talks of Python's types."""
    assert describe_value(value) == words


# --- whatever is written ------------------------------------------------------------------------------------

EXAMPLES = [load_document(path).value for path in sorted((WORKFLOWS / "valid").glob("*.yaml"))]
REFERENCES = ["${x}", "${fit.model}", "${params.epochs}", "${a.b.c}", "$${"]
plain = st.sampled_from([None, True, 0, 1, -1, 10**30, 1e300, 0.5, "", "all", "x", *REFERENCES])
values = plain | st.recursive(
    plain | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Return every place of a nested value, as its holder and the key or index in it."""
    if not isinstance(value, dict | list):
        return []
    found = [(value, key) for key in (list(value) if isinstance(value, dict) else range(len(value)))]
    return found + [place for holder, key in found for place in places(holder[key])]


def add_field(draw: st.DrawFn, workflow: Any) -> None:
    """Give one step of a workflow, if it is one still, any field of its kind."""
    steps = workflow.get("steps") if isinstance(workflow, dict) else None
    sound = [each for each in steps.values() if isinstance(each, dict)] if isinstance(steps, dict) else []
    step = draw(st.sampled_from(sound)) if sound else {}
    kind = KINDS.get(step["kind"]) if isinstance(step.get("kind"), str) else None
    if kind:
        step[draw(st.sampled_from(list(kind.model_fields)))] = draw(values)


@st.composite
def mutations(draw: st.DrawFn) -> Any:
    """Take a sound workflow and change a few places of it at random."""
    root = {"root": json.loads(json.dumps(draw(st.sampled_from(EXAMPLES))))}
    for _ in range(draw(st.integers(1, 4))):
        holder, key = draw(st.sampled_from(places(root)))
        match draw(st.sampled_from(["replace", "delete", "rename", "add", "add"])):
            case "delete" if holder is not root:
                del holder[key]
            case "rename" if isinstance(holder, dict) and holder is not root:
                holder[draw(st.text(max_size=4))] = holder.pop(key)
            case "add":
                add_field(draw, root["root"])
            case _:
                holder[key] = draw(values)
        root.setdefault("root", None)
    return root["root"]


class Look(Workspace):
    """The folder of the examples, with one answer for every data set and no GPU."""

    def describe_dataset(self, path: str, dataset: str) -> tuple[tuple[int, ...], str]:
        """Know every data set."""
        del path, dataset
        return (1797, 8, 8, 1), "uint8"

    def count_gpus(self) -> int:
        """Have no GPU."""
        return 0


def outcome(value: Any) -> str:
    """Return what is complained of, or the steps of a workflow that is sound."""
    try:
        parsed = parse_workflow(parse_document(json.dumps(value), "a.yaml"), KINDS, environ=os.environ)
        return str(bind(parsed, Look(WORKFLOWS / "valid")).order)
    except (WorkflowError, UsageError) as error:
        return str(error)


@settings(max_examples=300, deadline=None)
@given(mutations())
def test_any_workflow_is_typed_or_complained_about(value: Any) -> None:
    """Whatever is written ends in a bound workflow or in complaints, never otherwise."""
    assert outcome(value)


def test_the_examples_are_sound() -> None:
    """What the test above starts from has nothing to complain about."""
    assert [outcome(value)[0] for value in EXAMPLES] == ["("] * len(EXAMPLES)
