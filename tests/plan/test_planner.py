"""Verdicts: run, reuse or wait, each with its reason, told from a store in memory and a world of dicts."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kflow.document import parse_document
from kflow.plan.planner import Action, Planner, Verdict
from kflow.plan.resolve import Bound, bind
from kflow.registry import Registry
from kflow.spec.parse import parse_workflow
from kflow.workspace import Workspace

TEXT = """
kflow: 1
name: digits
seed: 7
params: {epochs: 5}
steps:
  images: {kind: slice_hdf5, datapath: a.h5, dataset: images}
  labels: {kind: slice_hdf5, datapath: a.h5, dataset: labels}
  custom: {kind: register_objects, objects: {Swish: layers.py:Swish}}
  model: {kind: build_model, layers: [Input: {shape: [3]}, Dense: {units: 1, activation: Swish}], objects: "${custom}"}
  fit:
    kind: train
    model: ${model}
    x: ${images}
    y: ${labels}
    loss: mse
    epochs: ${params.epochs}
    objects: ${custom}
  test: {kind: evaluate, model: "${fit.model}", x: "${images}", y: "${labels}", objects: "${custom}"}
  curves: {kind: plot_history, history: "${fit.history}"}
"""


@dataclass(frozen=True)
class Entry:
    """An entry of a store: the digests of its outputs."""

    digests: Mapping[str, str]
    origin: str = "unchanged"


@dataclass
class MemoryStore:
    """A store in memory."""

    entries: dict[str, Entry] = field(default_factory=dict)

    def lookup(self, fingerprint: str) -> Entry | None:
        """Return an entry."""
        return self.entries.get(fingerprint)

    def explain_miss(self, fingerprint: str) -> str:
        """Say that it is not there."""
        del fingerprint
        return "its result is not in the store"


@dataclass(frozen=True)
class World:
    """Files, code, versions and GPUs as the test wants them."""

    file: str = "file 1"
    code: Mapping[str, str] = field(default_factory=lambda: {"layers.py": "code 1"})
    keras: str = "3.15.1"
    python: str = "3.11"
    there: int = 0

    def file_digest(self, path: str) -> str:
        """Return the digest of every file."""
        return f"{path} {self.file}"

    def code_digests(self, module: str) -> Mapping[str, str]:
        """Return the digests of every module."""
        del module
        return self.code

    def imported_versions(self, module: str) -> Mapping[str, str]:
        """Return no version."""
        del module
        return {}

    def versions(self, libraries: tuple[str, ...]) -> Mapping[str, str]:
        """Return one version of everything but Python."""
        return {name: self.python if name == "python" else self.keras for name in libraries}

    def variables(self, libraries: tuple[str, ...]) -> Mapping[str, str]:
        """Return none."""
        del libraries
        return {}

    def gpus(self, wanted: int | str) -> int:
        """Count the GPUs."""
        return self.there if wanted == "all" else int(wanted)


def bind_text(text: str = TEXT, **overrides: Any) -> Bound:
    """Bind the workflow without a look at its files' contents."""
    parsed = parse_workflow(parse_document(text, "a.yaml"), Registry(), overrides=overrides)
    return bind(parsed, Here(Path()), check_contents=False)


class Here(Workspace):
    """A folder in which every file is there."""

    def absolute(self, path: str) -> str:
        """Let this file stand for every other, but for those to write."""
        return __file__ if path.endswith(".h5") else str(Path(__file__).parent / path)

    def check_symbol(self, module: str, name: str) -> None:
        """Find every name."""


def run(bound: Bound, store: MemoryStore, world: World, previous: Mapping[str, Any], same: Iterable[str] = ()) -> Any:
    """Run a workflow as the executor does; the outputs of each step get digests that follow from its fingerprint.

    The steps in `same` give the bytes that they always gave. The actions and the components of all steps come back.
    """
    planner = Planner(bound, store, world, previous)
    digests: dict[str, str] = {}
    actions: dict[str, Action] = {}
    for name in bound.order:
        action = actions[name] = planner.decide(name, digests)
        assert action.fingerprint
        if action.verdict is Verdict.RUN:
            outputs = bound.workflow.steps[name].spec.Outputs.types()
            content = name if name in same else action.fingerprint
            store.entries[action.fingerprint] = Entry({output: f"{output} {content}" for output in outputs})
        digests |= {f"{name}.{key}": value for key, value in store.entries[action.fingerprint].digests.items()}
    return actions, {name: action.components for name, action in actions.items()}


