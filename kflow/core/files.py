"""Fetch a file once, verify it and keep it in the cache folder of Keras.

What is under a cached file's name is always whole: bytes go to a temporary file beside it, are hashed on the
way, brought to the disk and renamed. A lock file per name makes concurrent processes share one download;
nothing becomes wrong where locks do not work, only slower.
"""

import contextlib
import errno
import fcntl
import itertools
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from kflow.core.archives import ArchiveError, merge_archive, short_name, sync
from kflow.core.digests import file_digest, new_hash, parse_digest
from kflow.core.transport import MAX_PAUSE, DownloadError, Job, Progress, RetryError, local_path, receive, redact

__all__ = ["DownloadError", "HashMismatchError", "Progress", "file_digest", "get_file", "parse_digest", "redact"]

MAX_SIZE = 20 * 2**30


class HashMismatchError(ValueError):
    """Bytes that came whole but are not those that the digest describes."""


def get_file(  # noqa: PLR0917  the order of Keras 2.1
    fname: str | os.PathLike[str],
    origin: str | os.PathLike[str],
    untar: bool = False,
    md5_hash: str | None = None,
    file_hash: str | None = None,
    cache_subdir: str | os.PathLike[str] = "datasets",
    hash_algorithm: str = "auto",
    extract: bool = False,
    archive_format: str | Sequence[str] | None = "auto",
    cache_dir: str | os.PathLike[str] | None = None,
    *,
    progress: Progress | None = None,
    timeout: float = 30.0,
    max_size: int = MAX_SIZE,
    retries: int = 4,
    backoff: float = 1.0,
) -> str:
    """Return the path of a file in the cache, downloading it when it is not there or is wrong.

    Parameters
    ----------
    fname : path
        Name in the cache; folders in it are made, ``..`` is refused, an absolute path is used as it is.
    origin : str or path
        An http, https or file URL, or a plain path (``./a:b`` where the name holds a colon), which is copied.
    untar : bool, default False
        Download to ``fname + '.tar.gz'`` and unpack that beside it, unless `fname` exists.
    md5_hash : str, optional
        An MD5 digest; used when `file_hash` is not given.
    file_hash : str, optional
        The digest to verify new and cached files by; see `parse_digest`.
    cache_subdir : path, default 'datasets'
        Folder below the cache folder; an absolute path is used as it is.
    hash_algorithm : str, default 'auto'
        Any fixed-length algorithm of `hashlib`; ``'auto'`` goes by the prefix or length of the digest.
    extract : bool, default False
        Unpack the file into the folder that holds it, each time, as `merge_archive` does.
    archive_format : str, list of str or None, default 'auto'
        ``'tar'``, ``'zip'``, a list of them, ``'auto'`` for both; ``None`` or ``[]`` unpacks nothing.
    cache_dir : path, optional
        The cache folder; by default ``$KERAS_HOME``, else ``~/.keras``. There is no other fall-back.
    progress : callable, optional
        Called with the bytes done and the total (None where the server does not say), at most ten times a
        second and once at the end.
    timeout : float, default 30.0
        Seconds to wait for a connection, for the headers, and for each read. A body that brings less than
        1 KiB a second over that time is given up as well, and so is everything after 24 hours.
    max_size : int, default 20 GiB
        The most bytes to accept.
    retries : int, default 4
        Further tries after statuses 408, 425, 429 and 5xx, connection errors and short bodies, and one after
        a wrong digest.
    backoff : float, default 1.0
        Seconds before the first further try; doubled (with jitter) for each next one, to 60 at most. A
        ``Retry-After`` of at most 60 seconds takes its place.

    Returns
    -------
    str
        The path of the file; with `untar`, the path that was unpacked (without ``.tar.gz``).

    Raises
    ------
    HashMismatchError
        When the bytes are not those of the digest; they are not kept.
    DownloadError
        When the file cannot be fetched.
    ArchiveError
        When it cannot be unpacked. An archive that came in this call and has no digest is then removed.
    ValueError
        When an argument cannot be right.
    OSError
        When the folder cannot be written, or when a link or folder bears the file's name.

    Notes
    -----
    Signature and places follow ``keras.utils.get_file`` of Keras 2.1. Unlike it, this verifies new files too,
    refuses what is not an archive, never moves to ``/tmp``, and unpacks beside the file when `fname`
    holds folders. Statuses and ``Retry-After`` are those of RFC 9110.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "a.txt").write_text("hello")
    >>> digest = "sha256:" + file_digest(folder / "a.txt")
    >>> path = get_file("b.txt", folder / "a.txt", file_hash=digest, cache_dir=folder)
    >>> Path(path).relative_to(folder).as_posix(), Path(path).read_text()
    ('datasets/b.txt', 'hello')
    """
    if timeout <= 0 or max_size <= 0 or retries < 0 or backoff < 0:
        given = f"{timeout=} {max_size=} {retries=} {backoff=}"
        msg = f"timeout and max_size must be above 0, retries and backoff at least 0, not {given}"
        raise ValueError(msg)
    place = _cache_path(fname, cache_dir, cache_subdir)
    job = Job(
        origin=os.fspath(origin),
        local=local_path(origin),
        target=place.with_name(place.name + ".tar.gz") if untar else place,
        digest=_wanted_digest(file_hash, md5_hash, hash_algorithm),
        progress=progress,
        timeout=timeout,
        max_size=max_size,
    )
    unpacks = not os.path.lexists(place) if untar else extract
    if unpacks or not _is_cached(job):  # a hit writes nothing, so that a read-only cache will do
        with _locked(job.target):
            is_new = not _is_cached(job)
            if is_new:
                _download(job, retries, backoff)
            if untar and not os.path.lexists(place):
                _unpack(job, "tar", place.name, is_new=is_new)
            elif extract and not untar:
                _unpack(job, archive_format, None, is_new=is_new)
    return str(place if untar else job.target)


