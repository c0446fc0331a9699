"""Sixty-four faults between a server and a client, and what is expected of who meets each."""

import email.utils
import gzip
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from tests.hostile.server import BODY, CERTIFICATE, HALF, OK, Talk

Expectation = Literal["deliver", "refuse", "either", "any"]
"""To give the right bytes, to fail, one of the two, or anything: without a digest nobody can tell."""

PACKED = gzip.compress(BODY, mtime=0)
BOMB = gzip.compress(bytes(2**26), mtime=0)
LENGTH = f"Content-Length: {len(BODY)}"
ETAG = 'ETag: "one"'


@dataclass(frozen=True)
class Case:
    """One fault: its name, its place in the list, what happens, and what is expected with a digest and without."""

    name: str
    line: int
    what: str
    expected: Expectation
    blind: Expectation
    serve: Callable[[Talk], None]
    file: bytes = BODY
    is_secure: bool = False
    is_trusted: bool = True
    user: str = ""


_CASES: list[Case] = []


def _case(
    expected: Expectation,
    blind: Expectation | None = None,
    *,
    file: bytes = BODY,
    is_secure: bool = False,
    is_trusted: bool = True,
    user: str = "",
) -> Callable[[Callable[[Talk], None]], Callable[[Talk], None]]:
    """List a fault under the name of the function that commits it."""

    def enlist(serve: Callable[[Talk], None]) -> Callable[[Talk], None]:
        name, what, line = serve.__name__, serve.__doc__ or "", len(_CASES) + 1
        _CASES.append(Case(name, line, what, expected, blind or expected, serve, file, is_secure, is_trusted, user))
        return serve

    return enlist


@_case("deliver")
def ok(talk: Talk) -> None:
    """Nothing is wrong."""
    talk.answer(BODY)


# --- bodies that end too early or too late ----------------------------------------------------------------


@_case("deliver")
def trunc_cl(talk: Talk) -> None:
    """The first body ends half way."""
    talk.half() if talk.number == 1 else talk.answer(BODY)


@_case("refuse")
def trunc_cl_always(talk: Talk) -> None:
    """Every body ends half way."""
    talk.half()


@_case("deliver")
def reset_mid(talk: Talk) -> None:
    """The first connection is reset half way."""
    if talk.number > 1:
        return talk.answer(BODY)
    talk.half()
    return talk.reset()


@_case("either", "any")
def trunc_close_delimited(talk: Talk) -> None:
    """A body without a length, whose end is that of the connection, ends half way."""
    talk.head("HTTP/1.0 200 OK")
    talk.raw(BODY[:HALF])


@_case("either")
def trunc_chunked(talk: Talk) -> None:
    """A body in chunks ends half way, without the last chunk."""
    talk.head(OK, "Transfer-Encoding: chunked")
    talk.raw(b"%x\r\n" % HALF, BODY[:HALF], b"\r\n")


@_case("refuse")
def chunk_bad_size(talk: Talk) -> None:
    """The second chunk has no number for its size."""
    talk.head(OK, "Transfer-Encoding: chunked")
    talk.raw(b"%x\r\n" % HALF, BODY[:HALF], b"\r\nzz\r\n", BODY[HALF:], b"\r\n0\r\n\r\n")


@_case("either", "any")
def cl_too_small(talk: Talk) -> None:
    """Content-Length is half of what comes."""
    talk.head(OK, f"Content-Length: {HALF}")
    talk.raw(BODY)


@_case("refuse")
def cl_too_big_hang(talk: Talk) -> None:
    """Content-Length is more than what comes, and the connection stays open."""
    talk.head(OK, f"Content-Length: {len(BODY) + 1000}")
    talk.raw(BODY)
    talk.stall()


@_case("either")
def cl_garbage(talk: Talk) -> None:
    """Content-Length is a word."""
    talk.head(OK, "Content-Length: many")
    talk.raw(BODY)


@_case("either")
def cl_negative(talk: Talk) -> None:
    """Content-Length is below zero."""
    talk.head(OK, "Content-Length: -5")
    talk.raw(BODY)


@_case("refuse")
def cl_conflict(talk: Talk) -> None:
    """There are two lengths."""
    talk.head(OK, f"Content-Length: {HALF}", LENGTH)
    talk.raw(BODY)


