"""A training that is interrupted goes on with all that it uses, or from where it can: it ends with the same bits."""

import gc
import warnings
from typing import Any

import numpy as np
import pytest

from kflow.adapters.build_model import BuildModel
from kflow.adapters.checkpoint import NAME, Checkpoint, write_checkpoint
from kflow.adapters.register_objects import RegisterObjects
from kflow.adapters.train import Train
from kflow.errors import RunError

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("train")]

CUSTOM = """
import random
from pathlib import Path
import keras, tensorflow as tf

G = keras.random.SeedGenerator(11)
WEIGHT = keras.Variable(1.0)

class Plain(keras.layers.Layer):
    def call(self, x):
        return x

class Noisy(Plain):
    def call(self, x, training=False):
        return x + keras.random.normal(keras.ops.shape(x), seed=G) if training else x

class NoisyLoss(keras.losses.Loss):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seed = keras.random.SeedGenerator(5)

    def call(self, y, p):
        return WEIGHT * keras.ops.mean((y + keras.random.normal(keras.ops.shape(y), seed=self.seed) - p) ** 2, -1)

class Total(keras.metrics.Metric):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.total = self.add_variable((), "zeros", name="total")

    def update_state(self, y, p, sample_weight=None):
        self.total.assign_add(1.0)

    def result(self):
        return self.total.value

    def reset_state(self):
        pass

class TwoOptimizers(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.body, self.head = keras.layers.Dense(4, activation="relu"), keras.layers.Dense(3)
        self.head_optimizer = keras.optimizers.Adam(0.01)

    def build(self, shape):
        self.body.build(shape)
        self.head.build((None, 4))
        self.built = True

    def call(self, x):
        return self.head(self.body(x))

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            answers = self(x)
            loss = self.compute_loss(y=y, y_pred=answers)
        weights = self.trainable_variables
        grads = tape.gradient(loss, weights)
        self.optimizer.apply_gradients(zip(grads[:2], weights[:2]))
        self.head_optimizer.apply_gradients(zip(grads[2:], weights[2:]))
        return {"loss": loss, **self.compute_metrics(x, y, answers)}

def build():
    model = TwoOptimizers()
    model.build((None, 4))
    return model

class Probe(keras.Model):  # its head is built by the first step
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.body = keras.layers.Dense(3)
        self.head = keras.Sequential([keras.layers.Dense(16), keras.layers.Dropout(0.5), keras.layers.Dense(3)])

    def build(self, shape):
        self.body.build(shape)
        self.built = True

    def call(self, x):
        return self.body(x)

    def answer(self, x):
        return self(x) + self.head(x, training=True)

    def trained(self):
        return self.trainable_variables

    def train_step(self, data):
        x, y = data
        random.random()  # whoever makes the function once more shifts what others draw
        with tf.GradientTape() as tape:
            loss = self.compute_loss(y=y, y_pred=self.answer(x))
        self.optimizer.apply_gradients(zip(tape.gradient(loss, self.trained()), self.trained()))
        return {"loss": loss}

class Part(Probe):  # it trains a part of its weights
    def trained(self):
        return self.head.trainable_variables

class Eager(Probe):  # TensorFlow has no function of it
    def build(self, shape):
        super().build(shape)
        self.head.build(shape)

    def make_train_function(self, force=False):
        self.train_function = lambda iterator: self.train_step(iterator.get_next())

class Momentum(keras.optimizers.Optimizer):  # as Keras's manual has it: it does not ask whether it is built
    def build(self, variables):
        super().build(variables)
        self.momentums = [self.add_variable_from_reference(each, name="momentum") for each in variables]

    def update_step(self, gradient, variable, learning_rate):
        momentum = self.momentums[self._get_variable_index(variable)]
        self.assign(momentum, 0.9 * momentum - learning_rate * gradient)
        self.assign_add(variable, momentum)

class Unseeded(Plain):
    def call(self, x, training=False):
        return x + keras.random.normal(keras.ops.shape(x)) if training else x

def build_probe():
    return built(Probe())

def build_part():
    return built(Part())

def build_eager():
    return built(Eager())

def built(model):
    model.build((None, 4))
    return model

class Draw(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        self.model.optimizer.learning_rate.assign(0.01 * random.random())

class Late(keras.callbacks.Callback):
    def on_train_end(self, logs=None):
        self.best = logs["loss"]
        if Path("late").exists():
            raise KeyboardInterrupt

class Weigh(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        WEIGHT.assign(1.0 + epoch)

class Freeze(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            self.model.layers[0].trainable = False
            self.model.make_train_function(force=True)

class Flag(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            self.model.layers[0].trainable = False

class Recompile(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            self.model.compile(optimizer=keras.optimizers.Adam(0.01), loss="mae")
            self.model.make_train_function(force=True)

class Stop(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 3 and Path("stop").exists():
            raise KeyboardInterrupt
"""
LAYERS = ("Plain", "Noisy", "Unseeded", "TwoOptimizers", "Probe", "Part", "Eager")
CALLBACKS = ("Weigh", "Draw", "Freeze", "Flag", "Recompile", "Late", "Stop")
NAMES = (*LAYERS, *CALLBACKS, "NoisyLoss", "Total", "Momentum")


