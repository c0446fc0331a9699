"""Documents: what YAML means to kflow, where everything stands, and all that is refused."""

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kflow import document as document_module
from kflow.diagnostics import Mark
from kflow.document import Document, JsonLike, load_document, parse_document, parse_scalar
from kflow.errors import UsageError, WorkflowError

LOADERS = [yaml.CSafeLoader, yaml.SafeLoader]  # a Python without libyaml has only the second

WORKFLOW = """\
kflow: 1
name: digits-cnn
params: {epochs: 5, classes: [10, 11], "rate": 1e-3}
steps:
  archive: &download
    kind: fetch
    origin: 'data/digits.h5'   # a path beside this file
    note: |
      Several lines
      of text.
  again: *download
  layers:
  - Dense
  - kind: Dropout
    rate: .5
"""


@pytest.fixture(params=LOADERS, ids=["libyaml", "pure"])
def loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test on both parsers, which must behave the same."""
    monkeypatch.setattr(document_module, "_LOADER", request.param)


def problems(text: str | bytes) -> list[str]:
    """List what is wrong with a text as ``line:column message``."""
    with pytest.raises(WorkflowError, match="problem") as caught:
        parse_document(text, "w.yaml")
    return [f"{d.mark.line}:{d.mark.column} {d.message}" if d.mark else d.message for d in caught.value.diagnostics]


# The core schema of YAML 1.2.2 (section 10.3.2), and the traps of YAML 1.1.
SCALARS: list[tuple[str, JsonLike]] = [
    ("", None),
    ("~", None),
    ("null", None),
    ("Null", None),
    ("NULL", None),
    ("nULL", "nULL"),
    ("true", True),
    ("True", True),
    ("FALSE", False),
    ("tRUE", "tRUE"),
    ("yes", "yes"),
    ("no", "no"),
    ("on", "on"),
    ("Off", "Off"),
    ("y", "y"),
    ("0", 0),
    ("-0", 0),
    ("+12", 12),
    ("-19", -19),
    ("010", 10),
    ("0123", 123),
    ("09", 9),
    ("0o14", 12),
    ("0O14", "0O14"),
    ("0o8", "0o8"),
    ("0x1F", 31),
    ("-0x1F", "-0x1F"),
    ("0b11", "0b11"),
    ("1_000", "1_000"),
    ("1,000", "1,000"),
    ("12345678901234567890123", 12345678901234567890123),
    ("1e-3", 0.001),
    ("2e-5", 0.00002),
    ("1E5", 100000.0),
    ("1e+2", 100.0),
    (".5", 0.5),
    ("-.5e1", -5.0),
    ("1.", 1.0),
    ("3.10", 3.1),
    ("1e", "1e"),
    (".", "."),
    (".e3", ".e3"),
    ("+", "+"),
    ("-x", "-x"),
    ("1.2.3", "1.2.3"),
    (".inf", math.inf),
    ("+.Inf", math.inf),
    ("-.INF", -math.inf),
    ("inf", "inf"),
    (".nan", math.nan),
    ("nan", "nan"),
    ("12:30", "12:30"),
    ("22:22:22", "22:22:22"),
    ("2024-01-02", "2024-01-02"),
    ("2001-12-14t21:59:43.10-05:00", "2001-12-14t21:59:43.10-05:00"),
    ("=", "="),
    ("<<", "<<"),
    ("${params.epochs}", "${params.epochs}"),
    ("http://a.org/b#c", "http://a.org/b#c"),
    ("1 # one", 1),
    ("١٢", "١٢"),
    ("'1'", "1"),
    ('"true"', "true"),
    ("''", ""),
    ('"a\\tb\\n\\u00e9"', "a\tb\né"),
    ("! 12", "12"),
    ("|\n  12\n", "12\n"),
    (">-\n  a\n  b\n", "a b"),
    ("two words", "two words"),
]


@pytest.mark.usefixtures("loader")
@pytest.mark.parametrize(("text", "expected"), SCALARS)
def test_scalar_means_what_yaml_1_2_says(text: str, expected: JsonLike) -> None:
    """Plain scalars follow the core schema; quoted and block scalars are text."""
    value = parse_document(f"x: {text}", "w.yaml").value["x"]

    assert (type(value), repr(value)) == (type(expected), repr(expected))


@pytest.mark.usefixtures("loader")
def test_document_has_values_and_their_places() -> None:
    """Every value and every key of a workflow has its line, its column and its length."""
    document = parse_document(WORKFLOW, "w.yaml")
    archive = {"kind": "fetch", "origin": "data/digits.h5", "note": "Several lines\nof text.\n"}

    assert document.value == {
        "kflow": 1,
        "name": "digits-cnn",
        "params": {"epochs": 5, "classes": [10, 11], "rate": 0.001},
        "steps": {
            "archive": archive,
            "again": archive,
            "layers": ["Dense", {"kind": "Dropout", "rate": 0.5}],
        },
    }
    assert document.mark(("params", "classes", 1)) == Mark(3, 35, 2)
    assert document.mark(("steps", "archive", "origin")) == Mark(7, 13, 16)
    assert document.mark(("steps", "layers", 1, "rate")) == Mark(15, 11, 2)
    assert document.key_mark(("params", "rate")) == Mark(3, 40, 6)
    assert document.key_mark(("steps", "archive")) == Mark(5, 3, 7)


def test_unknown_path_blames_the_nearest_known_place() -> None:
    """A field that is missing, or stands behind an alias, is blamed on what is there."""
    document = parse_document(WORKFLOW, "w.yaml")

    assert document.mark(("steps", "layers", 0, "units")) == Mark(13, 5, 5)
    assert document.mark(("steps", "again", "kind")) == Mark(11, 10, 9)
    assert document.mark(("nowhere",)) == document.mark(()) == Mark(1, 1)
    assert document.key_mark(("steps", "archive", "x", 1)) == Mark(5, 3, 7)
    assert document.key_mark(("steps", "again", "kind")) == Mark(11, 3, 5)
    assert document.key_mark(("steps", "layers", 1, "kinds")) == Mark(14, 5)
    assert document.key_mark(("nowhere", 3)) == Mark(1, 1)


def test_alias_gives_a_copy() -> None:
    """Changing what an alias stands for leaves the original as it is."""
    value = parse_document("a: &x [1, {b: 2}]\nc: *x\n", "w.yaml").value
    assert isinstance(value["c"], list)
    value["c"].append(3)

    assert value == {"a": [1, {"b": 2}], "c": [1, {"b": 2}, 3]}


@pytest.mark.parametrize("data", [b"\xef\xbb\xbfa: \xc3\xa9\r\n", "\ufeffa: é", "a: é".encode()])
def test_utf_8_is_read_with_and_without_a_byte_order_mark(data: str | bytes) -> None:
    """The byte order mark that some editors write changes neither the value nor the columns."""
    document = parse_document(data, "w.yaml")

    assert (document.value, document.key_mark(("a",))) == ({"a": "é"}, Mark(1, 1))


MANY = 200_000

REFUSED: dict[str, tuple[str | bytes, list[str]]] = {
    "empty": ("", ["1:1 the file is empty"]),
    "comment": ("# nothing\n", ["1:1 the file is empty"]),
    "dashes": ("---\n", ["1:1 the file is empty"]),
    "list": ("- a", ["1:1 the top level must be a mapping"]),
    "text": ("\n  a", ["2:3 the top level must be a mapping"]),
    "duplicates": (
        "a: 1\nb: {c: 1, c: 2}\na: 3\na: 4\n",
        [
            "2:11 duplicate key 'c'; the first is on line 2",
            "3:1 duplicate key 'a'; the first is on line 1",
            "4:1 duplicate key 'a'; the first is on line 1",
        ],
    ),
    "duplicates-in-duplicate": (
        "a: {b: 1}\na: {b: 2}\n",
        ["2:1 duplicate key 'a'; the first is on line 1"],
    ),
    "same-key-quoted": ("a: 1\n'a': 2", ["2:1 duplicate key 'a'; the first is on line 1"]),
    "keys": (
        "1: a\nnull: b\ntrue: c\n1.5: d\n? \n",
        [
            "1:1 the key 1 is not text",
            "2:1 the key null is not text",
            "3:1 the key true is not text",
            "4:1 the key 1.5 is not text",
            "5:2 a key is missing",
        ],
    ),
    "list-as-key": ("? [a]\n: 1", ["1:3 a key must be text, not a list, a mapping or an alias"]),
    "template": ("a: {{ b }}", ["1:5 a key must be text, not a list, a mapping or an alias"]),
    "alias-as-key": ("a: &x b\n*x : 1", ["2:1 a key must be text, not a list, a mapping or an alias"]),
    "merge-key": ("a: &x {b: 1}\nc: {<<: *x}", ["2:5 merge keys are not supported"]),
    "tags": (
        "a: !!str 1\nb: !Layer {c: 1}\nd: !!python/object/apply:os.system [ls]",
        [f"{i}:4 tags such as !!str are not supported" for i in (1, 2, 3)],
    ),
    "binary": ("a: !!binary aGk=", ["1:4 tags such as !!str are not supported"]),
    "tag-handle": ("a: !e!x 1", ["1:4 tags such as !!str are not supported"]),
    "directive": ("%YAML 1.1\n---\na: 1", ["1:1 lines such as %YAML are not supported"]),
    "new-version": ("%YAML 2.0\n---\na: 1", ["1:1 lines such as %YAML are not supported"]),
    "documents": ("a: 1\n---\nb: 2", ["2:1 a second document starts here"]),
    "after-the-end": ("a: 1\n...\nb: 2", ["3:1 the document has ended before this"]),
    "cycle": ("a: &x {b: *x}", ["1:11 the alias '*x' stands inside of what it stands for"]),
    "unknown-alias": ("a: *x", ["1:4 no anchor '&x' stands above"]),
    "same-anchor": ("a: &x 1\nb: &x 2", ["2:4 the anchor '&x' is on line 1 already"]),
    "glob": ("a: *.txt", ["1:4 '*' and '&' begin an alias or an anchor"]),
    "huge-integer": (f"a: {'9' * 401}", ["1:4 a number has at most 400 digits; quote it if it is text"]),
    "huge-hex": (f"a: 0x{'f' * 400}", ["1:4 a number has at most 400 digits; quote it if it is text"]),
    "huge-float": (
        "a: 1e999",
        ["1:4 this number is too large for a float; write .inf for infinity, or quote it"],
    ),
    "too-deep": ("[" * MANY, ["1:65 more than 64 levels of nesting"]),
    "too-deep-braces": ("{a: " * MANY, ["1:257 more than 64 levels of nesting"]),
    "too-deep-with-alias": (
        f"x: &x {'[' * 40}{']' * 40}\ny: {'[' * 24}*x{']' * 24}",
        ["2:28 more than 64 levels of nesting, with this alias"],
    ),
    "too-large": ("a" * (4 * 2**20 + 1), ["the file is larger than 4 MiB"]),
    "too-large-bytes": (b"a" * (4 * 2**20 + 1), ["the file is larger than 4 MiB"]),
    "alias-bomb": (
        "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30)),
        ["6:15 with its aliases, the file holds more than 200,000 values or 4 MiB of text"],
    ),
    "text-bomb": (
        f"a: &a {'x' * 100_000}\nb: [{', '.join(['*a'] * 100)}]",
        ["2:165 with its aliases, the file holds more than 200,000 values or 4 MiB of text"],
    ),
    "tab": ("a:\n\tb: 1", ["2:1 a tab is used for indentation"]),
    "tab-after-spaces": ("a:\n  b: 1\n \tc: 2\n", ["3:2 a tab is used for indentation"]),
    "tab-in-block": ("a: |\n  x\n\ty\n", ["3:1 a tab is used for indentation"]),
    "utf-16": ("a: 1".encode("utf-16"), ["1:1 the file is not UTF-8: it holds the byte 0xff"]),
    "latin-1": ("a: 1\nb: é".encode("latin-1"), ["2:4 the file is not UTF-8: it holds the byte 0xe9"]),
    "surrogate": ("a: \ud800", [r"1:4 the character \ud800 is not allowed"]),
    "control": ("a: 1 # \x1b[2J\x07", [rf"1:{c}" for c in (
        r"8 the character \x1b is not allowed", r"12 the character \x07 is not allowed")]),
    "line-separator": ("a: 1\u2028b: 2", [r"1:5 the character \u2028 is not allowed"]),
    "bidi": ("a: 1 # \u202e\nb: \u2066x", [
        r"1:8 the character \u202e is not allowed", r"2:4 the character \u2066 is not allowed"]),
    "bidi-beside-block-text": ("a: | # \u202e\n  x\n", [r"1:8 the character \u202e is not allowed"]),
    "escaped-control": ('a: "\\e[2J"', [r"1:4 the character \x1b is not allowed, even as an escape"]),
    "escaped-nul": ('"\\0": 1', [r"1:1 the character \x00 is not allowed, even as an escape"]),
    "escaped-bidi": ('a: ["\\u202e"]', [r"1:5 the character \u202e is not allowed, even as an escape"]),
    "hidden-in-key": ("a\u200cb: 1", ["1:1 this key holds a character that cannot be seen"]),
    "colon": ("a: b: c", ["1:5 unexpected ':'"]),
    "deeper": ("a: 1\n  b: 2", ["2:4 unexpected ':'"]),
    "shallower": ("a:\n  b: 1\n c: 2", ["3:2 this does not fit what stands above"]),
    "no-colon": ("a: 1\nb\nc: 2", ["2:1 a ':' is missing after this key"]),
    "open-list": ("a: [1,\n  2\n", ["1:4 a ',' or the ']' of a list is missing"]),
    "open-mapping": ("a: {b: 1\nc: 2", ["2:2 a ',' or the '}' of a mapping is missing"]),
    "open-quote": ("a: 'b\nc: 1", ["1:4 the quote is never closed"]),
    "after-quote": ("a: 'b' c", ["1:8 this does not fit what stands above"]),
    "at-sign": ("a: @b", ["1:4 text cannot start with this character"]),
    "dash": ("a: - b", ["1:4 unexpected '-'"]),
    "question": ("a: ? b", ["1:4 unexpected '?'"]),
    "nothing": ("a: [1,,2]", ["1:7 a value is missing here"]),
    "block-header": ("a: |x\n", ["1:5 only + - or 1 to 9 may follow '|' or '>'"]),
    "both": ("1: a\nb: [", ["1:1 the key 1 is not text", "2:5 a value is missing here"]),
}  # fmt: skip


@pytest.mark.usefixtures("loader")
@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_is_told_with_its_place(case: str) -> None:
    """Every trap of YAML ends in a plain sentence, with line and column, and every problem is told."""
    text, expected = REFUSED[case]

    assert problems(text) == expected


@pytest.mark.parametrize("text", [r'a: "\q"', r'a: "\xzz"', r'a: "\ud800"'])
def test_unknown_escape_is_refused(text: str) -> None:
    """A backslash in double quotes that means nothing, as in a path of Windows, is an error."""
    assert [problem.partition(" ")[2] for problem in problems(text)] == ["this escape is unknown"]


@pytest.mark.usefixtures("loader")
@pytest.mark.parametrize("text", [r'a: "\U00110000"', "a: !%ED%A0%80 x", f"%YAML 1.{'9' * 5000}\n---\na: 1"])
def test_what_breaks_a_parser_is_one_problem(text: str) -> None:
    """PyYAML fails on these with errors of other types, which never reach the user."""
    assert len(problems(text)) == 1


@pytest.mark.usefixtures("loader")
@pytest.mark.parametrize("text", ["a: [${b}]", "a: {c: ${b.c}}"])
def test_reference_in_brackets_gets_the_hint_that_helps(text: str) -> None:
    """A reference inside of flow style needs quotes, and the error says so."""
    with pytest.raises(WorkflowError, match=r"a reference needs quotes: '\$\{\.\.\.\}'"):
        parse_document(text, "w.yaml")


def test_reading_stops_after_a_hundred_problems() -> None:
    """A file that is no workflow does not fill the screen for ever."""
    found = problems("a: 1\n" * 1_000)

    assert len(found) == 101
    assert found[-1] == "101:1 too many problems; reading stopped here"


@pytest.mark.usefixtures("loader")
def test_limits_themselves_are_allowed() -> None:
    """Sixty-four levels, four hundred digits, two hundred thousand values and four MiB of text are fine."""
    nested = parse_document("a: " + "[" * 63 + "]" * 63, "w.yaml")
    number = parse_document("a: " + "9" * 400, "w.yaml").value["a"]
    large = parse_document("a: " + "x" * (4 * 2**20 - 3), "w.yaml").value["a"]

    assert max(map(len, nested.marks)) == 63
    assert number == 10**400 - 1
    assert large == "x" * (4 * 2**20 - 3)


def test_two_hundred_thousand_values_are_allowed_and_no_more() -> None:
    """The mapping, the list and all of its items together may reach the limit."""
    text = "a:\n" + "- b\n" * (MANY - 2)
    items = parse_document(text, "w.yaml").value["a"]

    assert items == ["b"] * (MANY - 2)
    assert problems(text + "- b\n") == [
        "200000:3 with its aliases, the file holds more than 200,000 values or 4 MiB of text"
    ]


def test_block_text_may_hold_characters_of_any_script() -> None:
    """Long text in Arabic or with emoji families needs formatting characters; names do not."""
    value = parse_document("a: |\n  \u202bx\u202c \U0001f468\u200d\U0001f469\nb: x\u200cy\n", "w.yaml").value

    assert value == {"a": "\u202bx\u202c \U0001f468\u200d\U0001f469\n", "b": "x\u200cy"}


# Laws


def walk(value: JsonLike, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], JsonLike]]:
    """Give every value inside of a value with its path."""
    yield path, value
    inner: list[tuple[str | int, JsonLike]] = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    for key, item in inner:
        yield from walk(item, (*path, key))


# Refused like the invisible characters between which they lie, though Unicode has given them to nobody.
unassigned = "\u2065\ufffe\uffff\U000e0000" + "".join(map(chr, range(0xE0002, 0xE0020)))
printable = st.text(
    st.characters(exclude_categories=["Cc", "Cf", "Cs", "Zl", "Zp"], exclude_characters=unassigned), max_size=30
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | printable,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(printable, inner, max_size=4),
    max_leaves=15,
)


@given(st.dictionaries(printable, json_values, max_size=5), st.sampled_from([None, 0, 2]))
@settings(deadline=None)
def test_json_means_the_same_as_yaml(value: dict[str, JsonLike], indent: int | None) -> None:
    """JSON, whose reader is another program, is YAML; and each mark points at the text of its value."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    document = parse_document(text, "w.yaml")
    lines = text.split("\n")

    def marked(mark: Mark) -> str:
        return lines[mark.line - 1][mark.column - 1 :][: mark.length]

    assert repr(document.value) == repr(value)
    for path, item in walk(value):
        shown = json.dumps(item, ensure_ascii=False)
        assert marked(document.marks[path]) == (shown[0] if isinstance(item, list | dict) else shown)
        if path and isinstance(path[-1], str):
            assert marked(document.key_marks[path]) == json.dumps(path[-1], ensure_ascii=False)


