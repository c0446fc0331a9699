"""What the tests of files and of their transport share: a server on 127.0.0.1, a cache, and Python processes."""

import http.server
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import kflow

BODY = bytes(range(256)) * 2000


class Handler(http.server.BaseHTTPRequestHandler):
    """Records a request and lets the route of the server answer it."""

    protocol_version = "HTTP/1.1"
    server: "Server"

    def do_GET(self) -> None:
        """Answer."""
        self.close_connection = True
        self.server.seen.append((self.path, dict(self.headers)))
        self.server.route(self, len(self.server.seen))

    def answer(self, body: bytes = BODY, status: int = 200, **headers: str) -> None:
        """Send a whole answer; the length can be overridden."""
        self.send_response(status)
        fields = {"Content-Length": str(len(body)), **{name.replace("_", "-"): v for name, v in headers.items()}}
        for name, value in fields.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def raw(self, *pieces: bytes, pause: float = 0.0) -> None:
        """Send bytes as they are."""
        for piece in pieces:
            self.wfile.write(piece)
            self.wfile.flush()
            time.sleep(pause)

    def log_message(self, *_: object) -> None:
        """Keep the output clean."""


class Server(http.server.ThreadingHTTPServer):
    """A server whose answers are functions of the request and of how many came before it."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.route: Callable[[Handler, int], None] = lambda handler, _: handler.answer()
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        """The origin of everything here."""
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that go away, which is what these tests are about."""


def serving() -> Iterator[Server]:
    """Run a server until the test is over."""
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Run a server that no proxy of the environment hides."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "KFLOW_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    yield from serving()


@pytest.fixture
def other_server() -> Iterator[Server]:
    """Run a second server, on a port of its own."""
    yield from serving()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Name a cache folder that is not there yet."""
    return tmp_path / "cache"


@pytest.fixture
def left(cache: Path) -> Callable[[], list[str]]:
    """Return a function that names what is in the cache, but for locks and sidecars, which stay on purpose."""
    stays = {".lock", ".verified", ".unpacked"}
    return lambda: sorted(path.name for path in cache.rglob("*") if path.is_file() and path.suffix not in stays)


@pytest.fixture
def run_python() -> "Callable[..., subprocess.Popen[bytes]]":
    """Return a function that starts a Python process that can import kflow."""

    def run(code: str, *arguments: str) -> "subprocess.Popen[bytes]":
        env = {**os.environ, "PYTHONPATH": str(Path(kflow.__file__).parents[1])}
        return subprocess.Popen([sys.executable, "-c", code, *arguments], env=env, stderr=subprocess.PIPE)

    return run
