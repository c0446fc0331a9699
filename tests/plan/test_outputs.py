"""Files that steps write by path: what cannot be written is found before anything runs."""

import os
from pathlib import Path

import pytest

from kflow import durable
from kflow.document import parse_document
from kflow.errors import WorkflowError
from kflow.plan.resolve import bind
from kflow.registry import Registry
from kflow.spec.parse import parse_workflow
from kflow.workspace import Workspace

HEAD = "kflow: 1\nname: a\nsteps:\n  m: {kind: load_model, filepath: a.h5}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file to read, and one to write to."""
    (tmp_path / "a.h5").write_bytes(b"any bytes")
    (tmp_path / "results").mkdir()
    return tmp_path


def complaints(folder: Path, *outputs: str, store: Path | None = None, writes: bool = True) -> list[tuple[str, int]]:
    """Return what is wrong with steps that write to some paths, each with its line."""
    steps = [f'  s{n}: {{kind: save_model, model: "${{m}}", filepath: "{path}"}}\n' for n, path in enumerate(outputs)]
    parsed = parse_workflow(parse_document(HEAD + "".join(steps), "a.yaml"), Registry())
    try:
        bind(parsed, Workspace(folder), check_contents=False, store=store, writes=writes)
    except WorkflowError as error:
        return [(each.message, each.mark.line - 5) for each in error.diagnostics if each.mark]
    return []


def test_a_place_that_cannot_be_written_is_refused(folder: Path) -> None:
    """Below a file, too long a name or path, a device: each with its line."""
    os.mkfifo(folder / "pipe.keras")
    long, path = "n" * 300 + ".keras", "/".join(["results", *["n" * 200] * 25, "x.keras"])
    outputs = ("a.h5/x.keras", "a.h5/y/x.keras", long, path, "pipe.keras", "results/new/x.keras")

    assert complaints(folder, *outputs) == [
        (f"'a.h5/x.keras' cannot be written: {folder}/a.h5 is a file, not a folder", 0),
        (f"'a.h5/y/x.keras' cannot be written: {folder}/a.h5 is a file, not a folder", 1),
        ("the name of a file has at most 255 bytes, this one has 306", 2),
        (f"{path!r} cannot be written: File name too long", 3),
        ("'pipe.keras' is a device or a pipe, not a file to write", 4),
    ]


@pytest.mark.parametrize("name", ["n" * 249 + ".keras", "\u00fc" * 124 + ".keras", "\u6f22" * 83 + ".keras"])
def test_a_name_as_long_as_names_can_be_is_written(folder: Path, name: str) -> None:
    """It is bytes that count, also in the names used beside it on the way."""
    durable.write_text(folder / name, "here")

    assert complaints(folder, name) == []
    assert (folder / name).read_text() == "here"


def test_a_folder_without_permission_is_refused_where_a_file_would_be_new(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is there may be the one that would be written; and a run that is done again writes none."""
    (folder / "results" / "old.keras").write_bytes(b"")
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith("results"))  # root may do everything
    outputs = ("results/old.keras", "results/new.keras", "results/sub/new.keras", "x.keras")
    told = f"cannot be written: the folder {folder}/results cannot be written to"

    assert complaints(folder, *outputs) == [
        (f"'results/new.keras' {told}", 1),
        (f"'results/sub/new.keras' {told}", 2),
    ]
    assert complaints(folder, *outputs, writes=False) == []


def test_nothing_is_written_into_the_store(folder: Path) -> None:
    """Through links neither; where the workflow itself lies in the store's folder, its own folders are meant."""
    (folder / ".kflow" / "entries").mkdir(parents=True)
    (folder / "link").symlink_to(".kflow/entries")
    outputs = (".kflow/entries/ab/x.keras", "link/x.keras", ".kflow/x.keras", "x.keras")
    store = folder / ".kflow"

    assert complaints(folder, *outputs, store=store) == [
        (f"{path!r} lies in the store {store}; choose a place outside of it", line)
        for line, path in enumerate(outputs[:3])
    ]
    assert complaints(folder, "x.keras", "tmp/x.keras", store=folder) == [
        (f"'tmp/x.keras' lies in the store {folder}; choose a place outside of it", 1)
    ]


def test_a_file_of_one_step_is_no_folder_of_another(folder: Path) -> None:
    """The order of the steps does not matter."""
    assert complaints(folder, "out.keras/x.keras", "out.keras") == [
        (f"step 's0' writes 'out.keras/x.keras' as if {folder}/out.keras were a folder, which 's1' writes as a file", 0)
    ]


def test_a_link_that_leads_nowhere_is_no_folder(folder: Path) -> None:
    """As to a disk that is not there; one could be made in its place only by taking the link away."""
    (folder / "out").symlink_to(folder / "no" / "such")
    told = f"cannot be written: {folder}/out is a link that leads nowhere"

    assert complaints(folder, "out/m.keras", "out/sub/m.keras") == [
        (f"'out/m.keras' {told}", 0),
        (f"'out/sub/m.keras' {told}", 1),
    ]
