"""Which members of an archive may come out, and the folder that they are put in.

Nothing that an archive says is trusted: each name, size and count is checked here before anything of that
member is written, and files are made relative to one open folder, never through a link.
"""

import contextlib
import errno
import os
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NoReturn, cast

from isal import isal_zlib

BLOCK = 2**20
InflateError = cast("type[Exception]", isal_zlib.error)  # its stub takes the class for an instance
_RATIO_FLOOR = 2**20  # a tiny archive may well unpack to a thousand times its size
_MAX_DEPTH = 32
_MAX_NAME = 255  # bytes of one component: what Linux file systems take
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_BAD_NAME = {errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL}


class ArchiveError(ValueError):
    """An archive that is damaged, hostile or of no known format."""


class OccupiedError(ArchiveError):
    """A sound archive, one of whose places is taken by what did not come from it."""


def refuse(why: str) -> NoReturn:
    """Refuse the archive; where it lies is told by who opened it."""
    raise ArchiveError(why)


@dataclass(frozen=True)
class Limits:
    """How much may come out of one archive."""

    max_bytes: int = 100 * 2**30
    max_members: int = 1_000_000
    max_ratio: int = 1000

    def most_from(self, packed: int) -> int:
        """Return how many bytes may come out of so many packed ones."""
        return min(self.max_bytes, packed * self.max_ratio + _RATIO_FLOOR)


class Intake:
    """The members accepted so far, against which the next one is checked."""

    def __init__(self, limits: Limits, packed: int) -> None:
        self.limits = limits
        self.most = limits.most_from(packed)
        self.members = 0
        self.size = 0
        self.folders: set[str] = set()
        self._spelled: dict[str, str] = {}  # by what a file system that ignores case and normalizes sees

    def expect(self, members: int) -> None:
        """Refuse a number of members, as soon as it is known."""
        if members > self.limits.max_members:
            refuse(f"it holds more than {self.limits.max_members:,} members; raise max_members if that is right")

    def accept(self, name: str, *, is_folder: bool, size: int) -> str:
        """Check and count a member; return its path, which is '' for the folder itself."""
        self.members += 1
        if self.members > self.limits.max_members:
            refuse(
                f"with member {name!r} it holds more than {self.limits.max_members:,}; raise max_members if that is "
                "right"
            )
        if size < 0 or (is_folder and size):
            refuse(f"member {name!r} declares an impossible size of {size}")
        self.size += size
        if self.size > self.most:
            refuse(
                f"with member {name!r} it unpacks to more than {self.most:,} bytes; raise max_bytes or max_ratio if "
                "that is right"
            )
        path = _checked_path(name)
        if path:
            self._take(path, name, is_folder=is_folder)
        elif not is_folder:
            refuse(f"member {name!r} has no name")
        return path

    def paths(self) -> list[str]:
        """List the files and folders accepted."""
        return list(self._spelled.values())

    def _take(self, path: str, name: str, *, is_folder: bool) -> None:
        """Note a path and the folders above it; no other may be the same or look the same."""
        if is_folder and path in self.folders:
            return
        if above := path.rpartition("/")[0]:
            self._take(above, name, is_folder=True)
        key = _alike(path)
        other = self._spelled.get(key)
        if other is None:
            self._spelled[key] = path
            if is_folder:
                self.folders.add(path)
        elif is_folder and other in self.folders:
            refuse(f"member {name!r} differs from {other!r} only in case or normalization")
        else:
            refuse(f"member {name!r} collides with {other!r}")


def _checked_path(name: str) -> str:
    """Return a member's name as a plain path, refusing what could leave the folder or fool a reader."""
    if not name.isprintable() and any(unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for char in name):
        refuse(f"member {name!r} has control, formatting or undecodable characters in its name")
    if name.startswith("/"):
        refuse(f"member {name!r} has an absolute name")
    if "\\" in name:
        refuse(f"member {name!r} has a backslash in its name")
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if ".." in parts:
        refuse(f"member {name!r} has '..' in its name")
    if len(parts) > _MAX_DEPTH:
        refuse(f"member {name!r} lies more than {_MAX_DEPTH} folders deep")
    if len(name) > _MAX_NAME // 4 and any(len(part.encode()) > _MAX_NAME for part in parts):
        refuse(f"member {name!r} has a component of more than {_MAX_NAME} bytes")
    return "/".join(parts)


def _alike(path: str) -> str:
    """Return what all paths share that differ in case or normalization only (Unicode's D145)."""
    if path.isascii():
        return path.lower()
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", path).casefold())


class Tree:
    """A new folder that is filled through its descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def add_folder(self, path: str) -> None:
        """Make a folder and those above it."""
        if above := path.rpartition("/")[0]:
            self.add_folder(above)
        if path:
            with contextlib.suppress(FileExistsError):
                os.mkdir(path, dir_fd=self._descriptor)

    def add_file(self, path: str, blocks: Iterable[bytes]) -> int:
        """Make a file that did not exist and the folders above it; return its size."""
        try:
            descriptor = self._create(path)
        except FileNotFoundError:
            self.add_folder(path.rpartition("/")[0])
            descriptor = self._create(path)
        size = 0
        try:
            for block in blocks:
                size += len(block)
                rest = block
                while (written := os.write(descriptor, rest)) < len(rest):
                    rest = rest[written:]
        finally:
            os.close(descriptor)
        return size

    def _create(self, path: str) -> int:
        try:
            return os.open(path, _NEW_FILE, 0o666, dir_fd=self._descriptor)
        except OSError as error:
            if error.errno in _BAD_NAME:
                refuse(f"member {path!r} has a name that this file system does not take ({error.strerror})")
            raise
