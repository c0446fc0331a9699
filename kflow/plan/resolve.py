"""Binding: follows every reference to an output of the right type, orders the steps, and lets each foresee its outputs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from kflow.diagnostics import Diagnostic, suggest
from kflow.errors import WorkflowError
from kflow.plan.graph import CycleError, order_steps
from kflow.spec.base import Examination, Look, Path_, Problem, StepSpec, input_paths, references, walk
from kflow.spec.facts import Fact
from kflow.spec.parse import Parsed
from kflow.spec.types import OutputPath, Reference, Symbol
from kflow.spec.workflow import Step, Workflow


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


def bind(parsed: Parsed, look: Look, *, check_contents: bool = True) -> Bound:
    """Bind a parsed workflow, or report all that is wrong with it.

    Parameters
    ----------
    parsed : Parsed
        The sound steps and the complaints so far.
    look : Look
        A look at files and machine.
    check_contents : bool
        Whether to look into data files too; default True.

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
    links = {name: tuple(_follow(step, parsed, diagnostics)) for name, step in workflow.steps.items()}
    order = _order(workflow, links, diagnostics)
    diagnostics.extend(_find_clashes(workflow))
    for step in workflow.steps.values():
        diagnostics.extend(_missing_files(step, workflow, look))
    if check_contents:
        diagnostics.extend(_foresee(workflow, order, links, look))
    if diagnostics:
        raise WorkflowError(diagnostics, workflow.document.source)
    return Bound(workflow, order, links)


def _follow(step: Step, parsed: Parsed, diagnostics: list[Diagnostic]) -> Iterator[Link]:
    for path, reference in references(step.spec):
        where = ("steps", step.name, *path)
        mark = parsed.workflow.document.mark(where)
        target = reference.target
        if target.step not in parsed.kinds:
            hint = suggest(target.step, tuple(parsed.kinds))
            diagnostics.append(Diagnostic(f"there is no step {target.step!r}", mark, hint))
            continue
        kind = parsed.kinds[target.step]
        if kind is None:
            continue  # the unknown kind has been reported already
        types = kind.Outputs.types()
        output = target.output or (next(iter(types)) if len(types) == 1 else None)
        if output is None:
            choices = ", ".join(f"${{{target.step}.{name}}}" for name in types)
            message = f"step {target.step!r} has {len(types)} outputs; say which one"
            diagnostics.append(Diagnostic(message, mark, f"one of {choices}"))
        elif output not in types:
            message = f"step {target.step!r} (kind {kind.kind}) has no output {output!r}"
            hint = suggest(output, tuple(types)) or f"it has {', '.join(types)}"
            diagnostics.append(Diagnostic(message, mark, hint))
        elif not isinstance(reference, types[output]):
            diagnostics.append(_wrong_type(step.spec, path, reference, target.step, output, types[output], mark))
        else:
            yield Link(path, str(reference), target.step, output)


def _wrong_type(
    spec: StepSpec, path: Path_, reference: Reference, step: str, output: str, given: type[Reference], mark: object
) -> Diagnostic:
    field = ".".join(str(part) for part in path)
    message = (
        f"field {field!r} of kind {spec.kind} takes {_with_article(type(reference).type_name)}, "
        f"but ${{{step}.{output}}} is {_with_article(given.type_name)}"
    )
    return Diagnostic(message, mark)  # type: ignore[arg-type]  # a Mark: kept opaque here


def _with_article(name: str) -> str:
    if name in {"objects", "metrics"}:
        return name
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def _order(workflow: Workflow, links: Mapping[str, tuple[Link, ...]], diagnostics: list[Diagnostic]) -> tuple[str, ...]:
    needs = {name: [link.step for link in links[name] if link.step in workflow.steps] for name in workflow.steps}
    try:
        return order_steps(needs)
    except CycleError as error:
        first, second = error.path[0], error.path[1]
        link = next(link for link in links[first] if link.step == second)
        mark = workflow.document.mark(("steps", first, *link.path))
        what = f"step {first!r} refers to itself" if len(error.path) == 2 else f"steps wait for each other: {error}"
        diagnostics.append(Diagnostic(what, mark))
        return ()


def _find_clashes(workflow: Workflow) -> Iterator[Diagnostic]:
    """Two steps that write one file would overwrite each other."""
    writers: dict[str, str] = {}
    for step in workflow.steps.values():
        for path, leaf in walk(step.spec):
            if isinstance(leaf, OutputPath):
                first = writers.setdefault(str(leaf), step.name)
                if first != step.name:
                    mark = workflow.document.mark(("steps", step.name, *path))
                    yield Diagnostic(f"steps {first!r} and {step.name!r} both write {str(leaf)!r}", mark)


def _missing_files(step: Step, workflow: Workflow, look: Look) -> Iterator[Diagnostic]:
    for path, leaf in walk(step.spec):
        mark = workflow.document.mark(("steps", step.name, *path))
        if isinstance(leaf, Symbol):
            yield from _check_symbol(leaf, look, mark)
    for path, file in input_paths(step.spec):
        where = look.resolve(file)
        if not where.is_file():
            mark = workflow.document.mark(("steps", step.name, *path))
            what = "is a folder, not a file" if where.is_dir() else "does not exist"
            yield Diagnostic(f"the file {str(file)!r} {what}", mark, f"looked for {where}")


def _check_symbol(symbol: Symbol, look: Look, mark: object) -> Iterator[Diagnostic]:
    try:
        look.check_symbol(symbol.module, symbol.name)
    except LookupError as error:
        message, *candidates = error.args
        yield Diagnostic(message, mark, suggest(symbol.name, tuple(candidates)))  # type: ignore[arg-type]
    except (OSError, SyntaxError, UnicodeDecodeError, ValueError) as error:
        yield Diagnostic(describe_broken_module(symbol.module, error), mark)  # type: ignore[arg-type]


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
        outputs = step.spec.examine(exam)
        facts |= {f"{name}.{output}": fact for output, fact in outputs.items()}
        for problem in exam.problems:
            yield _place(problem, name, workflow)


def _place(problem: Problem, step: str, workflow: Workflow) -> Diagnostic:
    hint = suggest(problem.name, problem.candidates) if problem.name else None
    where = ("steps", step, *problem.path)
    document = workflow.document
    mark = document.key_mark(where) if problem.name and where in document.key_marks else document.mark(where)
    return Diagnostic(problem.message, mark, hint)
