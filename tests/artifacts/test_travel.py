"""A value that came from elsewhere is what its digest says, or it is refused."""

import copy
import json
import pickle
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from kflow.artifacts import Saved, array, artifact_type, digest_file, digest_json
from kflow.artifacts.array import Rows, Source
from kflow.artifacts.objects import ObjectSources
from kflow.artifacts.travel import Arrival, Home, NotHereError, UnfitError, settle, without_paths

Make = Callable[[Path], Any]


def make_rows(folder: Path) -> Rows:
    np.save(folder / "rows.npy", np.arange(6.0))
    path = folder / "rows.npy"
    return Rows.of(Source(str(path), digest_file(path)), ({"do": "scale", "scale": 2.0, "offset": 0, "dtype": "f8"},))


def make_file(folder: Path, name: str = "a.bin") -> Path:
    (folder / name).write_bytes(b"12345")
    return folder / name


def make_step_file(folder: Path) -> Path:
    (folder / "out").mkdir()
    return make_file(folder / "out")


def make_code(folder: Path) -> ObjectSources:
    module = make_file(folder, "layers.py")
    return ObjectSources({"Swish": (module, "Swish")}, {module: (module,)}, {})


VALUES: dict[str, tuple[str, Make]] = {
    "rows": ("array", make_rows),
    "array": ("array", lambda _: np.eye(2)),
    "a file of the user's": ("file", make_file),
    "a file of the step's": ("file", make_step_file),
    "image": ("image", make_file),
    "metrics": ("metrics", lambda _: {"loss": 0.5, "other": float("nan")}),
    "history": ("history", lambda _: {"loss": [0.5, 0.25]}),
    "objects": ("objects", make_code),
}


def send(type_name: str, value: Any, folder: Path) -> tuple[Arrival, Saved]:
    """Store a value, and return it as it would arrive elsewhere."""
    place = folder / "out" / "value"
    place.parent.mkdir(exist_ok=True)
    saved = artifact_type(type_name).save(value, place)
    files = {str(path.relative_to(place)): digest_file(path) for path in place.rglob("*") if path.is_file()}
    return Arrival(type_name, saved.digest, without_paths(type_name, saved.description), place, files), saved


def home_with(*paths: Path) -> Home:
    known = {digest_file(path): path for path in paths}
    return Home(known.get, known.keys())


@pytest.mark.parametrize("name", VALUES)
def test_a_value_is_the_same_at_home_and_elsewhere(tmp_path: Path, name: str) -> None:
    """And on its way it names no path of the machine that it comes from."""
    type_name, make = VALUES[name]
    arrival, saved = send(type_name, make(tmp_path), tmp_path)
    description, path = settle(arrival, home_with(*(each for each in tmp_path.glob("*") if each.is_file())))

    assert str(tmp_path) not in repr(arrival.description)
    assert description == saved.description
    assert [str(path)] == [each.path for each in saved.external] if path else not saved.external


@pytest.mark.parametrize("name", ["rows", "a file of the user's"])
def test_a_value_finds_the_file_that_it_refers_to(tmp_path: Path, name: str) -> None:
    """Wherever that lies; where it is not, the value cannot come."""
    type_name, make = VALUES[name]
    arrival, _ = send(type_name, make(tmp_path), tmp_path)
    (source,) = (path for path in tmp_path.glob("*") if path.is_file())
    moved = source.rename(tmp_path / "elsewhere")

    description, path = settle(arrival, home_with(moved))
    assert path == moved
    assert str(moved) in repr(description)
    with pytest.raises(NotHereError, match="is not here"):
        settle(arrival, home_with())


def rename(description: Mapping[str, Any]) -> dict[str, Any]:
    return {**description, "name": "../../secret"}


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("change", ["digest", "description", "files"])
def test_a_value_that_is_not_what_it_says_is_refused(tmp_path: Path, name: str, change: str) -> None:
    """Another digest, something more in its description, one more file."""
    type_name, make = VALUES[name]
    arrival, _ = send(type_name, make(tmp_path), tmp_path)
    home = home_with(*(each for each in tmp_path.glob("*") if each.is_file()))
    match change:
        case "digest":
            bad = replace(arrival, digest="0" * 64)
        case "description":
            bad = replace(arrival, description={**arrival.description, "path": "/etc/passwd"})
        case _:
            bad = replace(arrival, files={**arrival.files, "more": "0" * 64})
    is_free = change == "files" and name in {"metrics", "a file of the user's"}  # whose files nobody opens

    if is_free:
        assert settle(bad, home)[0]["path" if type_name == "file" else "metrics"]
    else:
        with pytest.raises((UnfitError, NotHereError)):
            settle(bad, home)


@pytest.mark.parametrize("name", ["array", "a file of the step's", "image"])
def test_a_name_that_leads_outside_is_refused(tmp_path: Path, name: str) -> None:
    """The description of a value may name only the file that came with it."""
    type_name, make = VALUES[name]
    arrival, _ = send(type_name, make(tmp_path), tmp_path)

    with pytest.raises(UnfitError, match="is not what its digest says"):
        settle(replace(arrival, description=rename(arrival.description)), home_with())