@_case("either")
def cl_and_chunked(talk: Talk) -> None:
    """A body in chunks has a Content-Length as well, a wrong one."""
    talk.head(OK, f"Content-Length: {HALF}", "Transfer-Encoding: chunked")
    talk.raw(b"%x\r\n" % len(BODY), BODY, b"\r\n0\r\n\r\n")


# --- bodies that are another's ----------------------------------------------------------------------------


@_case("refuse", "any")
def bitflip(talk: Talk) -> None:
    """One bit is wrong, every time."""
    talk.answer(bytes([BODY[0] ^ 1]) + BODY[1:])


@_case("deliver", "any")
def bitflip_once(talk: Talk) -> None:
    """One bit is wrong, the first time."""
    talk.answer(bytes([BODY[0] ^ (talk.number == 1)]) + BODY[1:])


@_case("refuse")
def zero_200(talk: Talk) -> None:
    """The body is empty."""
    talk.answer(b"")


@_case("deliver")
def empty_reply(talk: Talk) -> None:
    """The first connection is closed without a word."""
    if talk.number > 1:
        talk.answer(BODY)


@_case("refuse")
def status_204(talk: Talk) -> None:
    """The status is 204, No Content."""
    talk.head("HTTP/1.1 204 No Content")


@_case("refuse", "any")
def html_200(talk: Talk) -> None:
    """A page to log in comes instead, as 200."""
    talk.answer(b"<!DOCTYPE html><title>Log in</title>", "Content-Type: text/html")


@_case("refuse")
def endless(talk: Talk) -> None:
    """The body does not end."""
    talk.head(OK)
    talk.flood(BODY)


@_case("refuse")
def huge_declared(talk: Talk) -> None:
    """Content-Length is a petabyte, of which some comes."""
    talk.head(OK, f"Content-Length: {10**15}")
    talk.raw(BODY)
    talk.stall()


# --- statuses ---------------------------------------------------------------------------------------------


@_case("deliver")
def s500_once(talk: Talk) -> None:
    """The first status is 500."""
    talk.answer(status="500 Oops") if talk.number == 1 else talk.answer(BODY)


@_case("deliver")
def s503_twice(talk: Talk) -> None:
    """The first two are 503."""
    talk.answer(status="503 Busy") if talk.number <= 2 else talk.answer(BODY)


@_case("refuse")
def s503_always(talk: Talk) -> None:
    """All are 503."""
    talk.answer(status="503 Busy")


@_case("deliver")
def s429_after1(talk: Talk) -> None:
    """The first is 429, to come again in a second; who comes earlier is sent away."""
    if talk.number == 1:
        return talk.answer(b"", "Retry-After: 1", status="429 Slowly")
    is_early = time.monotonic() - talk.server.started < 1
    return talk.answer(status="403 Too early") if is_early else talk.answer(BODY)


@_case("deliver")
def s429_date(talk: Talk) -> None:
    """The first is 429, to come again at a time in less than two seconds."""
    if talk.number == 1:
        when = email.utils.formatdate(time.time() + 1, usegmt=True)
        return talk.answer(b"", f"Retry-After: {when}", status="429 Slowly")
    return talk.answer(BODY)


@_case("refuse")
def s429_day(talk: Talk) -> None:
    """All are 429, to come again tomorrow."""
    talk.answer(b"", "Retry-After: 86400", status="429 Slowly")


@_case("deliver")
def s408_once(talk: Talk) -> None:
    """The first is 408, Request Timeout."""
    talk.answer(status="408 Late") if talk.number == 1 else talk.answer(BODY)


@_case("refuse")
def s404_body(talk: Talk) -> None:
    """The right bytes come with a 404."""
    talk.answer(BODY, status="404 Not Found")


@_case("refuse")
def s403(talk: Talk) -> None:
    """The status is 403."""
    talk.answer(b"no", status="403 Forbidden")


# --- redirects --------------------------------------------------------------------------------------------


@_case("deliver")
def redir_ok(talk: Talk) -> None:
    """The file has moved."""
    talk.redirect("/moved?a=b") if talk.number == 1 else talk.answer(BODY)


@_case("refuse")
def redir_loop(talk: Talk) -> None:
    """The file has moved to where it was."""
    talk.redirect(talk.path)


