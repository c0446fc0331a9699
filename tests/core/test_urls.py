"""What a URL may be is known without anything of a network."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kflow.core.files.urls import local_path


def test_checking_a_url_loads_no_network() -> None:
    """Validation does not pay for TLS and HTTP."""
    code = "import kflow.core.files.urls, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert not {"ssl", "http.client", "urllib.request"} & set(done.stdout.split())


@given(st.lists(st.binary(min_size=1).filter(lambda name: not {0, 47} & set(name) and name not in (b".", b".."))))
def test_a_file_url_is_the_path_that_it_was_made_of(names: list[bytes]) -> None:
    """`pathlib` writes any path as a URL, which is read back to the byte; blanks, %, ?, # and all."""
    path = Path("/", *(name.decode("utf-8", "surrogateescape") for name in names))

    assert local_path(path.as_uri()) == path
    assert local_path(path.as_uri().replace("file://", "FILE://LocalHost")) == path


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("file://elsewhere/a", "it names the host elsewhere, and only files of this machine"),
        ("file://me:pw@elsewhere/a", r"^file://elsewhere/a is no valid file URL; it names the host elsewhere"),
        ("file:a", "its path must be absolute"),
        ("file:///a?b", r"write a \? in a name as %3F and a # as %23"),
        ("file:///a#b", "as %23"),
        ("file:///a%00b", "its path must be absolute"),
        ("file://[::1/a", "its host cannot be read"),
        ("gopher://h/a", "use an http, https or file URL"),
    ],
)
def test_refuses_file_urls(url: str, why: str) -> None:
    """What names no file of this machine, or names it so that it would be misread."""
    with pytest.raises(ValueError, match=why):
        local_path(url)
