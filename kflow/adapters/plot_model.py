"""Draw the layers of a model.

    picture:
      kind: plot_model
      model: ${model}
      to_file: results/model.png      # .png, .svg, .jpg or .dot
      show_shapes: true
      objects: ${layers}

Outputs: ``image``.
"""

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, Literal

from pydantic import Field

from kflow.adapters.session import ObjectsField, check_objects, keras_session
from kflow.spec.base import Examination, StepContext, StepOutputs, StepSpec
from kflow.spec.facts import Fact
from kflow.spec.types import Bool, Image, Model, OutputPath, PositiveInt

_FORMATS = ("png", "svg", "jpg", "jpeg", "pdf", "dot", "gv")


def _cannot_draw(form: str) -> str | None:
    """Say why no program of this machine draws a format."""
    from kflow.core.rendering import find_renderer

    try:
        find_renderer(form)
    except OSError as error:
        return str(error)
    return None


class PlotModel(StepSpec, kind="plot_model", version=1):
    """A picture of a model."""

    libraries = ("keras", "pydot", "graphviz-pure")

    model: Model
    to_file: OutputPath = Field(default=OutputPath("model.png"), description="The picture to write.")
    show_shapes: Bool = Field(default=False, description="Whether to show the shapes.")
    show_layer_names: Bool = Field(default=True, description="Whether to show the names of layers.")
    show_dtype: Bool = Field(default=False, description="Whether to show the types of values.")
    show_params: Bool = Field(default=False, description="Whether to show the numbers of parameters.")
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
        check_objects(exam, self.model, self.objects)
        form = PurePath(self.to_file).suffix.lstrip(".").lower() or "png"
        if form not in _FORMATS:
            exam.problem("a model is drawn as .png, .svg, .jpg, .pdf or .dot", "to_file")
        elif why := _cannot_draw(form):
            able = ", ".join(f".{each}" for each in _FORMATS if not _cannot_draw(each))
            exam.problem(f"{why}; this machine draws {able}", "to_file")
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
                expand_nested=self.expand_nested,
                dpi=self.dpi,
            )
        return self.Outputs(image=path)
