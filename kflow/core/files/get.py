"""Fetch a file once, verify it and keep it in the cache folder of Keras.

What is under a cached file's name is always whole: bytes go to a temporary file beside it, are hashed on the
way, brought to the disk and renamed. A lock file per name makes concurrent processes share one download;
nothing becomes wrong where locks do not work, only slower.
"""

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from kflow.core.archives.extraction import ArchiveError, is_merged, merge_archive, take_back_merge
from kflow.core.archives.marks import is_taken_back
from kflow.core.archives.members import OccupiedError
from kflow.core.files.arguments import (
    cache_path,
    is_offline,
    origins_of,
    patience_of,
    require_kinds,
    seconds,
    wanted_digest,
)
from kflow.core.files.digests import file_digest
from kflow.core.files.downloads import HashMismatchError, Job, Progress, Retry, download
from kflow.core.files.meter import metered
from kflow.core.files.partials import beside
from kflow.core.files.sidecars import is_noted, note_digest
from kflow.core.limits import whole_number

__all__ = ["get_file"]

MAX_SIZE = 20 * 2**30


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
    mirrors: Sequence[str | os.PathLike[str]] = (),
    force_download: bool = False,
    verify: bool = False,
    offline: bool | None = None,
    progress: Progress | bool | None = None,
    on_retry: Callable[[Retry], None] | None = None,
    timeout: float | Mapping[str, float] = 30.0,
    min_speed: float = 1024.0,
    max_size: int = MAX_SIZE,
    retries: int = 4,
    backoff: float = 1.0,
) -> str:
    """Return the path of a file in the cache, downloading it when it is not there or is wrong.

    Parameters
    ----------
    fname : path
        Name in the cache; folders in it are made, an absolute path is used as it is. Refused are ``..`` and the
        names of the cache's own hidden files, such as ``.a.bin.lock``.
    origin : str or path
        An http, https or file URL, or a plain path (``./a:b`` where the name holds a colon), which is copied.
    untar : bool, default False
        Download to ``fname + '.tar.gz'`` and unpack that into the folder that holds it, unless `fname` exists and
        came not out of another version of the archive; not again while neither it nor what came out of it has
        changed. Files that are there and that it did not bring are not replaced.
    md5_hash : str, optional
        An MD5 digest; used when `file_hash` is not given.
    file_hash : str, optional
        The digest to verify new and cached files by; see `parse_digest`.
    cache_subdir : path, default 'datasets'
        Folder below the cache folder; an absolute path is used as it is.
    hash_algorithm : str, default 'auto'
        Any fixed-length algorithm of `hashlib`; ``'auto'`` goes by the prefix or length of the digest.
    extract : bool, default False
        Unpack the file into the folder that holds it, as `merge_archive` does; not again while neither it nor
        what came out of it has changed.
    archive_format : str, list of str or None, default 'auto'
        ``'tar'``, ``'zip'``, a list of them, ``'auto'`` for both; ``None`` or ``[]`` unpacks nothing.
    cache_dir : path, optional
        The cache folder; by default ``$KERAS_HOME``, else ``~/.keras``. There is no other fall-back.
    mirrors : sequence of str or path, default ()
        Further origins of the same bytes. When an origin fails, the next one is tried at once.
    force_download : bool, default False
        Fetch the file although it is there; the old one stays until the new one is right.
    verify : bool, default False
        Hash a cached file again. Without it, a file whose size, times and inode are those it had when it was
        last found right (a hidden sidecar tells) is not read.
    offline : bool, optional
        Whether to ask no network: only cached files and local origins are good. By default, whether
        ``$KFLOW_OFFLINE`` is set (to anything but ``0``, ``false``, ``no`` or ``off``).
    progress : callable or bool, optional
        Called with the bytes done and the total (None where the server does not say), at most ten times a
        second, and once with the size as both when all is there and right. By default a line on standard error when
        that is a terminal; True for a line in any case, False for none.
    on_retry : callable, optional
        Called with a `Retry` before each further try. By default it is logged as a warning.
    timeout : float or mapping, default 30.0
        Seconds to wait for a connection, for the headers, and for each read; or a mapping with any of
        ``'connect'`` and ``'read'`` (30) and ``'total'`` (86400), the time for everything together.
    min_speed : float, default 1024
        Bytes a second: a body that brings less over the read timeout is given up.
    max_size : int, default 20 GiB
        The most bytes to accept.
    retries : int, default 4
        Further tries of each origin after statuses 408, 425, 429 and 5xx, connection errors and short
        bodies, and one after a wrong digest. They go on where the last one broke off if there is a digest and
        the server names the version by a strong ETag.
    backoff : float, default 1.0
        Seconds before the first further try of an origin; doubled (with jitter) for each next one, to 60 at
        most. A ``Retry-After`` of at most 60 seconds takes its place.

    Returns
    -------
    str
        The path of the file. With `untar` that of `fname`, without ``.tar.gz``: it need not exist, as the archive
        may hold other names.

    Raises
    ------
    HashMismatchError
        When the bytes are not those of the digest; they are not kept.
    DownloadError
        When the file cannot be fetched.
    ArchiveError
        When it cannot be unpacked. An archive that came in this call and has no digest is then removed, unless it is
        sound and only the place of a member is taken.
    TypeError, ValueError
        When an argument cannot be right.
    OSError
        When the folder cannot be written, or when a link or folder bears the file's name.

    Notes
    -----
    Signature and places follow ``keras.utils.get_file`` of Keras 2.1. Unlike it, this verifies new files too,
    refuses what is not an archive, never moves to ``/tmp``, and unpacks beside the file when `fname`
    holds folders. Statuses, ``Retry-After``, ranges and strong ETags are those of RFC 9110.

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
    path = cache_path(fname, cache_dir, cache_subdir)
    require_kinds(progress, on_retry, offline)
    job = Job(
        origins=origins_of(origin, mirrors),
        target=Path(path + ".tar.gz" if untar else path),
        digest=wanted_digest(file_hash, md5_hash, hash_algorithm),
        patience=patience_of(timeout, min_speed),
        max_size=whole_number("max_size", max_size, 1),
        retries=whole_number("retries", retries, 0),
        backoff=seconds("backoff", backoff),
        is_offline=is_offline(offline),
        on_retry=on_retry,
    )
    formats = "tar" if untar else archive_format if extract else None

    def is_unpacked() -> bool:
        if untar and os.path.lexists(path):
            return not is_taken_back(job.target, job.target.parent)
        return is_merged(job.target, job.target.parent, formats)

    if not is_unpacked() or force_download or not _is_cached(job, verify=verify):  # a hit needs no lock
        with _locked(job.target):
            is_right = _is_cached(job, verify=verify)
            is_new = force_download or not is_right
            was_there = job.target.exists()
            if not is_right and not force_download:
                _remove_wrong(job)
            if untar and was_there and is_new:  # noted before it is fetched, lest a kill leave the old files for good
                take_back_merge(job.target, job.target.parent)
            if is_new:
                _fetch(job, progress)
            if not is_unpacked():
                _unpack(job, formats, Path(path).name if untar else None, is_new=is_new)
    return path


# --- the cache --------------------------------------------------------------------------------------------


def _is_cached(job: Job, *, verify: bool) -> bool:
    """Say whether the file is there and right, refusing what is no file."""
    try:
        status = job.target.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    if not stat.S_ISREG(status.st_mode):
        kind = "symbolic link" if stat.S_ISLNK(status.st_mode) else "folder or device"
        msg = f"a {kind} bears the name of the file to cache; remove it or choose another fname"
        raise FileExistsError(errno.EEXIST, msg, str(job.target))
    if job.digest is None or (not verify and is_noted(job.target, job.digest)):
        return True
    if file_digest(job.target, job.digest[0]) != job.digest[1]:
        return False
    note_digest(job.target, job.digest, status)
    return True


@contextlib.contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Hold the lock of a file; its lock file is never removed, since another may be waiting on it."""
    lock = beside(target, "lock")
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


