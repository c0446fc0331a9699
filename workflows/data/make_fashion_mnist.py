"""Make ``fashion-mnist.h5`` (55 MB, not committed): 70,000 images in ten classes.

Fashion-MNIST (Zalando SE, 2017, MIT license) comes as four gzipped idx files. They
are taken from the first place that has them:

1. ``--source DIR``: a folder with the four files; nothing else is tried.
2. Debian's and Ubuntu's package ``dataset-fashion-mnist``, unpacked into a temporary
   folder: nothing is installed, and no root is needed where apt's lists are there.
3. The original files over the network, by their published MD5.

Whatever 2 and 3 give must also have the known SHA-256 once decompressed, so both
end in the same bytes::

    .venv/bin/python workflows/data/make_fashion_mnist.py

The datasets are ``train/images`` (60000, 28, 28, 1), ``train/labels`` (60000,),
``test/images`` (10000, 28, 28, 1) and ``test/labels`` (10000,), all uint8, contiguous,
uncompressed and on 4096-byte boundaries, so that they can be memory-mapped.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

DEFAULT_OUTPUT = Path(__file__).resolve().parent / "fashion-mnist.h5"
PACKAGE = "dataset-fashion-mnist"
PACKAGE_FOLDER = "usr/share/datasets/fashion-mnist"
ORIGIN = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
ATTRIBUTES = {
    "title": "Fashion-MNIST",
    "authors": "Han Xiao, Kashif Rasul, Roland Vollgraf; Zalando SE (2017)",
    "source": "https://github.com/zalandoresearch/fashion-mnist",
    "license": "MIT",
}
# The idx format's magic number: two zero bytes, 8 for uint8, the number of axes.
IMAGES_MAGIC = b"\0\0\x08\x03"
LABELS_MAGIC = b"\0\0\x08\x01"
CLASSES = 10
SIDE = 28


@dataclass(frozen=True)
class Part:
    """One idx file: where it goes in the HDF5 file, its format and its known digests."""

    dataset: str
    file: str
    magic: bytes
    md5: str  # of the original .gz file, as its authors publish it
    sha256: str  # of the decompressed content


PARTS = (
    Part(
        "train/images",
        "train-images-idx3-ubyte.gz",
        IMAGES_MAGIC,
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    ),
    Part(
        "train/labels",
        "train-labels-idx1-ubyte.gz",
        LABELS_MAGIC,
        "25c81989df183df01b3e8a0aad5dffbe",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    ),
    Part(
        "test/images",
        "t10k-images-idx3-ubyte.gz",
        IMAGES_MAGIC,
        "bef4ecab320f06d8554ea6380940ec79",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    ),
    Part(
        "test/labels",
        "t10k-labels-idx1-ubyte.gz",
        LABELS_MAGIC,
        "bb300cfdad3c16e7a12a480ee83cd310",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
)


class DataError(Exception):
    """The data could not be had or is not what it should be."""


def read_content(path: Path) -> bytes:
    """Decompress the gzip file `path`."""
    try:
        return gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read as a gzip file ({error}); get it again") from error


def parse_idx(content: bytes, part: Part, path: Path) -> NDArray[np.uint8]:
    """Turn an idx file's content into an array; `path` is for the error text.

    The format is a magic number, then each axis's length as a big-endian 32-bit
    number, then the bytes in row-major order (README of the original MNIST). Images
    gain a last axis of length 1, the channel that Keras expects.
    """
    import numpy as np

    axes = part.magic[3]
    start = 4 + 4 * axes
    if content[:4] != part.magic or len(content) < start:
        raise DataError(
            f"{path}: starts with {content[:4].hex() or 'nothing'}, not with {part.magic.hex()}; "
            f"it is not the idx file for {part.dataset}"
        )
    shape = tuple(int(length) for length in np.frombuffer(content, ">u4", count=axes, offset=4))
    expected = int(np.prod(shape, dtype=object))
    found = len(content) - start
    if found != expected:
        raise DataError(f"{path}: promises {expected:,} bytes (shape {shape}) and holds {found:,}; get it again")
    if shape[0] == 0 or shape[1:] not in ((), (SIDE, SIDE)):
        raise DataError(f"{path}: has shape {shape}; expected one or more items of {SIDE} x {SIDE} pixels")
    array = np.frombuffer(content, np.uint8, offset=start).reshape(shape)
    return array[..., np.newaxis] if axes == 3 else array


def read_parts(folder: Path, *, known: bool) -> dict[str, NDArray[np.uint8]]:
    """Read the four files in `folder` into arrays by dataset name.

    With `known`, each content must have Fashion-MNIST's SHA-256. In any case each
    image must have one label, from 0 to 9.
    """
    arrays = {}
    for part in PARTS:
        path = folder / part.file
        content = read_content(path)
        if known and (digest := hashlib.sha256(content).hexdigest()) != part.sha256:
            raise DataError(f"{path}: has SHA-256 {digest} decompressed, expected {part.sha256}; get it again")
        arrays[part.dataset] = parse_idx(content, part, path)
    for split in ("train", "test"):
        images, labels = arrays[f"{split}/images"], arrays[f"{split}/labels"]
        if len(images) != len(labels):
            raise DataError(f"{folder}: {split} has {len(images):,} images and {len(labels):,} labels")
        if labels.max() >= CLASSES:
            raise DataError(f"{folder}: {split} has the label {labels.max()}; labels go from 0 to {CLASSES - 1}")
    return arrays


def run_tool(command: Sequence[str], folder: Path) -> None:
    """Run `command` in `folder`; its output is shown only when it fails."""
    result = subprocess.run(  # noqa: S603 - no shell, and no argument comes from outside this file
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if result.returncode != 0:
        said = (result.stderr or result.stdout).strip() or "no output"
        raise DataError(f"`{' '.join(command)}` failed with exit status {result.returncode}: {said}")


def unpack_package(folder: Path) -> Path:
    """Download the Debian package, unpack it into `folder` and return where the files are."""
    missing = [tool for tool in ("apt-get", "dpkg-deb") if shutil.which(tool) is None]
    if missing:
        raise DataError(f"no {' and no '.join(missing)} on this machine")
    try:
        run_tool(["apt-get", "download", PACKAGE], folder)
    except DataError as error:
        if os.geteuid() != 0:
            raise DataError(f"{error}\n(where apt's lists are missing, `sudo apt-get update` fetches them)") from error
        run_tool(["apt-get", "update"], folder)
        run_tool(["apt-get", "download", PACKAGE], folder)
    packages = list(folder.glob(f"{PACKAGE}_*.deb"))
    if not packages:
        raise DataError(f"`apt-get download {PACKAGE}` left no package behind")
    run_tool(["dpkg-deb", "-x", packages[0].name, "."], folder)
    return folder / PACKAGE_FOLDER


def download_originals(folder: Path, parts: Sequence[Part] = PARTS, origin: str = ORIGIN) -> Path:
    """Download the four original files into `folder`, checking their published MD5."""
    for part in parts:
        try:
            from kflow.core import get_file

            get_file(
                part.file,
                origin + part.file,
                file_hash=part.md5,
                hash_algorithm="md5",
                cache_dir=str(folder),
                cache_subdir="original",
            )
        except Exception as error:  # whatever went wrong, the next thing to do is the same
            raise DataError(f"cannot download {origin}{part.file}: {error}") from error
    return folder / "original"


def collect(source: Path | None) -> dict[str, NDArray[np.uint8]]:
    """Read the data from `source`, or from the first official place that has it."""
    if source is not None:
        return read_parts(source, known=False)
    failures = []
    for place in (unpack_package, download_originals):
        with tempfile.TemporaryDirectory(prefix="fashion-mnist-") as folder:
            try:
                return read_parts(place(Path(folder)), known=True)
            except DataError as error:
                failures.append(str(error))
    raise DataError(
        "\n".join(["Fashion-MNIST could not be had.", *failures])
        + "\nFetch the four files by hand and name their folder: --source DIR"
    )


def write_hdf5(path: Path, arrays: Mapping[str, NDArray[np.uint8]]) -> None:
    """Write `arrays` to `path`, which appears complete or not at all."""
    import h5py

    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with h5py.File(temporary, "w", alignment_threshold=1, alignment_interval=4096) as file:
            file.attrs.update(ATTRIBUTES)
            for name, array in arrays.items():
                file.create_dataset(name, data=array, track_times=False)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script; 0 is success, 1 a failure explained on standard error."""
    parser = argparse.ArgumentParser(description="Make fashion-mnist.h5 for the Fashion-MNIST workflows.")
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT, help="the file to write")
    parser.add_argument("--source", type=Path, metavar="DIR", help="a folder with the four .gz files")
    options = parser.parse_args(arguments)
    output: Path = options.output
    try:
        arrays = collect(options.source)
        write_hdf5(output, arrays)
    except (DataError, OSError) as error:
        sys.stderr.write(f"make_fashion_mnist: {error}\n")
        return 1
    counts = f"{len(arrays['train/images']):,} + {len(arrays['test/images']):,} images"
    sys.stdout.write(f"{output}: {counts}, {output.stat().st_size:,} bytes\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
