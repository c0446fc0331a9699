"""How Keras looks names up, with the custom objects asked first and the failures explained.

Since version 3 Keras asks for custom objects in only some of the places that take a name. :func:`install`
puts tables and wrappers in the place of its private ones, once per process; they ask everywhere.
"""

import functools
import inspect
import threading
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from types import FunctionType
from typing import Any

from kflow.core.objects.registry import Layer, Registry, close_layer, hint, open_layer

# Whose `get(name)` stops at its own table, and what Keras calls one of its objects in messages.
_TABLES = {
    "activations": "activation function",
    "constraints": "constraint",
    "losses": "loss",
    "metrics": "metric",
    "quantizers": "quantizer",
    "regularizers": "regularizer",
}

# Whose `deserialize` hands an unknown name back, which `get` cannot use.
_DESERIALIZERS = {
    **{name: noun for name, noun in _TABLES.items() if name != "activations"},
    "dtype_policies": "dtype policy",
    "initializers": "initializer",
    "optimizers": "optimizer",
}

# In the order in which a name without a module is looked up.
_PUBLIC_MODULES = (
    "layers",
    "models",
    "optimizers",
    "optimizers.schedules",
    "losses",
    "metrics",
    "initializers",
    "regularizers",
    "constraints",
    "activations",
    "quantizers",
    "dtype_policies",
)

# Those that have no table of short names.
_WITHOUT_TABLE = frozenset({"layers", "models", "optimizers.schedules"})

# Those of whose functions Keras takes the name.
_WITH_FUNCTIONS = frozenset({"activations", "constraints", "initializers", "losses", "metrics", "regularizers"})

# Model.compile chooses these by the shape of the targets and never looks them up.
COMPILE_NAMES = frozenset({"acc", "accuracy", "ce", "crossentropy"})

# The functions that take custom_objects as their second argument, and the private modules that have them.
_READERS = {
    "deserialize_keras_object": ("saving.serialization_lib", "saving.saving_lib", "saving"),
    "load_model_from_hdf5": ("legacy.saving.legacy_h5_format",),
}

_install_lock = threading.Lock()


def registered_object(name: str) -> Any:
    """Return what a name means to Keras now (scopes, then the global dictionary), or None."""
    return import_module("keras").saving.get_registered_object(name)


def known_custom_names() -> dict[str, str]:
    """Return for each custom name that resolves now where it came from, the names of Keras's own scopes too."""
    state = import_module("keras.src.backend.common.global_state")
    registry: Registry = import_module("keras").saving.get_custom_objects()
    foreign = dict.fromkeys(state.get_global_attribute("custom_objects_scope_dict", {}), "a scope of Keras")
    sources = {**foreign, **registry.sources()}
    return {str(name): source for name, source in sources.items() if registered_object(name) is not None}


@functools.cache
def built_in_objects() -> dict[str, dict[str, Any]]:
    """Return Keras's own classes and functions by public module (such as ``keras.layers``) and name."""
    found: dict[str, dict[str, Any]] = {}
    for short in _PUBLIC_MODULES:
        public = vars(import_module(f"keras.{short}"))
        table = {} if short in _WITHOUT_TABLE else keras_part(short, "ALL_OBJECTS_DICT", dict).ALL_OBJECTS_DICT
        # The public names last: the table has a class under some names of functions.
        found[f"keras.{short}"] = {**table, **{name: value for name, value in public.items() if _is_part(value, short)}}
    optimizers = found["keras.optimizers"]  # which Keras asks for in lower case
    found["keras.optimizers"] = {**{name.lower(): value for name, value in optimizers.items()}, **optimizers}
    found["keras.models"]["Functional"] = found["keras.models"]["Model"]  # as later Keras 2 wrote it
    return found


def _is_part(value: object, short: str) -> bool:
    accessors = ("deserialize", "get", "serialize")  # they make, read and write objects
    is_function = inspect.isfunction(value) and value.__name__ not in accessors
    return inspect.isclass(value) or (is_function and short in _WITH_FUNCTIONS)


def sources_of_built_ins(family: str = "") -> dict[str, str]:
    """Return for each name of Keras the module that has it, of all families or of one such as ``activation``."""
    modules = [module for module in built_in_objects() if module.removeprefix("keras.").startswith(family)]
    return {name: module for module in reversed(modules) for name in built_in_objects()[module]}


def keras_part(module: str, attribute: str, kind: type) -> Any:
    """Return a private module of Keras after checking that it holds the attribute that is wanted of it."""
    try:
        holder = import_module(f"keras.src.{module}")
    except ModuleNotFoundError:
        holder = None
    if not isinstance(getattr(holder, attribute, None), kind):
        version = import_module("keras").__version__
        msg = (
            f"keras {version} has no {kind.__name__} keras.src.{module}.{attribute}, so kflow cannot make "
            "custom names resolve in it; install keras 3.15, or give Keras the objects instead of their names"
        )
        raise RuntimeError(msg)
    return holder


