"""Draw loss and metrics over the epochs.

    curves:
      kind: plot_history
      history: ${fit.history}
      to_file: results/curves.png     # .png, .svg or .pdf

Outputs: ``image``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from kflow.spec.base import Examination, StepContext, StepOutputs, StepSpec
from kflow.spec.facts import Fact
from kflow.spec.types import History, Image, NameAlone, OutputPath


class PlotHistory(StepSpec, kind="plot_history", version=1):
    """Learning curves."""

    libraries = ("matplotlib",)

    history: History
    to_file: Annotated[OutputPath, NameAlone] = Field(
        default=OutputPath("history.png"), description="The picture to write."
    )
    metrics: tuple[str, ...] | None = Field(default=None, description="The curves to draw; default all.")
    title: str | None = Field(default=None, description="The title of the picture.")

    class Outputs(StepOutputs):
        """What others may reference."""

        image: Image

    def exports(self) -> Mapping[str, str]:
        """Give the picture its place."""
        return {"image": self.to_file}

    def examine(self, exam: Examination) -> Mapping[str, Fact]:
        """Check the format."""
        if not self.to_file.lower().endswith((".png", ".svg", ".pdf")):
            exam.problem("learning curves are drawn as .png, .svg or .pdf", "to_file")
        return {}

    def run(self, context: StepContext) -> StepOutputs:
        """Draw a panel for each metric, training and validation together."""
        curves: dict[str, list[float]] = context.open(self.history)
        names = [name for name in curves if not name.startswith("val_")]
        if self.metrics is not None:
            missing = [name for name in self.metrics if name not in curves]
            if missing:
                message = f"the history has no {', '.join(missing)}; it has {', '.join(curves)}"
                raise ValueError(message)
            names = list(self.metrics)
        path = context.workdir / self.to_file.rpartition("/")[2]
        draw_curves(curves, names, path, self.title)
        return self.Outputs(image=path)


def draw_curves(curves: Mapping[str, list[float]], names: list[str], path: Path, title: str | None) -> None:
    """Write a picture with a panel for each name; the same curves give the same bytes."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    # Names inside an SVG come from a salt instead of chance.
    with mpl.rc_context({"svg.hashsalt": "kflow"}):
        figure = Figure(figsize=(5 * max(1, len(names)), 3.6), layout="constrained")
        for index, name in enumerate(names):
            axes = figure.add_subplot(1, len(names), index + 1)
            for label, curve in ((name, "training"), (f"val_{name}", "validation")):
                if label in curves:
                    axes.plot(range(1, len(curves[label]) + 1), curves[label], marker=".", label=curve)
            axes.set(xlabel="epoch", ylabel=name)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.grid(alpha=0.3)
            axes.legend()
        if title:
            figure.suptitle(title)
        figure.savefig(path, metadata=_no_date(path))


def _no_date(path: Path) -> dict[str, Any]:
    return {".png": {"Software": None}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}[path.suffix.lower()]