@_case("refuse")
def redir_chain60(talk: Talk) -> None:
    """The file has moved sixty times."""
    hops = int(talk.path.removeprefix("/hop")) if talk.path.startswith("/hop") else 0
    talk.redirect(f"/hop{hops + 1}") if hops < 60 else talk.answer(BODY)


@_case("refuse")
def redir_file(talk: Talk) -> None:
    """The file has moved to a file of the client's machine."""
    talk.redirect(CERTIFICATE.as_uri())


@_case("refuse")
def redir_ftp(talk: Talk) -> None:
    """The file has moved to FTP."""
    talk.redirect("ftp://127.0.0.1:1/a")


@_case("refuse")
def redir_nolocation(talk: Talk) -> None:
    """The file has moved, nobody knows where to."""
    talk.answer(b"moved", status="302 Found")


@_case("either")
def redir_crlf(talk: Talk) -> None:
    """The new place holds a line end and a header, which must not become one."""
    if "x-injected" in talk.headers:
        talk.server.breaches.append("sent an injected header")
    talk.redirect("/a%0d%0aX-Injected:%20b\tc") if talk.number == 1 else talk.answer(BODY)


@_case("deliver", user="me:secret@")
def redir_cross_auth(talk: Talk) -> None:
    """The file needs a password and has moved to another site, which must not get it."""
    assert talk.server.other is not None
    if talk.headers.get("authorization") == "Basic bWU6c2VjcmV0":
        talk.redirect(f"{talk.server.other.url}/a")
    else:
        talk.answer(status="401 Who are you?")


@_case("refuse", is_secure=True)
def tls_downgrade(talk: Talk) -> None:
    """An encrypted file has moved to where nothing is."""
    assert talk.server.other is not None
    talk.redirect(f"{talk.server.other.url}/a")


@_case("refuse", is_secure=True, is_trusted=False)
def tls_untrusted(talk: Talk) -> None:
    """Nobody vouches for the certificate."""
    talk.answer(BODY)


# --- encodings that nobody asked for ----------------------------------------------------------------------


@_case("deliver", "either", file=PACKED)
def ce_gzip_tagged(talk: Talk) -> None:
    """A file that is itself packed is said to be packed for the way."""
    talk.answer(PACKED, "Content-Encoding: gzip", "Content-Type: application/gzip")


@_case("either")
def ce_gzip_honest(talk: Talk) -> None:
    """The file was packed for the way."""
    talk.answer(PACKED, "Content-Encoding: gzip")


@_case("either")
def ce_gzip_lie(talk: Talk) -> None:
    """The file is said to be packed and is not."""
    talk.answer(BODY, "Content-Encoding: gzip")