def install() -> None:
    """Put the views, tables and wrappers in the place of Keras's, once per process, when all have been found."""
    import_module("keras")  # outside the lock: it takes seconds and runs other people's code
    with _install_lock:
        registration = keras_part("saving.object_registration", "GLOBAL_CUSTOM_OBJECTS", MutableMapping)
        if isinstance(registration.GLOBAL_CUSTOM_OBJECTS, Registry):
            return
        keras_part("saving.object_registration", "GLOBAL_CUSTOM_NAMES", MutableMapping)
        tables = {name: keras_part(name, "ALL_OBJECTS_DICT", dict) for name in (*_TABLES, "optimizers")}
        deserializers = {noun: keras_part(name, "deserialize", FunctionType) for name, noun in _DESERIALIZERS.items()}
        finders = (
            (keras_part("saving.serialization_lib", _FIND, FunctionType), _FIND, _find),
            (keras_part("legacy.saving.serialization", _FIND_IN_HDF5, FunctionType), _FIND_IN_HDF5, _find_in_hdf5),
        )
        readers = [
            (keras_part(module, attribute, FunctionType), attribute)
            for attribute, modules in _READERS.items()
            for module in modules
        ]
        readers += [(import_module(module), "deserialize_keras_object") for module in ("keras.saving", "keras.utils")]
        compilers = [
            getattr(keras_part("trainers.compile_utils", name, type), name)
            for name in ("CompileLoss", "CompileMetrics")
        ]
        for name, holder in tables.items():
            # Keras has left some of its public names out, such as Lamb and l1_l2.
            objects = {**built_in_objects()[f"keras.{name}"], **holder.ALL_OBJECTS_DICT}
            holder.ALL_OBJECTS_DICT = _Table(objects, _TABLES[name]) if name in _TABLES else objects
        for noun, holder in deserializers.items():
            holder.deserialize = _refusing_unknown_names(holder.deserialize, noun)
        for holder, attribute, wrapper in finders:
            keras_find = getattr(holder, attribute)
            setattr(holder, attribute, functools.wraps(keras_find)(functools.partial(wrapper, keras_find)))
        for holder, attribute in readers:
            setattr(holder, attribute, _preferring_given_names(getattr(holder, attribute)))
        for compiler in compilers:
            _bind_names_on_compile(compiler)
        registration.GLOBAL_CUSTOM_NAMES = Registry(registration.GLOBAL_CUSTOM_NAMES, "names")
        # Last, because it is what tells that all is in place.
        registration.GLOBAL_CUSTOM_OBJECTS = Registry(
            registration.GLOBAL_CUSTOM_OBJECTS,
            "objects",
            functools.partial(check_names, way_out="put it in with get_custom_objects().override({...})"),
        )


# A name given to Model.compile together with the object that it meant there.
class _BoundName(str):
    __slots__ = ("target",)
    target: Any


# A table of Keras built-ins whose `get` asks the custom objects first, and explains what it does not find.
class _Table(dict[str, Any]):
    def __init__(self, objects: Mapping[str, Any], noun: str) -> None:
        super().__init__(objects)
        self._noun = noun

    def get(self, key: str, default: Any = None) -> Any:
        target = key.target if isinstance(key, _BoundName) else registered_object(key)
        if target is not None:
            # As Keras does with its own classes; activations.get alone would hand back the class.
            return target() if inspect.isclass(target) else target
        if default is None and key not in self:
            raise _not_interpreted(key, self._noun)
        return super().get(key, default)


def _not_interpreted(name: str, noun: str) -> ValueError:
    # Keras's own words first, which programs may look for.
    explanation = hint(name, known_custom_names(), sources_of_built_ins(noun.split(maxsplit=1)[0]))
    return ValueError(f"Could not interpret {noun} identifier: {name}.{explanation}")


