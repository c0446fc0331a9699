"""A scope as a decorator is open while the function's body runs, whatever kind of function it is."""

import asyncio
import inspect
from collections.abc import Iterator
from typing import Any

import keras
import pytest

from kflow.core.objects import CustomObjectScope, custom_object_scope


def double(x: Any) -> Any:
    return 2 * x


def meaning(name: str) -> object:
    """What an activation's name means here, or None."""
    try:
        return keras.activations.get(name)
    except ValueError:
        return None


def test_as_decorator() -> None:
    """A decorated function, also a recursive one, runs inside the scope each time."""

    @custom_object_scope({"f": double})
    def depth(n: int) -> list[object]:
        return [meaning("f"), *(depth(n - 1) if n else [])]

    found = [depth(2), depth(0)]

    assert found == [[double] * 3, [double]]
    assert meaning("f") is None


def test_as_decorator_of_a_coroutine() -> None:
    """The body of a decorated coroutine function runs inside the scope, not only its creation."""

    @CustomObjectScope({"f": double})
    async def look() -> object:
        await asyncio.sleep(0)
        return meaning("f")

    assert asyncio.run(look()) is double
    assert meaning("f") is None


def test_as_decorator_of_a_generator() -> None:
    """The body of a decorated generator runs inside the scope, and whoever iterates over it does not."""

    @CustomObjectScope({"f": double})
    def look(times: int) -> Iterator[object]:
        for _ in range(times):
            yield meaning("f")
        return meaning("f")

    def outer() -> Iterator[object]:
        returned = yield from look(2)
        yield "returned", returned

    seen = [(item, meaning("f")) for item in outer()]

    assert seen == [(double, None), (double, None), (("returned", double), None)]


def test_as_decorator_of_a_generator_that_is_sent_to_thrown_into_and_closed() -> None:
    """What reaches the generator from outside reaches the body, inside the scope."""
    seen: list[object] = []

    @CustomObjectScope({"f": double})
    def echo() -> Any:
        received = None
        try:
            while True:
                try:
                    received = yield received, meaning("f")
                except KeyError as error:
                    received = error.args
        finally:
            seen.append(meaning("f"))

    generator = echo()
    got = [next(generator), generator.send("a"), generator.throw(KeyError("b"))]
    generator.close()

    assert got == [(None, double), ("a", double), (("b",), double)]
    assert seen == [double]
    assert meaning("f") is None


def test_as_decorator_of_a_generator_that_fails() -> None:
    """An exception of the body goes on to the caller, outside the scope."""

    @CustomObjectScope({"f": double})
    def fail() -> Iterator[int]:
        yield 1 // 0

    with pytest.raises(ZeroDivisionError):
        next(fail())
    assert meaning("f") is None


def test_as_decorator_of_an_asynchronous_generator() -> None:
    """Each step of the body runs inside the scope, across awaits, and ends it for the consumer."""
    closed: list[object] = []

    @CustomObjectScope({"f": double})
    async def look() -> Any:
        received = None
        try:
            while True:
                await asyncio.sleep(0)
                try:
                    received = yield received, meaning("f")
                except KeyError as error:
                    received = error.args
        finally:
            closed.append(meaning("f"))

    async def consume() -> list[object]:
        generator = look()
        seen = [await anext(generator), meaning("f"), await generator.asend("a")]
        seen += [await generator.athrow(KeyError("b")), meaning("f")]
        await generator.aclose()
        return seen

    assert asyncio.run(consume()) == [(None, double), None, ("a", double), (("b",), double), None]
    assert closed == [double]


def test_as_decorator_of_an_asynchronous_generator_that_ends() -> None:
    """An async for loop over a decorated generator ends when the body does."""

    @CustomObjectScope({"f": double})
    async def twice() -> Any:
        yield meaning("f")
        yield meaning("f")

    async def consume() -> list[object]:
        return [item async for item in twice()]

    assert asyncio.run(consume()) == [double, double]


@pytest.mark.parametrize("kind", ["function", "coroutine", "generator", "asynchronous generator"])
def test_a_decorated_function_stays_what_it_was(kind: str) -> None:
    """Frameworks that look at a function (pytest, asyncio) see the kind, the name and the docstring as before."""

    def function() -> None:
        """Say."""

    async def coroutine() -> None:
        """Say."""

    def generator() -> Iterator[None]:
        """Say."""
        yield

    async def asynchronous_generator() -> Any:
        """Say."""
        yield

    plain: Any = locals()[kind.replace(" ", "_")]
    tests = inspect.isgeneratorfunction, inspect.iscoroutinefunction, inspect.isasyncgenfunction

    decorated = CustomObjectScope({})(plain)

    assert [test(decorated) for test in tests] == [test(plain) for test in tests]
    assert (decorated.__name__, decorated.__doc__) == (plain.__name__, "Say.")


def test_a_class_is_not_decorated():
    """It would become a function."""
    with pytest.raises(TypeError, match="a scope decorates functions; Thing is a class"):

        @custom_object_scope({})
        class Thing:
            pass
