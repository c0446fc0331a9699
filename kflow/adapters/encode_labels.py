"""Turn class numbers into one-hot rows, for the loss categorical_crossentropy.

    y_train:
      kind: encode_labels
      y: ${labels_train}
      num_classes: 10                 # default: the greatest label + 1

Every label is checked: negative, fractional or too great ones stop the run with their value and row.

Outputs: ``array``, shape ``(rows, num_classes)``.
"""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from kflow.spec.base import Examination, StepContext, StepOutputs, StepSpec
from kflow.spec.facts import ArrayFact, Fact
from kflow.spec.types import Array, PositiveInt


class EncodeLabels(StepSpec, kind="encode_labels", version=1):
    """Class numbers as one-hot rows."""

    y: Array
    num_classes: PositiveInt | None = Field(default=None, description="The number of classes; default greatest + 1.")
    dtype: Literal["float32", "float64", "uint8"] = Field(default="float32", description="The type of the result.")

    class Outputs(StepOutputs):
        """What others may reference."""

        array: Array

    def examine(self, exam: Examination) -> Mapping[str, Fact]:
        """Tell the shape of the result."""
        fact = exam.fact(self.y)
        if not isinstance(fact, ArrayFact):
            return {}
        shape = fact.shape[:-1] if len(fact.shape) > 1 and fact.shape[-1] == 1 else fact.shape
        return {"array": ArrayFact((*shape, self.num_classes), is_one_hot=True)}

    def run(self, context: StepContext) -> StepOutputs:
        """Check all labels with `kflow.core.to_categorical`, block by block; the encoding itself is done when read."""
        from kflow.core.arrays import to_categorical

        rows = context.open(self.y)
        num_classes = self.num_classes or 1 + max(int(block.max()) for _, block in rows.blocks())
        for start, block in rows.blocks():
            try:
                to_categorical(block, num_classes, dtype="uint8")
            except ValueError as error:
                message = f"in the rows from {start} on: {error}" if start else str(error)
                raise ValueError(message) from None
        return self.Outputs(array=rows.then({"do": "one_hot", "num_classes": num_classes, "dtype": self.dtype}))
