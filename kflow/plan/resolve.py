"""Binding: follows every reference to its output, orders the steps, and lets each foresee what it will give."""

import contextlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from kflow.diagnostics import Diagnostic, Mark, suggest
from kflow.errors import WorkflowError
from kflow.plan.graph import CycleError, order_steps
from kflow.plan.outputs import check_outputs
from kflow.spec.base import Examination, Look, Path_, Problem, StepSpec, input_paths, references
from kflow.spec.facts import Fact
from kflow.spec.parse import Parsed
from kflow.spec.references import Target, parse_target
from kflow.spec.types import Reference, Symbol
from kflow.spec.workflow import Step, Workflow

_FEW = 12
"""Up to this many names are listed where none is near."""


@dataclass(frozen=True, slots=True)
class Link:
    """A reference of a step, followed to the output that it names."""

    path: Path_
    text: str
    step: str
    output: str

    @property
    def source(self) -> str:
        """The output in full: ``step.output``."""
        return f"{self.step}.{self.output}"


@dataclass(frozen=True, slots=True)
class Bound:
    """A workflow that holds together: its steps in order, with their links."""

    workflow: Workflow
    order: tuple[str, ...]
    links: Mapping[str, tuple[Link, ...]]

    @property
    def needs(self) -> Mapping[str, tuple[str, ...]]:
        """For each step those that must be done before: by reference, or by ``needs``."""
        return {
            name: tuple(
                dict.fromkeys([*(link.step for link in self.links[name]), *self.workflow.steps[name].spec.needs])
            )
            for name in self.order
        }


def bind(
    parsed: Parsed, look: Look, *, check_contents: bool = True, store: Path | None = None, writes: bool = True
) -> Bound:
    """Bind a parsed workflow, or report all that is wrong with it.

    Parameters
    ----------
    parsed : Parsed
        The sound steps and the complaints so far.
    look : Look
        A look at files and machine.
    check_contents : bool
        Whether to look into data files too; default True.
    store : Path, optional
        The store, in which no step may write by path.
    writes : bool
        Whether the files that steps write by path will be put in their places; default True.

    Returns
    -------
    Bound
        The workflow, ready to be planned.

    Raises
    ------
    WorkflowError
        With every diagnostic: those of parsing, references, cycles, files and contents.
    """
    workflow = parsed.workflow
    diagnostics = list(parsed.diagnostics)
    links = {name: tuple(_follow(name, parsed, diagnostics)) for name in parsed.kinds}
    diagnostics.extend(_check_needs(parsed))
    order = _order(workflow, links, diagnostics)
    diagnostics.extend(check_outputs(workflow, look, store, writes=writes))
    for step in workflow.steps.values():
        diagnostics.extend(_check_files(step, workflow, look))
        diagnostics.extend(_check_gpus(step, workflow, look))
    if check_contents:
        diagnostics.extend(_foresee(workflow, order, links, look))
    if diagnostics:
        raise WorkflowError(diagnostics, workflow.document.source)
    return Bound(workflow, order, links)


def _follow(name: str, parsed: Parsed, diagnostics: list[Diagnostic]) -> Iterator[Link]:
    """Yield the links of a step; those of a step that is not sound as far as its text tells them."""
    step = parsed.workflow.steps.get(name)
    for path, text in references(step.texts) if step else parsed.texts(name):
        target = parse_target(text)
        mark = parsed.workflow.document.mark(("steps", name, *path))
        output = _find_output(target, parsed, mark, diagnostics) if target else None
        if target is None or output is None:
            continue
        if step and isinstance(text, Reference):
            given = output[1]
            if not isinstance(text, given):
                source = f"{target.step}.{output[0]}"
                diagnostics.append(Diagnostic(_wrong_type(step.spec, path, text, source, given), mark))
                continue
        yield Link(path, str(text), target.step, output[0])


def _find_output(
    target: Target, parsed: Parsed, mark: Mark, diagnostics: list[Diagnostic]
) -> tuple[str, type[Reference]] | None:
    """Return name and type of the output that a reference names, or say why there is none."""
    if target.step not in parsed.kinds:
        message, hint = f"there is no step {target.step!r}", suggest(target.step, tuple(parsed.kinds))
        diagnostics.append(Diagnostic(message, mark, hint))
        return None
    kind = parsed.kinds[target.step]
    if kind is None:
        return None  # the unknown kind has been reported already
    types = kind.Outputs.types()
    output = target.output or (next(iter(types)) if len(types) == 1 else None)
    if output is None:
        choices = ", ".join(f"${{{target.step}.{name}}}" for name in types)
        message = f"step {target.step!r} has {len(types)} outputs; say which one"
        diagnostics.append(Diagnostic(message, mark, f"one of {choices}"))
    elif output in types:
        return output, types[output]
    else:
        message = f"step {target.step!r} (kind {kind.kind}) has no output {output!r}"
        hint = suggest(output, tuple(types)) or f"it has {', '.join(types)}"
        diagnostics.append(Diagnostic(message, mark, hint))
    return None


def _wrong_type(spec: StepSpec, path: Path_, reference: Reference, source: str, given: type[Reference]) -> str:
    field = ".".join(str(part) for part in path)
    wanted = _with_article(type(reference).type_name)
    return f"field {field!r} of kind {spec.kind} takes {wanted}, but ${{{source}}} is {_with_article(given.type_name)}"


