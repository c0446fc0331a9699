"""A line on a terminal that says how far a download is."""

import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TextIO

__all__ = ["Meter", "metered"]


@dataclass
class Meter:
    """Tells the progress of one file in one line, which is written over and over."""

    name: str
    stream: TextIO
    began: float = field(default_factory=time.monotonic)
    has_told: bool = False

    def __call__(self, done: int, total: int | None) -> None:
        """Say how many bytes of how many have come."""
        speed = done / 1e6 / max(time.monotonic() - self.began, 1e-3)
        shown = f"{done / 1e6:.1f} MB"
        if total is not None:
            shown = f"{done / 1e6:.1f} of {total / 1e6:.1f} MB, {100 * done // max(total, 1)} %"
        self.stream.write(f"\r{self.name}: {shown}, {speed:.1f} MB/s\x1b[K")
        self.stream.flush()
        self.has_told = True


@contextlib.contextmanager
def metered(name: str, *, always: bool) -> Iterator[Meter | None]:
    """Give a meter on standard error, `always` or where that is a terminal, and end its line."""
    stream = sys.stderr
    if stream is None or not (always or stream.isatty()):
        yield None
        return
    meter = Meter("".join(char if char.isprintable() else "?" for char in name), stream)
    try:
        yield meter
    finally:
        if meter.has_told:
            stream.write("\n")
            stream.flush()
