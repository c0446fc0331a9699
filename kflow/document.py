"""YAML text to values with positions; the only module of kflow that knows YAML.

Text is read by PyYAML's parser as events, which are cheap and harmless, and put together under the rules
of YAML 1.2's core schema: ``1e-3`` is a number, ``no`` and dates are text, ``010`` is ten. What makes YAML
dangerous or surprising (tags, merge keys, cycles, duplicate keys, keys that are no text, exploding aliases,
characters that cannot be seen) is refused with its place in the file.
"""

from __future__ import annotations

import errno
import hashlib
import math
import pathlib
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import yaml

from kflow.composer import WRITTEN, Composer, JsonLike, Limits, resolve
from kflow.diagnostics import Diagnostic, Mark, Path, Source, render, visible
from kflow.errors import UsageError, WorkflowError
from kflow.syntax import decode, explain, find_escaped, find_hidden

__all__ = ["Document", "JsonLike", "dump_document", "load_document", "parse_document", "parse_scalar"]

# libyaml's parser is about ten times as fast; the pure one gives the same events.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_Event: TypeAlias = Any  # the stubs make every mark optional, which those of events never are
_REST_OF_LINE = re.compile(r"[^\r\n]*")


@dataclass(frozen=True, slots=True)
class Document:
    r"""A parsed text: its value, and where each value and each key of it stands.

    Attributes
    ----------
    source : Source
        The text, without a byte order mark.
    value : dict of str to JsonLike
        None, bool, int, float, str, list and dict, the dicts in the order of the text.
    marks, key_marks : mapping of path to Mark
        Paths are tuples such as ``("layers", 0, "units")``; ``()`` is the document. An alias has a mark, what
        it stands for has none of its own.
    sha256 : str
        The SHA-256 of the bytes, in hexadecimal digits.

    Examples
    --------
    >>> document = parse_document("fit:\n  epochs: 5", "a.yaml")
    >>> document.value, document.mark(("fit", "epochs")), document.key_mark(("fit", "epochs", "x"))
    ({'fit': {'epochs': 5}}, Mark(line=2, column=11, length=1), Mark(line=2, column=3, length=6))
    """

    source: Source
    value: dict[str, JsonLike]
    marks: Mapping[Path, Mark]
    key_marks: Mapping[Path, Mark]
    sha256: str

    def mark(self, path: Path) -> Mark:
        """Find the value at a path, or the nearest value around it that the text holds."""
        while path not in self.marks:
            path = path[:-1]
        return self.marks[path]

    def key_mark(self, path: Path) -> Mark:
        """Find the key at a path, or the nearest key or list item around it that the text holds."""
        while path:
            known = (self.marks if isinstance(path[-1], int) else self.key_marks).get(path)
            if known:
                return known
            path = path[:-1]
        return self.marks[()]


def load_document(path: pathlib.Path, limits: Limits = WRITTEN) -> Document:
    """Read and parse a file.

    Parameters
    ----------
    path : pathlib.Path
        The file; its name as given stands in all diagnostics.
    limits : Limits
        How much it may hold; default what `parse_document` says.

    Returns
    -------
    Document
        The same as `parse_document` of the file's bytes.

    Raises
    ------
    UsageError
        There is no such file, it is a directory or a device, or it cannot be read.
    WorkflowError
        The text is no YAML, or YAML that kflow refuses.

    Examples
    --------
    >>> load_document(pathlib.Path("nowhere.yaml"))
    Traceback (most recent call last):
    kflow.errors.UsageError: nowhere.yaml: there is no such file; check the name and the current directory
    """
    try:
        data = _read(path, limits.mebibytes * 2**20)
    except FileNotFoundError:
        reason = "there is no such file; check the name and the current directory"
    except IsADirectoryError:
        reason = "this is a directory; name the workflow file in it"
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = f"the file cannot be read: {getattr(error, 'strerror', None) or error}"
    else:
        return parse_document(data, str(path), limits)
    raise UsageError(f"{visible(str(path))}: {reason}")


