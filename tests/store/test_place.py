"""Where a remote may lie, and what is said when it cannot."""

import sys
from pathlib import Path

import pytest

from kflow.errors import UsageError
from kflow.store.place import BucketPlace, FolderPlace, describe_failure, open_place


def test_a_path_and_a_file_url_are_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path starts at the current folder."""
    monkeypatch.chdir(tmp_path)

    assert open_place("a/b") == FolderPlace(tmp_path / "a" / "b")
    assert open_place(f"file://{tmp_path}/a%20b") == FolderPlace(tmp_path / "a b")


@pytest.mark.parametrize("url", ["s3://bucket", "s3://bucket/a/b-c_d.e/", "gs://bucket/a"])
def test_a_bucket_may_have_a_folder(url: str) -> None:
    """Nothing is asked of it yet."""
    assert isinstance(open_place(url), BucketPlace)


@pytest.mark.parametrize(
    "url",
    [
        "s3://key:TOKEN@bucket/a",
        "s3://bucket/a?secret=TOKEN",
        "s3://bucket/a#TOKEN",
        "s3://bucket/../TOKEN",
        "s3://",
        "gs://me@TOKEN/a",
        "https://me:TOKEN@example.org/a",
        "ftp://me:TOKEN@example.org/a",
        "file://TOKEN@host/a",
    ],
)
def test_what_is_no_place_is_refused_without_its_secrets(url: str) -> None:
    """A key in a URL would end in records and in the history of a shell."""
    with pytest.raises(UsageError, match="expected") as caught:
        open_place(url)

    assert "TOKEN" not in str(caught.value)


@pytest.mark.parametrize("url", ["s3://bucket", "gs://bucket"])
def test_what_is_not_installed_is_named(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it."""
    monkeypatch.setitem(sys.modules, "obstore.store", None)

    with pytest.raises(UsageError, match=r"pip install 'kflow\[remote\]'"):
        open_place(url)


def test_a_server_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the environment says is checked like what the command line says."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://me:TOKEN@no host")

    with pytest.raises(UsageError, match=r"AWS_ENDPOINT_URL: .* is no valid URL") as caught:
        open_place("s3://bucket")
    assert "TOKEN" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("403: <Error><Code>AccessDenied</Code><Key>TOKEN</Key>", "the server says AccessDenied"),
        ("GET https://me:TOKEN@host/a?sig=TOKEN failed\nTOKEN", "GET https://host/a?... failed"),
        ("PUT http://169.254.169.254/latest/api/token timed out", "there are no credentials for it in the environment"),
        ("", "RuntimeError"),
    ],
)
def test_a_failure_is_told_in_one_line_without_secrets(text: str, shown: str) -> None:
    """Whatever a library puts into its messages."""
    assert describe_failure(RuntimeError(text)) == shown
