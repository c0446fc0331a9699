"""What a text must be before a YAML parser sees it, and what the parser's errors mean in plain words.

Nothing here needs a YAML library. Characters that cannot be seen, or that change the order in which a line is
shown, make a file say one thing to its reader and another to kflow ("Trojan source", CVE-2021-42574).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice

from kflow.composer import MAX_LEVELS, WRITTEN, Limits
from kflow.diagnostics import Diagnostic, Source, visible
from kflow.errors import WorkflowError

_SHOWN = 10  # of the characters that are wrong: a binary file holds thousands

# Controls, surrogates, odd line breaks: nowhere. Bidirectional and invisible characters: only in block text.
_CONTROL = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff"
_FORMAT = r"\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufff9-\ufffb\U000e0000-\U000e007f"
_CONTROLS = re.compile(f"[{_CONTROL}]")
_FORMATS = re.compile(f"[{_FORMAT}]")
IN_BLOCKS_ONLY = rf"[\r{_CONTROL}{_FORMAT}]"
"""A pattern for the characters that a value in quotes may not hold, not even escaped."""

# What PyYAML and libyaml say, what kflow says, a hint, and whether to blame the start of the construct. These patterns
# are compiled when something is wrong: each run would pay for them.
_PLAIN_WORDS = (
    (r"tab character|'\\t'", "a tab is used for indentation", "YAML indents with spaces only", False),
    (r"a tag|tag handle", "tags such as !!str are not supported", "remove the tag", False),
    (r"directive|incompatible", "lines such as %YAML are not supported", "remove the line", False),
    ("mapping values are", "unexpected ':'", "quote the text, or check the indentation", False),
    ("mapping keys are", "unexpected '?'", "quote the text", False),
    ("sequence entries are", "unexpected '-'", "start the list on a line of its own", False),
    ("expected ':'", "a ':' is missing after this key", None, True),
    ("cannot start any token", "text cannot start with this character", "quote the text", False),
    (r"',' or '\]'", "a ',' or the ']' of a list is missing", None, False),
    (r"',' or '\}'", "a ',' or the '}' of a mapping is missing", None, False),
    ("unexpected (end of stream|document)", "the quote is never closed", None, True),
    ("escape|hex", "this escape is unknown", "single quotes keep backslashes as they are", False),
    ("alphabetic or numeric", "'*' and '&' begin an alias or an anchor", "quote the text", True),
    ("node content", "a value is missing here", "quote text that starts with a bracket or comma", False),
    ("block scalar", "only + - or 1 to 9 may follow '|' or '>'", "start the text on the next line", False),
    ("document start", "the document has ended before this", "keep one document per file", False),
    ("block", "this does not fit what stands above", "check the indentation and the quotes", False),
)


def decode(text: str | bytes, name: str, limits: Limits = WRITTEN) -> Source:
    r"""Check the size, the encoding and the characters of a text.

    Parameters
    ----------
    text : str or bytes
        Bytes are UTF-8.
    name : str
        What diagnostics call the text.
    limits : Limits
        How large it may be; default 4 MiB.

    Returns
    -------
    Source
        The text without a byte order mark.

    Raises
    ------
    WorkflowError
        The text is too large, is not UTF-8, or holds control characters or lone surrogates.

    Examples
    --------
    >>> decode(b"caf\xc3\xa9: 1", "a.yaml").text
    'café: 1'
    """
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if len(data) > limits.mebibytes * 2**20:
        message = f"the file is larger than {limits.mebibytes} MiB"
        raise WorkflowError([Diagnostic(message, None, limits.advice)], Source(name, ""))
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8")
        except UnicodeDecodeError as error:
            source = Source(name, data.decode("utf-8", "replace"))
            mark = source.mark(len(data[: error.start].decode("utf-8")))
            message = f"the file is not UTF-8: it holds the byte 0x{data[error.start]:02x}"
            raise WorkflowError([Diagnostic(message, mark, "save it as UTF-8")], source) from None
    source = Source(name, text.removeprefix("\ufeff"))
    found = [_forbid(match, source) for match in islice(_CONTROLS.finditer(source.text), _SHOWN)]
    if found:
        raise WorkflowError(found, source)
    return source


def find_hidden(source: Source, spans: Iterable[tuple[int, int]]) -> list[Diagnostic]:
    """Complain about characters that only block text may hold; the spans are what lies outside of it."""
    if source.text.isascii():  # nearly all texts, and they hold none of them
        return []
    matches = (match for start, stop in spans for match in _FORMATS.finditer(source.text, start, stop))
    return [_forbid(match, source) for match in islice(matches, _SHOWN)]


def find_escaped(value: str, raw: str) -> str | None:
    """Find a character that a value holds by an escape only, and that no value may hold."""
    return min(set(re.findall(IN_BLOCKS_ONLY, value)) - set(raw), default=None)


def explain(problem: str, index: int, start: int, source: Source) -> Diagnostic:
    """Say what is wrong with a text in the words of its reader, not in those of a YAML parser.

    Parameters
    ----------
    problem : str
        What PyYAML or libyaml says: its context and its problem.
    index, start : int
        Where in the text the parser gave up, and where it began the list, text or mapping that it was in.
    source : Source
        The text.

    Returns
    -------
    Diagnostic
        Blames the start where nothing follows the problem, because the end of a file is never the mistake.

    Examples
    --------
    >>> explain("while scanning a quoted scalar: found unexpected end of stream", 5, 3, Source("", "a: 'b"))
    Diagnostic(message='the quote is never closed', mark=Mark(line=1, column=4, length=1), hint=None, path=())
    """
    text = source.text
    line_start = max(text.rfind("\n", 0, index), text.rfind("\r", 0, index)) + 1
    indent = re.compile(r"[ \t]*").match(text, line_start)
    if indent is not None and "\t" in indent[0]:
        mark = source.mark(line_start + indent[0].index("\t"))
        return Diagnostic("a tab is used for indentation", mark, "YAML indents with spaces only")
    if "nesting depth" in problem:  # libyaml looks ahead, and gives up before anybody has counted
        opened = [match.start() for match in islice(re.finditer(r"[\[{]", text), MAX_LEVELS + 1)]
        return Diagnostic(f"more than {MAX_LEVELS} levels of nesting", source.mark(opened[-1]))
    words = next((row for row in _PLAIN_WORDS if re.search(row[0], problem)), None)
    _, message, hint, from_start = words or (None, f"this is not valid YAML: {problem}", None, False)
    if text[max(0, index - 1) : index + 1] == "${":
        hint = "inside [ ] and { } a reference needs quotes: '${...}'"
    return Diagnostic(message, source.mark(start if from_start or not text[index:].strip() else index), hint)


def _forbid(match: re.Match[str], source: Source) -> Diagnostic:
    message = f"the character {visible(match[0])} is not allowed"
    return Diagnostic(message, source.mark(match.start()), "remove it; it cannot be seen")
