"""Checks a description before Keras builds from it: every class is looked up, code and foreign modules are refused.

What passes is a copy in Keras 3's form, in which no name means anything else than what was found here.
"""

import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from types import ModuleType
from typing import Any

from kflow.core.objects.lookup import (
    COMPILE_NAMES,
    built_in_objects,
    known_custom_names,
    registered_object,
    sources_of_built_ins,
)
from kflow.core.objects.registry import hint, short
from kflow.core.serialization.keras2 import OLD_NAMES, keras2_hard_sigmoid, modern

# Nested models have three levels each; Keras needs about ten Python frames for each of these.
_DEEPEST = 150

# The values that Keras describes like objects.
_VALUES = frozenset({"__bytes__", "__ellipsis__", "__keras_tensor__", "__numpy__", "__slice__", "__tensor__"})

# Which kind of object stands under a key such as kernel_regularizer or layers, and the module that knows its names.
_FAMILIES = {
    "activation": "keras.activations",
    "constraint": "keras.constraints",
    "initializer": "keras.initializers",
    "regularizer": "keras.regularizers",
    "optimizer": "keras.optimizers",
    "loss": "keras.losses",
    "metric": "keras.metrics",
    "layer": "keras.layers",
    "cell": "keras.layers",
}
_PLURALS = {"metrics": "metric", "layers": "layer", "cells": "cell", "losses": "loss"}


@dataclass(frozen=True, slots=True)
class Reader:
    """Where and how names are looked up in one call of deserialize_keras_object."""

    module_objects: Mapping[str, Any] | None
    noun: str
    is_safe: bool
    allowed_modules: tuple[str, ...] = ()
    found: dict[str, Any] = field(default_factory=dict)
    """What was taken from the allowed modules, under the names by which Keras is told to ask for it."""


@dataclass(frozen=True, slots=True)
class Place:
    """A place inside a description: its path, the kind of object expected there, whether a custom class is around."""

    path: str = ""
    family: str = ""
    is_ours: bool = False
    depth: int = 0

    def __str__(self) -> str:
        return self.path or "the description"

    def inside(self, key: Any) -> "Place":
        """Return the place of an item."""
        if self.depth >= _DEEPEST:
            msg = f"the description is nested more than {_DEEPEST} levels deep, or contains itself: {short(self.path)}"
            raise ValueError(msg)
        if isinstance(key, int):
            return replace(self, path=f"{self.path}[{key}]", depth=self.depth + 1)
        name = key if isinstance(key, str) and len(key) <= 80 else short(key)
        path = f"{self.path}.{name}" if self.path else name
        return replace(self, path=path, family=_family_of(name) or self.family, depth=self.depth + 1)


def _family_of(key: str) -> str:
    last = key.rpartition("_")[2]
    last = _PLURALS.get(last, last)
    return last if last in _FAMILIES else ""


def checked(value: Any, place: Place, reader: Reader) -> Any:
    """Return a copy in Keras 3's form; in a custom class unknown dictionaries are its own business.

    Raises
    ------
    ValueError
        With the path to it, if a name is unknown, or if something is refused.
    """
    if isinstance(value, list | tuple):
        items = [
            item if _is_leaf(item, place) else checked(item, place.inside(i), reader) for i, item in enumerate(value)
        ]
        return tuple(items) if isinstance(value, tuple) else items
    if isinstance(value, str):
        _check_name(value, place, reader)
        return value
    if not isinstance(value, dict):
        return value
    if is_description(value) and (isinstance(value["class_name"], str) or not place.is_ours):
        value, is_ours = _resolved(value, place, reader)
        place = replace(place, is_ours=is_ours, family="")
    return {key: checked(item, place.inside(key), reader) for key, item in value.items()}


def _is_leaf(item: Any, place: Place) -> bool:
    return not isinstance(item, dict | list | tuple) and not (place.family and isinstance(item, str))


def is_description(value: Mapping[Any, Any]) -> bool:
    """Whether a dictionary has what a description must have."""
    return "class_name" in value and "config" in value


def _check_name(name: str, place: Place, reader: Reader) -> None:
    # Keras would look it up while it builds the layer, and complain without saying where it stands.
    if not place.family or place.is_ours or _FAMILIES[place.family] == "keras.layers":
        return
    spelling = name.lower() if place.family == "optimizer" else name
    is_for_compile = place.family in {"loss", "metric"} and name.lower() in COMPILE_NAMES
    known = built_in_objects()[_FAMILIES[place.family]]
    if not is_for_compile and spelling not in known and registered_object(name) is None:
        raise unknown(name, place, reader)


