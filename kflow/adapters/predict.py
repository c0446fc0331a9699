"""Compute the outputs of a model.

    guesses:
      kind: predict
      model: ${fit.model}
      x: ${x_test}
      to_file: results/guesses.npy    # also write them to a file of your choice
      objects: ${layers}

Outputs: ``array``, one row for each row of ``x``.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from kflow.adapters.feeding import Arrays, open_arrays
from kflow.adapters.session import DeterministicField, ObjectsField, check_gpus, check_objects, divide, keras_session
from kflow.spec.base import Examination, NotFingerprinted, StepContext, StepOutputs, StepSpec
from kflow.spec.facts import ArrayFact, Fact
from kflow.spec.types import Array, Gpus, Model, OutputPath, PositiveInt


def _check_ending(path: OutputPath) -> OutputPath:
    if not path.endswith(".npy"):
        message = "predictions are written to a file that ends in .npy"
        raise PydanticCustomError("kflow", "{text}", {"text": message})
    return path


class Predict(StepSpec, kind="predict", version=1):
    """Outputs of a model."""

    libraries = ("keras", "tensorflow", "numpy")
    is_random = True  # a layer may draw random numbers when it is asked, as that of a Monte Carlo dropout

    model: Model
    x: Arrays = Field(description="The inputs.")
    batch_size: PositiveInt = Field(default=32, description="The rows in a batch.")
    to_file: Annotated[Annotated[OutputPath, AfterValidator(_check_ending)] | None, NotFingerprinted()] = Field(
        default=None, description="A .npy file to write."
    )
    objects: ObjectsField
    gpus: Annotated[Gpus, NotFingerprinted()] = Field(default=0, description="How many GPUs to use: a number, or all.")
    deterministic: DeterministicField

    class Outputs(StepOutputs):
        """What others may reference."""

        array: Array

    def gpus_wanted(self) -> int | str:
        """Return the number of GPUs, or 'all'."""
        return self.gpus

    def exports(self) -> Mapping[str, str]:
        """Give the array its place."""
        return {"array": self.to_file} if self.to_file else {}

    def examine(self, exam: Examination) -> Mapping[str, Fact]:
        """Tell the shape of the result."""
        fact = check_objects(exam, self.model, self.objects)
        check_gpus(exam, self.gpus, self.batch_size)
        x = exam.fact(self.x)
        if fact and fact.output_shape and isinstance(x, ArrayFact):
            return {"array": ArrayFact((x.rows, *fact.output_shape))}
        return {}

    def run(self, context: StepContext) -> StepOutputs:
        """Predict batch by batch."""
        with keras_session(context, self.objects, is_deterministic=self.deterministic):
            model: Any = context.open(self.model)
            x = open_arrays(context, self.x)  # before 'predict' is looked up: it teaches Keras another one
            result = divide(model, context.gpus).predict(x, batch_size=self.batch_size, verbose=0)
        if isinstance(result, list | tuple | dict):
            message = f"the model has {len(result)} outputs; predict hands on one array"
            raise ValueError(message)
        return self.Outputs(array=result)
