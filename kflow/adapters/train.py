"""Compile and fit a model.

    fit:
      kind: train
      model: ${model}
      x: ${x_train}
      y: ${y_train}
      validation_data: {x: "${x_val}", y: "${y_val}"} # or validation_split: 0.1
      optimizer: {Adam: {learning_rate: 1e-3}}        # or just: adam
      loss: categorical_crossentropy
      metrics: [accuracy]
      epochs: 12
      batch_size: 64
      callbacks:
        - EarlyStopping: {monitor: val_loss, patience: 3, restore_best_weights: true}
      objects: ${layers}
      gpus: 0                                         # a number, or all

The rows are shuffled anew in each epoch, in an order that follows from the seed of the workflow. With two GPUs or
more each batch is divided among them, and the results are those of one, up to the rounding of float32; only dropout
draws other masks (`kflow.core.multi_gpu_model`). A batch needs a row for each GPU, and pays with many. A model with
several inputs takes a list, or a mapping by input name, for ``x``; likewise ``y``.

A CPU gives the same bits again. A GPU does with ``deterministic: true``: TensorFlow then computes in an order that is
always the same, which is slower, and fails in an operation that has none.

Outputs: ``model`` (trained), ``history``.
"""

import sys
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from kflow.adapters.checkpoint import UnfitError, checkpoint_callback, discard_checkpoint
from kflow.adapters.feeding import Arrays, check_rows, open_arrays
from kflow.adapters.measures import by_number, curves_by_number
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
from kflow.spec.calls import Call, Callback, Loss, Metric, Optimizer, check_call, custom_names
from kflow.spec.facts import ArrayFact, Fact, ModelFact
from kflow.spec.types import Array, Bool, Float, Fraction, Gpus, History, Model, PositiveInt

_ONE_HOT_LOSSES = {"categorical_crossentropy", "CategoricalCrossentropy", "categorical_hinge", "CategoricalHinge"}
_SPARSE_LOSSES = {"sparse_categorical_crossentropy", "SparseCategoricalCrossentropy"}

CallOrMany = Call | tuple[Call, ...] | dict[str, Call]


class ValidationData(BaseModel):
    """The arrays to measure on after each epoch."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    x: Arrays = Field(description="The inputs.")
    y: Arrays = Field(description="The targets.")
    sample_weight: Array | None = Field(default=None, description="A weight for each row.")


class CheckpointPolicy(BaseModel):
    """How often a training writes down how far it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    every: PositiveInt | None = Field(
        default=None, description="Epochs between two checkpoints; default as many as pass in a minute."
    )


