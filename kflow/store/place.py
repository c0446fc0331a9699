"""Where a remote lies: a folder, perhaps of a network, or a bucket. Files appear there whole or not at all."""

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from kflow import durable
from kflow.errors import RunError, UsageError

_BLOCK = 4 * 2**20
_PATIENCE = 20
"""Seconds that one request to a bucket may take; a large file is many requests."""
_SCHEMES = ("s3", "gs")
_NO_CREDENTIALS = re.compile(
    r"169\.254\.169\.254|/latest/api/token|/computeMetadata/|Missing (AccessKeyId|SecretAccessKey)"
)
"""What stands in a message when credentials were looked for everywhere, the machines of a cloud last."""
_ACCOUNTS = ("GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_PATH", "SERVICE_ACCOUNT")
"""Variables that name the file of a service account; the library has these names for it."""
_GOOGLE_CREDENTIALS = ("GOOGLE_SERVICE_ACCOUNT_KEY", *_ACCOUNTS, "GOOGLE_APPLICATION_CREDENTIALS")


class RemoteError(RunError):
    """The remote cannot be used; the message says why, without secrets."""


class Place(Protocol):
    """What a remote needs of the place that it lies in; names are relative, with slashes."""

    def require(self) -> None:
        """Raise if the place is not there, or nothing may be seen of it."""

    def size(self, name: str) -> int | None:
        """Return the bytes of a file; None where there is none."""

    def read(self, name: str, most: int) -> Iterator[bytes]:
        """Yield a file in blocks, at least one byte more than `most` if it has more.

        Raises
        ------
        FileNotFoundError
            Where there is none.
        """

    def put(self, source: Path, name: str) -> None:
        """Put a copy of a file there in one step, in the place of one that is there.

        Raises
        ------
        IsADirectoryError
            Where a folder is in the way; other files can be put there all the same.
        """


@dataclass(frozen=True, slots=True)
class FolderPlace:
    """A folder; its file system may be shared with other machines."""

    root: Path

    def require(self) -> None:
        """Take a folder above that is missing for a disk that is not there, and not for an empty remote."""
        if not self.root.parent.is_dir():
            message = f"there is no folder {self.root.parent}"
            raise RemoteError(message)

    def size(self, name: str) -> int | None:
        """Return the bytes of a file; None where there is none."""
        try:
            return (self.root / name).stat().st_size
        except FileNotFoundError:
            return None

    def read(self, name: str, most: int) -> Iterator[bytes]:
        """Yield a file in blocks."""
        del most
        # A folder in the place of a file is found empty, and so is a pipe, as it is opened without waiting.
        with (
            contextlib.suppress(IsADirectoryError),
            open(self.root / name, "rb", opener=durable.open_at_once) as stream,
        ):
            while block := stream.read(_BLOCK):
                yield block

    def put(self, source: Path, name: str) -> None:
        """Put a copy of a file there by a rename."""
        self.require()
        durable.copy_file(source, self.root / name)


@dataclass(frozen=True, slots=True)
class BucketPlace:
    """A bucket, or what lies in it below a prefix; an upload appears there when it is complete."""

    objects: Any
    """A store of obstore. Only its calls that wait are used: the others call back into a Python that may be gone."""

    def require(self) -> None:
        """Raise if there is no such bucket."""
        next(iter(self.objects.list(chunk_size=1)), None)

    def size(self, name: str) -> int | None:
        """Return the bytes of an object; None where there is none."""
        try:
            return int(self.objects.head(name)["size"])
        except FileNotFoundError:
            return None

    def read(self, name: str, most: int) -> Iterator[bytes]:
        """Yield an object in blocks, each a request of its own."""
        start = 0
        while start <= most:
            end = start + _BLOCK if start + _BLOCK < most else most + 1
            block = self._read(name, start, end)
            yield block
            if len(block) < end - start:
                return
            start = end

    def _read(self, name: str, start: int, end: int) -> bytes:
        try:
            return bytes(self.objects.get_range(name, start=start, end=end))
        except Exception as error:
            if "Range Not Satisfiable" in str(error):  # it ends where the range begins
                return b""
            raise

    def put(self, source: Path, name: str) -> None:
        """Upload a file."""
        self.objects.put(name, source)


def open_place(url: str) -> Place:
    """Return the place that a URL or a path names; nothing is looked at yet.

    Raises
    ------
    UsageError
        If it is no place for a remote, or needs a package that is not installed.
    """
    from kflow.core.files.urls import local_path, redact, scheme_of

    scheme = scheme_of(url)
    if scheme in _SCHEMES:
        return _open_bucket(scheme, url)
    try:
        path = local_path(url)
    except ValueError:
        path = None
    if path is None:
        message = f"--remote {redact(url)}: expected a folder, or a URL with s3:// or gs://"
        raise UsageError(message)
    return FolderPlace(Path(os.path.abspath(path)))  # noqa: PTH100  resolve() would follow links


