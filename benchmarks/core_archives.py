"""Archives extracted, and asked for again, against the standard library, Keras and pooch, on one file system.

The folder is a temporary one: set TMPDIR to measure another file system. kflow alone brings what it wrote to the
disk, so it comes first in each round, when there is nothing of others to write.
"""

import io
import itertools
import os
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from measure import Medians, measure, show

FILES, SIZE, LARGE = 8000, 12_000, 246_000_000
_PAUSE = "(pause)"


def report(rounds: int) -> None:
    """Print the tables."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        many = [(f"{index % 80:02}/{index:04}", data) for index, data in enumerate(_pieces(FILES, SIZE))]
        large = [("large", b"".join(_pieces(LARGE // 10**6, 10**6)))]
        for title, path in (
            (f"tar.gz of {FILES} files of {SIZE:,} bytes", _tar(folder / "many.tar.gz", many)),
            (f"tar.gz of one file of {LARGE:,} bytes", _tar(folder / "large.tar.gz", large)),
            (f"zip of {FILES} files of {SIZE:,} bytes", _zip(folder / "many.zip", many)),
        ):
            calls = {"kflow": _kflow, "standard library": _standard, "keras": _keras, "pooch": _pooch}
            places = map(folder.joinpath, map("{}.out".format, itertools.count()))
            fresh = {name: partial(_call, call, path, places) for name, call in calls.items()}
            # Only large files are removed between rounds: removing thousands would slow the next round.
            pause = partial(_remove, folder) if path.name.startswith("large") else os.sync
            times = measure({**fresh, _PAUSE: pause}, rounds)
            show(title, _without_pause(times), "standard library", {"kflow": 1.0})
            _remove(folder)
        again = {"kflow": _again_kflow(folder / "many.tar.gz"), "keras": _again_keras(folder / "many.tar.gz")}
        show("the first of them, asked for again", measure(again, rounds), "keras", {"kflow": 0.01})


def _pieces(count: int, size: int) -> list[bytes]:
    """Give data that packs to about two thirds, as pictures of few colours and tables do."""
    import numpy as np

    noise = np.random.default_rng(0).integers(0, 32, (count, size), np.uint8)
    return [row.tobytes() for row in noise]


def _tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w:gz", compresslevel=6) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def _zip(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def _call(extract: Callable[[Path, Path], None], path: Path, places: Iterator[Path]) -> None:
    extract(path, next(places))


def _kflow(path: Path, target: Path) -> None:
    from kflow.core.archives import extract_archive

    extract_archive(path, target)


def _standard(path: Path, target: Path) -> None:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as packed:
            packed.extractall(target)  # noqa: S202  our own archive
    else:
        with tarfile.open(path) as archive:
            archive.extractall(target, filter="data")


def _keras(path: Path, target: Path) -> None:
    from keras.src.utils.file_utils import extract_archive

    extract_archive(str(path), str(target))


def _pooch(path: Path, target: Path) -> None:
    import pooch

    pooch.get_logger().setLevel("ERROR")
    (pooch.Unzip if path.suffix == ".zip" else pooch.Untar)(extract_dir=target.name)(str(path), "download", None)


def _again_kflow(path: Path) -> Callable[[], object]:
    from kflow.core import get_file

    return lambda: get_file(path.name, path, extract=True, cache_dir=path.parent, cache_subdir="kflow")


def _again_keras(path: Path) -> Callable[[], object]:
    import keras

    return lambda: keras.utils.get_file(
        path.name, path.as_uri(), extract=True, cache_dir=str(path.parent), cache_subdir="keras"
    )


def _remove(folder: Path) -> None:
    for path in folder.glob("*.out"):
        shutil.rmtree(path)
    os.sync()


def _without_pause(times: Medians) -> Medians:
    return replace(times, wall={name: seconds for name, seconds in times.wall.items() if name != _PAUSE})
