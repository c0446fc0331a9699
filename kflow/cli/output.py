"""What commands print."""

import sys


def say(text: str, *, to_error: bool = False) -> None:
    """Print a text to standard output, or to standard error."""
    print(text, file=sys.stderr if to_error else sys.stdout, flush=True)
