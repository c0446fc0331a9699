"""Custom names under random scopes behave like copies of a dictionary, and know where they came from."""

import asyncio
import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kflow.core.objects import CustomObjectScope, custom_object_scope, get_custom_objects


def double(x: Any) -> Any:
    return 2 * x


def triple(x: Any) -> Any:
    return 3 * x


def quadruple(x: Any) -> Any:
    return 4 * x


def meaning(name: str) -> object:
    """What an activation's name means here, or None."""
    try:
        return keras.activations.get(name)
    except ValueError:
        return None


def line_of(text: str) -> str:
    """The file and line in which the text stands first."""
    lines = Path(__file__).read_text().splitlines()
    return f"{__file__}:{1 + next(number for number, line in enumerate(lines) if text in line)}"


def test_names_are_joined_as_those_of_dictionaries() -> None:
    """``|`` gives a dictionary, ``|=`` puts names in."""
    names = get_custom_objects()
    names["a"] = double

    joined = names | {"a": triple, "b": triple}, {"a": triple, "b": triple} | names
    names |= {"b": double}
    found = names.copy()
    names.clear()

    assert joined == ({"a": triple, "b": triple}, {"a": double, "b": triple})
    assert found == {"a": double, "b": double}


def test_sources_tell_where_each_name_came_from() -> None:
    """A name's source is the scope that was entered, what the scope is called, or the line that put it in."""
    get_custom_objects()["global"] = double  # from here

    with CustomObjectScope({"f": double, "g": double}):  # noqa: SIM117  # this scope
        with custom_object_scope({"g": triple}, source="the test"):
            get_custom_objects().update(h=double)  # this update
            keras.saving.register_keras_serializable("house", "brick")(triple)  # this registration
            sources = get_custom_objects().sources()
    after = get_custom_objects().sources()
    del get_custom_objects()["global"]

    assert sources == {
        "global": f"get_custom_objects() at {line_of('# from here')}",
        "f": f"the scope at {line_of('# this scope')}",
        "g": "the test",
        "h": f"get_custom_objects() at {line_of('# this update')}",
        "house>brick": f"get_custom_objects() at {line_of('# this registration')}",
    }
    assert after == {"global": sources["global"]}
    assert get_custom_objects().sources() == {}


def test_a_decorated_function_is_where_its_scope_is_entered() -> None:
    """The source of a decorator's names is the line of the call."""

    @CustomObjectScope({"f": double})
    def source() -> str:
        return get_custom_objects().sources()["f"]

    assert source() == f"the scope at {line_of('assert source() ==')}"


NAMES = st.sampled_from(["a", "b", "c", "d"])
VALUES = st.sampled_from([double, triple, quadruple])


class StopError(Exception):
    """Ends a block."""


def blocks() -> st.SearchStrategy[list[tuple[Any, ...]]]:
    """Programs: what happens one after the other, with scopes inside scopes."""
    simple = st.one_of(
        st.tuples(st.just("set"), NAMES, VALUES),
        st.tuples(st.just("delete"), NAMES),
        st.tuples(st.just("clear")),
        st.tuples(st.just("look")),
    )
    dicts = st.lists(st.dictionaries(NAMES, VALUES, max_size=3), max_size=3)
    return st.recursive(
        st.lists(simple, max_size=4),
        lambda inner: st.lists(st.one_of(simple, st.tuples(st.just("scope"), dicts, inner, st.booleans())), max_size=5),
        max_leaves=12,
    )


def play(program: list[tuple[Any, ...]], expected: dict[str, Any], seen: list[bool]) -> None:
    """Do to Keras what the program says, and to a plain dictionary the same; compare what both know."""
    registry = get_custom_objects()
    for action, *arguments in program:
        if action == "set":
            registry[arguments[0]] = expected[arguments[0]] = arguments[1]
        elif action == "delete":
            assert registry.pop(arguments[0], None) is expected.pop(arguments[0], None)
        elif action == "clear":
            registry.clear()
            expected.clear()
        elif action == "scope":
            dicts, body, fails = arguments
            inner = {**expected, **{name: value for each in dicts for name, value in each.items()}}
            with contextlib.suppress(StopError), custom_object_scope(*dicts):
                play(body, inner, seen)
                if fails:
                    raise StopError
        seen.append(dict(registry) == expected)
        seen.extend(meaning(name) is expected.get(name) for name in "abcd")


