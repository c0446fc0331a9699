"""get_file delivers the right bytes once, or fails with nothing left behind."""

import hashlib
import io
import math
import os
import pwd
import re
import signal
import stat
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kflow.core import get_file
from kflow.core.archives import ArchiveError
from kflow.core.files import DownloadError, HashMismatchError, file_digest, parse_digest

BODY = bytes(range(256)) * 2000  # as the server of conftest.py sends it
SHA256 = hashlib.sha256(BODY).hexdigest()
QUICK: dict[str, Any] = {"timeout": 1.0, "backoff": 0.01, "on_retry": lambda _: None}

Left = Callable[[], list[str]]
Run = Callable[..., "Popen[bytes]"]


def test_downloads_once(server: Any, cache: Path) -> None:
    """The file lands below cache_dir/cache_subdir, and the second call asks nobody."""
    first = get_file("a.bin", server.url + "/x", file_hash=SHA256, cache_dir=cache)
    second = get_file("a.bin", server.url + "/x", file_hash=SHA256, cache_dir=cache)

    assert first == second == str(cache / "datasets/a.bin")
    assert Path(first).read_bytes() == BODY
    assert len(server.seen) == 1
    assert server.seen[0][1]["Accept-Encoding"] == "identity"


def test_wrong_digest_is_explained_and_not_kept(server: Any, cache: Path, left: Left) -> None:
    """A login page instead of the file is tried twice, named as a page, and not served later."""
    server.route = lambda h, _: h.answer(b"\n<!DOCTYPE html><p>log in")
    got = hashlib.sha256(b"\n<!DOCTYPE html><p>log in").hexdigest()

    with pytest.raises(HashMismatchError, match=f"(?s)/x: expected sha256:{SHA256}, got sha256:{got} .25 bytes.*HTML"):
        get_file("a", server.url + "/x", file_hash=SHA256, cache_dir=cache, **QUICK)
    assert len(server.seen) == 2
    assert left() == []


def test_wrong_cached_file_is_replaced_or_removed(server: Any, cache: Path, left: Left) -> None:
    """A cached file with a wrong digest never survives a call that asks for that digest."""
    target = cache / "datasets/a"
    target.parent.mkdir(parents=True)
    target.write_text("poison")

    get_file("a", server.url, file_hash=SHA256, cache_dir=cache)

    assert target.read_bytes() == BODY
    with pytest.raises(HashMismatchError, match="wrong digest"):
        get_file("a", server.url, file_hash="0" * 64, cache_dir=cache, **QUICK)
    assert left() == []


def test_cached_file_without_digest_is_used(cache: Path) -> None:
    """Without a digest an existing file is the answer, and the origin is not asked."""
    target = cache / "datasets/a"
    target.parent.mkdir(parents=True)
    target.write_text("mine")

    path = get_file("a", "http://127.0.0.1:1/x", cache_dir=cache)

    assert Path(path).read_text() == "mine"


WORKER = """
import sys
if sys.argv[3] == "lying":
    import fcntl
    fcntl.flock = lambda *_: None
from kflow.core import get_file
patient = {"backoff": 0.01, "retries": 20, "on_retry": lambda _: None}
path = get_file("a", sys.argv[1], file_hash=sys.argv[4], cache_dir=sys.argv[2], **patient)
sys.exit(open(path, "rb").read() != bytes(range(256)) * 2000)
"""


@pytest.mark.parametrize("locks", ["true", "lying"])
def test_processes_share_one_download(locks: str, server: Any, cache: Path, left: Left, run_python: Run) -> None:
    """Four processes at once make one request; where locks lie, all are still right."""

    def slow(handler: Any, _: int) -> None:
        time.sleep(0.5)
        handler.answer()

    server.route = slow
    children = [run_python(WORKER, server.url, str(cache), locks, SHA256) for _ in range(4)]

    outcomes = [(child.communicate()[1], child.returncode) for child in children]

    assert outcomes == [(b"", 0)] * 4
    assert left() == ["a"]
    assert len(server.seen) == 1 or locks == "lying"


