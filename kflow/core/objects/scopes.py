"""Names for your own layers, losses and functions, visible to Keras for as long as a scope is open.

Keras keeps one process-wide dict of custom objects and, since version 3, looks at it in only some of the
places that take a name. Here the dict becomes a view: inside a scope, reads see the scope's names first and
writes stay in the scope, so leaving it restores everything without touching what other threads do.
"""

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import ContextDecorator
from importlib import import_module
from typing import Any, Self, TypeVar, cast

from kflow.core.objects.lookup import check_names, enter_over_keras_scope, install
from kflow.core.objects.registry import Layer, Registry, calling_line, close_layer, open_layer, open_layers, short

__all__ = ["CustomObjectScope", "custom_object_scope", "get_custom_objects"]

_Function = TypeVar("_Function", bound=Callable[..., Any])


class CustomObjectScope(ContextDecorator):
    """Make custom objects known to Keras by name inside a ``with`` block or a decorated function.

    Inside the scope the names work wherever Keras takes one: configurations of layers and models,
    ``load_model``, ``compile(optimizer, loss, metrics)``, ``Dense(activation=..., kernel_regularizer=...)``
    and the ``get`` and ``deserialize`` functions of activations, constraints, initializers, losses, metrics,
    optimizers, quantizers and regularizers. A name that Keras does not find is an error that suggests similar
    names and says where each known one came from. A model that was compiled with a name inside the scope keeps
    what the name meant there, also when it is trained later. When the scope ends, on an exception too,
    everything is as before: what was put into or removed from :func:`get_custom_objects` inside it, for
    instance by ``keras.saving.register_keras_serializable``, is undone.

    Scopes nest by merging; the inner one wins. One scope object can be entered again, also while it is open.
    A scope belongs to its context (:mod:`contextvars`): other threads do not see it, asyncio tasks started
    inside it do, and ``asyncio.to_thread`` takes it along. To take it to another thread, run the thread's work
    with ``contextvars.copy_context().run``.

    As a decorator it opens the scope for each call of a function, while a coroutine is awaited, and while the
    body of a generator runs (not while it waits at a ``yield``).

    Parameters
    ----------
    *dicts : mapping of str to class or function
        Any number of dictionaries, read when the scope is entered; on equal names the later one wins.
    override : bool, default False
        Allow names that Keras itself uses, such as ``"relu"`` or ``"Dense"``; Keras asks for its optimizers in
        lower case. What a Keras 3 configuration names by its Keras module stays Keras's own.
    source : str, optional
        Where the names come from, in words for messages. By default the file and line that enter the scope.

    Raises
    ------
    TypeError
        On entering, if an argument is not a dictionary.
    ValueError
        On entering, if a name means None, or is that of a different Keras object and ``override`` is false.
    RuntimeError
        On entering, if the installed Keras is not built as this module needs it.

    Notes
    -----
    The contract is that of ``keras.utils.CustomObjectScope`` in Keras 2.1, where a scope changed a dictionary
    of the whole process. New: contexts, ``override``, ``source``, the decorator, exact restoration when a
    scope object is entered twice. The context variables are those of PEP 567.

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

    def __init__(self, *dicts: Mapping[str, Any], override: bool = False, source: str | None = None) -> None:
        self._dicts: tuple[object, ...] = dicts
        self._override = override
        self._source = source
        self._layers: list[Layer] = []

    def __enter__(self) -> Self:
        objects: dict[Any, Any] = {}
        for position, given in enumerate(self._dicts, start=1):
            if not isinstance(given, Mapping):
                msg = (
                    f"argument {position} of {type(self).__name__} is {short(given)}, a {type(given).__name__}; "
                    "pass dictionaries that map names to classes or functions"
                )
                raise TypeError(msg)
            objects.update(given)
        install()
        check_names(objects, self._override)
        source = self._source or f"the scope at {calling_line()}"
        layer = Layer(source, objects, keras_scope=enter_over_keras_scope(objects))
        open_layer(layer)
        self._layers.append(layer)
        return self

    def __exit__(self, *exception: object) -> None:
        # Threads and recursive functions may share a scope, and generators may leave scopes in another order than
        # they entered them. A generator may also be closed in another thread, where its scope is not to be seen.
        here = [layer for layer in open_layers() if layer in self._layers]
        if not here and len(self._layers) != 1:
            return  # of several, nobody can tell which
        layer = here[-1] if here else self._layers[0]
        self._layers.remove(layer)
        close_layer(layer)
        if layer.is_open and layer.keras_scope is not None:
            layer.keras_scope.__exit__(None, None, None)

    def __call__(self, func: _Function) -> _Function:
        """Return the function wrapped so that its body, awaited or iterated over as well, runs inside the scope."""
        if isinstance(func, type):
            msg = f"a scope decorates functions; {func.__name__} is a class: decorate the methods that need the names"
            raise TypeError(msg)
        if inspect.iscoroutinefunction(func):
            inside = self._awaited(func)
        elif inspect.isgeneratorfunction(func):
            inside = self._resumed(func)
        elif inspect.isasyncgenfunction(func):
            inside = self._resumed_asynchronously(func)
        else:
            return super().__call__(func)
        return cast("_Function", functools.wraps(func)(inside))

    def _awaited(self, func: Callable[..., Any]) -> Callable[..., Any]:
        async def inside(*args: Any, **kwargs: Any) -> Any:
            with self:
                return await func(*args, **kwargs)

        return inside

    # A generator runs in the context of whoever asks for its next item, who must not see the scope in between.
    def _resumed(self, func: Callable[..., Any]) -> Callable[..., Any]:
        def inside(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            generator = func(*args, **kwargs)
            resume, argument = generator.send, None
            while True:
                with self:
                    try:
                        item = resume(argument)
                    except StopIteration as stop:
                        return stop.value
                try:
                    resume, argument = generator.send, (yield item)
                except GeneratorExit:
                    with self:
                        generator.close()
                    raise
                except BaseException as error:  # noqa: BLE001  # whatever is thrown in is thrown on
                    resume, argument = generator.throw, error

        return inside

    def _resumed_asynchronously(self, func: Callable[..., Any]) -> Callable[..., Any]:
        async def inside(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
            generator = func(*args, **kwargs)
            resume, argument = generator.asend, None
            while True:
                with self:
                    try:
                        item = await resume(argument)
                    except StopAsyncIteration:
                        return
                try:
                    resume, argument = generator.asend, (yield item)
                except GeneratorExit:
                    with self:
                        await generator.aclose()
                    raise
                except BaseException as error:  # noqa: BLE001  # whatever is thrown in is thrown on
                    resume, argument = generator.athrow, error

        return inside


def custom_object_scope(
    *dicts: Mapping[str, Any], override: bool = False, source: str | None = None
) -> CustomObjectScope:
    """Return a :class:`CustomObjectScope` over the dictionaries, to be used with ``with`` or as a decorator.

    Parameters
    ----------
    *dicts : mapping of str to class or function
        Any number of dictionaries; on equal names the later one wins.
    override : bool, default False
        Allow names that Keras itself uses.
    source : str, optional
        Where the names come from, in words for messages. By default the file and line that enter the scope.

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
    return CustomObjectScope(*dicts, override=override, source=source)


