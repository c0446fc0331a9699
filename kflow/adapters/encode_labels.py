"""Turn class labels into one-hot rows, for the loss categorical_crossentropy.

    y_train:
      kind: encode_labels
      y: ${labels_train}
      num_classes: 10                 # default: the greatest label + 1

    y_train:
      kind: encode_labels
      y: ${grades_train}
      classes: [1, 2, 3, 4, 5, 6]     # labels that do not count from 0, in the order of the columns
      label_smoothing: 0.1            # default 0; takes a tenth from each label and spreads it over all

Every label is checked: negative, fractional, too great and unknown ones stop the run with their value and row.

Outputs: ``array``, shape ``(rows, num_classes)``.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from kflow.spec.base import Examination, StepContext, StepOutputs, StepSpec
from kflow.spec.facts import ArrayFact, Fact
from kflow.spec.types import Array, Float, Int, PositiveInt


class EncodeLabels(StepSpec, kind="encode_labels", version=1):
    """Class labels as one-hot rows."""

    y: Array
    num_classes: PositiveInt | None = Field(
        default=None, description="The number of classes; default as many as classes, or greatest + 1."
    )
    classes: tuple[Int | Float | str, ...] | None = Field(
        default=None,
        min_length=1,
        description="The label of each class, in the order of the columns; default the numbers from 0 on.",
    )
    label_smoothing: Float = Field(
        default=0.0, ge=0, le=1, description="The share taken from each label and spread over all classes; default 0."
    )
    dtype: Literal["float32", "float64", "uint8"] = Field(default="float32", description="The type of the result.")

    class Outputs(StepOutputs):
        """What others may reference."""

        array: Array

    def examine(self, exam: Examination) -> Mapping[str, Fact]:
        """Check the classes; tell the shape of the result."""
        columns = self.num_classes
        if self.classes is not None:
            columns = len(self.classes)
            self._check_classes(exam, self.classes)
        if self.label_smoothing and self.dtype == "uint8":
            exam.problem("label_smoothing makes fractions, which uint8 cannot hold; use float32", "label_smoothing")
        fact = exam.fact(self.y)
        if not isinstance(fact, ArrayFact):
            return {}
        shape = fact.shape[:-1] if len(fact.shape) > 1 and fact.shape[-1] == 1 else fact.shape
        return {"array": ArrayFact((*shape, columns), is_one_hot=True)}

    def _check_classes(self, exam: Examination, classes: tuple[Any, ...]) -> None:
        if self.num_classes not in {None, len(classes)}:
            exam.problem(f"there are {len(classes)} classes, not {self.num_classes}; leave this out", "num_classes")
        for index, label in enumerate(classes):
            if label in classes[:index]:
                exam.problem(f"the class {label!r} is here twice", "classes", index)

    def run(self, context: StepContext) -> StepOutputs:
        """Check all labels with `kflow.core.to_categorical`, block by block; the encoding itself is done when read."""
        from kflow.core import to_categorical

        rows = context.open(self.y)
        more: dict[str, Any] = {"label_smoothing": self.label_smoothing} if self.label_smoothing else {}
        if self.classes is not None:
            more["classes"] = list(self.classes)
        columns = to_categorical(rows, self.num_classes, self.dtype, lazy=True, **more).shape[-1]
        operation = {"do": "one_hot", "num_classes": columns, "dtype": self.dtype, **more}
        return self.Outputs(array=rows.then(operation))
