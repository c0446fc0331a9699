"""get_file delivers the right bytes once, or fails with nothing left behind."""

import contextlib
import email.utils
import gzip
import hashlib
import http.server
import io
import os
import pwd
import signal
import socket
import stat
import subprocess
import sys
import tarfile
import threading
import time
import urllib.parse
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import kflow
from kflow.core import get_file
from kflow.core.archives import ArchiveError
from kflow.core.files import (
    DownloadError,
    HashMismatchError,
    _redirected,  # the one rule that needs a certificate to be seen from outside
    file_digest,
    parse_digest,
    redact,
)

BODY = bytes(range(256)) * 2000
SHA256 = hashlib.sha256(BODY).hexdigest()
QUICK: dict[str, Any] = {"timeout": 1.0, "backoff": 0.01}

Handler = http.server.BaseHTTPRequestHandler
Route = Callable[[Handler, int], None]


def answer(handler: Handler, body: bytes = BODY, status: int = 200, **headers: str) -> None:
    """Send a whole answer; the length can be overridden."""
    handler.send_response(status)
    fields = {"Content-Length": str(len(body)), **{name.replace("_", "-"): v for name, v in headers.items()}}
    for name, value in fields.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


def raw(handler: Handler, *pieces: bytes, pause: float = 0.0) -> None:
    """Send bytes as they are."""
    for piece in pieces:
        handler.wfile.write(piece)
        handler.wfile.flush()
        time.sleep(pause)


class Server(http.server.ThreadingHTTPServer):
    """A server whose answers are functions of the request and of how many came before it."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.route: Route = lambda handler, _: answer(handler)
        super().__init__(("127.0.0.1", 0), RequestHandler)

    @property
    def url(self) -> str:
        """The origin of everything here."""
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that go away, which is what these tests are about."""


