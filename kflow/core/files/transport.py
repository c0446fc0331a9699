"""Bring the bytes of a URL or local file, or say why not and whether another try may help.

`urllib` alone would send credentials along with a redirect to another site, and leave https for http. So only
its requests and proxies are used; redirects, sizes and ranges are handled here. Nothing here writes a file;
`kflow.core.files.partials` does.
"""

import base64
import contextlib
import datetime as dt
import email.utils
import http.client
import io
import itertools
import os
import re
import ssl
import stat
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from kflow.core.files.connections import ForbiddenAddressError, Patience, Response, opener
from kflow.core.files.urls import check_url, redact

__all__ = ["MAX_PAUSE", "Answer", "DownloadError", "Origin", "OriginError", "Started", "receive"]

MAX_PAUSE = 60.0  # seconds: a server that asks for more is not waited for
_BLOCK = 2**22  # the kernel takes large blocks of a file more quickly than small ones
_YIELD_AFTER = 0.2  # seconds: a slow body is handed on, and told of, in smaller blocks
_MAX_REDIRECTS = 10
_REDIRECTS = {301, 302, 303, 307, 308}
_TRANSIENT = {408, 425, 429}


class DownloadError(OSError):
    """A file that could not be fetched; the message never holds credentials or a query."""


class OriginError(Exception):
    """Why an origin did not give the file: for good, or so that another try may mend it, after a pause."""

    def __init__(self, error: OSError | ValueError, pause: float | None = None, *, is_final: bool = False) -> None:
        super().__init__()
        self.error = error
        self.pause = pause
        self.is_final = is_final


@dataclass(frozen=True)
class Origin:
    """Where a file can be had: a URL, or a path of this machine."""

    text: str
    local: Path | None

    def failed(self, why: str) -> DownloadError:
        """Return the error that says why the file could not be fetched."""
        return DownloadError(f"cannot fetch {redact(self.text)}: {why}")

    def refused(self, why: str) -> OriginError:
        """Return what to raise where another try cannot help."""
        return OriginError(self.failed(why), is_final=True)


@dataclass(frozen=True)
class Started:
    """The beginning of a file that is here already, and what names the version it belongs to."""

    size: int
    total: int
    etag: str


@dataclass(frozen=True)
class Answer:
    """The bytes of a file from `start` on, in blocks that stay what they are until the next but one."""

    start: int
    total: int | None
    blocks: Iterator[memoryview]
    etag: str | None = None  # a strong one: two answers that bear it agree in every byte
    content_type: str = ""


@contextlib.contextmanager
def receive(origin: Origin, patience: Patience, started: Started | None, *, is_verified: bool) -> Iterator[Answer]:
    """Ask an origin for a file, or for the rest of one that was started.

    Raises
    ------
    OriginError
        On entry and while the blocks are read, when the file cannot be had.
    """
    if origin.local is not None:
        with _open_local(origin, origin.local) as whole:
            yield whole
        return
    for wanted in dict.fromkeys((started, None)):  # all of it, where what came is not the rest of what we have
        with contextlib.closing(_open(origin, patience, wanted)) as response:
            answer = _answer(origin, patience, response, wanted, is_verified=is_verified)
            if answer is not None:
                yield answer
                return


@contextlib.contextmanager
def _open_local(origin: Origin, path: Path) -> Iterator[Answer]:
    try:
        file = open(path, "rb", buffering=0, opener=_without_waiting)  # noqa: SIM115  closed below
    except IsADirectoryError:
        raise origin.refused("it is a folder; name a file") from None
    except OSError as error:
        raise OriginError(error, is_final=True) from None
    with file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise origin.refused("it is not a regular file")
        yield Answer(0, status.st_size, _read(file))


def _read(file: io.FileIO) -> Iterator[memoryview]:
    for buffer in itertools.cycle(_two_buffers(_BLOCK)):
        count = file.readinto(buffer)
        if not count:
            return
        yield buffer[:count]


def _two_buffers(size: int) -> list[memoryview]:
    """Return room for the block that comes, and for the one before it, which may still be hashed."""
    return [memoryview(bytearray(size)) for _ in range(2)]


def _without_waiting(name: str, flags: int) -> int:
    """Open a file, also a pipe that nobody may ever write to."""
    return os.open(name, flags | os.O_NONBLOCK)


# --- asking -----------------------------------------------------------------------------------------------


