"""Tests of the kind plot_history."""

import pytest

from kflow.adapters.plot_history import PlotHistory

CURVES = {"loss": [2.0, 1.0], "val_loss": [2.5, 1.5], "accuracy": [0.5, 0.75]}


@pytest.mark.parametrize(("ending", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_the_same_curves_give_the_same_picture(bench, ending, start):
    """A picture has its format, and its bytes depend on the curves alone."""
    pictures = [
        bench.run(PlotHistory, {"${h}": ("history", CURVES)}, history="${h}", to_file=f"a.{ending}")[
            "image"
        ].read_bytes()
        for _ in range(2)
    ]

    assert pictures[0].startswith(start)
    assert pictures[0] == pictures[1]


def test_a_curve_that_is_not_there_is_an_error(bench):
    """The message names what is there."""
    with pytest.raises(ValueError, match="no recall; it has loss, val_loss, accuracy"):
        bench.run(PlotHistory, {"${h}": ("history", CURVES)}, history="${h}", metrics=["recall"])


def test_an_unknown_format_is_found_beforehand(bench):
    """Only what matplotlib writes for everybody is taken."""
    _, problems = bench.examine(PlotHistory(history="${h}", to_file="a.bmp"))

    assert problems == ["learning curves are drawn as .png, .svg or .pdf"]
