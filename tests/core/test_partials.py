"""A download goes on where it broke off when a strong ETag and a digest vouch for that, and else begins anew."""

import hashlib
import json
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest

from kflow.core.files import DownloadError, get_file

BODY = bytes(range(256)) * 2000  # as the server of conftest.py sends it
HALF = len(BODY) // 2
SHA256 = hashlib.sha256(BODY).hexdigest()
QUICK: dict[str, Any] = {"timeout": 1.0, "backoff": 0.01, "on_retry": lambda _: None}

Left = Callable[[], list[str]]


def half(handler: Any, etag: str | None = '"one"') -> None:
    """Send half of the body."""
    name = b"ETag: %s\r\n" % etag.encode() if etag else b""
    handler.raw(b"HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n" % (name, len(BODY)), BODY[:HALF])


def rest(handler: Any, etag: str = '"one"', **headers: str) -> None:
    """Send what a Range asks for, as RFC 9110 has it."""
    start = int(handler.headers["Range"].removeprefix("bytes=").removesuffix("-"))
    span = {"Content_Range": f"bytes {start}-{len(BODY) - 1}/{len(BODY)}", "ETag": etag}
    handler.answer(BODY[start:], 206, **(span | headers))


def ranges(server: Any) -> list[tuple[str | None, str | None]]:
    return [(headers.get("Range"), headers.get("If-Range")) for _, headers in server.seen]


def test_a_further_try_asks_for_the_rest(server: Any, cache: Path, left: Left) -> None:
    """Only the missing bytes come, the digest is that of all of them, and the progress does not fall back."""
    server.route = lambda h, n: half(h) if n == 1 else rest(h)
    told: list[tuple[int, int | None]] = []

    def tell(*call: Any) -> None:
        told.append(call)

    path = get_file("a", server.url, file_hash=SHA256, cache_dir=cache, progress=tell, **QUICK)

    assert Path(path).read_bytes() == BODY
    assert ranges(server) == [(None, None), (f"bytes={HALF}-", '"one"')]
    assert told == sorted(told)
    assert left() == ["a"]


@pytest.mark.parametrize(
    ("etag", "digest"), [('W/"one"', SHA256), (None, SHA256), ("one", SHA256), ('"one"', None)], ids=str
)
def test_never_without_a_strong_etag_and_a_digest(
    etag: str | None, digest: str | None, server: Any, cache: Path
) -> None:
    """A weak, missing or unquoted ETag, or no digest to decide in the end: all is asked for again."""
    server.route = lambda h, n: half(h, etag) if n == 1 else h.answer()

    path = get_file("a", server.url, file_hash=digest, cache_dir=cache, **QUICK)

    assert Path(path).read_bytes() == BODY
    assert ranges(server) == [(None, None)] * 2


@pytest.mark.parametrize(
    ("answer", "is_used"),
    [
        (lambda h: h.answer(ETag='"two"'), True),
        (lambda h: rest(h, '"two"'), False),
        (lambda h: rest(h, Content_Range=f"bytes 0-{len(BODY) - 1}/{len(BODY)}"), False),
        (lambda h: rest(h, Content_Range=f"bytes {HALF}-{len(BODY) - 1}/{len(BODY) + 1}"), False),
        (lambda h: rest(h, Content_Range="bytes */*"), False),
        (lambda h: rest(h, Content_Length="7"), False),
        (lambda h: h.answer(b"", 416), False),
    ],
    ids=["all", "other", "start", "total", "unknown", "length", "416"],
)
def test_an_answer_that_is_not_the_rest_is_not_added(answer: Any, is_used: bool, server: Any, cache: Path) -> None:
    """Whatever does not say that it is the rest of this version makes the download begin anew."""
    server.route = lambda h, n: half(h) if n == 1 else answer(h) if n == 2 else h.answer()

    path = get_file("a", server.url, file_hash=SHA256, cache_dir=cache, **QUICK)

    assert Path(path).read_bytes() == BODY
    # One that brings all of it is used; any other is dropped, and all of it asked for.
    assert [given is not None for given, _ in ranges(server)] == [False, True, False][: 2 if is_used else 3]


def test_a_mirror_is_not_asked_for_the_rest_of_another(server: Any, other_server: Any, cache: Path) -> None:
    """An ETag names a version of one origin only."""
    server.route = lambda h, _: half(h)
    other_server.route = lambda h, _: h.answer(ETag='"one"')

    path = get_file("a", server.url, mirrors=[other_server.url], file_hash=SHA256, cache_dir=cache, **QUICK)

    assert Path(path).read_bytes() == BODY
    assert ranges(other_server) == [(None, None)]


