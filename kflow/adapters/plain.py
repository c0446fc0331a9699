"""Plain values as JSON and arrays, and back: the same types, order and sharing, and no code is run on the way.

pickle keeps any object, and may run anything when it reads one. This keeps what is nothing but data: numbers, texts,
bytes, the containers of Python, arrays and scalars of NumPy, and generators of random numbers. A list with two names
has two names afterwards.
"""

import collections
import math
import random
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Packed = Any
"""None, a bool, number or text stands for itself; all else is a list that begins with a word for its type."""

_DEEPEST = 100
"""Containers in containers; readers of JSON take no more than some hundreds."""
_WHOLE = 2**63
"""JSON takes any whole number, but Python reads long ones slowly, or not at all."""
_SEQUENCES: Mapping[str, type] = {"list": list, "set": set, "tuple": tuple, "frozenset": frozenset}
_MAPPINGS: Mapping[str, type] = {"dict": dict, "OrderedDict": collections.OrderedDict, "Counter": collections.Counter}
_FACTORIES: Mapping[str, type] = {each.__name__: each for each in (bool, dict, float, int, list, set, str, tuple)}
_BIT_GENERATORS = ("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64")


class NotPlainError(TypeError):
    """A value, or a part of it, is more than data."""


@dataclass
class Packing:
    """Plain values on their way to JSON, and the arrays that stay arrays.

    ``known`` are objects that reader and writer have anyhow: in place of one of them its number is kept.
    """

    known: tuple[Any, ...] = ()
    arrays: dict[str, Any] = field(default_factory=dict)
    _seen: dict[int, tuple[int, Any]] = field(default_factory=dict)
    """What may be met again, by its id; held, so that nothing else gets the same one."""

    def __post_init__(self) -> None:
        for each in self.known:
            self._note(each)

    def add(self, value: Any) -> Packed:
        """Pack a value.

        Raises
        ------
        NotPlainError
            If it is no plain value; nothing of it is kept then.
        """
        arrays, seen = dict(self.arrays), dict(self._seen)
        try:
            return self._pack(value, 0)
        except NotPlainError:
            self.arrays, self._seen = arrays, seen
            raise

    def _note(self, value: Any) -> int:
        number = len(self._seen)
        self._seen[id(value)] = (number, value)
        return number

    def _pack(self, value: Any, depth: int) -> Packed:
        kind = type(value)
        if value is None or kind is bool:
            return value
        if kind in _LEAVES:
            return _LEAVES[kind](value)
        if id(value) in self._seen:
            return ["again", self._seen[id(value)][0]]
        if depth > _DEEPEST:
            raise NotPlainError
        return self._pack_container(value, kind, depth + 1) or self._pack_numpy(value, kind, depth + 1)

    def _pack_container(self, value: Any, kind: type, depth: int) -> Packed:
        if kind in {tuple, frozenset}:  # they cannot change, so it does not matter how often they are there
            return [kind.__name__, self._pack_all(value, depth)]
        parts = _PARTS.get(kind)
        return None if parts is None else [kind.__name__, self._note(value), *parts(self, value, depth)]

    def _pack_all(self, values: Iterable[Any], depth: int) -> list[Packed]:
        return [self._pack(each, depth) for each in values]

    def _pack_items(self, value: Mapping[Any, Any], depth: int) -> list[Packed]:
        return [[self._pack(name, depth), self._pack(each, depth)] for name, each in value.items()]

    def _pack_numpy(self, value: Any, kind: type, depth: int) -> Packed:
        import numpy as np

        if kind is np.ndarray:
            return ["array", self._note(value), *self._keep(value)]
        if isinstance(value, np.generic) and kind is value.dtype.type:
            return _pack_scalar(value) or ["item", *self._keep(np.asarray(value))]
        if kind is np.random.Generator:
            return ["Generator", self._note(value), self._pack(value.bit_generator, depth)]
        if kind is np.random.RandomState:
            state = value.get_state(legacy=False)
            return ["RandomState", self._note(value), self._pack(value._bit_generator, depth), self._pack(state, depth)]
        if kind.__name__ in _BIT_GENERATORS and kind is getattr(np.random, kind.__name__):
            is_usual = type(value.seed_seq) is np.random.SeedSequence
            seed = self._pack(value.seed_seq.state if is_usual else None, depth)  # generators that it spawns hang on it
            return ["bits", self._note(value), kind.__name__, seed, self._pack(value.state, depth)]
        raise NotPlainError

    def _keep(self, array: Any) -> tuple[str, str | None]:
        """Put an array aside, as whole numbers where NumPy cannot store its type, such as bfloat16."""
        import numpy as np

        dtype, name = array.dtype, f"array{len(self.arrays)}"
        if dtype.hasobject or dtype.kind == "T":
            raise NotPlainError
        if dtype.isbuiltin == _OF_OTHERS:
            self.arrays[name] = array.view(f"u{dtype.itemsize}")
            return name, dtype.name
        if np.lib.format.descr_to_dtype(np.lib.format.dtype_to_descr(dtype)) != dtype:
            raise NotPlainError
        self.arrays[name] = array
        return name, None