@settings(max_examples=60, deadline=None)
@given(blocks())
def test_scopes_nest_like_copies_of_a_dictionary(program: list[tuple[Any, ...]]) -> None:
    """Whatever is entered, set, deleted, cleared and left, by exceptions too, names mean what the model says."""
    seen: list[bool] = []

    with CustomObjectScope():
        play(program, {}, seen)

    assert all(seen)
    assert dict(get_custom_objects()) == {}


@settings(max_examples=15, deadline=None)
@given(st.lists(blocks(), min_size=2, max_size=4))
def test_threads_do_not_see_each_other_s_scopes(programs: list[list[tuple[Any, ...]]]) -> None:
    """Random programs at the same time in several threads each behave as if they were alone."""
    barrier = threading.Barrier(len(programs))

    def work(program: list[tuple[Any, ...]]) -> list[bool]:
        seen: list[bool] = []
        barrier.wait(10)
        for _ in range(3):
            with CustomObjectScope():
                play(program, {}, seen)
        return seen

    with ThreadPoolExecutor(len(programs)) as pool:
        results = list(pool.map(work, programs))

    assert all(map(all, results))
    assert dict(get_custom_objects()) == {}


@settings(max_examples=15, deadline=None)
@given(st.lists(st.lists(st.dictionaries(NAMES, VALUES), min_size=1, max_size=3), min_size=2, max_size=4))
def test_tasks_that_interleave_do_not_see_each_other_s_scopes(programs: list[list[dict[str, Any]]]) -> None:
    """Tasks that hold nested scopes open across awaits each see exactly their own."""

    async def task(dicts: list[dict[str, Any]]) -> list[bool]:
        seen = []
        with contextlib.ExitStack() as stack:
            expected: dict[str, Any] = {}
            for each in dicts:
                stack.enter_context(CustomObjectScope(each))
                expected.update(each)
                await asyncio.sleep(0)
                seen.append(dict(get_custom_objects()) == expected)
        return [*seen, dict(get_custom_objects()) == {}]

    async def together() -> list[list[bool]]:
        return await asyncio.gather(*map(task, programs))

    assert all(map(all, asyncio.run(together())))


@pytest.mark.parametrize("name", ["swish", "Dense", "adam"])
def test_the_dictionary_refuses_names_of_keras(name: str) -> None:
    """Unless it is said that they are meant; what Keras itself has under a name is no other meaning of it."""
    with CustomObjectScope():  # what is done here ends here
        with pytest.raises(ValueError, match=rf"'{name}' is taken by Keras .*override"):
            get_custom_objects()[name] = double
        with pytest.raises(ValueError, match="taken by Keras"):
            get_custom_objects().update({name: double})
        with pytest.raises(ValueError, match="taken by Keras"):
            get_custom_objects().update([("fine", double), (name, double)])
        assert "fine" not in get_custom_objects()
        before = name in get_custom_objects()
        get_custom_objects().override({name: double})
        after = get_custom_objects()[name]
        get_custom_objects()["relu"] = keras.activations.relu

    assert (before, after) == (False, double)
    assert name not in get_custom_objects()


def test_what_is_put_over_a_name_of_keras_is_what_keras_finds() -> None:
    """In the whole process, until it is taken out."""
    get_custom_objects().override({"swish": double})
    try:
        found = keras.layers.Dense(1, activation="swish").activation
    finally:
        del get_custom_objects()["swish"]

    assert found is double
    assert keras.activations.get("swish") is keras.activations.swish


def test_names_that_compile_does_not_look_for_are_refused_in_any_case() -> None:
    """To say that they are meant would not help: Keras makes of them what fits the model."""
    for use in (
        lambda: get_custom_objects().override({"accuracy": double}),
        CustomObjectScope({"acc": double}, override=True).__enter__,
    ):
        with pytest.raises(ValueError, match="choose another"):
            use()

    assert not {"acc", "accuracy"} & get_custom_objects().keys()


@pytest.mark.parametrize("put", ["override", "update"])
@pytest.mark.parametrize("given", ["x", 5, [double]])
def test_what_is_no_dictionary_is_not_put_in(put: str, given: Any) -> None:
    """The message says what to pass."""
    with pytest.raises((TypeError, ValueError), match="pass one dictionary that maps names to classes or functions"):
        getattr(get_custom_objects(), put)(given)
