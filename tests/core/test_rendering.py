"""Renderers are real programs in a folder of the test: graphviz-pure, and shell scripts that say what was asked."""

import json
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from kflow.core.plotting import plot_model

L = keras.layers
RENDERER = Path(sys.executable).with_name("graphviz-pure")


@pytest.fixture(scope="module")
def model():
    """Give a model with a model in it."""
    inner = keras.Sequential([keras.Input((8,), name="features"), L.Dense(4, name="squeeze")], name="encoder")
    return keras.Sequential([keras.Input((8,), name="x"), inner, L.Dense(1, name="漢字")], name="outer")


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Make the search for programs see one empty folder, and give it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    return folder


def install(programs: Path, name: str, script: str) -> None:
    """Put a program into the folder."""
    (programs / name).write_text(f"#!/bin/sh\n{script}\n")
    (programs / name).chmod(0o755)


@pytest.mark.usefixtures("programs")
@pytest.mark.parametrize("name", ["model.dot", "model.gv"])
def test_dot_is_written_without_a_renderer(tmp_path, model, name):
    """The text is valid DOT, no program is needed for it, and it never asks for the splines that crash dot."""
    plot_model(model, tmp_path / name, expand_nested=True)
    source = (tmp_path / name).read_text()
    done = subprocess.run([RENDERER, "-Tjson"], input=source, capture_output=True, text=True, check=True)

    assert {item["name"] for item in json.loads(done.stdout)["objects"]} >= {"x", "encoder/squeeze"}
    assert "splines" not in source
    assert "ortho" not in source


@pytest.mark.usefixtures("programs")
@pytest.mark.parametrize(("name", "beginning"), [("m.mmd", "flowchart LR\n"), ("m.txt", "x: InputLayer\n")])
def test_mermaid_and_text_need_neither_a_renderer_nor_pydot(tmp_path, monkeypatch, model, name, beginning):
    """The extension chooses the language."""
    monkeypatch.setitem(sys.modules, "pydot", None)
    plot_model(model, tmp_path / name, rankdir="LR")

    assert (tmp_path / name).read_text().startswith(beginning)


@pytest.mark.usefixtures("programs")
def test_a_missing_renderer_is_named(tmp_path, model):
    """The error says what to install and what works already, and no file is left."""
    match = r"'png': pip install graphviz-pure, or install your system's graphviz; .* draws \.dot, \.gv, \.mmd, \.txt$"

    with pytest.raises(OSError, match=match):
        plot_model(model, tmp_path / "m.png")
    assert not (tmp_path / "m.png").exists()


def test_a_format_that_only_dot_knows_asks_for_dot(tmp_path, programs, model):
    """graphviz-pure cannot write PDF, so it is neither used nor advised."""
    install(programs, "graphviz-pure", "echo drawn")

    with pytest.raises(OSError, match=r"'pdf': install your system's graphviz; .*\.png, \.svg"):
        plot_model(model, tmp_path / "m.pdf")


@pytest.mark.parametrize(("name", "drawn"), [("m.png", "pure -Tpng"), ("m.pdf", "dot -Tpdf")])
def test_the_pinned_renderer_comes_first_where_it_can(tmp_path, programs, model, name, drawn):
    """graphviz-pure draws what it knows, so that machines agree; dot draws the rest."""
    install(programs, "graphviz-pure", 'echo "pure $@"')
    install(programs, "dot", 'echo "dot $@"')
    plot_model(model, tmp_path / name)

    assert (tmp_path / name).read_text().strip() == drawn


def test_dot_on_the_path_is_used_alone(tmp_path, programs, model):
    """Without graphviz-pure the system's dot draws, and reads the DOT text of the model."""
    install(programs, "dot", "exec /bin/cat")
    plot_model(model, tmp_path / "m.png")

    assert (tmp_path / "m.png").read_text().startswith("digraph")
    assert "漢字" in (tmp_path / "m.png").read_text()


def test_dot_draws_what_the_first_renderer_cannot(tmp_path, programs, model):
    """A crash of one renderer is not the end when there is another."""
    install(programs, "graphviz-pure", "kill -6 $$")
    install(programs, "dot", "echo drawn by dot")
    plot_model(model, tmp_path / "m.png")

    assert (tmp_path / "m.png").read_text() == "drawn by dot\n"


def test_failing_renderers_are_quoted_and_the_old_picture_stays(tmp_path, programs, model):
    """What the programs said is in the error; the file from before is whole, and nothing lies beside it."""
    install(programs, "graphviz-pure", "kill -6 $$")
    install(programs, "dot", "echo out of ink >&2; exit 3")
    (tmp_path / "out").mkdir()
    picture = tmp_path / "out" / "m.png"
    picture.write_text("old")
    match = (
        r"drawn as png: graphviz-pure failed \(status -6\).*; dot failed \(status 3\) and said: out of ink\. A \.txt"
    )

    with pytest.raises(OSError, match=match):
        plot_model(model, picture)
    assert [(path.name, path.read_text()) for path in picture.parent.iterdir()] == [("m.png", "old")]


def test_a_renderer_that_hangs_is_ended(tmp_path, programs, monkeypatch, model):
    """After the time that is given to it, the error says so."""
    install(programs, "dot", "exec /bin/sleep 60")
    monkeypatch.setattr("kflow.core.plotting.rendering._RENDER_SECONDS", 0.2)

    with pytest.raises(OSError, match=r"dot had not drawn it after 0\.2 s"):
        plot_model(model, tmp_path / "m.png")


@pytest.mark.parametrize(("name", "seen"), [("m.png", r"\\u6f22\\u5b57: Dense"), ("m.svg", "漢字: Dense")])
def test_signs_that_the_bundled_fonts_lack_are_escaped_in_pixels_only(tmp_path, programs, model, name, seen):
    """Of two names in Chinese, graphviz-pure would draw the same empty boxes; an SVG is drawn by its reader."""
    install(programs, "graphviz-pure", "exec /bin/cat")
    plot_model(model, tmp_path / name)

    assert seen in (tmp_path / name).read_text()


def test_a_write_that_fails_names_the_file_and_leaves_none(tmp_path, programs, model):
    """When a folder takes the place while the picture is drawn, the error does not name a temporary file."""
    picture = tmp_path / "out" / "m.png"
    picture.parent.mkdir()
    install(programs, "dot", f"/bin/mkdir {picture}; echo drawn")

    with pytest.raises(IsADirectoryError, match=r"to_file cannot be written \(Is a directory\): '.*/out/m\.png'"):
        plot_model(model, picture)
    assert list(picture.parent.iterdir()) == [picture]


def test_a_file_may_have_the_longest_name(tmp_path, model):
    """The temporary file beside it has a shorter one."""
    path = tmp_path / ("n" * 251 + ".txt")
    plot_model(model, path)

    assert path.read_text().startswith("x: InputLayer\n")