def _name_factory(value: Any) -> str | None:
    """Return the name of what a defaultdict makes new values with."""
    factory = value.default_factory
    if factory is not None and _FACTORIES.get(getattr(factory, "__name__", "")) is not factory:
        raise NotPlainError
    return None if factory is None else str(factory.__name__)


_Parts = Callable[[Packing, Any, int], list[Packed]]
_ITEMS: _Parts = lambda packing, value, depth: [packing._pack_items(value, depth)]  # noqa: E731
_VALUES: _Parts = lambda packing, value, depth: [packing._pack_all(value, depth)]  # noqa: E731
_PARTS: Mapping[type, _Parts] = {
    list: _VALUES,
    set: _VALUES,
    **dict.fromkeys(_MAPPINGS.values(), _ITEMS),
    collections.defaultdict: lambda packing, value, depth: [_name_factory(value), packing._pack_items(value, depth)],
    collections.deque: lambda packing, value, depth: [value.maxlen, packing._pack_all(value, depth)],
    bytearray: lambda _packing, value, _depth: [value.hex()],
    random.Random: lambda packing, value, depth: [packing._pack(value.getstate(), depth)],
}
"""What each container that can change is made of."""

_OF_OTHERS = 2
"""What ``dtype.isbuiltin`` says of a type of another library's."""


def _pack_scalar(value: Any) -> Packed:
    """Pack a scalar of NumPy; None for a record, which is kept as an array."""
    import numpy as np

    dtype, kind = value.dtype, type(value)
    if kind is np.str_:
        return ["str_", str(value).encode("utf-8", "surrogatepass").hex()]
    if kind is np.bytes_:
        return ["bytes_", bytes(value).hex()]
    if dtype.isbuiltin == _OF_OTHERS:
        return ["scalar", "ml_dtypes", dtype.name, value.tobytes().hex()]
    if kind is np.void:
        return None
    # One text may stand for two types of the same size: long and long long.
    text = dtype.str if np.dtype(dtype.str).type is kind else dtype.char
    return ["scalar", "numpy", text, value.tobytes().hex()]


def _pack_text(value: str) -> Packed:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:  # JSON makes one character of two halves
        return ["str", value.encode("utf-8", "surrogatepass").hex()]
    return value


_LEAVES: Mapping[type, Callable[[Any], Packed]] = {
    int: lambda value: value if -_WHOLE <= value < _WHOLE else ["int", hex(value)],
    float: lambda value: value if math.isfinite(value) else ["float", struct.pack("<d", value).hex()],
    complex: lambda value: ["complex", struct.pack("<2d", value.real, value.imag).hex()],
    str: _pack_text,
    bytes: lambda value: ["bytes", value.hex()],
}


