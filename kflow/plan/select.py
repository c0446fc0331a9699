"""Which steps of a workflow the user wants: some alone, all up to some, all from some on."""

from collections.abc import Iterable, Mapping, Sequence

from kflow.diagnostics import suggest
from kflow.errors import GoneError, UsageError, listed

Needs = Mapping[str, Sequence[str]]


def select_steps(
    needs: Needs, *, only: Sequence[str] = (), first: Sequence[str] = (), last: Sequence[str] = ()
) -> frozenset[str] | None:
    """Return the steps that may be run.

    Parameters
    ----------
    needs : mapping of str to sequence of str
        For each step those that must be done before, in the order of a run.
    only : sequence of str
        These steps and no others.
    first : sequence of str
        These and all that hang on them.
    last : sequence of str
        These and all that they need; together with `first`, what lies between.

    Returns
    -------
    frozenset of str or None
        None when every step may be run.

    Raises
    ------
    GoneError
        If a step is not there, or nothing is left.
    UsageError
        If `only` is mixed with the others.

    Examples
    --------
    >>> needs = {"data": (), "fit": ("data",), "test": ("fit",), "picture": ("fit",)}
    >>> sorted(select_steps(needs, first=["fit"], last=["test"]))
    ['fit', 'test']
    """
    _check_names(needs, {"--only": only, "--from": first, "--until": last})
    if only and (first or last):
        message = "--only names steps alone; it cannot be combined with --from and --until"
        raise UsageError(message)
    if not (only or first or last):
        return None
    if only:
        return frozenset(only)
    found = set(needs)
    if first:
        found &= _followers(needs, first)
    if last:
        found &= needed(needs, last)
    if not found:
        message = f"no step lies between {', '.join(first)} and {', '.join(last)}"
        raise GoneError(message, f"{message} now")
    return frozenset(found)


def needed(needs: Needs, names: Iterable[str]) -> set[str]:
    """Return some steps and all that they need."""
    found: set[str] = set()
    todo = list(names)
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += needs[name]
    return found


def _followers(needs: Needs, names: Iterable[str]) -> set[str]:
    found = set(names)
    for name, before in needs.items():  # in the order of a run, so one round is enough
        if not found.isdisjoint(before):
            found.add(name)
    return found


def _check_names(needs: Needs, wishes: Mapping[str, Sequence[str]]) -> None:
    for option, names in wishes.items():
        for name in names:
            if name not in needs:
                hint = suggest(name, tuple(needs)) or f"there are {listed(needs)}"
                raise GoneError(f"{option} {name}: there is no step {name!r}; {hint}", f"step {name!r} is gone")
