"""What a URL may be, and how much of it may be shown; light enough to be asked before anything is fetched."""

import os
import re
import urllib.parse
from pathlib import Path


def scheme_of(origin: str) -> str:
    """Return the scheme of a URL in lower case, nothing for a path."""
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):", origin)
    return found[1].lower() if found else ""


def redact(url: str) -> str:
    """Return a URL without user, password, query and fragment, fit for messages; a path stays as it is.

    Examples
    --------
    >>> redact("https://me:secret@example.org:8443/a.h5?token=1")
    'https://example.org:8443/a.h5?...'
    """
    scheme = scheme_of(url)
    if not scheme:
        return url
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port  # not a number where a password holds a slash
    except ValueError:
        return f"{scheme}:..."
    if not parts.netloc and scheme != "file":
        return f"{scheme}:..."
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    shown = f"{parts.scheme}://{host}" + (f":{port}" if port is not None else "") + parts.path
    return shown + ("?..." if parts.query else "")


def local_path(origin: str | os.PathLike[str]) -> Path | None:
    """Return the path that a local origin names, None for an http or https URL.

    A file URL is read as RFC 8089 has it: no host or ``localhost``, an absolute path, and ``%`` escapes for
    what a URL cannot hold.

    Raises
    ------
    ValueError
        When the origin is neither a path nor a URL that can be fetched.

    Examples
    --------
    >>> local_path("file:///tmp/a%20b").as_posix()
    '/tmp/a b'
    >>> local_path("data/a.h5").as_posix()
    'data/a.h5'
    >>> local_path("https://example.org/a.h5") is None
    True
    """
    if not isinstance(origin, str) or not (scheme := scheme_of(origin)):
        if isinstance(origin, str) and (scheme := scheme_of("".join(origin.split()))) and "://" in origin:
            msg = f"a URL cannot have blanks before or in its {scheme}:; remove them (or give a path as pathlib.Path)"
            raise ValueError(msg)
        if "\0" in os.fspath(origin):
            msg = f"a path cannot hold a NUL character, as {os.fspath(origin)!r} does"
            raise ValueError(msg)
        return Path(origin)
    if scheme in ("http", "https"):
        check_url(origin)
        return None
    if scheme != "file":
        msg = f"cannot fetch {redact(origin)}: use an http, https or file URL, or a path (./a:b)"
        raise ValueError(msg)
    why = _why_no_file_url(origin)
    if why:
        msg = f"{redact(origin)} is no valid file URL; {why}"
        raise ValueError(msg)
    return Path(os.fsdecode(urllib.parse.unquote_to_bytes(urllib.parse.urlsplit(origin).path)))


def _why_no_file_url(url: str) -> str | None:
    if "?" in url or "#" in url:
        return "write a ? in a name as %3F and a # as %23"
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:
        return "its host cannot be read"
    if parts.netloc.lower() not in ("", "localhost"):
        return f"it names the host {parts.hostname}, and only files of this machine can be read (file:///path)"
    if not parts.path.startswith("/") or "%00" in parts.path or "\0" in parts.path:
        return "its path must be absolute, and hold no %00 (file:///path)"
    return None


def check_url(url: str) -> urllib.parse.SplitResult:
    """Split an http URL, refusing what servers and clients read differently.

    Raises
    ------
    ValueError
        With what is wrong with the URL, and without its secrets.

    Examples
    --------
    >>> check_url("http://example.org:8080/a.h5").port
    8080
    >>> check_url("http:///a.h5")
    Traceback (most recent call last):
    ValueError: http:... is no valid URL; it names no host
    """
    why = _why_invalid(url)
    if why:
        msg = f"{redact(url)} is no valid URL; {why}"
        raise ValueError(msg)
    return urllib.parse.urlsplit(url)


def _why_invalid(url: str) -> str | None:
    if any(char <= " " or char == "\x7f" for char in url):
        return "quote blanks and special characters in it (%20)"
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:  # brackets that do not match, or hold no IPv6 address
        return "its host cannot be read"
    if not parts.hostname:
        return "it names no host"
    try:
        is_good = parts.port != 0
    except ValueError:  # no number, or a password that holds a slash
        is_good = False
    return None if is_good else "its port is no number from 1 to 65535 (quote a / in a password as %2F)"
