"""Bring the bytes of a URL or local file, or say why not and whether another try may help.

`urllib` alone would wait for as long as a server dribbles, send credentials along with a redirect to another
site, and leave https for http. So only its requests and proxies are used; redirects, sizes and the patience
with a connection are handled here. Nothing here writes a file; `kflow.core.files` does.
"""

import base64
import contextlib
import datetime as dt
import email.utils
import http.client
import io
import os
import socket
import ssl
import stat
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from kflow.core.urls import check_url, redact, scheme_of

__all__ = [
    "MAX_PAUSE",
    "DownloadError",
    "Job",
    "Progress",
    "RetryError",
    "check_url",
    "local_path",
    "receive",
    "redact",
]

Progress = Callable[[int, int | None], None]
MAX_PAUSE = 60.0  # seconds: a server that asks for more is not waited for
_BLOCK = 2**18
_MAX_REDIRECTS = 10
_TOTAL_TIME = 24 * 3600.0
_MIN_SPEED = 1024  # bytes a second
_REDIRECTS = {301, 302, 303, 307, 308}
_TRANSIENT = {408, 425, 429}


class DownloadError(OSError):
    """A file that could not be fetched; the message never holds credentials or a query."""


class RetryError(Exception):
    """A failure that another try may mend, after a pause where the server names one."""

    def __init__(self, error: DownloadError | ValueError, pause: float | None = None) -> None:
        super().__init__()
        self.error = error
        self.pause = pause


@dataclass(frozen=True)
class Job:
    """One file to fetch: from where, to where, and within which limits."""

    origin: str
    local: Path | None  # the origin, where it is no http URL
    target: Path
    digest: tuple[str, str] | None
    progress: Progress | None
    timeout: float
    max_size: int
    deadline: float = field(default_factory=lambda: time.monotonic() + _TOTAL_TIME)

    def failed(self, why: str) -> DownloadError:
        """Return the error that says why the file could not be fetched."""
        return DownloadError(f"cannot fetch {redact(self.origin)}: {why}")