class Train(StepSpec, kind="train", version=2):
    """A trained model."""

    libraries = ("keras", "tensorflow", "numpy")
    is_random = True

    model: Model
    x: Arrays = Field(description="The inputs.")
    y: Arrays = Field(description="The targets.")
    sample_weight: Array | None = Field(default=None, description="A weight for each row.")
    validation_data: ValidationData | None = Field(default=None, description="Measured on after each epoch.")
    validation_split: Fraction | None = Field(default=None, description="The last part of x and y to hold out.")
    optimizer: Optimizer = Field(default=Call("rmsprop"), description="A name, or a class with its arguments.")
    loss: Loss | dict[str, Loss] = Field(description="A name, a class with its arguments, or one for each output.")
    loss_weights: dict[str, Float] | tuple[Float, ...] | None = Field(default=None, description="One for each output.")
    metrics: tuple[Metric, ...] | dict[str, tuple[Metric, ...]] = Field(default=(), description="What to measure.")
    weighted_metrics: tuple[Metric, ...] = Field(default=(), description="What to measure with sample weights.")
    epochs: PositiveInt = Field(default=1, description="How often to go through all rows.")
    batch_size: PositiveInt = Field(default=32, description="The rows in a batch.")
    shuffle: Bool | Literal["batch"] = Field(
        default=True, description="Whether to shuffle the rows anew in each epoch; 'batch' shuffles whole batches."
    )
    class_weight: dict[str, Float] | None = Field(
        default=None, description="A weight for each class, such as '0': 2.0."
    )
    callbacks: tuple[Callback, ...] = Field(default=(), description="Callbacks of Keras, or custom ones.")
    steps_per_execution: PositiveInt = Field(default=1, description="Batches in one call of the compiled step.")
    jit_compile: Bool | Literal["auto"] = Field(default="auto", description="Whether to compile with XLA.")
    checkpoint: Annotated[CheckpointPolicy | Bool, NotFingerprinted()] = Field(
        default=CheckpointPolicy(), description="When to write down how far the training is, so that it can go on."
    )
    objects: ObjectsField
    gpus: Annotated[Gpus, NotFingerprinted()] = Field(default=0, description="How many GPUs to use: a number, or all.")
    deterministic: DeterministicField

    class Outputs(StepOutputs):
        """What others may reference."""

        model: Model
        history: History

    announces = ("model",)

    # --- before anything runs --------------------------------------------------------------------------

    def gpus_wanted(self) -> int | str:
        """Return the number of GPUs, or 'all'."""
        return self.gpus

    def examine(self, exam: Examination) -> Mapping[str, Fact]:
        """Check names, numbers of rows, shapes and GPUs."""
        fact = check_objects(exam, self.model, self.objects)
        self._check_names(exam)
        check_rows(exam, x=self.x, y=self.y, sample_weight=self.sample_weight)
        if self.validation_data:
            check_rows(exam, validation_x=self.validation_data.x, validation_y=self.validation_data.y)
            if self.validation_split:
                exam.problem("give validation_data or validation_split, not both", "validation_split")
        self._check_class_weight(exam)
        check_gpus(exam, self.gpus, self.batch_size)
        if fact:
            self._check_shapes(exam, fact)
        shape, out = (fact.input_shape, fact.output_shape) if fact else (None, None)
        objects = self._names_in_model(exam, fact)
        return {"model": ModelFact(objects, shape, out, self._metric_names(), is_compiled=True)}

    def _names_in_model(self, exam: Examination, model: ModelFact | None) -> tuple[str, ...]:
        """Return the custom names that the trained model may need: all but those that only callbacks use."""
        compiled = (self.optimizer, self.loss, self.metrics, self.weighted_metrics)
        kept = {*(model.objects if model else ()), *_words(compiled)}
        left_out = set(_words(self.callbacks)) - kept
        return tuple(name for name in custom_names(exam, self.objects) if name not in left_out)

    def _check_names(self, exam: Examination) -> None:
        custom = custom_names(exam, self.objects)
        if not all(exam.fact(each) for each in as_tuple(self.objects)):
            return
        check_call(exam, self.optimizer, "optimizers", custom, "optimizer")
        for path, call in _each_call(self.loss, "loss"):
            check_call(exam, call, "losses", custom, *path)
        for path, call in (
            *_each_call(self.metrics, "metrics"),
            *_each_call(self.weighted_metrics, "weighted_metrics"),
        ):
            check_call(exam, call, "metrics", custom, *path)
        for path, call in _each_call(self.callbacks, "callbacks"):
            check_call(exam, call, "callbacks", custom, *path)
            if call.name == "BackupAndRestore" and call.name not in custom:
                exam.problem(
                    "BackupAndRestore would start from what another try left; 'checkpoint' resumes here", *path
                )

    def _check_class_weight(self, exam: Examination) -> None:
        for name in self.class_weight or {}:
            if not name.isdecimal():
                exam.problem(f"a class is a whole number in quotes, such as '0', not {name!r}", "class_weight", name)

    def _check_shapes(self, exam: Examination, model: ModelFact) -> None:
        x, y = (exam.fact(each) if isinstance(each, Array) else None for each in (self.x, self.y))
        if isinstance(x, ArrayFact) and model.input_shape and not _fits(x.shape[1:], model.input_shape):
            message = f"the model takes rows of shape {_shape(model.input_shape)}, x has {_shape(x.shape[1:])}"
            exam.problem(message, "x")
        if not isinstance(y, ArrayFact) or not isinstance(self.loss, Call) or model.output_shape is None:
            return
        out = model.output_shape
        if self.loss.name in _ONE_HOT_LOSSES and not _fits(y.shape[1:], out):
            given = _shape(y.shape[1:]) if len(y.shape) > 1 else "class numbers (encode them with encode_labels)"
            exam.problem(f"the last layer gives rows of shape {_shape(out)}, y has {given}", "y")
        elif self.loss.name in _SPARSE_LOSSES and y.is_one_hot:
            exam.problem(f"{self.loss.name} takes class numbers; y is one-hot (use categorical_crossentropy)", "loss")

    def _metric_names(self) -> tuple[str, ...] | None:
        """Return the names in the results, when they can be told from the text."""
        calls = (*self.metrics, *self.weighted_metrics) if isinstance(self.metrics, tuple) else None
        if calls is None or not isinstance(self.loss, Call):
            return None
        names = [str(call.name if call.is_bare else call.arguments.get("name", "")) for call in calls]
        # A class without a name of its own gets one from Keras, which is not known here.
        return ("loss", *names) if all(name.islower() for name in names) else None

    # --- the work --------------------------------------------------------------------------------------

    def run(self, context: StepContext) -> StepOutputs:
        """Compile, fit, and give back the model with its history."""
        try:
            return self._train(context)
        except UnfitError as error:
            assert context.checkpoints is not None, "there was a checkpoint"
            discard_checkpoint(context.checkpoints)
            _warn(context, f"the training begins anew: {error}")
            return self._train(context)

    def _train(self, context: StepContext) -> StepOutputs:
        import keras

        with keras_session(context, self.objects, is_deterministic=self.deterministic) as custom:
            model: Any = context.open(self.model)
            trained = divide(model, context.gpus)
            self._compile(trained, custom)
            x, y, sample_weight = (open_arrays(context, part) for part in (self.x, self.y, self.sample_weight))
            self._check_labels(context, model, x)
            callbacks = self._callbacks(custom)
            history = keras.callbacks.History()
            resume = self._resume(context, trained, callbacks, history)
            trained.fit(
                x,
                y,
                sample_weight=sample_weight,
                validation_data=self._validation(context),
                validation_split=self.validation_split or 0.0,
                initial_epoch=resume.epochs if resume else 0,
                epochs=self.epochs,
                batch_size=self.batch_size,
                class_weight={int(name): weight for name, weight in (self.class_weight or {}).items()} or None,
                callbacks=[
                    *callbacks,
                    history,
                    *([resume] if resume else []),
                    progress_callback(context, self.epochs),
                ],
                shuffle=self.shuffle,
                verbose=0,
            )
            if trained is not model:
                self._compile(model, custom)
                _hand_on_optimizer(trained, model)
            return self.Outputs(model=model, history=curves_by_number(history.history))

    def _resume(self, context: StepContext, model: Any, callbacks: list[Any], history: Any) -> Any:
        """Return the callback that goes on where an interrupted training was; None if there is to be none."""
        if self.checkpoint is False or context.checkpoints is None:
            return None
        every = self.checkpoint.every if isinstance(self.checkpoint, CheckpointPolicy) else None
        return checkpoint_callback(
            model,
            callbacks,
            history,
            context.checkpoints,
            every=every,
            require=context.require_inputs,
            resumed=lambda epochs: context.report({"event": "resumed", "epochs": epochs}) if epochs else None,
            warn=lambda text: _warn(context, text),
        )

    def _compile(self, model: Any, custom: Mapping[str, Any]) -> None:
        import keras

        def make(nest: Any, family: Any) -> Any:
            if isinstance(nest, Call):
                return construct(nest, family, custom)
            if isinstance(nest, dict):
                return {name: make(item, family) for name, item in nest.items()}
            return [make(item, family) for item in nest]

        model.compile(
            optimizer=make(self.optimizer, keras.optimizers),
            loss=make(self.loss, keras.losses),
            loss_weights=list(self.loss_weights) if isinstance(self.loss_weights, tuple) else self.loss_weights,
            metrics=make(self.metrics, keras.metrics) or None,  # a model's own train_step may compute none
            weighted_metrics=make(self.weighted_metrics, keras.metrics) or None,
            steps_per_execution=self.steps_per_execution,
            jit_compile=self.jit_compile,
        )

    def _check_labels(self, context: StepContext, model: Any, x: Any) -> None:
        """Compare class numbers with the last layer: TensorFlow says it badly on a CPU, and not at all on a GPU."""
        if not (isinstance(self.loss, Call) and self.loss.name in _SPARSE_LOSSES and isinstance(self.y, Array)):
            return
        classes = _count_classes(model, x)
        if classes is None:
            return
        for start, block in context.open(self.y).blocks():
            wrong = (block < 0) | (block >= classes)
            if wrong.any():
                row = int(wrong.reshape(len(block), -1).any(axis=1).argmax())
                value = block[row].ravel()[0]
                message = f"y has the label {value} in row {start + row}; the last layer has {classes} classes, from 0"
                raise ValueError(message)

    def _callbacks(self, custom: Mapping[str, Any]) -> list[Any]:
        import keras

        made = [construct(call, keras.callbacks, custom) for call in self.callbacks]
        return [callback() if isinstance(callback, type) else callback for callback in made]

    def _validation(self, context: StepContext) -> tuple[Any, ...] | None:
        """Open the arrays to measure on after each epoch."""
        data = self.validation_data
        if data is None:
            return None
        return tuple(open_arrays(context, part) for part in (data.x, data.y, data.sample_weight))


