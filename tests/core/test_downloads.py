"""Tries, mirrors, offline mode, and what is told meanwhile."""

import errno
import hashlib
import logging
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kflow.core.files import DownloadError, HashMismatchError, Retry, get_file

BODY = bytes(range(256)) * 2000  # as the server of conftest.py sends it
SHA256 = hashlib.sha256(BODY).hexdigest()
QUICK: dict[str, Any] = {"timeout": 1.0, "backoff": 0.01}

Left = Callable[[], list[str]]


def test_each_further_try_is_told(server: Any, cache: Path) -> None:
    """Which try, of how many, how soon, of what, and why; without the secrets of the URL."""
    server.route = lambda h, n: h.answer(b"", 503) if n <= 2 else h.answer()
    url = server.url.replace("//", "//me:pw@") + "/x?token=t"
    told: list[Retry] = []

    get_file("a", url, cache_dir=cache, on_retry=told.append, retries=3, backoff=0.1)

    shown = f"{server.url}/x?..."
    why = f"cannot fetch {shown}: the server answered 503 (Service Unavailable)"
    assert [(each.attempt, each.attempts, each.origin, each.why) for each in told] == [
        (2, 4, shown, why),
        (3, 4, shown, why),
    ]
    assert 0.04 <= told[0].pause <= 0.1 <= told[1].pause + 0.01 <= 0.21
    assert str(told[1]) == f"try 3 of 4 of {shown} in {told[1].pause:.1f} s: {why}"