def verdicts(actions: Mapping[str, Action]) -> dict[str, str]:
    """Return the reason of each step that is not reused."""
    return {name: action.reason for name, action in actions.items() if action.verdict is not Verdict.REUSE}


def test_what_was_never_run_runs_and_the_rest_waits() -> None:
    """Before the first run only steps without inputs have a fingerprint."""
    actions = Planner(bind_text(), MemoryStore(), World(), {}).preview()

    assert [(each.step, each.verdict, each.reason) for each in actions] == [
        ("images", "run", "never run before"),
        ("labels", "run", "never run before"),
        ("custom", "run", "never run before"),
        ("model", "wait", "waits for custom"),
        ("fit", "wait", "waits for custom, images, labels, model"),
        ("test", "wait", "waits for custom, fit, images, labels"),
        ("curves", "wait", "waits for fit"),
    ]
    assert all((each.fingerprint is None) == (each.verdict is Verdict.WAIT) for each in actions)


def test_a_second_run_reuses_everything() -> None:
    """Nothing has changed, so nothing runs, and the preview knows it all."""
    store = MemoryStore()
    _, previous = run(bind_text(), store, World(), {})

    actions, _ = run(bind_text(), store, World(), previous)
    preview = Planner(bind_text(), store, World(), previous).preview()

    assert verdicts(actions) == {}
    assert [(each.verdict, each.reason) for each in preview] == [(Verdict.REUSE, "unchanged")] * 7
    assert all(each.entry is store.entries[str(each.fingerprint)] for each in preview)


def test_changing_epochs_runs_training_and_what_hangs_on_it() -> None:
    """The reason names the param's old and new value, and what follows names its input."""
    store = MemoryStore()
    _, previous = run(bind_text(), store, World(), {})

    preview = {each.step: each for each in Planner(bind_text(epochs=6), store, World(), previous).preview()}
    actions, _ = run(bind_text(epochs=6), store, World(), previous)

    assert verdicts(preview) == {"fit": "epochs: 5 -> 6", "test": "waits for fit", "curves": "waits for fit"}
    assert verdicts(actions) == {
        "fit": "epochs: 5 -> 6",
        "test": "input model changed",
        "curves": "input history changed",
    }


def test_equal_bytes_upstream_stop_the_cascade() -> None:
    """A step that runs again and gives the same bytes lets what follows be reused."""
    store = MemoryStore()
    always = ("images", "labels")
    _, previous = run(bind_text(), store, World(), {}, same=always)

    actions, _ = run(bind_text(), store, World(file="file 2"), previous, same=always)

    assert verdicts(actions) == {"images": "file datapath changed", "labels": "file datapath changed"}


def test_changed_code_runs_what_uses_it() -> None:
    """The body of a custom object re-runs the steps that take it, and no other."""
    store = MemoryStore()
    _, previous = run(bind_text(), store, World(), {})

    actions, _ = run(bind_text(), store, World(code={"layers.py": "code 2", "more.py": "new"}), previous)

    assert verdicts(actions) == {
        "custom": "code layers.py changed; code more.py added",
        "model": "input objects changed",
        "fit": "input model changed; input objects changed",
        "test": "input model changed; input objects changed",
        "curves": "input history changed",
    }


def test_the_seed_runs_random_kinds_only() -> None:
    """Another seed is other weights, and the same slices."""
    store = MemoryStore()
    _, previous = run(bind_text(), store, World(), {})

    actions, _ = run(bind_text(TEXT.replace("seed: 7", "seed: 8")), store, World(), previous)

    assert verdicts(actions) == {
        "model": "seed: 7 -> 8",
        "fit": "input model changed; seed: 7 -> 8",
        "test": "input model changed; seed: 7 -> 8",
        "curves": "input history changed",
    }


