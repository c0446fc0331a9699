r"""Located complaints about a text, and how they are shown: place, line, caret and hint.

Everything that comes from a file is untrusted: characters that a terminal would obey instead of show are
printed as escapes such as ``\x1b`` or ``\u202e``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

Path: TypeAlias = tuple[str | int, ...]

_LINE_BREAK = re.compile(r"\r\n|\r|\n")
_CLIP = 100  # characters of a source line that are shown
_TAB = "    "
_NAME_LIMIT = 100  # comparing longer names costs more than a suggestion is worth

# Letters that look like Latin ones (Unicode's confusables list, the Cyrillic and Greek rows that matter).
_LOOKALIKES = str.maketrans(
    dict(
        zip(
            "авеԁɡһіјӏкоԛрѕтԝхусѵнмАВЕІЈКМНОРЅТХУСԚԜΑΒΕΖΗΙΚΜΝΟΡΤΥΧαινορτυχγ",
            "abedghijlkoqpstwxycvhmABEIJKMHOPSTXYCQWABEZHIKMNOPTYXaivoptuxy",
            strict=True,
        )
    )
)


class Mark(NamedTuple):
    """A place in a text: line and column, both from 1, and how many characters it spans.

    Columns and lengths count code points, not cells of a screen. (A workflow has thousands: tuples are made fastest.)
    """

    line: int
    column: int
    length: int = 1


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One located complaint: what is wrong, where, and perhaps what to do about it."""

    message: str
    mark: Mark | None
    hint: str | None = None
    path: Path = ()


@dataclass(frozen=True, slots=True)
class Source:
    """A text and the name that its reader knows it by."""

    name: str
    text: str

    def lines(self) -> list[str]:
        r"""Split the text where YAML does: at ``\n``, ``\r\n`` or ``\r``."""
        return _LINE_BREAK.split(self.text)

    def mark(self, index: int) -> Mark:
        """Turn an offset into the text into a mark."""
        before = _LINE_BREAK.split(self.text[:index])
        return Mark(len(before), len(before[-1]) + 1)

    def report(self, diagnostics: Iterable[Diagnostic]) -> str:
        """Render diagnostics of this text; the same as `render_all`."""
        return render_all(diagnostics, self)


def visible(text: str) -> str:
    r"""Show text that is not trusted: what cannot be printed becomes an escape.

    Parameters
    ----------
    text : str
        Any text, lone surrogates included.

    Returns
    -------
    str
        The text on one line, without controls, invisible or bidirectional formatting characters.

    Examples
    --------
    >>> print(visible("red\x1b[31m"))
    red\x1b[31m
    """
    return text if text.isprintable() else "".join(map(_shown, text))


def render(diagnostic: Diagnostic, source: Source) -> str:
    r"""Show a diagnostic with the line that it is about.

    Parameters
    ----------
    diagnostic : Diagnostic
        What to show; without a mark only the name of the source stands before the message.
    source : Source
        The text that the mark points into.

    Returns
    -------
    str
        Two to four lines joined by line feeds, with none at the end.

    Examples
    --------
    >>> source = Source("digits.yaml", "fit:\n  epoch: 5")
    >>> print(render(Diagnostic("unknown field 'epoch'", Mark(2, 3, 5), "did you mean 'epochs'?"), source))
    digits.yaml:2:3: unknown field 'epoch'
      epoch: 5
      ^^^^^
      did you mean 'epochs'?
    """
    return _render(diagnostic, source.name, source.lines())


def render_all(diagnostics: Iterable[Diagnostic], source: Source) -> str:
    """Show diagnostics in the order of the text, and how many there are.

    Parameters
    ----------
    diagnostics : iterable of Diagnostic
        In any order; those without a mark come first.
    source : Source
        The text that the marks point into.

    Returns
    -------
    str
        The rendered diagnostics, each on lines of its own, and a last line such as ``2 problems``.

    Examples
    --------
    >>> print(render_all([Diagnostic("the file is empty", None)], Source("a.yaml", "")))
    a.yaml: the file is empty
    1 problem
    """
    lines = source.lines()
    ordered = sorted(diagnostics, key=_position)
    count = "1 problem" if len(ordered) == 1 else f"{len(ordered)} problems"
    return "\n".join([*(_render(diagnostic, source.name, lines) for diagnostic in ordered), count])


