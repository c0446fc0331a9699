"""The state of Keras around a step: seeded, with the step's custom objects in scope, and clean afterwards."""

import contextlib
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Annotated, Any

from pydantic import Field

from kflow.spec.base import Examination, StepContext
from kflow.spec.calls import Call, custom_names
from kflow.spec.facts import ModelFact
from kflow.spec.types import Bool, Objects, Reference

ObjectsField = Annotated[
    Objects | tuple[Objects, ...] | None,
    Field(default=None, description="The custom objects that this step may use by name."),
]
DeterministicField = Annotated[
    Bool,
    Field(default=False, description="Whether to let a GPU repeat its results bit by bit, at a cost in speed."),
]


def as_tuple(value: object) -> tuple[Any, ...]:
    """Return one value, several or none as a tuple."""
    if value is None:
        return ()
    return tuple(value) if isinstance(value, list | tuple) else (value,)


@contextlib.contextmanager
def keras_session(
    context: StepContext, objects: Objects | tuple[Objects, ...] | None, *, is_deterministic: bool = False
) -> Iterator[dict[str, Any]]:
    """Prepare Keras for a step, and leave nothing behind.

    Parameters
    ----------
    context : StepContext
        The step's context; its seed seeds Python, NumPy and TensorFlow.
    objects : reference or tuple of references to objects, optional
        The custom objects that get a name; of two with one name the later wins.
    is_deterministic : bool
        Whether every operation of TensorFlow is to compute in an order that is always the same; default False.

    Yields
    ------
    dict
        The custom objects by name.
    """
    import keras

    from kflow.artifacts.modules import imported
    from kflow.core.objects import custom_object_scope

    places: dict[str, Any] = {}
    for reference in as_tuple(objects):
        places |= context.open(reference).objects
    # Automatic layer names count up in a process; a clean count makes a model's bytes repeatable.
    keras.backend.clear_session()
    keras.utils.set_random_seed(context.seed)
    _forget_settings(keras)
    # The outer scope takes back what the user's modules register with Keras while they are imported.
    order = _op_determinism(context) if is_deterministic else contextlib.nullcontext()
    with order, custom_object_scope({}), imported(places) as names:
        _rename(names)
        with custom_object_scope(names, source="the objects of this step"):
            yield names
    keras.backend.clear_session()


def _forget_settings(keras: ModuleType) -> None:
    """Set what Keras takes from a file in the home folder, or from an earlier step: the workflow says what counts."""
    keras.config.set_floatx("float32")
    keras.config.set_epsilon(1e-7)
    keras.config.set_image_data_format("channels_last")
    keras.config.set_dtype_policy("float32")


@contextlib.contextmanager
def _op_determinism(context: StepContext) -> Iterator[None]:
    """Switch TensorFlow's op determinism on, say what that costs, and leave it to the next step as it was."""
    import tensorflow as tf
    from tensorflow.python.framework import config  # what is asked here has no public name

    cost = "a GPU is slower for it, by a little or several times, and an operation without a fixed order fails"
    needless = "it is slower for it; a CPU gives the same bits again without it"
    text = f"computes with op determinism; {cost if context.gpus else needless}"
    context.report({"event": "note", "text": text})
    was_on = config.is_op_determinism_enabled()  # as with TF_DETERMINISTIC_OPS in the environment
    tf.config.experimental.enable_op_determinism()
    try:
        yield
    finally:
        if not was_on:
            config.disable_op_determinism()


def _rename(names: Mapping[str, Any]) -> None:
    """Let each object bear the name that the workflow gave it: Keras writes that name into a model, and looks it up."""
    for name, thing in names.items():
        if getattr(thing, "__name__", name) != name:
            thing.__name__ = thing.__qualname__ = name


def check_objects(exam: Examination, model: Reference, objects: object) -> ModelFact | None:
    """Report the custom objects of a model that its step does not take; return what is known of the model."""
    fact = exam.fact(model)
    if not isinstance(fact, ModelFact):
        return None
    if all(exam.fact(each) for each in as_tuple(objects)):
        missing = [name for name in fact.objects if name not in custom_names(exam, objects)]
        if missing:
            exam.problem(f"the model uses {', '.join(missing)}; take them with 'objects:'", "model")
    return fact


def check_gpus(exam: Examination, gpus: int | str, batch_size: int) -> None:
    """Report more GPUs than the machine has, or than a batch has rows."""
    there = exam.look.count_gpus() if gpus else 0
    count = there if gpus == "all" else int(gpus)
    if count > there:
        have = "none" if there == 0 else f"only {there}"
        exam.problem(f"the step wants {count} GPU{'s' * (count > 1)}, and this machine has {have}", "gpus")
    elif count > max(batch_size, 1):
        exam.problem(f"a batch of {batch_size} cannot be divided among {count} GPUs; enlarge it", "batch_size")


def divide(model: Any, gpus: int) -> Any:
    """Divide a model among the GPUs of a step, compiled as it is; fewer than two need no dividing."""
    if gpus < 2:
        return model
    from kflow.core.parallel.multi_gpu import multi_gpu_model

    divided = multi_gpu_model(model, gpus)
    if model.compiled:
        divided.compile_from_config(model.get_compile_config())
    return divided


def construct(call: Call, family: ModuleType, custom: Mapping[str, Any]) -> Any:
    """Make the object that a call describes.

    Parameters
    ----------
    call : Call
        A name with arguments.
    family : module
        ``keras.layers``, ``keras.optimizers``, ...
    custom : mapping
        The custom objects by name.

    Returns
    -------
    object
        For a bare name of a function or text (``adam``, ``accuracy``) what Keras's own look-up takes: the text.

    Raises
    ------
    ValueError
        If the name is unknown, or takes no arguments.
    """
    thing = custom.get(call.name, getattr(family, call.name, None))
    arguments = {name: _convert(value, custom) for name, value in call.arguments.items()}
    if isinstance(thing, type):
        return thing(**arguments)
    if call.is_bare:
        return call.name if thing is None else thing
    found = thing if thing is not None else family.get(call.name)  # 'adam: {...}' names the class Adam
    if isinstance(found, type) or not callable(found) or hasattr(found, "get_config"):
        return (found if isinstance(found, type) else type(found))(**arguments)
    message = f"{call.name} is a function and takes no arguments here; use a class"
    raise ValueError(message)


def _convert(value: Any, custom: Mapping[str, Any]) -> Any:
    """Make the objects inside arguments: ``kernel_regularizer: {L2: {l2: 0.01}}``."""
    if isinstance(value, list):
        return [_convert(item, custom) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        (name, arguments), *_ = value.items()
        family = _family_of(name, custom)
        if family is not None and (arguments is None or isinstance(arguments, dict)):
            return construct(Call(name, arguments or {}, is_bare=False), family, custom)
    return {key: _convert(item, custom) for key, item in value.items()}


def _family_of(name: str, custom: Mapping[str, Any]) -> ModuleType | None:
    import keras

    families = (
        keras.layers,
        keras.regularizers,
        keras.initializers,
        keras.constraints,
        keras.optimizers.schedules,
        keras.losses,
        keras.metrics,
    )
    if name in custom:
        return keras.layers  # type: ignore[no-any-return]  # the family does not matter for a custom object
    return next((family for family in families if isinstance(getattr(family, name, None), type)), None)
