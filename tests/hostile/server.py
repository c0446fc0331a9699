"""A server that breaks the rules: raw sockets on 127.0.0.1, one thread for each connection."""

import contextlib
import random
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

BODY = random.Random(2).randbytes(2**18)
HALF = len(BODY) // 2
CERTIFICATE = Path(__file__).with_name("localhost.pem")
"""A certificate for 127.0.0.1 that nobody trusts, with its key: made for these tests, and of no other use."""

OK = "HTTP/1.1 200 OK"
MOST = 2**26
"""Bytes after which a client that takes everything has taken too much."""


@dataclass
class Talk:
    """One request and the connection to answer it on."""

    socket: socket.socket
    server: "Server"
    path: str
    headers: dict[str, str]
    number: int
    keeps: bool = False  # whether another request may follow on the connection

    def raw(self, *pieces: bytes, pause: float = 0.0) -> None:
        """Send bytes as they are."""
        for piece in pieces:
            self.socket.sendall(piece)
            time.sleep(pause)

    def head(self, first: str, *lines: str) -> None:
        """Send a status line and headers."""
        self.raw("\r\n".join([first, *lines, "", ""]).encode("latin-1"))

    def answer(self, body: bytes = b"", *lines: str, status: str = "200 OK") -> None:
        """Send an answer that is whole, and whose length is right."""
        self.head(f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *lines)
        self.raw(body)

    def half(self, *lines: str) -> None:
        """Promise all of the body and send half of it."""
        self.head(OK, f"Content-Length: {len(BODY)}", *lines)
        self.raw(BODY[:HALF])

    def redirect(self, location: str, *lines: str) -> None:
        """Send the client elsewhere."""
        self.answer(b"", f"Location: {location}", *lines, status="302 Found")

    def reset(self) -> None:
        """Break the connection off, so that what is on its way may be lost as well."""
        time.sleep(0.02)  # what was sent arrives
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def stall(self) -> None:
        """Send nothing more, until the client goes away or the server ends."""
        while not self.server.is_over.is_set():
            if select.select([self.socket], [], [], 0.02)[0] and not self.socket.recv(65536):
                return

    def dribble(self, data: bytes) -> None:
        """Send a byte now and then, over and over."""
        while not self.server.is_over.is_set():
            for number in data:
                self.raw(bytes([number]), pause=0.02)

    def flood(self, data: bytes) -> None:
        """Send as much as the client takes, up to a limit."""
        for _ in range(MOST // len(data)):
            if self.server.is_over.is_set():
                return
            self.raw(data)
        self.server.breaches.append(f"took {MOST >> 20} MiB")


@dataclass
class Server:
    """Answers each request by a function, or well once it `is_healthy`."""

    serve: Callable[[Talk], None]
    file: bytes = BODY
    is_secure: bool = False
    other: "Server | None" = None
    is_healthy: bool = False
    seen: list[Talk] = field(default_factory=list)
    breaches: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    is_over: threading.Event = field(default_factory=threading.Event)
    listening: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0), backlog=64))

    @property
    def site(self) -> str:
        """The host and port."""
        return f"127.0.0.1:{self.listening.getsockname()[1]}"

    @property
    def url(self) -> str:
        """The URL without a path."""
        return f"{'https' if self.is_secure else 'http'}://{self.site}"

    @contextlib.contextmanager
    def running(self) -> Iterator["Server"]:
        """Answer requests until the block is left."""
        threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads = threads
        threads[0].start()
        try:
            yield self
        finally:
            self.is_over.set()
            with contextlib.suppress(OSError):
                self.listening.shutdown(socket.SHUT_RDWR)  # wakes accept()
            for thread in threads:
                thread.join(10)
            self.listening.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while not self.is_over.is_set():
                connection, _ = self.listening.accept()
                thread = threading.Thread(target=self._converse, args=(connection,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _converse(self, connection: socket.socket) -> None:
        """Answer the requests of one connection; clients that go away are what this is about."""
        connection.settimeout(10)
        with contextlib.suppress(OSError, EOFError), connection:
            if self.is_secure:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(CERTIFICATE)
                connection = context.wrap_socket(connection, server_side=True)
            with connection:
                while self._answer(connection):
                    pass

    def _answer(self, connection: socket.socket) -> bool:
        """Answer one request; say whether another may follow."""
        text = b""
        while not text.endswith(b"\r\n\r\n"):
            text += (block := connection.recv(65536))
            if not block:
                return False
        request, *lines = text.decode("latin-1").strip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        talk = Talk(connection, self, request.split(" ")[1], headers, len(self.seen) + 1)
        self.seen.append(talk)
        if self.is_healthy:
            talk.answer(self.file)
        else:
            self.serve(talk)
        return talk.keeps
