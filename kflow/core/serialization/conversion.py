"""Keras objects to plain data and back, by name and without running code that the data brings along.

Reading happens in two steps. First the whole description is copied and checked, with the path to whatever is
refused (:mod:`kflow.core.serialization.descriptions`). Then Keras builds the object in a scope in which the
names mean what was found.
"""

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from typing import Any, Literal

import numpy as np

from kflow.core.objects.lookup import install, keras_part, registered_object
from kflow.core.objects.registry import Layer, close_layer, open_layer, short
from kflow.core.objects.scopes import CustomObjectScope, get_custom_objects
from kflow.core.serialization.descriptions import (
    Place,
    Reader,
    built_in,
    built_in_by_any_name,
    check_harmless,
    checked,
    custom_object,
    is_description,
    is_of_keras,
    unknown,
)
from kflow.core.serialization.keras2 import as_keras_2, modern

__all__ = ["deserialize_keras_object", "serialize_keras_object"]

# What a class and its parts may raise besides TypeError and ValueError when a configuration does not suit them.
_MISFITS = (ArithmeticError, AttributeError, ImportError, LookupError, OSError, RuntimeError)

_OPERATIONS = "keras.ops"


def serialize_keras_object(instance: Any, *, keras_version: Literal[2, 3] = 3) -> Any:
    """Return a JSON-like description from which :func:`deserialize_keras_object` makes an equal object.

    Parameters
    ----------
    instance : object or None
        A layer, model, optimizer, loss, metric, initializer, regularizer, constraint or anything else that
        has ``get_config``; a named function; or a plain value: a number, a bool, bytes, a slice, an array, a
        tensor, or a list, tuple or dict of all these and of text.
    keras_version : {2, 3}, default 3
        The format: that of Keras 3, or ``class_name`` and ``config`` only, as Keras 2.1 wrote it. The latter
        has no place for compile arguments, for whether a layer was built, and for the name of a Sequential
        model; the names of classes and arguments are still today's, but for an optimizer's ``lr``, ``decay``
        and ``clipnorm`` and an input's ``batch_input_shape``.

    Returns
    -------
    dict, str, plain value or None
        For an object, Keras 3's format: ``module``, ``class_name``, ``config`` and ``registered_name``, with
        ``build_config`` and ``compile_config`` where there are any (but no weights). For a function, its
        registered name or else its own name; for one of ``keras.ops``, a description that names this module. For
        a plain value itself; what JSON cannot hold (bytes, slices, arrays, functions in lists) is described like
        an object. NumPy's scalars become Python's.

    Raises
    ------
    ValueError
        If the object cannot be described so that it can be read back: a class, a lambda or an object without
        ``get_config`` (also as a part, where a method is one of these), what JSON cannot hold, a function whose
        name means another object, a function of Keras that is no part of models or one that is not written in
        Python, a text that is not in a list or dict or what would become one (it would be read as a name), a dict
        with the keys of a description, or a part for which Keras 2.1 has no form.

    Notes
    -----
    Keras 2.1 wrote only ``class_name`` and ``config``, which do not tell a loss from a metric of the same
    name; hence the format of Keras 3 by default, in which both are found in the same places. Functions are
    names as in 2.1. For a lambda Keras 2.1 wrote ``"<lambda>"``, which could not be read, and Keras 3 writes
    byte code, which is not safe to read.

    Examples
    --------
    >>> import keras
    >>> serialize_keras_object(keras.regularizers.L1(0.5))["config"]
    {'l1': 0.5}
    >>> serialize_keras_object(keras.regularizers.L1(0.5), keras_version=2)
    {'class_name': 'L1', 'config': {'l1': 0.5}}
    >>> serialize_keras_object(keras.activations.relu)
    'relu'
    """
    if keras_version not in (2, 3):
        msg = f"keras_version is {short(keras_version)}, but must be 2 or 3"
        raise ValueError(msg)
    if isinstance(instance, str):
        msg = f"cannot serialize the text {short(instance)}: by itself it would be read as a name; put it into a list"
        raise ValueError(msg)
    if isinstance(instance, dict) and ("class_name" in instance or "config" in instance):
        msg = "cannot serialize a dictionary with the key class_name or config: it would be read as a description"
        raise ValueError(msg)
    try:
        description = _described(instance)
        if isinstance(description, str):
            msg = (
                f"cannot serialize {short(instance)}, a {type(instance).__name__}: by itself it would become the text "
                f"{short(description)} and be read as a name; put it into a list"
            )
            raise ValueError(msg)
        if _is_function(description) and description["module"] == "builtins":
            return description["config"]
        return as_keras_2(description) if keras_version == 2 else description
    except RecursionError:
        msg = f"cannot serialize {short(instance)}: it is nested too deeply, or contains itself"
        raise ValueError(msg) from None