@dataclass
class Unpacking:
    """What was packed, on its way back; in the same order, with the same known objects."""

    arrays: Mapping[str, Any]
    known: tuple[Any, ...] = ()
    _made: dict[int, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._made.update(enumerate(self.known))

    def take(self, packed: Packed) -> Any:
        """Return the value.

        Raises
        ------
        ValueError, TypeError, LookupError
            If nothing was packed that way.
        """
        if not isinstance(packed, list):
            return packed
        word, *parts = packed
        if word in _SEQUENCES:
            return self._take_sequence(_SEQUENCES[word], *parts)
        if word in _MAPPINGS:
            return self._fill(parts[0], _MAPPINGS[word](), parts[1])
        if word in _LEAF_READERS:
            return _LEAF_READERS[word](*parts)
        return _READERS[word](self, *parts)

    def _take_sequence(self, kind: type, *parts: Any) -> Any:
        if kind in {tuple, frozenset}:
            return kind(self.take(each) for each in parts[0])
        number, items = parts
        made: Any = kind()
        self._made[number] = made  # before its items: it may be among them
        add = made.append if kind is list else made.add
        for each in items:
            add(self.take(each))
        return made

    def _fill(self, number: int, made: Any, items: list[tuple[Packed, Packed]]) -> Any:
        self._made[number] = made
        for name, each in items:
            key = self.take(name)
            made[key] = self.take(each)
        return made

    def _take_defaultdict(self, number: int, factory: str | None, items: Any) -> Any:
        return self._fill(number, collections.defaultdict(_FACTORIES[factory] if factory else None), items)

    def _take_deque(self, number: int, maxlen: int | None, items: list[Packed]) -> Any:
        made = self._made[number] = collections.deque(maxlen=maxlen)
        made.extend(map(self.take, items))
        return made

    def _take_array(self, number: int, name: str, of_others: str | None) -> Any:
        made = self._made[number] = self._get(name, of_others)
        return made

    def _get(self, name: str, of_others: str | None) -> Any:
        return self.arrays[name].view(_dtype("ml_dtypes", of_others)) if of_others else self.arrays[name]

    def _take_bits(self, number: int, name: str, seed: Packed, state: Packed) -> Any:
        import numpy as np

        kind = getattr(np.random, _BIT_GENERATORS[_BIT_GENERATORS.index(name)])
        sequence = self.take(seed)
        made = self._made[number] = kind(np.random.SeedSequence(**sequence) if sequence else 0)
        made.state = self.take(state)
        return made

    def _take_random(self, number: int, state: Packed) -> Any:
        made = self._made[number] = random.Random()  # noqa: S311  as the one that was packed
        made.setstate(self.take(state))
        return made

    def _take_generator(self, number: int, bits: Packed) -> Any:
        import numpy as np

        made = self._made[number] = np.random.Generator(self.take(bits))
        return made

    def _take_random_state(self, number: int, bits: Packed, state: Packed) -> Any:
        import numpy as np

        made = self._made[number] = np.random.RandomState(self.take(bits))
        made.set_state(self.take(state))
        return made

    def _take_bytearray(self, number: int, text: str) -> Any:
        made = self._made[number] = bytearray.fromhex(text)
        return made


def _take_scalar(library: str, name: str, text: str) -> Any:
    import numpy as np

    return np.frombuffer(bytes.fromhex(text), _dtype(library, name))[0]


def _dtype(library: str, name: str) -> Any:
    import numpy as np

    if library == "numpy":
        return np.dtype(name)
    import ml_dtypes

    return np.dtype(getattr(ml_dtypes, name))


def _take_numpy_text(text: str) -> Any:
    import numpy as np

    return np.str_(bytes.fromhex(text).decode("utf-8", "surrogatepass"))


def _take_numpy_bytes(text: str) -> Any:
    import numpy as np

    return np.bytes_(bytes.fromhex(text))


_LEAF_READERS: Mapping[str, Callable[..., Any]] = {
    "int": lambda text: int(text, 16),
    "float": lambda text: struct.unpack("<d", bytes.fromhex(text))[0],
    "complex": lambda text: complex(*struct.unpack("<2d", bytes.fromhex(text))),
    "str": lambda text: bytes.fromhex(text).decode("utf-8", "surrogatepass"),
    "bytes": bytes.fromhex,
    "scalar": _take_scalar,
    "str_": _take_numpy_text,
    "bytes_": _take_numpy_bytes,
}

_READERS: Mapping[str, Callable[..., Any]] = {
    "again": lambda unpacking, number: unpacking._made[number],
    "defaultdict": Unpacking._take_defaultdict,
    "deque": Unpacking._take_deque,
    "bytearray": Unpacking._take_bytearray,
    "Random": Unpacking._take_random,
    "array": Unpacking._take_array,
    "item": lambda unpacking, *place: unpacking._get(*place)[()],
    "bits": Unpacking._take_bits,
    "Generator": Unpacking._take_generator,
    "RandomState": Unpacking._take_random_state,
}
