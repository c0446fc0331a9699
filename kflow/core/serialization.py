"""Keras objects to plain data and back, by name and without running code that the data brings along.

Reading happens in two steps. First the whole configuration is copied and checked: what Keras 2.1 wrote is
brought into the form that Keras 3 reads, every class is looked up, and code or foreign modules are refused
with the path to them. Then Keras builds the object in a scope in which the names mean what was found.
"""

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from kflow.core.objects import (
    CustomObjectScope,
    built_in_objects,
    get_custom_objects,
    keras_part,
    registered_object,
)

__all__ = ["deserialize_keras_object", "serialize_keras_object"]

# What Keras 2.1 stored beside a Lambda layer's function and Keras 3 does not take.
_OLD_LAMBDA_KEYS = (
    "batch_input_shape",
    "function_type",
    "module",
    "output_shape_type",
    "output_shape_module",
)

# Where a model's configuration lists its tensors.
_ENDS = ("input_layers", "output_layers")


# Where and how names are looked up in one call of deserialize_keras_object.
@dataclass(frozen=True, slots=True)
class _Reader:
    module_objects: Mapping[str, Any] | None
    noun: str
    is_safe: bool


def serialize_keras_object(instance: Any) -> Any:
    """Return a JSON-like description from which :func:`deserialize_keras_object` makes an equal object.

    Parameters
    ----------
    instance : object or None
        A layer, model, optimizer, loss, metric, initializer, regularizer, constraint or anything else that
        has ``get_config``, or a named function.

    Returns
    -------
    dict, str or None
        For an object, Keras 3's format: ``module``, ``class_name``, ``config`` and ``registered_name``, with
        ``build_config`` and ``compile_config`` where there are any (but no weights). For a function, its
        registered name or else its own name. None for None.

    Raises
    ------
    ValueError
        If the object cannot be described so that it can be read back: a class, a lambda (also as a part), an
        object without ``get_config``, or a function whose name means another object.

    Notes
    -----
    Keras 2.1 wrote only ``class_name`` and ``config``, which do not tell a loss from a metric of the same
    name; hence the format of Keras 3. Functions are names as in 2.1. For a lambda Keras 2.1 wrote
    ``"<lambda>"``, which could not be read, and Keras 3 writes byte code, which is not safe to read.

    Examples
    --------
    >>> import keras
    >>> serialize_keras_object(keras.regularizers.L1(0.5))["config"]
    {'l1': 0.5}
    >>> serialize_keras_object(keras.activations.relu)
    'relu'
    """
    if instance is None:
        return None
    if inspect.isclass(instance):
        msg = f"cannot serialize the class {instance.__name__}: pass an instance of it, or use its name"
        raise ValueError(msg)
    if not hasattr(instance, "get_config"):
        return _function_name(instance)
    try:
        description = import_module("keras").saving.serialize_keras_object(instance)
    except (TypeError, OSError, NotImplementedError) as error:  # OSError: a lambda without source text
        msg = f"cannot serialize {instance!r}: {error}"
        raise ValueError(msg) from error
    for where, part in _parts(description, "description"):
        if part.get("class_name") == "__lambda__":
            msg = f"cannot serialize {instance!r}: {where} is a lambda; use a function with a name"
            raise ValueError(msg)
    return description