# --- places -----------------------------------------------------------------------------------------------


def _cache_path(
    fname: str | os.PathLike[str], cache_dir: str | os.PathLike[str] | None, subdir: str | os.PathLike[str]
) -> Path:
    """Return where a file belongs in the cache."""
    name = os.fspath(fname)
    path = Path(name)
    if not path.name or ".." in path.parts or "\0" in name or name.endswith("/"):
        msg = f"fname must name a file, without '..', not {name!r}"
        raise ValueError(msg)
    base = cache_dir or os.environ.get("KERAS_HOME") or "~/.keras"
    try:
        return Path(base).expanduser() / subdir / path
    except RuntimeError:
        msg = "there is no home folder for the cache; pass cache_dir= or set KERAS_HOME"
        raise FileNotFoundError(errno.ENOENT, msg) from None


def _beside(target: Path, suffix: str) -> Path:
    """Return a hidden sibling of a file, whose own name may be of any length."""
    return target.with_name(f".{short_name(target.name)}.{suffix}")


def _is_cached(job: Job) -> bool:
    """Say whether the file is there and right, refusing what is no file."""
    try:
        mode = job.target.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    if not stat.S_ISREG(mode):
        kind = "symbolic link" if stat.S_ISLNK(mode) else "folder or device"
        msg = f"a {kind} bears the name of the file to cache; remove it or choose another fname"
        raise FileExistsError(errno.EEXIST, msg, str(job.target))
    return job.digest is None or file_digest(job.target, job.digest[0]) == job.digest[1]


