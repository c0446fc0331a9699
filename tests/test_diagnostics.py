"""Diagnostics: what a reader sees of a complaint, what is suggested, and the errors that carry them."""

import pickle
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kflow
from kflow.diagnostics import Diagnostic, Mark, Source, render, render_all, suggest, visible
from kflow.errors import Interrupted, KflowError, RunError, UsageError, WorkflowError

any_text = st.text(st.characters())  # lone surrogates and controls included


def test_diagnostic_shows_place_line_carets_and_hint() -> None:
    """A complaint names its place, shows the line, underlines the key and gives the hint."""
    source = Source("digits.yaml", "steps:\n  fit:\n    epoch: 5\n")
    diagnostic = Diagnostic("unknown field 'epoch' of kind train", Mark(3, 5, 5), hint="did you mean 'epochs'?")

    assert render(diagnostic, source) == (
        "digits.yaml:3:5: unknown field 'epoch' of kind train\n    epoch: 5\n    ^^^^^\n  did you mean 'epochs'?"
    )


def test_diagnostic_without_mark_shows_only_the_file() -> None:
    """A complaint about a whole file has no line and no caret."""
    diagnostic = Diagnostic("the file is larger than 4 MiB", None)

    assert render(diagnostic, Source("a.yaml", "x: 1")) == "a.yaml: the file is larger than 4 MiB"


@pytest.mark.parametrize("mark", [Mark(1, 1), Mark(2, 1), Mark(9, 4)], ids=["blank", "end", "beyond"])
def test_diagnostic_on_a_blank_line_shows_no_snippet(mark: Mark) -> None:
    """A caret under nothing helps nobody."""
    shown = render(Diagnostic("gone", mark), Source("a.yaml", "  \n"))

    assert shown == f"a.yaml:{mark.line}:{mark.column}: gone"


@pytest.mark.parametrize(
    ("line", "mark", "carets"),
    [
        ("\tkey: 1", Mark(1, 2, 3), "    ^^^"),
        ("\tkey: 1", Mark(1, 1), "^^^^"),
        ("日本: x", Mark(1, 5), "      ^"),
        ("日本: x", Mark(1, 1, 2), "^^^^"),
        ("e\u0301t\u00e9: x", Mark(1, 7), "     ^"),
        ("a\x1bb: x", Mark(1, 3), "     ^"),
        ("a: ", Mark(1, 4), "   ^"),
        ("a: 1", Mark(1, 4, 50), "   ^"),
        ("a: 1", Mark(1, 40), "    ^"),
    ],
    ids=["after-tab", "on-tab", "after-wide", "wide", "combining", "escape", "at-end", "too-long", "too-far"],
)
def test_carets_stand_under_what_is_marked(line: str, mark: Mark, carets: str) -> None:
    """Tabs, wide, combining and escaped characters keep the caret in its place."""
    shown = render(Diagnostic("here", mark), Source("a", line)).split("\n")

    assert shown[2] == carets


@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\r"])
def test_lines_end_where_yaml_ends_them(line_break: str) -> None:
    """All three line breaks count, and none shows up in a snippet."""
    source = Source("a", f"one: 1{line_break}two: 2{line_break}")

    assert render(Diagnostic("here", Mark(2, 1, 3)), source) == "a:2:1: here\ntwo: 2\n^^^"


@pytest.mark.parametrize("column", [1, 50, 51, 5_000, 9_950, 10_001])
def test_long_line_is_clipped_around_the_mark(column: int) -> None:
    """Of a long line only the neighborhood of the mark is shown, with the caret under the right character."""
    line = "".join(chr(0x4E00 + i) for i in range(10_000))  # each character once, each two cells wide
    _, snippet, carets = render(Diagnostic("here", Mark(1, column)), Source("a", line)).split("\n")

    assert len(snippet) <= 102
    cells = "".join(c if unicodedata.east_asian_width(c) != "W" else c * 2 for c in snippet)
    assert cells[carets.index("^") :][:1] == line[column - 1 : column]


def test_all_diagnostics_come_in_the_order_of_the_text() -> None:
    """Complaints are sorted by place, those about the whole file first, and counted."""
    source = Source("a", "x: 1\ny: 2\n")
    marks = [Mark(2, 4), Mark(1, 4), None, Mark(2, 1)]
    shown = render_all([Diagnostic("bad", mark) for mark in marks], source)

    assert [line for line in shown.split("\n") if "bad" in line] == [
        "a: bad",
        "a:1:4: bad",
        "a:2:1: bad",
        "a:2:4: bad",
    ]
    assert shown.endswith("\n4 problems")


