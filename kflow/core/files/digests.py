"""Digests of files, and how they are written: ``sha256:<hex>``, or hexadecimal digits alone."""

import hashlib
import os
import string
from pathlib import Path
from typing import Any

__all__ = ["file_digest", "new_hash", "parse_digest"]

_LENGTHS = {32: "md5", 40: "sha1", 56: "sha224", 64: "sha256", 96: "sha384", 128: "sha512"}


def file_digest(path: str | os.PathLike[str], algorithm: str = "sha256") -> str:
    """Return the digest of a file's bytes as lower-case hexadecimal digits.

    Parameters
    ----------
    path : path
        The file.
    algorithm : str, default 'sha256'
        Any fixed-length algorithm of `hashlib`.

    Raises
    ------
    ValueError
        When the algorithm is unknown.
    OSError
        When the file cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "a.txt")
    >>> _ = path.write_text("abc")
    >>> file_digest(path, "md5")
    '900150983cd24fb0d6963f7d28e17f72'
    """
    new_hash(algorithm)
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, lambda: new_hash(algorithm)).hexdigest()


def parse_digest(text: str, algorithm: str = "auto") -> tuple[str, str]:
    """Split a digest into its algorithm and its lower-case hexadecimal digits.

    Parameters
    ----------
    text : str
        Hexadecimal digits of either case, or ``'algorithm:digits'``.
    algorithm : str, default 'auto'
        What the digits are when they have no prefix. ``'auto'`` tells md5, sha1, sha224, sha256, sha384 and
        sha512 by their 32, 40, 56, 64, 96 and 128 digits.

    Raises
    ------
    TypeError
        When one of them is no text.
    ValueError
        When the algorithm is unknown or contradicts the prefix, or the digits are not as many as it gives.

    Examples
    --------
    >>> parse_digest("MD5:900150983CD24FB0D6963F7D28E17F72")
    ('md5', '900150983cd24fb0d6963f7d28e17f72')
    """
    arguments: dict[str, Any] = {"a digest": text, "a hash algorithm": algorithm}
    for what, given in arguments.items():
        if not isinstance(given, str):
            msg = f"{what} must be a text, not {given!r}"
            raise TypeError(msg)
    prefix, _, digits = text.strip().lower().rpartition(":")
    name = prefix or algorithm.lower()
    if prefix and algorithm.lower() not in ("auto", prefix):
        msg = f"the digest {text!r} says {prefix}, but the algorithm asked for is {algorithm}; give one of them"
        raise ValueError(msg)
    if name == "auto":
        name = _LENGTHS.get(len(digits), "")
        if not name:
            known = ", ".join(f"{count} ({known})" for count, known in _LENGTHS.items())
            msg = f"the digest {text!r} has {len(digits)} digits; give {known}, or write 'algorithm:digits'"
            raise ValueError(msg)
    expected = new_hash(name).digest_size * 2
    if len(digits) != expected or set(digits) - set(string.hexdigits):
        msg = f"the digest {text!r} is not {expected} hexadecimal digits, which {name} gives"
        raise ValueError(msg)
    return name, digits


def new_hash(algorithm: str) -> "hashlib._Hash":
    """Start a hash of a fixed length, which verifies and secures nothing."""
    try:
        started = hashlib.new(algorithm.lower(), usedforsecurity=False)
    except ValueError:
        started = None
    if started is None or not started.digest_size:
        names = ", ".join(sorted(name for name in hashlib.algorithms_guaranteed if "shake" not in name))
        msg = f"unknown hash algorithm {algorithm!r}; use one of {names}"
        raise ValueError(msg)
    return started