@contextlib.contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Hold the lock of a file; its lock file is never removed, since another may be waiting on it."""
    lock = _beside(target, "lock")
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(lock, flags, 0o666)
    except OSError as error:
        way_out = "pass cache_dir=, set KERAS_HOME, or make it writable"
        msg = f"cannot write to the cache ({error.strerror}); {way_out}"
        raise OSError(error.errno, msg, str(target.parent)) from None
    try:
        with contextlib.suppress(OSError):  # a file system without locks: two may download, both rightly
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _temporary(target: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """Give a new file beside the target, removed in the end if it was not renamed."""
    path = _beside(target, f"{secrets.token_hex(8)}.part")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with os.fdopen(os.open(path, flags, 0o666), "wb") as file:
            yield path, file
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(target)  # a full disk does not say which
        raise
    finally:
        path.unlink(missing_ok=True)


def _sweep(target: Path) -> None:
    """Remove the temporary files that killed downloads left: who holds the lock owns them."""
    pattern = re.compile(re.escape(str(_beside(target, ""))) + r"[0-9a-f]{16}\.part")
    for entry in target.parent.iterdir():
        if pattern.fullmatch(str(entry)):
            entry.unlink(missing_ok=True)


def _unpack(job: Job, archive_format: str | Sequence[str] | None, expect: str | None, *, is_new: bool) -> None:
    """Unpack the file beside itself; forget a new one that nothing vouches for when it is damaged."""
    try:
        merge_archive(job.target, job.target.parent, archive_format, expect=expect)
    except ArchiveError:
        if is_new and job.digest is None:
            job.target.unlink()
        raise


# --- one download -----------------------------------------------------------------------------------------


def _download(job: Job, retries: int, backoff: float) -> None:
    """Put the right bytes in place, trying as often as is worth while."""
    if job.local is not None and job.target.exists() and job.target.samefile(job.local):
        msg = f"{job.target} is its own origin and has not the digest {_spelled(job.digest)}; correct one"
        raise HashMismatchError(msg)
    job.target.unlink(missing_ok=True)  # it is there only when its digest is wrong
    _sweep(job.target)
    mismatches = 0
    for attempt in itertools.count():
        try:
            with receive(job) as (blocks, total):
                _store(job, blocks, total)
        except RetryError as fault:
            mismatches += isinstance(fault.error, HashMismatchError)
            jitter = 0.5 + secrets.randbelow(501) / 1000
            pause = min(backoff * 2**attempt * jitter, MAX_PAUSE) if fault.pause is None else fault.pause
            in_time = time.monotonic() + pause < job.deadline
            if job.local is not None or attempt >= retries or mismatches > 1 or not in_time:
                raise type(fault.error)(f"{fault.error} (tries made: {attempt + 1})") from None
            time.sleep(pause)
        else:
            return


def _store(job: Job, blocks: Iterator[bytes], total: int | None) -> None:
    """Write blocks to a temporary file, verify it, and rename it to the target."""
    if total is not None and total > min(job.max_size, shutil.disk_usage(job.target.parent).free):
        raise job.failed(f"its {total:,} bytes exceed max_size={job.max_size:,} or the free space of the disk")
    running = new_hash(job.digest[0]) if job.digest else None
    done, head, reported = 0, b"", 0.0
    with _temporary(job.target) as (path, file):
        for block in blocks:
            done += len(block)
            head = head or block[:256]
            if done > job.max_size:
                raise job.failed(f"it has more than max_size={job.max_size:,} bytes")
            if running is not None:
                running.update(block)
            file.write(block)
            now = time.monotonic()
            if job.progress is not None and now - reported >= 0.1:
                job.progress(done, total)
                reported = now
        file.flush()
        os.fsync(file.fileno())
        _verify(job, running.hexdigest() if running else "", done, head)
        try:
            path.replace(job.target)
        except FileNotFoundError:  # swept by a process that could lock as well (NFS)
            raise RetryError(job.failed("another process removed the temporary file")) from None
    sync(job.target.parent)
    if job.progress is not None:
        job.progress(done, total)


def _verify(job: Job, got: str, size: int, head: bytes) -> None:
    """Refuse bytes that are not those of the digest and, where there is none, an empty body."""
    if job.digest is None:
        if not size and job.local is None:
            raise RetryError(job.failed("its body is empty; give file_hash if it has to be"))
        return
    if got != job.digest[1]:
        looks = head.lstrip()[:9].lower()
        is_page = looks.startswith((b"<!doctype", b"<html", b"<?xml"))
        msg = (
            f"wrong digest for {redact(job.origin)}: expected {_spelled(job.digest)}, "
            f"got {_spelled((job.digest[0], got))} "
            f"({size:,} bytes{', which look like an HTML page' if is_page else ''}). The file was not kept; "
            "correct file_hash or the origin."
        )
        raise RetryError(HashMismatchError(msg))


def _wanted_digest(file_hash: str | None, md5_hash: str | None, algorithm: str) -> tuple[str, str] | None:
    """Return the digest that the arguments of `get_file` ask for."""
    if file_hash is not None:
        return parse_digest(file_hash, algorithm)
    return None if md5_hash is None else parse_digest(md5_hash, "md5")


def _spelled(digest: tuple[str, str] | None) -> str:
    return ":".join(digest or ())
