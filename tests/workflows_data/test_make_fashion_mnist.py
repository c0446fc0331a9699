"""The script that makes fashion-mnist.h5, on small files of the same format."""

from __future__ import annotations

import dataclasses
import functools
import gzip
import hashlib
import http.server
import os
import runpy
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "workflows" / "data" / "make_fashion_mnist.py"
NAMES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
DATASETS = ("train/images", "train/labels", "test/images", "test/labels")


def idx(array: np.ndarray) -> bytes:
    """Write `array` in the idx format, from the description in MNIST's README."""
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    """Seven training and three test images with their labels."""
    generator = np.random.default_rng(7)
    made: dict[str, np.ndarray] = {}
    for split, count in (("train", 7), ("test", 3)):
        made[f"{split}/images"] = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        made[f"{split}/labels"] = np.arange(count, dtype=np.uint8)
    return made


@pytest.fixture
def source(tmp_path: Path, arrays: dict[str, np.ndarray]) -> Path:
    """A folder with the arrays as four gzipped idx files."""
    folder = tmp_path / "source"
    folder.mkdir()
    for name, dataset in zip(NAMES, DATASETS, strict=True):
        (folder / name).write_bytes(gzip.compress(idx(arrays[dataset])))
    return folder


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    """The script's names."""
    return runpy.run_path(str(SCRIPT))


def make(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the script in a process of its own."""
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **variables})


@pytest.fixture
def tools(tmp_path: Path, source: Path) -> Path:
    """A folder with an apt-get and a dpkg-deb that give the small files as if they were the package."""
    folder = tmp_path / "bin"
    folder.mkdir()
    programs = {
        "apt-get": "touch dataset-fashion-mnist_1_all.deb",
        "dpkg-deb": f"to=$3/usr/share/datasets/fashion-mnist; /bin/mkdir -p $to; /bin/cp '{source}'/* $to",
    }
    for name, body in programs.items():
        (folder / name).write_text(f"#!/bin/sh\nPATH=/bin:/usr/bin\n{body}\n")
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture
def server(source: Path) -> Iterator[str]:
    """The address of a server on this machine that serves the four files."""
    handler = functools.partial(QuietHandler, directory=str(source))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/"
        running.shutdown()
        thread.join()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """A file server that logs nothing."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_source_folder_becomes_hdf5(tmp_path: Path, source: Path, arrays: dict[str, np.ndarray]) -> None:
    """Each idx file becomes the dataset of its name; images gain a channel axis."""
    output = tmp_path / "out.h5"

    result = make("--source", source, "--output", output)
    assert (result.returncode, result.stderr) == (0, "")
    assert "7 + 3 images" in result.stdout
    with h5py.File(output) as file:
        for dataset in DATASETS:
            stored = file[dataset][:]
            assert stored.dtype == np.uint8
            assert np.array_equal(stored.squeeze(), arrays[dataset])
        assert file["train/images"].shape == (7, 28, 28, 1)


def test_datasets_can_be_mapped(tmp_path: Path, source: Path, arrays: dict[str, np.ndarray]) -> None:
    """Datasets are plain bytes at multiples of 4096, as NumPy's memory map shows."""
    output = tmp_path / "out.h5"

    make("--source", source, "--output", output)
    with h5py.File(output) as file:
        offsets = [file[dataset].id.get_offset() for dataset in DATASETS]
    assert [offset % 4096 for offset in offsets] == [0, 0, 0, 0]
    mapped = np.memmap(output, np.uint8, "r", offset=offsets[2], shape=(3, 28, 28))
    assert np.array_equal(mapped, arrays["test/images"])


def test_same_files_same_bytes(tmp_path: Path, source: Path) -> None:
    """Two runs at different times under different names write the same bytes."""
    first, second = tmp_path / "first.h5", tmp_path / "second.h5"

    make("--source", source, "--output", first, TZ="Asia/Tokyo")
    make("--source", source, "--output", second, USER="another")
    assert first.read_bytes() == second.read_bytes()


def test_file_is_replaced_whole(tmp_path: Path, source: Path) -> None:
    """An earlier file gives way to the new one, and no temporary file stays."""
    output = tmp_path / "to" / "out.h5"
    output.parent.mkdir()
    output.write_text("an earlier file")

    result = make("--source", source, "--output", output)
    assert result.returncode == 0
    assert h5py.is_hdf5(output)
    assert list(output.parent.iterdir()) == [output]


def gone(folder: Path) -> None:
    """Remove one file."""
    (folder / NAMES[1]).unlink()


def cut_gzip(folder: Path) -> None:
    """Cut a gzip file short, as a broken download does."""
    path = folder / NAMES[0]
    path.write_bytes(path.read_bytes()[:-40])


def html(folder: Path) -> None:
    """Put a web page in a file's place."""
    (folder / NAMES[3]).write_text("<html>404</html>")


def swapped(folder: Path) -> None:
    """Put labels in the images' place."""
    (folder / NAMES[0]).write_bytes((folder / NAMES[1]).read_bytes())


def empty(folder: Path) -> None:
    """Leave nothing but gzip's frame."""
    (folder / NAMES[0]).write_bytes(gzip.compress(b""))


def short(folder: Path) -> None:
    """Promise more images than there are."""
    content = gzip.decompress((folder / NAMES[2]).read_bytes())
    (folder / NAMES[2]).write_bytes(gzip.compress(content[:-1]))


def small_images(folder: Path) -> None:
    """Make the images too small."""
    (folder / NAMES[2]).write_bytes(gzip.compress(idx(np.zeros((3, 8, 8), np.uint8))))


def no_images(folder: Path) -> None:
    """Make a valid file of nothing."""
    (folder / NAMES[0]).write_bytes(gzip.compress(idx(np.zeros((0, 28, 28), np.uint8))))


def fewer_labels(folder: Path) -> None:
    """Leave an image without a label."""
    (folder / NAMES[3]).write_bytes(gzip.compress(idx(np.zeros(2, np.uint8))))


def eleventh_class(folder: Path) -> None:
    """Use a label beyond the last class."""
    (folder / NAMES[3]).write_bytes(gzip.compress(idx(np.array([0, 1, 10], np.uint8))))


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (gone, "No such file"),
        (cut_gzip, "train-images-idx3-ubyte.gz: cannot be read as a gzip file"),
        (html, "t10k-labels-idx1-ubyte.gz: cannot be read as a gzip file"),
        (swapped, "starts with 00000801, not with 00000803; it is not the idx file for train/images"),
        (empty, "starts with nothing"),
        (short, "promises 2,352 bytes (shape (3, 28, 28)) and holds 2,351"),
        (small_images, "has shape (3, 8, 8); expected one or more items of 28 x 28 pixels"),
        (no_images, "has shape (0, 28, 28)"),
        (fewer_labels, "test has 3 images and 2 labels"),
        (eleventh_class, "test has the label 10; labels go from 0 to 9"),
    ],
)
def test_damaged_source_is_refused(tmp_path: Path, source: Path, damage: Any, complaint: str) -> None:
    """Each kind of damage ends in one clear sentence, exit status 1 and no file."""
    damage(source)
    output = tmp_path / "to" / "out.h5"
    output.parent.mkdir()

    result = make("--source", source, "--output", output)
    assert result.returncode == 1
    assert complaint in result.stderr
    assert "Traceback" not in result.stderr
    assert list(output.parent.iterdir()) == []


