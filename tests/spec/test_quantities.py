"""Lengths of time and amounts of memory are numbers, or numbers with units."""

import pytest
from pydantic import TypeAdapter, ValidationError

from kflow.spec.quantities import Bytes, Duration, Resources


@pytest.mark.parametrize(
    ("text", "seconds"), [(90, 90), (0.5, 0.5), ("90 s", 90), ("10min", 600), ("1h30m", 5400), ("2 d", 172800)]
)
def test_a_length_of_time(text: object, seconds: float) -> None:
    """In seconds, minutes, hours, days, and several of them."""
    assert TypeAdapter(Duration).validate_python(text) == seconds


@pytest.mark.parametrize(("text", "count"), [(512, 512), ("2 GB", 2 * 10**9), ("512MiB", 512 * 2**20)])
def test_an_amount_of_memory(text: object, count: int) -> None:
    """In powers of ten and of two."""
    assert TypeAdapter(Bytes).validate_python(text) == count


@pytest.mark.parametrize("value", [0, -1, True, "10", "10 parsecs", "", None, float("nan"), float("inf"), [1]])
@pytest.mark.parametrize("type_", [Duration, Bytes])
def test_what_is_no_quantity(type_: object, value: object) -> None:
    """Says what is expected."""
    with pytest.raises(ValidationError, match=r"expected a(n amount of memory| length of time), such as"):
        TypeAdapter(type_).validate_python(value)


@pytest.mark.parametrize("value", [1e300, "200000 d", "1000000000000 h"])
def test_a_length_of_time_that_no_clock_has(value: object) -> None:
    """A thread cannot wait for it, and it limits nothing."""
    with pytest.raises(ValidationError, match="a length of time is at most 36500 d; leave it out for no limit"):
        TypeAdapter(Duration).validate_python(value)


def test_resources_are_frozen_and_known() -> None:
    """A misspelt one is an error."""
    assert Resources(cpus=2, memory="1 GB") == Resources(cpus=2, memory=10**9)
    with pytest.raises(ValidationError, match="gpu"):
        Resources(gpu=1)
