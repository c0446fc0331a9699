"""Custom names under the open scopes: what each of them means here, and where it came from.

The open scopes live in a context variable, hence threads and asyncio tasks never see each other's names.
"""

import difflib
import reprlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import AbstractContextManager
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Self

_ABSENT = object()
_DELETED = object()

# Whose frames are between a name's way into a dictionary and the line that put it there.
_PASSED_THROUGH = frozenset(
    {
        "_collections_abc",
        "collections.abc",
        "contextlib",
        "keras.src.saving.object_registration",
        "kflow.core.objects.scopes",
        "kflow.core.objects.registry",
    }
)

# Longer ones are no misspellings, and comparing them would take for ever.
_LONGEST_NAME = 80


@dataclass(eq=False, slots=True)
class Layer:
    """One entered scope: its names, what was registered with Keras since it was entered, and where these came from."""

    source: str
    objects: dict[Any, Any]
    names: dict[Any, Any] = field(default_factory=dict)
    sources: dict[Any, str] = field(default_factory=dict)
    keras_scope: AbstractContextManager[object] | None = None
    is_argument: bool = False
    """Whether these are names given to one call of Keras: what is put into the dictionary meanwhile outlives it."""
    token: Token[tuple["Layer", ...]] | None = None
    is_open: bool = True
    """False once it was left in another context than it was entered in, whose variable nobody else can set."""


_entered: ContextVar[tuple[Layer, ...]] = ContextVar("kflow_custom_objects", default=())


def open_layers() -> tuple[Layer, ...]:
    """Return the scopes that are open in this context, the innermost last."""
    return tuple(layer for layer in _entered.get() if layer.is_open)


def open_layer(layer: Layer) -> None:
    """Enter a scope in this context."""
    layer.token = _entered.set((*open_layers(), layer))


def close_layer(layer: Layer) -> None:
    """Leave a scope, also if others were entered after it, and everywhere if it was entered in another context."""
    others = tuple(each for each in open_layers() if each is not layer)
    try:
        _entered.reset(layer.token)  # type: ignore[arg-type]  # fails in every context but that of the token
    except ValueError:
        layer.is_open = False
    _entered.set(others)


class Registry(MutableMapping[Any, Any]):
    """Keras's global dictionary of custom objects, seen through the open scopes of this context.

    Reads see the innermost scope first; writes and deletions inside a scope end with it.
    """

    def __init__(
        self,
        base: MutableMapping[Any, Any],
        field: str,
        refuse: Callable[[Mapping[Any, Any], bool], None] = lambda *_: None,
    ) -> None:
        self._base = base
        self._field = field
        self._refuse = refuse
        self._base_sources: dict[Any, str] = {}

    def _parts(self) -> list[MutableMapping[Any, Any]]:
        return [self._base, *(getattr(layer, self._field) for layer in open_layers())]

    def copy(self) -> dict[Any, Any]:
        """Return what is visible here as a plain dictionary."""
        merged: dict[Any, Any] = {}
        for part in self._parts():
            merged.update(part)
        return {key: value for key, value in merged.items() if value is not _DELETED}

    def sources(self) -> dict[Any, str]:
        """Return for each visible name where it came from, in words: the scope, or the file and line."""
        merged = {key: self._base_sources.get(key, "get_custom_objects()") for key in self._base}
        for layer in open_layers():
            merged.update({key: layer.sources.get(key, layer.source) for key in getattr(layer, self._field)})
        return {key: merged[key] for key in self.copy()}

    def __getitem__(self, key: object) -> Any:
        for part in reversed(self._parts()):
            value = part.get(key, _ABSENT)
            if value is _DELETED:
                break
            if value is not _ABSENT:
                return value
        raise KeyError(key)

    def __setitem__(self, key: object, value: object) -> None:
        self._refuse({key: value}, False)
        self._put(key, value)

    def update(self, *objects: Any, **more: Any) -> None:
        """Put names in like ``dict.update``; all of them or, if Keras uses one itself, none."""
        given = _given(objects, more)
        self._refuse(given, False)
        for key, value in given.items():
            self._put(key, value)

    def override(self, *objects: Any, **more: Any) -> None:
        """Put names in like ``update``, those that Keras itself uses too.

        Parameters
        ----------
        *objects : mapping of str to class or function
            What the names mean from now on, such as ``{"swish": my_swish}``, or pairs of both.
        **more : class or function
            The same by keyword.
        """
        given = _given(objects, more)
        self._refuse(given, True)
        for key, value in given.items():
            self._put(key, value)

    def _put(self, key: object, value: object) -> None:
        scope = _innermost_scope()
        (getattr(scope, self._field) if scope else self._base)[key] = value
        if self._field == "objects":
            sources = scope.sources if scope else self._base_sources
            sources[key] = f"get_custom_objects() at {calling_line()}"

    def __delitem__(self, key: object) -> None:
        _ = self[key]  # a KeyError for a name that is not visible
        scope = _innermost_scope()
        if scope:
            getattr(scope, self._field)[key] = _DELETED
        else:
            self._base.pop(key, None)
            self._base_sources.pop(key, None)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.copy())

    def __len__(self) -> int:
        return len(self.copy())

    def __or__(self, other: object) -> dict[Any, Any]:
        return self.copy() | dict(other) if isinstance(other, Mapping) else NotImplemented

    def __ror__(self, other: object) -> dict[Any, Any]:
        return dict(other) | self.copy() if isinstance(other, Mapping) else NotImplemented

    def __ior__(self, other: Any) -> Self:  # type: ignore[misc]  # as that of a dictionary
        self.update(other)
        return self

    def __repr__(self) -> str:
        return repr(self.copy())