def test_by_default_a_further_try_is_logged(server: Any, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A user who sets nothing up sees a warning on standard error, by Python's own rule."""
    server.route = lambda h, n: h.answer(b"", 500) if n == 1 else h.answer()

    get_file("a", server.url, cache_dir=cache, **QUICK)

    assert [(each.name, each.levelno) for each in caplog.records] == [("kflow.core.files", logging.WARNING)]
    assert caplog.messages[0].startswith("try 2 of 5 of http://127.0.0.1")


def test_a_mirror_helps_at_once(server: Any, other_server: Any, cache: Path) -> None:
    """When the first origin is down or does not know the file, the next one is asked without a pause."""
    server.route = lambda h, _: h.answer(b"", 404)
    told: list[Retry] = []
    start = time.monotonic()

    path = get_file(
        "a",
        "http://127.0.0.1:1/a",
        mirrors=[server.url, other_server.url],
        file_hash=SHA256,
        cache_dir=cache,
        backoff=30,
        on_retry=told.append,
    )

    assert Path(path).read_bytes() == BODY
    assert time.monotonic() - start < 5
    assert [each.origin for each in told] == [server.url, other_server.url]


def test_a_mirror_with_other_bytes_is_passed_over(server: Any, other_server: Any, tmp_path: Path, cache: Path) -> None:
    """Wrong bytes from one origin do not end the search; a mirror may be a path."""
    server.route = lambda h, _: h.answer(BODY[::-1])
    other_server.route = lambda h, _: h.answer(b"<html>log in")
    (tmp_path / "copy").write_bytes(BODY)

    path = get_file(
        "a",
        server.url,
        mirrors=[tmp_path / "nothing", other_server.url, tmp_path / "copy"],
        file_hash=SHA256,
        cache_dir=cache,
        on_retry=lambda _: None,
        **QUICK,
    )

    assert Path(path).read_bytes() == BODY
    assert len(server.seen) == len(other_server.seen) == 1


def test_origins_take_turns_and_all_are_told_of(server: Any, other_server: Any, cache: Path, left: Left) -> None:
    """Each has its tries; a refusal for good ends those of one origin only; the error names all."""
    server.route = lambda h, _: h.answer(b"", 503)
    other_server.route = lambda h, _: h.answer(b"", 403)

    with pytest.raises(DownloadError, match=r"none of 2 origins gave the file: .* 403 .*made: 1\); .* 503 .*made: 3\)"):
        get_file(
            "a", server.url, mirrors=[other_server.url], cache_dir=cache, retries=2, on_retry=lambda _: None, **QUICK
        )
    assert (len(server.seen), len(other_server.seen)) == (3, 1)
    assert left() == []


def test_wrong_everywhere_is_a_wrong_digest(server: Any, other_server: Any, cache: Path) -> None:
    """Where every origin gave whole bytes of another digest, that is the error."""
    for each in (server, other_server):
        each.route = lambda h, _: h.answer(b"other")

    with pytest.raises(HashMismatchError, match=r"none of 2 origins.*wrong digest.*wrong digest"):
        get_file(
            "a",
            server.url,
            mirrors=[other_server.url],
            file_hash=SHA256,
            cache_dir=cache,
            on_retry=lambda _: None,
            **QUICK,
        )


def test_a_wrong_digest_shows_what_came(server: Any, cache: Path) -> None:
    """Size, type and first words tell a log-in page from a new version."""
    server.route = lambda h, _: h.answer(b"<!DOCTYPE html>\n<p>log in\x1b[2J", Content_Type="text/html; charset=utf-8")

    with pytest.raises(
        HashMismatchError, match=r"bytes of text/html, which begin with '<!DOCTYPE html> <p>log in \[2J'"
    ):
        get_file("a", server.url, file_hash=SHA256, cache_dir=cache, retries=0)


@pytest.mark.parametrize("asked", ["argument", "environment"])
def test_offline_asks_nobody(
    asked: str, server: Any, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is cached or local is good; the rest is an error that says how to get out."""
    offline = {"offline": True} if asked == "argument" else {}
    get_file("here", server.url, file_hash=SHA256, cache_dir=cache)
    (tmp_path / "local").write_bytes(BODY)
    if asked == "environment":
        monkeypatch.setenv("KFLOW_OFFLINE", "1")

    get_file("here", server.url, file_hash=SHA256, cache_dir=cache, **offline)
    get_file("b", server.url, mirrors=[tmp_path / "local"], file_hash=SHA256, cache_dir=cache, **offline)

    with pytest.raises(DownloadError, match=r"/datasets/c is not in the cache.*offline=False or unset KFLOW_OFFLINE"):
        get_file("c", server.url, cache_dir=cache, **offline)
    with pytest.raises(
        DownloadError, match=r"/here is in the cache, and was .* drop force_download=True, pass offline="
    ):
        get_file("here", server.url, file_hash=SHA256, force_download=True, cache_dir=cache, **offline)
    assert len(server.seen) == 1
    assert Path(cache, "datasets/b").read_bytes() == BODY


@pytest.mark.parametrize("value", ["", "0", "False", "no", "off"])
def test_offline_can_be_off(value: str, server: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values that say no, and offline=False, let the network be asked."""
    monkeypatch.setenv("KFLOW_OFFLINE", value)
    get_file("a", server.url, cache_dir=cache)
    monkeypatch.setenv("KFLOW_OFFLINE", "yes")

    get_file("b", server.url, cache_dir=cache, offline=False)

    assert len(server.seen) == 2


def test_a_broken_progress_is_the_users_error(server: Any, cache: Path, left: Left) -> None:
    """What a callback raises comes out, is not retried, and nothing is left."""

    def fail(_done: int, _total: int | None) -> None:
        raise OSError(errno.EIO, "mine")

    with pytest.raises(OSError, match="mine"):
        get_file("a", server.url, cache_dir=cache, progress=fail)
    assert len(server.seen) == 1
    assert left() == []


@pytest.mark.parametrize("size", [2**19 - 1, 2**19, 2**23 + 7])
def test_blocks_of_any_size_are_hashed_in_order(size: int, server: Any, cache: Path) -> None:
    """Large blocks are hashed by a second thread while they are written; the digest is that of hashlib."""
    data = random.Random(1).randbytes(size)
    server.route = lambda h, _: h.answer(data)

    path = get_file("a", server.url, file_hash=hashlib.sha256(data).hexdigest(), cache_dir=cache, retries=0)

    assert Path(path).read_bytes() == data


def test_a_full_disk_is_known_beforehand(server: Any, cache: Path) -> None:
    """A file that the disk has no room for is not begun."""
    server.route = lambda h, _: h.answer(b"x", Content_Length=str(10**17))

    with pytest.raises(DownloadError, match="that are free on the disk"):
        get_file("a", server.url, cache_dir=cache, max_size=10**18)
