"""The record of a run: what was run, with what, and what came of it. JSON, written anew after every step.

``schemas/run-record.schema.json`` describes it. Environment variables are not in it: where a field uses one, the
record says ``${env.NAME}``.
"""

import contextlib
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, ValidationError, WithJsonSchema, model_validator

from kflow import durable
from kflow.run.clock import new_id, now
from kflow.run.journal import JOURNAL, read_journal
from kflow.run.surroundings import devices, git_state
from kflow.store.locks import is_held

if TYPE_CHECKING:
    from kflow.plan.resolve import Bound

RECORD = "record.json"
FORMAT: Literal[1] = 1
LIBRARIES = ("kflow", "keras", "tensorflow", "numpy", "h5py")

# JSON has no word for the loss of a training that went wrong, so a text stands for it.
Number = Annotated[float, WithJsonSchema({"anyOf": [{"type": "number"}, {"enum": ["NaN", "Infinity", "-Infinity"]}]})]


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


# JSON has none for the bytes of a path that are no UTF-8, which the words of the system may name.
Words = Annotated[str, PlainSerializer(_printable)]


class OutputRecord(BaseModel):
    """An output of a step."""

    model_config = ConfigDict(extra="forbid")

    type: str = Field(description="The type of the artifact.")
    digest: str = Field(description="The SHA-256 of its content.")
    path: str | None = Field(default=None, description="Where the user finds it, relative to the workflow file.")


class StepRecord(BaseModel):
    """What happened to a step."""

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="strings")

    kind: str
    status: Literal["run", "reused", "failed", "interrupted", "running", "not run"]
    verdict: Literal["run", "reuse", "wait"]
    reason: Words = Field(description="Why it was run or reused.")
    fingerprint: str | None = None
    components: dict[str, Any] | None = Field(default=None, description="What the fingerprint is made of.")
    inputs: dict[str, str] = Field(default_factory=dict, description="The digest of each input by field.")
    outputs: dict[str, OutputRecord] = Field(default_factory=dict)
    duration: float | None = Field(default=None, description="Seconds.")
    error: Words | None = None
    log: str | None = Field(default=None, description="The log of the step, relative to the record.")


def is_same_place(one: str, other: str) -> bool:
    """Tell whether two absolute paths are those of one file, whatever links lead to its folder."""
    (folder, name), (other_folder, other_name) = os.path.split(one), os.path.split(other)
    return one == other or (name == other_name and os.path.realpath(folder) == os.path.realpath(other_folder))


class WorkflowRecord(BaseModel):
    """The workflow as it was resolved."""

    model_config = ConfigDict(extra="forbid")

    path: str = Field(description="The file as the command named it.")
    file: str | None = Field(default=None, description="Its absolute path; older records have none.")
    sha256: str = Field(description="The SHA-256 of the file.")
    name: str
    seed: int
    params: dict[str, Any]
    not_finite: list[list[str | int]] = Field(
        default_factory=list, description="Where in the params a text stands for NaN or an infinity."
    )
    steps: dict[str, dict[str, Any]] = Field(description="The fields of each step with params filled in.")

    @model_validator(mode="after")
    def _put_in_what_is_not_finite(self) -> Self:
        with contextlib.suppress(LookupError, TypeError, ValueError):  # it is damaged, and the texts stay
            for *path, last in self.not_finite:
                within: Any = self.params
                for part in path:
                    within = within[part]
                within[last] = float(within[last])
        return self

    @property
    def place(self) -> str:
        """The absolute path of the file; that of an older record is taken to start at the current folder."""
        return os.path.abspath(self.file or self.path)  # noqa: PTH100  resolve() would follow links

    def is_at(self, place: str) -> bool:
        """Tell whether the file is that at an absolute path, whatever links lead to its folder."""
        return is_same_place(self.place, place)


class GitRecord(BaseModel):
    """The state of the git repository that the workflow file lies in."""

    model_config = ConfigDict(extra="forbid")

    commit: str
    is_dirty: bool


class RunRecord(BaseModel):
    """A run."""

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="strings")

    format: Literal[1] = FORMAT
    id: str
    status: Literal["running", "succeeded", "failed", "interrupted"]
    started: str = Field(description="UTC, ISO 8601.")
    finished: str | None = None
    duration: float | None = Field(default=None, description="Seconds.")
    workflow: WorkflowRecord
    steps: dict[str, StepRecord]
    metrics: dict[str, dict[str, Number]] = Field(default_factory=dict, description="Metrics by step.")
    versions: dict[str, str] = Field(description="Of Python and of the libraries.")
    platform: str
    devices: dict[str, Any] = Field(description="Processors and GPUs.")
    git: GitRecord | None = Field(default=None, description="None outside a repository.")


def workflow_place(root: Path, path: str) -> str:
    """Return the absolute path of a workflow file in a folder, in characters that a record can hold."""
    return _in_text(root / Path(path).name)