class Trainings:
    """Trainings of one model in one workspace."""

    def __init__(self, bench: Any, code: str = "", **model: Any) -> None:
        self.bench = bench
        (bench.root / "custom.py").write_text(CUSTOM + code)
        objects = bench.run(RegisterObjects, objects={name: f"custom.py:{name}" for name in NAMES}).stored("objects")
        built = bench.run(BuildModel, {"${c}": objects}, objects="${c}", **model).stored("model")
        x = np.random.default_rng(0).normal(size=(40, 4)).astype("float32")
        self.given = {"${c}": objects, "${m}": built, "${x}": ("array", x), "${y}": ("array", x[:, :3])}

    def train(self, name: str, **fields: Any) -> tuple[bytes, dict[str, list[float]]]:
        """Train to the end, with checkpoints in a folder of a name; give the bytes of the model and the history."""
        self.bench.checkpoints = self.bench.root / name
        self.bench.checkpoints.mkdir(exist_ok=True)
        fields = {"loss": "mse", "optimizer": "sgd", "epochs": 5, "batch_size": 16, "checkpoint": {"every": 1}} | fields
        fields["callbacks"] = [*fields.get("callbacks", ()), "Stop"]
        trained = self.bench.run(Train, self.given, model="${m}", x="${x}", y="${y}", objects="${c}", **fields)
        history = {curve: list(values) for curve, values in trained["history"].items()}
        return (trained.stored("model").folder / "model.keras").read_bytes(), history

    def told(self, event: str) -> list[Any]:
        """Give what was reported."""
        return [each for each in self.bench.events if each["event"] == event]


