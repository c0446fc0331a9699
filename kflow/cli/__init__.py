"""The command line: parse, call, exit code. A command's module is imported when the command is used.

Exit codes: 0 fine, 1 the run failed, 2 the workflow or the command is wrong, 3 ``kflow plan --exit-code`` found work
to do, 130 interrupted, 141 nobody reads the output any more.
"""

import gc
import io
import os
import sys

TYPE_CHECKING = False  # that of typing takes a while to import, and a run that has nothing to do needs no other
if TYPE_CHECKING:
    from pathlib import Path


def main() -> None:
    """Run the command line and end the process with its exit code."""
    _stop_at_once()
    _open_closed_descriptors()
    for stream in (sys.stdout, sys.stderr):  # a terminal that has no ä shows its escape, and nothing fails
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    is_debug = "--debug" in sys.argv
    try:
        sys.exit(_carry_out())
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # which the command-line library takes for a failure
            end.code = _explain(end.__context__)
        raise
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  the last boundary: no traceback reaches a user
        if is_debug and not isinstance(error, KeyboardInterrupt | BrokenPipeError):
            import traceback

            traceback.print_exc()
        sys.exit(_explain(error))
    finally:
        _leave_signals()


def _stop_at_once() -> None:
    """Let Ctrl-C and SIGTERM end the process without further words until a command has something to tidy up."""
    # Built in: importing signal takes so long that Ctrl-C may come meanwhile.
    import _signal  # type: ignore[import-not-found]  # it has no stub

    for number in (_signal.SIGINT, _signal.SIGTERM):
        if _signal.getsignal(number) in {_signal.default_int_handler, _signal.SIG_DFL}:  # else it is ignored on purpose
            _signal.signal(number, _stop)


def _stop(number: int, frame: object) -> None:
    """End the process: KeyboardInterrupt would be told as a traceback where Python cannot pass it on."""
    del number, frame
    try:
        os.write(2, b"interrupted\n")
    finally:
        os._exit(130)


def heed_no_more(number: int, frame: object) -> None:
    """Take a signal and do nothing: one that Python has noted, and that is ignored by then, would be complained of."""
    del number, frame


def _carry_out() -> int:
    """Do what the command line says, the short way if there is nothing to do, and return the exit code."""
    if sys.argv[1:] == ["--version"]:  # the question that scripts ask most needs no command-line library
        from kflow import __version__

        print(f"kflow {__version__}", flush=True)  # noqa: T201
        return 0
    if sys.argv[1:2] in (["run"], ["plan"]):
        from kflow.run.compiled import replay

        code = replay(sys.argv[1:])
        if code is not None:
            return code
    gc.disable()  # what is imported stays; the garbage in between is less than the time that looking for it takes
    gc.set_threshold(50_000)  # and later most of what is made stays until the end as well
    if len(sys.argv) == 3 and not sys.argv[2].startswith("-") and "_KFLOW_COMPLETE" not in os.environ:
        if sys.argv[1] == "plan":
            return _plan(sys.argv[2])
        if sys.argv[1] == "run" and "KFLOW_NO_PUSH" not in os.environ:
            return _run(sys.argv[2])
    from kflow.cli.app import app

    app()
    return 0


def _plan(file: str) -> int:
    """Plan a workflow without options, which needs no command-line library."""
    from pathlib import Path

    from kflow.cli.plan import run

    store, remote = _places()
    return run(Path(file), store=store, remote=remote)


def _run(file: str) -> int:
    """Run a workflow without options, which needs no command-line library either."""
    from pathlib import Path

    from kflow.cli.run import run

    choice = {"only": [], "first": [], "last": [], "is_forced": False}
    wishes = {"jobs": None, "keeps_going": False, "shows_output": False}
    store, remote = _places()
    return run(Path(file), [], choice, wishes, store, remote=remote, pushes=True, is_locked=False, is_debug=False)


def _places() -> "tuple[Path | None, str | None]":
    """Return the store and the remote that the environment names."""
    from pathlib import Path

    store = os.environ.get("KFLOW_STORE")
    return Path(store) if store else None, os.environ.get("KFLOW_REMOTE")


def _leave_signals() -> None:
    """Let a signal that comes now end the process at once: there is nothing left to tidy up, or to complain about."""
    import signal

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if callable(handler := signal.getsignal(number)) and handler is not heed_no_more:
            signal.signal(number, signal.SIG_DFL)


def _explain(error: BaseException) -> int:
    """Say what ended the command, and return its exit code."""
    from kflow.errors import KflowError, describe_disk_error

    code, text = 1, f"kflow has a bug: {type(error).__name__}: {error}; run the command again with --debug to see where"
    if isinstance(error, KflowError):
        code, text = error.exit_code, str(error)
    elif isinstance(error, KeyboardInterrupt):
        code, text = 130, "interrupted"
    elif isinstance(error, BrokenPipeError):
        # The reader of our output has gone (kflow runs | head); Python must not complain about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    elif isinstance(error, FileNotFoundError) and not error.filename and _is_nowhere():
        code, text = 2, "the current folder was deleted; go to one that is there, and run the command again"
    elif isinstance(error, OSError):
        text = describe_disk_error(error, "output")
    print(text, file=sys.stderr)  # noqa: T201
    return code


def _is_nowhere() -> bool:
    """Tell whether the current folder is gone."""
    try:
        os.getcwd()  # noqa: PTH109
    except FileNotFoundError:
        return True
    return False


def _open_closed_descriptors() -> None:
    """Open what the caller has closed (kflow run w.yaml >&-): a file opened later must not become our output."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)  # the lowest that is free
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", encoding="utf-8"))
