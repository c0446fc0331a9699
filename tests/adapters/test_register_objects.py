"""Tests of the kind register_objects."""

import sys
from importlib.machinery import EXTENSION_SUFFIXES

import pytest

from kflow.adapters.build_model import BuildModel
from kflow.adapters.register_objects import RegisterObjects
from kflow.artifacts.modules import imported
from kflow.spec.facts import ObjectsFact


def test_the_source_is_kept_with_what_it_imports(bench):
    """The stored objects work without the files that they came from."""
    (bench.root / "deep.py").write_text("FACTOR = 3\n")
    (bench.root / "near.py").write_text("from deep import FACTOR\n")
    (bench.root / "layers.py").write_text("from near import FACTOR\n\ndef triple(x):\n    return FACTOR * x\n")
    stored = bench.run(RegisterObjects, objects={"Triple": "layers.py:triple"})["objects"]
    for name in ("deep.py", "near.py", "layers.py"):
        (bench.root / name).unlink()

    with imported(stored.objects) as names:
        assert names["Triple"](2) == 6


def test_what_lies_elsewhere_counts_and_what_is_compiled_is_kept(bench, tmp_path_factory, monkeypatch):
    """A library in source is part of the digest, so that what takes the objects runs again when it changes."""
    source = tmp_path_factory.mktemp("src")
    monkeypatch.setattr(sys, "path", [sys.path[0], str(source), *sys.path[1:]])
    (bench.root / f"fast{EXTENSION_SUFFIXES[0]}").write_bytes(b"\x7fELF")
    (bench.root / "layers.py").write_text("import lib_in_source as lib\n\ndef f(x):\n    import fast\n    return x\n")
    libraries = []
    for text in ("K = 1\n", "K = 2\n"):
        (source / "lib_in_source.py").write_text(text)
        sys.modules.pop("lib_in_source", None)
        stored = bench.run(RegisterObjects, objects={"F": "layers.py:f"}).stored("objects")
        libraries.append(stored.description["libraries"])
    del sys.modules["lib_in_source"]

    assert [set(each) for each in libraries] == [{"sources of lib_in_source"}] * 2
    assert libraries[0] != libraries[1]
    assert (stored.folder / "0" / f"fast{EXTENSION_SUFFIXES[0]}").read_bytes() == b"\x7fELF"


def test_nothing_is_left_behind(bench):
    """After the block neither modules nor paths remain."""
    (bench.root / "near.py").write_text("X = 1\n")
    (bench.root / "layers.py").write_text("import near\n\ndef f(x):\n    return near.X\n")
    before = list(sys.path)

    stored = bench.run(RegisterObjects, objects={"F": "layers.py:f"})["objects"]
    with imported(stored.objects) as names:
        inside = names["F"](0)

    assert (inside, sys.path, {"near", "layers"} & set(sys.modules)) == (1, before, set())


def test_a_module_that_fails_fails_the_step(bench):
    """An import error shows here and not in the step that uses the object."""
    (bench.root / "layers.py").write_text("import nothing_of_this_name\n\ndef f(x): return x\n")

    with pytest.raises(ModuleNotFoundError, match="nothing_of_this_name"):
        bench.run(RegisterObjects, objects={"F": "layers.py:f"})


def test_two_names_for_one_object_are_found_beforehand(bench):
    """Keras saves an object under one name, so the other could not be loaded."""
    _, problems = bench.examine(RegisterObjects(objects={"A": "layers.py:f", "B": "layers.py:f"}))

    assert problems == ["layers.py:f has the name 'A' already; Keras saves an object under one name"]


def test_the_names_are_known_beforehand(bench):
    """Consumers can check against them; names of Keras are refused."""
    spec = RegisterObjects(objects={"Mine": "layers.py:f", "relu": "layers.py:g"})

    facts, problems = bench.examine(spec)

    assert facts == {"objects": ObjectsFact(("Mine", "relu"))}
    assert problems == ["'relu' is one of Keras's own activations; choose another name"]


def test_a_name_that_is_not_found_says_which_ones_the_step_has(bench):
    """A misspelt name gets the names of the step's objects as suggestions."""
    (bench.root / "layers.py").write_text("def triple(x): return 3 * x\n")
    objects = bench.run(RegisterObjects, objects={"triple": "layers.py:triple"}).stored("objects")
    layers = [{"Input": {"shape": [2]}}, {"Dense": {"units": 1, "activation": "tripel"}}]

    with pytest.raises(ValueError, match=r"Did you mean 'triple' \(the objects of this step\)"):
        bench.run(BuildModel, {"${c}": objects}, layers=layers, objects="${c}")
