"""Puts scalars, lists and mappings, given one after another, together to one value with positions.

This is the half of reading YAML that needs no YAML library: what a plain scalar means, which keys are
allowed, what an alias may cost. Wrong things are noted and reading goes on, so that one look finds them all;
only what makes going on pointless stops it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NoReturn, TypeAlias

from kflow.diagnostics import Diagnostic, Mark, Path, Source
from kflow.errors import WorkflowError

JsonLike: TypeAlias = "bool | int | float | str | list[JsonLike] | dict[str, JsonLike] | None"

MAX_LEVELS = 64
MAX_DIGITS = 400  # of one number
MAX_DIAGNOSTICS = 100  # reading stops there


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a text may hold, together with what its aliases stand for, and what to do where it is more."""

    mebibytes: int
    nodes: int
    advice: str


WRITTEN = Limits(4, 200_000, "keep data in a file of its own and name that file here")
"""Those of a text that people write."""

_CONSTANTS: dict[str, JsonLike] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_HIDDEN = re.compile(r"[\u00ad\u200c\u200d]")  # of use inside words of some scripts, a trap in a name


def resolve(text: str) -> JsonLike:
    """Give a plain scalar the value that the core schema of YAML 1.2.2 (section 10.3.2) gives it.

    Parameters
    ----------
    text : str
        The scalar without blanks around it.

    Returns
    -------
    JsonLike
        None, a bool, an int, a float, or the text itself.

    Raises
    ------
    ValueError
        A number of more than 400 digits, or one that no float can hold; the message is a sentence.

    Examples
    --------
    >>> resolve("010"), resolve("1e-3"), resolve("no"), resolve("~")
    (10, 0.001, 'no', None)
    """
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if text[0] not in "+-.0123456789":  # nearly all scalars end here
        return text
    is_integer = _INTEGER.fullmatch(text)
    if not is_integer and not _FLOAT.fullmatch(text):
        return text
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number has at most {MAX_DIGITS} digits; quote it if it is text")
    if is_integer:
        return int(text, {"0x": 16, "0o": 8}.get(text[:2], 10))
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError("this number is too large for a float; write .inf for infinity, or quote it")
    return number


@dataclass(slots=True)
class _Frame:
    """A list or mapping that is still open, and what had been read when it began."""

    container: list[JsonLike] | dict[str, JsonLike]
    path: Path
    anchor: str | None
    nodes: int
    characters: int
    key: str | None = None
    height: int = 1


@dataclass(slots=True)
class _Anchor:
    """A value with a name, and what each of its aliases costs."""

    line: int
    is_open: bool = True
    value: JsonLike = None
    nodes: int = 0
    characters: int = 0
    height: int = 0


