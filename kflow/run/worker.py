"""The child process that runs steps: it owns TensorFlow and HDF5, and is kept warm between steps.

Tasks come as JSON lines on standard input, events go back as JSON lines on a descriptor, which the first argument
names where the worker is a program of its own. What a step prints ends with the mark of its task, so that the runner
knows whose it was. When standard input closes, the runner is gone: the worker ends itself, and its watchdog all that
it started.
"""

import contextlib
import errno
import json
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import IO, Any

from kflow.artifacts import artifact_type
from kflow.artifacts.modules import holding_code_to
from kflow.registry import Registry
from kflow.run.given import Given
from kflow.spec.base import StepContext, StepSpec

WORK = "work"
"""The folder, beside the outputs, for what a step needs while it runs."""


def main(descriptor: int) -> None:
    """Serve tasks until standard input closes.

    Parameters
    ----------
    descriptor : int
        Where the events go.
    """
    os.set_inheritable(descriptor, False)  # what a step starts must not keep the line open
    replies = os.fdopen(descriptor, "w", encoding="utf-8", buffering=1)
    tasks: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_listen, args=(_take_input(), tasks), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the runner decides what Ctrl-C means
    output, streams = os.dup(1), (sys.stdout, sys.stderr)
    while True:
        task = json.loads(tasks.get())
        _send(replies, {"event": "started"})
        reply = serve(task, partial(_tell, replies))
        _recover_output(output, streams)
        with contextlib.suppress(OSError):  # a step may have closed it
            os.write(2, reply.get("traceback", "").encode("utf-8", "backslashreplace"))
            os.write(output, task["mark"].encode())
        _tell(replies, reply)


def _recover_output(output: int, streams: tuple[Any, Any]) -> None:
    """Make standard output and error what they were: a step may have closed them, or put something in their place."""
    for number, name, stream in zip((1, 2), ("stdout", "stderr"), streams, strict=True):
        replaced: Any = getattr(sys, name, None)
        for each in (replaced, stream):
            with contextlib.suppress(Exception):  # whatever a step has put there
                each.flush()
        with contextlib.suppress(OSError):
            os.dup2(output, number)
        try:
            stream.writable()
        except ValueError:  # it was closed, or taken apart
            stream = open(number, "w", encoding="utf-8", buffering=1, closefd=False)  # noqa: PLW2901, SIM115
        setattr(sys, name, stream)


def _remove_translations() -> None:
    """Remove the files of the functions that TensorFlow has translated: it would at exit, and a worker is killed."""
    for name, module in list(sys.modules.items()):
        if name.startswith("__autograph_generated_file") and getattr(module, "__file__", None):
            with contextlib.suppress(OSError):
                os.unlink(module.__file__)  # type: ignore[arg-type]  # noqa: PTH108


