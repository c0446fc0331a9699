"""A cached file is hashed when it may have changed, and not otherwise."""

import ctypes
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kflow.core.files import HashMismatchError, get_file

BODY = bytes(range(256)) * 2000  # as the server of conftest.py sends it
SHA256 = hashlib.sha256(BODY).hexdigest()


def is_read(path: Path, call: Callable[[], object]) -> bool:
    """Say whether something reads a file: a watch of the kernel's (inotify) tells, and leaves the file as it is."""
    libc = ctypes.CDLL(None, use_errno=True)
    watch = libc.inotify_init1(os.O_NONBLOCK)
    try:
        assert libc.inotify_add_watch(watch, os.fsencode(path), 0x1) >= 0  # IN_ACCESS
        call()
        try:
            return bool(os.read(watch, 4096))
        except BlockingIOError:
            return False
    finally:
        os.close(watch)


@pytest.fixture
def cached(server: Any, cache: Path) -> Path:
    """Give a file that came from the server."""
    return Path(get_file("a", server.url, file_hash=SHA256, cache_dir=cache))


@pytest.fixture
def ask(server: Any, cache: Path) -> Callable[..., str]:
    """Return a function that asks for the file once more."""
    return lambda file_hash=SHA256, **options: get_file(
        "a", server.url, file_hash=file_hash, cache_dir=cache, **options
    )


def test_a_hit_is_not_read(cached: Path, ask: Callable[..., str]) -> None:
    """After the download the digest is known; only verify=True reads the file."""
    assert not is_read(cached, ask)
    assert is_read(cached, lambda: ask(verify=True))
    assert not is_read(cached, ask)


def test_another_digest_is_found_once(cached: Path, ask: Callable[..., str]) -> None:
    """The sidecar learns each algorithm that was asked for and forgets none."""
    md5 = hashlib.md5(BODY).hexdigest()

    assert is_read(cached, lambda: ask(md5))
    assert not is_read(cached, lambda: ask("MD5:" + md5.upper()))
    assert not is_read(cached, ask)


def touch(path: Path) -> None:
    os.utime(path)


def replace(path: Path) -> None:
    status = path.stat()
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns))
    copy.replace(path)


def edit_sidecar(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        side = path.with_name(".a.verified")
        note = json.loads(side.read_text())
        change(note)
        side.write_text(json.dumps(note))

    return edit


@pytest.mark.parametrize(
    "change",
    [
        touch,
        replace,
        lambda path: path.with_name(".a.verified").unlink(),
        lambda path: path.with_name(".a.verified").write_text("{"),
        lambda path: path.with_name(".a.verified").write_text("[1]"),
        lambda path: path.with_name(".a.verified").write_text("[" * 200_000),
        lambda path: path.with_name(".a.verified").chmod(0o666),
        edit_sidecar(lambda note: note.pop("digests")),
        edit_sidecar(lambda note: note.update(digests=["sha256"])),
        edit_sidecar(lambda note: note.update(size=1)),
    ],
    ids=["touched", "replaced", "no sidecar", "torn", "list", "deep", "anybody's", "no digests", "no mapping", "size"],
)
def test_what_may_have_changed_is_read(change: Callable[[Path], None], cached: Path, ask: Callable[..., str]) -> None:
    """Another time or inode of the file, and a sidecar that is of no use or that others can write."""
    change(cached)

    assert is_read(cached, ask)
    assert not is_read(cached, ask)


def test_a_changed_file_is_found_out(cached: Path, ask: Callable[..., str], server: Any) -> None:
    """Other bytes of the same size and modification time do not pass."""
    status = cached.stat()
    with cached.open("r+b") as file:
        file.write(b"\xff")
    os.utime(cached, ns=(status.st_atime_ns, status.st_mtime_ns))

    ask()

    assert cached.read_bytes() == BODY
    assert len(server.seen) == 2


def test_a_link_is_no_sidecar(cached: Path, ask: Callable[..., str], tmp_path: Path) -> None:
    """A sidecar is neither read nor written through a link."""
    side = cached.with_name(".a.verified")
    side.rename(tmp_path / "victim")
    side.symlink_to(tmp_path / "victim")
    before = (tmp_path / "victim").read_bytes()

    assert is_read(cached, ask)
    assert not side.is_symlink()
    assert (tmp_path / "victim").read_bytes() == before


def test_a_wrong_digest_is_never_noted(cached: Path, ask: Callable[..., str]) -> None:
    """Asking for another digest removes the file, and with it what was known of it."""
    with pytest.raises(HashMismatchError):
        ask("0" * 64, timeout=1, retries=0)
    assert not cached.exists()


def test_a_file_put_there_by_hand_is_hashed_once(server: Any, cache: Path, ask: Callable[..., str]) -> None:
    """Who copies a file into the cache has it verified by the first call."""
    path = cache / "datasets/a"
    path.parent.mkdir(parents=True)
    path.write_bytes(BODY)

    assert is_read(path, ask)
    assert not is_read(path, ask)
    assert server.seen == []
