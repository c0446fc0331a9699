"""The verdict on each step: run, reuse, or wait for a step that has to run first; each with its reason."""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from kflow.plan.fingerprint import components, differences, fingerprint
from kflow.plan.resolve import Bound
from kflow.spec.base import input_paths, modules
from kflow.spec.hiding import hide_values
from kflow.spec.references import names_used
from kflow.spec.types import Symbol
from kflow.spec.workflow import Step


class Verdict(StrEnum):
    """What will happen to a step."""

    RUN = "run"
    REUSE = "reuse"
    WAIT = "wait"


class Stored(Protocol):
    """What planning needs of an entry of the store: the digest of each output, and why it can be reused."""

    @property
    def origin(self) -> str:
        """Why nothing needs to be run for it."""

    @property
    def digests(self) -> Mapping[str, str]:
        """The digest of each output."""


class Lookup(Protocol):
    """What planning needs of the store."""

    def lookup(self, fingerprint: str) -> Stored | None:
        """Return the entry of a fingerprint if it is there and whole."""

    def explain_miss(self, fingerprint: str) -> str:
        """Say why there is no entry that could be reused."""


class Surroundings(Protocol):
    """What planning needs to know of files, code, versions and devices."""

    def file_digest(self, path: str) -> str:
        """Return the digest of a file of the workspace."""

    def code_digests(self, module: str) -> Mapping[str, str]:
        """Return the digests of a user module and of the local modules that it imports."""

    def imported_versions(self, module: str) -> Mapping[str, str]:
        """Return the versions of the libraries that they import."""

    def versions(self, libraries: tuple[str, ...]) -> Mapping[str, str]:
        """Return the versions of installed libraries."""

    def variables(self, libraries: tuple[str, ...]) -> Mapping[str, str]:
        """Return the environment variables that are set and change what libraries compute."""

    def gpus(self, wanted: int | str) -> int:
        """Return how many GPUs a wish comes to on this machine."""


@dataclass(frozen=True, slots=True)
class Action:
    """The verdict on one step."""

    step: str
    verdict: Verdict
    reason: str
    fingerprint: str | None = None
    components: Mapping[str, Any] | None = None
    entry: Stored | None = None
    is_forced: bool = False


@dataclass(frozen=True, slots=True)
class Planner:
    """Decides about steps in order, given what is stored and what was done before."""

    bound: Bound
    store: Lookup
    surroundings: Surroundings
    previous: dict[str, Mapping[str, Any]]
    """The components of each step when it was last done; a run adds what it has done itself and does again."""
    unfinished: Mapping[str, str] = field(default_factory=dict)
    """How the last try of a step ended that was not done since: failed or interrupted."""

    def decide(self, name: str, digests: Mapping[str, str], *, is_forced: bool = False) -> Action:
        """Decide about one step.

        Parameters
        ----------
        name : str
            The step.
        digests : mapping of str to str
            The digests of the outputs known so far, by ``step.output``.
        is_forced : bool
            Whether the step is to run even if its result is stored; default False.

        Returns
        -------
        Action
            Wait when an input is not known yet; else reuse or run.
        """
        links = self.bound.links[name]
        unknown = sorted({link.step for link in links if link.source not in digests})
        if unknown:
            return Action(name, Verdict.WAIT, f"waits for {', '.join(unknown)}")
        step = self.bound.workflow.steps[name]
        parts = self._components(step, {_dotted(link.path): digests[link.source] for link in links})
        key = fingerprint(parts)
        if is_forced:
            return Action(name, Verdict.RUN, "forced", key, parts, is_forced=True)
        entry = self.store.lookup(key)
        if entry:
            return Action(name, Verdict.REUSE, entry.origin, key, parts, entry)
        return Action(name, Verdict.RUN, self._reason(name, parts, key), key, parts)

    def preview(self, selected: Collection[str] = (), *, is_forced: bool = False) -> list[Action]:
        """Decide about every step as far as it can be told before a run; the selected ones may be forced."""
        digests: dict[str, str] = {}
        actions = []
        for name in self.bound.order:
            action = self.decide(name, digests, is_forced=is_forced and name in selected)
            if action.entry:
                digests |= {f"{name}.{output}": digest for output, digest in action.entry.digests.items()}
            actions.append(action)
        return actions

    def known_components(self, name: str, digests: Mapping[str, str]) -> dict[str, Any]:
        """Return what is known of the components of a step; an input that is to come is None."""
        inputs = {_dotted(link.path): digests.get(link.source) for link in self.bound.links[name]}
        return self._components(self.bound.workflow.steps[name], inputs)

    def _components(self, step: Step, inputs: Mapping[str, str | None]) -> dict[str, Any]:
        around = self.surroundings
        files = {_dotted(path): around.file_digest(file) for path, file in input_paths(step.texts)}
        code: dict[str, str] = {}
        libraries = dict(around.versions(step.libraries))
        written = _written_modules(step)
        for module in modules(step.texts):
            digests = around.code_digests(module)
            code |= _rename(digests, written[module]) if module in written else digests
            libraries |= around.imported_versions(module)
        return components(
            step,
            inputs=inputs,
            files=files,
            code=code,
            libraries=libraries,
            variables=around.variables(step.libraries),
            seed=self.bound.workflow.seed,
            gpus=around.gpus(step.spec.gpus_wanted()),
            threads=step.threads,
        )

    def _reason(self, name: str, parts: Mapping[str, Any], key: str) -> str:
        before = self.previous.get(name)
        if before is None:
            return _NEVER[self.unfinished.get(name)]
        changes = differences(before, parts)
        if changes:
            return "; ".join(changes[:4])
        workflow = self.bound.workflow
        return hide_values(self.store.explain_miss(key), workflow.steps[name].variables, workflow.variables)


_NEVER = {
    None: "never run before",
    "failed": "never finished before: it failed",
    "interrupted": "never finished before: it was interrupted",
}


def _written_modules(step: Step) -> dict[str, str]:
    """Return the modules that a step names by way of variables, each with what the workflow says in its place."""
    symbols = [(path, text) for path, text in step.texts if isinstance(text, Symbol)] if step.variables else []
    written = {text.module: step.as_written(path) for path, text in symbols}
    uses = {module: text for module, text in written.items() if any(names_used(text, "env"))}
    return {module: text.rpartition(":")[0] or text for module, text in uses.items()}


def _rename(digests: Mapping[str, str], module: str) -> dict[str, str]:
    """Call the files of a module, itself in front, by what the workflow calls it: a record holds no value."""
    first = next(iter(digests))
    folder = os.path.dirname(first)  # noqa: PTH120
    names = {path: f"{os.path.relpath(path, folder or '.')} of {module}" for path in digests} | {first: module}
    return {names[path]: digest for path, digest in digests.items()}


def _dotted(path: tuple[str | int, ...]) -> str:
    return ".".join(str(part) for part in path)