class RequestHandler(Handler):
    """Records a request and lets the route of the server answer it."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:  # noqa: N802  named by http.server
        """Answer."""
        self.close_connection = True
        self.server.seen.append((self.path, dict(self.headers)))
        self.server.route(self, len(self.server.seen))

    def log_message(self, *_: object) -> None:
        """Keep the output clean."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def left(cache: Path) -> list[str]:
    """Name what is in the cache, but for the lock files, which stay on purpose."""
    return sorted(path.name for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock")


def run_python(code: str, *arguments: str) -> "subprocess.Popen[bytes]":
    """Start a Python process that can import kflow."""
    env = {**os.environ, "PYTHONPATH": str(Path(kflow.__file__).parents[1])}
    return subprocess.Popen([sys.executable, "-c", code, *arguments], env=env, stderr=subprocess.PIPE)


def test_downloads_once(server: Server, cache: Path) -> None:
    """The file lands below cache_dir/cache_subdir, and the second call asks nobody."""
    first = get_file("a.bin", server.url + "/x", file_hash=SHA256, cache_dir=cache)
    second = get_file("a.bin", server.url + "/x", file_hash=SHA256, cache_dir=cache)

    assert first == second == str(cache / "datasets/a.bin")
    assert Path(first).read_bytes() == BODY
    assert len(server.seen) == 1
    assert server.seen[0][1]["Accept-Encoding"] == "identity"


def chunked(handler: Handler, *, whole: bool) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    half = len(BODY) // 2
    raw(
        handler,
        head,
        b"%x\r\n" % half,
        BODY[:half],
        b"\r\n%x\r\n" % half,
        BODY[half : half * 2 if whole else -9],
    )
    if whole:
        raw(handler, b"\r\n0\r\n\r\n")


def stall(handler: Handler, _: int) -> None:
    raw(handler, b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nabc", pause=2)


def once(fault: Route) -> Route:
    """Show a fault to the first request only."""
    return lambda handler, number: fault(handler, number) if number == 1 else answer(handler)


def date_in(seconds: float) -> str:
    return email.utils.formatdate(time.time() + seconds, usegmt=True)


MENDED: dict[str, Route] = {
    "500": once(lambda h, _: answer(h, b"oops", 500)),
    "408": once(lambda h, _: answer(h, b"", 408)),
    "503_retry_after": once(lambda h, _: answer(h, b"", 503, Retry_After="0")),
    "429_date": once(lambda h, _: answer(h, b"", 429, Retry_After=date_in(1))),
    "short_body": once(lambda h, _: answer(h, BODY[:-5], Content_Length=str(len(BODY)))),
    "short_chunks": once(lambda h, _: chunked(h, whole=False)),
    "no_answer": once(lambda h, _: None),
    "garbage": once(lambda h, _: raw(h, b"\x00\xffnonsense\r\n\r\n")),
    "stall": once(stall),
    "wrong_bytes": once(lambda h, _: answer(h, BODY[::-1])),
    "empty": once(lambda h, _: answer(h, b"")),
    "chunked": lambda h, _: chunked(h, whole=True),
    "until_close": lambda h, _: raw(h, b"HTTP/1.0 200 OK\r\n\r\n", BODY),
    "encoded_but_right": lambda h, _: answer(h, Content_Encoding="gzip"),
    "redirect": lambda h, n: answer(h, b"", 302, Location="/b?c=d") if n == 1 else answer(h),
    "slow_but_steady": lambda h, _: raw(
        h,
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY),
        *(BODY[at : at + 2**17] for at in range(0, len(BODY), 2**17)),
        pause=0.4,
    ),
}


@pytest.mark.parametrize("fault", MENDED)
def test_overcomes(fault: str, server: Server, cache: Path) -> None:
    """What another try or patience can mend is mended."""
    server.route = MENDED[fault]

    path = get_file("a", server.url + "/x", file_hash=SHA256, cache_dir=cache, **QUICK)

    assert Path(path).read_bytes() == BODY
    assert left(cache) == ["a"]


def dribble(handler: Handler, head: bytes) -> None:
    raw(handler, head)
    with contextlib.suppress(OSError):
        for _ in range(100):
            raw(handler, b"a", pause=0.05)


def endless(handler: Handler, _: int) -> None:
    raw(handler, b"HTTP/1.1 200 OK\r\n\r\n")
    with contextlib.suppress(OSError):
        while True:
            raw(handler, BODY)


REFUSED: dict[str, tuple[Route, str, int]] = {
    "404": (lambda h, _: answer(h, b"", 404), r"404 \(Not Found\)", 1),
    "403": (lambda h, _: answer(h, b"", 403), r"403 \(Forbidden\)", 1),
    "204": (lambda h, _: raw(h, b"HTTP/1.1 204 None\r\n\r\n"), r"204 \(No Content\)", 1),
    "206": (lambda h, _: answer(h, BODY[:99], 206), r"206 \(Partial Content\)", 1),
    "500_always": (lambda h, _: answer(h, b"", 500), r"500 .*tries made: 3", 3),
    "503_tomorrow": (lambda h, _: answer(h, b"", 503, Retry_After="86400"), "asks to wait 86400 s", 1),
    "short_always": (
        lambda h, _: answer(h, b"abc", Content_Length="99"),
        r"ended after 3 of 99 bytes.*tries made: 3",
        3,
    ),
    "encoded": (lambda h, _: answer(h, gzip.compress(BODY), Content_Encoding="gzip"), "gzip-encoded", 1),
    "two_lengths": (
        lambda h, _: raw(h, b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
        "Content-Length cannot be right: 3, 4",
        1,
    ),
    "length_garbage": (lambda h, _: answer(h, b"abc", Content_Length="-3"), "cannot be right: -3", 1),
    "transfer_encoding": (
        lambda h, _: raw(h, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc"),
        "unknown transfer encoding",
        1,
    ),
    "empty_always": (lambda h, _: answer(h, b""), "its body is empty", 3),
    "bad_chunk": (
        lambda h, _: raw(h, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc"),
        "cut off",
        3,
    ),
    "http09": (lambda h, _: raw(h, BODY), "no valid HTTP", 3),
    "huge": (lambda h, _: answer(h, b"abc", Content_Length=str(10**15)), "exceed max_size", 1),
    "endless": (endless, "more than max_size", 1),
    "stall": (stall, "came for 0.5 s", 3),
    "slow_headers": (lambda h, _: dribble(h, b"HTTP/1.1 200 OK\r\nX: "), "came for 0.5 s", 3),
    "slow_body": (
        lambda h, _: dribble(h, b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n"),
        "less than 1024 bytes a second",
        3,
    ),
    "continues": (lambda h, _: raw(h, *[b"HTTP/1.1 100 Continue\r\n\r\n"] * 30, pause=0.05), "came for", 3),
    "redirect_loop": (lambda h, _: answer(h, b"", 302, Location="/x"), "more than 10 redirects", 11),
    "redirect_nowhere": (lambda h, _: answer(h, b"", 302), "without a Location", 1),
    "redirect_file": (
        lambda h, _: answer(h, b"", 302, Location="file:///etc/passwd"),
        "redirect to an invalid|from http to file",
        1,
    ),
    "redirect_ftp": (lambda h, _: answer(h, b"", 302, Location="ftp://127.0.0.1/x"), "http to ftp", 1),
    "redirect_blank": (lambda h, _: answer(h, b"", 302, Location="/a b"), "invalid URL", 1),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_refuses(fault: str, server: Server, cache: Path) -> None:
    """What is not the file is refused after the right number of requests, and nothing is kept."""
    server.route, why, requests = REFUSED[fault]
    limits = {"timeout": 0.5, "backoff": 0.01, "retries": 2, "max_size": 10**6}

    with pytest.raises(DownloadError, match=why):
        get_file("a", server.url + "/x", cache_dir=cache, **limits)  # type: ignore[arg-type]  # mixed
    assert len(server.seen) == requests
    assert left(cache) == []


def test_waits_as_long_as_asked(server: Server, cache: Path) -> None:
    """Retry-After replaces the back-off."""
    server.route = once(lambda h, _: answer(h, b"", 503, Retry_After="1"))
    start = time.monotonic()

    get_file("a", server.url, cache_dir=cache, **QUICK)

    assert time.monotonic() - start >= 1


def test_refused_connection_is_an_error(cache: Path) -> None:
    """A port where nobody listens is tried again, then reported."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}/x"

        with pytest.raises(DownloadError, match=r"refused \(tries made: 3\)"):
            get_file("a", url, cache_dir=cache, retries=2, backoff=0.01)


def test_never_leaves_https() -> None:
    """A redirect from https to http is not followed, the other way it is."""
    secure, open_ = (urllib.parse.urlsplit(f"{scheme}://127.0.0.1/a") for scheme in ("https", "http"))

    class Job:
        def failed(self, why: str) -> DownloadError:
            return DownloadError(why)

    job: Any = Job()
    with pytest.raises(DownloadError, match="from https to http is not followed"):
        _redirected(job, secure, "http://127.0.0.1/b")
    assert _redirected(job, open_, "https://127.0.0.1/b").scheme == "https"


def test_wrong_digest_is_explained_and_not_kept(server: Server, cache: Path) -> None:
    """A login page instead of the file is tried twice, named as a page, and not served later."""
    server.route = lambda h, _: answer(h, b"\n<!DOCTYPE html><p>log in")
    got = hashlib.sha256(b"\n<!DOCTYPE html><p>log in").hexdigest()

    with pytest.raises(HashMismatchError, match=f"(?s)/x: expected sha256:{SHA256}, got sha256:{got} .25 bytes.*HTML"):
        get_file("a", server.url + "/x", file_hash=SHA256, cache_dir=cache, **QUICK)
    assert len(server.seen) == 2
    assert left(cache) == []


def test_wrong_cached_file_is_replaced_or_removed(server: Server, cache: Path) -> None:
    """A cached file with a wrong digest never survives a call that asks for that digest."""
    target = cache / "datasets/a"
    target.parent.mkdir(parents=True)
    target.write_text("poison")

    get_file("a", server.url, file_hash=SHA256, cache_dir=cache)

    assert target.read_bytes() == BODY
    with pytest.raises(HashMismatchError, match="wrong digest"):
        get_file("a", server.url, file_hash="0" * 64, cache_dir=cache, **QUICK)
    assert left(cache) == []


def test_cached_file_without_digest_is_used(cache: Path) -> None:
    """Without a digest an existing file is the answer, and the origin is not asked."""
    target = cache / "datasets/a"
    target.parent.mkdir(parents=True)
    target.write_text("mine")

    path = get_file("a", "http://127.0.0.1:1/x", cache_dir=cache)

    assert Path(path).read_text() == "mine"


def test_secrets_stay_out_of_messages_and_names(server: Server, cache: Path) -> None:
    """Credentials reach the server and nothing else: no message, no file name, no other host."""
    server.route = lambda h, _: answer(h, b"", 404)
    url = f"http://me:s3cret@127.0.0.1:{server.server_port}/x?token=t0ken#fr4g"

    with pytest.raises(DownloadError, match=r"http://127\.0\.0\.1:\d+/x\?\.\.\.: ") as caught:
        get_file("a", url, cache_dir=cache)
    child = run_python(
        "import sys; from kflow.core import get_file; get_file('a', sys.argv[1], cache_dir=sys.argv[2])",
        url,
        str(cache),
    )
    output = child.communicate()[1].decode()
    assert "DownloadError" in output
    assert server.seen[0][1]["Authorization"] == "Basic bWU6czNjcmV0"
    assert server.seen[0][0] == "/x?token=t0ken"
    for text in (output, repr(caught.value), *map(str, cache.rglob("*"))):
        assert not any(secret in text for secret in ("s3cret", "t0ken", "fr4g", "me:"))


def test_credentials_go_to_the_first_site_only(server: Server, cache: Path) -> None:
    """After a redirect to another port the Authorization header is not sent."""
    with Server() as other:
        threading.Thread(target=other.serve_forever, kwargs={"poll_interval": 0.01}).start()
        server.route = lambda h, n: answer(h, b"", 302, Location="/y" if n == 1 else other.url)
        get_file("a", server.url.replace("//", "//me:pw@"), cache_dir=cache)
        other.shutdown()

        assert ["Authorization" in headers for _, headers in server.seen] == [True, True]
        assert ["Authorization" in headers for _, headers in other.seen] == [False]


def test_uses_the_proxy_of_the_environment(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """http_proxy is honored."""
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)

    get_file("a", "http://files.invalid/x", file_hash=SHA256, cache_dir=cache)

    assert server.seen[0][0] == "http://files.invalid/x"


WORKER = """
import sys
if sys.argv[3] == "lying":
    import fcntl
    fcntl.flock = lambda *_: None
from kflow.core import get_file
path = get_file("a", sys.argv[1], file_hash=sys.argv[4], cache_dir=sys.argv[2], backoff=0.01, retries=20)
sys.exit(open(path, "rb").read() != bytes(range(256)) * 2000)
"""


@pytest.mark.parametrize("locks", ["true", "lying"])
def test_processes_share_one_download(locks: str, server: Server, cache: Path) -> None:
    """Four processes at once make one request; where locks lie, all are still right."""

    def slow(handler: Handler, _: int) -> None:
        time.sleep(0.5)
        answer(handler)

    server.route = slow
    children = [run_python(WORKER, server.url, str(cache), locks, SHA256) for _ in range(4)]

    outcomes = [(child.communicate()[1], child.returncode) for child in children]

    assert outcomes == [(b"", 0)] * 4
    assert left(cache) == ["a"]
    assert len(server.seen) == 1 or locks == "lying"


def test_a_swept_temporary_file_is_made_again(server: Server, cache: Path) -> None:
    """Where locks lie, another process may remove the temporary file; the next try delivers."""
    removed: list[Path] = []

    def sweep(_done: int, _total: int | None) -> None:
        for path in (cache / "datasets").glob(".a.*.part") if not removed else ():
            path.unlink()
            removed.append(path)

    path = get_file("a", server.url, file_hash=SHA256, cache_dir=cache, progress=sweep, **QUICK)

    assert len(removed) == 1
    assert len(server.seen) == 2
    assert Path(path).read_bytes() == BODY


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_survives_a_kill(sign: signal.Signals, server: Server, cache: Path) -> None:
    """Killed within the body, the next call, even without a digest, is right and tidies up."""
    proceed = threading.Event()

    def half(handler: Handler, number: int) -> None:
        if number > 1:
            return answer(handler)
        raw(handler, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY), BODY[: len(BODY) // 2])
        proceed.wait(20)
        return None

    server.route = half
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from kflow.core import get_file; get_file('a', sys.argv[1], cache_dir=sys.argv[2],"
        " progress=lambda done, _: print(end='.', file=sys.stderr, flush=True))"
    )
    child = run_python(code, server.url, str(cache))
    assert child.stderr is not None
    assert child.stderr.read(1) == b"."  # some of the body was written
    child.send_signal(sign)
    child.communicate()
    proceed.set()
    abandoned = left(cache)

    path = get_file("a", server.url, cache_dir=cache)

    assert "a" not in abandoned
    assert abandoned == [] or sign != signal.SIGINT
    assert Path(path).read_bytes() == BODY
    assert left(cache) == ["a"]


@pytest.mark.parametrize("extract", [False, True])
def test_a_failing_disk_is_named(extract: bool, server: Server, cache: Path) -> None:
    """When the system refuses to write more, the error names errno and path, and nothing is left."""
    packed = packed_tar(big=bytes(10**6))
    server.route = lambda h, _: answer(h, packed if extract else BODY)
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (10**5, 10**5));"
        "from kflow.core import get_file; get_file('a', sys.argv[1], cache_dir=sys.argv[2], extract=True)"
    )
    child = run_python(code, server.url, str(cache))

    last_line = child.communicate()[1].decode().splitlines()[-1]

    assert last_line.startswith("OSError: [Errno 27] File too large: '" + str(cache))
    assert left(cache) == (["a"] if extract else [])
    assert len(server.seen) == 1


def test_progress(server: Server, cache: Path) -> None:
    """Progress grows, ends at the total, and comes at most ten times a second."""
    server.route = lambda h, n: MENDED["slow_but_steady" if n == 1 else "chunked"](h, n)
    calls: list[tuple[int, int | None]] = []
    start = time.monotonic()

    get_file("a", server.url, cache_dir=cache, progress=lambda *call: calls.append(call))

    assert calls == sorted(calls)
    assert calls[-1] == (len(BODY), len(BODY))
    assert 2 <= len(calls) <= (time.monotonic() - start) * 10 + 2
    get_file("b", server.url, cache_dir=cache, progress=lambda *call: calls.append(call))
    assert calls[-1] == (len(BODY), None)


@pytest.mark.parametrize("form", ["path", "text", "url"])
def test_local_origins(form: str, tmp_path: Path, cache: Path) -> None:
    """Paths and file URLs are copied and verified like downloads."""
    source = tmp_path / "a \u00e9?.bin"
    source.write_bytes(BODY)
    origin = {"path": source, "text": str(source), "url": source.as_uri()}[form]

    path = get_file("copy", origin, file_hash=SHA256, cache_dir=cache)

    assert Path(path).read_bytes() == BODY
    assert not Path(path).samefile(source)
    with pytest.raises(HashMismatchError, match=r"tries made: 1"):
        get_file("other", origin, file_hash="0" * 64, cache_dir=cache)
    assert left(cache) == ["copy"]


def test_local_origin_must_be_a_file(tmp_path: Path, cache: Path) -> None:
    """A missing file, a device and a file of another size limit are refused."""
    with pytest.raises(FileNotFoundError, match="nothing"):
        get_file("a", tmp_path / "nothing", cache_dir=cache)
    with pytest.raises(DownloadError, match="not a regular file"):
        get_file("a", "/dev/zero", cache_dir=cache)
    (tmp_path / "b").write_bytes(BODY)
    with pytest.raises(DownloadError, match="max_size=10"):
        get_file("a", tmp_path / "b", cache_dir=cache, max_size=10)
    assert left(cache) == []


def test_never_deletes_its_own_origin(tmp_path: Path) -> None:
    """A file that is its own origin stays, whatever its digest."""
    source = tmp_path / "a"
    source.write_bytes(BODY)

    with pytest.raises(HashMismatchError, match="its own origin"):
        get_file(str(source), source, file_hash="0" * 64)
    assert source.read_bytes() == BODY


@pytest.mark.parametrize(
    ("origin", "why"),
    [
        ("ftp://me:pw@127.0.0.1/x", r"cannot fetch ftp://127\.0\.0\.1/x: use an http"),
        ("data:text/plain,secret", r"cannot fetch data:\.\.\.: use"),
        ("file://elsewhere/x", "file URL of this machine"),
        ("http:///x", "no valid URL"),
        ("http://127.0.0.1/a b", "no valid URL; quote blanks"),
        ("http://me:p/w@127.0.0.1/", r"^http:\.\.\. is no valid URL"),
        ("http://127.0.0.1:99999/", "no valid URL"),
    ],
)
def test_refuses_other_origins(origin: str, why: str, cache: Path) -> None:
    """Other schemes and unreadable URLs are refused before anything is touched."""
    with pytest.raises(ValueError, match=why):
        get_file("a", origin, cache_dir=cache)
    assert not cache.exists()


@pytest.mark.parametrize("fname", ["", ".", "..", "../a", "a/../../b", "a/", "a\0b"])
def test_refuses_names_that_leave_the_cache(fname: str, cache: Path) -> None:
    """A name is a name, not a way out."""
    with pytest.raises(ValueError, match="fname must name a file"):
        get_file(fname, "http://127.0.0.1:1/", cache_dir=cache)


def test_names_with_folders(server: Server, tmp_path: Path, cache: Path) -> None:
    """A relative name may hold folders, an absolute one is used as it is, a long one has a lock."""
    absolute = tmp_path / "elsewhere/a"

    assert get_file("sub/a", server.url, cache_dir=cache) == str(cache / "datasets/sub/a")
    assert get_file(str(absolute), server.url, cache_dir=cache) == str(absolute)
    assert get_file("n" * 255, server.url, cache_dir=cache, cache_subdir=tmp_path) == str(tmp_path / ("n" * 255))
    assert absolute.read_bytes() == BODY


def test_default_cache(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache is KERAS_HOME, else .keras at home, read at each call and made when it is missing."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("KERAS_HOME", raising=False)
    first = get_file("a", server.url)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    second = get_file("a", server.url)

    assert first == str(tmp_path / "home/.keras/datasets/a")
    assert second == str(tmp_path / "keras/datasets/a")


def test_unusable_cache_names_the_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the cache cannot be, the error says what to set; nothing moves to another folder."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "file"))

    with pytest.raises(NotADirectoryError, match="pass cache_dir=, set KERAS_HOME, or make it writable"):
        get_file("a", "http://127.0.0.1:1/")
    monkeypatch.delenv("KERAS_HOME")
    monkeypatch.delenv("HOME", raising=False)

    def no_account(_: int) -> None:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", no_account)
    with pytest.raises(FileNotFoundError, match=r"no home folder.*pass cache_dir= or set KERAS_HOME"):
        get_file("a", "http://127.0.0.1:1/")


def test_hits_write_nothing(server: Server, cache: Path) -> None:
    """A hit leaves the folder as it was, so that a read-only cache serves."""
    get_file("a", server.url, cache_dir=cache)
    (cache / "datasets/.a.lock").unlink()
    before = (cache / "datasets").stat().st_mtime_ns

    get_file("a", server.url, file_hash=SHA256, cache_dir=cache)

    assert (cache / "datasets").stat().st_mtime_ns == before
    assert [path.name for path in (cache / "datasets").iterdir()] == ["a"]


@pytest.mark.parametrize("kind", ["link", "dangling", "folder", "pipe"])
def test_refuses_what_is_no_file_at_the_target(kind: str, server: Server, tmp_path: Path, cache: Path) -> None:
    """A planted link is neither followed nor replaced; a folder or pipe is refused."""
    victim = tmp_path / "victim"
    target = cache / "datasets/a"
    target.parent.mkdir(parents=True)
    if kind == "folder":
        target.mkdir()
    elif kind == "pipe":
        os.mkfifo(target)
    else:
        target.symlink_to(victim)
    if kind == "link":
        victim.write_text("precious")

    with pytest.raises(FileExistsError, match=r"(symbolic link|folder or device) bears the name"):
        get_file("a", server.url, cache_dir=cache)
    assert server.seen == []
    assert victim.exists() == (kind == "link")


def test_modes_are_those_of_any_file(server: Server, tmp_path: Path, cache: Path) -> None:
    """The cached file has the mode of a file that the user makes, not a private one."""
    path = Path(get_file("a", server.url, cache_dir=cache))

    (tmp_path / "ordinary").touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "ordinary").stat().st_mode)


def packed_tar(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name.replace("__", "/"))
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def test_untar(server: Server, cache: Path) -> None:
    """untar=True gives the unpacked path, keeps the archive beside it, and unpacks once."""
    server.route = lambda h, _: answer(h, packed_tar(data__a=b"one", other=b"two"))
    path = get_file("data", server.url, True, cache_dir=cache)
    Path(path, "a").write_text("edited")

    again = get_file("data", server.url, untar=True, cache_dir=cache)

    assert path == again == str(cache / "datasets/data")
    assert Path(path, "a").read_text() == "edited"
    assert left(cache) == ["a", "data.tar.gz", "other"]
    assert len(server.seen) == 1


def test_untar_wants_the_name(server: Server, cache: Path) -> None:
    """An archive that does not hold fname is refused, naming what it holds."""
    server.route = lambda h, _: answer(h, packed_tar(data__a=b"one"))

    with pytest.raises(ArchiveError, match="it holds 'data' but no 'wrong'"):
        get_file("wrong", server.url, untar=True, cache_dir=cache)
    assert not (cache / "datasets/data").exists()


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_extract(kind: str, server: Server, cache: Path) -> None:
    """extract=True unpacks beside the file, keeps the neighbors, and returns the archive's path."""
    body = packed_tar(data__a=b"one")
    if kind == "zip":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("data/a", b"one")
        body = buffer.getvalue()
    server.route = lambda h, _: answer(h, body)
    neighbor = cache / "datasets/data/mine"
    neighbor.parent.mkdir(parents=True)
    neighbor.write_text("mine")

    path = get_file("x", server.url, extract=True, cache_dir=cache)
    (cache / "datasets/data/a").unlink()
    get_file("x", server.url, extract=True, cache_dir=cache)

    assert path == str(cache / "datasets/x")
    assert (cache / "datasets/data/a").read_bytes() == b"one"
    assert neighbor.read_text() == "mine"
    assert left(cache) == ["a", "mine", "x"]


@pytest.mark.parametrize("archive_format", [None, []])
def test_extract_of_no_format(archive_format: list[str] | None, server: Server, cache: Path) -> None:
    """With no format, the file is only fetched."""
    path = get_file("x", server.url, extract=True, archive_format=archive_format, cache_dir=cache)

    assert Path(path).read_bytes() == BODY


def test_damaged_archive_does_not_stick(server: Server, cache: Path) -> None:
    """A damaged archive without a digest is forgotten, so that the next call can be right."""
    good = packed_tar(data__a=b"one")
    server.route = lambda h, n: answer(h, good[:-9] if n == 1 else good)

    with pytest.raises(ArchiveError, match="damaged"):
        get_file("x", server.url, extract=True, cache_dir=cache)
    assert left(cache) == []
    get_file("x", server.url, extract=True, cache_dir=cache)
    assert left(cache) == ["a", "x"]


def test_md5_and_the_rules_of_keras(server: Server, cache: Path) -> None:
    """md5_hash counts only without file_hash, whose case and prefix do not matter."""
    md5 = hashlib.md5(BODY).hexdigest()

    get_file("a", server.url, md5_hash=md5.upper(), cache_dir=cache)
    get_file("a", server.url, md5_hash="0" * 32, file_hash="SHA256:" + SHA256.upper(), cache_dir=cache)
    get_file("a", server.url, file_hash=hashlib.sha1(BODY).hexdigest(), cache_dir=cache)
    get_file(
        "a",
        server.url,
        file_hash=hashlib.sha3_224(BODY).hexdigest(),
        hash_algorithm="sha3_224",
        cache_dir=cache,
    )

    assert len(server.seen) == 1
    with pytest.raises(HashMismatchError, match="expected md5:0"):
        get_file("a", server.url, md5_hash="0" * 32, cache_dir=cache, **QUICK)


@given(
    data=st.binary(max_size=99),
    name=st.sampled_from(["md5", "sha1", "sha256", "sha512", "sha3_384", "blake2b"]),
    upper=st.booleans(),
)
def test_any_spelling_of_a_digest(data: bytes, name: str, upper: bool) -> None:
    """A digest of hashlib is read back from every spelling of it."""
    digits = hashlib.new(name, data).hexdigest()
    spelled = digits.upper() if upper else digits

    assert parse_digest(f"{name}:{spelled}") == (name, digits)
    assert parse_digest(spelled, name.upper()) == (name, digits)
    if name in {"md5", "sha1", "sha256", "sha512"}:
        assert parse_digest(f" {spelled}\n") == (name, digits)


@pytest.mark.parametrize(
    ("text", "algorithm", "why"),
    [
        ("abc", "auto", r"3 digits; give 32 \(md5\), 40 \(sha1\), 64 \(sha256\), 128 \(sha512\), or write"),
        ("", "auto", "0 digits"),
        ("g" * 64, "auto", "not 64 hexadecimal digits, which sha256 gives"),
        ("sha256:abc", "auto", "not 64 hexadecimal"),
        ("crc32:abcd", "auto", "unknown hash algorithm 'crc32'; use one of blake2b, "),
        ("a" * 64, "shake_256", "unknown hash algorithm"),
        ("md5:" + "a" * 32, "sha256", "says md5, but the algorithm asked for is sha256"),
    ],
)
def test_refuses_digests(text: str, algorithm: str, why: str) -> None:
    """A digest that cannot be right says what would be."""
    with pytest.raises(ValueError, match=why):
        parse_digest(text, algorithm)


def test_file_digest(tmp_path: Path) -> None:
    """file_digest agrees with hashlib."""
    (tmp_path / "a").write_bytes(BODY)

    assert file_digest(tmp_path / "a") == SHA256
    assert file_digest(tmp_path / "a", "SHA512") == hashlib.sha512(BODY).hexdigest()
    with pytest.raises(ValueError, match="unknown hash algorithm 'nope'"):
        file_digest(tmp_path / "a", "nope")


secret = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1).map(lambda text: f"S{text}S")


@given(user=secret, password=secret, token=secret, fragment=secret)
def test_redact_hides_every_secret(user: str, password: str, token: str, fragment: str) -> None:
    """No user, password, query or fragment outlives redact."""
    url = f"https://{user}:{password}@example.org:8443/a/b.h5?token={token}#{fragment}"

    assert redact(url) == "https://example.org:8443/a/b.h5?..."


def test_redact_leaves_paths() -> None:
    """Paths and plain URLs stay as they are; what cannot be split is not shown."""
    for text in ("a/b?c", "/a b", "file:///a/b", "http://[::1]:80/a", "https://example.org"):
        assert redact(text) == text
    assert redact("http://u:p/w@h/") == "http:..."


@pytest.mark.parametrize("limits", [{"timeout": 0}, {"max_size": 0}, {"retries": -1}, {"backoff": -1.0}])
def test_refuses_limits(limits: dict[str, Any], cache: Path) -> None:
    """Limits that cannot be met are refused."""
    with pytest.raises(ValueError, match="must be above 0"):
        get_file("a", "http://127.0.0.1:1/", cache_dir=cache, **limits)


def test_additions_are_keyword_only(cache: Path) -> None:
    """The ten arguments of Keras keep their positions and nothing follows them."""
    with pytest.raises(TypeError, match="positional"):
        get_file("a", "b", False, None, None, "datasets", "auto", False, "auto", cache, None)  # type: ignore[misc]


def test_light_import() -> None:
    """Fetching loads neither NumPy nor Keras nor TensorFlow."""
    code = (
        "import sys, kflow.core.files as f; f.get_file;"
        "sys.exit(bool({'numpy', 'keras', 'tensorflow'} & set(sys.modules)))"
    )

    child = run_python(code)

    assert (child.communicate()[1], child.returncode) == (b"", 0)
