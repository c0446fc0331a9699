"""Every field of every kind: it changes the fingerprint if it can change the result, and only then."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from kflow.adapters import BUILTIN
from kflow.document import parse_document
from kflow.plan.fingerprint import canonical_json
from kflow.plan.planner import Planner
from kflow.plan.resolve import Link
from kflow.registry import Registry
from kflow.spec.parse import parse_workflow

ORDINARY = {
    "description": "a note",
    "needs": ["other"],
    "retries": 3,
    "timeout": "10 min",
    "resources": {"memory": "2 GB"},
}
"""Fields of all kinds; they say how a step is carried out."""

OBJECTS = "${other.objects}"
FIT = {"model": "${m.model}", "x": "${a.array}"}
TRAIN = {**FIT, "y": "${b.array}", "loss": "mse"}
BASES: dict[str, dict[str, Any]] = {
    "build_model": {"layers": [{"Input": {"shape": [3]}}, {"Dense": {"units": 2}}]},
    "encode_labels": {"y": "${a.array}"},
    "evaluate": {**FIT, "y": "${b.array}"},
    "fetch": {"origin": "https://h/x.zip"},
    "load_model": {"filepath": "m.keras"},
    "normalize": {"x": "${a.array}"},
    "plot_history": {"history": "${h.history}"},
    "plot_model": {"model": "${m.model}"},
    "predict": FIT,
    "register_objects": {"objects": {"Swish": "layers.py:Swish"}},
    "save_model": {"model": "${m.model}", "filepath": "results/a.keras"},
    "slice_hdf5": {"datapath": "a.h5", "dataset": "images"},
    "train": TRAIN,
}
MATTERING: dict[str, dict[str, Any]] = {
    "build_model": {
        "layers": [{"Input": {"shape": [3]}}, {"Dense": {"units": 3}}],
        "config": {"class_name": "Sequential"},
        "function": "models.py:build",
        "arguments": {"width": 3},
        "name": "net",
        "objects": OBJECTS,
    },
    "encode_labels": {
        "y": "${changed.array}",
        "num_classes": 3,
        "classes": [1, 2],
        "label_smoothing": 0.1,
        "dtype": "uint8",
    },
    "evaluate": {
        "model": "${changed.model}",
        "x": ["${a.array}"],
        "y": "${changed.array}",
        "sample_weight": "${w.array}",
        "loss": "mae",
        "metrics": ["accuracy"],
        "batch_size": 7,
        "expect": {"accuracy": {"min": 0.5}},  # what is missed fails the step
        "objects": OBJECTS,
        "gpus": 1,
        "deterministic": True,
        "resources": {"cpus": 2},
    },
    "fetch": {
        "origin": "https://h/y.zip",
        "file_hash": "0" * 64,
        "fname": "z.zip",
        "extract": True,
        "member": "a.txt",
    },
    "load_model": {"filepath": "changed.keras", "objects": OBJECTS, "resources": {"cpus": 2}},
    "normalize": {"x": "${changed.array}", "axis": 0, "order": 1},
    "plot_history": {"history": "${changed.history}", "to_file": "history.svg", "metrics": ["loss"], "title": "T"},
    "plot_model": {
        "model": "${changed.model}",
        "to_file": "model.svg",
        "show_shapes": True,
        "show_layer_names": False,
        "show_dtype": True,
        "show_params": True,
        "show_trainable": True,
        "show_layer_activations": True,
        "expand_nested": True,
        "rankdir": "LR",
        "dpi": 50,
        "objects": OBJECTS,
    },
    "predict": {
        "model": "${changed.model}",
        "x": "${changed.array}",
        "batch_size": 7,
        "objects": OBJECTS,
        "gpus": 2,
        "deterministic": True,
        "resources": {"cpus": 2},
    },
    "register_objects": {"objects": {"Swish": "changed.py:Swish"}},
    "save_model": {"model": "${changed.model}", "filepath": "results/a.weights.h5", "objects": OBJECTS},
    "slice_hdf5": {
        "datapath": "changed.h5",
        "dataset": "labels",
        "start": 1,
        "end": 3,
        "normalizer": "user.py:change",
    },
    "train": {
        "model": "${changed.model}",
        "x": "${changed.array}",
        "y": "${changed.array}",
        "sample_weight": "${w.array}",
        "validation_data": {"x": "${a.array}", "y": "${b.array}"},
        "validation_split": 0.5,
        "optimizer": "adam",
        "loss": "mae",
        "loss_weights": [0.5],
        "metrics": ["accuracy"],
        "weighted_metrics": ["accuracy"],
        "epochs": 2,
        "batch_size": 7,
        "shuffle": "batch",
        "class_weight": {"0": 2},
        "callbacks": ["TerminateOnNaN"],
        "steps_per_execution": 2,
        "jit_compile": False,
        "objects": OBJECTS,
        "gpus": 1,
        "deterministic": True,
        "resources": {"cpus": 2},
    },
}
IDLE: dict[str, dict[str, Any]] = {
    "fetch": {"mirrors": ["https://h2/x.zip"], "max_size": 9, "timeouts": {"read": 3}},
    "normalize": {"x": "${renamed.array}", "resources": {"cpus": 2}},
    "plot_history": {"to_file": "elsewhere/history.png"},
    "plot_model": {"to_file": "elsewhere/model.png", "model": "${renamed.model}"},
    "predict": {"to_file": "guesses.npy", "gpus": "all"},  # there are none
    "save_model": {"filepath": "elsewhere/a.keras"},
    "train": {"checkpoint": False, "model": "${renamed.model}"},
}


class Around:
    """A machine without GPUs, where everything holds what its name says."""

    def file_digest(self, path: str) -> str:
        """Return the path."""
        return path

    def code_digests(self, module: str) -> dict[str, str]:
        """Return a digest for the module alone."""
        return {module: f"digest of {module}"}

    def imported_versions(self, module: str) -> dict[str, str]:
        """Return no version."""
        del module
        return {}

    def versions(self, libraries: tuple[str, ...]) -> dict[str, str]:
        """Return one version for all."""
        return dict.fromkeys(libraries, "1")

    def variables(self, libraries: tuple[str, ...]) -> dict[str, str]:
        """Return none."""
        del libraries
        return {}

    def gpus(self, wanted: int | str) -> int:
        """Return a number, and none for all."""
        return 0 if wanted == "all" else int(wanted)

    def lookup(self, fingerprint: str) -> None:
        """Find nothing."""

    def explain_miss(self, fingerprint: str) -> str:
        """Say so."""
        return f"{fingerprint} is not there"


def fingerprint(kind: str, fields: dict[str, Any]) -> str:
    """Return the fingerprint of a step in a workflow whose other steps give what their names say."""
    text = canonical_json({"kflow": 1, "name": "w", "steps": {"a": {"kind": kind, **fields}}})
    parsed = parse_workflow(parse_document(text, "a.yaml"), Registry(), environ={})
    assert not parsed.diagnostics, parsed.diagnostics
    links = tuple(find_links(fields))
    # What 'renamed' gives has the content of what it stands for.
    digests = {link.source: "same" if link.step in {"renamed", "a", "m"} else link.step for link in links}
    bound = SimpleNamespace(workflow=parsed.workflow, links={"a": links})
    action = Planner(bound, Around(), Around(), {}).decide("a", digests)  # type: ignore[arg-type]
    assert action.fingerprint is not None
    return action.fingerprint


def find_links(value: Any, *path: str | int) -> Iterator[Link]:
    """Yield the references in the fields of a step."""
    if isinstance(value, str) and value.startswith("${"):
        yield Link(path, value, *value[2:-1].split("."))
    elif isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from find_links(item, *path, key)


def cases(table: dict[str, dict[str, Any]]) -> list[Any]:
    """Make a parameter of each entry of a table."""
    return [
        pytest.param(kind, name, value, id=f"{kind}.{name}")
        for kind, fields in table.items()
        for name, value in fields.items()
    ]


@pytest.mark.parametrize(("kind", "name", "value"), cases(MATTERING))
def test_what_can_change_a_result_changes_its_fingerprint(kind: str, name: str, value: Any) -> None:
    """Another value is another computation."""
    base = BASES[kind]

    assert fingerprint(kind, {**base, name: value}) != fingerprint(kind, base)


@pytest.mark.parametrize(("kind", "name", "value"), cases({kind: {**ORDINARY, **IDLE.get(kind, {})} for kind in BASES}))
def test_what_cannot_change_a_result_does_not(kind: str, name: str, value: Any) -> None:
    """Notes, tries, time-outs, names of steps, other ways to the same bytes, and where a file is put."""
    base = BASES[kind]

    assert fingerprint(kind, {**base, name: value}) == fingerprint(kind, base)


@pytest.mark.parametrize("kind", sorted(BUILTIN))
def test_no_field_is_forgotten(kind: str) -> None:
    """A new field must be put into one of the tables."""
    known = {*ORDINARY, *MATTERING[kind], *IDLE.get(kind, {})}

    assert known == set(Registry()[kind].model_fields)
