"""Taking out of a store what is used no more, beside runs that go on."""

import contextlib
import fcntl
import math
import re
import shutil
import time
from pathlib import Path

from kflow.store.locks import AtWorkError, exclude, guarded, is_held, refuse_to_wait
from kflow.store.store import FINGERPRINT, Store, look_into

_SETTLED = 60.0
"""Seconds after which a folder under work is held, if somebody works there."""
_ABANDONED = 7 * 86400.0
"""Seconds after which nobody works there, where locks cannot tell."""
_LEFT = {"checkpoints": FINGERPRINT, "damaged": re.compile(r".{1,16}-[0-9a-f]{8}", re.DOTALL)}
"""What folders are called that were left: those of steps that were not finished, and those that were set aside."""


def discard(store: Store, folder: Path, not_after: float) -> bool:
    """Remove an entry, or one that was set aside, unless it was used after a moment; tells whether it is gone."""
    with guarded(store.guard, fcntl.LOCK_EX):
        trash = _throw_away(store, folder, not_after)
    if trash is None:
        return False
    (store.root / "verified" / folder.name).unlink(missing_ok=True)
    shutil.rmtree(trash, ignore_errors=True)
    with contextlib.suppress(OSError):  # a file had the name of an entry, and was set aside
        trash.unlink()
    return True


def discard_checkpoints(store: Store, folder: Path, not_after: float) -> bool:
    """Remove what a step left that was not finished, unless it is at work or was at a moment; the same.

    Where locks keep nobody out, one that is at work loses but what it would go on from after a crash: it has
    its state in memory, and writes the next checkpoint in a new folder.
    """
    with contextlib.suppress(AtWorkError), store.claim(folder.name, refuse_to_wait):
        trash = _throw_away(store, folder, not_after)
        if trash is not None:
            shutil.rmtree(trash, ignore_errors=True)
            return True
    return False


def _throw_away(store: Store, folder: Path, not_after: float) -> Path | None:
    """Take a folder from where it is looked for, unless it was used after a moment; return where it is then."""
    if folder.stat().st_mtime > not_after:
        return None
    trash = store.new_folder()
    trash.parent.mkdir(parents=True, exist_ok=True)
    return folder.rename(trash)


def leftovers(store: Store, part: str) -> list[Path]:
    """Return what lies in ``checkpoints`` or ``damaged``, in order."""
    return [each for each in look_into(store.root / part) if _LEFT[part].fullmatch(each.name)]


def sweep(store: Store) -> None:
    """Remove what runners that were killed have left of unfinished work."""
    for folder in (store.root / "tmp").glob("*"):
        with contextlib.suppress(OSError):
            if _is_left_behind(folder):
                shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        for folder in leftovers(store, "checkpoints"):
            if store.lookup(folder.name):  # it was killed between publishing and tidying up
                discard_checkpoints(store, folder, math.inf)


def _is_left_behind(folder: Path) -> bool:
    """Tell whether nobody can be at work in a folder any more."""
    age = time.time() - folder.stat().st_mtime
    # A folder that another runner has just made may not be held yet; a lock that keeps nobody out tells nothing.
    return age > _SETTLED and not is_held(folder) and (exclude(folder) or age > _ABANDONED)
