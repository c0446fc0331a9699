"""Download one file from the first of its origins that gives the right bytes, trying as often as is worth while."""

import os
import secrets
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kflow.core.files.connections import Patience
from kflow.core.files.partials import Partial, partial_of
from kflow.core.files.transport import MAX_PAUSE, Answer, DownloadError, Origin, OriginError, receive
from kflow.core.files.urls import redact

__all__ = ["HashMismatchError", "Job", "Progress", "Retry", "download"]

Progress = Callable[[int, int | None], None]


class HashMismatchError(ValueError):
    """Bytes that came whole but are not those that the digest describes."""


@dataclass(frozen=True)
class Retry:
    """A further try that is about to be made, and why."""

    attempt: int
    """Which try of this origin it is; the first is 1."""
    attempts: int
    """How many tries an origin has."""
    pause: float
    """Seconds until then."""
    origin: str
    """Which origin is asked, without its secrets."""
    why: str
    """What went wrong before."""

    def __str__(self) -> str:
        when = f" in {self.pause:.1f} s" if self.pause >= 0.05 else ""
        return f"try {self.attempt} of {self.attempts} of {self.origin}{when}: {self.why}"


@dataclass(frozen=True)
class Job:
    """One file to fetch: from where, to where, and within which limits."""

    origins: tuple[Origin, ...]
    target: Path
    digest: tuple[str, str] | None
    patience: Patience
    max_size: int
    retries: int
    backoff: float
    is_offline: bool = False
    on_retry: Callable[[Retry], None] | None = None


@dataclass
class _Turn:
    """An origin's place in the queue: how often it was tried, and when it may be tried again."""

    origin: Origin
    tries: int = 0
    mismatches: int = 0
    ready: float = 0.0


def download(job: Job, progress: Progress | None) -> os.stat_result:
    """Put the right bytes in place and return the status of their file."""
    origins = _reachable(job)
    turns = [_Turn(origin) for origin in origins]
    given_up: list[Exception] = []
    with partial_of(job.target, job.digest[0] if job.digest else None, origins) as partial:
        while True:
            turn = min(turns, key=lambda each: each.ready)
            time.sleep(max(0.0, turn.ready - time.monotonic()))
            turn.tries += 1
            try:
                return _attempt(job, turn.origin, partial, progress)
            except OriginError as fault:
                if not _is_put_off(job, turn, fault):
                    turns.remove(turn)
                    given_up.append(_final(fault, turn))
                if not turns:
                    raise _summed_up(given_up) from None
                _tell(job, min(turns, key=lambda each: each.ready), fault)


def _reachable(job: Job) -> tuple[Origin, ...]:
    """Return the origins that may be asked."""
    if not job.is_offline:
        return job.origins
    local = tuple(origin for origin in job.origins if origin.local is not None)
    if not local:
        why, way_out = f"{job.target} is not in the cache", "put the file there"
        if job.target.exists():
            why, way_out = f"{job.target} is in the cache, and was to be fetched again", "drop force_download=True"
        raise job.origins[0].failed(
            f"{why}, and this is offline mode; {way_out}, pass offline=False or unset KFLOW_OFFLINE"
        )
    return local


def _is_put_off(job: Job, turn: _Turn, fault: OriginError) -> bool:
    """Give an origin another turn later, if that is worth while."""
    turn.mismatches += isinstance(fault.error, HashMismatchError)
    jitter = 0.5 + secrets.randbelow(501) / 1000
    pause = min(job.backoff * 2 ** (turn.tries - 1) * jitter, MAX_PAUSE) if fault.pause is None else fault.pause
    turn.ready = time.monotonic() + pause
    is_worth_while = turn.tries <= job.retries and turn.mismatches <= 1 and pause < job.patience.left()
    return is_worth_while and not fault.is_final and turn.origin.local is None