def deserialize_keras_object(
    identifier: Any,
    module_objects: Mapping[str, Any] | None = None,
    custom_objects: Mapping[str, Any] | None = None,
    printable_module_name: str = "object",
    *,
    safe_mode: bool = True,
    allowed_modules: Iterable[str] = (),
) -> Any:
    """Return the object that a name or a description stands for.

    Names are looked up in ``custom_objects``, then in the open scopes, in the global dictionary of custom
    objects, in ``module_objects`` and, for a description that names a module of Keras, there. Where neither a
    module nor ``module_objects`` is given, Keras's own objects are searched: layers, models, optimizers,
    losses, metrics, initializers, regularizers, constraints, activations. ``printable_module_name`` moves one
    of these to the front: of the two classes ``Poisson``, ``"metric"`` finds the metric.

    Parameters
    ----------
    identifier : dict, str, plain value or None
        A description with ``class_name`` and ``config``, as Keras 2.1 or Keras 3 writes it, or a name. It is
        not changed. If neither ``module_objects`` nor ``printable_module_name`` says what it must be, also a
        number, or a list, tuple or dict of descriptions and plain values; texts in these stay texts.
    module_objects : mapping of str to class or function, optional
        The caller's own objects. What has no ``from_config`` may be called by a description.
    custom_objects : mapping of str to class or function, optional
        Objects that win over all others, inside the description too.
    printable_module_name : str, default "object"
        What to call the thing in messages: ``"layer"``, ``"loss"``, ``"metric"``.
    safe_mode : bool, default True
        Refuse byte code of lambdas, and the layers of Keras that load programs or files when they are made
        (``TFSMLayer``, ``TorchModuleWrapper``, a ``StringLookup`` whose vocabulary is a file). False is only
        for descriptions trusted like a program.
    allowed_modules : iterable of str, default ()
        Modules of yours, and packages with all their modules, that a description may name. They are imported
        when one does, and give it the classes and functions that they define, not what they import.

    Returns
    -------
    object
        None for None. For a string, what is found under the name as it is: a class is not instantiated. For
        a dictionary, a new object made by the class's ``from_config``, or by calling what has none with
        ``config`` as keyword arguments.

    Raises
    ------
    ValueError
        If a name is unknown (similar names are suggested, with where each came from), if the dictionary lacks
        ``class_name`` or ``config``, if the identifier is of another kind or nested more than 150 levels
        deep, or if it holds what ``safe_mode`` refuses or an object of a module that is neither Keras's nor
        allowed. What is inside the description is located by its path: ``config.layers[3].config.activation``.
    TypeError
        If ``module_objects`` or ``custom_objects`` is not a dictionary, if ``allowed_modules`` is a single text,
        or if the class does not accept its configuration.

    Notes
    -----
    The contract is that of Keras 2.1, where unknown names are errors, with its bugs mended: without
    ``module_objects`` it failed, None and other types raised TypeError, and the configuration was changed.
    Unlike ``keras.saving.deserialize_keras_object`` the second positional argument is ``module_objects``, and
    ``safe_mode`` overrules ``keras.config.enable_unsafe_deserialization``. In descriptions of Keras 2.1
    ``batch_input_shape`` becomes an input layer of a Sequential model and is dropped elsewhere, a list of one
    input or output becomes a single one, the calls of a model inside another are counted as in Keras 3, and an
    optimizer's ``lr``, ``decay`` and ``clipnorm`` become what means the same today.

    Examples
    --------
    >>> layer = deserialize_keras_object({"class_name": "Dense", "config": {"units": 3}})
    >>> layer.units
    3
    """
    if isinstance(allowed_modules, str):
        msg = f"allowed_modules is the text {allowed_modules!r}; give a list of module names"
        raise TypeError(msg)
    tables: dict[str, Any] = {"module_objects": module_objects, "custom_objects": custom_objects}
    for argument, given in tables.items():
        if not isinstance(given, Mapping | None):
            msg = f"{argument} is {short(given)}; give a dictionary that maps names to classes or functions"
            raise TypeError(msg)
    reader = Reader(module_objects, printable_module_name, safe_mode, tuple(allowed_modules))
    is_anything = module_objects is None and printable_module_name == "object"
    with CustomObjectScope(custom_objects or {}, override=True, source="custom_objects"):
        if isinstance(identifier, str):
            return _found(identifier, reader)
        if isinstance(identifier, dict) and ("class_name" in identifier or "config" in identifier or not is_anything):
            return _built(identifier, Place(), reader)
        if identifier is None or (is_anything and isinstance(identifier, dict | list | tuple | bool | int | float)):
            return _value(identifier, Place(), reader)
    msg = (
        f"Could not interpret serialized {printable_module_name}: {short(identifier)}; "
        "expected a name, or a dictionary with class_name and config"
    )
    raise ValueError(msg)


