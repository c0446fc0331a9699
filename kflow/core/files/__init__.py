"""Fetch files once and verify them: the cache, the download, the connection and the digests.

Each name is imported on first use: who checks a URL needs no network library.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kflow.core.files.digests import file_digest, parse_digest
    from kflow.core.files.downloads import HashMismatchError, Progress, Retry
    from kflow.core.files.get import get_file
    from kflow.core.files.transport import DownloadError
    from kflow.core.files.urls import redact

_MODULE_OF = {
    "DownloadError": "transport",
    "HashMismatchError": "downloads",
    "Progress": "downloads",
    "Retry": "downloads",
    "file_digest": "digests",
    "get_file": "get",
    "parse_digest": "digests",
    "redact": "urls",
}

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


def __getattr__(name: str) -> object:
    """Import a name when it is first used (PEP 562)."""
    if name not in _MODULE_OF:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