def _read(path: pathlib.Path, most: int) -> bytes:
    """Read a file, or what is piped in; opening any other pipe or device may wait forever or have effects."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or str(path) == "/dev/stdin"):
        raise OSError(errno.EINVAL, "it is no regular file")
    with path.open("rb") as file:
        return file.read(most + 1)  # one more than allowed is enough to refuse it


def parse_document(text: str | bytes, name: str, limits: Limits = WRITTEN) -> Document:
    r"""Parse the text of a workflow.

    Parameters
    ----------
    text : str or bytes
        One YAML document; bytes are UTF-8, with or without a byte order mark.
    name : str
        What diagnostics call the text, such as the path of its file.
    limits : Limits
        How much it may hold; default that of a text that people write.

    Returns
    -------
    Document
        The value, which is a mapping, with the places of everything in it.

    Raises
    ------
    WorkflowError
        The text is no YAML, or YAML that kflow refuses; whatever is found before reading becomes impossible
        is reported at once.

    Notes
    -----
    Scalars follow the core schema of YAML 1.2.2, section 10.3.2. Limits: 64 levels, 400 digits, and by
    default 4 MiB and 200,000 nodes; aliases count with all that they stand for.

    Examples
    --------
    >>> parse_document("rate: 1e-3\nlast: no", "a.yaml").value
    {'rate': 0.001, 'last': 'no'}
    """
    source = decode(text, name, limits)
    composer = _compose(source, limits)
    root = composer.root
    if root is None:
        composer.stop(Diagnostic("the file is empty", Mark(1, 1), "a workflow starts with 'kflow: 1'"))
    if not isinstance(root, dict):
        hint = "write lines such as 'kflow: 1'"
        composer.stop(Diagnostic("the top level must be a mapping", composer.marks[()], hint))
    sha256 = hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()
    return Document(source, root, composer.marks, composer.key_marks, sha256)


def parse_scalar(text: str) -> JsonLike:
    """Parse a value given on the command line, as in ``--set name=value``.

    Parameters
    ----------
    text : str
        A list or mapping in YAML's flow style, text in quotes, or a plain scalar. A plain scalar may hold
        anything, so ``a: b``, ``#1`` and ``*.h5`` are text; nothing at all is None.

    Returns
    -------
    JsonLike
        The value that the same text has in a workflow.

    Raises
    ------
    UsageError
        Brackets or quotes do not match, or the text holds what a workflow may not hold.

    Examples
    --------
    >>> parse_scalar("1e-3"), parse_scalar("no"), parse_scalar("[1, {a: 2}]")
    (0.001, 'no', [1, {'a': 2}])
    """
    text = text.strip()
    shape = {"[": list, "{": dict, '"': str, "'": str}.get(text[:1])
    try:
        source = decode(text, "value")
        root = _compose(source).root if shape else _plain(source)
    except ValueError as error:
        raise UsageError(f"{visible(text)}: {error}") from None
    except WorkflowError as error:
        raise UsageError(render(error.diagnostics[0], error.source)) from None
    if shape and not isinstance(root, shape):
        raise UsageError(f"{visible(text)}: only one list, one mapping or one text in quotes can be given")
    return root


def dump_document(value: Mapping[str, JsonLike], head: str) -> str:
    r"""Return YAML that `parse_document` reads as the same value, below a comment.

    Parameters
    ----------
    value : mapping
        None, bool, int, float, str, list and dict.
    head : str
        One line that says what it is.

    Returns
    -------
    str
        The text; the keys stay in their order.

    Examples
    --------
    >>> print(dump_document({"a": {"b": [1, "no"]}}, "An example."), end="")
    # An example.
    a:
      b:
      - 1
      - 'no'
    """
    body: str = yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110, default_flow_style=False
    )
    return f"# {head}\n{body}"


class _Dumper(yaml.SafeDumper):
    """Writes numbers so that they are read as the numbers that they are."""

    def ignore_aliases(self, data: object) -> bool:
        """Write a value again where it stands twice."""
        del data
        return True


def _represent_float(dumper: _Dumper, value: float) -> yaml.ScalarNode:
    text = repr(value) if math.isfinite(value) else {"inf": ".inf", "-inf": "-.inf"}.get(str(value), ".nan")
    # The tag that PyYAML would read from the text, so that it writes none: to it 1e-05 is no number.
    return dumper.represent_scalar(str(dumper.resolve(yaml.ScalarNode, text, (True, False))), text)  # type: ignore[no-untyped-call]


def _represent_text(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    is_plain = isinstance(resolve(value), str)  # PyYAML's own rules are those of YAML 1.1, to which 1e3 is a text
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=None if is_plain else "'")


_Dumper.add_representer(float, _represent_float)
_Dumper.add_representer(str, _represent_text)


def _plain(source: Source) -> JsonLike:
    hidden = find_hidden(source, [(0, len(source.text))])
    if hidden:
        raise WorkflowError(hidden, source)
    return resolve(source.text)


def _compose(source: Source, limits: Limits = WRITTEN) -> Composer:
    """Read all events of a text; WorkflowError with everything that is wrong with it."""
    reader = _Reader(Composer(source, limits))
    composer = reader.composer
    event: _Event = None
    try:
        # Not yaml.parse, which asks whether there is a next event before it takes it.
        for event in iter(_LOADER(source.text).get_event, None):
            action = reader.actions.get(type(event))
            if action is not None:  # the ends of streams and documents say nothing
                action(event)
    except yaml.MarkedYAMLError as error:
        at = error.problem_mark.index if error.problem_mark else _end_of(event)
        start = error.context_mark.index if error.context_mark else at
        composer.stop(explain(f"{error.context}: {error.problem}", at, start, source))
    except (yaml.YAMLError, ValueError):  # ValueError: PyYAML on \U00110000, %YAML 1.<5,000 digits>, !%ff
        composer.stop(Diagnostic("this is not valid YAML", source.mark(_end_of(event))))
    hidden = find_hidden(source, reader.outside_block_text())
    if hidden or composer.diagnostics:
        composer.stop(*hidden)
    return composer


def _end_of(event: _Event) -> int:
    """Return how far reading came with an event, or without one."""
    return event.end_mark.index if event else 0


class _Reader:
    """Tells a composer what the events of PyYAML's parser say."""

    def __init__(self, composer: Composer) -> None:
        self.composer = composer
        self._text = composer.source.text
        self._lines = 1 + len(re.findall(r"\r\n|\r|\n", self._text))
        self._has_document = False
        self._edges = [0]  # where block text begins, ends, begins, ...
        self.actions: dict[type[yaml.Event], Callable[[_Event], None]] = {
            yaml.DocumentStartEvent: self._document,
            yaml.ScalarEvent: self._scalar,
            yaml.SequenceStartEvent: lambda event: self._start([], event),
            yaml.MappingStartEvent: lambda event: self._start({}, event),
            yaml.SequenceEndEvent: lambda _: composer.end(),
            yaml.MappingEndEvent: lambda _: composer.end(),
            yaml.AliasEvent: lambda event: composer.alias(event.anchor, self._mark(event)),
        }

    def outside_block_text(self) -> Iterator[tuple[int, int]]:
        """Give the spans of the text that lie around those of block text."""
        return zip(self._edges[::2], [*self._edges[1::2], len(self._text)], strict=True)

    def _document(self, event: _Event) -> None:
        mark = self._mark(event)
        if event.version or event.tags:
            self.composer.note("lines such as %YAML are not supported", mark, "remove the line")
        if self._has_document:
            hint = "keep one document per file"
            self.composer.stop(Diagnostic("a second document starts here", mark, hint))
        self._has_document = True

    def _scalar(self, event: _Event) -> None:
        mark = self._mark(event)
        style = event.style
        if style == '"':
            self._check_escapes(event, mark)
        elif style in {"|", ">"}:
            header = _REST_OF_LINE.match(self._text, event.start_mark.index)
            self._edges += [header.end() if header else 0, event.end_mark.index]
        if event.tag:
            self._refuse_tag(event.tag, mark)
        is_plain = not style and not event.tag  # the tag '!' makes text of any scalar
        self.composer.scalar(event.value, mark, is_plain=is_plain, anchor=event.anchor)

    def _start(self, container: list[JsonLike] | dict[str, JsonLike], event: _Event) -> None:
        mark = self._mark(event)
        if event.tag:
            self._refuse_tag(event.tag, mark)
        self.composer.start(container, mark, event.anchor)

    def _mark(self, event: _Event) -> Mark:
        start, end = event.start_mark, event.end_mark
        line, column = start.line, start.column
        length = end.column - column if end.line == line else 1
        if line >= self._lines:  # what is missing at the end lies on a line that is not there
            line = self._lines - 1
        return Mark(line + 1, column + 1, length if length > 0 else 1)

    def _refuse_tag(self, tag: str, mark: Mark) -> None:
        if tag != "!":
            self.composer.note("tags such as !!str are not supported", mark, "remove the tag")

    def _check_escapes(self, event: _Event, mark: Mark) -> None:
        raw = self._text[event.start_mark.index : event.end_mark.index]
        hidden = find_escaped(event.value, raw)
        if hidden is not None:
            self.composer.note(f"the character {visible(hidden)} is not allowed, even as an escape", mark)
