"""What can go wrong between a server and get_file is mended or refused, and tells no secrets."""

import contextlib
import gzip
import hashlib
import socket
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kflow.core.files import DownloadError, get_file, redact

BODY = bytes(range(256)) * 2000  # as the server of conftest.py sends it
SHA256 = hashlib.sha256(BODY).hexdigest()
QUICK: dict[str, Any] = {"timeout": 1.0, "backoff": 0.01, "on_retry": lambda _: None}

Left = Callable[[], list[str]]
Run = Callable[..., "Popen[bytes]"]


def chunked(handler: Any, *, whole: bool) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    half = len(BODY) // 2
    handler.raw(
        head,
        b"%x\r\n" % half,
        BODY[:half],
        b"\r\n%x\r\n" % half,
        BODY[half : half * 2 if whole else -9],
    )
    if whole:
        handler.raw(b"\r\n0\r\n\r\n")


def stall(handler: Any, _: int) -> None:
    handler.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nabc", pause=1)


def once(fault: Any) -> Any:
    """Show a fault to the first request only."""
    return lambda handler, number: fault(handler, number) if number == 1 else handler.answer()


# Faults beside those of tests/hostile/wire.py.
MENDED: dict[str, Any] = {
    "503_no_date": once(lambda h, _: h.answer(b"", 503, Retry_After=f"Mon, 01 Jan 2020 00:00:00 +{10**19}")),
    "503_no_number": once(lambda h, _: h.answer(b"", 503, Retry_After="\u00b2")),
    "short_chunks": once(lambda h, _: chunked(h, whole=False)),
    "garbage": once(lambda h, _: h.raw(b"\x00\xffnonsense\r\n\r\n")),
    "empty": once(lambda h, _: h.answer(b"")),
    "chunked": lambda h, _: chunked(h, whole=True),
    "until_close": lambda h, _: h.raw(b"HTTP/1.0 200 OK\r\n\r\n", BODY),
}


@pytest.mark.parametrize("fault", MENDED)
def test_overcomes(fault: str, server: Any, cache: Path, left: Left) -> None:
    """What another try or patience can mend is mended."""
    server.route = MENDED[fault]

    path = get_file("a", server.url + "/x", file_hash=SHA256, cache_dir=cache, **QUICK)

    assert Path(path).read_bytes() == BODY
    assert left() == ["a"]


def dribble(handler: Any, head: bytes) -> None:
    handler.raw(head)
    with contextlib.suppress(OSError):
        for _ in range(100):
            handler.raw(b"a", pause=0.05)


def endless(handler: Any, _: int) -> None:
    handler.raw(b"HTTP/1.1 200 OK\r\n\r\n")
    with contextlib.suppress(OSError):
        while True:
            handler.raw(BODY)