def _site(parts: urllib.parse.SplitResult) -> tuple[str, str | None, int]:
    """Return what credentials belong to: scheme, host and port."""
    return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def _open(origin: Origin, patience: Patience, started: Started | None) -> Response:
    """Ask for the file and follow redirects to an answer that brings bytes, or refuses the range."""
    director = opener(patience)
    parts = first = check_url(origin.text)
    for _ in range(_MAX_REDIRECTS + 1):
        if patience.left() <= 0:
            raise _too_late(origin, patience)
        headers = {"User-Agent": "kflow", "Accept": "*/*", "Accept-Encoding": "identity"}
        if started is not None:
            headers |= {"Range": f"bytes={started.size}-", "If-Range": started.etag}
        if first.username is not None and _site(parts) == _site(first):
            secret = f"{first.username}:{first.password or ''}"
            headers["Authorization"] = "Basic " + base64.b64encode(urllib.parse.unquote_to_bytes(secret)).decode()
        response = _ask(origin, patience, director, parts, headers)
        if response.status == 200 or (started is not None and response.status in (206, 416)):
            return response
        response.close()
        if response.status not in _REDIRECTS:
            raise _refused(origin, response)
        parts = _redirected(origin, parts, response.headers.get("Location"))
    raise origin.refused(f"more than {_MAX_REDIRECTS} redirects")


def _ask(
    origin: Origin,
    patience: Patience,
    director: urllib.request.OpenerDirector,
    parts: urllib.parse.SplitResult,
    headers: dict[str, str],
) -> Response:
    """Send one request and read the headers of the answer."""
    bare = parts._replace(
        netloc=parts.netloc.rpartition("@")[2],
        path=urllib.parse.quote(parts.path, safe="/%:@!$&'()*+,;=~"),
        query=urllib.parse.quote(parts.query, safe="/%:@!$&'()*+,;=~?[]"),
        fragment="",
    )
    timeout = min(patience.connect, max(patience.left(), 0.001))
    try:
        request = urllib.request.Request(bare.geturl(), headers=headers)  # noqa: S310  the scheme was checked
        response = cast("Response | None", director.open(request, timeout=timeout))
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _broken(origin, patience, error) from None  # its text may hold the URL
    if response is None:
        raise origin.refused("the environment names a proxy of an unsupported kind; use an http proxy")
    return response