def deserialize_keras_object(
    identifier: Any,
    module_objects: Mapping[str, Any] | None = None,
    custom_objects: Mapping[str, Any] | None = None,
    printable_module_name: str = "object",
    *,
    safe_mode: bool = True,
) -> Any:
    """Return the object that a name or a description stands for.

    Names are looked up in ``custom_objects``, then in the open scopes, in the global dictionary of custom
    objects, in ``module_objects`` and, for a description that names a module of Keras, there. Where neither a
    module nor ``module_objects`` is given, Keras's own objects are searched: layers, models, optimizers,
    losses, metrics, initializers, regularizers, constraints, activations. ``printable_module_name`` moves one
    of these to the front: of the two classes ``Poisson``, ``"metric"`` finds the metric.

    Parameters
    ----------
    identifier : dict, str or None
        A description with ``class_name`` and ``config``, as Keras 2.1 or Keras 3 writes it, or a name. It is
        not changed.
    module_objects : mapping of str to class or function, optional
        The caller's own objects. What has no ``from_config`` may be called by a description.
    custom_objects : mapping of str to class or function, optional
        Objects that win over all others, inside the description too.
    printable_module_name : str, default "object"
        What to call the thing in messages: ``"layer"``, ``"loss"``, ``"metric"``.
    safe_mode : bool, default True
        Refuse byte code of lambdas. False runs it: only for descriptions trusted like a program.

    Returns
    -------
    object
        None for None. For a string, what is found under the name as it is: a class is not instantiated. For
        a dictionary, a new object made by the class's ``from_config``, or by calling what has none with
        ``config`` as keyword arguments.

    Raises
    ------
    ValueError
        If a name is unknown (similar names are suggested), if the dictionary lacks ``class_name`` or
        ``config``, if the identifier is of another kind, or if it holds a lambda or an object of a module
        that is not Keras's: no such module is ever imported for a description.
    TypeError
        If ``custom_objects`` is not a dictionary, or if the class does not accept its configuration.

    Notes
    -----
    The contract is that of Keras 2.1, where unknown names are errors, with its bugs mended: without
    ``module_objects`` it failed, None and other types raised TypeError, and the configuration was changed.
    Unlike ``keras.saving.deserialize_keras_object`` the second positional argument is ``module_objects``, and
    ``safe_mode`` overrules ``keras.config.enable_unsafe_deserialization``. In descriptions of Keras 2.1
    ``batch_input_shape`` becomes an input layer of a Sequential model and is dropped elsewhere, a list of one
    input or output becomes a single one, and an optimizer's ``lr`` becomes ``learning_rate``.

    Examples
    --------
    >>> layer = deserialize_keras_object({"class_name": "Dense", "config": {"units": 3}})
    >>> layer.units
    3
    """
    if identifier is None:
        return None
    reader = _Reader(module_objects, printable_module_name, is_safe=safe_mode)
    with CustomObjectScope(custom_objects or {}, override=True):
        if isinstance(identifier, str):
            return _found(identifier, reader)
        if isinstance(identifier, dict):
            return _built(identifier, reader)
    msg = (
        f"Could not interpret serialized {printable_module_name}: {identifier!r}; "
        "expected a name, or a dictionary with class_name and config"
    )
    raise ValueError(msg)


def _function_name(function: Any) -> str:
    own_name = getattr(function, "__name__", None)
    if own_name is None or not callable(function):
        msg = f"cannot serialize {function!r}, a {type(function).__name__}: it has no get_config() and no name"
        raise ValueError(msg)
    if own_name == "<lambda>":
        msg = f"cannot serialize {function!r}: a lambda cannot be found by name; use a function with a name"
        raise ValueError(msg)
    name: str = import_module("keras").saving.get_registered_name(function)
    meaning = _lookup(name, _Reader(None, "function", is_safe=True))
    if meaning is not None and meaning is not function:
        msg = f"cannot serialize {function!r}: its name {name!r} means {meaning!r}; give it another name"
        raise ValueError(msg)
    return name


def _lookup(name: str, reader: _Reader) -> Any:
    found = registered_object(name)
    if found is None and reader.module_objects is not None:
        return reader.module_objects.get(name)
    return _built_in(name, reader.noun)[1] if found is None else found


def _built_in(name: str, noun: str) -> tuple[str, Any]:
    # "loss" puts keras.losses before keras.metrics, where there are classes of the same names.
    objects = built_in_objects()
    for module in sorted(objects, key=lambda module: not module.removeprefix("keras.").startswith(noun)):
        if name in objects[module]:
            return module, objects[module][name]
    return "", None


def _found(name: str, reader: _Reader, where: str = "") -> Any:
    found = _lookup(name, reader)
    if found is None:
        raise _unknown(name, reader, where)
    return found