def _refusing_unknown_names(keras_deserialize: Callable[..., Any], noun: str) -> Callable[..., Any]:
    @functools.wraps(keras_deserialize)
    def deserialize(config: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
        found = keras_deserialize(config, custom_objects)
        if isinstance(found, str) and not isinstance(config, str):
            raise _not_interpreted(found, noun)
        return found

    return deserialize


_FIND = "_retrieve_class_or_fn"
_FIND_IN_HDF5 = "class_and_config_for_serialized_keras_object"


def _find(
    keras_find: Callable[..., Any],
    name: str,
    registered_name: str | None,
    module: str | None,
    *args: Any,
    **kwargs: Any,
) -> Any:
    # Keras writes an operation such as Matmul as if it were registered, and would take a custom object of that name.
    if isinstance(module, str) and module.startswith("keras.src.ops."):
        registered_name = None
    try:
        return keras_find(name, registered_name, module, *args, **kwargs)
    except (TypeError, ValueError) as error:
        if not str(error).startswith(("Could not locate", f"Could not deserialize '{module}.{name}'")):
            raise
        advice = "" if module else _way_to_built_in(name)
        msg = f"{error}.{advice or hint(str(name), known_custom_names(), sources_of_built_ins())}"
        raise type(error)(msg) from None


def _way_to_built_in(name: object) -> str:
    """Return what to do with a description that has a name of Keras but no module."""
    module = sources_of_built_ins().get(name) if isinstance(name, str) else None
    if module is None:
        return ""
    return (
        f" Keras has a {name!r} in {module}: name this as the module of the description, "
        "or read it with kflow.core.deserialize_keras_object, which knows descriptions without a module."
    )


def _find_in_hdf5(keras_find: Callable[..., Any], config: Any, *args: Any, **kwargs: Any) -> Any:
    try:
        return keras_find(config, *args, **kwargs)
    except ValueError as error:
        if not str(error).startswith("Unknown "):
            raise
        msg = f"{error}{hint(str(config['class_name']), known_custom_names(), sources_of_built_ins())}"
        raise ValueError(msg) from None


def _preferring_given_names(keras_read: Callable[..., Any]) -> Callable[..., Any]:
    # To Keras its dictionaries come before the custom_objects of the call, which were the first in 2.1.
    @functools.wraps(keras_read)
    def read(source: Any, custom_objects: Mapping[str, Any] | None = None, *args: Any, **kwargs: Any) -> Any:
        with _given_names(custom_objects if isinstance(custom_objects, Mapping) else {}):
            return keras_read(source, custom_objects, *args, **kwargs)

    return read


@contextmanager
def _given_names(objects: Mapping[str, Any]) -> Iterator[None]:
    # What means this already was passed on by an outer call, together with all other names.
    new = {name: target for name, target in objects.items() if registered_object(name) is not target}
    if not new:
        yield
        return
    layer = Layer("custom_objects", new, keras_scope=enter_over_keras_scope(new), is_argument=True)
    open_layer(layer)
    try:
        yield
    finally:
        close_layer(layer)
        if layer.keras_scope is not None:
            layer.keras_scope.__exit__(None, None, None)


def _bind_names_on_compile(compiler: Any) -> None:
    # Keras 3 looks losses and metrics up at the first batch, when the scope may be over; 2.1 did in compile.
    keras_init = compiler.__init__

    @functools.wraps(keras_init)
    def init(self: object, *args: Any, **kwargs: Any) -> None:
        keras_init(self, *map(_bound, args), **{key: _bound(value) for key, value in kwargs.items()})

    compiler.__init__ = init


def _bound(value: Any) -> Any:
    if isinstance(value, str):
        target = registered_object(value)
        if target is None:
            return value
        name = _BoundName(value)
        name.target = target
        return name
    if type(value) is dict:
        return {key: _bound(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(_bound, value))
    return value


def check_names(objects: Mapping[Any, Any], override: bool = False, *, way_out: str = "pass override=True") -> None:
    """Raise ValueError if a name means None, or is that of a different object of Keras; it tells what to do.

    With ``override`` only those names of Keras are refused that `Model.compile` never looks for among custom ones.
    """
    for name, target in objects.items():
        if target is None:  # to Keras, None is what a name means that is not there
            msg = f"the custom name {name!r} stands for None; give it a class or function, or leave it out"
            raise ValueError(msg)
    for module, built_ins in () if override else built_in_objects().items():
        for name in objects.keys() & built_ins.keys():
            if objects[name] is not built_ins[name]:
                msg = f"the custom name {name!r} is taken by Keras ({module}); choose another, or {way_out}"
                raise ValueError(msg)
    for name in objects.keys() & COMPILE_NAMES:
        msg = f"the custom name {name!r} is taken by Keras (Model.compile); choose another"
        raise ValueError(msg)


def enter_over_keras_scope(objects: Mapping[Any, Any]) -> AbstractContextManager[object] | None:
    """Enter a scope of Keras too if one is open that has some of the names; return it."""
    # Keras's own scopes (load_model opens them) are asked before the global dict, so an inner scope of ours
    # would lose to an outer one of theirs. Theirs replace each other, so the outer names are carried over.
    state = import_module("keras.src.backend.common.global_state")
    enclosing = state.get_global_attribute("custom_objects_scope_dict", {})
    if not objects.keys() & enclosing.keys():
        return None
    scope: AbstractContextManager[object] = import_module("keras").saving.custom_object_scope({**enclosing, **objects})
    scope.__enter__()
    return scope
