"""What one archive of the corpus is, and what a reader has to do with it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

TREE = {"top.txt": b"one", "data/a.bin": bytes(range(256)) * 30, "data/deep/b": b"two"}


@dataclass(frozen=True)
class Case:
    """An archive: its line in the list of hazards, how it is made, and what is expected.

    `make` gets a folder that stands for the rest of the machine: what an archive does to it is an escape.
    kflow either refuses the archive, with a message that `refused` matches, or unpacks exactly `files`.
    """

    name: str
    line: int
    what: str
    make: Callable[[Path], bytes] = field(repr=False)
    refused: str | None = None
    files: Mapping[str, bytes] | None = field(default=None, repr=False)
    either: bool = False
    """Whether a reader may as well do the opposite, as long as it does no harm."""
    bites: str = ""
    """How the outcome of a reader that trusts the archive begins, where it can be told on every machine."""
    limits: Mapping[str, int] = field(default_factory=dict)
    """Limits to extract with, where the standing ones would make the archive too large for a test."""

    @property
    def is_zip(self) -> bool:
        """Whether a reader that has to be told the format should take it for a zip."""
        return self.name.startswith("zip")
