"""Measure a model on arrays, and say what is expected of it.

    test:
      kind: evaluate
      model: ${fit.model}
      x: ${x_test}
      y: ${y_test}
      expect:
        accuracy: {min: 0.95}         # the run fails when it is missed
      objects: ${layers}

A trained model brings its loss and metrics along; ``loss`` and ``metrics`` here replace them.

Outputs: ``metrics``.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from kflow.adapters.feeding import Arrays, check_rows, open_arrays
from kflow.adapters.measures import by_number
from kflow.adapters.session import (
    DeterministicField,
    ObjectsField,
    as_tuple,
    check_gpus,
    check_objects,
    construct,
    divide,
    keras_session,
)
from kflow.spec.base import Examination, NotFingerprinted, StepContext, StepOutputs, StepSpec
from kflow.spec.calls import Loss, Metric, check_call, custom_names
from kflow.spec.facts import Fact
from kflow.spec.types import Array, Bound, Gpus, Metrics, Model, PositiveInt


class Evaluate(StepSpec, kind="evaluate", version=1):
    """Metrics of a model."""

    libraries = ("keras", "tensorflow", "numpy")
    is_random = True  # a layer may draw random numbers when it is asked, as that of a Monte Carlo dropout

    model: Model
    x: Arrays = Field(description="The inputs.")
    y: Arrays = Field(description="The targets.")
    sample_weight: Array | None = Field(default=None, description="A weight for each row.")
    loss: Loss | None = Field(default=None, description="Replaces the loss of the model.")
    metrics: tuple[Metric, ...] | None = Field(default=None, description="Replaces the metrics of the model.")
    batch_size: PositiveInt = Field(default=32, description="The rows in a batch.")
    expect: dict[str, Bound] = Field(
        default_factory=dict,
        description="Bounds by metric; the run fails when one is missed. Of a metric that gives several numbers, such "
        "as one for each class, each has a name: f1_score[0].",
    )
    objects: ObjectsField
    gpus: Annotated[Gpus, NotFingerprinted()] = Field(default=0, description="How many GPUs to use: a number, or all.")
    deterministic: DeterministicField

    class Outputs(StepOutputs):
        """What others may reference."""

        metrics: Metrics

    def gpus_wanted(self) -> int | str:
        """Return the number of GPUs, or 'all'."""
        return self.gpus

    def examine(self, exam: Examination) -> Mapping[str, Fact]:
        """Check names and numbers of rows."""
        fact = check_objects(exam, self.model, self.objects)
        check_rows(exam, x=self.x, y=self.y, sample_weight=self.sample_weight)
        check_gpus(exam, self.gpus, self.batch_size)
        self._check_names(exam)
        if fact and fact.is_compiled is False and self.loss is None:
            exam.problem("the model has not been trained, so it has no loss; give one with 'loss:'", "model")
        known = fact.metrics if fact and self.metrics is None and self.loss is None else None
        for name in self.expect:
            if known is not None and name.partition("[")[0] not in known:  # which numbers it has, the data tell
                exam.misspelt(f"the model reports no metric {name!r}", name, known, "expect", name)
        return {}

    def _check_names(self, exam: Examination) -> None:
        custom = custom_names(exam, self.objects)
        if not all(exam.fact(each) for each in as_tuple(self.objects)):
            return
        if self.loss:
            check_call(exam, self.loss, "losses", custom, "loss")
        for index, metric in enumerate(self.metrics or ()):
            check_call(exam, metric, "metrics", custom, "metrics", index)

    def run(self, context: StepContext) -> StepOutputs:
        """Evaluate, and compare with what is expected."""
        with keras_session(context, self.objects, is_deterministic=self.deterministic) as custom:
            model: Any = context.open(self.model)
            self._compile(model, custom)
            x, y, weight = (open_arrays(context, part) for part in (self.x, self.y, self.sample_weight))
            measured = divide(model, context.gpus).evaluate(
                x, y, sample_weight=weight, batch_size=self.batch_size, return_dict=True, verbose=0
            )
        metrics = by_number(measured)
        self._compare(metrics)
        return self.Outputs(metrics=metrics)

    def _compile(self, model: Any, custom: Mapping[str, Any]) -> None:
        import keras

        if self.loss is None and self.metrics is None:
            if not model.compiled:
                message = "the model has no loss; give one with 'loss:'"
                raise ValueError(message)
            return
        loss = construct(self.loss, keras.losses, custom) if self.loss else model.loss
        metrics = [construct(call, keras.metrics, custom) for call in self.metrics or ()]
        model.compile(loss=loss, metrics=metrics)

    def _compare(self, metrics: Mapping[str, float]) -> None:
        misses = []
        for name, bound in self.expect.items():
            if name not in metrics:
                message = f"the model reports no metric {name!r}; it reports {', '.join(metrics)}"
                raise ValueError(message)
            miss = bound.describe_miss(metrics[name])
            if miss:
                misses.append(f"{name}: {miss}")
        if misses:
            measured = ", ".join(f"{name} {value:.6g}" for name, value in metrics.items())
            raise ExpectationError(f"{'; '.join(misses)} (measured: {measured})")


class ExpectationError(AssertionError):
    """A metric misses what the workflow expects of it."""
