"""Where two stored values differ is said in words."""

import warnings
import zipfile
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

from kflow.artifacts import artifact_type
from kflow.artifacts.compare import find_differences


def store(kind: str, value: Any, folder: Path) -> tuple[Any, Path]:
    folder.mkdir(exist_ok=True)
    return artifact_type(kind).save(value, folder / "out").description, folder / "out"


@pytest.mark.parametrize(
    ("kind", "first", "second", "told"),
    [
        ("metrics", {"loss": 0.5, "accuracy": 1.0}, {"loss": 0.25, "accuracy": 1.0}, "loss 0.5 and 0.25"),
        ("metrics", {"loss": float("nan")}, {"loss": float("nan")}, ""),
        ("history", {"loss": [3, 2, 1]}, {"loss": [3, 2, 0]}, "loss from epoch 3 on"),
        ("history", {"loss": [3, 2]}, {"loss": [3, 2, 0]}, "loss from epoch 3 on"),
    ],
)
def test_numbers(tmp_path: Path, kind: str, first: Any, second: Any, told: str) -> None:
    """By name, and by the first epoch."""
    assert find_differences(kind, store(kind, first, tmp_path / "a"), store(kind, second, tmp_path / "b")) == told


def test_models(tmp_path: Path) -> None:
    """Each weight that differs is named, with how far it is off."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), keras.layers.Dense(1)])
    one = store("model", model, tmp_path / "a")
    kernel = model.layers[1].kernel
    kernel.assign(kernel + np.array([[0.0], [0.5]]))
    other = store("model", model, tmp_path / "b")
    text = find_differences("model", one, other)

    assert "/layers/dense_1/vars/0: 1 of 2 values differ, by at most 0.5, first at (1, 0)" in text
    assert ";" not in text


@pytest.mark.parametrize("name", ["out.keras", "out.h5", "out.weights.h5"])
def test_files_that_hold_models(tmp_path: Path, name: str) -> None:
    """By weight too, in every format that models are saved in."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="first")])
    sides = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        with warnings.catch_warnings(action="ignore"):  # HDF5 is a legacy format
            (model.save_weights if "weights" in name else model.save)(tmp_path / folder / name)
        sides.append(store("file", tmp_path / folder / name, tmp_path / folder))
        model.layers[0].kernel.assign(model.layers[0].kernel + 0.5)

    text = find_differences("file", *sides)
    assert "6 of 6 values differ, by at most 0.5, first at (0, 0)" in text
    assert "first at byte" not in text


@pytest.mark.parametrize("what", ["rows of any length", "no rows", "a loop"])
def test_files_that_hold_what_no_model_does(tmp_path: Path, what: str) -> None:
    """By the first byte, and never by an error."""
    sides = []
    for number, folder in enumerate(("a", "b")):
        (tmp_path / folder).mkdir()
        with h5py.File(tmp_path / folder / "out.h5", "w") as file:
            if what == "rows of any length":
                file.create_dataset("x", (2,), h5py.vlen_dtype("f4"))[0] = [1.0 + number, 2.0]
            elif what == "no rows":
                file["x"] = h5py.Empty("f4" if number else "f8")
            else:
                file["loop"] = h5py.SoftLink("/")
                file.attrs["number"] = number
        sides.append(store("file", tmp_path / folder / "out.h5", tmp_path / folder))

    assert "bytes, first at byte" in find_differences("file", *sides)


def test_what_is_no_number(tmp_path: Path) -> None:
    """Against one that is: how far it is off cannot be told."""
    pair = [np.array([1.0, value]) for value in (np.nan, 2.0)]
    text = find_differences(
        "array", *(store("array", each, tmp_path / name) for each, name in zip(pair, "ab", strict=True))
    )

    assert text == "1 of 2 values differ, first at (1,)"


def test_files_of_other_kinds(tmp_path: Path) -> None:
    """By the first byte, zip files too that hold no model."""
    sides = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        with zipfile.ZipFile(tmp_path / folder / "out.zip", "w") as file:
            file.writestr(zipfile.ZipInfo("name"), folder)
        sides.append(store("file", tmp_path / folder / "out.zip", tmp_path / folder))

    assert "bytes, first at byte" in find_differences("file", *sides)


def test_pictures(tmp_path: Path) -> None:
    """By the first byte."""
    sides = []
    for name, content in (("a", b"abcd"), ("b", b"abXde")):
        (tmp_path / "out.png").write_bytes(content)
        sides.append(store("image", tmp_path / "out.png", tmp_path / name))

    assert find_differences("image", *sides) == "4 and 5 bytes, first at byte 2"
