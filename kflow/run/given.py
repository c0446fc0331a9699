"""What a step was given: its result counts only if each file still is what it was, and so does its checkpoint."""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any, Self

from kflow.artifacts import digest_file
from kflow.errors import RunError
from kflow.signature import ABSENT, State, is_untouched, state
from kflow.store.entry import Entry, Glance, read_manifest, was_replaced


@dataclass(frozen=True, slots=True)
class Original:
    """A file whose content is in the fingerprint of a step, because it reads it or takes a view of it."""

    path: str
    digest: str
    known: State | None
    """Its state when it had this digest; None if only a stored result tells of the file: it is read before its use."""
    step: str | None = None
    """The step whose result refers to it; None for one that the step itself names."""

    def look_again(self) -> Self | None:
        """Return the file in the state that it has now; None if it does not hold what was digested any more."""
        try:
            now = state(self.path)
            may_be_same = self.known is None or now[0] == self.known[0]
            is_same = self._was_left(now) or (may_be_same and self._holds_still(now))
        except OSError:
            is_same = False
        if not is_same:
            return None
        return self if self._was_left(now) else replace(self, known=now)

    def _was_left(self, now: State) -> bool:
        return self.known is not None and is_untouched(self.known, now)

    def _holds_still(self, now: State) -> bool:
        """Read the file: it may have been touched only, or nothing is known of it but size and time."""
        return digest_file(Path(self.path)) == self.digest and is_untouched(state(self.path), now)


@dataclass(slots=True)
class Given:
    """What a step was given, as it was when it began; whoever asks is told of the first that is that no more."""

    entries: dict[str, Glance]
    """For the folder of each entry the glance at it, when it was sound."""
    originals: list[Original]

    def to_task(self) -> dict[str, Any]:
        """Return it as `from_task` takes it: plain values, for another process."""
        return {"entries": self.entries, "originals": [astuple(each) for each in self.originals]}

    @classmethod
    def from_task(cls, task: Mapping[str, Any]) -> Self:
        """Take what `to_task` has given."""
        return cls(dict(task["entries"]), [_read_original(*each) for each in task["originals"]])

    def require(self) -> None:
        """Look at each file, and read those that were touched.

        Raises
        ------
        RunError
            If one does not hold what it held, or was another for a while.
        """
        for place in self.entries:
            if not self._is_as_it_was(place):
                message = f"what it was given was changed while it ran: {place}"
                raise RunError(message)
        for number, each in enumerate(self.originals):
            found = each.look_again()
            if found is None:
                message = f"the file {each.path} was changed while the step ran"
                raise RunError(message)
            self.originals[number] = found

    def _is_as_it_was(self, place: str) -> bool:
        try:
            entry, before = Entry(place, read_manifest(place)), self.entries[place]
            now = entry.glance()
            is_same = _were_left(before, now) or (not was_replaced(before, now) and _holds_the_same(entry, before, now))
        except (OSError, ValueError):
            return False
        self.entries[place] = now
        return is_same


def _were_left(before: Glance, now: Glance) -> bool:
    files = [name for name in now if not name.endswith("/")]  # what else lies in their folders is none of them
    return before.keys() == now.keys() and all(is_untouched(before[name], now[name]) for name in files)


def _holds_the_same(entry: Entry, before: Glance, now: Glance) -> bool:
    """Read an entry: its files may have been touched only."""
    contents = ({name: each[len(ABSENT) :] for name, each in glance.items()} for glance in (before, now))
    return next(contents) == next(contents) and not entry.find_damage()


def _read_original(path: str, digest: str, known: Sequence[int] | None, step: str | None) -> Original:
    return Original(path, digest, None if known is None else (known[0], known[1], known[2], known[3], known[4]), step)
