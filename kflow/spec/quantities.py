"""Quantities with a unit: a length of time, an amount of memory, and what a step needs of the machine."""

import re
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from kflow.spec.types import Int, PositiveInt, expected, fail

_SECONDS = {"s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = r"^(\d+(\.\d+)? ?(s|min|m|h|d) ?)+$"
_LONGEST = 36500 * 86400
"""Seconds: a hundred years; the clocks of some systems end with twice as much."""
_BYTES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_AMOUNT = r"^(\d+(?:\.\d+)?) ?(B|kB|MB|GB|TB|KiB|MiB|GiB)$"


def read_duration(value: object) -> object:
    """Return seconds for a number of seconds or a text such as ``90 s``, ``10 min`` or ``1h30m``.

    Examples
    --------
    >>> read_duration("1h30m"), read_duration(2.5)
    (5400.0, 2.5)
    """
    if isinstance(value, str) and re.fullmatch(_DURATION, value):
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in re.findall(r"([\d.]+) ?(min|[smhd])", value))
    elif isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise expected("a length of time, such as 90 (seconds), 10 min or 1h30m")
    else:
        seconds = value
    if seconds > _LONGEST:
        raise fail("a length of time is at most 36500 d; leave it out for no limit")
    return float(seconds)


def read_bytes(value: object) -> object:
    """Return bytes for a number of bytes or a text such as ``2 GB`` or ``512 MiB``.

    Examples
    --------
    >>> read_bytes("1.5 kB"), read_bytes(2000)
    (1500, 2000)
    """
    found = re.fullmatch(_AMOUNT, value) if isinstance(value, str) else None
    if found:
        return round(float(found[1]) * _BYTES[found[2]])
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise expected("an amount of memory, such as 2 GB or 512 MiB")
    return value


Duration = Annotated[
    float,
    BeforeValidator(read_duration),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "exclusiveMinimum": 0, "maximum": _LONGEST},
                {"type": "string", "pattern": _DURATION},
            ]
        }
    ),
]
Bytes = Annotated[
    int,
    BeforeValidator(read_bytes),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": _AMOUNT}]}),
]


class Resources(BaseModel):
    """What a step needs of the machine; steps run side by side as long as there is enough for all."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpus: PositiveInt | None = Field(
        default=None,
        description="Threads to compute with; their number can change the last bits of a result. Default 4 for steps "
        "that use TensorFlow or code of yours, on any machine, and 1 for others.",
    )
    memory: Bytes | None = Field(default=None, description="Memory to reserve, such as 8 GB; default nothing.")
    gpus: Annotated[Int, Field(ge=0)] = Field(default=0, description="GPUs that the step may see; default none.")
