"""get_file of 1 GB with its digest over loopback, and of a cached file, against hashing alone, Keras and pooch."""

import contextlib
import hashlib
import io
import itertools
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from measure import Medians, measure, show

SIZE = 10**9
_BLOCK = 2**20
_REMOVAL = "(removal)"


def report(rounds: int) -> None:
    """Print the tables."""
    with _folder() as folder, _serving(source := _source(folder)) as url:
        digest = "sha256:" + _hash(source)
        calls = {
            "get_file": lambda cache, **more: _with_kflow(url, digest, cache, **more),
            "keras.utils.get_file": lambda cache: _with_keras(url, digest, cache),
            "pooch.retrieve": lambda cache: _with_pooch(url, digest, cache),
        }
        places = _new_places(folder)
        fresh = {name: lambda call=call: call(next(places)) for name, call in calls.items()}
        times = measure(
            {"sha256 alone": lambda: _hash(source), **fresh, _REMOVAL: lambda: _remove_places(folder)}, rounds
        )
        _show(f"download of {SIZE / 1e9:g} GB and its sha256", times, {"get_file": 1.8})
        kept = {name: folder / name for name in calls}
        for name, call in calls.items():
            kept[name].mkdir()
            call(kept[name])
        cached = {name: lambda name=name, call=call: call(kept[name]) for name, call in calls.items()}
        cached["get_file(verify=True)"] = lambda: calls["get_file"](kept["get_file"], verify=True)
        times = measure({"sha256 alone": lambda: _hash(source), **cached}, rounds)
        _show(f"a cached file of {SIZE / 1e9:g} GB, asked for with its sha256", times, {"get_file": 0.01})


def _with_kflow(url: str, digest: str, cache: Path, **more: bool) -> None:
    from kflow.core import get_file

    get_file("a", url, file_hash=digest, cache_dir=cache, progress=False, **more)


def _with_keras(url: str, digest: str, cache: Path) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    with contextlib.redirect_stdout(io.StringIO()):
        keras.utils.get_file("a", url, file_hash=digest.partition(":")[2], cache_dir=str(cache))


def _with_pooch(url: str, digest: str, cache: Path) -> None:
    import pooch

    pooch.get_logger().disabled = True
    pooch.retrieve(url, digest, fname="a", path=cache)


def _new_places(folder: Path) -> Iterator[Path]:
    """Give one new cache folder after the other."""
    for number in itertools.count():
        place = folder / f"cache{number}"
        place.mkdir()
        yield place


def _remove_places(folder: Path) -> None:
    """Make room, in a turn of its own, so that it counts for nobody."""
    for place in folder.glob("cache*"):
        shutil.rmtree(place)


def _show(title: str, times: Medians, targets: dict[str, float]) -> None:
    walls = {name: seconds for name, seconds in times.wall.items() if name != _REMOVAL}
    show(title, Medians(walls, times.cpu, times.rounds), "sha256 alone", targets)


def _hash(path: Path) -> str:
    """Hash a file as quickly as hashlib can."""
    buffer, running = bytearray(_BLOCK), hashlib.sha256()
    view = memoryview(buffer)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            running.update(view[:count])
    return running.hexdigest()


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """Give a folder in memory where there is room for all copies, else on the disk."""
    memory = Path("/dev/shm")  # noqa: S108  a folder of its own is made in it
    has_room = memory.is_dir() and shutil.disk_usage(memory).free > 8 * SIZE
    with tempfile.TemporaryDirectory(dir=memory if has_room else None) as name:
        yield Path(name)


def _source(folder: Path) -> Path:
    """Write the file to serve."""
    path = folder / "source"
    block = os.urandom(_BLOCK)
    with path.open("wb") as file:
        for _ in range(SIZE // _BLOCK):
            file.write(block)
    return path


@contextlib.contextmanager
def _serving(path: Path) -> Iterator[str]:
    """Serve a file from another process, which copies nothing."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=_serve, args=(path, theirs), daemon=True)
    server.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}/a"
    finally:
        server.kill()
        server.join()


def _serve(path: Path, port: Connection) -> None:
    """Answer every request with the file."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port.send(listening.getsockname()[1])
        while True:
            connection, _ = listening.accept()
            with connection, path.open("rb") as file, contextlib.suppress(OSError):
                connection.recv(65536)
                head = f"HTTP/1.1 200 OK\r\nContent-Length: {path.stat().st_size}\r\nConnection: close\r\n\r\n"
                connection.sendall(head.encode())
                connection.sendfile(file)