def test_a_swept_temporary_file_is_made_again(server: Any, cache: Path) -> None:
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
def test_survives_a_kill(sign: signal.Signals, server: Any, cache: Path, left: Left, run_python: Run) -> None:
    """Killed within the body, the next call, even without a digest, is right and tidies up."""
    proceed = threading.Event()

    def half(handler: Any, number: int) -> None:
        if number > 1:
            return handler.answer()
        handler.raw(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY), BODY[: len(BODY) // 2])
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
    abandoned = left()

    path = get_file("a", server.url, cache_dir=cache)

    assert "a" not in abandoned
    assert abandoned == [] or sign != signal.SIGINT
    assert Path(path).read_bytes() == BODY
    assert left() == ["a"]


@pytest.mark.parametrize("extract", [False, True])
def test_a_failing_disk_is_named(extract: bool, server: Any, cache: Path, left: Left, run_python: Run) -> None:
    """When the system refuses to write more, the error names errno and path, and nothing is left."""
    packed = packed_tar(big=bytes(10**6))
    server.route = lambda h, _: h.answer(packed if extract else BODY)
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (10**5, 10**5));"
        "from kflow.core import get_file; get_file('a', sys.argv[1], cache_dir=sys.argv[2], extract=True)"
    )
    child = run_python(code, server.url, str(cache))

    last_line = child.communicate()[1].decode().splitlines()[-1]

    assert last_line.startswith("OSError: [Errno 27] File too large: '" + str(cache))
    assert left() == (["a"] if extract else [])
    assert len(server.seen) == 1


def test_progress(server: Any, cache: Path) -> None:
    """Progress grows, ends once with the size as the total, and comes at most ten times a second."""
    sized = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY)
    pieces = [BODY[at : at + 2**17] for at in range(0, len(BODY), 2**17)]
    server.route = lambda h, n: h.raw(sized if n == 1 else b"HTTP/1.1 200 OK\r\n\r\n", *pieces, pause=0.15)
    calls: list[tuple[int, int | None]] = []
    start = time.monotonic()

    get_file("a", server.url, cache_dir=cache, progress=lambda *call: calls.append(call))

    assert calls == sorted(set(calls))
    assert calls[-1] == (len(BODY), len(BODY))
    assert 2 <= len(calls) <= (time.monotonic() - start) * 10 + 2
    calls.clear()
    get_file("b", server.url, cache_dir=cache, progress=lambda *call: calls.append(call))
    assert {total for _, total in calls[:-1]} == {None}
    assert calls[-1] == (len(BODY), len(BODY))


def test_progress_of_a_file_that_comes_at_once(server: Any, cache: Path) -> None:
    """The same numbers are told once."""
    calls: list[tuple[int, int | None]] = []

    get_file("a", server.url, max_size=len(BODY), cache_dir=cache, progress=lambda *call: calls.append(call))

    assert calls.count((len(BODY), len(BODY))) == 1


@pytest.mark.parametrize("form", ["path", "text", "url"])
def test_local_origins(form: str, tmp_path: Path, cache: Path, left: Left) -> None:
    """Paths and file URLs are copied and verified like downloads."""
    source = tmp_path / "a \u00e9?.bin"
    source.write_bytes(BODY)
    origin = {"path": source, "text": str(source), "url": source.as_uri()}[form]

    path = get_file("copy", origin, file_hash=SHA256, cache_dir=cache)

    assert Path(path).read_bytes() == BODY
    assert not Path(path).samefile(source)
    with pytest.raises(HashMismatchError, match=r"tries made: 1"):
        get_file("other", origin, file_hash="0" * 64, cache_dir=cache)
    assert left() == ["copy"]


