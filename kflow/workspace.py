"""The files and the machine that a workflow speaks of: looked at, never changed."""

import ast
import contextlib
import errno
import hashlib
import json
import os
import select
import stat
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from kflow.imports import find_libraries, library_versions, local_imports, require_absolute, require_first, version_of
from kflow.signature import ABSENT, State, state

if TYPE_CHECKING:
    import subprocess

PROBE_TIMEOUT = 60.0
"""Seconds that a look into a data file may take."""
_SMALL = 2**16
_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass
class Probe:
    """A child process that looks into HDF5 files; started when it is first asked.

    Importing h5py costs more than all the rest of a validation, and a damaged file can crash or stall the
    process that opens it: this one is then replaced.
    """

    _process: "subprocess.Popen[str] | None" = None

    def ask(self, path: Path, dataset: str) -> dict[str, object]:
        """Return ``{"shape", "dtype"}`` of a data set, or ``{"error"}`` with one sentence."""
        process = self._process = self._process or self._start()
        assert process.stdin is not None, "it is a pipe"
        assert process.stdout is not None, "it is a pipe"
        with contextlib.suppress(BrokenPipeError):  # it is dead; reading tells
            process.stdin.write(json.dumps([{"path": str(path), "dataset": dataset}]) + "\n")
            process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], PROBE_TIMEOUT)
        line = process.stdout.readline() if ready else ""
        if line:
            (answer,) = json.loads(line)
            return dict(answer)
        self.stop()
        if not ready:
            return {"error": f"looking into the file took more than {PROBE_TIMEOUT:g} seconds"}
        return {"error": f"{path} is damaged: the HDF5 library crashed on it"}

    def _start(self) -> "subprocess.Popen[str]":
        import subprocess

        return subprocess.Popen(
            [sys.executable, "-P", "-m", "kflow.core.hdf5"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
        )

    def stop(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            self._process.kill()
            for pipe in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(OSError):  # what a dead process did not read
                    assert pipe is not None, "both are pipes"
                    pipe.close()
            self._process.wait()
            self._process = None


@dataclass(frozen=True, slots=True)
class Workspace:
    """The folder of a workflow file, and the machine it is run on.

    What has been read once is remembered: a command sees one state of the world.
    """

    root: Path
    _paths: dict[str, str] = field(default_factory=dict)
    _digests: dict[tuple[str, str], str] = field(default_factory=dict)
    _datasets: dict[tuple[Path, str], dict[str, object]] = field(default_factory=dict)
    _modules: dict[Path, ast.Module] = field(default_factory=dict)
    _sources: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _versions: dict[str, str] = field(default_factory=dict)
    _imported: dict[str, Mapping[str, str]] = field(default_factory=dict)
    seen: dict[str, State] = field(default_factory=dict)
    """Every file that was read, or looked for, as it was before that."""
    probe: Probe = field(default_factory=Probe)

    def note(self, path: Path | str) -> None:
        """Keep the state of a file before its first use: if it is the same afterwards, that is what was read."""
        name = str(path)
        if name not in self.seen:
            self.seen[name] = state(name)

    def resolve(self, path: str) -> Path:
        """Return the absolute path of what the workflow names."""
        return Path(self.absolute(path))

    def absolute(self, path: str) -> str:
        """Return the absolute path of what the workflow names, as a text."""
        found = self._paths.get(path)
        if found is None:
            # Texts, because pathlib costs as much as all else of planning a small step; resolve() follows links.
            found = self._paths[path] = os.path.abspath(os.path.join(self.root, path))  # noqa: PTH100, PTH118
        return found

    # --- files -----------------------------------------------------------------------------------------

    def is_file(self, path: str) -> bool:
        """Tell whether what the workflow names is a regular file; it is looked at once."""
        where = self.absolute(path)
        try:
            self.note(where)
        except OSError:  # too long a name, a folder that may not be looked into
            return False
        found = self.seen[where]
        return found != ABSENT and stat.S_ISREG(found[-1])

    def digest(self, path: str, algorithm: str = "sha256") -> str:
        """Return the digest of a file in hexadecimal digits."""
        key = (path, algorithm)  # as it is written: comparing Paths takes longer than most of planning
        if key not in self._digests:
            where = self.absolute(path)
            self.note(where)
            self._digests[key] = _digest(where, algorithm)
        return self._digests[key]

    def file_digest(self, path: str) -> str:
        """Return the SHA-256 of a file in hexadecimal digits."""
        return self.digest(path)

    # --- HDF5 ------------------------------------------------------------------------------------------

    def describe_dataset(self, path: str, dataset: str) -> tuple[tuple[int, ...], str]:
        """Return shape and dtype of an HDF5 data set.

        Raises
        ------
        OSError
            With one sentence on what is wrong with file or data set.
        """
        key = (self.resolve(path), dataset)
        if key not in self._datasets:
            self.note(key[0])
            self._datasets[key] = self.probe.ask(*key)
        found = self._datasets[key]
        if "error" in found:
            raise OSError(str(found["error"]))
        shape = found["shape"]
        assert isinstance(shape, list), "the probe's own form"
        return tuple(shape), str(found["dtype"])

    # --- code ------------------------------------------------------------------------------------------

    def check_symbol(self, module: str, name: str) -> None:
        """Make sure, without running it, that a Python file defines a name.

        Raises
        ------
        SyntaxError, OSError
            If the file is no Python, or cannot be read.
        LookupError
            If the name is not defined there; the names that are follow the message.
        ImportError
            If it imports relatively; what to write instead follows the message.
        """
        tree = self._parse(self.resolve(module))
        names = set(_defined_names(tree))
        if name not in names and "*" not in names:
            message = f"{module} defines no {name!r}"
            raise LookupError(message, *sorted(names))
        require_absolute(tree, self.resolve(module), f"{module}:{name}")

    def code_digests(self, module: str) -> Mapping[str, str]:
        """Return the digests of a user module and of the local modules that it imports, by relative path."""
        return {path: self.digest(path) for path in self.sources(module)}

    def sources(self, module: str) -> tuple[str, ...]:
        """Return a user module and the local modules that it imports, however far away, relative to the root."""
        if module not in self._sources:
            self._sources[module] = self._find_sources(module)
        return self._sources[module]

    def _find_sources(self, module: str) -> tuple[str, ...]:
        start = self.resolve(module)
        found: dict[Path, None] = {start: None}
        queue = [start]
        while queue:
            path = queue.pop()
            tree = self._parse(path)
            require_first(tree, start.parent, self.note)
            for imported in local_imports(tree, path.parent, start.parent, self._parse):
                self.note(imported)
                if imported not in found and imported.is_file():
                    found[imported] = None
                    if imported.suffix == ".py":  # what is compiled counts, but tells nothing
                        queue.append(imported)
        return tuple(os.path.relpath(path, self.root) for path in found)

    def imported_versions(self, module: str) -> Mapping[str, str]:
        """Return the versions of the libraries that a user module and the local modules that it imports import."""
        if module not in self._imported:
            start = self.resolve(module)
            sources = map(self.resolve, self.sources(module))
            trees = [self._parse(source) for source in sources if source.suffix == ".py" or source == start]
            self._imported[module] = library_versions(find_libraries(trees, start.parent, self.note), self.note)
        return self._imported[module]

    def _parse(self, path: Path) -> ast.Module:
        if path not in self._modules:
            self.note(path)
            mode = path.stat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # reading from a pipe may wait forever
                raise OSError(errno.EINVAL, "it is no regular file", str(path))
            try:
                self._modules[path] = ast.parse(path.read_bytes(), filename=str(path))
            except (MemoryError, RecursionError):  # what the parser's own stack cannot hold
                message = "too deeply nested"
                raise SyntaxError(message, (str(path), None, None, None)) from None
        return self._modules[path]

    # --- machine ---------------------------------------------------------------------------------------

    def count_gpus(self) -> int:
        """Return the number of GPUs that a step could use."""
        from kflow.core.parallel.devices import count_gpus

        return count_gpus()

    def gpus(self, wanted: int | str) -> int:
        """Return how many GPUs a wish (a number or 'all') comes to on this machine."""
        return self.count_gpus() if wanted == "all" else int(wanted)

    def variables(self, libraries: tuple[str, ...]) -> Mapping[str, str]:
        """Return the environment variables that are set and change what libraries compute."""
        names = [name for library in libraries for name in COMPUTING.get(library, ())]
        return {name: os.environ[name] for name in names if name in os.environ}

    def versions(self, libraries: tuple[str, ...]) -> Mapping[str, str]:
        """Return the versions of installed libraries, 'none' for one that is not there; two numbers for Python."""
        for name in libraries:
            if name not in self._versions:
                self._versions[name] = _PYTHON if name == "python" else version_of(name)
        return {name: self._versions[name] for name in libraries}


COMPUTING = {
    "tensorflow": (
        "KERAS_MAX_EPOCHS",  # Keras computes with it
        "KERAS_MAX_STEPS_PER_EPOCH",
        "NVIDIA_TF32_OVERRIDE",
        "TF_CUDNN_DETERMINISTIC",
        "TF_DETERMINISTIC_OPS",
        "TF_ENABLE_ONEDNN_OPTS",
        "TF_XLA_FLAGS",
        "XLA_FLAGS",
        "ONEDNN_MAX_CPU_ISA",
        "ONEDNN_DEFAULT_FPMATH_MODE",
        "DNNL_MAX_CPU_ISA",
        "DNNL_DEFAULT_FPMATH_MODE",
    ),
    "numpy": ("MKL_CBWR", "OPENBLAS_CORETYPE", "NPY_DISABLE_CPU_FEATURES", "NPY_ENABLE_CPU_FEATURES"),
}
"""The environment variables by which users change what a library computes, to the bit."""


def _digest(path: str, algorithm: str) -> str:
    descriptor = os.open(
        path, os.O_RDONLY | os.O_CLOEXEC
    )  # for the thousandth small file, a stream costs as much again
    try:
        size = os.fstat(descriptor).st_size
        if size < _SMALL:  # without the 256 KiB buffer of file_digest, which costs more than a small file
            content = os.read(descriptor, size + 1)
            if len(content) == size:
                return hashlib.new(algorithm, content).hexdigest()
            os.lseek(descriptor, 0, os.SEEK_SET)  # it grows
        with open(descriptor, "rb", buffering=0, closefd=False) as stream:
            return hashlib.file_digest(stream, algorithm).hexdigest()
    finally:
        os.close(descriptor)


def _defined_names(tree: ast.Module) -> Iterator[str]:
    """Yield the names that a module defines at its top level; '*' where a star import hides them."""
    for node in _top_level(tree.body):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.For | ast.With):
            yield from (each.id for target in _targets(node) for each in ast.walk(target) if isinstance(each, ast.Name))


def _targets(node: ast.Assign | ast.AnnAssign | ast.For | ast.With) -> list[ast.expr]:
    """Return what a statement binds."""
    if isinstance(node, ast.Assign):
        return node.targets
    if isinstance(node, ast.With):
        return [item.optional_vars for item in node.items if item.optional_vars]
    return [node.target]


def _top_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements of a module, those inside if, match, try, with and loops included."""
    todo = list(body)  # no recursion: each elif nests one deeper
    while todo:
        node = todo.pop()
        yield node
        if isinstance(node, ast.If | ast.Try | ast.TryStar | ast.With | ast.For | ast.While):
            for branch in ("body", "orelse", "finalbody"):
                todo += getattr(node, branch, [])
        if isinstance(node, ast.Try | ast.TryStar):
            todo += [each for handler in node.handlers for each in handler.body]
        if isinstance(node, ast.Match):
            todo += [each for case in node.cases for each in case.body]
