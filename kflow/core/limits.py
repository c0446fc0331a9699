"""Limits that callers set: whole numbers, checked."""

from typing import Any

__all__ = ["whole_number"]


def whole_number(name: str, given: Any, least: int) -> int:
    """Return an argument that is a whole number, known to be at least another.

    Raises
    ------
    ValueError
        If it is none, or too small; the message names the argument.

    Examples
    --------
    >>> whole_number("retries", 1.5, 0)
    Traceback (most recent call last):
    ValueError: retries must be a whole number, at least 0, not 1.5
    """
    if not hasattr(given, "__index__") or isinstance(given, bool) or given.__index__() < least:
        msg = f"{name} must be a whole number, at least {least}, not {given!r}"
        raise ValueError(msg)
    return int(given)