def test_one_diagnostic_is_one_problem() -> None:
    """The count is grammatical."""
    assert render_all([Diagnostic("bad", None)], Source("a", "")) == "a: bad\n1 problem"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J", r"\x1b[2J"),
        ("a\nb", r"a\x0ab"),
        ("\x9b", r"\x9b"),
        ("\u202e", r"\u202e"),
        ("\u200b", r"\u200b"),
        ("\ud800", r"\ud800"),
        ("\U000e0041", r"\U000e0041"),
        ("naïve 日本", "naïve 日本"),
    ],
)
def test_visible_escapes_what_a_terminal_would_obey(text: str, shown: str) -> None:
    """Controls, bidirectional and invisible characters and surrogates become escapes, the rest stays."""
    assert visible(text) == shown


@given(
    st.builds(Source, any_text, any_text),
    st.builds(
        Diagnostic,
        any_text,
        st.builds(Mark, st.integers(1, 30), st.integers(1, 30), st.integers(1, 9)),
        any_text,
    ),
)
@settings(deadline=None)
def test_nothing_untrusted_reaches_the_terminal(source: Source, diagnostic: Diagnostic) -> None:
    """Whatever stands in a name, a text, a message or a hint, only printable characters come out."""
    shown = render(diagnostic, source)

    assert all(part.isprintable() for part in shown.split("\n"))
    assert len(shown.split("\n")) <= 4


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("epoch", "did you mean 'epochs'?"),
        ("EPOCHS", "did you mean 'epochs'?"),
        ("bach_size", "did you mean 'batch_size'?"),
        ("zzz", None),
        ("", None),
        ("e" * 10_000, None),
        ("\uff45\uff50\uff4f\uff43\uff48\uff53", "did you mean 'epochs'?"),
    ],
    ids=["short", "case", "typo", "nothing-like-it", "empty", "long", "full-width"],
)
def test_suggestion_is_the_closest_name(name: str, hint: str | None) -> None:
    """A name that reads like a known one is suggested, whatever its case; others are not."""
    suggestion = suggest(name, ["batch_size", "epochs", "Dense"])

    assert (suggestion and suggestion.partition(" (")[0]) == hint


def test_suggestion_names_letters_that_only_look_latin() -> None:
    """A Cyrillic letter in a Latin word is named, since nobody can see it."""
    assert suggest("\u0455teps", ["steps"]) == ("did you mean 'steps'? ('\u0455' is CYRILLIC SMALL LETTER DZE, U+0455)")
    assert suggest("x\u0430", ["steps"]) == "('\u0430' is CYRILLIC SMALL LETTER A, U+0430)"


def test_words_of_another_script_are_no_mix_up() -> None:
    """Names may be written in Cyrillic: only mixtures are suspicious."""
    assert suggest("\u0434\u0430\u043d\u043d\u044b\u0435", ["steps"]) is None
    assert suggest("\u043c\u043e\u0434\u0435\u043b", ["\u043c\u043e\u0434\u0435\u043b\u044c"]) == (
        "did you mean '\u043c\u043e\u0434\u0435\u043b\u044c'?"
    )


@given(any_text, st.lists(any_text, max_size=5))
@settings(deadline=None)
def test_suggestion_is_always_a_printable_line(name: str, candidates: list[str]) -> None:
    """Any names at all give a hint that can be printed, or none."""
    suggestion = suggest(name, candidates)

    assert suggestion is None or suggestion.isprintable()


def test_each_error_owns_its_exit_code() -> None:
    """The command line ends with the code of the error that ended it."""
    errors = (KflowError, WorkflowError, RunError, UsageError, Interrupted)

    assert [error.exit_code for error in errors] == [1, 2, 1, 2, 130]
    assert all(issubclass(error, KflowError) for error in errors)


def test_workflow_error_prints_and_pickles_all_of_its_diagnostics() -> None:
    """The error's text is the report, also after a trip through another process."""
    source = Source("a.yaml", "x: 1\ny: 2\n")
    error = WorkflowError([Diagnostic("second", Mark(2, 1)), Diagnostic("first", Mark(1, 1))], source)
    copy = pickle.loads(pickle.dumps(error))

    assert str(copy) == render_all(error.diagnostics, source)
    assert copy.diagnostics == error.diagnostics


def test_importing_the_document_loads_nothing_heavy() -> None:
    """Reading a workflow needs YAML and the standard library, and nothing that takes long to load."""
    heavy = {"numpy", "pydantic", "rich", "h5py", "keras", "tensorflow", "typer"}
    code = f"import sys, kflow.document; print(sorted({heavy!r} & set(sys.modules)))"
    root = Path(kflow.__file__).parent.parent
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)

    assert result.stdout == "[]\n"