BAD_FORMS: dict[str, tuple[str, Callable[[dict[str, Any]], Any]]] = {
    "metrics of words": ("metrics", lambda d: d.update(metrics={"loss": "low"})),
    "metrics of a list": ("metrics", lambda d: d.update(metrics=[1])),
    "no metrics": ("metrics", lambda d: d.update(metrics=None)),
    "a metric beyond numbers": ("metrics", lambda d: d.update(metrics={"loss": 10**400})),
    "a negative shape": ("rows", lambda d: d.update(shape=[-1])),
    "a shape of words": ("rows", lambda d: d.update(shape=["a"])),
    "an unknown dtype": ("rows", lambda d: d.update(dtype="number")),
    "rows from the end": ("rows", lambda d: d["source"].update(start=-1)),
    "an unknown operation": ("rows", lambda d: d.update(operations=[{"do": "rotate"}])),
    "an operation of words": ("rows", lambda d: d["operations"][0].update(scale="2")),
    "an end of words": ("history", lambda d: d.update(last={"loss": "low"})),
    "half an epoch": ("history", lambda d: d.update(epochs=0.5)),
    "a symbol that is none": ("objects", lambda d: d.update(objects={"Swish": ["0/layers.py", None]})),
    "libraries that are none": ("objects", lambda d: d.update(libraries=[])),
}


@pytest.mark.parametrize("bad", BAD_FORMS)
def test_a_description_that_no_value_has_is_refused(tmp_path: Path, bad: str) -> None:
    """Though its digest fits, as whoever writes such a thing sees to."""
    name, spoil = BAD_FORMS[bad]
    arrival, _ = send(VALUES[name][0], VALUES[name][1](tmp_path), tmp_path)
    description = copy.deepcopy(dict(arrival.description))
    spoil(description)
    digest = digest_of(arrival, description)
    home = home_with(*(each for each in tmp_path.glob("*") if each.is_file()))

    with pytest.raises(UnfitError, match=f"its {arrival.type} is described as no {arrival.type} can be"):
        settle(replace(arrival, description=description, digest=digest), home)


def digest_of(arrival: Arrival, description: Mapping[str, Any]) -> str:
    """Return the digest that goes with a description."""
    match arrival.type:
        case "metrics":
            return digest_json(description["metrics"])
        case "array":
            return digest_json(description)
        case "objects":
            return digest_json([description["objects"], arrival.files, description["libraries"]])
    return arrival.digest


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("array", {"shape": [4]}),
        ("array", {"dtype": "float32"}),
        ("history", {"epochs": 3}),
        ("history", {"last": {"loss": 0.5}}),
        ("history", {"last": {}}),
    ],
)
def test_a_description_that_is_not_that_of_its_file_is_refused(
    tmp_path: Path, name: str, change: dict[str, Any]
) -> None:
    """It is told without the file being read."""
    arrival, _ = send(VALUES[name][0], VALUES[name][1](tmp_path), tmp_path)

    with pytest.raises(UnfitError, match=f"its {arrival.type} is not what its description says"):
        settle(replace(arrival, description={**arrival.description, **change}), home_with())


@pytest.mark.parametrize("content", [b"", b"12345", b"PK\x05\x06" + b"\0" * 18, pickle.dumps({}), "cut short"])
def test_an_array_that_cannot_be_opened_is_refused(tmp_path: Path, content: bytes | str) -> None:
    """Whatever has its digest."""
    arrival, _ = send("array", np.eye(2), tmp_path)
    path = arrival.folder / "array.npy"
    path.write_bytes(path.read_bytes()[:-1] if isinstance(content, str) else content)
    digest = digest_file(path)
    bad = replace(arrival, digest=digest, files={"array.npy": digest})

    with pytest.raises(UnfitError, match="its array is no file of rows"):
        settle(replace(bad, description={**arrival.description, "content": digest}), home_with())


@pytest.mark.parametrize("dtype", ["bfloat16", "int4", "S3", ">f4", "i4,f4"])
def test_an_array_of_any_type_comes(tmp_path: Path, dtype: str) -> None:
    """Also of one that a file holds as mere bytes."""
    arrival, saved = send("array", np.zeros(3, getattr(ml_dtypes, dtype, dtype)), tmp_path)

    assert settle(arrival, home_with()) == (saved.description, None)


@pytest.mark.parametrize("curves", [[1], {"loss": 1}, {"loss": ["low"]}, {"loss": [None]}])
def test_curves_that_are_none_are_refused(tmp_path: Path, curves: Any) -> None:
    """They would be told in the middle of a run that cannot draw them."""
    arrival, _ = send("history", {"loss": [0.5]}, tmp_path)
    (arrival.folder / "history.json").write_text(json.dumps(curves))
    last = {"name": "history.json", "epochs": 1, "last": {}}

    with pytest.raises(UnfitError, match="its history is not what its digest says"):
        settle(replace(arrival, digest=digest_json(curves), description=last), home_with())


def test_a_history_with_a_loss_that_is_no_number_comes(tmp_path: Path) -> None:
    """A NaN is not equal to itself, and the same all the same."""
    arrival, saved = send("history", {"loss": [0.5, float("nan")], "none": []}, tmp_path)

    assert repr(settle(arrival, home_with())) == repr((saved.description, None))


def test_code_of_somebody_else_is_refused(tmp_path: Path) -> None:
    """Though every digest is right: only what the workflow itself holds may be run."""
    arrival, _ = send("objects", make_code(tmp_path), tmp_path)

    with pytest.raises(UnfitError, match="code that is not that of this workflow"):
        settle(arrival, home_with())


def test_an_unknown_type_is_refused(tmp_path: Path) -> None:
    """A newer kflow may know more."""
    with pytest.raises(UnfitError, match="knows no values of type 'hologram'"):
        settle(Arrival("hologram", "0" * 64, {}, tmp_path, {}), home_with())


def test_the_rows_that_came_can_be_read(tmp_path: Path) -> None:
    """They are those of the file here."""
    arrival, _ = send("array", make_rows(tmp_path), tmp_path)
    description, _ = settle(arrival, home_with(tmp_path / "rows.npy"))

    assert array.load(description, tmp_path)[1:3].tolist() == [2.0, 4.0]