def _remove_wrong(job: Job) -> None:
    """Remove a file with a wrong digest at once, whatever comes of the download; but never an origin."""
    if job.digest is None or not job.target.exists():
        return
    if job.is_offline and all(each.local is None for each in job.origins):
        msg = (
            f"{job.target} has not the digest {':'.join(job.digest)}, and offline nothing can take its place; "
            "correct the digest, or go online"
        )
        raise HashMismatchError(msg)
    if any(each.local is not None and each.local.exists() and job.target.samefile(each.local) for each in job.origins):
        msg = f"{job.target} is its own origin and has not the digest {':'.join(job.digest)}; correct one"
        raise HashMismatchError(msg)
    job.target.unlink()


def _fetch(job: Job, progress: Progress | bool | None) -> None:
    """Download the file, telling the progress to whom it may concern, and note its digest."""
    if callable(progress):
        status = download(job, progress)
    elif progress is False:
        status = download(job, None)
    else:
        with metered(job.target.name, always=progress is True) as meter:
            status = download(job, meter)
    if job.digest is not None:
        note_digest(job.target, job.digest, status)


def _unpack(job: Job, archive_format: str | Sequence[str] | None, untarred: str | None, *, is_new: bool) -> None:
    """Unpack the file beside itself; forget a new one that nothing vouches for when it is damaged."""
    try:
        merge_archive(job.target, job.target.parent, archive_format, last=untarred, replace=untarred is None)
    except OccupiedError:
        raise
    except ArchiveError as error:
        if job.digest is not None:
            raise
        if not is_new:
            msg = f"{error} It was in the cache; force_download=True fetches it again."
            raise type(error)(msg) from error.__cause__
        job.target.unlink()
        raise