def _take_input() -> IO[str]:
    """Take standard input for the tasks alone: a step that reads it (a forgotten breakpoint) finds it at its end."""
    tasks = os.fdopen(os.dup(0), encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return tasks


def _listen(lines: IO[str], tasks: "queue.Queue[str]") -> None:
    for line in lines:
        tasks.put(line)
    os.kill(os.getpid(), signal.SIGKILL)


def _tell(replies: IO[str], event: Mapping[str, Any]) -> None:
    """Send what a step has to say; as it may be ended from then on, its temporary files go before."""
    _remove_translations()
    _send(replies, event)


def _send(replies: IO[str], event: Mapping[str, Any]) -> None:
    replies.write(json.dumps(event) + "\n")


def serve(task: Mapping[str, Any], report: Callable[[Mapping[str, Any]], None]) -> dict[str, Any]:
    """Run one step and store its outputs in the staging folder.

    Parameters
    ----------
    task : mapping
        What `kflow.run.workers.Worker.run` sends.
    report : callable
        Takes events on the way.

    Returns
    -------
    dict
        The last event: ``done`` with the outputs, or ``failed`` with one sentence and the traceback.
    """
    here = os.getpid()
    try:
        os.chdir(task["root"])  # relative paths start at the workflow file, those inside callbacks as well
        spec = Registry()[task["kind"]].model_validate(task["fields"])
        return {"event": "done", "outputs": perform(spec, task, report)}
    except BaseException as error:  # the boundary of a step: whatever it raises is its failure
        if os.getpid() != here:  # a process that it forked, and that wants to end
            raise
        return {"event": "failed", "message": describe_error(error), "traceback": traceback.format_exc()}


def perform(
    spec: StepSpec, task: Mapping[str, Any], report: Callable[[Mapping[str, Any]], None]
) -> dict[str, dict[str, Any]]:
    """Run one step in this process, and return what was stored for each output.

    Parameters
    ----------
    spec : StepSpec
        The step.
    task : mapping
        As for `serve`.
    report : callable
        Takes events on the way.

    Returns
    -------
    dict
        For each output its type, and the fields of `kflow.artifacts.Saved`.
    """
    staging = Path(task["staging"])
    artifacts = {text: _opener(artifact) for text, artifact in task["artifacts"].items()}
    checkpoints = Path(task["checkpoints"]) if task.get("checkpoints") else None
    sources = tuple_sources(task["sources"])
    root = Path(task["root"])
    given = Given.from_task(task.get("given") or {"entries": {}, "originals": []})
    context = StepContext(
        root, staging / WORK, task["seed"], task["gpus"], artifacts, sources, report, checkpoints, given.require
    )
    others = [*(os.path.realpath(each["folder"]) for each in task["artifacts"].values()), _package(type(spec))]
    with holding_code_to(root, task.get("code", {}), task.get("libraries", {}), others):
        return _run_and_save(spec, context, staging)


@cache
def _package(kind: type[StepSpec]) -> str:
    """Return the real path of the package that a kind of step is from; its version counts."""
    package = sys.modules.get(kind.__module__.partition(".")[0])
    return os.path.realpath(Path(getattr(package, "__file__", None) or "").parent)


def _run_and_save(spec: StepSpec, context: StepContext, staging: Path) -> dict[str, dict[str, Any]]:
    outputs = spec.run(context)
    saved = {}
    for name, kind in spec.Outputs.types().items():
        stored = artifact_type(kind.type_name).save(outputs.values[name], staging / name)
        external = [{"path": each.path, "size": each.size, "mtime_ns": each.mtime_ns} for each in stored.external]
        saved[name] = {
            "type": kind.type_name,
            "digest": stored.digest,
            "description": stored.description,
            "external": external,
        }
    return saved


def tuple_sources(sources: Mapping[str, list[str]]) -> dict[str, tuple[str, ...]]:
    """Return the sources of each user module as a frozen value."""
    return {module: tuple(files) for module, files in sources.items()}


def _opener(artifact: Mapping[str, Any]) -> Callable[[], Any]:
    return lambda: artifact_type(artifact["type"]).load(artifact["description"], Path(artifact["folder"]))


def describe_error(error: BaseException) -> str:
    """Say in one line what went wrong.

    Keras and TensorFlow put several lines, a picture of the graph and hints for their developers into a
    message; the first paragraph says what happened, and the log has it all.

    Examples
    --------
    >>> describe_error(KeyError("x"))
    "KeyError: 'x'"
    """
    if isinstance(error, SystemExit):
        return f"code of the step called sys.exit({error.code!r}); it is to return, or to raise an error"
    # What cannot be encoded cannot be kept in a record.
    text = _text_of(error).strip().encode("utf-8", "backslashreplace").decode("utf-8")
    for advice, instead in _ADVICE.items():
        text = text.replace(advice, instead)
    first = " ".join(text.split("\n\n")[0].split())[:_LONGEST]
    if first.endswith(":"):
        first = _cause(text) or first
    name = type(error).__name__
    is_full = isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}
    if is_full or (isinstance(error, OSError) and first.endswith(" written")):  # NumPy's "256 requested and 2 written"
        return f"a file could not be written to its end; the disk may be full ({first})"
    if isinstance(error, OSError) and error.errno == errno.EBADF:
        return f"{first}: what is used there was closed before"
    if name in _PLAIN and first:
        return first
    return f"{name}: {first}" if first else name


_LONGEST = 200_000
"""Characters, more than a variable may have: its value is looked for in what is told before that is cut."""
_PLAIN = {"ValueError", "OSError", "FileNotFoundError", "ExpectationError", "HashMismatchError", "RunError"}
"""Errors whose sentence says all."""
_ADVICE = {"make a new HDF5Matrix to read": "run again to use"}
"""What the core advises those who call it from Python, and what there is to do for others."""


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as failure:  # noqa: BLE001  a class of the user's
        return f"(its text cannot be told: {type(failure).__name__} in its __str__)"


def _cause(text: str) -> str | None:
    """Find the sentence of TensorFlow's "Graph execution error:" that says what happened: the last that is no place."""
    lines = [line.strip() for line in text.splitlines()[1:]]
    told = [line for line in lines if line and not line.startswith(("Detected at", "File ", "[[", "<", "Stack trace"))]
    return told[-1] if told else None


if __name__ == "__main__":
    main(int(sys.argv[1]))
