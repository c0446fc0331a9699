"""Where a remote lies: a folder, perhaps of a network, or a bucket. Files appear there whole or not at all."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from kflow.errors import RunError, UsageError
from kflow.store import durable

_BLOCK = 4 * 2**20
_PATIENCE = 20
"""Seconds that one request to a bucket may take; a large file is many requests."""
_SCHEMES = ("s3", "gs")
_NO_CREDENTIALS = re.compile(
    r"169\.254\.169\.254|/latest/api/token|metadata\.google|Missing (AccessKeyId|SecretAccessKey)"
)
"""What stands in a message when credentials were looked for everywhere, the machines of a cloud last."""


class RemoteError(RunError):
    """The remote cannot be used; the message says why, without secrets."""


class Place(Protocol):
    """What a remote needs of the place that it lies in; names are relative, with slashes."""

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
        """Put a copy of a file there in one step, in the place of one that is there."""


@dataclass(frozen=True, slots=True)
class FolderPlace:
    """A folder; its file system may be shared with other machines."""

    root: Path

    def size(self, name: str) -> int | None:
        """Return the bytes of a file; None where there is none."""
        try:
            return (self.root / name).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            self._require()
            return None

    def read(self, name: str, most: int) -> Iterator[bytes]:
        """Yield a file in blocks."""
        del most
        # Opened without waiting, so that a pipe in the place of a file is found empty.
        with os.fdopen(os.open(self.root / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            while block := stream.read(_BLOCK):
                yield block

    def put(self, source: Path, name: str) -> None:
        """Put a copy of a file there by a rename."""
        self._require()
        durable.copy_file(source, self.root / name)

    def _require(self) -> None:
        """Take a folder above that is missing for a disk that is not there, and not for an empty remote."""
        if not self.root.parent.is_dir():
            message = f"there is no folder {self.root.parent}"
            raise RemoteError(message)


@dataclass(frozen=True, slots=True)
class BucketPlace:
    """A bucket, or what lies in it below a prefix; an upload appears there when it is complete."""

    files: Any
    """An fsspec file system."""
    root: str

    def size(self, name: str) -> int | None:
        """Return the bytes of an object; None where there is none."""
        try:
            found = self.files.info(f"{self.root}/{name}")
        except FileNotFoundError:
            return None
        return int(found["size"]) if found["type"] == "file" else None

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
            return bytes(self.files.cat_file(f"{self.root}/{name}", start, end))
        except Exception as error:
            if "Range Not Satisfiable" in str(error):  # it ends where the range begins
                return b""
            raise

    def put(self, source: Path, name: str) -> None:
        """Upload a file."""
        self.files.put_file(str(source), f"{self.root}/{name}")


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
        from obstore.fsspec import FsspecStore
    except ImportError:
        message = f"--remote {scheme}://... needs more packages: pip install 'kflow[remote]'"
        raise UsageError(message) from None
    patience = timedelta(seconds=_PATIENCE)
    options: dict[str, Any] = {"connect_timeout": timedelta(seconds=5), "timeout": patience}
    if os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://"):  # a server of one's own
        options["allow_http"] = True
    retries = {"max_retries": 3, "retry_timeout": patience}
    files = FsspecStore(scheme, client_options=options, retry_config=retries, skip_instance_cache=True)
    return BucketPlace(files, f"{scheme}://{found[1]}{found[2]}")


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
    return re.sub(r"[a-z][a-z0-9+]*://[^\s\"')]+", lambda url: redact(url[0]), text, flags=re.IGNORECASE)[:300]
