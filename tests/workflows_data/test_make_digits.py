"""The committed digits and the script that makes them."""

from __future__ import annotations

import hashlib
import re
import runpy
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

DATA = Path(__file__).parents[2] / "workflows" / "data"
SCRIPT = DATA / "make_digits.py"


def test_shapes_and_types() -> None:
    """The file holds 1,797 gray 8 x 8 images with values from 0 to 16, and as many labels."""
    with h5py.File(DATA / "digits.h5") as file:
        images, labels = file["images"][:], file["labels"][:]

    assert (images.shape, images.dtype) == ((1797, 8, 8, 1), np.uint8)
    assert (labels.shape, labels.dtype) == ((1797,), np.uint8)
    assert (images.min(), images.max()) == (0, 16)


def test_class_counts_are_those_that_uci_publishes() -> None:
    """The ten classes have the sizes that UCI's optdigits.names gives for the test set."""
    with h5py.File(DATA / "digits.h5") as file:
        labels = file["labels"][:]

    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_first_image_is_a_zero() -> None:
    """Rows keep UCI's order: the first line of optdigits.tes is this zero."""
    with h5py.File(DATA / "digits.h5") as file:
        image, label = file["images"][0, :, :, 0], file["labels"][0]

    assert label == 0
    assert image[0].tolist() == [0, 0, 5, 13, 9, 1, 0, 0]
    assert image[7].tolist() == [0, 0, 6, 13, 10, 0, 0, 0]


@pytest.mark.parametrize(("start", "end"), [(0, 1300), (1300, 1500), (1500, 1797)])
def test_readme_counts_each_window(start: int, end: int) -> None:
    """Each window's class counts are those in the README, and no class has less than 9 percent."""
    with h5py.File(DATA / "digits.h5") as file:
        counts = np.bincount(file["labels"][start:end], minlength=10)

    row = f"| {start} to {end - 1} |"
    (line,) = [line for line in (DATA / "README.md").read_text().splitlines() if line.startswith(row)]
    assert line.split("|")[3].split() == [str(count) for count in counts]
    assert counts.min() >= 0.09 * (end - start)


def test_digest_size_and_attributes() -> None:
    """The README names the file's digest, the file is small, and it carries its source and license."""
    content = (DATA / "digits.h5").read_bytes()
    with h5py.File(DATA / "digits.h5") as file:
        attributes = dict(file.attrs)

    digests = re.findall(r"`([0-9a-f]{64})`", (DATA / "README.md").read_text())
    assert digests[0] == hashlib.sha256(content).hexdigest()
    assert len(content) <= 150_000
    assert "CC BY 4.0" in attributes["license"]
    assert "10.24432/C50P49" in attributes["source"]


def test_writing_again_gives_the_same_bytes(tmp_path: Path) -> None:
    """The script's writer turns the same arrays into the committed bytes and leaves nothing else behind."""
    write_digits = runpy.run_path(str(SCRIPT))["write_digits"]
    with h5py.File(DATA / "digits.h5") as file:
        images, labels = file["images"][:], file["labels"][:]
    again = tmp_path / "to" / "again.h5"
    again.parent.mkdir()

    write_digits(again, images, labels)
    assert again.read_bytes() == (DATA / "digits.h5").read_bytes()
    assert list(again.parent.iterdir()) == [again]


def test_without_scikit_learn_it_says_what_to_install(tmp_path: Path) -> None:
    """Where scikit-learn is not to be found, the script names it, the remedy, and writes nothing."""
    hide = (
        "import runpy, sys; sys.modules['sklearn'] = None; sys.argv = sys.argv[1:]; "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    output = tmp_path / "to" / "digits.h5"
    output.parent.mkdir()
    command = [sys.executable, "-c", hide, str(SCRIPT), "--output", str(output)]

    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "sklearn" in result.stderr
    assert "pip install scikit-learn h5py" in result.stderr
    assert list(output.parent.iterdir()) == []