def _unknown(name: str, reader: _Reader, where: str = "") -> ValueError:
    known: set[str] = {str(key) for key in get_custom_objects()}
    if reader.module_objects is not None and not where:
        known |= reader.module_objects.keys()
    else:
        known.update(*built_in_objects().values())
    by_lower = {key.lower(): key for key in sorted(known)}
    close = [by_lower[key] for key in difflib.get_close_matches(name.lower(), by_lower, n=3)]
    hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
    place = f" (at {where})" if where else ""
    return ValueError(
        f"Unknown {reader.noun}: {name}{place}.{hint} Your own objects must be given in custom_objects, "
        "a custom_object_scope or get_custom_objects()."
    )


def _built(identifier: dict[str, Any], reader: _Reader) -> Any:
    name = identifier.get("class_name")
    if not isinstance(name, str) or "config" not in identifier:
        msg = (
            f"Improper config format: {identifier!r}; "
            f"a serialized {reader.noun} is a dictionary with class_name and config"
        )
        raise ValueError(msg)
    own = _custom(identifier)[1]
    if own is None and reader.module_objects is not None:
        own = reader.module_objects.get(name)
        if own is None and "module" not in identifier:
            raise _unknown(name, reader)
    if own is None:
        return _built_by_keras(_checked(identifier, "identifier", reader), reader)
    node = {
        **identifier,
        "config": _checked(_modern(identifier, own), "identifier.config", reader, is_ours=True),
    }
    if "module" not in identifier or not hasattr(own, "from_config"):
        with _safe_mode(reader):
            return _from_config(own, node["config"] or {})
    with CustomObjectScope({name: own}, override=True):
        return _built_by_keras({**node, "module": None, "registered_name": name}, reader)


def _built_by_keras(node: Any, reader: _Reader) -> Any:
    with _safe_mode(reader):
        return import_module("keras").saving.deserialize_keras_object(node)


def _safe_mode(reader: _Reader) -> AbstractContextManager[object]:
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


