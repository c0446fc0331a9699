"""Fingerprints: all that can change a result goes in, and nothing else; and what to say when they differ."""

import hashlib
import os
import subprocess
import sys
from typing import Any

import pytest

from kflow.document import parse_document
from kflow.plan.fingerprint import canonical_json, components, differences, fingerprint
from kflow.registry import Registry
from kflow.spec.parse import parse_workflow
from kflow.spec.workflow import Step

FIT = {"kind": "train", "model": "${model}", "x": "${x}", "y": "${y}", "loss": "mse"}
SLICE = {"kind": "slice_hdf5", "datapath": "a.h5", "dataset": "images"}
FETCH = {"kind": "fetch", "origin": "https://h/x", "file_hash": "0" * 64}
INPUTS: dict[str, Any] = {
    "inputs": {"x": "1", "y": "2"},
    "files": {"datapath": "3"},
    "code": {"layers.py": "4"},
    "libraries": {"keras": "3"},
    "variables": {"XLA_FLAGS": "5"},
    "seed": 7,
    "gpus": 0,
}


def step(fields: dict[str, Any], name: str = "a", **environ: str) -> Step:
    """Make a sound step."""
    text = canonical_json({"kflow": 1, "name": "w", "steps": {name: fields}})
    parsed = parse_workflow(parse_document(text, "a.yaml"), Registry(), environ=environ)
    assert not parsed.diagnostics
    return parsed.workflow.steps[name]


def key(fields: dict[str, Any], **changes: Any) -> str:
    """Return the fingerprint of a step."""
    return fingerprint(components(step(fields), **(INPUTS | changes)))


@pytest.mark.parametrize(
    ("fields", "same"),
    [
        (FIT, {"epochs": 1, "batch_size": 32, "shuffle": True, "optimizer": "rmsprop", "metrics": [], "gpus": 0}),
        (FIT, {"validation_split": None, "jit_compile": "auto", "callbacks": [], "class_weight": None}),
        (FIT, {"description": "a note"}),
        (FIT, {"model": "${model.model}", "x": "${other.array}"}),
        (SLICE, {"start": 0, "end": None, "normalizer": None}),
        ({**SLICE, "normalizer": {}}, {"normalizer": {"scale": 1, "offset": 0.0, "dtype": "float32"}}),
        ({**SLICE, "normalizer": {"scale": 2}}, {"normalizer": {"scale": 2.0}}),
        ({"kind": "normalize", "x": "${x}"}, {"axis": -1, "order": 2}),
        ({"kind": "normalize", "x": "${x}", "order": 1}, {"order": 1.0}),
        ({"kind": "predict", "model": "${m}", "x": "${x}"}, {"to_file": "guesses.npy"}),
        ({**SLICE, "normalizer": "code/n.py:f"}, {"normalizer": "./code//n.py:f"}),
        (SLICE, {"datapath": "./a.h5"}),
        ({"kind": "load_model", "filepath": "m/a.keras"}, {"filepath": "m//b/../a.keras"}),
        ({"kind": "fetch", "origin": "data/a.h5"}, {"origin": "./data/a.h5"}),
        (FETCH, {"mirrors": ["https://h/y"], "max_size": 9, "timeouts": {"read": 3}}),
    ],
)
def test_what_cannot_change_a_result_changes_no_fingerprint(fields: dict[str, Any], same: dict[str, Any]) -> None:
    """Defaults written down, notes, names of steps and places to write to do not matter."""
    assert key({**fields, **same}) == key(fields)


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 2},
        {"optimizer": {"RMSprop": {"learning_rate": 0.1}}},
        {"x": ["${x}"]},
        {"metrics": ["accuracy"]},
        {"class_weight": {"0": 2}},
        {"shuffle": False},
    ],
)
def test_a_changed_field_changes_the_fingerprint(changes: dict[str, Any]) -> None:
    """Whatever the work depends on counts."""
    assert key({**FIT, **changes}) != key(FIT)


@pytest.mark.parametrize("part", sorted(INPUTS))
def test_everything_around_a_step_counts(part: str) -> None:
    """Inputs, files, code, libraries, seed and GPUs change the fingerprint of a kind that draws random numbers."""
    changed = {"seed": 8, "gpus": 2}.get(part, {"another": "digest"})

    assert key(FIT, **{part: changed}) != key(FIT)