def _warn(context: StepContext, text: str) -> None:
    """Say a sentence in the log of the step and on the screen."""
    sys.stderr.write(f"warning: {text}\n")
    context.report({"event": "note", "text": text})


def _hand_on_optimizer(trained: Any, model: Any) -> None:
    """Give the model the state of the optimizer that trained its weights."""
    if trained.optimizer.built and not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    for own, learned in zip(model.optimizer.variables, trained.optimizer.variables, strict=True):
        own.assign(learned)


def _count_classes(model: Any, x: Any) -> int | None:
    """Return the length of the last axis of what a model gives for x; None for one with several outputs."""
    import keras

    if hasattr(model, "output_shape"):
        shape = model.output_shape
    else:  # a subclass of Keras's Model only knows when it is given something
        given = keras.tree.map_structure(lambda array: keras.KerasTensor((None, *array.shape[1:]), array.dtype), x)
        shape = getattr(model.compute_output_spec(given), "shape", None)
    return shape[-1] if isinstance(shape, tuple) and isinstance(shape[-1], int) else None


def _each_call(nest: Any, *path: str | int) -> list[tuple[tuple[str | int, ...], Call]]:
    if isinstance(nest, Call):
        return [(path, nest)]
    items = nest.items() if isinstance(nest, Mapping) else enumerate(nest)
    return [found for key, item in items for found in _each_call(item, *path, key)]


