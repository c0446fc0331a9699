"""Where a remote may lie, and what is said when it cannot."""

import os
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


@pytest.fixture
def no_cloud(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what the environment says of clouds."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "GOOGLE_", "GCE_", "SERVICE_ACCOUNT"))]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("url", "name", "value", "said"),
    [
        ("s3://bucket", "AWS_ENDPOINT_URL", "http://me:TOKEN@no host", "AWS_ENDPOINT_URL: .* is no valid URL"),
        ("s3://bucket", "AWS_ENDPOINT_URL", "ftp://me:TOKEN@host", "AWS_ENDPOINT_URL: ftp://host is no URL with http"),
        ("gs://bucket", "GOOGLE_BASE_URL", "", "GOOGLE_BASE_URL: .* names no host"),
        ("gs://bucket", "GOOGLE_BASE_URL", "me:TOKEN@host", "GOOGLE_BASE_URL: .* names no host"),
        (
            "gs://bucket",
            "GOOGLE_SERVICE_ACCOUNT_KEY",
            '{"gcs_base_url": "http://me:TOKEN@no host"}',
            "gcs_base_url of the service account: .* is no valid URL",
        ),
        ("gs://bucket", "GOOGLE_BEARER_TOKEN", "TOKEN\n", "GOOGLE_BEARER_TOKEN: holds a line break"),
        (
            "gs://bucket",
            "GOOGLE_SERVICE_ACCOUNT_KEY",
            '"TOKEN"',
            "invalid type: expected .* GOOGLE_SERVICE_ACCOUNT_KEY",
        ),
        ("gs://bucket", "SERVICE_ACCOUNT", "/no file", "/no file: No such file .*; look at SERVICE_ACCOUNT"),
    ],
)
@pytest.mark.usefixtures("no_cloud")
def test_a_server_or_a_key_that_is_none_is_refused(
    monkeypatch: pytest.MonkeyPatch, url: str, name: str, value: str, said: str
) -> None:
    """What the environment says is checked like what the command line says, and the variable is named."""
    monkeypatch.setenv(name, value)

    with pytest.raises(UsageError, match=said) as caught:
        open_place(url)
    assert "TOKEN" not in str(caught.value).replace("BEARER_TOKEN", "")


@pytest.mark.usefixtures("no_cloud")
def test_credentials_of_a_kind_that_cannot_be_used_are_told_with_a_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job of CI may have those of workload identity federation."""
    (tmp_path / "key.json").write_text('{"type": "external_account"}')
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))

    with pytest.raises(UsageError, match="look at GOOGLE_APPLICATION_CREDENTIALS, or set GOOGLE_BEARER_TOKEN"):
        open_place("gs://bucket")
    monkeypatch.setenv("GOOGLE_BEARER_TOKEN", "TOKEN")
    assert isinstance(open_place("gs://bucket"), BucketPlace)


@pytest.mark.usefixtures("no_cloud")
def test_only_a_server_of_ones_own_is_asked_without_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    """And one for S3 says nothing about Google's."""
    monkeypatch.setenv("GOOGLE_BEARER_TOKEN", "TOKEN")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    real = open_place("gs://bucket")
    monkeypatch.setenv("GOOGLE_BASE_URL", "https://127.0.0.1:9")
    own = open_place("gs://bucket")
    monkeypatch.setenv("GOOGLE_BASE_URL", "http://127.0.0.1:9/")
    plain = open_place("gs://bucket")

    assert isinstance(real, BucketPlace)
    assert isinstance(own, BucketPlace)
    assert isinstance(plain, BucketPlace)
    assert [place.objects.client_options["allow_http"] for place in (real, own, plain)] == ["false", "false", "true"]
    assert plain.objects.config == {"bucket": "bucket", "base_url": "http://127.0.0.1:9", "bearer_token": ""}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("403: <Error><Code>AccessDenied</Code><Key>TOKEN</Key>", "the server says AccessDenied"),
        ("GET https://me:TOKEN@host/a?sig=TOKEN failed\nTOKEN", "GET https://host/a?... failed"),
        ("PUT http://169.254.169.254/latest/api/token timed out", "there are no credentials for it in the environment"),
        ('invalid type: string "TOKEN, expected", expected struct A', "invalid type: expected struct A"),
        ("", "RuntimeError"),
    ],
)
def test_a_failure_is_told_in_one_line_without_secrets(text: str, shown: str) -> None:
    """Whatever a library puts into its messages."""
    assert describe_failure(RuntimeError(text)) == shown