@pytest.mark.parametrize(
    ("fields", "counts"),
    [
        (SLICE, False),
        ({**SLICE, "normalizer": "n.py:f"}, True),
        ({"kind": "register_objects", "objects": {"F": "n.py:f"}}, False),
        ({"kind": "load_model", "filepath": "m.keras"}, False),
        ({"kind": "load_model", "filepath": "m.keras", "objects": "${o}"}, True),
        ({"kind": "predict", "model": "${m}", "x": "${x}"}, True),
        ({"kind": "evaluate", "model": "${m}", "x": "${x}", "y": "${y}", "loss": "mse"}, True),
    ],
)
def test_the_seed_counts_where_it_can_change_the_result(fields: dict[str, Any], counts: bool) -> None:
    """A slice is the same whatever the seed, but for what a function of the user's draws."""
    assert (key(fields, seed=8) != key(fields)) == counts


def test_another_spelling_of_a_path_shows_no_variable() -> None:
    """A field that uses an environment variable stays as it is written."""
    fields = {**SLICE, "normalizer": "./${env.PLACE}/n.py:f"}

    assert "secret" not in canonical_json(components(step(fields, PLACE="secret"), **INPUTS))


def test_the_name_of_a_step_does_not_count() -> None:
    """A renamed step is the same computation."""
    assert components(step(FIT, "a"), **INPUTS) == components(step(FIT, "b"), **INPUTS)


def test_a_variable_counts_by_its_digest() -> None:
    """Another value is another fingerprint, and no value gets into the components."""
    fields = {**SLICE, "dataset": "d-${env.SET}", "end": "${env.ROWS}"}
    one, two = (components(step(fields, SET="secret", ROWS=rows), **INPUTS) for rows in ("5", "6"))

    assert fingerprint(one) != fingerprint(two)
    assert "secret" not in canonical_json(one)
    assert one["environ"]["SET"] == hashlib.sha256(b"secret").hexdigest()


PREDICT = {"kind": "predict", "model": "${m}", "x": "${x}"}
SAVE = {"kind": "save_model", "model": "${m}"}


@pytest.mark.parametrize(
    ("fields", "counts"),
    [
        ({**FIT, "retries": "${env.V}", "timeout": "${env.V}", "description": "of ${env.V}"}, False),
        ({**FIT, "checkpoint": {"every": "${env.V}"}}, False),
        ({**FIT, "resources": {"memory": "${env.V}"}}, False),
        ({**FIT, "epochs": "${env.V}", "retries": "${env.V}"}, True),
        ({**PREDICT, "to_file": "${env.V}/x.npy"}, False),
        ({**FETCH, "mirrors": ["https://h/${env.V}"], "timeouts": {"read": "${env.V}"}}, False),
        ({**SAVE, "filepath": "${env.V}/m.keras"}, False),
        ({**SAVE, "filepath": "a/${env.V}.keras"}, True),
        ({"kind": "plot_history", "history": "${h}", "to_file": "${env.V}/h.png", "title": "$${env.V}"}, False),
    ],
)
def test_a_variable_counts_where_its_field_does(fields: dict[str, Any], counts: bool) -> None:
    """Another place to write to, or more patience, is the same computation."""
    one, two = (components(step(fields, V=value), **INPUTS) for value in ("5", "6"))

    assert (fingerprint(one) != fingerprint(two)) == counts
    assert ("V" in one["environ"]) == counts


def test_a_folder_of_a_variable_is_a_folder_like_any_other() -> None:
    """It changes no fingerprint whether the folder of a file to write is written down or stands in a variable."""
    there = components(step({**SAVE, "filepath": "${env.OUT}/m.keras"}, OUT="secret"), **INPUTS)

    assert there == components(step({**SAVE, "filepath": "out/m.keras"}), **INPUTS)


def test_a_fingerprint_is_the_digest_of_tagged_canonical_json() -> None:
    """Anybody can compute it anew."""
    parts = {"b": [1, 2.5, None], "a": {"é": True}}
    text = 'kflow-fingerprint-2\n{"a":{"\\u00e9":true},"b":[1,2.5,null]}'

    assert fingerprint(parts) == hashlib.sha256(text.encode()).hexdigest()
    assert canonical_json([float("nan"), float("inf")]) == "[NaN,Infinity]"