def _open_bucket(scheme: str, url: str) -> Place:
    found = re.fullmatch(rf"{scheme}://([a-z0-9][a-z0-9._-]+)((?:/[\w.=+-]+)*)/?", url, re.IGNORECASE | re.ASCII)
    if not found or {".", ".."} & set(found[2].split("/")):
        # Not shown: what stands in the wrong place may be a secret.
        message = (
            f"--remote: expected {scheme}://BUCKET/FOLDER of letters, digits and . _ = + -; "
            "credentials come from the environment, never from the URL"
        )
        raise UsageError(message)
    try:
        from obstore.exceptions import BaseError
        from obstore.store import from_url
    except ImportError:
        message = f"--remote {scheme}://... needs more packages: pip install 'kflow[remote]'"
        raise UsageError(message) from None
    patience = timedelta(seconds=_PATIENCE)
    config, is_plain_http = _ask_environment(scheme)
    options = {"connect_timeout": timedelta(seconds=5), "timeout": patience, "allow_http": is_plain_http}
    retries = {"max_retries": 3, "retry_timeout": patience}
    try:
        return BucketPlace(from_url(url.rstrip("/"), config=config, client_options=options, retry_config=retries))
    except BaseError as error:  # what the environment says of the server or of credentials
        hint = _hint_at_credentials(str(error)) if scheme == "gs" else ""
        message = f"--remote {scheme}://...: {describe_failure(error)}{hint}"
        raise UsageError(message) from None


# --- what the environment says ---------------------------------------------------------------------------------


def _ask_environment(scheme: str) -> tuple[dict[str, str], bool]:
    """Return what the library must be told of a server of one's own, and whether that one is without TLS.

    Raises
    ------
    UsageError
        If a variable holds what would let the library panic.
    """
    is_google = scheme == "gs"
    source, url = _find_google() if is_google else _find_amazon()
    is_plain_http = url is not None and _is_plain_http(source, url)
    if not is_google:
        return {}, is_plain_http
    if not re.fullmatch(r"[!-~]*", os.environ.get("GOOGLE_BEARER_TOKEN", "")):
        raise UsageError("GOOGLE_BEARER_TOKEN: holds a line break or a blank; set it to the token and nothing else")
    config = {} if url is None else {"base_url": url.rstrip("/")}
    # A signature of S3 is of no use to who listens; a token of Google's is all that is needed, so it stays at home.
    return config | ({"bearer_token": ""} if is_plain_http else {}), is_plain_http


def _find_amazon() -> tuple[str, str | None]:
    return "AWS_ENDPOINT_URL", os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT") or None


def _find_google() -> tuple[str, str | None]:
    """Return the server that the environment names in place of Google's, and what names it."""
    if "GOOGLE_BASE_URL" in os.environ:
        return "GOOGLE_BASE_URL", os.environ["GOOGLE_BASE_URL"]
    import json

    try:
        key = os.environ.get("GOOGLE_SERVICE_ACCOUNT_KEY")
        files = (Path(os.environ[name]) for name in _ACCOUNTS if name in os.environ)
        account = json.loads(next(files).read_bytes() if key is None else key)
        url = account.get("gcs_base_url")
    except (OSError, ValueError, AttributeError, StopIteration):  # the library says what is wrong, if anything is
        url = None
    return "gcs_base_url of the service account", url if isinstance(url, str) else None


def _is_plain_http(source: str, url: str) -> bool:
    from kflow.core.files.urls import check_url, redact

    try:
        scheme = check_url(url).scheme
    except ValueError as error:
        message = f"{source}: {error}"
        raise UsageError(message) from None
    if scheme not in ("http", "https"):
        message = f"{source}: {redact(url)} is no URL with http:// or https://"
        raise UsageError(message)
    return scheme == "http"


def _hint_at_credentials(failure: str) -> str:
    """Say which credentials of Google's the library could not read, and what to do about those of a kind it cannot."""
    if not re.search("service account|pem file", failure):
        return ""
    names = [name for name in _GOOGLE_CREDENTIALS if name in os.environ]
    hint = f"; look at {' and '.join(names) or '~/.config/gcloud/application_default_credentials.json'}"
    if "unknown variant" in failure:  # as workload identity federation has it
        hint += ", or set GOOGLE_BEARER_TOKEN to what 'gcloud auth print-access-token' prints"
    return hint


def describe_failure(error: BaseException) -> str:
    r"""Say in one line why a place could not be used, without what may be secret.

    Examples
    --------
    >>> describe_failure(OSError("no way to http://me:pw@host/a?sig=1\nmore"))
    'no way to http://host/a?...'
    """
    from kflow.core.files.urls import redact

    code = re.search(r"<Code>(\w+)</Code>", str(error))
    if code:
        return f"the server says {code[1]}"
    if _NO_CREDENTIALS.search(str(error)):
        return "there are no credentials for it in the environment"
    if "error sending request" in str(error):
        return "its server cannot be reached"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    text = re.sub(r"(invalid (?:type|value): ).*, expected", r"\1expected", text)  # may quote a key
    return re.sub(r"[a-z][a-z0-9+]*://[^\s\"')]+", lambda url: redact(url[0]), text, flags=re.IGNORECASE)[:300]
