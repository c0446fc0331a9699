"""Make ``digits.h5``, the small real data set that the example workflows read.

The 1,797 images are the test set of the UCI "Optical Recognition of Handwritten
Digits" (E. Alpaydin and C. Kaynak, 1998), taken from the copy that scikit-learn
carries, in its order. The file is committed, so this script is only needed to
prove where its bytes come from::

    python3 -m venv /tmp/sk && /tmp/sk/bin/pip install scikit-learn h5py
    /tmp/sk/bin/python workflows/data/make_digits.py

The bytes are the same each time: neither clock, user name nor path goes in.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

DEFAULT_OUTPUT = Path(__file__).resolve().parent / "digits.h5"
ROWS = 1797
ATTRIBUTES = {
    "title": "Optical Recognition of Handwritten Digits (test set)",
    "authors": "E. Alpaydin, C. Kaynak (1998)",
    "source": "UCI Machine Learning Repository, https://doi.org/10.24432/C50P49",
    "via": "scikit-learn, sklearn.datasets.load_digits",
    "license": "CC BY 4.0, https://creativecommons.org/licenses/by/4.0/",
    "changes": "pixels stored as uint8 with a channel axis; nothing left out or reordered",
}


def read_digits() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Read the digits out of scikit-learn.

    Returns
    -------
    images, labels : ndarray of uint8
        Shapes ``(1797, 8, 8, 1)``, values 0 to 16, and ``(1797,)``, values 0 to 9.

    Raises
    ------
    ModuleNotFoundError
        scikit-learn is not installed.
    ValueError
        scikit-learn's copy is not the data set that this script knows.
    """
    import numpy as np

    digits = importlib.import_module("sklearn.datasets").load_digits()
    images, labels = np.asarray(digits.images), np.asarray(digits.target)
    if images.shape != (ROWS, 8, 8) or labels.shape != (ROWS,):
        raise ValueError(
            f"scikit-learn's digits have shapes {images.shape} and {labels.shape}, not ({ROWS}, 8, 8) and "
            f"({ROWS},); use a scikit-learn whose load_digits() gives the UCI test set"
        )
    # scikit-learn hands out float64; a value that uint8 cannot hold would wrap in silence.
    exact = images.astype(np.uint8)
    if not np.array_equal(exact, images) or exact.max() > 16 or set(labels.tolist()) != set(range(10)):
        raise ValueError("scikit-learn's digits are not whole numbers from 0 to 16 with the labels 0 to 9")
    return exact[..., np.newaxis], labels.astype(np.uint8)


def write_digits(path: Path, images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> None:
    """Write both arrays to `path`, which appears complete or not at all."""
    import h5py

    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with h5py.File(temporary, "w") as file:
            file.attrs.update(ATTRIBUTES)
            for name, array in (("images", images), ("labels", labels)):
                file.create_dataset(name, data=array, track_times=False)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script; 0 is success, 1 a failure explained on standard error."""
    parser = argparse.ArgumentParser(description="Make digits.h5 from scikit-learn's copy of the UCI digits.")
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT, help="the file to write")
    output: Path = parser.parse_args(arguments).output
    try:
        write_digits(output, *read_digits())
    except ModuleNotFoundError as error:
        sys.stderr.write(f"make_digits: {error}; run: python -m pip install scikit-learn h5py\n")
        return 1
    except (OSError, ValueError) as error:
        sys.stderr.write(f"make_digits: {error}\n")
        return 1
    sys.stdout.write(f"{output}: {ROWS} images, {output.stat().st_size:,} bytes\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