def _words(nest: Any) -> Iterator[str]:
    """Give all names and texts in calls and their arguments."""
    if isinstance(nest, str):
        yield nest
    elif isinstance(nest, Call):
        yield nest.name
        yield from _words(nest.arguments)
    elif isinstance(nest, Mapping):
        yield from nest
        yield from _words(list(nest.values()))
    elif isinstance(nest, list | tuple):
        for each in nest:
            yield from _words(each)


def _fits(shape: tuple[int | None, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(
        a is None or b is None or a == b for a, b in zip(shape, wanted, strict=True)
    )


def _shape(shape: tuple[int | None, ...]) -> str:
    return "(" + ", ".join("?" if n is None else str(n) for n in shape) + ("," if len(shape) == 1 else "") + ")"


def progress_callback(context: StepContext, epochs: int) -> Any:
    """Make a Keras callback that reports each epoch, and each tenth of a second between."""
    import time

    import keras

    class Progress(keras.callbacks.Callback):  # type: ignore[misc]  # Keras ships no types
        """Tells the runner how far the training is."""

        last = 0.0

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            del logs
            self.epoch = epoch

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            now = time.monotonic()
            if now - self.last >= 0.1:
                self.last = now
                self._report("batch", batch + 1, logs)

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            del epoch
            self._report("epoch", self.params["steps"], logs)

        def _report(self, event: str, batch: int, logs: Any) -> None:
            context.report(
                {
                    "event": event,
                    "epoch": self.epoch + 1,
                    "epochs": epochs,
                    "batch": batch,
                    "batches": self.params["steps"],
                    "metrics": by_number(logs or {}),
                }
            )

    return Progress()