def unknown(name: str, place: Place, reader: Reader) -> ValueError:
    """Return the complaint about a name that is nowhere."""
    is_root = not place.path
    noun = reader.noun if is_root else place.family or "object"
    others = sources_of_built_ins() if not place.family else sources_of_built_ins(place.family.replace("cell", "layer"))
    if is_root and reader.module_objects is not None:
        others = dict.fromkeys(map(str, reader.module_objects), "module_objects")
    at = "" if is_root else f" (at {place})"
    shown = name if len(name) <= 80 else short(name)
    return ValueError(f"Unknown {noun}: {shown}{at}.{hint(name, known_custom_names(), others)}")


def built_in(name: str, family: str) -> tuple[str, Any]:
    """Return the module and the object of Keras that a name means; a family is searched before the others."""
    # "loss" puts keras.losses before keras.metrics, where there are classes of the same names.
    objects = built_in_objects()
    for module in sorted(objects, key=lambda module: not module.startswith(f"keras.{family}")):
        if name in objects[module]:
            return module, objects[module][name]
    return "", None


def built_in_by_any_name(name: str, family: str) -> tuple[str, Any]:
    """Return what :func:`built_in` does, also for a name that only Keras 2.1 used."""
    module, found = built_in(name, family)
    return (module, found) if found is not None else built_in(OLD_NAMES.get(name, ""), family)


def custom_object(node: Mapping[str, Any]) -> tuple[str, Any]:
    """Return the custom object that a description means and its name, or an empty name and None."""
    if str(node.get("module")).startswith("keras.src.ops."):
        return "", None  # Keras writes its operations as if they were registered
    for key in (node.get("registered_name"), node["class_name"]):
        own = registered_object(key) if isinstance(key, str) and key != "function" else None
        if own is not None:
            return str(key), own
    return "", None


def is_of_keras(factory: Any) -> bool:
    """Whether a class or function is Keras's own."""
    return str(getattr(factory, "__module__", "")).partition(".")[0] == "keras"


def check_harmless(factory: Any, config: Any, place: Place, reader: Reader) -> None:
    """Refuse the classes of Keras whose configuration may name files to read, or code to run."""
    layers = import_module("keras.layers")
    if not reader.is_safe or not inspect.isclass(factory) or not isinstance(config, Mapping):
        return
    reason = ""
    if issubclass(factory, layers.TFSMLayer):
        reason = "loads a SavedModel, whose graph may do anything"
    elif issubclass(factory, layers.TorchModuleWrapper):
        reason = "unpickles a PyTorch module, which may run anything"
    elif isinstance(config.get("vocabulary"), str) and issubclass(
        factory, layers.StringLookup | layers.IntegerLookup | layers.TextVectorization
    ):
        reason = f"reads the file {short(config['vocabulary'])} for its vocabulary"
    if reason:
        msg = f"{place} is a {factory.__name__}, which {reason}; safe_mode=False would allow it"
        raise ValueError(msg)


def _resolved(node: dict[str, Any], place: Place, reader: Reader) -> tuple[dict[str, Any], bool]:
    """Return the description with its class made explicit, and whether the class is a custom one."""
    for key in ("class_name", "module", "registered_name"):
        if not isinstance(node.get(key), str | None):
            msg = f"{place} has a {key} that is no text: {short(node[key])}"
            raise ValueError(msg)
    for key in ("build_config", "compile_config"):
        if not isinstance(node.get(key), dict | None):
            msg = f"{place} has a {key} that is no dictionary: {short(node[key])}"
            raise ValueError(msg)
    name = node["class_name"]
    if name == "function":
        return _resolved_function(node, place, reader), place.is_ours
    if name.startswith("__"):
        _check_value(name, place, reader)
        return node, place.is_ours
    key, own = custom_object(node)
    if own is None and _is_allowed(node.get("module"), reader):
        key, own = _taken(node["module"], name, place, reader)
    if own is not None:
        check_harmless(own, node["config"], place, reader)
        config = modern(node, own)
        return {**node, "config": config, "module": None, "registered_name": key}, not is_of_keras(own)
    if "module" not in node:
        return _resolved_old(node, place, reader)
    check_harmless(_class_of_keras(node["module"], name, place, reader), node["config"], place, reader)
    return node, False


def _resolved_old(node: dict[str, Any], place: Place, reader: Reader) -> tuple[dict[str, Any], bool]:
    module, factory = built_in_by_any_name(node["class_name"], place.family or reader.noun)
    if inspect.isclass(factory):
        check_harmless(factory, node["config"], place, reader)
        return {**node, "config": modern(node, factory), "module": module, "class_name": factory.__name__}, False
    if place.is_ours:
        return node, True
    raise unknown(node["class_name"], place, reader)


