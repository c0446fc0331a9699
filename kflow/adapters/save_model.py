"""Write a model to a file of your choice.

    save:
      kind: save_model
      model: ${fit.model}
      filepath: results/digits.keras  # or digits.weights.h5 for the weights alone
      objects: ${layers}

The same model gives the same bytes. If the file is gone or changed later, the next run puts it back.

Outputs: ``file``.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from kflow.adapters.session import ObjectsField, check_objects, keras_session
from kflow.spec.base import Examination, StepContext, StepOutputs, StepSpec
from kflow.spec.facts import Fact
from kflow.spec.types import File, Model, NameAlone, OutputPath


def _check_ending(path: OutputPath) -> OutputPath:
    if not path.endswith((".keras", ".weights.h5")):
        message = "a model is written to a file that ends in .keras, its weights to one that ends in .weights.h5"
        raise PydanticCustomError("kflow", "{text}", {"text": message})
    return path


class SaveModel(StepSpec, kind="save_model", version=1):
    """A model in a file."""

    libraries = ("keras", "tensorflow")

    model: Model
    filepath: Annotated[OutputPath, AfterValidator(_check_ending), NameAlone]
    objects: ObjectsField

    class Outputs(StepOutputs):
        """What others may reference."""

        file: File

    def examine(self, exam: Examination) -> Mapping[str, Fact]:
        """Check the custom objects."""
        check_objects(exam, self.model, self.objects)
        return {}

    def exports(self) -> Mapping[str, str]:
        """Give the file its place."""
        return {"file": self.filepath}

    def run(self, context: StepContext) -> StepOutputs:
        """Write the file."""
        from kflow.artifacts.model import write_model

        path = context.workdir / self.filepath.rpartition("/")[2]
        with keras_session(context, self.objects):
            model: Any = context.open(self.model)
            if path.name.endswith(".keras"):
                write_model(model, path)
            else:
                model.save_weights(path)
        return self.Outputs(file=path)