def _final(fault: OriginError, turn: _Turn) -> Exception:
    """Return the error to raise when an origin is given up."""
    if isinstance(fault.error, DownloadError | HashMismatchError):
        return type(fault.error)(f"{fault.error} (tries made: {turn.tries})")
    return fault.error


def _summed_up(errors: list[Exception]) -> Exception:
    """Return the one error to raise for those of all origins."""
    if len(errors) == 1:
        return errors[0]
    kind = HashMismatchError if all(isinstance(error, HashMismatchError) for error in errors) else DownloadError
    return kind(f"none of {len(errors)} origins gave the file: " + "; ".join(map(str, errors)))


def _tell(job: Job, turn: _Turn, fault: OriginError) -> None:
    """Say that another try is made, so that nobody wonders what takes so long."""
    pause = max(0.0, turn.ready - time.monotonic())
    retry = Retry(turn.tries + 1, job.retries + 1, pause, redact(turn.origin.text), str(fault.error))
    if job.on_retry is not None:
        job.on_retry(retry)
        return
    import logging

    logging.getLogger("kflow.core.files").warning("%s", retry)


# --- one try ----------------------------------------------------------------------------------------------


def _attempt(job: Job, origin: Origin, partial: Partial, progress: Progress | None) -> os.stat_result:
    """Write what an origin gives to the partial file, verify it, and make it the target."""
    with receive(origin, job.patience, partial.started(origin), is_verified=job.digest is not None) as answer:
        _check_size(job, origin, answer)
        partial.begin(origin, answer)
        told = 0.0
        for block in answer.blocks:
            if partial.size + len(block) > job.max_size:
                partial.restart()
                raise origin.refused(f"it has more than max_size={job.max_size:,} bytes")
            partial.write(block)
            now = time.monotonic()
            if progress is not None and now - told >= 0.1 and partial.size != answer.total:
                progress(partial.size, answer.total)
                told = now
    _verify(job, origin, partial)
    if progress is not None:  # before the file is in place, so that what a callback raises leaves none
        progress(partial.size, partial.size)
    status = partial.commit()
    if status is None:
        raise OriginError(origin.failed("another process removed the temporary file"))
    return status


def _check_size(job: Job, origin: Origin, answer: Answer) -> None:
    """Refuse what is declared to be too much, before it comes."""
    if answer.total is None:
        return
    if answer.total > job.max_size:
        raise origin.refused(f"its {answer.total:,} bytes exceed max_size={job.max_size:,}")
    free = shutil.disk_usage(job.target.parent).free
    if answer.total - answer.start > free:
        raise origin.refused(f"its {answer.total:,} bytes exceed the {free:,} bytes that are free on the disk")


def _verify(job: Job, origin: Origin, partial: Partial) -> None:
    """Refuse bytes that are not those of the digest and, where there is none, an empty body."""
    if job.digest is None:
        if not partial.size and origin.local is None:
            raise OriginError(origin.failed("its body is empty; give file_hash if it has to be"))
        return
    got = partial.digest()
    if got != job.digest[1]:
        size, looks = partial.size, _looks(partial)
        partial.restart()
        msg = (
            f"wrong digest for {redact(origin.text)}: expected {':'.join(job.digest)}, "
            f"got {job.digest[0]}:{got} ({size:,} bytes{looks}). The file was not kept; "
            "correct file_hash or the origin."
        )
        raise OriginError(HashMismatchError(msg))


def _looks(partial: Partial) -> str:
    """Describe bytes that were not expected: a page of a log-in or an error, as a rule."""
    named = f" of {partial.content_type}" if partial.content_type else ""
    start = partial.head[:64].decode("ascii", "replace")
    if not start.isascii() or not start.strip():
        return named
    looks = partial.head.lstrip()[:9].lower()
    is_page = looks.startswith((b"<!doctype", b"<html", b"<?xml"))
    shown = "".join(char if char.isprintable() else " " for char in start).strip()
    return f"{named}, which begin with {shown!r}" + (" and look like an HTML page" if is_page else "")