@dataclass(slots=True)
class Composer:
    """Builds one value from its parts, given in the order of the text; keeps what is wrong with it.

    Attributes
    ----------
    source : Source
        The text that all marks point into.
    limits : Limits
        How much it may hold.
    root : JsonLike
        The value, once all parts have been given.
    marks, key_marks : dict of path to Mark
        Where each value and each key stands.
    diagnostics : list of Diagnostic
        What is wrong so far.
    """

    source: Source
    limits: Limits = WRITTEN
    root: JsonLike = None
    marks: dict[Path, Mark] = field(default_factory=dict)
    key_marks: dict[Path, Mark] = field(default_factory=dict)
    diagnostics: list[Diagnostic] = field(default_factory=list)
    _stack: list[_Frame] = field(default_factory=list)
    _anchors: dict[str, _Anchor] = field(default_factory=dict)
    _nodes: int = 0
    _characters: int = 0

    def note(self, message: str, mark: Mark, hint: str | None = None, path: Path = ()) -> None:
        """Keep a diagnostic and go on."""
        self.diagnostics.append(Diagnostic(message, mark, hint, path))
        if len(self.diagnostics) >= MAX_DIAGNOSTICS:
            self.stop(Diagnostic("too many problems; reading stopped here", mark))

    def stop(self, *diagnostics: Diagnostic) -> NoReturn:
        """Raise WorkflowError with all that was noted, and these."""
        raise WorkflowError([*self.diagnostics, *diagnostics], self.source) from None

    def scalar(self, text: str, mark: Mark, *, is_plain: bool, anchor: str | None = None) -> None:
        """Take a scalar: a key where a mapping waits for one, otherwise a value."""
        frame = self._stack[-1] if self._stack else None
        value: JsonLike = text
        if is_plain:
            try:
                value = resolve(text)
            except ValueError as error:
                self.note(str(error), mark, path=self._path(frame))
        if anchor is not None:
            self._name(anchor, mark)
            self._anchors[anchor] = _Anchor(mark.line, False, value, 1, len(text))
        if frame is not None and frame.key is None and isinstance(frame.container, dict):
            self._take_key(frame, text, mark, is_text=isinstance(value, str), is_plain=is_plain)
        else:
            self._spend(1, len(text), mark)
            self._place(value, mark)

    def start(self, container: list[JsonLike] | dict[str, JsonLike], mark: Mark, anchor: str | None) -> None:
        """Open an empty list or dict; the parts that follow go into it."""
        frame = _Frame(container, (), anchor, self._nodes, self._characters)
        if len(self._stack) >= MAX_LEVELS:
            self.stop(Diagnostic(f"more than {MAX_LEVELS} levels of nesting", mark))
        self._require_value(mark)
        self._spend(1, 0, mark)
        if anchor is not None:
            self._name(anchor, mark)
            self._anchors[anchor] = _Anchor(mark.line)
        frame.path = self._place(container, mark)
        self._stack.append(frame)

    def end(self) -> None:
        """Close the innermost list or dict."""
        frame = self._stack.pop()
        self._raise_height(frame.height)
        if frame.anchor is not None:
            anchor = self._anchors[frame.anchor]
            anchor.is_open, anchor.value, anchor.height = False, frame.container, frame.height
            anchor.nodes = self._nodes - frame.nodes
            anchor.characters = self._characters - frame.characters

    def alias(self, name: str, mark: Mark) -> None:
        """Put a copy of what an anchor names here; it costs what the original costs."""
        self._require_value(mark)
        anchor = self._anchors.get(name)
        if anchor is None:
            self.note(f"no anchor '&{name}' stands above", mark, "quote the text if the '*' belongs to it")
            anchor = _Anchor(mark.line)
        elif anchor.is_open:
            self.note(f"the alias '*{name}' stands inside of what it stands for", mark)
        self._spend(anchor.nodes, anchor.characters, mark)
        if len(self._stack) + anchor.height > MAX_LEVELS:
            self.stop(Diagnostic(f"more than {MAX_LEVELS} levels of nesting, with this alias", mark))
        self._place(_copy(anchor.value), mark)
        self._raise_height(anchor.height)

    def _take_key(self, frame: _Frame, text: str, mark: Mark, *, is_text: bool, is_plain: bool) -> None:
        assert isinstance(frame.container, dict)
        path = (*frame.path, text)
        if not is_text:
            hint = f"quote it: '{text}'" if text else "write a name before the ':'"
            self.note(f"the key {text} is not text" if text else "a key is missing", mark, hint, path)
        elif is_plain and text == "<<":
            self.note("merge keys are not supported", mark, "write the fields out, or quote the key", path)
        elif not text.isascii() and _HIDDEN.search(text):
            self.note("this key holds a character that cannot be seen", mark, "write it anew", path)
        if text in frame.container:
            first = self.key_marks[path].line
            self.note(f"duplicate key '{text}'; the first is on line {first}", mark, "keep one of them", path)
        else:
            self.key_marks[path] = mark
        frame.container[text] = None
        frame.key = text

    def _place(self, value: JsonLike, mark: Mark) -> Path:
        """Put a value where one is expected and return its path."""
        if not self._stack:
            self.root = value
            self.marks[()] = mark
            return ()
        frame = self._stack[-1]
        path = self._path(frame)
        if isinstance(frame.container, list):
            frame.container.append(value)
        else:
            assert frame.key is not None
            frame.container[frame.key] = value
            frame.key = None
        self.marks[path] = mark
        return path

    @staticmethod
    def _path(frame: _Frame | None) -> Path:
        """Say where the next value belongs; for a key that is still to come, the mapping."""
        if frame is None:
            return ()
        if isinstance(frame.container, list):
            return (*frame.path, len(frame.container))
        return frame.path if frame.key is None else (*frame.path, frame.key)

    def _require_value(self, mark: Mark) -> None:
        """Stop where a key is expected and something other than a scalar comes."""
        frame = self._stack[-1] if self._stack else None
        if frame is not None and frame.key is None and isinstance(frame.container, dict):
            hint = "quote the text if the brackets or the '*' belong to it; a reference is written ${name}"
            self.stop(Diagnostic("a key must be text, not a list, a mapping or an alias", mark, hint, frame.path))

    def _name(self, anchor: str, mark: Mark) -> None:
        known = self._anchors.get(anchor)
        if known:
            self.note(f"the anchor '&{anchor}' is on line {known.line} already", mark, "use another name")

    def _spend(self, nodes: int, characters: int, mark: Mark) -> None:
        self._nodes += nodes
        self._characters += characters
        most = self.limits
        if self._nodes > most.nodes or self._characters > most.mebibytes * 2**20:
            amount = f"{most.nodes:,} values or {most.mebibytes} MiB of text"
            self.stop(Diagnostic(f"with its aliases, the file holds more than {amount}", mark, most.advice))

    def _raise_height(self, height: int) -> None:
        if self._stack:
            self._stack[-1].height = max(self._stack[-1].height, height + 1)


def _copy(value: JsonLike) -> JsonLike:
    """Copy a value; it has at most 64 levels, so it may call itself."""
    if isinstance(value, list):
        return [_copy(item) for item in value]
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return value
