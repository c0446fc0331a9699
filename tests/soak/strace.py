"""Running a command under strace: what it does to files, and faults put into single system calls.

strace counts the calls of each thread for itself, so one thread alone is watched, and everything whose order counts
is made to happen in it (see `small_run`).
"""

import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

CHANGING = (
    "openat", "creat", "write", "pwrite64", "writev", "sendfile", "copy_file_range", "rename", "renameat", "renameat2",
    "link", "linkat", "symlink", "symlinkat", "unlink", "unlinkat", "rmdir", "mkdir", "mkdirat", "fsync", "fdatasync",
    "ftruncate", "truncate", "fallocate", "utimensat", "chmod", "fchmod", "fchmodat", "close",
)  # fmt: skip
"""The calls that change files. Of those that open and close, only what was opened for writing counts."""

ADVICE = (
    "strace is not here, or may not trace. Debian and Ubuntu have it: apt-get install strace; "
    "a container needs the capability SYS_PTRACE for it"
)
_LINE = re.compile(r"(?:(?P<time>\d+\.\d+) )?(?P<name>\w+)\((?P<arguments>.*)\)\s+= (?P<result>-?\d+|\?)(?P<rest>.*)$")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_OPEN = re.compile(r"(\d+|AT_FDCWD)<((?:\\x[0-9a-f]{2})*)>")


@dataclass(frozen=True, slots=True)
class Call:
    """A system call as strace tells it."""

    name: str
    number: int
    """Which call of this name it was, from 1."""
    texts: tuple[bytes, ...]
    """Its arguments in quotes: paths, or data."""
    descriptors: tuple[tuple[str, str], ...]
    """The descriptors among its arguments, with the paths that they were opened by."""
    flags: str
    """Its arguments without texts and paths."""
    result: int | None
    """None for a call that did not return."""
    made: str | None
    """The path behind the descriptor that it returned."""
    time: float
    is_injected: bool
    thread: int

    @property
    def paths(self) -> tuple[str, ...]:
        """What it touches."""
        opened = tuple(path for _, path in self.descriptors)
        if self.name in {"write", "pwrite64", "writev"}:
            return opened[:1]
        named = tuple(text.decode("utf-8", "surrogateescape") for text in self.texts)
        if self.name in {"sendfile", "copy_file_range"}:
            return opened
        return tuple(self._join(path) for path in named) or opened[:1]

    def _join(self, path: str) -> str:
        base = next((path for _, path in self.descriptors), "")
        return path if path.startswith("/") else f"{base}/{path}"


def is_there() -> bool:
    """Tell whether strace is installed, and permitted to trace."""
    if shutil.which("strace") is None:
        return False
    return subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, check=False).returncode == 0


def watching(log: Path, calls: Sequence[str] = CHANGING, *, everything: bool = False) -> list[str]:
    """Return what to put before a command so that its first thread is watched, or all that it starts, with all data."""
    known = ",".join(f"?{name}" for name in calls)  # not every kind of processor has each
    more = ["-ff", "-ttt", "-s", "1000000"] if everything else ["-s", "400"]
    return ["strace", "-q", "-y", "-xx", *more, "-e", "signal=none", "-e", f"trace={known}", "-o", str(log)]


def breaking(log: Path, call: str, number: int, fault: str) -> list[str]:
    """Return what to put before a command so that a fault meets one call of its first thread."""
    inject = "signal=KILL" if fault == "KILL" else f"error={fault}"
    return [*watching(log, [call]), "-e", f"inject={call}:{inject}:when={number}"]


def read_log(log: Path, thread: int = 0) -> Iterator[Call]:
    """Yield the calls in a log, in order."""
    counts: dict[str, int] = {}
    for line in log.read_text(encoding="ascii").splitlines():
        call = _read_line(line, counts, thread)
        if call:
            yield call


def read_changes(log: Path, below: Path) -> list[Call]:
    """Return the calls that change files below a folder, in order, from the logs of all threads."""
    logs = log.parent.glob(f"{log.name}.*")
    found = [call for each in logs for call in changes(read_log(each, int(each.suffix[1:])), below)]
    return sorted(found, key=lambda call: call.time)


def changes(calls: Iterable[Call], below: Path) -> list[Call]:
    """Return the calls that change files below a folder; of the closing ones, those that end what was written."""
    found, written = [], set()
    for call in calls:
        if call.name == "openat":
            writes = any(flag in call.flags for flag in ("O_CREAT", "O_TRUNC", "O_WRONLY", "O_RDWR"))
            (written.add if writes else written.discard)(call.result)
        elif call.name == "close":
            number = int(call.descriptors[0][0]) if call.descriptors else -1
            writes = number in written
            written.discard(number)
        else:
            writes = True
        if writes and any(Path(path).is_relative_to(below) for path in call.paths):
            found.append(call)
    return found


def _read_line(line: str, counts: dict[str, int], thread: int) -> Call | None:
    found = _LINE.match(line) or _LINE.match(f"{line.rstrip()} = ?")
    if found is None:
        return None
    name, arguments, rest = found["name"], found["arguments"], found["rest"]
    counts[name] = counts.get(name, 0) + 1
    made = _OPEN.match(found["result"] + rest.partition(" ")[0])
    bare = _OPEN.sub("", _TEXT.sub("", arguments))
    return Call(
        name,
        counts[name],
        tuple(_decode(text) for text in _TEXT.findall(arguments)),
        tuple((number, _decode(path).decode("utf-8", "surrogateescape")) for number, path in _OPEN.findall(arguments)),
        bare,
        None if found["result"] == "?" else int(found["result"]),
        _decode(made[2]).decode("utf-8", "surrogateescape") if made else None,
        float(found["time"] or 0),
        "INJECTED" in rest,
        thread,
    )


def _decode(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def run(
    prefix: Sequence[str], command: Sequence[str], folder: Path, environ: Mapping[str, str], seconds: float = 120
) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end; one that takes too long is ended, and has 'stuck' for its exit code."""
    return subprocess.run(
        [*prefix, *command],
        cwd=folder,
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
    )