def test_a_fingerprint_is_the_same_in_another_process() -> None:
    """Neither hash seeds nor the order of sets get in."""
    code = (
        "from kflow.registry import Registry; from kflow.document import parse_document;"
        "from kflow.spec.parse import parse_workflow; from kflow.plan.fingerprint import components, fingerprint;"
        'p = parse_workflow(parse_document(\'kflow: 1\\nname: w\\nsteps:\\n  a: {kind: train, model: "${m}",'
        ' x: {l: "${x}", r: "${y}"}, y: "${y}", loss: mse, metrics: [accuracy]}\', \'a\'), Registry());'
        "print(fingerprint(components(p.workflow.steps['a'], inputs={'x.l': '1', 'x.r': '2'}, files={}, code={},"
        " variables={}, libraries={}, seed=1, gpus=0)))"
    )

    results = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }

    assert len(results) == 1


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ({"fields": {"epochs": 5, "a": 1}}, {"fields": {"epochs": 6, "a": 1}}, ["epochs: 5 -> 6"]),
        (
            {"fields": {"layers": [{"Input": {}}, {"Dense": {"units": 3, "name": "a"}}]}},
            {"fields": {"layers": [{"Input": {}}, {"Dense": {"units": 4, "name": "a"}}]}},
            ["layers.1.Dense.units: 3 -> 4"],
        ),
        (
            {"fields": {"optimizer": {"SGD": {}}}},
            {"fields": {"optimizer": {"Adam": {}}}},
            ['optimizer: {"SGD": {}} -> {"Adam": {}}'],
        ),
        ({"fields": {"x": "a" * 60}}, {"fields": {"x": "b"}}, [f'x: "{"a" * 36}... -> "b"']),
        ({"fields": {"x": [1]}}, {"fields": {"x": [1, 2]}}, ["x: [1] -> [1, 2]"]),
        (
            {
                "code": {"a.py": "1", "b.py": "1"},
                "files": {"datapath": "1"},
                "inputs": {"x": "1"},
                "environ": {"X": "1"},
            },
            {
                "code": {"a.py": "2", "c.py": "1"},
                "files": {"datapath": "2"},
                "inputs": {"x": "2"},
                "environ": {"X": "2"},
            },
            [
                "code a.py changed",
                "code b.py gone",
                "code c.py added",
                "file datapath changed",
                "input x changed",
                "variable X changed",
            ],
        ),
        (
            {"libraries": {"keras": "3.15.1"}, "seed": 7, "version": 1},
            {"libraries": {"keras": "3.15.2"}, "seed": 8, "version": 2, "gpus": 1},
            ["keras: 3.15.1 -> 3.15.2", "version: 1 -> 2", "seed: 7 -> 8", "gpus: 0 -> 1"],
        ),
        (
            {"kind": "normalize", "fields": {"x": 1}, "libraries": {"sources of lib": "1"}},
            {"kind": "fetch", "fields": {"x": 2}, "libraries": {"sources of lib": "2"}},
            ["kind: normalize -> fetch", "x: 1 -> 2", "sources of lib changed"],
        ),
        ({"fields": {"a": 1}}, {"fields": {"a": 1}}, []),
    ],
)
def test_differences_are_told_in_words(old: dict[str, Any], new: dict[str, Any], words: list[str]) -> None:
    """Who reads a plan sees what has changed since the last run, as deep as it lies."""
    assert differences(old, new) == words


@pytest.mark.parametrize(("one", "other"), [("$${x}", "$${y}"), (float("inf"), float("-inf")), (float("nan"), None)])
def test_values_that_differ_have_different_fingerprints(one: Any, other: Any) -> None:
    """Text that only looks like a reference, and numbers that JSON does not know, are told apart."""
    text = {"inf": ".inf", "-inf": "-.inf", "nan": ".nan"}
    fields = [
        parse_document(
            "kflow: 1\nname: w\nsteps: {a: {kind: build_model, function: 'models.py:build', arguments: {v: "
            + (f"'{value}'" if isinstance(value, str) else text.get(str(value), "null"))
            + "}}}",
            "a.yaml",
        )
        for value in (one, other)
    ]
    steps = [parse_workflow(each, Registry()).workflow.steps["a"] for each in fields]

    assert components(steps[0], **INPUTS)["fields"] != components(steps[1], **INPUTS)["fields"]
