"""The order of steps."""

from collections.abc import Mapping, Sequence


class CycleError(ValueError):
    """Steps that wait for each other; each of ``paths`` starts and ends with the same step."""

    def __init__(self, paths: Sequence[Sequence[str]]) -> None:
        super().__init__("; ".join(" -> ".join(path) for path in paths))
        self.paths = tuple(tuple(path) for path in paths)


def order_steps(needs: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Sort steps so that each comes after those it needs; otherwise in the order of the file.

    Parameters
    ----------
    needs : mapping of str to sequence of str
        For each step, in the order of the file, the steps that it needs.

    Returns
    -------
    tuple of str
        Every step once.

    Raises
    ------
    CycleError
        If steps wait for each other. A path starts with the first of its steps in the file; of cycles that
        share steps at least one is told.

    Examples
    --------
    >>> order_steps({"b": ["a"], "a": []})
    ('a', 'b')
    """
    done: dict[str, None] = {}
    cycles: list[list[str]] = []
    tangled: set[str] = set()
    for first in needs:
        # A stack of its own instead of recursion: a chain of steps may be longer than Python's stack.
        trail = {first: iter(needs[first])} if first not in done else {}
        while trail:
            step, rest = next(reversed(trail.items()))
            following = next((each for each in rest if each not in done), None)
            if following is None:
                done[step] = None
                trail.popitem()
            elif following not in trail:
                trail[following] = iter(needs[following])
            elif tangled.isdisjoint({step, following}):
                names = list(trail)
                cycles.append(names[names.index(following) :])
                tangled.update(cycles[-1])
    if cycles:
        place = {step: number for number, step in enumerate(needs)}
        raise CycleError([_rotate(cycle, place) for cycle in cycles])
    return tuple(done)


def _rotate(cycle: list[str], place: Mapping[str, int]) -> list[str]:
    """Let a cycle begin with the step that stands first in the file."""
    start = min(range(len(cycle)), key=lambda i: place[cycle[i]])
    return [*cycle[start:], *cycle[:start], cycle[start]]