def _described(instance: Any) -> Any:
    if isinstance(instance, dict):
        if is_description(instance) or not all(isinstance(key, str) for key in instance):
            msg = f"cannot serialize {short(instance)}: its keys must be texts, and not those of a description"
            raise ValueError(msg)
        return {key: _described(item) for key, item in instance.items()}
    if isinstance(instance, list | tuple):
        items = [_described(item) for item in instance]
        return tuple(items) if isinstance(instance, tuple) else items
    if inspect.isclass(instance):
        msg = f"cannot serialize the class {instance.__name__}: pass an instance of it, or use its name"
        raise ValueError(msg)
    if callable(instance) and not hasattr(instance, "get_config"):
        return _described_function(instance)
    return _described_by_keras(instance)


def _described_by_keras(instance: Any) -> Any:
    try:
        with _operations_with_module():
            description = import_module("keras").saving.serialize_keras_object(instance)
    except RecursionError:
        raise
    # OSError: a lambda without source text. AttributeError: a function of NumPy, which Keras takes for a number.
    except (AttributeError, TypeError, ValueError, OSError, NotImplementedError) as error:
        msg = f"cannot serialize {short(instance)}, a {type(instance).__name__}: {error}"
        raise ValueError(msg) from error
    for where, part in _parts(description, "description"):
        if _is_function(part) and str(part["config"]).startswith(f"{_OPERATIONS}."):
            part.update(_described_operation(part["config"]))
        reason = _why_unreadable(part)
        if reason:
            msg = f"cannot serialize {short(instance)}: {where} is {reason}"
            raise ValueError(msg)
    if _is_array(description) and 0 in instance.shape:
        description["config"]["shape"] = list(instance.shape)  # which empty lists do not tell
    return description


def _why_unreadable(part: Any) -> str:
    """Return what is wrong with a part of a description that Keras has written, or an empty text."""
    if not isinstance(part, dict):
        is_plain = isinstance(part, str | int | float | None)
        return "" if is_plain else f"{short(part)}, a {type(part).__name__}, which JSON cannot hold"
    name = part.get("class_name")
    if name == "__lambda__":
        return "a lambda; use a function with a name"
    if name == "__typespec__":
        return "a TypeSpec, which Keras cannot read"
    if name != "function" and "registered_name" in part and isinstance(part.get("config"), str):
        return f"{short(part['config'])}, a {name}, which has no get_config(); use a function, or an object that has it"
    return ""


def _is_array(description: Any) -> bool:
    return isinstance(description, dict) and description.get("class_name") in ("__numpy__", "__tensor__")


def _is_function(description: Any) -> bool:
    return isinstance(description, dict) and description.get("class_name") == "function"


@functools.cache
def _operations() -> dict[Any, str]:
    """Return the functions of ``keras.ops`` with their names there."""
    public = vars(import_module(_OPERATIONS)).values()
    return {function: f"{_OPERATIONS}.{function.__name__}" for function in public if inspect.isfunction(function)}


@contextmanager
def _operations_with_module() -> Iterator[None]:
    """Make Keras name the module of such a function: its bare name is found nowhere, or is that of an activation."""
    install()
    layer = Layer("keras.ops", {}, names=_operations(), is_argument=True)
    open_layer(layer)
    try:
        yield
    finally:
        close_layer(layer)


def _described_operation(path: str) -> dict[str, Any]:
    name = path.removeprefix(f"{_OPERATIONS}.")
    return {"module": _OPERATIONS, "class_name": "function", "config": name, "registered_name": name}


def _described_function(function: Any) -> dict[str, Any]:
    if inspect.isfunction(function) and function in _operations():
        return _described_operation(_operations()[function])
    name = _function_name(function)
    return {"module": "builtins", "class_name": "function", "config": name, "registered_name": "function"}


def _function_name(function: Any) -> str:
    own_name = getattr(function, "__name__", None)
    if own_name is None:
        msg = f"cannot serialize {short(function)}, a {type(function).__name__}: it has no get_config() and no name"
        raise ValueError(msg)
    if own_name == "<lambda>":
        msg = f"cannot serialize {short(function)}: a lambda cannot be found by name; use a function with a name"
        raise ValueError(msg)
    name: str = import_module("keras").saving.get_registered_name(function)
    meaning = _lookup(name, Reader(None, "function", is_safe=True))
    if meaning is not None and meaning is not function:
        msg = f"cannot serialize {short(function)}: its name {name!r} means {short(meaning)}; give it another name"
        raise ValueError(msg)
    is_compiled = inspect.isbuiltin(function) or isinstance(function, np.ufunc)
    if meaning is None and (is_of_keras(function) or is_compiled):
        what = "a function of Keras that is no part of models" if is_of_keras(function) else "not written in Python"
        msg = f"cannot serialize {short(function)}: it is {what}, and not found by name; call it in a function of yours"
        raise ValueError(msg)
    return name


