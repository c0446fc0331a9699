"""HDF5 files opened for reading, and their data sets found: only safe ones, unless the caller allows more.

A file from elsewhere may point to other files or claim more than it holds; what does so is refused.
"""

from __future__ import annotations

import os
from collections import deque
from difflib import get_close_matches
from itertools import islice
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

__all__ = ["ALLOWABLE", "CHUNK_CACHE", "check_allowed", "find_dataset", "open_file", "where_is"]

ALLOWABLE = ("dtype", "external_links", "external_storage", "filters", "size", "virtual")
"""What is refused unless it is allowed by its name."""

CHUNK_CACHE = 64 * 2**20
"""How many bytes of unpacked chunks HDF5 keeps: with its default of 1 MiB, small batches from a compressed
file unpack the same chunks again and again (a hundred times slower)."""

_MAX_CHUNK = 256 * 2**20  # HDF5 unpacks whole chunks: a larger one fills the memory for a single row
_SUSPECT_SIZE, _SUSPECT_RATIO = 4 * 2**30, 1000  # a small file that claims to hold this much is a trap
_MOST_NODES, _MOST_NAMES = 1000, 20  # how far an error message looks for the data sets that exist

# The filters of HDF5's own library that most files have, and LZF, which comes with h5py. Others are rare, are
# loaded from wherever HDF5_PLUGIN_PATH says, or (n-bit, scale-offset) had memory errors on damaged files.
_FILTERS = {
    h5py.h5z.FILTER_DEFLATE: "gzip",
    h5py.h5z.FILTER_SHUFFLE: "shuffle",
    h5py.h5z.FILTER_FLETCHER32: "fletcher32",
    h5py.h5z.FILTER_SZIP: "szip",
    h5py.h5z.FILTER_LZF: "lzf",
}


def check_allowed(allow: Collection[str]) -> frozenset[str]:
    """Return the names of what is allowed, each known."""
    names = frozenset([allow] if isinstance(allow, str) else allow)
    if not names <= set(ALLOWABLE):
        unknown = ", ".join(map(repr, sorted(names - set(ALLOWABLE))))
        msg = f"allow takes names from {', '.join(ALLOWABLE)}; there is no {unknown}"
        raise ValueError(msg)
    return names


def open_file(path: str) -> h5py.File:
    """Open a file for reading; what is not a complete HDF5 file raises OSError, saying what it is."""
    try:
        return h5py.File(path, "r", locking="best-effort")
    except FileNotFoundError:
        msg = f"there is no file {path}"
        raise FileNotFoundError(msg) from None
    except PermissionError:
        raise
    except OSError as error:
        raise OSError(_why_unreadable(path, error)) from error


def _why_unreadable(path: str, error: OSError) -> str:
    """Return what is wrong with a file that HDF5 does not open."""
    if not Path(path).is_file():
        return f"{path} is not a file"
    with Path(path).open("rb") as file:
        start = file.read(48)
        size = os.fstat(file.fileno()).st_size
    if start.startswith(b"version https://git-lfs"):
        return f"{path} is a Git LFS pointer, not the data; fetch it with `git lfs pull`"
    return f"{path} is not a complete HDF5 file: {size} bytes, starting with {start[:16]!r} ({error})"


def find_dataset(file: h5py.File, name: str, path: str, allow: Collection[str] = ()) -> h5py.Dataset:
    """Return a data set that lies in this file, and is safe to read."""
    group, last, node = _follow(file, name, path, allow)
    if not isinstance(node, h5py.Dataset):
        inside = ", ".join(f"{name.strip('/')}/{each}" for each in islice(node, 5)) or "nothing"
        msg = f"{name!r} of {path} is a group, not a data set (it holds {inside})"
        raise KeyError(msg)
    for what, error, why in _objections(node):
        if what not in allow:
            msg = f"{where_is(name, path)} {why}{_unless(what) if what else ''}"
            raise error(msg)
    return _with_cache(group, node, last)


def _follow(file: h5py.File, name: str, path: str, allow: Collection[str]) -> tuple[h5py.Group, str, h5py.HLObject]:
    """Follow a name link by link, as HDF5 itself would follow a link to any other file.

    Returns the last group on the way, the name of the last link, and what it leads to.
    """
    group, last, node, hops, todo = file, "", file, 0, deque(name.split("/"))
    while todo:
        part = todo.popleft()
        if part in {"", "."}:
            continue
        is_name = part.encode(errors="ignore").decode() == part  # names in HDF5 are UTF-8
        link = node.get(part, getlink=True) if is_name and isinstance(node, h5py.Group) else None
        if link is None:
            raise KeyError(_no_dataset(file, name, path))
        if isinstance(link, h5py.SoftLink) and hops < 100:
            hops += 1
            node = node.file if link.path.startswith("/") else node
            todo.extendleft(reversed(link.path.split("/")))
        else:
            _check_link(link, f"{where_is(name, path)} is refused: {part!r}", allow)
            group, last, node = node, part, _target(node, part, name, path)
    return group, last, node


