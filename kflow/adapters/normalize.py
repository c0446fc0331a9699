"""Scale vectors to length one.

    unit:
      kind: normalize
      x: ${x_train}
      axis: -1                        # default: the last one; a list for several: [1, 2] for pictures
      order: 2                        # default 2; any number, or inf

Outputs: ``array``, of the same shape.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from kflow.spec.base import Examination, StepContext, StepOutputs, StepSpec
from kflow.spec.facts import ArrayFact, Fact
from kflow.spec.types import Array, Float, Int


class Normalize(StepSpec, kind="normalize", version=1):
    """Vectors scaled to length one."""

    x: Array
    axis: Int | tuple[Int, ...] = Field(default=-1, description="The axis, or axes, that the vectors lie along.")
    order: Float | Literal["inf"] = Field(default=2, description="The order of the norm.")

    class Outputs(StepOutputs):
        """What others may reference."""

        array: Array

    def examine(self, exam: Examination) -> Mapping[str, Fact]:
        """Check the axis against the shape."""
        if not self._axes():
            exam.problem("name at least one axis", "axis")
        fact = exam.fact(self.x)
        if not isinstance(fact, ArrayFact):
            return {}
        rank = len(fact.shape)
        for axis in self._axes():
            if not -rank <= axis < rank:
                exam.problem(f"the array has {rank} axes; there is no axis {axis}", "axis")
        if len({axis % rank for axis in self._axes()}) < len(self._axes()):
            exam.problem(f"an axis is here twice; the array has {rank} axes, and -1 is axis {rank - 1}", "axis")
        return {"array": ArrayFact(fact.shape)}

    def _axes(self) -> tuple[int, ...]:
        return self.axis if isinstance(self.axis, tuple) else (self.axis,)

    def run(self, context: StepContext) -> StepOutputs:
        """Normalize with `kflow.core.normalize`: when read where each row stands alone, else now, block by block."""
        rows = context.open(self.x)
        axis = list(self.axis) if isinstance(self.axis, tuple) else self.axis
        operation: dict[str, Any] = {"do": "normalize", "axis": axis, "order": self.order}
        if all(each % len(rows.shape) for each in self._axes()):
            return self.Outputs(array=rows.then(operation))
        import numpy as np

        from kflow.core import normalize
        from kflow.core.rows.views import row_blocks

        unit = normalize(rows, self.axis, float(self.order), lazy=True)
        # In a file, so that memory does not grow with the array; written, for a map on a full disk ends the process.
        path = context.workdir / "unit.npy"
        with path.open("wb") as stream:
            header = {"descr": np.lib.format.dtype_to_descr(unit.dtype), "fortran_order": False, "shape": unit.shape}
            np.lib.format.write_array_header_1_0(stream, header)
            for start, stop in row_blocks(rows):
                stream.write(np.ascontiguousarray(unit[start:stop]).data)
        return self.Outputs(array=np.load(path, mmap_mode="r"))