def test_wrong_bytes_under_the_right_name_are_found_out(server: Any, cache: Path) -> None:
    """When the digest of beginning and rest is wrong, the next try asks for everything."""

    def route(handler: Any, number: int) -> None:
        if number == 2:
            span = f"bytes {HALF}-{len(BODY) - 1}/{len(BODY)}"
            return handler.answer(bytes(len(BODY) - HALF), 206, Content_Range=span, ETag='"one"')
        return half(handler) if number == 1 else handler.answer()

    server.route = route

    path = get_file("a", server.url, file_hash=SHA256, cache_dir=cache, **QUICK)

    assert Path(path).read_bytes() == BODY
    assert [given is not None for given, _ in ranges(server)] == [False, True, False]


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT])
def test_another_process_goes_on(
    sign: signal.Signals, server: Any, cache: Path, left: Left, run_python: "Callable[..., Popen[bytes]]"
) -> None:
    """What a killed process has left is not asked for again, and the note holds no secrets."""
    proceed = threading.Event()

    def route(handler: Any, number: int) -> None:
        if number > 1:
            return rest(handler)
        half(handler)
        proceed.wait(20)
        return None

    server.route = route
    url = server.url.replace("//", "//me:s3cret@") + "/a?token=t0ken"
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from kflow.core import get_file; get_file('a', sys.argv[1], file_hash=sys.argv[3], cache_dir=sys.argv[2],"
        " progress=lambda done, _: done and print(end='.', file=sys.stderr, flush=True))"
    )
    child = run_python(code, url, str(cache), SHA256)
    assert child.stderr is not None
    assert child.stderr.read(1) == b"."
    child.send_signal(sign)
    child.communicate()
    proceed.set()
    part, note = sorted(left())
    came = (cache / "datasets" / part).stat().st_size
    text = (cache / "datasets" / note).read_text()

    path = get_file("a", url, file_hash=SHA256, cache_dir=cache)

    assert 0 < came <= HALF
    assert ranges(server)[1:] == [(f"bytes={came}-", '"one"')]
    assert Path(path).read_bytes() == BODY
    assert left() == ["a"]
    assert not any(secret in text for secret in ("s3cret", "t0ken", "127.0.0.1"))


@pytest.mark.parametrize("damage", ["note", "deep note", "bytes", "origin", "too long", "link"])
def test_what_was_left_may_be_damaged(damage: str, server: Any, tmp_path: Path, cache: Path, left: Left) -> None:
    """A note that cannot be read, wrong bytes, another origin, too many bytes or a link do no harm."""
    server.route = lambda h, n: half(h) if n == 1 else rest(h) if h.headers["Range"] and n == 2 else h.answer()
    with pytest.raises(DownloadError, match="ended after"):
        get_file("a", server.url + "/1", file_hash=SHA256, cache_dir=cache, **QUICK, retries=0)
    part, note = (cache / "datasets" / name for name in sorted(left()))
    if damage == "note":
        note.write_text('{"origin": 1}')
    elif damage == "deep note":
        note.write_text("[" * 200_000)
    elif damage == "link":
        part.rename(tmp_path / "victim")
        part.symlink_to(tmp_path / "victim")
    else:
        part.write_bytes(bytes(HALF) if damage == "bytes" else BODY + b"x" if damage == "too long" else BODY[:HALF])
    url = server.url + ("/2" if damage == "origin" else "/1")

    path = get_file("a", url, file_hash=SHA256, cache_dir=cache, **QUICK)

    assert Path(path).read_bytes() == BODY
    assert [given is not None for given, _ in ranges(server)[1:]] == ([True, False] if damage == "bytes" else [False])
    assert left() == ["a"]
    assert damage != "link" or (tmp_path / "victim").read_bytes() == BODY[:HALF]


def test_the_longest_beginning_is_used(server: Any, cache: Path, left: Left) -> None:
    """Of several that were left, the longest is gone on from, and none stays."""
    server.route = lambda h, _: rest(h)
    folder = cache / "datasets"
    folder.mkdir(parents=True)
    for number, size in enumerate((10, 1000, 100)):
        part = folder / f".a.{number:016x}.part"
        part.write_bytes(BODY[:size])
        key = hashlib.sha256(server.url.encode()).hexdigest()
        note = {"origin": key, "etag": '"one"', "total": len(BODY)}
        part.with_name(part.name + ".note").write_text(json.dumps(note))

    path = get_file("a", server.url, file_hash=SHA256, cache_dir=cache, **QUICK)

    assert ranges(server) == [("bytes=1000-", '"one"')]
    assert Path(path).read_bytes() == BODY
    assert left() == ["a"]


def test_a_refusal_leaves_nothing_to_go_on_from(server: Any, cache: Path, left: Left) -> None:
    """Bytes with a wrong digest are not kept, whatever their ETag."""
    server.route = lambda h, _: h.answer(BODY[::-1], ETag='"one"')

    with pytest.raises(ValueError, match="wrong digest"):
        get_file("a", server.url, file_hash=SHA256, cache_dir=cache, **QUICK)
    assert left() == []