@pytest.fixture
def trainings(bench: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that makes trainings of a model."""
    monkeypatch.chdir(bench.root)

    def make(*more: Any, code: str = "", **model: Any) -> Trainings:
        layers = [{"Input": {"shape": [4]}}, {"Dense": {"units": 4}}, {"Dense": {"units": 3}}, *more]
        return Trainings(bench, code, **(model or {"layers": layers}))

    return make


def interrupted(trainings: Trainings, plug: str = "stop", **fields: Any) -> Any:
    """Interrupt a training at the begin of its fourth epoch, or where another plug does, and let it go on."""
    stop = trainings.bench.root / plug
    stop.touch()
    with pytest.raises(KeyboardInterrupt):
        trainings.train("stopped", **fields)
    stop.unlink()
    return trainings.train("stopped", **fields)


@pytest.mark.parametrize(
    ("layers", "model", "fields"),
    [
        (["Noisy"], {}, {"loss": "NoisyLoss", "metrics": ["Total"], "callbacks": ["Weigh"]}),
        ([], {"function": "custom.py:build"}, {"steps_per_execution": 2}),
    ],
    ids=["loss, metric and layer", "optimizer"],
)
def test_state_outside_the_model_is_kept(trainings: Any, layers: Any, model: Any, fields: Any) -> None:
    """A loss's, a metric's, that of a layer's module, a second optimizer's, and what a callback sets in each epoch."""
    these = trainings(*layers, **model)
    resumed = interrupted(these, **fields)

    assert [each["epochs"] for each in these.told("resumed")] == [3]
    assert resumed == these.train("whole", **fields)


MIXED = "keras.config.set_dtype_policy('mixed_float16')"
RANDOM: list[Any] = ["BatchNormalization", {"GaussianNoise": {"stddev": 0.1}}, {"Dropout": {"rate": 0.3}}]


@pytest.mark.parametrize(
    ("layers", "model", "fields"),
    [
        (RANDOM, {}, {"optimizer": "adam", "validation_split": 0.25, "metrics": ["mae"]}),
        (["Unseeded"], {}, {"callbacks": ["Draw"]}),
        ([], {"code": MIXED}, {"optimizer": "adam"}),
        ([], {}, {"optimizer": {"Momentum": {"learning_rate": 0.01}}}),
        ([], {"function": "custom.py:build_probe"}, {"optimizer": "adam", "callbacks": ["Draw"]}),
        ([], {"function": "custom.py:build_part"}, {"optimizer": "adam", "steps_per_execution": 2}),
        ([], {"function": "custom.py:build_eager"}, {"optimizer": "adam"}),
    ],
    ids=["layers", "no seed", "float16", "own optimizer", "own step", "step for a part", "eager step"],
)
def test_checkpoints_change_nothing(trainings: Any, layers: Any, model: Any, fields: Any) -> None:
    """Neither whether a training succeeds, nor its bits, nor do these hang on whether it was interrupted."""
    these = trainings(*layers, **model)
    without = these.train("without", checkpoint=False, **fields)
    resumed = interrupted(these, **fields)

    assert these.train("whole", **fields) == without
    assert resumed == without
    assert [each["epochs"] for each in these.told("resumed")] == [3]
    assert these.told("note") == []


@pytest.mark.parametrize("plug", ["late", "stop"])
def test_a_training_that_stops_early_goes_on_before_its_last_epoch(trainings: Any, plug: str) -> None:
    """So that there is an epoch for callbacks to look at, wherever in the last one or after it was interrupted."""
    these = trainings()
    fields = {"callbacks": [{"EarlyStopping": {"monitor": "loss", "patience": 3, "min_delta": 1e9}}, "Late"]}
    resumed = interrupted(these, plug, **fields)

    assert [each["epochs"] for each in these.told("resumed")] == [3]
    assert len(resumed[1]["loss"]) == 4
    assert resumed == these.train("whole", **fields)


@pytest.mark.parametrize("callback", ["Freeze", "Flag", "Recompile"])
def test_what_a_callback_makes_anew_is_made_anew_again(trainings: Any, callback: str) -> None:
    """No checkpoint is made after it, and that is told once: the training goes on from the epoch before."""
    these = trainings()
    resumed = interrupted(these, callbacks=[callback])

    notes = [each["text"] for each in these.told("note")]
    assert [each["epochs"] for each in these.told("resumed")] == [2]
    assert ["no checkpoint after epoch 3" in note for note in notes] == [True, True]
    assert resumed == these.train("whole", callbacks=[callback])


def test_a_checkpoint_that_does_not_fit_is_none(trainings: Any) -> None:
    """It is put aside, with a word, and the training begins anew."""
    these = trainings()
    folder = these.bench.root / "unfit"
    folder.mkdir()
    values: Any = {name: [] for name in Checkpoint.__slots__}
    write_checkpoint(
        Checkpoint(**{**values, "epochs": 2, "history": {}, "batch": None, "variables": [np.zeros(3)]}), folder
    )
    begun_anew = these.train("unfit")

    assert (folder / NAME).exists()
    assert "the training begins anew: its checkpoint has variables" in these.told("note")[0]["text"]
    assert these.told("resumed") == []
    assert begun_anew == these.train("whole")


@pytest.mark.parametrize("what", ["damaged", "a folder"])
def test_a_checkpoint_that_is_damaged_is_told(trainings: Any, what: str) -> None:
    """Nobody is to wonder why a week of work begins anew."""
    these = trainings()
    place = these.bench.root / "damaged" / NAME
    place.parent.mkdir()
    place.mkdir() if what == "a folder" else place.write_bytes(b"PK" * 100)
    begun_anew = these.train("damaged")

    assert place.is_file()
    assert [each["text"] for each in these.told("note")] == ["the training begins anew: its checkpoint is damaged"]
    assert begun_anew == these.train("whole")


@pytest.mark.parametrize("callbacks", [[], [{"CSVLogger": {"filename": "log.csv", "append": True}}]])
def test_no_checkpoint_is_made_of_inputs_that_are_not_what_they_were(trainings: Any, callbacks: Any) -> None:
    """Not even one before the first epoch: the model that it began with may have been another."""
    these = trainings()
    these.bench.require_inputs = _refuse
    with pytest.raises(RunError, match="was changed"):
        these.train("refused", callbacks=callbacks)
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        gc.collect()  # what a training is stopped in the middle of leaves its log open

    assert list((these.bench.root / "refused").iterdir()) == []


def _refuse() -> None:
    message = "what it was given was changed"
    raise RunError(message)