def _check_link(link: object, where: str, allow: Collection[str]) -> None:
    """Raise unless a link stays in the file, or need not."""
    if isinstance(link, h5py.SoftLink):
        msg = f"{where} is an endless link"
        raise ValueError(msg)
    if isinstance(link, h5py.ExternalLink) and "external_links" not in allow:
        msg = f"{where} is an external link to {link.filename!r}{_unless('external_links')}"
        raise ValueError(msg)


def _with_cache(group: h5py.Group, data: h5py.Dataset, part: str) -> h5py.Dataset:
    """Return the data set opened again, if it is compressed, with a chunk cache of its own.

    That of the file would be of the size that whoever opened the file first in this process has chosen.
    """
    if not any(_filters(data)):
        return data
    data.id.close()
    access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
    access.set_chunk_cache(12_007, CHUNK_CACHE, 0.75)  # a prime number of slots, for chunks of 5 kB; HDF5's weight
    return h5py.Dataset(h5py.h5d.open(group.id, part.encode(), access))


def _target(node: h5py.Group, part: str, name: str, path: str) -> h5py.HLObject:
    """Return what a link leads to."""
    try:
        return node[part]
    except (KeyError, OSError) as error:  # an external link to what is not there
        msg = f"{where_is(name, path)}: {part!r} leads nowhere ({error})"
        raise KeyError(msg) from error


def where_is(name: str, path: str) -> str:
    """Return what error messages call a data set."""
    return f"data set {name!r} of {path}"


def _unless(what: str) -> str:
    """Return the end of a refusal."""
    return f"; if you trust the file, allow=({what!r},) reads it"


def _objections(data: h5py.Dataset) -> Iterator[tuple[str, type[Exception], str]]:
    """Yield why a data set should not be read: what to allow, if anything, the error, and the reason in words."""
    try:
        dtype = data.dtype
    except TypeError as error:  # bit fields, times
        yield "", TypeError, f"has a type that NumPy does not know ({error})"
        return
    if data.shape is None:
        yield "", TypeError, "has no data, not even a shape"
        return
    if data.is_virtual:
        yield "virtual", ValueError, "is refused: it is virtual, so its data lies in other files"
        if any(_has_external_storage(data.file, source) for source in data.virtual_sources()):
            yield "external_storage", ValueError, "is refused: what it is made of has external storage"
    if data.external:
        yield "external_storage", ValueError, "is refused: it has external storage, so its data lies in other files"
    if dtype.kind not in "biuf":
        yield "dtype", TypeError, f"has dtype {dtype}; only integers, floats and booleans are read"
    size = prod(data.shape) * dtype.itemsize
    chunk = prod(data.chunks or (0,)) * dtype.itemsize
    stored = data.id.get_storage_size()
    if chunk > _MAX_CHUNK or size > max(_SUSPECT_SIZE, _SUSPECT_RATIO * stored):
        yield "size", ValueError, f"is refused: it claims {size} bytes, in chunks of {chunk}, but stores {stored}"
    unknown = [name for number, name in _filters(data) if number not in _FILTERS]
    if unknown:
        known = ", ".join(sorted(_FILTERS.values()))
        yield "filters", ValueError, f"is refused: it was written with {', '.join(unknown)}; known are {known}"


def _has_external_storage(file: h5py.File, source: Any) -> bool:
    """Whether a part of a virtual data set is in this file and has its data in others."""
    if source.file_name != "." and Path(source.file_name).name != Path(file.filename).name:
        return False
    part = file.get(source.dset_name)
    return isinstance(part, h5py.Dataset) and bool(part.external)


def _filters(data: h5py.Dataset) -> Iterator[tuple[int, str]]:
    """Yield the number and the name of each filter that the data went through."""
    plist = data.id.get_create_plist()
    for index in range(plist.get_nfilters()):
        number, _, _, name = plist.get_filter(index)
        yield number, f"filter {number} ({name.decode('utf-8', 'replace') or 'without a name'})"


def _no_dataset(file: h5py.File, name: str, path: str) -> str:
    """Return the message for a name that is not one of a data set."""
    names = _dataset_names(file)
    near = get_close_matches(name.strip("/"), names, 1, 0.5)
    guess = f"; did you mean {near[0]!r}?" if near else ""
    listed = ", ".join(names[:_MOST_NAMES]) + (", ..." if len(names) > _MOST_NAMES else "")
    return f"{path} has no data set {name!r}{guess} (it has: {listed or 'none'})"


def _dataset_names(file: h5py.File) -> list[str]:
    """Return the names of data sets, near the root first, looking at so many nodes only."""
    names: list[str] = []
    todo: deque[tuple[str, h5py.Group]] = deque([("", file)])
    budget = _MOST_NODES
    while todo and budget > 0:
        prefix, group = todo.popleft()
        for key in islice(group, budget):
            budget -= 1
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                continue
            kind = group.get(key, getclass=True)
            if kind is h5py.Dataset:
                names.append(prefix + key)
            elif kind is h5py.Group:
                todo.append((f"{prefix}{key}/", group[key]))
    return names
