"""81 archives that are hostile, damaged or odd, and what a program makes of each of them.

Whatever leaves the folder that a program was given lands in a sacrificial one beside it, and is found.
"""

import os
import re
import stat
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.hostile.archive_case import Case
from tests.hostile.damage_cases import DAMAGED_TARS
from tests.hostile.tar_cases import TARS
from tests.hostile.zip_cases import ZIPS

CASES: tuple[Case, ...] = (*TARS, *DAMAGED_TARS, *ZIPS)
RIGHT = "right"


@dataclass(frozen=True)
class Node:
    """What lies under one path, with the first MiB of a file or the target of a link."""

    kind: str
    mode: int
    owner: int
    inode: int
    size: int
    content: bytes


def nodes(folder: Path) -> dict[str, Node]:
    """Describe everything below a folder, following no link."""
    found = {}
    for base, folders, files, descriptor in os.fwalk(folder):  # by descriptor: some paths are too long to be opened
        for name in folders + files:
            status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            kind, content = "device", b""
            if stat.S_ISDIR(status.st_mode):
                kind = "folder"
            elif stat.S_ISLNK(status.st_mode):
                kind, content = "link", os.fsencode(os.readlink(name, dir_fd=descriptor))
            elif stat.S_ISREG(status.st_mode):
                kind = "file"
                with open(name, "rb", opener=partial(os.open, dir_fd=descriptor)) as file:
                    content = file.read(2**20)
            found[str(Path(base, name).relative_to(folder))] = Node(
                kind, stat.S_IMODE(status.st_mode), status.st_uid, status.st_ino, status.st_size, content
            )
    return found


def outcome(case: Case, subject: str, folder: Path) -> str:
    """Let a subject extract an archive inside an empty folder; return 'right' or what went wrong."""
    victim, box = folder / "victim", folder / "box"
    (victim / "folder").mkdir(parents=True, mode=0o755)
    (victim / "secret").write_bytes(b"secret")
    box.mkdir()
    (box / "archive").write_bytes(case.make(victim))
    before = nodes(folder)
    error: Exception | None = None
    try:
        SUBJECTS[subject](case, box / "archive", box)
    except ImportError:
        raise  # that a subject is not there is no refusal
    except Exception as raised:  # noqa: BLE001  whatever a program raises is its refusal
        error = raised
    after = {name: node for name, node in nodes(folder).items() if name not in OWN}
    came = {name.removeprefix(INSIDE): node for name, node in after.items() if name.startswith(INSIDE)}
    return (
        _escape(before, {name: node for name, node in after.items() if not name.startswith(INSIDE)})
        or _harm(came, before, box / "data")
        or (_judged_strictly if subject in {"kflow", "untar"} else _judged)(case, error, came)
    )


def _escape(before: Mapping[str, Node], after: Mapping[str, Node]) -> str:
    """Say which file or folder outside was made, changed or removed."""

    def looks(node: Node | None) -> object:
        return node and (node.kind, node.mode, node.content)

    names = [name for name in before.keys() | after.keys() if looks(before.get(name)) != looks(after.get(name))]
    return f"escaped: {min(names)}" if names else ""


def _harm(came: Mapping[str, Node], before: Mapping[str, Node], destination: Path) -> str:
    """Say which of the files that came out is dangerous where it is."""
    foreign = {node.inode for node in before.values()}
    for name, node in came.items():
        if node.kind == "device":
            return f"left a device: {name}"
        if node.kind == "link" and not Path(os.path.realpath(destination / name)).is_relative_to(destination):
            return f"left a link out: {name}"
        if node.inode in foreign:
            return f"left a hard link to a foreign file: {name}"
        if node.mode & 0o6000 and node.kind == "file":
            return f"kept a setuid bit: {name}"
        if node.owner != os.geteuid():
            return f"kept a foreign owner: {name}"
    size = sum(node.size for node in came.values())
    return f"unpacked {size:,} bytes" if size > 2**30 else ""


def _judged_strictly(case: Case, error: Exception | None, came: Mapping[str, Node]) -> str:
    """Judge kflow, which does exactly what the case says."""
    if case.refused is None:
        got = {name: node.content for name, node in came.items() if node.kind != "folder"}
        return RIGHT if error is None and got == case.files else f"{error or 'other files'}: {sorted(got)}"
    if came:
        return f"left {len(came)} files or folders"
    if not isinstance(error, ValueError) or type(error).__name__ != "ArchiveError":
        return f"not refused: {error!r}"
    is_named = re.search(f"(?s)cannot extract .*{case.refused}.*Nothing was extracted", str(error))
    return RIGHT if is_named else f"refused with other words: {error}"


def _judged(case: Case, error: Exception | None, came: Mapping[str, Node]) -> str:
    """Judge another program, which may refuse in its own words."""
    files = [node for node in came.values() if node.kind != "folder"]
    if error is not None:
        if files:
            return f"left {len(files)} files and raised {type(error).__name__}"
        return RIGHT if case.refused or case.either else f"refused: {error}"
    if case.files is not None:
        contents = sorted(str(node.content) for node in files)
        return RIGHT if contents == sorted(map(str, case.files.values())) else "dropped or changed members"
    size = sum(node.size for node in files)
    return RIGHT if case.either else f"silent: {len(files)} files, {size:,} bytes"


# --- subjects: each extracts an archive into the folder 'data' of a box -----------------------------------

INSIDE = "box/data/"
OWN = {"box/data", "box/data_archive", "box/data/archive", "box/data/archive.tar.gz"} | {
    f"box/data/.{archive}.{state}" for archive in ("archive", "archive.tar.gz") for state in ("lock", "unpacked")
}
"""The folder itself, the copies that caches keep of the archive, and the files by which kflow keeps its state."""


def _kflow(case: Case, archive: Path, box: Path) -> None:
    from kflow.core.archives import merge_archive
    from kflow.core.files import get_file

    if case.limits:
        (box / "data").mkdir()
        merge_archive(archive, box / "data", **case.limits)
    else:
        get_file("archive", archive.as_uri(), extract=True, cache_dir=box, cache_subdir="data")


def _untar(_: Case, archive: Path, box: Path) -> None:
    from kflow.core.files import get_file

    get_file("archive", archive.as_uri(), untar=True, cache_dir=box, cache_subdir="data")


def _keras(_: Case, archive: Path, box: Path) -> None:
    import keras

    keras.utils.get_file("data", archive.as_uri(), extract=True, cache_dir=str(box), cache_subdir="")


def _pooch(case: Case, archive: Path, _: Path) -> None:
    import pooch

    (pooch.Unzip if case.is_zip else pooch.Untar)(extract_dir="data")(str(archive), "download", None)


def _trusting(case: Case, archive: Path, box: Path) -> None:
    if case.is_zip:
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(box / "data")
    else:
        with tarfile.open(archive) as packed:
            packed.extractall(box / "data", filter="fully_trusted")


SUBJECTS: dict[str, Callable[[Case, Path, Path], None]] = {
    "kflow": _kflow,
    "untar": _untar,
    "keras": _keras,
    "pooch": _pooch,
    "trusting": _trusting,
}
"""The last is the standard library told to trust everything: it shows that the archives bite."""
