"""What all arrays have in common whose rows are read when they are asked for."""

from __future__ import annotations

from math import prod
from typing import ClassVar

__all__ = ["RowsArray"]


class RowsArray:
    """An array of a known shape that is read by rows.

    Examples
    --------
    >>> class Zeros(RowsArray):
    ...     shape = (4, 2)
    >>> Zeros().ndim, Zeros().size, len(Zeros())
    (2, 8, 4)
    """

    __slots__ = ()

    is_read_by_rows: ClassVar[bool] = True  # tells `kflow.core.rows.streaming` from an array in memory
    shape: tuple[int, ...]

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of entries."""
        return prod(self.shape)

    def __len__(self) -> int:
        return self.shape[0]
