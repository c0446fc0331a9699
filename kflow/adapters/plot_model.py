"""Draw the layers of a model.

    picture:
      kind: plot_model
      model: ${model}
      to_file: results/model.png      # .png, .svg, .jpg; .mmd (Mermaid), .txt (an outline), .dot
      show_shapes: true
      objects: ${layers}

A .pdf needs the system's graphviz; the others need nothing that kflow does not bring.

Outputs: ``image``.
"""

from collections.abc import Mapping
from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import Field

from kflow.adapters.session import ObjectsField, check_objects, keras_session
from kflow.spec.base import Examination, StepContext, StepOutputs, StepSpec
from kflow.spec.facts import Fact
from kflow.spec.types import Bool, Image, Model, NameAlone, OutputPath, PositiveInt

_FORMATS = ("png", "svg", "jpg", "jpeg", "pdf", "mmd", "txt", "dot", "gv")


class PlotModel(StepSpec, kind="plot_model", version=1):
    """A picture of a model."""

    libraries = ("keras", "pydot", "graphviz-pure")

    model: Model
    to_file: Annotated[OutputPath, NameAlone] = Field(
        default=OutputPath("model.png"), description="The picture to write."
    )
    show_shapes: Bool = Field(default=False, description="Whether to show the shapes.")
    show_layer_names: Bool = Field(default=True, description="Whether to show the names of layers.")
    show_dtype: Bool = Field(default=False, description="Whether to show the types of values.")
    show_params: Bool = Field(default=False, description="Whether to show the numbers of parameters.")
    show_trainable: Bool = Field(default=False, description="Whether to show what training changes.")
    show_layer_activations: Bool = Field(default=False, description="Whether to show the names of activations.")
    expand_nested: Bool = Field(default=False, description="Whether to draw the inside of nested models.")
    rankdir: Literal["TB", "LR", "BT", "RL"] = Field(default="TB", description="The direction.")
    dpi: PositiveInt = Field(default=96, description="Dots per inch.")
    objects: ObjectsField

    class Outputs(StepOutputs):
        """What others may reference."""

        image: Image

    def exports(self) -> Mapping[str, str]:
        """Give the picture its place."""
        return {"image": self.to_file}

    def examine(self, exam: Examination) -> Mapping[str, Fact]:
        """Check the custom objects and the format."""
        from kflow.core.plotting.rendering import extension, find_renderers

        check_objects(exam, self.model, self.objects)
        form = extension(PurePath(self.to_file))
        if form not in _FORMATS:
            exam.problem("a model is drawn as .png, .svg, .jpg, .pdf, .mmd, .txt or .dot", "to_file")
            return {}
        try:
            find_renderers(form)
        except OSError as error:
            exam.problem(str(error), "to_file")
        return {}

    def run(self, context: StepContext) -> StepOutputs:
        """Draw with `kflow.core.plot_model`."""
        from kflow.core.plotting import plot_model

        path = context.workdir / self.to_file.rpartition("/")[2]
        with keras_session(context, self.objects):
            model: Any = context.open(self.model)
            plot_model(
                model,
                str(path),
                show_shapes=self.show_shapes,
                show_layer_names=self.show_layer_names,
                rankdir=self.rankdir,
                show_dtype=self.show_dtype,
                show_params=self.show_params,
                show_trainable=self.show_trainable,
                show_layer_activations=self.show_layer_activations,
                expand_nested=self.expand_nested,
                dpi=self.dpi,
            )
        return self.Outputs(image=path)