def check_outcome(text: str | bytes) -> str:
    """Parse a text; what comes out must be whole, or an error that points into the text."""
    try:
        document = parse_document(text, "w\x1b.yaml")
    except WorkflowError as error:
        check_error(error)
        return "refused"
    check_document(document)
    return repr(document.value)


def check_error(error: WorkflowError) -> None:
    lines = re.split(r"\r\n|\r|\n", error.source.text)
    assert error.diagnostics
    for diagnostic in error.diagnostics:
        mark = diagnostic.mark
        assert mark is not None
        assert 1 <= mark.line <= len(lines)
        assert 1 <= mark.column <= len(lines[mark.line - 1]) + 1
    assert all(line.isprintable() for line in str(error).split("\n"))


def check_document(document: Document) -> None:
    lines = re.split(r"\r\n|\r|\n", document.source.text)
    paths = dict(walk(document.value))
    assert document.marks.keys() <= paths.keys()
    assert document.key_marks.keys() <= paths.keys()
    for mark in [*document.marks.values(), *document.key_marks.values()]:
        assert 1 <= mark.line <= len(lines)
        assert 1 <= mark.column <= len(lines[mark.line - 1]) + 1
    for path in paths:
        assert document.mark(path) in document.marks.values()
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", repr(document.value))


def check_both(text: str | bytes) -> None:
    """Run both parsers; where both accept a text they must agree on its value."""
    outcomes = set()
    for each in LOADERS:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(document_module, "_LOADER", each)
            outcomes.add(check_outcome(text))
    assert len(outcomes - {"refused"}) <= 1


