"""Names for your own layers, losses and functions, visible to Keras for as long as a scope is open.

Keras keeps one process-wide dict of custom objects and, since version 3, looks at it in only some of the
places that take a name. Here the dict becomes a view: inside a scope, reads see the scope's names first and
writes stay in the scope, so leaving it restores everything without touching what other threads do. The open
scopes live in a context variable, hence threads and asyncio tasks never see each other's names.
"""

import functools
import inspect
import threading
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import AbstractContextManager, ContextDecorator
from contextvars import ContextVar
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Self, TypeVar, cast

__all__ = ["CustomObjectScope", "custom_object_scope", "get_custom_objects"]

_Function = TypeVar("_Function", bound=Callable[..., Any])

# Whose `get(name)` stops at its own table; initializers, optimizers and layers do ask the custom objects.
_TABLES = ("activations", "constraints", "losses", "metrics", "regularizers")

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
)

# Those that have no table of short names; their functions make, read and write objects.
_CLASS_MODULES = frozenset({"layers", "models", "optimizers.schedules"})

# Model.compile chooses these by the shape of the targets and never looks them up.
_COMPILE_NAMES = frozenset({"acc", "accuracy", "ce", "crossentropy"})

_ABSENT = object()
_DELETED = object()

_install_lock = threading.Lock()


# One entered scope: its names, and what was registered with Keras since it was entered.
@dataclass(frozen=True, eq=False, slots=True)
class _Layer:
    owner: "CustomObjectScope"
    objects: dict[Any, Any]
    names: dict[Any, Any]
    keras_scope: AbstractContextManager[object] | None


_layers: ContextVar[tuple[_Layer, ...]] = ContextVar("kflow_custom_objects", default=())


# One of Keras's two global dicts (name -> object, object -> registered name) under the open scopes.
class _Registry(MutableMapping[Any, Any]):
    def __init__(self, base: MutableMapping[Any, Any], field: str) -> None:
        self._base = base
        self._field = field

    def _parts(self) -> list[MutableMapping[Any, Any]]:
        return [self._base, *(getattr(layer, self._field) for layer in _layers.get())]

    def copy(self) -> dict[Any, Any]:
        merged: dict[Any, Any] = {}
        for part in self._parts():
            merged.update(part)
        return {key: value for key, value in merged.items() if value is not _DELETED}

    def __getitem__(self, key: object) -> Any:
        for part in reversed(self._parts()):
            value = part.get(key, _ABSENT)
            if value is _DELETED:
                break
            if value is not _ABSENT:
                return value
        raise KeyError(key)

    def __setitem__(self, key: object, value: object) -> None:
        self._parts()[-1][key] = value

    def __delitem__(self, key: object) -> None:
        _ = self[key]  # a KeyError for a name that is not visible
        if _layers.get():
            self._parts()[-1][key] = _DELETED
        else:
            del self._base[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.copy())

    def __len__(self) -> int:
        return len(self.copy())

    def __repr__(self) -> str:
        return repr(self.copy())


# A name given to Model.compile together with the object that it meant there.
class _BoundName(str):
    __slots__ = ("target",)
    target: Any


# A table of Keras built-ins whose `get` asks the custom objects first.
class _Table(dict[str, Any]):
    def get(self, key: str, default: Any = None) -> Any:
        target = key.target if isinstance(key, _BoundName) else registered_object(key)
        if target is None:
            return super().get(key, default)
        # As Keras does with its own classes; activations.get alone would hand back the class.
        return target() if inspect.isclass(target) else target