def test_local_origin_must_be_a_file(tmp_path: Path, cache: Path, left: Left) -> None:
    """A missing file, a folder, a device, a pipe and a file of another size limit are refused."""
    with pytest.raises(FileNotFoundError, match="nothing"):
        get_file("a", tmp_path / "nothing", cache_dir=cache)
    for folder in (tmp_path, str(tmp_path), tmp_path.as_uri()):
        with pytest.raises(DownloadError, match=f"cannot fetch .*{tmp_path.name}: it is a folder; name a file"):
            get_file("a", folder, cache_dir=cache)
    with pytest.raises(DownloadError, match="not a regular file"):
        get_file("a", "/dev/zero", cache_dir=cache)
    os.mkfifo(tmp_path / "pipe")  # that nobody will ever write to
    with pytest.raises(DownloadError, match="not a regular file"):
        get_file("a", tmp_path / "pipe", cache_dir=cache)
    (tmp_path / "b").write_bytes(BODY)
    with pytest.raises(DownloadError, match="max_size=10"):
        get_file("a", tmp_path / "b", cache_dir=cache, max_size=10)
    assert left() == []


def test_never_deletes_its_own_origin(tmp_path: Path) -> None:
    """A file that is its own origin stays, whatever its digest."""
    source = tmp_path / "a"
    source.write_bytes(BODY)

    with pytest.raises(HashMismatchError, match="its own origin"):
        get_file(str(source), source, file_hash="0" * 64)
    assert source.read_bytes() == BODY


@pytest.mark.parametrize("fname", ["", ".", "..", "../a", "a/../../b", "a/"])
def test_refuses_names_that_leave_the_cache(fname: str, cache: Path) -> None:
    """A name is a name, not a way out."""
    with pytest.raises(ValueError, match="fname must name a file"):
        get_file(fname, "http://127.0.0.1:1/", cache_dir=cache)


@pytest.mark.parametrize("state", ["lock", "verified", "unpacked", "0123456789abcdef.part"])
@pytest.mark.parametrize("fname", [".a.bin.{}", "sub/.a.bin.{}", ".a.bin.{}/b"])
def test_refuses_the_names_of_its_own_hidden_files(fname: str, state: str, cache: Path) -> None:
    """An origin could otherwise say what has been verified, or take the lock away."""
    with pytest.raises(ValueError, match=rf"not be like a hidden file by which the cache .*'\.a\.bin\.{state}' is"):
        get_file(fname.format(state), "http://127.0.0.1:1/x", cache_dir=cache)
    assert not cache.exists()


def test_other_hidden_files_are_files_like_any(server: Any, cache: Path) -> None:
    """So are names that only end like those of the cache's own, and folders that the cache did not choose."""
    for fname in (".hidden", "poetry.lock", cache / ".x.lock" / "a"):
        path = get_file(fname, server.url, cache_dir=cache)

        assert Path(path).read_bytes() == BODY


def test_names_with_folders(server: Any, tmp_path: Path, cache: Path) -> None:
    """A relative name may hold folders, an absolute one is used as it is, a long one has a lock."""
    absolute = tmp_path / "elsewhere/a"

    assert get_file("sub/a", server.url, cache_dir=cache) == str(cache / "datasets/sub/a")
    assert get_file(str(absolute), server.url, cache_dir=cache) == str(absolute)
    assert get_file("n" * 255, server.url, cache_dir=cache, cache_subdir=tmp_path) == str(tmp_path / ("n" * 255))
    assert absolute.read_bytes() == BODY