yaml_like = st.text(st.sampled_from("ab1.:-?,[]{}&*!|>'\"%@#<~=\\xu0 \n\t\r\ufeff\u202eé"), max_size=40)
edits = st.lists(
    st.tuples(st.integers(0, len(WORKFLOW)), st.integers(0, 6), yaml_like.map(lambda text: text[:6])),
    min_size=1,
    max_size=4,
)


@given(st.text(st.characters()) | st.binary() | yaml_like)
@example("\ufeff")
@example("\ufeff\ufeffa: 1")
@example("a: 1\r\rb: \r\n")
@settings(max_examples=400, deadline=None)
def test_any_text_is_a_document_or_a_workflow_error(text: str | bytes) -> None:
    """No text leads to another type of error, and every complaint points into the text."""
    check_both(text)


@given(edits)
@settings(max_examples=400, deadline=None)
def test_any_edit_of_a_workflow_is_a_document_or_a_workflow_error(
    changes: list[tuple[int, int, str]],
) -> None:
    """What a slip of the keyboard makes of a workflow is read or refused, never a crash."""
    text = WORKFLOW
    for start, length, insertion in changes:
        text = text[:start] + insertion + text[start + length :]

    check_both(text)


# Values of the command line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5", 5),
        ("1e-3", 0.001),
        ("no", "no"),
        ("true", True),
        ("", None),
        (" 5 ", 5),
        ("a: b", "a: b"),
        ("#1", "#1"),
        ("*.h5", "*.h5"),
        ("!x", "!x"),
        ("- a", "- a"),
        ("[1, [a, 'b']]", [1, ["a", "b"]]),
        ("{a: 1, b: null}", {"a": 1, "b": None}),
        ("'5'", "5"),
        ('"a\\tb"', "a\tb"),
        ("${x.y}", "${x.y}"),
    ],
)
def test_value_of_the_command_line_reads_like_one_of_a_workflow(text: str, expected: JsonLike) -> None:
    """Scalars and flow collections have the types that they have in a file; other text is text."""
    value = parse_scalar(text)

    assert (type(value), value) == (type(expected), expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2", r"value:1:1: a ',' or the '\]' of a list is missing"),
        ("{a: 1, a: 2}", "value:1:8: duplicate key 'a'; the first is on line 1"),
        ("'a", "value:1:1: the quote is never closed"),
        ("'a': 1", "'a': 1: only one list, one mapping or one text in quotes can be given"),
        ("[a]: 1", "value:1:1: a key must be text"),
        ("9" * 401, "a number has at most 400 digits"),
        ("1e999", "this number is too large for a float"),
        ("a\x1b", r"value:1:2: the character \\x1b is not allowed"),
        ("a\u202e", r"value:1:2: the character \\u202e is not allowed"),
        ("\udcff", r"value:1:1: the character \\udcff is not allowed"),
    ],
)
def test_wrong_value_of_the_command_line_is_a_usage_error(text: str, message: str) -> None:
    """What a workflow may not hold, the command line may not hold either."""
    with pytest.raises(UsageError, match=message):
        parse_scalar(text)