def test_package_is_unpacked(
    tmp_path: Path, script: dict[str, Any], tools: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package's four files are found where Debian puts them."""
    monkeypatch.setenv("PATH", str(tools))
    folder = tmp_path / "unpacked"
    folder.mkdir()

    found = script["unpack_package"](folder)
    assert sorted(path.name for path in found.iterdir()) == sorted(NAMES)
    assert (found / NAMES[0]).read_bytes() == (source / NAMES[0]).read_bytes()


def test_package_with_other_content_is_refused(
    tmp_path: Path, script: dict[str, Any], tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that are in the right place but are not Fashion-MNIST fail their SHA-256."""
    monkeypatch.setenv("PATH", str(tools))
    folder = tmp_path / "unpacked"
    folder.mkdir()
    found = script["unpack_package"](folder)

    with pytest.raises(script["DataError"], match=r"train-images-idx3-ubyte\.gz: has SHA-256 [0-9a-f]{64}"):
        script["read_parts"](found, known=True)


def test_failing_apt_is_quoted(
    tmp_path: Path, script: dict[str, Any], tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What apt-get said when it failed is in the error."""
    monkeypatch.setenv("PATH", str(tools))
    (tools / "apt-get").write_text("#!/bin/sh\necho E: Unable to locate package >&2\nexit 100\n")

    with pytest.raises(script["DataError"], match=r"exit status 100: E: Unable to locate package"):
        script["unpack_package"](tmp_path)


def test_no_apt_is_said(tmp_path: Path, script: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without Debian's tools is told so."""
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(script["DataError"], match="no apt-get and no dpkg-deb on this machine"):
        script["unpack_package"](tmp_path)


def test_originals_are_downloaded(tmp_path: Path, script: dict[str, Any], source: Path, server: str) -> None:
    """The four files come from the server when their MD5 is right."""
    parts = [
        dataclasses.replace(part, md5=hashlib.md5((source / part.file).read_bytes()).hexdigest())
        for part in script["PARTS"]
    ]

    found = script["download_originals"](tmp_path / "cache", parts, server)
    for name in NAMES:
        assert (found / name).read_bytes() == (source / name).read_bytes()


def test_other_originals_are_refused(tmp_path: Path, script: dict[str, Any], server: str) -> None:
    """Files that do not have the published MD5 are an error that names the address."""
    with pytest.raises(
        script["DataError"],
        match=r"cannot download http://127\.0\.0\.1:\d+/train-images.*expected md5:8d4fb7e6",
    ):
        script["download_originals"](tmp_path / "cache", origin=server)
