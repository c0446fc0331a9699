"""How what the replicas of a model assign to its variables becomes one value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

__all__ = ["RULES", "Assigned", "find_rule", "join_assigned", "refuse_hidden_variables", "weighted_mean"]

RULES = ("mean", "sum", "max", "min", "same")
"""How values of several devices become one, as a layer's `state_over_devices` says."""
_KERAS = ("keras.src.layers.", "keras.src.random.")
"""Code whose assignments are means over rows, or do not depend on them: moving averages, normalized weights, seeds."""


@dataclass(frozen=True, slots=True, eq=False)
class Assigned:
    """What layers of one replica assigned to a variable, what it was before, and the rule to join the replicas'."""

    variable: Any
    before: Any
    value: Any
    rule: str


def join_assigned(parts: Sequence[Assigned], sizes: Sequence[Any], shares: Sequence[Any]) -> Any:
    """Compute one value from what the replicas assigned, given their rows and their shares of all rows."""
    import tensorflow as tf

    first, values = parts[0], [each.value for each in parts]
    match first.rule:
        case "mean":
            return weighted_mean(values, shares)
        case "sum":
            added = [each.value - each.before for each in parts]
            own = [tf.where(size > 0, x, tf.zeros_like(x)) for x, size in zip(added, sizes, strict=True)]
            return tf.add_n([first.before, *own])
        case "max":
            return tf.reduce_max(tf.stack(values), 0)
        case "min":
            return tf.reduce_min(tf.stack(values), 0)
    return first.value


def weighted_mean(values: Sequence[Any], shares: Sequence[Any]) -> Any:
    """Weigh each replica's value by its share of the rows."""
    import tensorflow as tf

    return tf.add_n([x * tf.cast(share, x.dtype) for x, share in zip(values, shares, strict=True)])


def find_rule(model: Any, count: int, variable: Any, frame: Any) -> str:
    """Find how what is assigned to a variable is joined: of Keras's own layers it is known, others must say it.

    Parameters
    ----------
    model : keras.Model
        The template.
    count : int
        How many replicas there are; one has nothing to join.
    variable : keras.Variable
        What is assigned to.
    frame : frame
        That of `variable.assign`.

    Returns
    -------
    str
        One of `RULES`.

    Raises
    ------
    ValueError
        No layer of the model has the variable, or none says how it is joined, or one says what cannot be.
    """
    caller = _find_caller(frame)
    names, layers = _find_holders(model, variable)
    if layers and (count == 1 or caller.module.startswith(_KERAS)):
        return "mean" if _is_float(variable) else "same"
    rule, problem = _read_rule(layers, names, variable, caller)
    if problem:
        raise _refusal(model, problem)
    return rule


def refuse_hidden_variables(model: Any, operations: Sequence[Any]) -> None:
    """Refuse a model in whose graph an operation assigns: to a `tf.Variable`, which no scope of Keras sees."""
    hidden = [each.name for each in operations if each.type.startswith(("Assign", "ResourceScatter"))]
    if hidden:
        problem = f"{hidden[0]} assigns to a tf.Variable, and would on each device; make it a weight with add_weight"
        raise _refusal(model, problem)


def _refusal(model: Any, problem: str) -> ValueError:
    """Make an error that Keras passes on without adding the arguments of layers."""
    error = ValueError(f"the model {model.name!r} cannot be divided among devices: {problem}")
    error._keras_call_info_injected = True  # type: ignore[attr-defined]
    return error


@dataclass(frozen=True, slots=True)
class _Caller:
    """Who assigns to a variable: with which of its methods, in which module, and for which line outside of Keras."""

    method: str
    module: str
    line: str


def _find_caller(frame: Any) -> _Caller:
    """Follow the frames of a variable's methods to the code that called them."""
    own, method = frame.f_globals["__name__"], ""
    while frame.f_globals["__name__"] == own:
        method, frame = frame.f_code.co_name, frame.f_back
    module = frame.f_globals["__name__"]
    while frame.f_globals["__name__"].startswith("keras."):
        frame = frame.f_back
    return _Caller(method, module, f"{frame.f_code.co_filename}:{frame.f_lineno}")


def _find_holders(model: Any, variable: Any) -> tuple[list[str], list[Any]]:
    """Find what a layer calls a variable, and that layer and those around it, the inmost first."""
    layers = model._flatten_layers()
    for owner in layers:
        for kept, each in _kept(owner):
            if each is variable:
                inside = [(layer, layer._flatten_layers()) for layer in layers]
                around = [(len(inner), layer) for layer, inner in inside if owner in inner]
                attributes = [name for name, value in vars(owner).items() if value is kept and name[0] != "_"]
                return [*attributes, kept.name], [layer for _, layer in sorted(around, key=itemgetter(0))]
    return [], []


def _kept(layer: Any) -> Iterator[tuple[Any, Any]]:
    """Give the variables that a layer has itself, each with the attribute that it belongs to: itself, or a metric."""
    for variable in (*layer._trainable_variables, *layer._non_trainable_variables):
        yield variable, variable
    for generator in layer._seed_generators:
        yield generator, generator.state
    for metric in layer._metrics:
        for variable in metric.variables:
            yield metric, variable


def _read_rule(layers: Sequence[Any], names: Sequence[str], variable: Any, caller: _Caller) -> tuple[str, str]:
    """Read the rule that the inmost layer has for one of its variables, or say why there is none."""
    if not layers:
        return "", (
            f"{caller.line} assigns to {variable.path!r}, which no layer of it has; make it an attribute of the layer "
            "(for random numbers a keras.random.SeedGenerator, which is given as seed)"
        )
    said = [(layer, rule) for layer in layers if (rule := _what_it_says(layer, names)) is not None]
    if not said:
        layer = next((each for each in layers if not type(each).__module__.startswith("keras.")), layers[0])
        return "", (
            f"its layer {layer.name!r} ({type(layer).__name__}) assigns to {names[0]!r} ({caller.line}), and each "
            "device has only its own rows; let the class say how the values of the devices are joined, as "
            f"state_over_devices = {{{names[0]!r}: 'mean'}} does, or 'sum', 'max', 'min', 'same'"
        )
    layer, rule = said[0]
    fault = _find_fault(rule, variable, caller)
    about = f"state_over_devices of its layer {layer.name!r} ({type(layer).__name__}) says {rule!r} of {names[0]!r}"
    return rule, f"{about}, which {fault}" if fault else ""


def _what_it_says(layer: Any, names: Sequence[str]) -> Any:
    """Return the rule that the class of a layer has for one of its variables, or None."""
    said = getattr(layer, "state_over_devices", None)
    return next((said[name] for name in names if name in said), None) if isinstance(said, Mapping) else said


def _find_fault(rule: Any, variable: Any, caller: _Caller) -> str:
    """Say why a rule cannot be right."""
    if rule not in RULES:
        return f"is none of {', '.join(RULES)}"
    if rule == "mean" and not _is_float(variable):
        return f"needs floating-point numbers, and these are {variable.dtype}"
    if rule == "sum" and caller.method == "assign" and not caller.module.startswith("keras.src.metrics."):
        return (
            f"adds up what each device adds, and {caller.line} does not call assign_add; where the new value is "
            "another function of a sum over the rows, as a decayed sum is, say 'same' and take the sum with "
            "sum_over_devices"
        )
    return ""


def _is_float(variable: Any) -> bool:
    return "float" in variable.dtype
