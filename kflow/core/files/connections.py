"""HTTP connections that do not wait for ever, however slowly a server dribbles.

A socket's own timeout starts anew with every byte. Here the connection, the headers, the speed of the body
and the whole download have limits of their own.
"""

import http.client
import io
import ipaddress
import select
import socket
import ssl
import time
import urllib.request
from dataclasses import dataclass, field
from typing import Any

__all__ = ["ForbiddenAddressError", "Patience", "Response", "opener"]


class ForbiddenAddressError(OSError):
    """A host at an address that nothing is fetched from."""


@dataclass(frozen=True)
class Patience:
    """How long to wait, in seconds, and the bytes a second below which a body is given up."""

    connect: float = 30.0
    read: float = 30.0
    total: float = 24 * 3600.0
    min_speed: float = 1024.0
    started: float = field(default_factory=time.monotonic)

    def left(self) -> float:
        """Return the seconds left of the whole download."""
        return self.started + self.total - time.monotonic()


class _GuardedReader(io.RawIOBase):
    """The bytes of a socket, given up when the headers come late or the body slowly."""

    def __init__(self, sock: socket.socket, patience: Patience) -> None:
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)
        self._patience = patience
        self._headers_until: float | None = time.monotonic() + patience.read
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
        patience = self._patience
        before = time.monotonic()
        self._sock.settimeout(max(min(patience.read, patience.left()), 0.001))
        try:
            count = self._raw.readinto(buffer) or 0
        except TimeoutError:
            msg = f"nothing came for {patience.read:g} s"
            raise TimeoutError(msg) from None
        now = time.monotonic()
        if self._headers_until is not None and now > self._headers_until:
            msg = f"the headers did not come within {patience.read:g} s"
            raise TimeoutError(msg)
        self._watch_speed(now - before, count)
        return count

    def has_more(self, seconds: float) -> bool:
        """Wait a short time for more bytes; say whether some are here."""
        if isinstance(self._sock, ssl.SSLSocket) and self._sock.pending():
            return True
        before = time.monotonic()
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        is_here = bool(poll.poll(max(0.0, seconds) * 1000))
        self._watch_speed(time.monotonic() - before, 0)
        return is_here

    def _watch_speed(self, waited: float, count: int) -> None:
        """Count only the time spent waiting: a slow disk is not the server's fault."""
        self._waited += waited
        self._got += count
        if self._headers_until is None and self._waited >= self._patience.read:
            if self._got < self._patience.min_speed * self._waited:
                msg = f"less than {self._patience.min_speed:g} bytes a second came for {self._patience.read:g} s"
                raise TimeoutError(msg)
            self._waited, self._got = 0.0, 0

    def close(self) -> None:
        """Let go of the socket."""
        self._raw.close()
        super().close()


class Response(http.client.HTTPResponse):
    """An answer that is read with patience, but not with more of it than there is."""

    def __init__(self, patience: Patience, sock: socket.socket, **options: Any) -> None:
        super().__init__(sock, **options)
        self.fp.close()
        self._guard = _GuardedReader(sock, patience)
        self.fp = io.BufferedReader(self._guard)

    def begin(self) -> None:
        """Read the status and the headers."""
        super().begin()
        self._guard.headers_came()

    def receive_into(self, buffer: memoryview) -> int:
        """Read what has come of the body, at once into the buffer where that is possible."""
        if not self.chunked:
            return self.fp.readinto1(buffer)
        block = self.read1(len(buffer))
        buffer[: len(block)] = block
        return len(block)

    def has_more(self, seconds: float) -> bool:
        """Wait a short time; say whether the next read will not have to."""
        return not self.chunked and self._guard.has_more(seconds)


class _Connection(http.client.HTTPConnection):
    """A connection whose answers are guarded."""

    def __init__(self, host: str, *, patience: Patience, **options: Any) -> None:
        super().__init__(host, **options)
        self._patience = patience
        self._create_connection = _connect

    def response_class(self, sock: socket.socket, **options: Any) -> Response:  # type: ignore[override]
        """Make an answer; `http.client` calls this like a class."""
        return Response(self._patience, sock, **options)

    def connect(self) -> None:
        """Connect, and shake hands where the connection is encrypted."""
        try:
            super().connect()
        except TimeoutError:
            msg = f"no connection within {self._patience.connect:g} s"
            raise TimeoutError(msg) from None


class _SecureConnection(_Connection, http.client.HTTPSConnection):
    """An encrypted connection whose answers are guarded."""


def _connect(address: tuple[str, int], timeout: float, source_address: tuple[str, int] | None) -> socket.socket:
    """Connect to the first address of a host that answers, never to a link-local one.

    What is there (the metadata services of clouds, above all) gives secrets to whoever asks, and a name or a
    redirect of anybody's can lead there.
    """
    error: OSError | None = None
    for *_, place in socket.getaddrinfo(*address, type=socket.SOCK_STREAM):
        number = str(place[0])
        try:
            if _is_link_local(number):
                msg = f"its host is at the link-local address {number}, from which nothing is fetched"
                raise ForbiddenAddressError(msg)
            return socket.create_connection((number, address[1]), timeout, source_address)
        except OSError as failure:
            error = failure
    raise error or OSError("its host has no address")


def _is_link_local(number: str) -> bool:
    address = ipaddress.ip_address(number.partition("%")[0])
    return (getattr(address, "ipv4_mapped", None) or address).is_link_local


class _Handler(urllib.request.AbstractHTTPHandler):
    """Makes `urllib` use guarded connections."""

    def __init__(self, patience: Patience) -> None:
        super().__init__()
        self._patience = patience

    http_request = urllib.request.AbstractHTTPHandler.do_request_
    https_request = urllib.request.AbstractHTTPHandler.do_request_

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        """Send a request."""
        return self.do_open(_Connection, req, patience=self._patience)  # type: ignore[arg-type]  # as a class

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        """Send an encrypted request; the system's certificates and SSL_CERT_FILE count."""
        context = ssl.create_default_context()
        return self.do_open(_SecureConnection, req, patience=self._patience, context=context)  # type: ignore[arg-type]


def opener(patience: Patience) -> urllib.request.OpenerDirector:
    """Return what opens http and https URLs, by way of the environment's proxies, and follows no redirect."""
    director = urllib.request.OpenerDirector()
    for handler in (urllib.request.ProxyHandler(), _Handler(patience)):
        director.add_handler(handler)
    return director
