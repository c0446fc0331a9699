"""Every wait has an end, and some addresses are never asked."""

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kflow.core.files import DownloadError, get_file

BODY = bytes(range(256)) * 2000  # as the server of conftest.py sends it


@contextlib.contextmanager
def deaf() -> Iterator[str]:
    """Give the URL of a port whose queue is full, so that nobody shakes hands."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(3):
            caller = stack.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(listening.getsockname())
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"


def timed(url: str, cache: Path, **options: Any) -> tuple[str, float]:
    """Return the error of a download and the seconds that it took."""
    start = time.monotonic()
    with pytest.raises(DownloadError) as caught:
        get_file("a", url, cache_dir=cache, backoff=0.01, on_retry=lambda _: None, **options)
    return str(caught.value), time.monotonic() - start


def test_a_connection_has_a_limit_of_its_own(cache: Path) -> None:
    """Nobody shakes hands: the connect timeout counts, not the read timeout."""
    with deaf() as url:
        error, took = timed(url, cache, timeout={"connect": 0.3, "read": 60}, retries=1)

    assert "no connection within 0.3 s (tries made: 2)" in error
    assert 0.5 < took < 20


def test_a_handshake_has_the_same_limit(cache: Path) -> None:
    """A server that accepts and does not speak TLS is given up."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"https://127.0.0.1:{listening.getsockname()[1]}/"
        error, took = timed(url, cache, timeout={"connect": 0.3, "read": 60}, retries=0)

    assert "no connection within 0.3 s" in error
    assert took < 20


def dribble(handler: Any, _: int) -> None:
    """Send 2 kB a second."""
    handler.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    with contextlib.suppress(OSError):
        for _ in range(200):
            handler.raw(bytes(100), pause=0.05)


def test_the_whole_has_a_limit(server: Any, cache: Path) -> None:
    """A body that is quick enough by the second may still take too long; no further try is made."""
    server.route = dribble

    error, took = timed(server.url, cache, timeout={"read": 60, "total": 0.6})

    assert "takes more than 0.6 s; raise timeout['total'] if it may (tries made: 1)" in error
    assert 0.5 < took < 20


def test_the_tries_share_the_whole(server: Any, cache: Path) -> None:
    """Pauses and tries end with the total time."""
    server.route = lambda h, _: h.answer(b"", 503)

    error, took = timed(server.url, cache, timeout={"total": 1.0}, retries=1000)

    assert "503" in error
    assert took < 20


@pytest.mark.parametrize(("min_speed", "is_good"), [(1_000_000, False), (100, True)])
def test_the_speed_has_a_limit(min_speed: float, is_good: bool, server: Any, cache: Path) -> None:
    """The least speed is the caller's to choose."""

    def slowly(handler: Any, _: int) -> None:
        handler.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n")
        with contextlib.suppress(OSError):
            handler.raw(*[bytes(500)] * 8, pause=0.1)

    server.route = slowly
    options: dict[str, Any] = {"timeout": 0.4, "min_speed": min_speed, "retries": 0}

    if is_good:
        assert Path(get_file("a", server.url, cache_dir=cache, **options)).stat().st_size == 4000
    else:
        assert "less than 1e+06 bytes a second came for 0.4 s" in timed(server.url, cache, **options)[0]


def test_slowness_is_noticed_in_time(server: Any, cache: Path) -> None:
    """All of the time that is waited counts, in whatever pieces the bytes come."""
    server.route = dribble

    error, took = timed(server.url, cache, timeout={"read": 1.0}, min_speed=1e5, retries=0)

    assert "less than 100000 bytes a second came for 1 s" in error
    assert took < 3


@pytest.mark.parametrize(
    "host", ["169.254.169.254", "[fe80::1]", "[::ffff:169.254.169.254]", "0xa9.0xfe.0xa9.0xfe", "2852039166"]
)
def test_link_local_addresses_are_not_asked(host: str, server: Any, cache: Path) -> None:
    """Neither by a URL nor by a redirect, however they are spelled."""
    error, took = timed(f"http://{host}/latest", cache, timeout=5)
    assert "link-local address" in error

    server.route = lambda h, _: h.answer(b"", 302, Location=f"http://{host}/latest")
    error, took = timed(server.url, cache, timeout=5)
    assert "link-local address" in error
    assert took < 4
