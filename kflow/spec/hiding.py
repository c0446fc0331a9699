"""Values of environment variables, taken out of what is kept: their names stand for them there."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from types import MappingProxyType
from typing import Any

from kflow.document import parse_scalar

_Pairs = tuple[tuple[str, str], ...]
_LETTER = r"[^\W\d_]"
_SHORT = 4
"""Shorter values, and words, are hidden where they stand by themselves: within another word they are something else."""


def hide_values(text: str, variables: Mapping[str, str], others: Mapping[str, str] = MappingProxyType({})) -> str:
    """Put the names of environment variables for their values, as they are set and as YAML reads them.

    Parameters
    ----------
    text : str
        What is told, such as an error.
    variables : mapping of str to str
        The variables of the step that it is told of, each of which can be read as YAML.
    others : mapping of str to str
        Those of other steps, whose short values are left: here they are something else. Default none.

    Returns
    -------
    str
        The text without the values; true, false, null, and what has neither letters nor digits stay.

    Examples
    --------
    >>> hide_values("secret/f.txt was touched", {"PLACE": "'secret'"})
    '${env.PLACE}/f.txt was touched'
    """
    if not (variables or others):
        return text
    pattern, names = _compile(tuple(variables.items()), tuple(others.items()))
    return pattern.sub(lambda found: names[found[0]], text)


@lru_cache(maxsize=16)
def _compile(variables: _Pairs, others: _Pairs) -> tuple[re.Pattern[str], Mapping[str, str]]:
    """Return what finds all values in one go, the longest first, and what stands for each."""
    names = {form: f"${{env.{name}}}" for name, value in others for form in _forms(value) if len(form) >= _SHORT}
    names |= {form: f"${{env.{name}}}" for name, value in variables for form in _forms(value)}
    patterns = [_pattern(form) for form in sorted(names, key=len, reverse=True)]
    return re.compile("|".join(patterns) or r"(?!)"), names


def _pattern(form: str) -> str:
    if len(form) < _SHORT:
        return rf"(?<![\w.]){re.escape(form)}(?!\w|\.\w)"
    return rf"(?<!{_LETTER}){form}(?!{_LETTER})" if form.isalpha() else re.escape(form)


@cache
def _forms(value: str) -> tuple[str, ...]:
    """Return the texts that a value may be told as."""
    read = list(_scalars(parse_scalar(value)))
    found = []
    for text in (value, *read) if read else ():
        # Paths are told in their shortest form, and absolute; errors in one line, and up to the first that is empty.
        plain = os.path.normpath(text) if "/" in text else text
        lines = (" ".join(each.split()) for each in (text, text.split("\n\n")[0]))
        forms = (text, plain, re.sub(r"^(\.\./)+", "", plain), *lines)
        found += [each for each in forms if re.search(r"\w", each)]
    return tuple(dict.fromkeys(found))


def _scalars(value: Any) -> Iterator[str]:
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _scalars(each)
    elif isinstance(value, str):
        yield value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield json.dumps(value)
