"""The command line: parse, call, exit code. A command's module is imported when the command is used.

Exit codes: 0 fine, 1 the run failed, 2 the workflow or the command is wrong, 130 interrupted.
"""

import io
import os
import sys


def main() -> None:
    """Run the command line and end the process with its exit code."""
    if sys.argv[1:] == ["--version"]:  # the question that scripts ask most needs no command-line library
        from kflow import __version__

        print(f"kflow {__version__}")  # noqa: T201
        return
    import traceback

    from kflow.cli.app import app
    from kflow.errors import KflowError

    for stream in (sys.stdout, sys.stderr):  # a terminal that has no ä shows its escape, and nothing fails
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    is_debug = "--debug" in sys.argv
    try:
        app()
    except KflowError as error:
        if is_debug:
            traceback.print_exc()
        print(f"{error}", file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)  # noqa: T201
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output has gone (kflow runs | head); Python must not complain about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:  # the last boundary: what nobody foresaw is a bug of ours
        if is_debug:
            raise
        text = f"kflow has a bug: {type(error).__name__}: {error}; run the command again with --debug to see where"
        print(text, file=sys.stderr)  # noqa: T201
        sys.exit(1)