def _check_value(name: str, place: Place, reader: Reader) -> None:
    if name == "__lambda__":
        if reader.is_safe:
            msg = f"{place} is the byte code of a lambda, which may do anything; safe_mode=False would run it"
            raise ValueError(msg)
    elif name not in _VALUES:
        msg = f"{place} has the class name {short(name)}, which is none of {', '.join(sorted(_VALUES))}"
        raise ValueError(msg)


def _resolved_function(node: dict[str, Any], place: Place, reader: Reader) -> dict[str, Any]:
    name, module = node["config"], node.get("module", "builtins")
    if not isinstance(name, str):
        msg = f"{place} describes a function, whose config must be its name, but is {short(name)}"
        raise ValueError(msg)
    node = {**node, "module": module}
    # Up to 3.6 Keras wrote a registered function without its package and still finds it.
    if registered_object(name) is not None or any(each.endswith(f">{name}") for each in known_custom_names()):
        return node
    if name == keras2_hard_sigmoid.__name__:
        reader.found[f"kflow>{name}"] = keras2_hard_sigmoid
        return {**node, "config": f"kflow>{name}"}
    module = _allowing(name, module, place, reader)
    if _is_allowed(module, reader):
        key, _ = _taken(module, name, place, reader)
        return {**node, "module": "builtins", "config": key}
    if module is None:
        raise unknown(name, place, reader)
    if module == "builtins":
        if not any(inspect.isfunction(table.get(name)) for table in built_in_objects().values()):
            raise unknown(name, place, reader)
    elif not _is_function_of_keras(module, name):
        raise _refused(module, name, place)
    return node


def _allowing(name: str, module: Any, place: Place, reader: Reader) -> Any:
    """Return the allowed module that has a function of this name, if its description names none."""
    for allowed in reader.allowed_modules if module == "builtins" else ():
        if inspect.isfunction(getattr(_imported(allowed, place), name, None)):
            module = allowed
    return module


def _is_function_of_keras(module: str, name: str) -> bool:
    # The functions of models only: keras.utils.get_file or keras.models.load_model are none.
    table = vars(import_module(module)) if module == "keras.ops" else built_in_objects().get(module, {})
    return inspect.isfunction(table.get(name))


def _refused(module: str, name: str, place: Place) -> ValueError:
    if module.partition(".")[0] == "keras":
        return ValueError(f"{place} names {module}.{name}, which is no part that Keras builds a model from")
    return ValueError(
        f"{place} names {short(name)} of the module {short(module)}, but only Keras's own modules are looked into; "
        f"give the object as {short(name)} in custom_objects, a custom_object_scope or get_custom_objects(), "
        "or name the module in allowed_modules if you trust it"
    )


def _class_of_keras(module: str | None, name: str, place: Place, reader: Reader) -> type:
    if module is None:
        raise unknown(name, place, reader)
    parts = module.split(".")
    if parts[0] != "keras":
        raise _refused(module, name, place)
    holder: Any = import_module("keras")
    if parts[1:2] == ["src"]:
        holder = sys.modules.get(module)  # Keras is loaded as a whole, so nothing has to be imported
    else:
        for part in parts[1:]:
            holder = getattr(holder, part, None) if isinstance(holder, ModuleType) else None
    found = getattr(holder, name, None) if isinstance(holder, ModuleType) else None
    if found is None:
        raise unknown(name, place, reader)
    if not inspect.isclass(found) or not hasattr(found, "from_config"):
        raise _refused(module, name, place)
    return found


def _is_allowed(module: object, reader: Reader) -> bool:
    return any(module == each or str(module).startswith(f"{each}.") for each in reader.allowed_modules)


def _imported(module: str, place: Place) -> ModuleType:
    try:
        return import_module(module)
    except ImportError as error:
        msg = f"{place} needs the module {short(module)}, which is allowed but cannot be imported: {error}"
        raise ValueError(msg) from error


def _taken(module: str, name: str, place: Place, reader: Reader) -> tuple[str, Any]:
    """Return a class or function of an allowed module, and the name by which Keras is to ask for it."""
    found = getattr(_imported(module, place), name, None)
    is_part = inspect.isfunction(found) or (inspect.isclass(found) and hasattr(found, "from_config"))
    # What the module has imported from elsewhere is not allowed with it.
    if not is_part or not _is_allowed(getattr(found, "__module__", None), reader):
        msg = (
            f"{place} names {short(name)} of the module {short(module)}, which defines no function and no class "
            "with from_config of that name"
        )
        raise ValueError(msg)
    key = f"{module}>{name}"
    reader.found[key] = found
    return key, found
