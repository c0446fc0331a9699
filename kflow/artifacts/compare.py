"""Where two stored values of one type differ: weights by layer, metrics by value, arrays by place."""

import contextlib
import io
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kflow.artifacts import artifact_type

_WEIGHTS = "model.weights.h5"
"""The member of a ``.keras`` file that holds its weights."""
_FEW = 5
"""So many places are told; more are counted."""


def find_differences(
    type_name: str, first: tuple[Mapping[str, Any], Path], second: tuple[Mapping[str, Any], Path]
) -> str:
    """Say in words where two stored values differ.

    Parameters
    ----------
    type_name : str
        The type of both.
    first, second : tuple of mapping and Path
        The description of each, and the folder that it lies in.

    Returns
    -------
    str
        The first few places; empty when none is found.
    """
    find = {"model": _in_models, "array": _in_arrays, "metrics": _in_numbers, "history": _in_numbers}.get(type_name)
    found = list((find or _in_files)(*(_open(type_name, *each) for each in (first, second))))
    more = [f"and {len(found) - _FEW} more"] if len(found) > _FEW else []
    return "; ".join(found[:_FEW] + more)


def _open(type_name: str, description: Mapping[str, Any], folder: Path) -> Any:
    if type_name in {"model", "image"}:
        return folder / description["name"]
    return artifact_type(type_name).load(description, folder)


def _in_models(first: Path, second: Path) -> Iterator[str]:
    """Yield the weights and the other parts of two ``.keras`` files that differ."""
    import h5py

    with zipfile.ZipFile(first) as one, zipfile.ZipFile(second) as other:
        for name in sorted({*one.namelist(), *other.namelist()} - {_WEIGHTS}):
            if name not in one.namelist() or name not in other.namelist() or one.read(name) != other.read(name):
                yield f"{name} differs"
        with (
            h5py.File(io.BytesIO(one.read(_WEIGHTS))) as a,
            h5py.File(io.BytesIO(other.read(_WEIGHTS))) as b,
        ):
            yield from _in_weights(dict(_datasets(a)), dict(_datasets(b)))


def _datasets(group: Any) -> Iterator[tuple[str, Any]]:
    import h5py

    for node in group.values():
        if isinstance(node, h5py.Dataset):
            yield node.name, node
        elif isinstance(node, h5py.Group):
            yield from _datasets(node)


def _in_weights(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[str]:
    for name in {**first, **second}:
        if name not in first or name not in second:
            yield f"{name} is only in one"
        else:
            yield from (f"{name}: {text}" for text in _in_arrays(first[name], second[name]))


def _in_arrays(first: Any, second: Any) -> Iterator[str]:
    import numpy as np

    one, other = np.asarray(first), np.asarray(second)
    if one.shape != other.shape or one.dtype != other.dtype:
        yield f"{one.shape} {one.dtype} and {other.shape} {other.dtype}"
        return
    is_other = np.asarray(one != other)
    if one.dtype.kind == "f":
        is_other &= ~(np.isnan(one) & np.isnan(other))
    if not is_other.any():
        return
    text = f"{int(is_other.sum())} of {one.size} values differ"
    if one.dtype.kind in "fiub":
        with np.errstate(invalid="ignore"):
            gap = np.abs(one.astype("float64") - other.astype("float64"))[is_other]
        if np.isfinite(gap).any():
            text += f", by at most {gap[np.isfinite(gap)].max():.3g}"
    place = np.unravel_index(int(is_other.ravel().argmax()), one.shape)
    yield f"{text}, first at {tuple(int(index) for index in place)}"


def _in_numbers(first: Any, second: Any) -> Iterator[str]:
    for name in {**first, **second}:
        one, other = first.get(name), second.get(name)
        if repr(one) != repr(other):
            if isinstance(one, list) and isinstance(other, list):
                epoch = next(
                    (i for i, pair in enumerate(zip(one, other, strict=False)) if repr(pair[0]) != repr(pair[1])), None
                )
                yield f"{name} from epoch {1 + (epoch if epoch is not None else min(len(one), len(other)))} on"
            else:
                yield f"{name} {one!r} and {other!r}"


def _in_saved_models(first: Path, second: Path) -> Iterator[str]:
    """Yield what differs between two files with weights, whatever they are called; nothing of others."""
    import h5py

    if all(zipfile.is_zipfile(path) for path in (first, second)):
        if _has_weights(first) and _has_weights(second):
            yield from _in_models(first, second)
    elif all(h5py.is_hdf5(path) for path in (first, second)):
        with h5py.File(first) as one, h5py.File(second) as other:
            yield from _in_weights(dict(_datasets(one)), dict(_datasets(other)))


def _has_weights(path: Path) -> bool:
    with zipfile.ZipFile(path) as file:
        return _WEIGHTS in file.namelist()


def _in_files(first: Any, second: Any) -> Iterator[str]:
    if not isinstance(first, Path):
        return
    found = []
    with contextlib.suppress(Exception):  # what HDF5 may hold beside the weights of a model has no end
        found = list(_in_saved_models(first, second))
    if found:
        yield from found
        return
    one, other = first.read_bytes(), second.read_bytes()
    if one != other:
        place = next(
            (i for i, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), min(len(one), len(other))
        )
        yield f"{len(one)} and {len(other)} bytes, first at byte {place}"
