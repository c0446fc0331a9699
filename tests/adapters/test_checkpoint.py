"""A checkpoint that is damaged is refused, whatever the damage."""

import contextlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

from kflow.adapters.checkpoint import NAME, Checkpoint, UnfitError, read_checkpoint, write_checkpoint


def checkpoint() -> Checkpoint:
    """Return a small one."""
    return Checkpoint(
        epochs=2,
        history={"loss": [0.5, 0.25]},
        variables=[np.arange(3.0), np.arange(4)],
        captured=[np.arange(5)],
        batch=('[[null, 2], "float32"]',),
        callbacks=[{"wait": 1}],
        logs=[b"epoch,loss"],
        generators=((3, (1,), None), None),
    )


def is_same(found: Checkpoint, other: Checkpoint) -> bool:
    """Tell whether all of two checkpoints is equal."""
    names = [name for name in Checkpoint.__slots__ if name not in {"variables", "captured"}]
    arrays = zip(found.variables + found.captured, other.variables + other.captured, strict=True)
    return all(getattr(found, name) == getattr(other, name) for name in names) and all(
        np.array_equal(*pair) for pair in arrays
    )


def test_what_was_written_is_read(tmp_path: Path) -> None:
    """Values and arrays."""
    write_checkpoint(checkpoint(), tmp_path)

    found = read_checkpoint(tmp_path)
    assert found is not None
    assert is_same(found, checkpoint())


def test_no_flipped_bit_is_taken_for_a_state(tmp_path: Path) -> None:
    """In any byte; it is refused, or the same: some bits of a zip file, such as its times, mean nothing."""
    write_checkpoint(checkpoint(), tmp_path)
    path = tmp_path / NAME
    data = path.read_bytes()
    wrong = []
    for place in range(len(data)):
        flipped = bytearray(data)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        with contextlib.suppress(UnfitError):
            found = read_checkpoint(tmp_path)
            if not (found and is_same(found, checkpoint())):
                wrong.append(place)

    assert wrong == []


@pytest.mark.parametrize("what", ["deep JSON", "no state", "a pipe", "a folder"])
def test_whatever_lies_in_the_place_of_a_checkpoint_is_refused(tmp_path: Path, what: str) -> None:
    """It is waited for by nobody; the training says that it begins anew."""
    path = tmp_path / NAME
    match what:
        case "deep JSON":
            text = ("[" * 200_000).encode()
            np.savez(path, state=np.frombuffer(text, dtype=np.uint8))
        case "no state":
            np.savez(path, state=np.frombuffer(json.dumps({"format": 4}).encode(), dtype=np.uint8))
        case "a pipe":
            os.mkfifo(path)
        case "a folder":
            path.mkdir()

    with pytest.raises(UnfitError, match="its checkpoint is damaged"):
        read_checkpoint(tmp_path)
