"""The step kinds by name: the built-in table, and those that installed packages bring.

A kind is imported when a workflow names it. A package brings one with an entry point::

    [project.entry-points."kflow.adapters"]
    augment = "my_package.augment:Augment"
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING

from kflow.adapters import BUILTIN
from kflow.errors import UsageError
from kflow.spec.base import StepSpec

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "kflow.adapters"


@dataclass(frozen=True)
class Registry(Mapping[str, type[StepSpec]]):
    """The step kinds by name, imported on first use."""

    builtin: Mapping[str, str] = field(default_factory=lambda: dict(BUILTIN))
    _loaded: dict[str, type[StepSpec]] = field(default_factory=dict)

    def __getitem__(self, name: str) -> type[StepSpec]:
        """Import a kind."""
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def __contains__(self, name: object) -> bool:
        return name in self.builtin or name in self._third_party

    def __iter__(self) -> Iterator[str]:
        yield from sorted({*self.builtin, *self._third_party})

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _load(self, name: str) -> type[StepSpec]:
        if name in self.builtin:
            module, _, attribute = self.builtin[name].partition(":")
            kind: type[StepSpec] = getattr(import_module(module), attribute)
            return kind
        point = self._third_party[name]
        try:
            kind = point.load()
        except Exception as error:
            message = f"the kind {name!r} of {_origin(point)} cannot be imported: {error}"
            raise UsageError(message) from error
        if not (isinstance(kind, type) and issubclass(kind, StepSpec) and getattr(kind, "kind", None) == name):
            message = f"{point.value} of {_origin(point)} is no step kind {name!r}: expected a StepSpec of that kind"
            raise UsageError(message)
        return kind

    @cached_property
    def _third_party(self) -> Mapping[str, "EntryPoint"]:
        from importlib.metadata import entry_points

        found: dict[str, EntryPoint] = {}
        for point in entry_points(group=GROUP):
            if point.name in self.builtin:
                message = f"{_origin(point)} wants to replace the built-in kind {point.name!r}; uninstall it"
                raise UsageError(message)
            first = found.setdefault(point.name, point)
            if first.value != point.value:
                message = f"{_origin(first)} and {_origin(point)} both bring a kind {point.name!r}; uninstall one"
                raise UsageError(message)
        return found


def _origin(point: "EntryPoint") -> str:
    return f"the package {point.dist.name!r}" if point.dist else f"the entry point {point.value!r}"
