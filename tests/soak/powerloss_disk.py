"""A model of a disk that forgets: what was written, and what of it would be there after a power cut.

The rules are those of POSIX, which promise less than any file system keeps: data are there when their file was
synced since, a name when its folder was. All else may be there or not, each independently of the rest and of the order;
renaming is one step. A file whose data were not synced may have any length up to its own, or zeros in it.
"""

import os
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.soak.strace import Call

Content = Callable[["Node"], bytes]


@dataclass
class Node:
    """A file or a folder, whatever its names are."""

    is_folder: bool
    data: bytearray = field(default_factory=bytearray)
    synced: bytes = b""
    """Of a file: what is sure to be there."""
    names: dict[str, "Node"] = field(default_factory=dict)
    """Of a folder: what is in it now."""


@dataclass(frozen=True, slots=True)
class Naming:
    """A change of names: a node gets one, loses one, or both in one step."""

    added: tuple[Node, str] | None
    removed: tuple[Node, str] | None
    node: Node


@dataclass
class Disk:
    """The files below a folder as calls make them, and which of the changes are sure to last."""

    root: Path
    top: Node = field(default_factory=lambda: Node(is_folder=True))
    changes: list[tuple[Naming, bool]] = field(default_factory=list)
    """Every change of names, with whether it is sure."""
    opened: dict[tuple[int, int], tuple[Node, int, bool]] = field(default_factory=dict)
    """By thread and descriptor: the file, the place in it, and whether it only grows."""

    # --- what calls do -----------------------------------------------------------------------------------

    def find(self, path: str) -> Node | None:
        """Return what bears a path."""
        node: Node | None = self.top
        for part in Path(path).relative_to(self.root).parts:
            node = node.names.get(part) if node else None
        return node

    def _place(self, path: str) -> tuple[Node, str]:
        folder = self.find(str(Path(path).parent))
        assert folder is not None, path
        return folder, Path(path).name

    def _name(self, path: str, node: Node, removed: str | None = None) -> None:
        folder, name = self._place(path)
        before = self._place(removed) if removed else None
        if before:
            del before[0].names[before[1]]
        folder.names[name] = node
        self.changes.append((Naming((folder, name), before, node), False))

    def add(self, path: str, content: bytes | None) -> None:
        """Put a file or a folder there that has been on the disk for long."""
        node = Node(is_folder=content is None, data=bytearray(content or b""), synced=content or b"")
        self._name(path, node)
        self.changes[-1] = (self.changes[-1][0], True)

    def do(self, call: Call) -> None:
        """Do what a call did."""
        if call.result is None or call.result < 0:
            return
        match call.name:
            case "openat":
                self._open(call)
            case "mkdir" | "mkdirat":
                self._name(call.paths[0], Node(is_folder=True))
            case "rename" | "renameat" | "renameat2":
                node = self.find(call.paths[0])
                assert node is not None, call
                self._name(call.paths[1], node, removed=call.paths[0])
            case "unlink" | "unlinkat" | "rmdir":
                folder, name = self._place(call.paths[0])
                self.changes.append((Naming(None, (folder, name), folder.names.pop(name)), False))
            case "write" | "sendfile" | "copy_file_range":
                self._write(call)
            case "fsync" | "fdatasync":
                self._sync(call)
            case "close":
                self.opened.pop((call.thread, int(call.descriptors[0][0])), None)
            case "utimensat" | "fchmod" | "chmod":
                pass
            case other:
                raise AssertionError(f"the model knows no {other}: {call}")

    def _open(self, call: Call) -> None:
        assert call.result is not None, "it returned"
        path = call.paths[0]
        node = self.find(path)
        if node is None:
            node = Node(is_folder=False)
            self._name(path, node)
        if "O_TRUNC" in call.flags:
            node.data.clear()
        self.opened[call.thread, call.result] = (node, 0, "O_APPEND" in call.flags)

    def _write(self, call: Call) -> None:
        assert call.result is not None, "it returned"
        number = int(call.descriptors[0][0])
        key = (call.thread, number)
        if key not in self.opened:  # another descriptor of an open file, as NumPy makes one
            node = self.find(call.paths[0])
            assert node is not None, call
            self.opened[key] = (node, len(node.data), False)
        node, place, grows = self.opened[key]
        place = len(node.data) if grows else place
        if call.name == "write":
            data = call.texts[0][: call.result]
        else:
            source = self.find(call.paths[1])
            assert source is not None, call
            data = bytes(source.data[place : place + call.result])  # whole files are copied, from the beginning
        assert len(data) == call.result, call
        node.data[place : place + len(data)] = data
        self.opened[key] = (node, place + len(data), grows)

    def _sync(self, call: Call) -> None:
        node = self.find(call.paths[0])
        assert node is not None, call
        node.synced = bytes(node.data)
        if node.is_folder:
            for number, (change, _) in enumerate(self.changes):
                touched = [place[0] for place in (change.added, change.removed) if place]
                if any(each is node for each in touched):
                    self.changes[number] = (change, True)

    # --- what a power cut leaves -------------------------------------------------------------------------

    def states(self, chances: int, seed: int) -> Iterator[tuple[str, dict[str, bytes | None]]]:
        """Yield what could be there after a power cut now: each path with its content, None for a folder."""
        everything = [True] * len(self.changes)
        sure = [is_sure for _, is_sure in self.changes]
        yield "all", self._tree(everything, lambda node: bytes(node.data))
        yield "synced", self._tree(sure, lambda node: node.synced)
        yield "names", self._tree(everything, lambda node: node.synced)
        yield "zeros", self._tree(everything, _zeroed)
        yield "half", self._tree(everything, _halved)
        yield "data", self._tree(sure, lambda node: bytes(node.data))
        for chance in range(chances):
            dice = random.Random(f"{seed} {chance}")
            kept = [is_sure or dice.random() < 0.5 for is_sure in sure]
            yield f"chance {chance}", self._tree(kept, lambda node, dice=dice: _forgotten(node, dice))

    def _tree(self, kept: list[bool], content: Content) -> dict[str, bytes | None]:
        """Return paths and contents where some changes of names came to the disk."""
        names: dict[int, dict[str, Node]] = {}
        for (change, _), is_kept in zip(self.changes, kept, strict=True):
            if is_kept and change.removed:
                folder, name = change.removed
                there = names.setdefault(id(folder), {})
                if there.get(name) is change.node:
                    del there[name]
            if is_kept and change.added:
                names.setdefault(id(change.added[0]), {})[change.added[1]] = change.node
        found: dict[str, bytes | None] = {}
        todo = [("", self.top)]
        while todo:
            path, folder = todo.pop()
            for name, node in names.get(id(folder), {}).items():
                below = f"{path}/{name}".lstrip("/")
                found[below] = None if node.is_folder else content(node)
                if node.is_folder:
                    todo.append((below, node))
        return found


def _zeroed(node: Node) -> bytes:
    if bytes(node.data) == node.synced:
        return node.synced
    return node.synced[: len(node.data)] + bytes(max(0, len(node.data) - len(node.synced)))


def _halved(node: Node) -> bytes:
    if bytes(node.data) == node.synced:
        return node.synced
    return bytes(node.data[: (len(node.synced) + len(node.data)) // 2])


def _forgotten(node: Node, dice: random.Random) -> bytes:
    if bytes(node.data) == node.synced:
        return node.synced
    forms = (bytes(node.data), node.synced, _zeroed(node), _halved(node), bytes(len(node.data)))
    return dice.choice(forms)


def lay_down(tree: dict[str, bytes | None], root: Path) -> None:
    """Make files and folders."""
    for path in sorted(tree):
        content = tree[path]
        if content is None:
            (root / path).mkdir()
        else:
            (root / path).write_bytes(content)


def take_up(root: Path, folders: Iterable[Path]) -> dict[str, bytes | None]:
    """Return what lies below some folders, by path."""
    return {
        os.path.relpath(path, root): None if path.is_dir() else path.read_bytes()
        for folder in folders
        for path in (folder, *folder.rglob("*"))
        if path.exists()
    }
