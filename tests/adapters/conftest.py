"""A step run as the worker runs it, without a process: inputs and outputs go through the artifact types."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from kflow.artifacts import artifact_type
from kflow.spec.base import Examination, StepContext, StepSpec
from kflow.workspace import Workspace

DIGITS = Path(__file__).parents[2] / "workflows" / "data" / "digits.h5"


@dataclass(frozen=True)
class Stored:
    """An output of a step as the store has it; a consumer opens it."""

    type_name: str
    description: Mapping[str, Any]
    folder: Path

    def open(self) -> Any:
        """Open it as a consumer does."""
        return artifact_type(self.type_name).load(self.description, self.folder)


class Opened(dict[str, Stored]):
    """The outputs of a step; indexing opens one, `stored` gives it unopened."""

    def __getitem__(self, name: str) -> Any:
        return self.stored(name).open()

    def stored(self, name: str) -> Stored:
        """Give an output to hand on to another step."""
        return super().__getitem__(name)


@dataclass
class Bench:
    """A place to run single steps in."""

    root: Path
    events: list[Mapping[str, Any]] = field(default_factory=list)
    count: int = 0
    checkpoints: Path | None = None
    require_inputs: Callable[[], None] = lambda: None

    def run(
        self,
        kind: type[StepSpec],
        inputs: Mapping[str, Stored | tuple[str, Any]] | None = None,
        *,
        gpus: int = 0,
        **fields: Any,
    ) -> Opened:
        """Run a step; `inputs` gives for each reference a stored output, or a type and a value to store."""
        stored = {
            text: given if isinstance(given, Stored) else self.store(*given) for text, given in (inputs or {}).items()
        }
        spec = kind.model_validate(fields)
        staging = self._folder()
        (staging / "work").mkdir()
        workspace = Workspace(self.root)
        sources = {path.name: workspace.sources(path.name) for path in self.root.glob("*.py")}
        artifacts = {text: each.open for text, each in stored.items()}
        context = StepContext(
            self.root,
            staging / "work",
            7,
            gpus,
            artifacts,
            sources,
            self.events.append,
            self.checkpoints,
            self.require_inputs,
        )
        outputs = spec.run(context)
        types = spec.Outputs.types()
        return Opened({name: self.store(types[name].type_name, outputs.values[name], staging / name) for name in types})

    def store(self, type_name: str, value: Any, folder: Path | None = None) -> Stored:
        """Store a value the way the worker does."""
        folder = folder or self._folder() / "value"
        return Stored(type_name, artifact_type(type_name).save(value, folder).description, folder)

    def _folder(self) -> Path:
        self.count += 1
        folder = self.root / f"staging-{self.count}"
        folder.mkdir()
        return folder

    def examine(self, spec: StepSpec, **facts: Any) -> tuple[Mapping[str, Any], list[str]]:
        """Let a step examine its fields; returns the facts of its outputs and the problems."""
        workspace = Workspace(self.root)
        exam = Examination({"${" + name.replace("__", ".") + "}": fact for name, fact in facts.items()}, workspace)
        found = spec.examine(exam)
        workspace.probe.stop()
        return found, [problem.message for problem in exam.problems]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Give an empty workspace with the digits in it."""
    (tmp_path / "digits.h5").write_bytes(DIGITS.read_bytes())
    return Bench(tmp_path)
