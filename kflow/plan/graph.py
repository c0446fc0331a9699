"""The order of steps."""

from collections.abc import Mapping, Sequence


class CycleError(ValueError):
    """Steps that wait for each other; ``path`` starts and ends with the same step."""

    def __init__(self, path: Sequence[str]) -> None:
        super().__init__(" -> ".join(path))
        self.path = tuple(path)


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
        If steps wait for each other; its path starts with the first of them in the file.

    Examples
    --------
    >>> order_steps({"b": ["a"], "a": []})
    ('a', 'b')
    """
    done: dict[str, None] = {}
    for first in needs:
        # A stack of its own instead of recursion: a chain of steps may be longer than Python's stack.
        trail = {first: iter(needs[first])} if first not in done else {}
        while trail:
            step, rest = next(reversed(trail.items()))
            following = next((each for each in rest if each not in done), None)
            if following is None:
                done[step] = None
                del trail[step]
            elif following in trail:
                names = list(trail)
                raise CycleError(_rotate(names[names.index(following) :], list(needs)))
            else:
                trail[following] = iter(needs[following])
    return tuple(done)


def _rotate(cycle: list[str], in_file: list[str]) -> list[str]:
    """Let a cycle begin with the step that stands first in the file."""
    start = min(range(len(cycle)), key=lambda i: in_file.index(cycle[i]))
    return [*cycle[start:], *cycle[:start], cycle[start]]