def _parts(value: Any, where: str) -> Iterable[tuple[str, Any]]:
    if isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _parts(item, f"{where}[{index}]")
        return
    yield where, value
    if _is_array(value):
        yield from _first_entry(value["config"]["value"], f"{where}.config.value")
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _parts(item, f"{where}.{key}")


def _first_entry(value: Any, where: str) -> Iterable[tuple[str, Any]]:
    """Give the first number of nested lists, which are as long as an array, and where it is."""
    while isinstance(value, list) and value:
        value, where = value[0], f"{where}[0]"
    if not isinstance(value, list):
        yield where, value


def _lookup(name: str, reader: Reader) -> Any:
    found = registered_object(name)
    if found is None and reader.module_objects is not None:
        return reader.module_objects.get(name)
    return built_in(name, reader.noun)[1] if found is None else found


def _found(name: str, reader: Reader) -> Any:
    found = _lookup(name, reader)
    if found is None and reader.module_objects is None:
        found = built_in_by_any_name(name, reader.noun)[1]
    if found is None:
        raise unknown(name, Place(), reader)
    return found


def _value(value: Any, place: Place, reader: Reader) -> Any:
    if isinstance(value, dict):
        if is_description(value):
            return _built(value, place, reader)
        return {key: _value(item, place.inside(key), reader) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [_value(item, place.inside(index), reader) for index, item in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
    return value


def _built(identifier: dict[str, Any], place: Place, reader: Reader) -> Any:
    name = identifier.get("class_name")
    if not isinstance(name, str) or "config" not in identifier:
        msg = (
            f"Improper config format: {short(identifier)}; "
            f"a serialized {reader.noun} is a dictionary with class_name and config"
        )
        raise ValueError(msg)
    own = custom_object(identifier)[1]
    if own is None and reader.module_objects is not None:
        own = reader.module_objects.get(name)
        if own is None and "module" not in identifier:
            raise unknown(name, place, reader)
    if own is None:
        built = _built_by_keras(checked(identifier, place, reader), reader)
        shape = identifier["config"].get("shape") if _is_array(identifier) else None
        return built if shape is None else _shaped(built, shape)
    check_harmless(own, identifier["config"], place, reader)
    inner = Place(is_ours=not is_of_keras(own), path=place.path, depth=place.depth).inside("config")
    node = {**identifier, "config": checked(modern(identifier, own), inner, reader)}
    if "module" not in identifier or not hasattr(own, "from_config"):
        return _building(lambda: _from_config(own, node["config"] or {}), node, reader)
    with CustomObjectScope({name: own}, override=True):
        return _built_by_keras({**node, "module": None, "registered_name": name}, reader)


def _shaped(array: Any, shape: Any) -> Any:
    """Return an array or a tensor without entries in the shape that its empty lists could not tell."""
    reshaped = np.reshape(np.asarray(array), shape)
    is_array = isinstance(array, np.ndarray)
    return reshaped if is_array else import_module("keras").ops.convert_to_tensor(reshaped, dtype=array.dtype)


def _built_by_keras(node: dict[str, Any], reader: Reader) -> Any:
    return _building(lambda: import_module("keras").saving.deserialize_keras_object(node), node, reader)


def _building(build: Callable[[], Any], node: dict[str, Any], reader: Reader) -> Any:
    """Build in the reader's mode and with what it took from the allowed modules."""
    with _safe_mode(reader), CustomObjectScope(reader.found, override=True, source="allowed_modules"):
        try:
            return build()
        except _MISFITS as error:
            msg = (
                f"cannot make the {reader.noun} {short(node['class_name'])} from its config: "
                f"{type(error).__name__}: {short(str(error))}"
            )
            raise ValueError(msg) from error


def _safe_mode(reader: Reader) -> AbstractContextManager[object]:
    # An argument alone would lose to keras.config.enable_unsafe_deserialization and not reach nested parts.
    library = keras_part("saving.serialization_lib", "SafeModeScope", type)
    scope: AbstractContextManager[object] = library.SafeModeScope(reader.is_safe)
    return scope


def _from_config(factory: Callable[..., Any], config: dict[str, Any]) -> Any:
    make = getattr(factory, "from_config", None)
    if make is None:
        return factory(**config)
    if "custom_objects" in inspect.signature(make).parameters:
        return make(config, custom_objects=dict(get_custom_objects()))
    return make(config)