class CustomObjectScope(ContextDecorator):
    """Make custom objects known to Keras by name inside a ``with`` block or a decorated function.

    Inside the scope the names work wherever Keras takes one: configurations of layers and models,
    ``load_model``, ``compile(optimizer, loss, metrics)``, ``Dense(activation=..., kernel_regularizer=...)``
    and the ``get`` and ``deserialize`` functions of activations, constraints, initializers, losses, metrics,
    optimizers and regularizers. A model that was compiled with a name inside the scope keeps what the name
    meant there, also when it is trained later. When the scope ends, on an exception too, everything is as
    before: what was put into or removed from :func:`get_custom_objects` inside it, for instance by
    ``keras.saving.register_keras_serializable``, is undone.

    Scopes nest by merging; the inner one wins. One scope object can be entered again, also while it is open.
    A scope belongs to its context (:mod:`contextvars`): other threads do not see it, asyncio tasks started
    inside it do. To take it to a thread, run the thread's work with ``contextvars.copy_context().run``.

    Parameters
    ----------
    *dicts : mapping of str to class or function
        Any number of dictionaries, read when the scope is entered; on equal names the later one wins.
    override : bool, default False
        Allow names that Keras itself uses, such as ``"relu"`` or ``"Dense"``; Keras asks for its optimizers in
        lower case. What a Keras 3 configuration names by its Keras module stays Keras's own.

    Raises
    ------
    TypeError
        On entering, if an argument is not a dictionary.
    ValueError
        On entering, if a name is that of a different Keras object and ``override`` is false.
    RuntimeError
        On entering, if the installed Keras is not built as this module needs it.

    Notes
    -----
    The contract is that of ``keras.utils.CustomObjectScope`` in Keras 2.1, where a scope changed a dictionary
    of the whole process. New: contexts, ``override``, the decorator, exact restoration when a scope object
    is entered twice.

    Examples
    --------
    >>> import keras
    >>> def double(x):
    ...     return 2 * x
    >>> with CustomObjectScope({"double": double}):
    ...     layer = keras.layers.Dense(3, activation="double")
    >>> layer.activation is double
    True
    """

    def __init__(self, *dicts: Mapping[str, Any], override: bool = False) -> None:
        self._dicts: tuple[object, ...] = dicts
        self._override = override

    def __enter__(self) -> Self:
        objects: dict[Any, Any] = {}
        for position, given in enumerate(self._dicts, start=1):
            if not isinstance(given, Mapping):
                msg = (
                    f"argument {position} of {type(self).__name__} is {given!r}, a {type(given).__name__}; "
                    "pass dictionaries that map names to classes or functions"
                )
                raise TypeError(msg)
            objects.update(given)
        install()
        if not self._override:
            _refuse_built_in_names(objects)
        layer = _Layer(self, objects, {}, _enter_over_keras_scope(objects))
        _layers.set((*_layers.get(), layer))
        return self

    def __exit__(self, *exception: object) -> None:
        # The scope keeps no state of its own, so threads and recursive functions may share it. The layer is
        # found by its owner because generators may leave scopes in another order than they entered them.
        layers = _layers.get()
        for index in reversed(range(len(layers))):
            if layers[index].owner is self:
                _layers.set(layers[:index] + layers[index + 1 :])
                keras_scope = layers[index].keras_scope
                if keras_scope is not None:
                    keras_scope.__exit__(None, None, None)
                return

    def __call__(self, func: _Function) -> _Function:
        """Return the function wrapped so that each call, or the awaited body, runs inside the scope."""
        if not inspect.iscoroutinefunction(func):
            return super().__call__(func)

        @functools.wraps(func)
        async def inside(*args: Any, **kwargs: Any) -> Any:
            with self:
                return await func(*args, **kwargs)

        return cast("_Function", inside)


def custom_object_scope(*dicts: Mapping[str, Any], override: bool = False) -> CustomObjectScope:
    """Return a :class:`CustomObjectScope` over the dictionaries, to be used with ``with`` or as a decorator.

    Parameters
    ----------
    *dicts : mapping of str to class or function
        Any number of dictionaries; on equal names the later one wins.
    override : bool, default False
        Allow names that Keras itself uses.

    Returns
    -------
    CustomObjectScope
        A scope that is not entered yet; see there for what it raises on entering.

    Examples
    --------
    >>> import keras
    >>> with custom_object_scope({"double": lambda x: 2 * x}):
    ...     keras.activations.get("double")(21)
    42
    """
    return CustomObjectScope(*dicts, override=override)


