"""One pass over the batches of a sequence that tells what a model will meet there."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from kflow.core.sequences.processes import find_obstacle

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ArrayReport", "SequenceReport", "check_sequence"]


@dataclass(frozen=True, slots=True)
class ArrayReport:
    """What an array is like over all batches.

    Parameters
    ----------
    shape : tuple of (int or None)
        The shape of a batch; None where batches differ.
    dtype : str
        The dtype, or several with ``|`` between them.
    minimum, maximum : float or None
        The least and greatest finite value; None when there is no number.
    nan, inf : int
        How many values are not a number, and how many are infinite.
    """

    shape: tuple[int | None, ...]
    dtype: str
    minimum: float | None
    maximum: float | None
    nan: int
    inf: int


@dataclass(frozen=True, slots=True)
class SequenceReport:
    """What :func:`check_sequence` found.

    Parameters
    ----------
    length : int
        The number of batches.
    rows : int
        The number of rows in all batches.
    arrays : dict of str to ArrayReport
        The arrays of a batch by their place in it, such as ``"x"``, ``"y"`` or ``"x['left']"``.
    is_deterministic : bool
        Whether the batches that were read a second time were the same.
    differing : tuple of int
        Those that were not.
    is_picklable : bool
        Whether the sequence can be sent to worker processes.
    seconds : float
        The median time that it took to make a batch.
    problems : tuple of str
        What a model would stumble over. Neither randomness nor a sequence that cannot be pickled is one.
    """

    length: int
    rows: int
    arrays: dict[str, ArrayReport]
    is_deterministic: bool
    differing: tuple[int, ...]
    is_picklable: bool
    seconds: float
    problems: tuple[str, ...]

    @property
    def is_sound(self) -> bool:
        """Whether there are no problems."""
        return not self.problems

    def __str__(self) -> str:
        """Return the findings as text, one line each."""
        lines = [f"{self.length} batches, {self.rows} rows, {self.seconds * 1000:.3g} ms for a batch"]
        for place, array in self.arrays.items():
            shape = ", ".join("?" if size is None else str(size) for size in array.shape)
            span = "" if array.minimum is None else f" from {array.minimum:g} to {array.maximum:g}"
            lines.append(f"{place}: {array.dtype} ({shape}){span}, {array.nan} NaN, {array.inf} infinite")
        again = "the same" if self.is_deterministic else f"not the same (batches {_listed(self.differing)})"
        lines.append(f"read again: {again}; can be sent to processes: {'yes' if self.is_picklable else 'no'}")
        return "\n".join([*lines, *(f"problem: {problem}" for problem in self.problems)])


def check_sequence(sequence: Any, *, limit: int | None = None) -> SequenceReport:
    """Read a sequence once, without a model, and report what a model will meet.

    Each batch is read once, in order; three of them (the first, the middle and the last one) are read a second time at
    the end, to see whether they are the same again. No hook is called. TensorFlow is not needed.

    Parameters
    ----------
    sequence : Sequence
        Anything with ``__getitem__`` and ``__len__``.
    limit : int, optional
        Read only so many batches; default all.

    Returns
    -------
    SequenceReport
        Shapes, dtypes, ranges, NaN, determinism, time per batch, and ``problems``; as text with ``print``. An exception
        that a batch raises is one of the problems.

    Raises
    ------
    TypeError
        When it has no ``__getitem__`` or no ``__len__``.
    ValueError
        When ``limit`` is below 1.

    Examples
    --------
    >>> import numpy as np
    >>> class Rows:
    ...     def __len__(self): return 2
    ...     def __getitem__(self, index): return np.full((3, 4), index / index if index else 1.0)
    >>> report = check_sequence(Rows())
    >>> report.arrays["x"].shape, report.arrays["x"].dtype, report.is_deterministic, report.problems
    ((3, 4), 'float64', True, ())
    """
    for name in ("__getitem__", "__len__"):
        if not hasattr(sequence, name):
            message = f"{type(sequence).__name__} is not a sequence of batches: it has no {name}"
            raise TypeError(message)
    length = len(sequence)
    if limit is not None and limit < 1:
        msg = f"limit must be at least 1, not {limit}"
        raise ValueError(msg)
    indices = range(length if limit is None else min(length, limit))
    findings = _Findings()
    if not indices:
        findings.say("there are no batches: the length is", length)
    again = {indices[0], indices[len(indices) // 2], indices[-1]} if indices else set()
    digests, times = {}, []
    for index in indices:
        began = time.perf_counter()
        batch = _read(sequence, index, findings)
        times.append(time.perf_counter() - began)
        findings.look_at(index, batch)
        if index in again:
            digests[index] = _digest(batch)
    differing = tuple(
        index for index in sorted(again) if _digest(_read(sequence, index, _Findings())) != digests[index]
    )
    if len(sequence) != length:
        findings.say(f"the length was {length} and became, by reading,", len(sequence))
    return SequenceReport(
        length=length,
        rows=findings.rows,
        arrays={place: gathered.report() for place, gathered in findings.arrays.items()},
        is_deterministic=not differing,
        differing=differing,
        is_picklable=find_obstacle(sequence) is None,
        seconds=float(np.median(times)) if times else 0.0,
        problems=tuple(f"{text} {_listed(numbers)}" for text, numbers in findings.problems.items()),
    )


@dataclass(slots=True)
class _Gathered:
    """What is known of an array so far."""

    shape: list[int | None]
    expected: list[int | None]
    """What Keras expects of all batches after the first two: None for the rows, and where those two differed."""
    dtypes: dict[str, None] = field(default_factory=dict)
    minimum: float | None = None
    maximum: float | None = None
    nan: int = 0
    inf: int = 0

    def report(self) -> ArrayReport:
        """Return it for good."""
        return ArrayReport(tuple(self.shape), "|".join(self.dtypes), self.minimum, self.maximum, self.nan, self.inf)


@dataclass(slots=True)
class _Findings:
    """What was found so far; a problem is a text and the numbers of the batches that have it."""

    problems: dict[str, list[int]] = field(default_factory=dict)
    arrays: dict[str, _Gathered] = field(default_factory=dict)
    rows: int = 0
    batches: int = 0

    def say(self, text: str, number: int) -> None:
        """Note a problem of a batch."""
        self.problems.setdefault(text, []).append(number)

    def look_at(self, index: int, batch: Any) -> None:
        """Note what a batch is like."""
        if batch is None:
            return
        try:
            leaves = {place: np.asarray(leaf) for place, leaf in _leaves(batch)}
        except ValueError as error:
            self.say(f"{error}, in batch", index)
            return
        if self.arrays and set(leaves) != set(self.arrays):
            self.say(f"there are {', '.join(leaves)} instead of {', '.join(self.arrays)} in batch", index)
            return
        self.batches += 1
        counts = {array.shape[0] for array in leaves.values() if array.ndim}
        if len(counts) > 1:
            self.say("the arrays have different numbers of rows in batch", index)
        elif counts == {0}:
            self.say("there are no rows in batch", index)
        self.rows += max(counts, default=0)
        for place, array in leaves.items():
            self._compare(index, place, array)
            self._measure(index, place, array)

    def _compare(self, index: int, place: str, array: Any) -> None:
        """Note shape and dtype, and whether they go with those of the batches before."""
        shape: list[int | None] = list(array.shape)
        if not shape:
            self.say(f"{place} is a single value in batch", index)
            shape = [None]
        if not _is_taken(array.dtype):
            self.say(f"{place} is of dtype {array.dtype}, which no model takes, in batch", index)
        elif array.dtype.kind == "c":
            self.say(f"{place} is complex, of which most layers drop the imaginary part, in batch", index)
        seen = self.arrays.setdefault(place, _Gathered(shape, [None, *shape[1:]]))
        seen.dtypes[str(array.dtype)] = None
        if len(seen.dtypes) > 1 and str(array.dtype) != next(iter(seen.dtypes)):
            self.say(f"{place} has dtype {array.dtype} instead of {next(iter(seen.dtypes))} in batch", index)
        if len(shape) != len(seen.shape):
            self.say(f"{place} has {len(shape)} axes instead of {len(seen.shape)} in batch", index)
            return
        seen.shape = [old if old == new else None for old, new in zip(seen.shape, shape, strict=True)]
        if self.batches <= 2:  # Keras learns from two batches which axes vary
            seen.expected = [old if old == new else None for old, new in zip(seen.expected, shape, strict=True)]
        elif any(old not in {None, new} for old, new in zip(seen.expected, shape, strict=True)):
            self.say(f"{place} has another shape than ({_sizes(seen.expected)}) in batch", index)

    def _measure(self, index: int, place: str, array: Any) -> None:
        """Note the range, and what is not a number."""
        if array.dtype.kind not in "fiub" or not array.size:
            return
        seen, finite = self.arrays[place], array
        if array.dtype.kind == "f":
            finite = array[np.isfinite(array)]
            nan = int(np.isnan(array).sum())
            inf = array.size - finite.size - nan
            seen.nan, seen.inf = seen.nan + nan, seen.inf + inf
            for number, what in ((nan, "NaN"), (inf, "infinite values")):
                if number:
                    self.say(f"{place} holds {what} in batch", index)
        if finite.size:
            low, high = float(finite.min()), float(finite.max())
            seen.minimum = low if seen.minimum is None else min(seen.minimum, low)
            seen.maximum = high if seen.maximum is None else max(seen.maximum, high)


def _is_taken(dtype: np.dtype[Any]) -> bool:
    """Whether Keras takes arrays of a type; bfloat16 and its like, which NumPy does not know, are of kind V."""
    if dtype.kind == "V":
        return dtype.type is not np.void
    return dtype.kind in "biufc" and dtype.itemsize <= (16 if dtype.kind == "c" else 8)


def _read(sequence: Any, index: int, findings: _Findings) -> Any:
    try:
        batch = sequence[index]
    except Exception as error:  # noqa: BLE001 - it is reported, and the other batches are read all the same
        findings.say(f"{type(error).__name__}: {error}, in batch", index)
        return None
    if batch is None:
        findings.say("nothing but None, which is skipped, in batch", index)
    return batch


def _leaves(batch: Any) -> Iterator[tuple[str, Any]]:
    """Yield the arrays of a batch with their places."""
    if not isinstance(batch, tuple | list):
        yield from _nested("x", batch)
    elif 1 <= len(batch) <= 3:
        for place, part in zip(("x", "y", "sample_weight"), batch, strict=False):
            yield from _nested(place, part)
    else:
        message = f"a batch is x, (x, y) or (x, y, sample_weight), and not {len(batch)} things"
        raise ValueError(message)


def _nested(place: str, nest: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(nest, dict):
        for name, item in nest.items():
            yield from _nested(f"{place}[{name!r}]", item)
    elif isinstance(nest, tuple | list):
        for number, item in enumerate(nest):
            yield from _nested(f"{place}[{number}]", item)
    elif nest is not None:
        yield place, nest


def _digest(batch: Any) -> str:
    """Return a text that differs when the arrays of two batches do."""
    digest = hashlib.sha256()
    try:
        for place, leaf in _leaves(batch):
            array = np.asarray(leaf)
            digest.update(f"{place} {array.dtype} {array.shape} ".encode())
            digest.update(repr(array.tolist()).encode() if array.dtype == object else array.tobytes())
    except ValueError as error:
        return str(error)
    return digest.hexdigest()


def _sizes(shape: list[int | None]) -> str:
    return ", ".join("?" if size is None else str(size) for size in shape)


def _listed(numbers: tuple[int, ...] | list[int]) -> str:
    """Write down some numbers, five of them at most."""
    text = ", ".join(map(str, numbers[:5]))
    return text if len(numbers) <= 5 else f"{text} and {len(numbers) - 5} more"
