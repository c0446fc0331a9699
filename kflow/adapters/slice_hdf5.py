"""Take a window of rows from an HDF5 data set, scaled if asked for. Nothing is copied.

    x_train:
      kind: slice_hdf5
      datapath: ${digits.file}        # or a path
      dataset: images
      start: 0                        # default 0
      end: 1300                       # default: the end of the data set
      normalizer: {scale: 0.0625}     # value * scale + offset, as float32

The normalizer can be a function of yours instead, ``normalizer: scaling.py:center``: it gets a block of rows and
returns as many; its result is computed once and stored. What it draws with Python's ``random``, ``numpy.random`` or
Keras follows the seed of the workflow.

Outputs: ``array``.
"""

import random
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from kflow.spec.base import Examination, StepContext, StepOutputs, StepSpec
from kflow.spec.facts import ArrayFact, Fact, FileFact
from kflow.spec.types import Array, FileOrPath, Float, Int, Symbol


class Scaling(BaseModel):
    """A linear map from stored values to the numbers that a model sees."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scale: Float = Field(default=1.0, description="Multiplies each value.")
    offset: Float = Field(default=0.0, description="Is added after scaling.")
    dtype: Literal["float16", "float32", "float64"] = Field(default="float32", description="The type of the result.")


class SliceHdf5(StepSpec, kind="slice_hdf5", version=2):
    """A window on an HDF5 data set."""

    datapath: FileOrPath
    dataset: str = Field(min_length=1, description="The name of the data set in the file, such as train/images.")
    start: Int = Field(default=0, ge=0, description="The first row.")
    end: Int | None = Field(default=None, ge=0, description="The row after the last one; default all.")
    normalizer: Scaling | Symbol | None = Field(default=None, description="What is done to the values when read.")

    class Outputs(StepOutputs):
        """What others may reference."""

        array: Array

    def examine(self, exam: Examination) -> Mapping[str, Fact]:
        """Look at the header of the file: is it HDF5, is the data set there, has it enough rows."""
        path = self._path(exam)
        if path is None:
            return {}
        try:
            shape, _ = exam.look.describe_dataset(path, self.dataset)
        except OSError as error:
            exam.problem(str(error), "dataset" if "data set" in str(error) else "datapath")
            return {}
        if not shape or not shape[0]:
            what = "has no rows" if shape else "is a single value; a slice takes rows of an array"
            exam.problem(f"data set {self.dataset!r} {what}", "dataset")
            return {}
        rows = shape[0]
        end = rows if self.end is None else self.end
        if end > rows:
            exam.problem(f"data set {self.dataset!r} has {rows} rows; a slice cannot end at {end}", "end")
        elif self.start > end:
            exam.problem(f"a slice cannot start at row {self.start} and end before row {end}", "start")
        elif self.start == end:
            exam.problem(f"the slice from row {self.start} to row {end} is empty", "start")
        else:
            known: tuple[int | None, ...] = (end - self.start, *shape[1:])
            return {} if isinstance(self.normalizer, Symbol) else {"array": ArrayFact(known)}
        return {}

    def _path(self, exam: Examination) -> str | None:
        fact = exam.fact(self.datapath)
        if isinstance(fact, FileFact):
            return fact.path
        path = None if fact or self.datapath.startswith("${") else exam.look.resolve(self.datapath)
        return str(path) if path and path.is_file() else None

    def run(self, context: StepContext) -> StepOutputs:
        """Describe the window on `kflow.core.HDF5Matrix`, or compute it where a function normalizes."""
        from kflow.artifacts import digest_file
        from kflow.artifacts.array import Rows, Source

        path = context.path(self.datapath)
        source = Source(str(path), digest_file(path), self.dataset, self.start, self.end)
        if isinstance(self.normalizer, Symbol):
            return self.Outputs(array=self._compute(context, source, self.normalizer))
        scale = self.normalizer and {"do": "scale", **self.normalizer.model_dump()}
        rows = Rows.of(source, (scale,) if scale else ())
        # All rows and as many as there are have one digest, so that nothing that hangs on them is done again.
        whole = replace(source, end=source.start + len(rows))
        return self.Outputs(array=replace(rows, source=whole))

    def _compute(self, context: StepContext, source: Any, symbol: Symbol) -> Any:
        import numpy as np

        from kflow.artifacts.modules import imported
        from kflow.core.hdf5 import HDF5Matrix

        _seed(context.seed)
        with imported({symbol.name: (context.root / symbol.module, symbol.name)}) as names:
            _seed(context.seed)  # of the libraries that it has imported as well
            normalizer: Callable[[Any], Any] = names[symbol.name]
            with HDF5Matrix(source.path, source.dataset, source.start, source.end, normalizer) as matrix:
                return np.asarray(matrix[:])


def _seed(seed: int) -> None:
    """Seed whatever draws random numbers and has been imported."""
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(seed)
        return
    import numpy as np

    random.seed(seed)
    np.random.seed(seed)
    if "tensorflow" in sys.modules:
        sys.modules["tensorflow"].random.set_seed(seed)