def _checked(value: Any, where: str, reader: _Reader, *, is_ours: bool = False) -> Any:
    """Return a copy in Keras 3's form; in a custom class (is_ours) unknown dictionaries are its business."""
    if isinstance(value, list | tuple):
        items = [_checked(item, f"{where}[{i}]", reader, is_ours=is_ours) for i, item in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
    if not isinstance(value, dict):
        return value
    if isinstance(value.get("class_name"), str) and "config" in value:
        value, is_ours = _resolved(value, where, reader, is_ours=is_ours)
    return {key: _checked(item, f"{where}.{key}", reader, is_ours=is_ours) for key, item in value.items()}


def _resolved(node: dict[str, Any], where: str, reader: _Reader, *, is_ours: bool) -> tuple[dict[str, Any], bool]:
    """Return the description with its class made explicit, and whether the class is a custom one."""
    name = node["class_name"]
    if name == "__lambda__" and reader.is_safe:
        msg = f"{where} is the byte code of a lambda, which may do anything; safe_mode=False would run it"
        raise ValueError(msg)
    if name == "function":
        _check_function(node, where, reader)
    if name == "function" or name.startswith("__"):
        return node, is_ours
    key, own = _custom(node)
    if own is not None:
        return {**node, "config": _modern(node, own), "module": None, "registered_name": key}, True
    if "module" not in node:
        module, built_in = _built_in(name, reader.noun)
        if inspect.isclass(built_in):
            config = _modern(node, built_in)
            return {**node, "config": config, "module": module, "class_name": built_in.__name__}, False
        if is_ours:
            return node, True
    _check_module(node.get("module"), name, where, reader)
    return node, False


def _custom(node: Mapping[str, Any]) -> tuple[str, Any]:
    for key in (node.get("registered_name"), node["class_name"]):
        own = registered_object(key) if isinstance(key, str) and key != "function" else None
        if own is not None:
            return str(key), own
    return "", None


def _check_function(node: Mapping[str, Any], where: str, reader: _Reader) -> None:
    name, module = node["config"], node.get("module")
    if not isinstance(name, str):
        msg = f"{where} describes a function, whose config must be its name, but is {name!r}"
        raise ValueError(msg)
    # Up to 3.6 Keras wrote a registered function without its package and still finds it.
    if registered_object(name) is not None or any(str(key).endswith(f">{name}") for key in get_custom_objects()):
        return
    if module != "builtins":
        _check_module(module, name, where, reader)
    elif not any(inspect.isfunction(table.get(name)) for table in built_in_objects().values()):
        raise _unknown(name, reader, where)


def _check_module(module: object, name: str, where: str, reader: _Reader) -> None:
    if module is None:
        raise _unknown(name, reader, where)
    parts = str(module).split(".")
    if parts[0] != "keras":
        msg = (
            f"{where} names {name!r} of the module {module!r}, but only Keras's own modules are looked into; "
            f"give the object as {name!r} in custom_objects, a custom_object_scope or get_custom_objects()"
        )
        raise ValueError(msg)
    holder: Any = import_module("keras")
    for part in parts[1:]:
        holder = getattr(holder, part, None)
    # From its private modules Keras itself takes nothing but its savable classes.
    if parts[1:2] != ["src"] and not hasattr(holder, name):
        raise _unknown(name, reader, where)


def _modern(node: Mapping[str, Any], factory: Any) -> Any:
    """Return the configuration of a description, in which what Keras 2.1 wrote is as Keras 3 wants it."""
    config = node["config"]
    keras = import_module("keras")
    if "module" in node or not inspect.isclass(factory):
        return config
    if issubclass(factory, keras.Sequential):
        return _modern_sequential(config)
    return _modern_values(config, factory, keras) if isinstance(config, dict) else config


def _modern_values(config: dict[str, Any], factory: type, keras: Any) -> dict[str, Any]:
    if issubclass(factory, keras.optimizers.Optimizer):
        config = {("learning_rate" if key == "lr" else key): value for key, value in config.items()}
        return {key: value for key, value in config.items() if (key, value) != ("decay", 0.0)}
    if issubclass(factory, keras.Model):
        return {key: _modern_ends(value) if key in _ENDS else value for key, value in config.items()}
    if issubclass(factory, keras.layers.Lambda):
        return _modern_lambda(config)
    if issubclass(factory, keras.layers.Layer) and not issubclass(factory, keras.layers.InputLayer):
        return {key: value for key, value in config.items() if key != "batch_input_shape"}
    return config


def _modern_ends(tensors: Any) -> Any:
    # A single input or output was a list of one, which to Keras 3 is a model that takes or gives lists.
    is_single = isinstance(tensors, list) and len(tensors) == 1 and isinstance(tensors[0], list)
    return tensors[0] if is_single else tensors


def _modern_lambda(config: dict[str, Any]) -> dict[str, Any]:
    if isinstance(config.get("function"), list):
        msg = "a Lambda layer with byte code of Keras 2 cannot be read; write its function as a layer"
        raise ValueError(msg)
    return {key: value for key, value in config.items() if key not in _OLD_LAMBDA_KEYS}


def _modern_sequential(config: Any) -> dict[str, Any]:
    config = {"layers": config} if isinstance(config, list) else config
    layers = list(config.get("layers", []))
    first = layers[0] if layers else {}
    shape = first.get("config", {}).get("batch_input_shape") if isinstance(first, dict) else None
    if shape is not None and first.get("class_name") != "InputLayer":
        dtype = first["config"].get("dtype", "float32")
        layers.insert(0, {"class_name": "InputLayer", "config": {"batch_shape": shape, "dtype": dtype}})
    return {"name": None, **config, "layers": layers}


def _parts(value: Any, where: str) -> Iterable[tuple[str, dict[str, Any]]]:
    if isinstance(value, dict):
        yield where, value
        for key, item in value.items():
            yield from _parts(item, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _parts(item, f"{where}[{index}]")