def test_another_version_of_a_library_runs_what_computes_with_it() -> None:
    """Slices do not depend on Keras."""
    store = MemoryStore()
    _, previous = run(bind_text(), store, World(), {})

    preview = {each.step: each for each in Planner(bind_text(), store, World(keras="3.15.2"), previous).preview()}

    computing = ("keras", "tensorflow", "numpy")
    assert verdicts(preview)["model"] == "; ".join(f"{name}: 3.15.1 -> 3.15.2" for name in computing)
    assert {name for name, each in preview.items() if each.verdict is Verdict.REUSE} == {"images", "labels", "custom"}


def test_another_python_runs_what_executes_code() -> None:
    """A sum of numbers has had other bits since 3.12; slices without code and curves stay as they are."""
    text = TEXT + "  own: {kind: slice_hdf5, datapath: a.h5, dataset: images, normalizer: 'layers.py:half'}\n"
    store, same = MemoryStore(), ("custom", "model", "fit", "test")
    _, previous = run(bind_text(text), store, World(), {}, same)

    actions, _ = run(bind_text(text), store, World(python="3.12"), previous, same)

    assert verdicts(actions) == dict.fromkeys(("custom", "model", "fit", "test", "own"), "python: 3.11 -> 3.12")


def test_the_number_of_gpus_counts_where_a_step_wants_them() -> None:
    """A step that asks for all GPUs is another computation on a machine that has more of them."""
    text = TEXT.partition("  custom:")[0] + (
        "  model: {kind: load_model, filepath: b.h5}\n"
        '  p: {kind: predict, model: "${model}", x: "${images}", gpus: 1}\n'
    )
    store = MemoryStore()
    _, previous = run(bind_text(text), store, World(), {})

    actions, _ = run(bind_text(text.replace("gpus: 1", "gpus: 2")), store, World(), previous)

    assert verdicts(actions) == {"p": "gpus: 1 -> 2"}


def test_renamed_steps_and_notes_change_nothing() -> None:
    """Other names, another order of the file, defaults written down and notes: everything is reused."""
    store = MemoryStore()
    run(bind_text(), store, World(), {})
    text = (
        TEXT.replace("images:", "pictures:")
        .replace("${images}", "${pictures.array}")
        .replace("loss: mse", "loss: mse\n    batch_size: 32\n    optimizer: rmsprop\n    description: a note")
    )

    actions, _ = run(bind_text(text), store, World(), {})

    assert verdicts(actions) == {}


def test_a_result_that_was_lost_is_made_again() -> None:
    """Nothing has changed but the store."""
    store = MemoryStore()
    _, previous = run(bind_text(), store, World(), {})
    store.entries.clear()

    actions, _ = run(bind_text(), store, World(), previous)

    assert set(verdicts(actions).values()) == {"its result is not in the store"}


def test_a_reason_is_short() -> None:
    """Of many changes the first four are told."""
    store = MemoryStore()
    _, previous = run(bind_text(), store, World(), {})
    text = TEXT.replace("loss: mse", "loss: mae\n    batch_size: 1\n    shuffle: false\n    steps_per_execution: 2")

    actions, _ = run(bind_text(text, epochs=1), store, replace(World(), keras="4"), previous)

    assert len(actions["fit"].reason.split("; ")) == 4


def test_a_step_that_was_tried_says_how_that_ended() -> None:
    """It was run before, though never to its end."""
    unfinished = {"images": "failed", "labels": "interrupted"}
    actions = Planner(bind_text(), MemoryStore(), World(), {}, unfinished).preview()

    reasons = {each.step: each.reason for each in actions}
    assert reasons["images"] == "never finished before: it failed"
    assert reasons["labels"] == "never finished before: it was interrupted"
    assert reasons["custom"] == "never run before"