@given(st.text(st.characters()) | yaml_like)
@settings(max_examples=200, deadline=None)
def test_any_value_of_the_command_line_is_a_value_or_a_usage_error(text: str) -> None:
    """No argument leads to another type of error, and what is printed is printable."""
    try:
        shown = str(parse_scalar(text)).translate({ord(c): None for c in "\n\t\r"})
    except UsageError as error:
        shown = str(error)

    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", shown)


# Files


def test_file_is_read_under_the_name_it_was_given(tmp_path: Path) -> None:
    """The name in the diagnostics is the path that the user wrote."""
    path = tmp_path / "digits.yaml"
    path.write_bytes(WORKFLOW.replace("\n", "\r\n").encode())
    document = load_document(path)

    assert document.source.name == str(path)
    assert document.value == parse_document(WORKFLOW, "w.yaml").value


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.yaml", r"missing\.yaml: there is no such file; check the name"),
        (".", "this is a directory; name the workflow file in it"),
        ("x" * 300, "the file cannot be read: File name too long"),
        ("a\0b", r"a\\x00b: the file cannot be read: (embedded null byte|stat: embedded null character in path)"),
    ],
)
def test_file_that_cannot_be_read_is_a_usage_error(tmp_path: Path, name: str, message: str) -> None:
    """A wrong path is a wrong command line, told in one sentence."""
    with pytest.raises(UsageError, match=message):
        load_document(tmp_path / name)


def test_a_device_or_pipe_is_refused(tmp_path: Path) -> None:
    """Nothing is opened that may never end or never begin."""
    os.mkfifo(tmp_path / "pipe")

    for path in (Path("/dev/zero"), tmp_path / "pipe"):
        with pytest.raises(UsageError, match=f"{path}: the file cannot be read: it is no regular file"):
            load_document(path)


def test_a_workflow_can_be_piped_in() -> None:
    """Of /dev/stdin, only as much is read as a workflow may have."""
    code = "import pathlib, kflow.document as d; print(d.load_document(pathlib.Path('/dev/stdin')).value)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, input="a: 1\n", capture_output=True, text=True, check=True)
    with Path("/dev/zero").open("rb") as zeros:
        endless = subprocess.run(command, stdin=zeros, capture_output=True, text=True, check=False)

    assert done.stdout == "{'a': 1}\n"
    assert "/dev/stdin: the file is larger than 4 MiB" in endless.stderr


def test_what_is_missing_at_the_end_is_on_the_last_line() -> None:
    """Libyaml puts the empty value on a line that the text does not have."""
    check_both("? ;")
