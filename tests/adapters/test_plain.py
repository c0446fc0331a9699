"""Plain values come back as they were: types, order, sharing; and what is more than data is refused."""

import collections
import json
import math
import random
import threading
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kflow.adapters.plain import NotPlainError, Packing, Unpacking

TEXTS = st.text(st.characters(exclude_categories=()))  # halves of characters too
ATOMS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=-(2**5000), max_value=2**5000)
    | st.floats()
    | st.complex_numbers()
    | TEXTS
    | st.binary()
)
DTYPES = hnp.scalar_dtypes() | hnp.datetime64_dtypes() | hnp.timedelta64_dtypes() | hnp.byte_string_dtypes()
DTYPES |= hnp.unicode_string_dtypes() | st.sampled_from([np.dtype("q"), np.dtype("Q"), np.dtype("g"), np.dtype("G")])
OF_OTHERS = st.sampled_from([ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.int4]).map(np.dtype)
RECORDS = hnp.array_dtypes(DTYPES)
SHAPES = hnp.array_shapes(min_dims=0, min_side=0, max_side=3)


@st.composite
def arrays(draw: Any) -> Any:
    """Draw an array of any type that holds no objects."""
    dtype = draw(DTYPES | RECORDS | OF_OTHERS)
    shape = draw(SHAPES)
    count = math.prod(shape) * dtype.itemsize
    if dtype.kind in "US" and dtype.itemsize:
        return draw(hnp.arrays(dtype, shape))
    made = np.frombuffer(draw(st.binary(min_size=count, max_size=count)), np.uint8)
    if dtype.kind == "b" or dtype.names or not dtype.itemsize:
        return np.zeros(shape, dtype)
    return np.asarray(made.copy().view(dtype).reshape(shape), order=draw(st.sampled_from("CF")))


SCALARS = arrays().filter(lambda array: array.size > 0).map(lambda array: array.ravel()[0])
KEYS = st.recursive(
    ATOMS | SCALARS.filter(lambda value: not isinstance(value, np.void)),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=4,
)
VALUES = st.recursive(
    ATOMS | SCALARS | arrays() | st.binary().map(bytearray) | KEYS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.sets(KEYS, max_size=4)
        | st.dictionaries(KEYS, inner, max_size=4)
        | st.dictionaries(KEYS, inner, max_size=4).map(collections.OrderedDict)
        | st.dictionaries(KEYS, inner, max_size=4).map(collections.Counter)
        | st.dictionaries(KEYS, inner, max_size=4).map(lambda each: collections.defaultdict(list, each))
        | st.builds(collections.deque, st.lists(inner, max_size=4), st.none() | st.integers(0, 5))
    ),
    max_leaves=12,
)


def round_trip(*values: Any) -> list[Any]:
    """Pack values as they are kept, and unpack them."""
    packing = Packing()
    text = json.dumps([packing.add(value) for value in values])
    unpacking = Unpacking(packing.arrays)
    return [unpacking.take(packed) for packed in json.loads(text)]


def bits(array: Any) -> bytes:
    """Return the bytes that count: a number of 80 bits lies in 16 bytes, and the others may be anything."""
    if array.dtype.char in "gG" and np.finfo("g").nmant == 63:
        return bytes(np.ascontiguousarray(array).reshape(-1).view(np.uint8).reshape(-1, 16)[:, :10].tobytes())
    return bytes(array.tobytes())


def looks(value: Any) -> Any:
    """Return all that tells a value from others, in a form that == compares as wished: NaN equals itself."""
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        told: Any = (array.dtype, array.shape, bits(array), array.flags.f_contiguous)
    elif isinstance(value, dict):
        told = (getattr(value, "default_factory", None), [(looks(name), looks(each)) for name, each in value.items()])
    elif isinstance(value, set | frozenset):
        told = sorted(map(repr, map(looks, value)))
    elif isinstance(value, list | tuple | collections.deque):
        told = (getattr(value, "maxlen", None), [looks(each) for each in value])
    elif isinstance(value, float | complex):
        told = np.complex128(value).tobytes()
    else:
        told = value
    return type(value), told


@settings(max_examples=300, deadline=None)
@given(VALUES)
def test_a_plain_value_comes_back_as_it_was(value: Any) -> None:
    """In its type, in the types of its parts, and to the bit; nested as it was."""
    (back,) = round_trip(value)

    assert looks(back) == looks(value)


def test_what_two_names_share_they_share_again() -> None:
    """Also a list that is in itself; equal values that were two stay two."""
    row: list[Any] = [1]
    row += [row, (row,)]
    twin = [[], []]

    first, (again,), (left, right) = round_trip(row, (row,), twin)

    assert first is again is first[1] is first[2][0]
    assert left is not right


@pytest.mark.parametrize(
    "make",
    [
        lambda: np.random.default_rng(3),
        lambda: np.random.Generator(np.random.MT19937(3)),
        lambda: np.random.Generator(np.random.Philox(3)),
        lambda: np.random.Generator(np.random.SFC64(3)),
        lambda: np.random.Generator(np.random.PCG64DXSM(3)),
        lambda: np.random.RandomState(3),
        lambda: random.Random(3),
    ],
)
def test_a_generator_goes_on_where_it_was(make: Any) -> None:
    """With the half of a pair of normal numbers that is still to come, and with what it spawns."""

    def draw(generator: Any) -> list[Any]:
        if isinstance(generator, random.Random):
            return [generator.gauss(), generator.random(), generator.getrandbits(70)]
        more = [child.random() for child in generator.spawn(2)] if isinstance(generator, np.random.Generator) else []
        integers = generator.integers if more else generator.randint
        return [generator.normal(), generator.uniform(), int(integers(5, dtype="uint32")), *more]

    generator = make()
    draw(generator)

    (back,) = round_trip(generator)

    assert type(back) is type(generator)
    assert [draw(back), draw(back)] == [draw(generator), draw(generator)]


class Number(int):
    """More than a number."""


@pytest.mark.parametrize(
    "value",
    [
        object(),
        len,
        Number(3),
        threading.Lock(),
        np.array([object()]),
        np.ma.masked_array([1]),
        random.SystemRandom(),
        collections.defaultdict(lambda: 3),
        collections.ChainMap({}),
        iter([1]),
    ],
)
def test_what_is_more_than_data_is_refused(value: Any) -> None:
    """Deep inside as well; what was packed before is as it was, and what comes after finds nothing of it."""
    packing, before = Packing(), [np.zeros(2)]
    first = packing.add(before)

    with pytest.raises(NotPlainError):
        packing.add({"a": [[before, np.ones(3)], value]})

    unpacking = Unpacking(packing.arrays)
    assert list(packing.arrays) == ["array0"]
    assert unpacking.take(first)[0] is unpacking.take(packing.add(before))[0]


def test_what_is_too_deep_is_refused() -> None:
    """The reader of JSON would not reach its end."""
    deep: Any = []
    for _ in range(1000):
        deep = [deep]

    with pytest.raises(NotPlainError):
        Packing().add(deep)


@pytest.mark.parametrize(
    "packed", [["bits", 0, "BitGenerator", None, {}], ["os.system", "x"], ["again", 7], [], ["list"]]
)
def test_only_what_was_packed_is_made(packed: Any) -> None:
    """No name in a file leads to anything else."""
    with pytest.raises((ValueError, TypeError, LookupError)):
        Unpacking({}).take(packed)
