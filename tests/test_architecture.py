"""Tests of the house itself: what is exported, what is loaded, what is generated."""

import subprocess
import sys
from pathlib import Path

import pytest

import kflow.core
from kflow.adapters import BUILTIN
from kflow.registry import Registry

ROOT = Path(__file__).parents[1]
HEAVY = {"h5py", "keras", "matplotlib", "numpy", "tensorflow"}

# The page of Keras 2.1 that the core re-creates lists these.
KERAS_2_1 = {
    "CustomObjectScope",
    "HDF5Matrix",
    "Sequence",
    "convert_all_kernels_in_model",
    "custom_object_scope",
    "deserialize_keras_object",
    "get_custom_objects",
    "get_file",
    "multi_gpu_model",
    "normalize",
    "plot_model",
    "serialize_keras_object",
    "to_categorical",
}


def _loaded_by(statement: str) -> set[str]:
    """Return the top-level modules that a statement loads in a fresh interpreter."""
    code = f"{statement}\nimport sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


def test_the_core_exports_the_thirteen_utilities():
    """All that Keras 2.1 documented, and what belongs to them, each importable by its name."""
    assert set(kflow.core.__all__) > KERAS_2_1
    assert all(callable(getattr(kflow.core, name)) for name in kflow.core.__all__)


def test_an_unknown_name_of_the_core():
    """The lazy module answers like any other."""
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = kflow.core.nothing


def test_the_root_loads_nothing():
    """Importing kflow costs nothing but itself."""
    assert not _loaded_by("import kflow") & (HEAVY | {"pydantic", "yaml", "typer", "rich"})


@pytest.mark.parametrize("name", ["get_file", "to_categorical", "normalize", "HDF5Matrix"])
def test_the_light_utilities_do_not_load_keras(name):
    """Neither does anything of the core know YAML or pydantic."""
    loaded = _loaded_by(f"from kflow.core import {name}")

    assert not loaded & {"tensorflow", "keras", "pydantic", "yaml"}


@pytest.mark.parametrize("kind", sorted(BUILTIN))
def test_knowing_a_kind_loads_nothing_heavy(kind):
    """The fields and the manual of a kind are there without its libraries."""
    loaded = _loaded_by(f"from kflow.registry import Registry; Registry()[{kind!r}].manual()")

    assert not loaded & HEAVY


@pytest.mark.parametrize("kind", sorted(BUILTIN))
def test_every_kind_has_a_manual_with_an_example(kind):
    """The manual says what the kind is for, shows YAML, and names the outputs."""
    manual = Registry()[kind].manual()

    assert f"kind: {kind}" in manual
    assert "Outputs: " in manual
    assert all(f"``{output}``" in manual for output in Registry()[kind].Outputs.types())