def _broken(origin: Origin, patience: Patience, error: Exception) -> OriginError:
    """Return what to raise for a connection that failed: another try, unless it cannot help."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if patience.left() <= 0:
        return _too_late(origin, patience)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return origin.refused(f"its certificate was refused ({cause.verify_message}); see SSL_CERT_FILE")
    if isinstance(cause, ForbiddenAddressError):
        return origin.refused(str(cause))
    if isinstance(cause, OSError):
        why = cause.strerror or str(cause) or type(cause).__name__
    elif isinstance(cause, http.client.IncompleteRead):
        why = "the body was cut off"
    else:
        why = f"the answer is no valid HTTP ({type(cause).__name__})"
    return OriginError(origin.failed(why))


def _too_late(origin: Origin, patience: Patience) -> OriginError:
    return origin.refused(f"it takes more than {patience.total:g} s; raise timeout['total'] if it may")


def _refused(origin: Origin, response: http.client.HTTPResponse) -> OriginError:
    """Return what to raise for a status that brings no file."""
    status = response.status
    why = f"the server answered {status} ({http.client.responses.get(status, 'unknown')})"
    if status not in _TRANSIENT and status < 500:
        return origin.refused(why)
    pause = _retry_after(response.headers.get("Retry-After", ""))
    if pause is not None and pause > MAX_PAUSE:
        return origin.refused(f"the server answered {status} and asks to wait {pause:.0f} s; try again then")
    return OriginError(origin.failed(why), pause)


def _retry_after(value: str) -> float | None:
    """Read a Retry-After header: seconds or a date, None for anything else."""
    if re.fullmatch("[0-9]{1,18}", value.strip()):
        return float(value)
    try:
        when = email.utils.parsedate_to_datetime(value)
    except (ValueError, OverflowError):  # the latter for a time zone of many digits
        return None
    when = when if when.tzinfo else when.replace(tzinfo=dt.UTC)
    return max(0.0, (when - dt.datetime.now(dt.UTC)).total_seconds())


def _redirected(origin: Origin, parts: urllib.parse.SplitResult, location: str | None) -> urllib.parse.SplitResult:
    """Return where a redirect leads, if that is allowed."""
    if not location:
        raise origin.refused("a redirect without a Location")
    # Python reads headers as Latin-1; what servers send unquoted are the bytes of UTF-8, as a rule.
    location = re.sub("[\x80-\xff]", lambda found: f"%{ord(found[0]):02X}", location)
    try:
        following = check_url(urllib.parse.urljoin(parts.geturl(), location))
    except ValueError:
        raise origin.refused("a redirect to an invalid URL") from None
    if following.scheme not in ("http", "https") or (parts.scheme, following.scheme) == ("https", "http"):
        raise origin.refused(f"a redirect from {parts.scheme} to {following.scheme} is not followed")
    return following


# --- reading an answer ------------------------------------------------------------------------------------


def _answer(
    origin: Origin, patience: Patience, response: Response, started: Started | None, *, is_verified: bool
) -> Answer | None:
    """Read what the headers say of the bytes; None when they are not the rest of what was started."""
    size = _declared_size(origin, response, is_verified=is_verified)
    etag = _strong_etag(response)
    start, total = 0, size
    if started is not None and response.status != 200:
        start, total = started.size, started.total
        if response.status == 416 or not _continues(response, started, etag, size):
            return None
    return Answer(
        start,
        total,
        _body(origin, patience, response, start, total),
        etag,
        response.headers.get_content_type(),
    )


def _strong_etag(response: Response) -> str | None:
    """Return the ETag when it vouches for every byte (RFC 9110, 8.8.1): one that does not begin with W/."""
    etag = response.headers.get("ETag", "").strip()
    return etag if re.fullmatch(r'"[\x21\x23-\x7e]{1,512}"', etag) else None


def _continues(response: Response, started: Started, etag: str | None, size: int | None) -> bool:
    """Say whether a 206 brings the rest of the same version, which it must say itself."""
    found = re.fullmatch(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", response.headers.get("Content-Range", "").strip())
    if found is None or etag not in (None, started.etag):
        return False
    wanted = (started.size, started.total - 1, started.total)
    return tuple(map(int, found.groups())) == wanted and size in (None, started.total - started.size)


def _declared_size(origin: Origin, response: Response, *, is_verified: bool) -> int | None:
    """Return the size that the headers declare, refusing what would change the bytes or is ambiguous."""
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding != "identity" and not is_verified:  # with a digest, the bytes can be tried as they come
        raise origin.refused(f"the body is {encoding}-encoded although 'identity' was asked for; give file_hash")
    transfer = response.headers.get("Transfer-Encoding")
    if transfer is not None:
        if transfer.strip().lower() != "chunked":
            raise origin.refused("the body comes in an unknown transfer encoding")
        return None
    lines = response.headers.get_all("Content-Length", [])
    sizes = {size.strip() for line in lines for size in line.split(",")}
    if len(sizes) > 1 or not all(re.fullmatch("[0-9]{1,18}", size) for size in sizes):
        raise origin.refused(f"its Content-Length cannot be right: {', '.join(sorted(sizes))}")
    return int(sizes.pop()) if sizes else None


def _body(
    origin: Origin, patience: Patience, response: Response, start: int, total: int | None
) -> Iterator[memoryview]:
    """Give the bytes of a body as they come, and see that none are missing."""
    done, is_over = start, False
    buffers = itertools.cycle(_two_buffers(_BLOCK if total is None else max(1, min(_BLOCK, total - start))))
    while not is_over and done != total:
        room = next(buffers)[: None if total is None else total - done]
        filled, is_over, error = _fill(response, room)
        done += filled
        if filled:
            yield room[:filled]  # also what came before an error: a later try may go on from there
        if error is not None:
            raise _broken(origin, patience, error)
        if patience.left() <= 0 and done != total:
            raise _too_late(origin, patience)
    if total is not None and done < total:
        raise OriginError(origin.failed(f"the body ended after {done:,} of {total:,} bytes"))


def _fill(response: Response, room: memoryview) -> tuple[int, bool, Exception | None]:
    """Read what comes within a short time; return the bytes read, whether it was the end, and what broke."""
    filled = 0
    until = time.monotonic() + _YIELD_AFTER
    try:
        while filled < len(room) and (not filled or response.has_more(until - time.monotonic())):
            count = response.receive_into(room[filled:])
            if not count:
                return filled, True, None
            filled += count
    except (OSError, http.client.HTTPException, ValueError) as error:
        return filled, True, error
    return filled, False, None