def get_custom_objects() -> MutableMapping[str, Any]:
    """Return Keras's live global dictionary of custom objects, seen through the open scopes.

    Names put into it resolve wherever Keras takes one, as inside a :class:`CustomObjectScope`, until they are
    removed. It is the object that ``keras.saving.get_custom_objects`` returns from then on. Inside a scope it
    also shows the scope's names, and changes to it are undone at the end of the scope, as in Keras 2.1.

    Returns
    -------
    mutable mapping of str to class or function
        Not a copy and not a ``dict``: one object for all threads, each of which sees its own scopes in it.

    Raises
    ------
    RuntimeError
        If the installed Keras is not built as this module needs it.

    Notes
    -----
    Names are not checked against Keras's own. A reference that was taken from Keras before kflow was first
    used is the bare dictionary under the view: what it is given is visible everywhere, no scope undoes it.

    Examples
    --------
    >>> import keras
    >>> get_custom_objects()["double"] = lambda x: 2 * x
    >>> keras.activations.get("double")(21)
    42
    >>> get_custom_objects().clear()
    """
    install()
    registry: MutableMapping[str, Any] = import_module("keras").saving.get_custom_objects()
    return registry


def registered_object(name: str) -> Any:
    """Return what a name means to Keras now (scopes, then the global dictionary), or None."""
    return import_module("keras").saving.get_registered_object(name)


@functools.cache
def built_in_objects() -> dict[str, dict[str, Any]]:
    """Return Keras's own classes and functions by public module (such as ``keras.layers``) and name."""
    found: dict[str, dict[str, Any]] = {}
    for short in _PUBLIC_MODULES:
        public = vars(import_module(f"keras.{short}"))
        objects: dict[str, Any] = {name: value for name, value in public.items() if inspect.isclass(value)}
        if short not in _CLASS_MODULES:
            accessors = ("deserialize", "get", "serialize")
            functions = {name: value for name, value in public.items() if inspect.isfunction(value)}
            functions = {name: value for name, value in functions.items() if name not in accessors}
            # The public names last: the table has a class under some names of functions.
            objects = {**keras_part(short, "ALL_OBJECTS_DICT", dict).ALL_OBJECTS_DICT, **objects, **functions}
        found[f"keras.{short}"] = objects
    found["keras.models"]["Functional"] = found["keras.models"]["Model"]  # as later Keras 2 wrote it
    return found


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
    """Put the views and tables in the place of Keras's, once per process, when all parts have been found."""
    import_module("keras")  # outside the lock: it takes seconds and runs other people's code
    with _install_lock:
        registration = keras_part("saving.object_registration", "GLOBAL_CUSTOM_OBJECTS", MutableMapping)
        if isinstance(registration.GLOBAL_CUSTOM_OBJECTS, _Registry):
            return
        keras_part("saving.object_registration", "GLOBAL_CUSTOM_NAMES", MutableMapping)
        holders = [keras_part(name, "ALL_OBJECTS_DICT", dict) for name in _TABLES]
        compilers = [
            getattr(keras_part("trainers.compile_utils", name, type), name)
            for name in ("CompileLoss", "CompileMetrics")
        ]
        for holder in holders:
            holder.ALL_OBJECTS_DICT = _Table(holder.ALL_OBJECTS_DICT)
        for compiler in compilers:
            _bind_names_on_compile(compiler)
        registration.GLOBAL_CUSTOM_NAMES = _Registry(registration.GLOBAL_CUSTOM_NAMES, "names")
        # Last, because it is what tells that all is in place.
        registration.GLOBAL_CUSTOM_OBJECTS = _Registry(registration.GLOBAL_CUSTOM_OBJECTS, "objects")


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


def _refuse_built_in_names(objects: Mapping[Any, Any]) -> None:
    for module, built_ins in built_in_objects().items():
        for name in objects.keys() & built_ins.keys():
            if objects[name] is not built_ins[name]:
                msg = f"the custom name {name!r} is taken by Keras ({module}); choose another, or pass override=True"
                raise ValueError(msg)
    for name in objects.keys() & _COMPILE_NAMES:
        msg = f"the custom name {name!r} is taken by Keras (Model.compile); choose another"
        raise ValueError(msg)


def _enter_over_keras_scope(objects: Mapping[Any, Any]) -> AbstractContextManager[object] | None:
    # Keras's own scopes (load_model opens them) are asked before the global dict, so an inner scope of ours
    # would lose to an outer one of theirs. Theirs replace each other, so the outer names are carried over.
    state = import_module("keras.src.backend.common.global_state")
    enclosing = state.get_global_attribute("custom_objects_scope_dict", {})
    if not objects.keys() & enclosing.keys():
        return None
    scope: AbstractContextManager[object] = import_module("keras").saving.custom_object_scope({**enclosing, **objects})
    scope.__enter__()
    return scope
