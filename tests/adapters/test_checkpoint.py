"""A checkpoint that is damaged is none, whatever the damage."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from kflow.adapters.checkpoint import NAME, Checkpoint, read_checkpoint, write_checkpoint


def checkpoint() -> Checkpoint:
    """Return a small one."""
    arrays = {"variable0": np.arange(3.0), "numpy": np.arange(4)}
    return Checkpoint(2, False, {"loss": [0.5, 0.25]}, [{"wait": {"value": 1}}], {"python": [3, [1], None]}, arrays)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    """Values and arrays."""
    write_checkpoint(checkpoint(), tmp_path)

    found = read_checkpoint(tmp_path)
    assert found is not None
    assert (found.epochs, found.history, found.callbacks) == (2, {"loss": [0.5, 0.25]}, [{"wait": {"value": 1}}])
    np.testing.assert_array_equal(found.arrays["variable0"], [0.0, 1.0, 2.0])


def test_no_flipped_bit_is_taken_for_a_state(tmp_path: Path) -> None:
    """In any byte; it is none, or the same: some bits of a zip file, such as its times, mean nothing."""
    write_checkpoint(checkpoint(), tmp_path)
    path = tmp_path / NAME
    data = path.read_bytes()
    wrong = []
    for place in range(len(data)):
        flipped = bytearray(data)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        found = read_checkpoint(tmp_path)
        same = checkpoint()
        if found and not (
            found.epochs == same.epochs
            and found.history == same.history
            and found.arrays.keys() == same.arrays.keys()
            and all(np.array_equal(found.arrays[name], same.arrays[name]) for name in same.arrays)
        ):
            wrong.append(place)

    assert wrong == []


@pytest.mark.parametrize("what", ["deep JSON", "no state", "a pipe", "a folder"])
def test_whatever_lies_in_the_place_of_a_checkpoint_is_none(tmp_path: Path, what: str) -> None:
    """It is waited for by nobody."""
    path = tmp_path / NAME
    match what:
        case "deep JSON":
            text = ("[" * 200_000).encode()
            np.savez(path, state=np.frombuffer(text, dtype=np.uint8))
        case "no state":
            np.savez(path, state=np.frombuffer(json.dumps({"format": 2}).encode(), dtype=np.uint8))
        case "a pipe":
            os.mkfifo(path)
        case "a folder":
            path.mkdir()

    assert read_checkpoint(tmp_path) is None