def _with_article(name: str) -> str:
    if name in {"objects", "metrics"}:
        return name
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def _order(workflow: Workflow, links: Mapping[str, tuple[Link, ...]], diagnostics: list[Diagnostic]) -> tuple[str, ...]:
    try:
        order = order_steps(
            {name: [*(link.step for link in links[name]), *_needs(name, workflow, links)] for name in links}
        )
    except CycleError as error:
        for path in error.paths:
            first, second = path[0], path[1]
            where = next((link.path for link in links[first] if link.step == second), ("needs",))
            mark = workflow.document.mark(("steps", first, *where))
            what = f"step {first!r} refers to itself"
            if len(path) > 2:
                what = f"steps wait for each other: {' -> '.join(path)}"
            diagnostics.append(Diagnostic(what, mark))
        return ()
    return tuple(name for name in order if name in workflow.steps)


def _needs(name: str, workflow: Workflow, known: Collection[str]) -> list[str]:
    step = workflow.steps.get(name)
    return [each for each in step.spec.needs if each in known] if step else []


def _check_needs(parsed: Parsed) -> Iterator[Diagnostic]:
    """Yield the needs that name no step."""
    for step in parsed.workflow.steps.values():
        for number, name in enumerate(step.spec.needs):
            if name not in parsed.kinds:
                mark = parsed.workflow.document.mark(("steps", step.name, "needs", number))
                yield Diagnostic(f"there is no step {name!r}", mark, suggest(name, tuple(parsed.kinds)))


def _check_gpus(step: Step, workflow: Workflow, look: Look) -> Iterator[Diagnostic]:
    """Yield a complaint about more GPUs than there are; a kind with a field of its own for them checks that itself."""
    wanted = step.spec.resources.gpus
    if wanted > 0 and wanted > look.count_gpus():
        mark = workflow.document.mark(("steps", step.name, "resources", "gpus"))
        have = look.count_gpus() or "none"
        yield Diagnostic(f"the step wants {wanted} GPU{'s' * (wanted > 1)}, and this machine has {have}", mark)


def _check_files(step: Step, workflow: Workflow, look: Look) -> Iterator[Diagnostic]:
    """Yield what is wrong with the files that a step names."""
    mark, where = workflow.document.mark, ("steps", step.name)
    for path, file in input_paths(step.texts):
        yield from _check_input(file, look, mark((*where, *path)))
    for path, text in step.texts:
        if isinstance(text, Symbol):
            yield from _check_symbol(text, look, mark((*where, *path)))


def _check_input(file: str, look: Look, mark: Mark) -> Iterator[Diagnostic]:
    if look.is_file(file):
        return
    where = look.resolve(file)
    try:
        what = "is a folder, not a file" if where.is_dir() else "is no regular file"
        what = what if where.exists() else "does not exist"
    except OSError as error:  # too long a name, a folder that may not be looked into
        what = f"cannot be read: {error.strerror}"
    yield Diagnostic(f"the file {file!r} {what}", mark, f"looked for {where}")


def _check_symbol(symbol: Symbol, look: Look, mark: Mark) -> Iterator[Diagnostic]:
    try:
        look.check_symbol(symbol.module, symbol.name)
    except LookupError as error:
        message, *candidates = error.args
        yield Diagnostic(message, mark, _hint(symbol.name, tuple(candidates)))
    except ImportError as error:
        yield Diagnostic(error.args[0], mark, error.args[1])
    except (OSError, SyntaxError, ValueError) as error:
        yield Diagnostic(describe_broken_module(symbol.module, error), mark)
        return
    try:
        with contextlib.suppress(FileNotFoundError):  # it has just been there
            look.sources(symbol.module)
    except (OSError, SyntaxError, ValueError) as error:
        yield Diagnostic(f"{symbol.module} imports a module that cannot be used: {error}", mark)


def describe_broken_module(module: str, error: Exception) -> str:
    """Say in one sentence why a Python file cannot be used.

    Examples
    --------
    >>> describe_broken_module("layers.py", FileNotFoundError(2, "no", "layers.py"))
    "the file 'layers.py' does not exist"
    """
    if isinstance(error, SyntaxError):
        place = f"{module}:{error.lineno}:{error.offset}" if error.lineno else module
        return f"{place}: syntax error: {error.msg}"
    if isinstance(error, FileNotFoundError):
        return f"the file {module!r} does not exist"
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return f"the file {module!r} cannot be read: {reason}"


def _foresee(
    workflow: Workflow,
    order: tuple[str, ...],
    links: Mapping[str, tuple[Link, ...]],
    look: Look,
) -> Iterator[Diagnostic]:
    """Let each step examine its fields against what is known of its inputs."""
    facts: dict[str, Fact] = {}
    for name in order:
        step = workflow.steps[name]
        inputs = {link.text: facts[link.source] for link in links[name] if link.source in facts}
        exam = Examination(inputs, look)
        try:
            outputs = step.spec.examine(exam)
        except OSError as error:  # a file that went away or may not be read
            exam.problem(f"cannot look at {error.filename}: {error.strerror}" if error.strerror else str(error))
            outputs = {}
        facts |= {f"{name}.{output}": fact for output, fact in outputs.items()}
        for problem in exam.problems:
            yield _place(problem, name, workflow)


def _place(problem: Problem, step: str, workflow: Workflow) -> Diagnostic:
    where = ("steps", step, *problem.path)
    document = workflow.document
    is_about_key = problem.name is not None and where[-1] == problem.name and where in document.key_marks
    mark = document.key_mark(where) if is_about_key or not problem.path else document.mark(where)
    return Diagnostic(problem.message, mark, _hint(problem.name, problem.candidates))


def _hint(name: str | None, candidates: tuple[str, ...]) -> str | None:
    """Suggest a near name, or list the names if they are few."""
    few = f"there are {', '.join(candidates)}" if 1 < len(candidates) <= _FEW else None
    return (suggest(name, candidates) if name else None) or few