def get_custom_objects() -> Registry:
    """Return Keras's live global dictionary of custom objects, seen through the open scopes.

    Names put into it resolve wherever Keras takes one, as inside a :class:`CustomObjectScope`, until they are
    removed. It is the object that ``keras.saving.get_custom_objects`` returns from then on. Inside a scope it
    also shows the scope's names, and changes to it are undone at the end of the scope, as in Keras 2.1.

    Returns
    -------
    mutable mapping of str to class or function
        Not a copy and not a ``dict``: one object for all threads, each of which sees its own scopes in it. Its
        method ``sources()`` tells for each name where it came from, such as ``"the scope at train.py:12"``. A
        name that Keras itself uses is a ValueError, unless it is put in with the method ``override({...})``, and so
        is None in the place of a class or function.

    Raises
    ------
    RuntimeError
        If the installed Keras is not built as this module needs it.

    Notes
    -----
    A reference that was taken from Keras before kflow was first used is the bare dictionary under the view: what
    it is given is visible everywhere, no scope undoes it, and it is not checked against Keras's own names.

    Examples
    --------
    >>> import keras
    >>> get_custom_objects()["double"] = lambda x: 2 * x
    >>> keras.activations.get("double")(21)
    42
    >>> get_custom_objects().clear()
    """
    install()
    registry: Registry = import_module("keras").saving.get_custom_objects()
    return registry
