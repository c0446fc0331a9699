"""``kflow kinds``: the manual of the step kinds."""

from kflow.cli.output import say
from kflow.diagnostics import suggest
from kflow.errors import UsageError
from kflow.registry import Registry
from kflow.report.tables import columns


def run(kind: str | None) -> int:
    """Print the kinds with the first line of their manual, or one manual."""
    registry = Registry()
    if kind is None:
        say(columns([(name, registry[name].manual().partition("\n")[0]) for name in registry]))
        return 0
    if kind not in registry:
        hint = suggest(kind, tuple(registry)) or "'kflow kinds' lists them"
        message = f"unknown kind {kind!r}; {hint}"
        raise UsageError(message)
    fields = [
        (
            name,
            info.description or "",
            "required" if info.is_required() else f"default {info.get_default(call_default_factory=True)!r}",
        )
        for name, info in registry[kind].model_fields.items()
    ]
    say(f"{registry[kind].manual()}\n\nFields:\n\n{columns(fields)}")
    return 0