def test_default_cache(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_hits_write_nothing(server: Any, cache: Path) -> None:
    """A hit leaves the folder as it was, so that a read-only cache serves."""
    get_file("a", server.url, cache_dir=cache)
    (cache / "datasets/.a.lock").unlink()
    get_file("a", server.url, file_hash=SHA256, cache_dir=cache)  # is hashed, which the sidecar notes
    before = (cache / "datasets").stat().st_mtime_ns

    get_file("a", server.url, file_hash=SHA256, cache_dir=cache)

    assert (cache / "datasets").stat().st_mtime_ns == before
    assert {path.name for path in (cache / "datasets").iterdir()} == {"a", ".a.verified"}


@pytest.mark.parametrize("kind", ["link", "dangling", "folder", "pipe"])
def test_refuses_what_is_no_file_at_the_target(kind: str, server: Any, tmp_path: Path, cache: Path) -> None:
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


def test_modes_are_those_of_any_file(server: Any, tmp_path: Path, cache: Path) -> None:
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


def test_untar(server: Any, cache: Path, left: Left) -> None:
    """untar=True gives the unpacked path, keeps the archive beside it, and unpacks once."""
    server.route = lambda h, _: h.answer(packed_tar(data__a=b"one", other=b"two"))
    path = get_file("data", server.url, True, cache_dir=cache)
    Path(path, "a").write_text("edited")

    again = get_file("data", server.url, untar=True, cache_dir=cache)

    assert path == again == str(cache / "datasets/data")
    assert Path(path, "a").read_text() == "edited"
    assert left() == ["a", "data.tar.gz", "other"]
    assert len(server.seen) == 1


def test_the_archive_of_a_tutorial_holds_another_name(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it holds lands beside it; the path is that of Keras 2.1, to whose folder the tutorial adds the name."""
    monkeypatch.chdir(tmp_path)
    packed = packed_tar(aclImdb__train__pos=b"good", aclImdb__train__unsup=b"?", README=b"")
    server.route = lambda h, _: h.answer(packed)

    def tutorial() -> str:
        return get_file("aclImdb_v1", server.url, untar=True, cache_dir=".", cache_subdir="")

    dataset = tutorial()
    data = Path(os.path.dirname(dataset) + "/aclImdb")  # noqa: PTH120  as it is written there
    inodes = {path: path.stat().st_ino for path in data.rglob("*")}
    tutorial()

    assert (dataset, Path(dataset).exists(), Path("README").exists()) == ("./aclImdb_v1", False, True)
    assert {path: path.stat().st_ino for path in data.rglob("*")} == inodes
    assert len(server.seen) == 1
    (data / "train/unsup").unlink()  # as the tutorial does each time it is run
    tutorial()
    assert (data / "train/unsup").read_bytes() == b"?"


def test_untar_brings_a_new_version(server: Any, cache: Path) -> None:
    """Files that an earlier archive of the name brought give way, also where one was edited."""
    server.route = lambda h, n: h.answer(packed_tar(data__a=b"%d" % n, data__b=b"%d" % n))
    get_file("v", server.url, untar=True, cache_dir=cache)
    (cache / "datasets/data/b").write_text("edited")

    get_file("v", server.url, untar=True, cache_dir=cache, force_download=True)

    assert [path.read_text() for path in sorted((cache / "datasets/data").iterdir())] == ["2", "2"]


@pytest.mark.parametrize("is_broken_off", [False, True])
def test_untar_of_another_version_replaces_the_folder_of_its_name(
    is_broken_off: bool, server: Any, cache: Path
) -> None:
    """A new digest, or force_download, is not answered by the old files, also when a first call fetched in vain."""
    versions = [packed_tar(data__a=b"%d" % number) for number in range(3)]
    server.route = lambda h, n: h.answer(versions[n - 1]) if n in {1, 2 + is_broken_off} else h.answer(b"", 404)
    digests = [hashlib.sha256(version).hexdigest() for version in versions]
    path = Path(get_file("data", server.url, untar=True, file_hash=digests[0], cache_dir=cache))
    (path / "mine").write_text("mine")

    if is_broken_off:
        with pytest.raises(DownloadError, match="404"):
            get_file("data", server.url, untar=True, file_hash=digests[2], cache_dir=cache, **QUICK)
    get_file("data", server.url, untar=True, file_hash=digests[1 + is_broken_off], cache_dir=cache)

    assert (path / "a").read_text() == str(1 + is_broken_off)
    assert (path / "mine").read_text() == "mine"
    (path / "a").write_text("edited")
    get_file("data", server.url, untar=True, file_hash=digests[1 + is_broken_off], cache_dir=cache)
    assert (path / "a").read_text() == "edited"


def test_untar_replaces_nothing_that_is_not_its_own(server: Any, cache: Path, left: Left) -> None:
    """A file that somebody else put there stays, and so does the archive, which is sound."""
    server.route = lambda h, _: h.answer(packed_tar(data__a=b"one", data__b=b"two"))
    (cache / "datasets/data").mkdir(parents=True)
    (cache / "datasets/data/a").write_text("one")
    (mine := cache / "datasets/data/b").write_text("mine")

    with pytest.raises(ArchiveError, match=r"would replace .*data/b, which is another file .* move that away, or"):
        get_file("x", server.url, untar=True, cache_dir=cache)
    assert (mine.read_text(), left()) == ("mine", ["a", "b", "x.tar.gz"])
    mine.unlink()
    get_file("x", server.url, untar=True, cache_dir=cache)
    assert (mine.read_text(), left(), len(server.seen)) == ("two", ["a", "b", "x.tar.gz"], 1)


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_extract(kind: str, server: Any, cache: Path, left: Left) -> None:
    """extract=True unpacks all beside the file, keeps the neighbors, and returns the archive's path."""
    body = packed_tar(data__a=b"one", more__b=b"", top=b"two")
    if kind == "zip":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, data in {"data/a": b"one", "more/b": b"", "top": b"two"}.items():
                archive.writestr(name, data)
        body = buffer.getvalue()
    server.route = lambda h, _: h.answer(body)
    neighbor = cache / "datasets/data/mine"
    neighbor.parent.mkdir(parents=True)
    neighbor.write_text("mine")

    path = get_file("x", server.url, extract=True, cache_dir=cache)
    (cache / "datasets/data/a").unlink()
    get_file("x", server.url, extract=True, cache_dir=cache)

    assert path == str(cache / "datasets/x")
    assert (cache / "datasets/data/a").read_bytes() == b"one"
    assert neighbor.read_text() == "mine"
    assert left() == ["a", "b", "mine", "top", "x"]


@pytest.mark.parametrize("archive_format", [None, []])
def test_extract_of_no_format(archive_format: list[str] | None, server: Any, cache: Path) -> None:
    """With no format, the file is only fetched."""
    path = get_file("x", server.url, extract=True, archive_format=archive_format, cache_dir=cache)

    assert Path(path).read_bytes() == BODY


def test_damaged_archive_does_not_stick(server: Any, cache: Path, left: Left) -> None:
    """A damaged archive without a digest is forgotten, so that the next call can be right."""
    good = packed_tar(data__a=b"one")
    server.route = lambda h, n: h.answer(good[:-9] if n == 1 else good)

    with pytest.raises(ArchiveError, match="damaged"):
        get_file("x", server.url, extract=True, cache_dir=cache)
    assert left() == []
    get_file("x", server.url, extract=True, cache_dir=cache)
    assert left() == ["a", "x"]


def test_a_damaged_archive_of_others_is_told_to_be_the_cached_one(server: Any, cache: Path) -> None:
    """An archive that another program left in part stays, and the error says how to fetch it again."""
    server.route = lambda h, _: h.answer(packed_tar(data__a=b"one"))
    (cache / "datasets").mkdir(parents=True)
    (cache / "datasets/x").write_bytes(packed_tar(data__a=b"one")[:-9])

    with pytest.raises(ArchiveError, match=r"damaged .* It was in the cache; force_download=True fetches it again"):
        get_file("x", server.url, extract=True, cache_dir=cache)
    get_file("x", server.url, extract=True, cache_dir=cache, force_download=True)
    assert (cache / "datasets/data/a").read_text() == "one"


@pytest.mark.parametrize("member", ["x", "x__a"])
def test_an_archive_that_holds_its_own_name_is_kept_under_another(member: str, server: Any, cache: Path) -> None:
    """As a file or as a folder, which is the usual one: the name that `untar=True` would take."""
    server.route = lambda h, _: h.answer(packed_tar(**{member: b"one"}))

    with pytest.raises(ArchiveError, match=r"replace itself, as it holds 'x'; keep it under another name"):
        get_file("x", server.url, extract=True, cache_dir=cache)


def test_md5_and_the_rules_of_keras(server: Any, cache: Path) -> None:
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
        ("abc", "auto", r"3 digits; give 32 \(md5\), 40 \(sha1\), 56 \(sha224\), 64 \(sha256\), .* or write"),
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


@pytest.mark.parametrize(
    "limits",
    [
        {"timeout": 0},
        {"timeout": {"read": 1, "total": -1}},
        {"timeout": {"write": 1}},
        {"min_speed": -1},
        {"max_size": 0},
        {"retries": -1},
        {"backoff": -1.0},
        {"timeout": True},
        {"timeout": None},
        {"min_speed": None},
        {"min_speed": math.nan},
        {"max_size": None},
        {"max_size": "1 GB"},
        {"retries": 1.5},
        {"backoff": math.inf},
    ],
)
def test_refuses_limits(limits: dict[str, Any], cache: Path) -> None:
    """Limits that cannot be met, and times that there are none of, are refused."""
    with pytest.raises(ValueError, match=f"{next(iter(limits))} must be .*, not "):
        get_file("a", "http://127.0.0.1:1/", cache_dir=cache, **limits)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fname": b"a"}, "fname must be a text or a path, not b'a'"),
        ({"cache_dir": 5}, "cache_dir must be a text or a path, not 5"),
        ({"cache_subdir": None}, "cache_subdir must be a text or a path, not None"),
        ({"mirrors": None}, "mirrors must be a list of origins, not None"),
        ({"file_hash": b"ab"}, "a digest must be a text, not b'ab'"),
        ({"file_hash": "ab", "hash_algorithm": None}, "a hash algorithm must be a text, not None"),
        ({"progress": 5}, "progress must be a function, True or False, or None, not 5"),
        ({"on_retry": "x"}, "on_retry must be a function, or None, not 'x'"),
        ({"offline": "yes"}, "offline must be True or False, or None, not 'yes'"),
    ],
)
def test_arguments_of_a_wrong_type_are_named(arguments: dict[str, Any], message: str, cache: Path) -> None:
    """A wrong type is told as that, and before anything is fetched."""
    given = {"fname": "a", "origin": "http://127.0.0.1:1/", "cache_dir": cache, **arguments}

    with pytest.raises(TypeError, match=re.escape(message)):
        get_file(**given)


