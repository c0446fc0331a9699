"""From the text of a drawing to a file: finding and calling the renderers, and writing whole files."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["TEXT_FORMATS", "checked_target", "drawable_formats", "extension", "find_renderers", "publish", "render"]

TEXT_FORMATS = ("dot", "gv", "mmd", "txt")
_RENDER_SECONDS = 300

# What each renderer can write, best renderer first. graphviz-pure carries its own fonts and is pinned by pip,
# so it draws the same bytes on every machine; a system graphviz differs by version and installed fonts.
_RENDERERS = {
    "graphviz-pure": ("jpeg", "jpg", "json", "png", "svg"),
    "dot": ("eps", "gif", "jpeg", "jpg", "json", "pdf", "png", "ps", "svg", "svgz", "webp"),
}


# What the fonts in graphviz-pure have signs for: the scripts of Europe and the Near East, and punctuation.
_WITHOUT_SIGN = re.compile(r"[^\u0000-\u06ff\u1d00-\u213f]")


def checked_target(to_file: Any) -> Path:
    """Return the path to write to, known to be one before anything is drawn.

    Raises
    ------
    TypeError, ValueError
        It is no path, or names no file.
    OSError
        It is a folder, or lies in one that does not exist.
    """
    if not isinstance(to_file, str | os.PathLike) or not isinstance(os.fspath(to_file), str):
        msg = f"to_file must be the path of the file to write, such as 'model.png', not {to_file!r}"
        raise TypeError(msg)
    name = os.fspath(to_file)
    path = Path(name)
    if path.is_dir() and name:
        raise IsADirectoryError(errno.EISDIR, "to_file is a folder; name a file in it, such as 'model.png'", name)
    if not path.name or name.endswith("/") or "\0" in name:
        msg = f"to_file must name a file, such as 'model.png', not {name!r}"
        raise ValueError(msg)
    if not path.parent.is_dir():
        msg = f"the folder {str(path.parent)!r} of to_file does not exist; create it first"
        raise FileNotFoundError(msg)
    return path


def extension(path: PurePath) -> str:
    """Read the format from the name of a file, as Keras 2.1 did: without an extension it is a PNG."""
    return path.suffix.lstrip(".").lower() or "png"


def drawable_formats() -> tuple[str, ...]:
    """List the formats that can be written on this machine."""
    formats = [form for program, forms in _RENDERERS.items() if _installed(program) for form in forms]
    return tuple(sorted({*TEXT_FORMATS, *formats}))


def find_renderers(form: str) -> tuple[Path, ...]:
    """Find the installed programs that write a format, the best first.

    There are none for the formats that are text, which need no program.

    Raises
    ------
    ValueError
        No program is known to write the format.
    OSError
        None of those that could is installed.
    """
    if form in TEXT_FORMATS:
        return ()
    able = [program for program, forms in _RENDERERS.items() if form in forms]
    if not able:
        known = ", ".join(sorted({*TEXT_FORMATS, *(each for forms in _RENDERERS.values() for each in forms)}))
        msg = f"unsupported format {form!r}: give to_file one of the extensions {known}"
        raise ValueError(msg)
    found = tuple(path for path in map(_installed, able) if path is not None)
    if not found:
        ways = {"graphviz-pure": "pip install graphviz-pure", "dot": "install your system's graphviz"}
        advice = ", or ".join(ways[program] for program in able)
        now = ", ".join(f".{each}" for each in drawable_formats())
        msg = f"no installed program can draw a model as {form!r}: {advice}; this machine draws {now}"
        raise OSError(msg)
    return found


def _installed(program: str) -> Path | None:
    """Find a program beside the interpreter or on PATH."""
    # The folder of sys.executable is the environment's, which is not on PATH when it is not activated.
    folders = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    found = shutil.which(program, path=folders)
    return None if found is None else Path(found)


def render(programs: Sequence[Path], form: str, source: str) -> bytes:
    """Have the first renderer that can turn DOT into an image."""
    failures = []
    for program in programs:
        try:
            done = subprocess.run(  # noqa: S603 - a program found by name, no shell, a format from our table
                [str(program), f"-T{form}"],
                input=_legible(program, form, source).encode(),
                capture_output=True,
                check=False,
                timeout=_RENDER_SECONDS,
            )
        except subprocess.TimeoutExpired:
            failures.append(f"{program.name} had not drawn it after {_RENDER_SECONDS} s")
            continue
        if done.returncode == 0 and done.stdout:
            return done.stdout
        said = done.stderr.decode(errors="replace").strip() or "nothing"
        failures.append(f"{program.name} failed (status {done.returncode}) and said: {said}")
    msg = f"the model could not be drawn as {form}: {'; '.join(failures)}. A .txt, .mmd or .dot file needs no renderer"
    raise OSError(msg)


def _legible(program: Path, form: str, source: str) -> str:
    """Write characters as escapes that would be the same empty box in an image made of dots."""
    if program.name != "graphviz-pure" or form not in {"jpeg", "jpg", "png"}:
        return source
    return _WITHOUT_SIGN.sub(lambda found: "\\" + found[0].encode("unicode_escape").decode(), source)


def publish(path: Path, content: bytes) -> None:
    """Publish a whole file or nothing."""
    temporary = path.with_name(f".{path.name[:50]}.{secrets.token_hex(8)}")  # not longer than a name may be
    try:
        with temporary.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OSError(error.errno, f"to_file cannot be written ({error.strerror})", str(path)) from None
    finally:
        with suppress(OSError):  # it has its place, or there was never one
            temporary.unlink()