def _in_text(path: str | Path) -> str:
    """Return a path in characters that a record can hold: bytes that are no UTF-8 are written out."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def new_record(bound: "Bound", root: Path, path: str) -> RunRecord:
    """Return the record of a run that is about to begin."""
    workflow = bound.workflow
    steps = {
        name: StepRecord(kind=workflow.steps[name].spec.kind, status="not run", verdict="wait", reason="")
        for name in bound.order
    }
    return RunRecord(
        id=new_id(workflow.name),
        status="running",
        started=now(),
        workflow=WorkflowRecord(
            path=_in_text(path),
            file=workflow_place(root, path),
            sha256=workflow.document.sha256,
            name=workflow.name,
            seed=workflow.seed,
            params=dict(workflow.params),
            not_finite=list(_find_not_finite(workflow.params)),
            steps={name: {"kind": step.spec.kind, **step.fields} for name, step in workflow.steps.items()},
        ),
        steps=steps,
        versions=versions(),
        platform=describe_platform(),
        devices=devices(),
        git=_git_record(root),
    )


def _find_not_finite(value: Any, *path: str | int) -> Iterator[list[str | int]]:
    """Yield where NaN and infinities stand: JSON has no words for them, and a text may be just a text."""
    if isinstance(value, float) and not math.isfinite(value):
        yield list(path)
    elif isinstance(value, Mapping | list):
        for part, each in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _find_not_finite(each, *path, part)


def write_record(record: RunRecord, folder: Path) -> Path:
    """Put the record in place in one step; before and after, a whole one is there."""
    path = folder / RECORD
    durable.write_text(path, record.model_dump_json(indent=1) + "\n")
    return path


def close_record(record: RunRecord, folder: Path) -> Path:
    """Write the whole record of a run that is over, and take its journal away."""
    path = write_record(record, folder)
    (folder / JOURNAL).unlink(missing_ok=True)
    return path


def read_record(folder: Path) -> RunRecord | None:
    """Return the record of a run with what its journal adds; None when it cannot be read."""
    try:
        data = durable.read_bytes(folder / RECORD)
        record = RunRecord.model_validate_json(data)
        if record.status != "running":
            return record
        _add_journal(record, folder)
        is_under_way = is_held(folder)
        if durable.read_bytes(folder / RECORD) != data:  # it has ended meanwhile, and its journal may have been gone
            return read_record(folder)
    except (OSError, ValidationError):
        return None
    if not is_under_way:  # its runner was killed before it could say so
        record.status = "interrupted"
        for step in record.steps.values():
            step.status = "interrupted" if step.status == "running" else step.status
    return record


def _add_journal(record: RunRecord, folder: Path) -> None:
    for name, state, metrics in read_journal(folder):
        with contextlib.suppress(ValidationError):
            if name in record.steps:
                record.steps[name] = StepRecord.model_validate(state)
                record.metrics.pop(name, None)  # it may be done again
                if metrics:
                    record.metrics[name] = metrics


def run_folders(root: Path) -> list[Path]:
    """Return the folders of the runs below a store, newest first."""
    return sorted((root / "runs").glob("*/"), reverse=True) if (root / "runs").is_dir() else []


def read_records(root: Path) -> Iterator[RunRecord]:
    """Yield the records below a store, newest first; what cannot be read is left out."""
    for folder in run_folders(root):
        record = read_record(folder)
        if record:
            yield record


def unreadable_records(root: Path) -> Iterator[tuple[Path, str]]:
    """Yield the records below a store that are there and say nothing to this kflow, each with the reason.

    A run that was killed before it wrote its first record has none, and has used nothing. What is in the place of the
    folder of all runs, and cannot be looked into, says as little: a link to a disk that is not there.
    """
    try:
        os.listdir(root / "runs")  # noqa: PTH208  only whether it can be
    except OSError as error:
        if os.path.lexists(root / "runs"):
            yield root / "runs", error.strerror or str(error)
    for folder in run_folders(root):
        yield from explain_unreadable(folder)


def explain_unreadable(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield what is in the folder of a run and says nothing to this kflow, each with the reason."""
    for path in (folder / RECORD, folder / JOURNAL):
        with contextlib.suppress(FileNotFoundError):
            reason = _find_fault(path)
            if reason:
                yield path, reason


def _find_fault(path: Path) -> str | None:
    """Return why a record cannot be read; of a journal it is enough that its bytes can be."""
    try:
        data = durable.read_bytes(path)
        if path.name == RECORD:
            RunRecord.model_validate_json(data)
    except FileNotFoundError:
        raise
    except OSError as error:
        return error.strerror
    except ValidationError:
        return "it is damaged" if _format_of(data) in (None, FORMAT) else "it is of another version of kflow"
    return None


def _format_of(data: bytes) -> Any:
    with contextlib.suppress(ValueError, RecursionError, AttributeError):
        return json.loads(data).get("format")
    return None


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that compute."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found


def describe_platform() -> str:
    """Return operating system and machine."""
    import platform

    return f"{platform.platform()} {sys.implementation.name}"


def _git_record(folder: Path) -> GitRecord | None:
    found = git_state(str(folder))
    return GitRecord(commit=found[0], is_dirty=found[1]) if found else None


def record_schema() -> dict[str, Any]:
    """Return the JSON Schema of a record."""
    schema = RunRecord.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "kflow run record", **schema}


def to_text(value: object) -> str:
    """Return JSON for a file under version control."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
