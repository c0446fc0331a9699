"""Fetch files once and verify them: the cache, the download, the connection and the digests."""

from kflow.core.files.get import (
    DownloadError,
    HashMismatchError,
    Progress,
    Retry,
    file_digest,
    get_file,
    parse_digest,
    redact,
)

__all__ = [
    "DownloadError",
    "HashMismatchError",
    "Progress",
    "Retry",
    "file_digest",
    "get_file",
    "parse_digest",
    "redact",
]