@pytest.mark.parametrize("argument", ["fname", "origin", "cache_dir", "cache_subdir"])
def test_a_path_without_end_is_refused(argument: str, cache: Path) -> None:
    """No file can have a NUL in its name; the system's error would not say whose argument it is."""
    given = {"fname": "a", "origin": "/a", "cache_dir": cache, argument: "a\0b"}

    with pytest.raises(ValueError, match=r"NUL character, as 'a.x00b' does"):
        get_file(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize("origin", [" http://127.0.0.1:1/", "http ://127.0.0.1:1/", "\nhttps://127.0.0.1:1/"])
def test_a_url_with_blanks_is_no_path(origin: str, cache: Path) -> None:
    """What was pasted with a blank is told as that, not as a file that is missing."""
    with pytest.raises(ValueError, match=r"a URL cannot have blanks before or in its https?:; remove them"):
        get_file("a", origin, cache_dir=cache)


def test_a_single_mirror_must_be_in_a_list(cache: Path) -> None:
    """A text is no list of origins, though Python would take it for one; its secrets are not shown."""
    with pytest.raises(TypeError, match=r"must be a list of origins, not 'http://h/a\?\.\.\.' alone"):
        get_file("a", "http://127.0.0.1:1/", mirrors="http://u:p@h/a?b=c", cache_dir=cache)


def test_force_download(server: Any, cache: Path) -> None:
    """The file is fetched anew; the old one stays where that fails."""
    server.route = lambda h, n: h.answer(b"old" if n == 1 else b"new", 404 if n == 2 else 200)
    path = Path(get_file("a", server.url, cache_dir=cache))

    with pytest.raises(DownloadError, match="404"):
        get_file("a", server.url, cache_dir=cache, force_download=True)
    assert path.read_bytes() == b"old"
    get_file("a", server.url, cache_dir=cache, force_download=True)
    assert path.read_bytes() == b"new"


def test_is_on_the_disk_before_it_has_its_name(server: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes are synced, then renamed, then the folder is synced: a power cut leaves all or nothing."""
    done: list[str] = []
    sync, replace = os.fsync, Path.replace

    def note_sync(descriptor: int) -> None:
        done.append("sync " + Path(f"/proc/self/fd/{descriptor}").readlink().suffix)
        sync(descriptor)

    def note_replace(self: Path, target: Path) -> Path:
        done.append(f"rename {self.suffix}")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "replace", note_replace)

    get_file("a", server.url, cache_dir=cache)

    assert done == ["sync .part", "rename .part", "sync "]


def test_additions_are_keyword_only(cache: Path) -> None:
    """The ten arguments of Keras keep their positions and nothing follows them."""
    with pytest.raises(TypeError, match="positional"):
        get_file("a", "b", False, None, None, "datasets", "auto", False, "auto", cache, None)  # type: ignore[misc]


def test_light_import(run_python: Run) -> None:
    """Fetching loads neither NumPy nor Keras nor TensorFlow."""
    code = (
        "import sys, kflow.core.files as f; f.get_file;"
        "sys.exit(bool({'numpy', 'keras', 'tensorflow'} & set(sys.modules)))"
    )

    child = run_python(code)

    assert (child.communicate()[1], child.returncode) == (b"", 0)


def test_no_link_in_the_cache_is_followed_to_another_folder(tmp_path: Path, cache: Path) -> None:
    """A folder that is named in fname and is a link would give the cache's name to somebody else's file."""
    (tmp_path / "a").write_text("new")
    (victim := tmp_path / "elsewhere").mkdir()
    (victim / "a").write_text("old")
    (cache / "datasets").mkdir(parents=True)
    (cache / "datasets" / "link").symlink_to(victim)

    with pytest.raises(FileExistsError, match="a symbolic link bears the name of a folder in the cache"):
        get_file("link/a", tmp_path / "a", cache_dir=cache, force_download=True)
    assert (victim / "a").read_text() == "old"


def test_offline_a_wrong_file_is_named_and_kept(cache: Path) -> None:
    """Nothing can take its place, and it may be the digest that is wrong."""
    (cache / "datasets").mkdir(parents=True)
    (cached := cache / "datasets" / "a").write_text("hello")

    with pytest.raises(HashMismatchError, match=r"a has not the digest md5:0{32}, and offline nothing can take its"):
        get_file("a", "http://localhost:1/a", md5_hash="0" * 32, cache_dir=cache, offline=True)
    assert cached.read_text() == "hello"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"origin": None}, TypeError, "an origin must be a URL or a path, not None"),
        ({"origin": ""}, ValueError, "an origin must be a URL or a path, not ''"),
        ({"origin": "a", "mirrors": [3]}, TypeError, "an origin must be a URL or a path, not 3"),
        ({"origin": "a", "timeout": None}, ValueError, "timeout must be seconds above 0"),
    ],
)
def test_what_cannot_be_an_origin_or_a_time_is_named(
    cache: Path, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    """A wrong argument is an error that names it, before anything is done."""
    with pytest.raises(error, match=message):
        get_file("a", cache_dir=cache, **arguments)