@contextlib.contextmanager
def receive(job: Job) -> Iterator[tuple[Iterator[bytes], int | None]]:
    """Give the bytes of the origin, block by block, and how many they are where that is known.

    Raises
    ------
    DownloadError, RetryError
        On entry and while the blocks are read, when the file cannot be had now.
    OSError
        When a local file cannot be read.
    """
    if job.local is None:
        with contextlib.closing(_open(job)) as response:
            total = _declared_size(job, response)
            yield _body(job, response, total), total
        return
    with job.local.open("rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise job.failed("it is not a regular file")
        yield iter(lambda: file.read(_BLOCK), b""), status.st_size


def local_path(origin: str | os.PathLike[str]) -> Path | None:
    """Return the path that a local origin names, None for an http or https URL."""
    if not isinstance(origin, str) or not (scheme := scheme_of(origin)):
        return Path(origin)
    if scheme in ("http", "https"):
        check_url(origin)
        return None
    if scheme == "file":
        parts = urllib.parse.urlsplit(origin)
        if parts.netloc in ("", "localhost"):
            return Path(urllib.parse.unquote(parts.path))
    msg = f"cannot fetch {redact(origin)}: use an http, https or file URL of this machine, or a path (./a:b)"
    raise ValueError(msg)


def _site(parts: urllib.parse.SplitResult) -> tuple[str, str | None, int]:
    """Return what credentials belong to: scheme, host and port."""
    return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def _open(job: Job) -> http.client.HTTPResponse:
    """Ask for the file and follow redirects to an answer of status 200."""
    opener = urllib.request.OpenerDirector()
    for handler in (urllib.request.ProxyHandler(), _HTTPHandler(), _HTTPSHandler()):
        opener.add_handler(handler)
    parts = first = check_url(job.origin)
    for _ in range(_MAX_REDIRECTS + 1):
        headers = {"User-Agent": "kflow", "Accept": "*/*", "Accept-Encoding": "identity"}
        if first.username is not None and _site(parts) == _site(first):
            secret = f"{first.username}:{first.password or ''}"
            headers["Authorization"] = "Basic " + base64.b64encode(urllib.parse.unquote_to_bytes(secret)).decode()
        response = _ask(job, opener, parts, headers)
        if response.status == 200:
            return response
        response.close()
        if response.status not in _REDIRECTS:
            raise _refused(job, response)
        parts = _redirected(job, parts, response.headers.get("Location"))
    raise job.failed(f"more than {_MAX_REDIRECTS} redirects")


def _ask(
    job: Job, opener: urllib.request.OpenerDirector, parts: urllib.parse.SplitResult, headers: dict[str, str]
) -> http.client.HTTPResponse:
    """Send one request and read the headers of the answer."""
    bare = parts._replace(
        netloc=parts.netloc.rpartition("@")[2],
        path=urllib.parse.quote(parts.path, safe="/%:@!$&'()*+,;=~"),
        query=urllib.parse.quote(parts.query, safe="/%:@!$&'()*+,;=~?[]"),
        fragment="",
    )
    try:
        request = urllib.request.Request(bare.geturl(), headers=headers)  # noqa: S310  the scheme was checked
        response = cast("http.client.HTTPResponse | None", opener.open(request, timeout=job.timeout))
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _broken(job, error) from None  # its text may hold the URL
    if response is None:
        raise job.failed("the environment names a proxy of an unsupported kind; use an http proxy")
    return response


def _broken(job: Job, error: Exception) -> Exception:
    """Return what to raise for a connection that failed: another try, unless a certificate is bad."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return job.failed(f"its certificate was refused ({cause.verify_message}); see SSL_CERT_FILE")
    if isinstance(cause, TimeoutError):
        why = f"nothing, or less than {_MIN_SPEED} bytes a second, came for {job.timeout:g} s"
    elif isinstance(cause, OSError):
        why = cause.strerror or type(cause).__name__
    elif isinstance(cause, http.client.IncompleteRead):
        why = "the body was cut off"
    else:
        why = f"the answer is no valid HTTP ({type(cause).__name__})"
    return RetryError(job.failed(why))


def _refused(job: Job, response: http.client.HTTPResponse) -> Exception:
    """Return what to raise for a status that brings no file."""
    status = response.status
    error = job.failed(f"the server answered {status} ({http.client.responses.get(status, 'unknown')})")
    if status not in _TRANSIENT and status < 500:
        return error
    pause = _retry_after(response.headers.get("Retry-After", ""))
    if pause is not None and pause > MAX_PAUSE:
        return job.failed(f"the server answered {status} and asks to wait {pause:.0f} s; try again then")
    return RetryError(error, pause)


def _retry_after(value: str) -> float | None:
    """Read a Retry-After header: seconds or a date, None for anything else."""
    if value.strip().isdecimal():
        return float(value)
    try:
        when = email.utils.parsedate_to_datetime(value)
    except (ValueError, OverflowError):  # the latter for a time zone of many digits
        return None
    when = when if when.tzinfo else when.replace(tzinfo=dt.UTC)
    return max(0.0, (when - dt.datetime.now(dt.UTC)).total_seconds())


def _redirected(job: Job, parts: urllib.parse.SplitResult, location: str | None) -> urllib.parse.SplitResult:
    """Return where a redirect leads, if that is allowed."""
    if not location:
        raise job.failed("a redirect without a Location")
    try:
        following = check_url(urllib.parse.urljoin(parts.geturl(), location))
    except ValueError:
        raise job.failed("a redirect to an invalid URL") from None
    if following.scheme not in ("http", "https") or (parts.scheme, following.scheme) == ("https", "http"):
        raise job.failed(f"a redirect from {parts.scheme} to {following.scheme} is not followed")
    return following


def _declared_size(job: Job, response: http.client.HTTPResponse) -> int | None:
    """Return the size that the headers declare, refusing what would change the bytes or is ambiguous."""
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding != "identity" and job.digest is None:  # with a digest, the bytes can be tried as they come
        raise job.failed(f"the body is {encoding}-encoded although 'identity' was asked for; give file_hash")
    transfer = response.headers.get("Transfer-Encoding")
    if transfer is not None:
        if transfer.strip().lower() != "chunked":
            raise job.failed("the body comes in an unknown transfer encoding")
        return None
    lines = response.headers.get_all("Content-Length", [])
    sizes = {size.strip() for line in lines for size in line.split(",")}
    if len(sizes) > 1 or not all(size.isdecimal() for size in sizes):
        raise job.failed(f"its Content-Length cannot be right: {', '.join(sorted(sizes))}")
    return int(sizes.pop()) if sizes else None


def _body(job: Job, response: http.client.HTTPResponse, total: int | None) -> Iterator[bytes]:
    """Give the bytes of a body as they come, and see that none are missing."""
    done = 0
    while total is None or done < total:
        if time.monotonic() > job.deadline:
            raise job.failed(f"it takes more than {_TOTAL_TIME / 3600:g} hours")
        try:
            block = response.read1(_BLOCK if total is None else min(_BLOCK, total - done))
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _broken(job, error) from None
        if not block:
            break
        done += len(block)
        yield block
    if total is not None and done < total:
        raise RetryError(job.failed(f"the body ended after {done:,} of {total:,} bytes"))


class _GuardedReader(io.RawIOBase):
    """The bytes of a socket, given up when the headers come late or the body slowly."""

    def __init__(self, sock: socket.socket) -> None:
        self._raw = sock.makefile("rb", buffering=0)
        self._patience = sock.gettimeout() or 30.0
        self._headers_until: float | None = time.monotonic() + self._patience
        self._waited = 0.0
        self._got = 0

    def headers_came(self) -> None:
        """Begin to measure the speed instead of the time."""
        self._headers_until = None

    def readable(self) -> bool:
        """Say that this can be read."""
        return True

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]  # narrower
        """Read what has come, within the limits of time."""
        before = time.monotonic()  # the socket has its own limit, which a server that dribbles never meets
        count = self._raw.readinto(buffer) or 0
        self._waited += time.monotonic() - before
        self._got += count
        if self._headers_until is None and self._waited >= self._patience:
            if self._got < _MIN_SPEED * self._waited:
                raise TimeoutError
            self._waited, self._got = 0.0, 0
        if self._headers_until is not None and time.monotonic() > self._headers_until:
            raise TimeoutError
        return count

    def close(self) -> None:
        """Let go of the socket."""
        self._raw.close()
        super().close()


class _GuardedResponse(http.client.HTTPResponse):
    """An answer read through a `_GuardedReader`."""

    def __init__(self, sock: socket.socket, debuglevel: int = 0, method: str | None = None, url: str | None = None):
        super().__init__(sock, debuglevel, method, url)
        self.fp.close()
        self._guard = _GuardedReader(sock)
        self.fp = io.BufferedReader(self._guard)

    def begin(self) -> None:
        """Read the status and the headers."""
        super().begin()
        self._guard.headers_came()


class _HTTPConnection(http.client.HTTPConnection):
    """A connection whose answers are guarded."""

    response_class = _GuardedResponse


class _HTTPSConnection(http.client.HTTPSConnection):
    """An encrypted connection whose answers are guarded."""

    response_class = _GuardedResponse


class _HTTPHandler(urllib.request.HTTPHandler):
    """Makes `urllib` use guarded connections."""

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        """Send a request."""
        return self.do_open(_HTTPConnection, req)


class _HTTPSHandler(urllib.request.HTTPSHandler):
    """Makes `urllib` use guarded connections; the system's certificates and SSL_CERT_FILE count."""

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        """Send a request."""
        return self.do_open(_HTTPSConnection, req, context=ssl.create_default_context())