REFUSED: dict[str, tuple[Any, str, int]] = {
    "404": (lambda h, _: h.answer(b"", 404), r"404 \(Not Found\)", 1),
    "403": (lambda h, _: h.answer(b"", 403), r"403 \(Forbidden\)", 1),
    "204": (lambda h, _: h.raw(b"HTTP/1.1 204 None\r\n\r\n"), r"204 \(No Content\)", 1),
    "206": (lambda h, _: h.answer(BODY[:99], 206), r"206 \(Partial Content\)", 1),
    "500_always": (lambda h, _: h.answer(b"", 500), r"500 .*tries made: 3", 3),
    "503_tomorrow": (lambda h, _: h.answer(b"", 503, Retry_After="86400"), "asks to wait 86400 s", 1),
    "short_always": (
        lambda h, _: h.answer(b"abc", Content_Length="99"),
        r"ended after 3 of 99 bytes.*tries made: 3",
        3,
    ),
    "encoded": (lambda h, _: h.answer(gzip.compress(BODY), Content_Encoding="gzip"), "gzip-encoded", 1),
    "two_lengths": (
        lambda h, _: h.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
        "Content-Length cannot be right: 3, 4",
        1,
    ),
    "length_garbage": (lambda h, _: h.answer(b"abc", Content_Length="-3"), "cannot be right: -3", 1),
    "transfer_encoding": (
        lambda h, _: h.raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc"),
        "unknown transfer encoding",
        1,
    ),
    "empty_always": (lambda h, _: h.answer(b""), "its body is empty", 3),
    "bad_chunk": (
        lambda h, _: h.raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc"),
        "cut off",
        3,
    ),
    "http09": (lambda h, _: h.raw(BODY), "no valid HTTP", 3),
    "huge": (lambda h, _: h.answer(b"abc", Content_Length=str(10**15)), "exceed max_size", 1),
    "endless": (endless, "more than max_size", 1),
    "stall": (stall, "came for 0.5 s", 3),
    "slow_headers": (
        lambda h, _: dribble(h, b"HTTP/1.1 200 OK\r\nX: "),
        r"headers did not come within 0\.5 s",
        3,
    ),
    "slow_body": (
        lambda h, _: dribble(h, b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n"),
        "less than 1024 bytes a second",
        3,
    ),
    "continues": (lambda h, _: h.raw(*[b"HTTP/1.1 100 Continue\r\n\r\n"] * 30, pause=0.05), "headers did not", 3),
    "redirect_loop": (lambda h, _: h.answer(b"", 302, Location="/x"), "more than 10 redirects", 11),
    "redirect_nowhere": (lambda h, _: h.answer(b"", 302), "without a Location", 1),
    "redirect_file": (
        lambda h, _: h.answer(b"", 302, Location="file:///etc/passwd"),
        "redirect to an invalid|from http to file",
        1,
    ),
    "redirect_ftp": (lambda h, _: h.answer(b"", 302, Location="ftp://127.0.0.1/x"), "http to ftp", 1),
    "redirect_blank": (lambda h, _: h.answer(b"", 302, Location="/a b"), "invalid URL", 1),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_refuses(fault: str, server: Any, cache: Path, left: Left) -> None:
    """What is not the file is refused after the right number of requests, and nothing is kept."""
    server.route, why, requests = REFUSED[fault]
    limits = QUICK | {"timeout": 0.5, "retries": 2, "max_size": 10**6}

    with pytest.raises(DownloadError, match=why):
        get_file("a", server.url + "/x", cache_dir=cache, **limits)
    assert len(server.seen) == requests
    assert left() == []


def test_waits_as_long_as_asked(server: Any, cache: Path) -> None:
    """Retry-After replaces the back-off."""
    server.route = once(lambda h, _: h.answer(b"", 503, Retry_After="1"))
    start = time.monotonic()

    get_file("a", server.url, cache_dir=cache, **QUICK)

    assert time.monotonic() - start >= 1


def test_refused_connection_is_an_error(cache: Path) -> None:
    """A port where nobody listens is tried again, then reported."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}/x"

        with pytest.raises(DownloadError, match=r"refused \(tries made: 3\)"):
            get_file("a", url, cache_dir=cache, retries=2, backoff=0.01, on_retry=lambda _: None)


def test_secrets_stay_out_of_messages_and_names(server: Any, cache: Path, run_python: Run) -> None:
    """Credentials reach the server and nothing else: no message, no file name, no other host."""
    server.route = lambda h, _: h.answer(b"", 404)
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


def test_credentials_go_to_the_first_site_only(server: Any, other_server: Any, cache: Path) -> None:
    """After a redirect to another port the Authorization header is not sent."""
    server.route = lambda h, n: h.answer(b"", 302, Location="/y" if n == 1 else other_server.url)

    get_file("a", server.url.replace("//", "//me:pw@"), cache_dir=cache)

    assert ["Authorization" in headers for _, headers in server.seen] == [True, True]
    assert ["Authorization" in headers for _, headers in other_server.seen] == [False]


def test_a_redirect_may_name_letters_that_are_not_quoted(server: Any, cache: Path) -> None:
    """Servers send the bytes of UTF-8 as they are; asked for is the file of that name, not another one."""
    unquoted = "/\u00fc.bin".encode().decode("latin-1")
    server.route = lambda h, n: h.answer(b"", 302, Location=unquoted) if n == 1 else h.answer()

    get_file("a", server.url + "/x", file_hash=SHA256, cache_dir=cache)

    assert [path for path, _ in server.seen] == ["/x", "/%C3%BC.bin"]


def test_uses_the_proxy_of_the_environment(server: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """http_proxy is honored."""
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)

    get_file("a", "http://files.invalid/x", file_hash=SHA256, cache_dir=cache)

    assert server.seen[0][0] == "http://files.invalid/x"


@pytest.mark.parametrize(
    ("origin", "why"),
    [
        ("ftp://me:pw@127.0.0.1/x", r"cannot fetch ftp://127\.0\.0\.1/x: use an http"),
        ("data:text/plain,secret", r"cannot fetch data:\.\.\.: use"),
        ("file://elsewhere/x", "names the host elsewhere, and only files of this machine"),
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
