"""From the text of a DOT graph to a picture file: finding and calling the renderer, and writing whole files."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

__all__ = ["find_renderer", "publish", "render"]

_TEXT_FORMATS = frozenset({"dot", "gv"})
_RENDER_SECONDS = 300

# What each renderer can write, best renderer first. graphviz-pure carries its own fonts and is pinned by pip,
# so it draws the same bytes on every machine; a system graphviz differs by version and installed fonts.
_RENDERERS = {
    "graphviz-pure": ("jpeg", "jpg", "json", "png", "svg"),
    "dot": ("bmp", "eps", "gif", "jpeg", "jpg", "json", "pdf", "png", "ps", "svg", "svgz", "tif", "webp"),
}


def find_renderer(form: str) -> Path | None:
    """Find the best installed program that writes a format, beside the interpreter or on PATH.

    None is for the formats that are DOT itself and need no program.
    """
    if form in _TEXT_FORMATS:
        return None
    # The folder of sys.executable is the environment's, which is not on PATH when it is not activated.
    folders = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    able = [program for program, forms in _RENDERERS.items() if form in forms]
    for program in able:
        found = shutil.which(program, path=folders)
        if found:
            return Path(found)
    if not able:
        known = ", ".join(sorted(_TEXT_FORMATS.union(*_RENDERERS.values())))
        msg = f"unsupported format {form!r}: give to_file one of the extensions {known}"
        raise ValueError(msg)
    ways = {"graphviz-pure": "pip install graphviz-pure", "dot": "install your system's graphviz"}
    advice = ", or ".join(ways[program] for program in able)
    msg = f"no installed program can draw a model as {form!r}: {advice} (.dot needs neither)"
    raise OSError(msg)


def render(program: Path, form: str, source: bytes) -> bytes:
    """Have the renderer turn DOT into an image."""
    try:
        done = subprocess.run(  # noqa: S603 - a program found by name, no shell, a format from our table
            [str(program), f"-T{form}"],
            input=source,
            capture_output=True,
            check=False,
            timeout=_RENDER_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        msg = f"{program.name} had not drawn the model after {_RENDER_SECONDS} s; write a .dot file instead"
        raise TimeoutError(msg) from error
    if done.returncode != 0 or not done.stdout:
        said = done.stderr.decode(errors="replace").strip() or "nothing"
        msg = f"{program.name} could not draw the model as {form} (status {done.returncode}); it said: {said}"
        raise OSError(msg)
    return done.stdout


def publish(path: Path, content: bytes) -> None:
    """Publish a whole file or nothing."""
    if not path.parent.is_dir():
        msg = f"the folder {str(path.parent)!r} of to_file does not exist; create it first"
        raise FileNotFoundError(msg)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            temporary.unlink()
        raise
