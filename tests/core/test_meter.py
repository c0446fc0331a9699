"""A download shows how far it is where somebody watches."""

import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kflow.core.files import get_file

CODE = """
import sys
from kflow.core import get_file
get_file('a\\x1bb', sys.argv[1], cache_dir=sys.argv[2], **eval(sys.argv[3]))
"""


def shown(options: str, tmp_path: Path, *, is_terminal: bool) -> str:
    """Return what a process that downloads 2 MB writes on standard error."""
    source = tmp_path / "source"
    source.write_bytes(bytes(2_000_000))
    ours, theirs = pty.openpty() if is_terminal else os.pipe()
    command = [sys.executable, "-c", CODE, str(source), str(tmp_path), options]
    process = subprocess.Popen(command, stderr=theirs)
    os.close(theirs)
    text = b""
    try:
        while block := os.read(ours, 4096):
            text += block
    except OSError:  # what a terminal gives at its end
        pass
    os.close(ours)
    assert process.wait() == 0
    return text.decode()


@pytest.mark.parametrize(
    ("options", "is_terminal", "is_shown"),
    [
        ("{}", True, True),
        ("{}", False, False),
        ("{'progress': True}", False, True),
        ("{'progress': False}", True, False),
        ("{'progress': lambda done, total: None}", True, False),
    ],
)
def test_a_line_where_somebody_watches(options: str, is_terminal: bool, is_shown: bool, tmp_path: Path) -> None:
    """By default on a terminal only; True and False decide otherwise, and a name cannot steer the terminal."""
    text = shown(options, tmp_path, is_terminal=is_terminal)

    last = text.rstrip().rpartition("\r")[2]
    assert last.startswith("a?b: 2.0 of 2.0 MB, 100 %, ") == is_shown
    assert text.endswith("\n") if is_shown else not text


def test_a_size_that_nobody_knows(server: Any, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a Content-Length there is no percentage."""
    server.route = lambda h, _: h.raw(b"HTTP/1.1 200 OK\r\n\r\n", bytes(1_500_000))

    get_file("a", server.url, cache_dir=cache, progress=True)

    assert "a: 1.5 MB, " in capsys.readouterr().err