def _innermost_scope() -> Layer | None:
    scopes = [layer for layer in open_layers() if not layer.is_argument]
    return scopes[-1] if scopes else None


def _given(objects: tuple[Any, ...], more: dict[str, Any]) -> dict[Any, Any]:
    try:
        return dict(*objects, **more)
    except (TypeError, ValueError) as error:
        given = ", ".join(map(short, objects))
        msg = f"cannot put {given} into the custom objects: pass one dictionary that maps names to classes or functions"
        raise type(error)(msg) from error


def calling_line() -> str:
    """Return the file and line that use the custom objects, past the functions that only pass names on."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__") in _PASSED_THROUGH:
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def short(value: object) -> str:
    """Return a representation that is short whatever the value is, also if it is nested deeply."""
    shortener = reprlib.Repr()
    shortener.maxstring = shortener.maxother = _LONGEST_NAME
    return shortener.repr(value)


def hint(name: str, custom: Mapping[str, str], others: Mapping[str, str]) -> str:
    """Return the sentences that follow a complaint about an unknown name.

    Parameters
    ----------
    name : str
        The name that was not found.
    custom, others : mapping of str to str
        For each custom name, and for each other one that would have been found, where it came from.
    """
    known = {**others, **custom}
    meant = [f"{each!r} ({known[each]})" for each in _similar(name, known)]
    suggestion = f" Did you mean {' or '.join(meant)}?" if meant else ""
    return (
        f"{suggestion} {_listed(custom)} Your own objects must be given in custom_objects, "
        "a custom_object_scope or get_custom_objects()."
    )


def _similar(name: str, known: Iterable[str]) -> list[str]:
    if len(name) > _LONGEST_NAME:
        return []
    spellings: dict[str, list[str]] = {}
    for each in known:
        spellings.setdefault(each.lower(), []).append(each)
    close = difflib.get_close_matches(name.lower(), spellings, n=3)
    # Keras has names such as Zeros and zeros.
    return [max(spellings[key], key=lambda each: _likeness(each, name)) for key in close]


def _likeness(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()


def _listed(custom: Mapping[str, str]) -> str:
    if not custom:
        return "No custom names are known here."
    groups: dict[str, list[str]] = {}
    for name, source in islice(custom.items(), 20):
        groups.setdefault(source, []).append(short(name))
    listed = "; ".join(f"{', '.join(names)} ({source})" for source, names in groups.items())
    more = f"; and {len(custom) - 20} more" if len(custom) > 20 else ""
    return f"Custom names here: {listed}{more}."