@_case("refuse")
def ce_gzip_trunc(talk: Talk) -> None:
    """The file was packed for the way, and half of that comes."""
    talk.answer(PACKED[: len(PACKED) // 2], "Content-Encoding: gzip")


@_case("refuse")
def ce_bomb(talk: Talk) -> None:
    """64 KiB are said to be packed, and would be 64 MiB."""
    talk.answer(BOMB, "Content-Encoding: gzip")


@_case("either")
def ce_unknown(talk: Talk) -> None:
    """The encoding is one that nobody knows."""
    talk.answer(BODY, "Content-Encoding: rot13")


# --- slowness ---------------------------------------------------------------------------------------------


@_case("refuse")
def stall_headers(talk: Talk) -> None:
    """No answer comes."""
    talk.stall()


@_case("refuse")
def stall_body(talk: Talk) -> None:
    """Half of the body comes, then nothing, every time."""
    talk.half()
    talk.stall()


@_case("deliver")
def stall_once(talk: Talk) -> None:
    """Half of the first body comes, then nothing."""
    if talk.number > 1:
        return talk.answer(BODY)
    talk.half()
    return talk.stall()


@_case("refuse")
def loris(talk: Talk) -> None:
    """The body comes byte by byte, fifty a second."""
    talk.head(OK, LENGTH)
    talk.dribble(BODY)


@_case("refuse")
def loris_headers(talk: Talk) -> None:
    """The headers come byte by byte, fifty a second."""
    talk.raw(b"HTTP/1.1 200 OK\r\n")
    talk.dribble(b"X-Slow: a\r\n")


@_case("deliver")
def slow_ok(talk: Talk) -> None:
    """The body comes slowly, but it comes."""
    talk.head(OK, LENGTH)
    talk.raw(*(BODY[at : at + 2**14] for at in range(0, len(BODY), 2**14)), pause=0.04)


# --- going on where it broke off --------------------------------------------------------------------------


def _resumable(talk: Talk) -> None:
    """Send half of a body that has a name, and break off."""
    talk.half(ETAG, "Accept-Ranges: bytes")
    talk.reset()


@_case("either")
def resume_etag_changed(talk: Talk) -> None:
    """Half of another version comes first; whoever asks for the rest of that gets the new one."""
    if talk.number > 1:
        is_same = talk.headers.get("if-range") in (None, '"two"') and "range" in talk.headers
        return _rest(talk, "two") if is_same else talk.answer(BODY, 'ETag: "two"')
    talk.head(OK, LENGTH, ETAG, "Accept-Ranges: bytes")
    talk.raw(bytes(HALF))
    return talk.reset()


def _rest(talk: Talk, etag: str) -> None:
    """Send what a Range asks for."""
    start = int(talk.headers["range"].removeprefix("bytes=").removesuffix("-"))
    span = f"Content-Range: bytes {start}-{len(BODY) - 1}/{len(BODY)}"
    talk.answer(BODY[start:], span, f'ETag: "{etag}"', status="206 Partial Content")


@_case("deliver")
def resume_range_ignored(talk: Talk) -> None:
    """Who asks for the rest gets everything."""
    _resumable(talk) if talk.number == 1 else talk.answer(BODY, ETAG)


@_case("either")
def resume_range_lie(talk: Talk) -> None:
    """Who asks for the rest gets the beginning, under the name of the rest."""
    if talk.number == 1:
        return _resumable(talk)
    if "range" not in talk.headers:
        return talk.answer(BODY, ETAG)
    span = f"Content-Range: bytes {HALF}-{len(BODY) - 1}/{len(BODY)}"
    return talk.answer(BODY[:HALF], span, ETAG, status="206 Partial Content")


@_case("deliver")
def resume_416(talk: Talk) -> None:
    """Who asks for the rest is told that there is none."""
    if talk.number == 1:
        return _resumable(talk)
    if "range" not in talk.headers:
        return talk.answer(BODY, ETAG)
    return talk.answer(b"", f"Content-Range: bytes */{len(BODY)}", status="416 Range Not Satisfiable")


@_case("refuse")
def unasked_206(talk: Talk) -> None:
    """Half of the file comes as 206, which nobody asked for."""
    span = f"Content-Range: bytes 0-{HALF - 1}/{len(BODY)}"
    talk.answer(BODY[:HALF], span, status="206 Partial Content")


# --- what is no HTTP, or too much of it -------------------------------------------------------------------


@_case("refuse")
def garbage(talk: Talk) -> None:
    """The answer is noise."""
    talk.raw(b"\x00\xff\xfe" * 99 + b"\r\n\r\n")


@_case("refuse")
def http09(talk: Talk) -> None:
    """The file comes without status and headers."""
    talk.raw(BODY)


@_case("either")
def many_headers(talk: Talk) -> None:
    """There are five thousand headers."""
    talk.answer(BODY, *(f"X-{number}: a" for number in range(5000)))


@_case("either")
def long_header(talk: Talk) -> None:
    """A header has a million characters."""
    talk.answer(BODY, "X-Long: " + "a" * 10**6)


@_case("either")
def continue_flood(talk: Talk) -> None:
    """100 Continue comes over and over."""
    while not talk.server.is_over.is_set():
        talk.raw(b"HTTP/1.1 100 Continue\r\n\r\n" * 10, pause=0.01)


@_case("deliver")
def disposition_traversal(talk: Talk) -> None:
    """The server proposes a name outside the folder."""
    talk.answer(BODY, 'Content-Disposition: attachment; filename="../../outside"')


@_case("deliver")
def keepalive_close_race(talk: Talk) -> None:
    """A redirect keeps the connection open; it is reset when the next request comes."""
    if talk.number == 1:
        talk.keeps = True
        return talk.redirect("/moved", "Connection: keep-alive")
    return talk.reset() if talk.number == 2 else talk.answer(BODY)


CASES = tuple(_CASES)