def suggest(name: str, candidates: Iterable[str]) -> str | None:
    """Guess which of the known names was meant.

    Parameters
    ----------
    name : str
        The name that is not known.
    candidates : iterable of str
        The names that are; the first of equally similar ones wins.

    Returns
    -------
    str or None
        A hint such as ``did you mean 'epochs'?``, with a note on letters that only look Latin; None when
        nothing is similar and no letter is suspicious.

    Examples
    --------
    >>> suggest("Epoch", ["batch_size", "epochs"])
    "did you mean 'epochs'?"
    """
    if len(name) > _NAME_LIMIT:
        return None
    match = _closest(name, list(candidates))
    parts = []
    if match is not None:
        parts.append(f"did you mean '{visible(match)}'?")
    if match is not None or re.search("[A-Za-z]", name):  # a name all in one script is no mix-up
        parts += [_note(letter) for letter in _confusable(name) if letter not in (match or "")]
    return " ".join(parts) or None


def _closest(name: str, candidates: Sequence[str]) -> str | None:
    """Pick the candidate that reads most like the name, whatever the case and script of its letters."""
    folded: dict[str, str] = {}
    for candidate in candidates:
        folded.setdefault(_fold(candidate), candidate)
    import difflib  # only here, as most workflows have nothing wrong

    found = difflib.get_close_matches(_fold(name), folded, n=1)
    return folded[found[0]] if found else None


def _fold(name: str) -> str:
    return unicodedata.normalize("NFKC", name).translate(_LOOKALIKES).casefold()


def _confusable(name: str) -> list[str]:
    """List the letters, each once, that look like Latin ones but are not."""
    latin = (letter for letter in dict.fromkeys(name) if letter.isalpha() and not letter.isascii())
    return [letter for letter in latin if unicodedata.normalize("NFKC", letter).translate(_LOOKALIKES).isascii()]


def _note(letter: str) -> str:
    return f"('{letter}' is {unicodedata.name(letter, 'a letter without a name')}, U+{ord(letter):04X})"


def _position(diagnostic: Diagnostic) -> tuple[int, int]:
    mark = diagnostic.mark
    return (mark.line, mark.column) if mark else (0, 0)


def _render(diagnostic: Diagnostic, name: str, lines: Sequence[str]) -> str:
    mark = diagnostic.mark
    place = f"{name}:{mark.line}:{mark.column}" if mark else name
    shown = [f"{visible(place)}: {visible(diagnostic.message)}"]
    if mark and mark.line <= len(lines) and lines[mark.line - 1].strip():
        shown += _snippet(lines[mark.line - 1], mark)
    if diagnostic.hint:
        shown.append(f"  {visible(diagnostic.hint)}")
    return "\n".join(shown)


def _snippet(line: str, mark: Mark) -> list[str]:
    """Show a line, clipped around the mark, and carets under the cells that the marked characters take."""
    column = min(mark.column - 1, len(line))
    start = max(0, min(column - _CLIP // 2, len(line) - _CLIP))
    stop = min(len(line), start + _CLIP)
    before = ("…" if start else "") + "".join(map(_shown, line[start:column]))
    marked = "".join(map(_shown, line[column : min(stop, column + mark.length)]))
    after = "".join(map(_shown, line[column + mark.length : stop])) + ("…" if stop < len(line) else "")
    return [(before + marked + after).rstrip(), " " * _cells(before) + "^" * max(1, _cells(marked))]


def _shown(character: str) -> str:
    if character.isprintable():
        return character
    if character == "\t":
        return _TAB
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _cells(text: str) -> int:
    """Count the cells of a screen that text takes: two for wide characters, none for combining ones."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.category(c) in {"Mn", "Me"} else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )
