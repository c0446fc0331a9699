"""Scale vectors to length one.

    unit:
      kind: normalize
      x: ${x_train}
      axis: -1                        # default: the last one; a list for several
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
        fact = exam.fact(self.x)
        if not isinstance(fact, ArrayFact):
            return {}
        rank = len(fact.shape)
        for axis in self._axes():
            if not -rank <= axis < rank:
                exam.problem(f"the array has {rank} axes; there is no axis {axis}", "axis")
        return {"array": ArrayFact(fact.shape)}

    def _axes(self) -> tuple[int, ...]:
        return self.axis if isinstance(self.axis, tuple) else (self.axis,)

    def run(self, context: StepContext) -> StepOutputs:
        """Normalize with `kflow.core.normalize`: when read where each row stands alone, else now."""
        rows = context.open(self.x)
        rank = len(rows.shape)
        axis = list(self.axis) if isinstance(self.axis, tuple) else self.axis
        operation: dict[str, Any] = {"do": "normalize", "axis": axis, "order": self.order}
        if all(each % rank for each in self._axes()):
            return self.Outputs(array=rows.then(operation))
        from kflow.artifacts.array import apply

        return self.Outputs(array=apply(operation, rows[:]))
