"""Load a model from a ``.keras`` file.

    model:
      kind: load_model
      filepath: ${pretrained.file}    # or a path
      objects: ${layers}              # custom names that the file uses

Code inside the file is never run: a file with a lambda in it is refused.

Outputs: ``model``.
"""

from collections.abc import Mapping

from kflow.adapters.session import ObjectsField, keras_session
from kflow.spec.base import Examination, StepContext, StepOutputs, StepSpec
from kflow.spec.calls import custom_names
from kflow.spec.facts import Fact, ModelFact
from kflow.spec.types import FileOrPath, Model


class LoadModel(StepSpec, kind="load_model", version=1):
    """A model from a file."""

    libraries = ("keras", "tensorflow")

    filepath: FileOrPath
    objects: ObjectsField

    class Outputs(StepOutputs):
        """What others may reference."""

        model: Model

    def examine(self, exam: Examination) -> Mapping[str, Fact]:
        """Note the custom objects."""
        return {"model": ModelFact(custom_names(exam, self.objects))}

    def run(self, context: StepContext) -> StepOutputs:
        """Load the file in the scope of its custom objects."""
        from kflow.artifacts.model import read_model

        with keras_session(context, self.objects):
            return self.Outputs(model=read_model(context.path(self.filepath)))
