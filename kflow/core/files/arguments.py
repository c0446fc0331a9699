"""The arguments of `get_file`, checked: what cannot be right is refused before anything is fetched."""

import errno
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kflow.core.archives.extraction import is_reserved
from kflow.core.files.connections import Patience
from kflow.core.files.digests import parse_digest
from kflow.core.files.transport import Origin
from kflow.core.files.urls import local_path, redact

__all__ = [
    "cache_path",
    "is_offline",
    "origins_of",
    "patience_of",
    "require_kinds",
    "seconds",
    "wanted_digest",
]

AnyPath = str | os.PathLike[str]


def cache_path(fname: AnyPath, cache_dir: AnyPath | None, subdir: AnyPath) -> str:
    """Return where a file belongs in the cache, joined as Keras 2.1 does: ``./a`` where others would say ``a``.

    Raises
    ------
    TypeError, ValueError
        When `fname` is no path, names no file, or has a name by which the cache keeps its state.
    OSError
        When there is no home folder to have the cache in, or a link bears the name of a folder in it.
    """
    for name, given in {"fname": fname, "cache_subdir": subdir, "cache_dir": cache_dir or ""}.items():
        if not isinstance(given, str | os.PathLike) or not isinstance(os.fspath(given), str):
            msg = f"{name} must be a text or a path, not {given!r}"
            raise TypeError(msg)
        if "\0" in os.fspath(given):
            msg = f"{name} must hold no NUL character, as {given!r} does"
            raise ValueError(msg)
    name = os.fspath(fname)
    path = Path(name)
    if not path.name or ".." in path.parts or name.endswith("/"):
        msg = f"fname must name a file, without '..', not {name!r}"
        raise ValueError(msg)
    own = [part for part in ([path.name] if path.is_absolute() else path.parts) if is_reserved(part)]
    if own:
        msg = (
            f"fname must not be like a hidden file by which the cache keeps its state, as {own[0]!r} is; choose another"
        )
        raise ValueError(msg)
    base = cache_dir or os.environ.get("KERAS_HOME") or "~/.keras"
    try:
        folder = Path(base).expanduser() / subdir
    except RuntimeError:
        msg = f"there is no home folder for the cache {os.fspath(base)!r}; pass cache_dir= or set KERAS_HOME"
        raise FileNotFoundError(errno.ENOENT, msg) from None
    _refuse_links(folder, path)
    return os.path.join(folder, name)  # noqa: PTH118  whose folder can be named, also that of ./a


def _refuse_links(folder: Path, path: Path) -> None:
    """Refuse to follow links inside the cache: where they lead, others' files have the names of ours."""
    for parent in [] if path.is_absolute() else list(path.parents)[:-1]:
        if (folder / parent).is_symlink():
            msg = "a symbolic link bears the name of a folder in the cache; remove it or choose another fname"
            raise FileExistsError(errno.EEXIST, msg, str(folder / parent))


def origins_of(origin: AnyPath, mirrors: Sequence[AnyPath]) -> tuple[Origin, ...]:
    """Return the places to fetch from, in their order.

    Raises
    ------
    TypeError, ValueError
        When one of them is neither a path nor a URL that can be fetched.
    """
    if isinstance(mirrors, str | os.PathLike) or not isinstance(mirrors, Iterable):
        given = repr(redact(os.fspath(mirrors))) + " alone" if isinstance(mirrors, str | os.PathLike) else repr(mirrors)
        msg = f"mirrors must be a list of origins, not {given}"
        raise TypeError(msg)
    every = (origin, *mirrors)
    for each in every:
        if not isinstance(each, str | os.PathLike) or not os.fspath(each) or not isinstance(os.fspath(each), str):
            msg = f"an origin must be a URL or a path, not {each!r}"
            raise (ValueError if each == "" else TypeError)(msg)
    return tuple(Origin(os.fspath(each), local_path(each)) for each in every)


def patience_of(timeout: float | Mapping[str, float], min_speed: float) -> Patience:
    """Return the limits of time that arguments set.

    Raises
    ------
    TypeError, ValueError
        When one of them is no number, or not above 0.
    """
    limits = dict(timeout) if isinstance(timeout, Mapping) else {"connect": timeout, "read": timeout}
    known = set(limits) <= {"connect", "read", "total"}
    if not known or not all(_is_number(each) and each > 0 for each in limits.values()):
        msg = f"timeout must be seconds above 0, or give some for 'connect', 'read' and 'total', not {timeout!r}"
        raise ValueError(msg)
    if not _is_number(min_speed) or not min_speed >= 0:
        msg = f"min_speed must be a number of bytes a second, at least 0, not {min_speed!r}"
        raise ValueError(msg)
    return Patience(**limits, min_speed=min_speed)


def seconds(name: str, given: Any) -> float:
    """Return a number of seconds, known to be at least 0."""
    if not _is_number(given) or not 0 <= given < math.inf:
        msg = f"{name} must be a number of seconds, at least 0, not {given!r}"
        raise ValueError(msg)
    return float(given)


def _is_number(given: Any) -> bool:
    return hasattr(given, "__float__") and not isinstance(given, bool)


def wanted_digest(file_hash: str | None, md5_hash: str | None, algorithm: str) -> tuple[str, str] | None:
    """Return the algorithm and the digits of the digest that a file must have.

    Raises
    ------
    TypeError, ValueError
        As `parse_digest`.
    """
    if file_hash is not None:
        return parse_digest(file_hash, algorithm)
    return None if md5_hash is None else parse_digest(md5_hash, "md5")


def is_offline(offline: bool | None) -> bool:
    """Return whether to ask no network, by the argument or by the environment."""
    if offline is None:
        return os.environ.get("KFLOW_OFFLINE", "").strip().lower() not in {"", "0", "false", "no", "off"}
    return offline


def require_kinds(progress: Any, on_retry: Any, offline: Any) -> None:
    """Refuse what can be neither called nor said yes or no to, before a download would be lost by it."""
    for name, given, is_right, what in (
        ("progress", progress, callable(progress) or progress in (None, True, False), "a function, True or False"),
        ("on_retry", on_retry, callable(on_retry) or on_retry is None, "a function"),
        ("offline", offline, offline in (None, True, False), "True or False"),
    ):
        if not is_right:
            msg = f"{name} must be {what}, or None, not {given!r}"
            raise TypeError(msg)
