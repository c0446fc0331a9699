"""A training that is interrupted goes on with all that it uses, or from where it can: it ends with the same bits."""

from typing import Any

import numpy as np
import pytest

from kflow.adapters.build_model import BuildModel
from kflow.adapters.checkpoint import NAME, Checkpoint, write_checkpoint
from kflow.adapters.register_objects import RegisterObjects
from kflow.adapters.train import Train

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("train")]

CUSTOM = """
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
NAMES = ["Plain", "Noisy", "NoisyLoss", "Total", "TwoOptimizers", "Weigh", "Freeze", "Flag", "Recompile", "Stop"]


class Trainings:
    """Trainings of one model in one workspace."""

    def __init__(self, bench: Any, **model: Any) -> None:
        self.bench = bench
        (bench.root / "custom.py").write_text(CUSTOM)
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

    def make(layer: str = "Plain", **model: Any) -> Trainings:
        layers = [{"Input": {"shape": [4]}}, {"Dense": {"units": 4}}, {"Dense": {"units": 3}}, layer]
        return Trainings(bench, **(model or {"layers": layers}))

    return make


def interrupted(trainings: Trainings, **fields: Any) -> Any:
    """Interrupt a training at the begin of its fourth epoch, and let it go on."""
    stop = trainings.bench.root / "stop"
    stop.touch()
    with pytest.raises(KeyboardInterrupt):
        trainings.train("stopped", **fields)
    stop.unlink()
    return trainings.train("stopped", **fields)


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        ({"layer": "Noisy"}, {"loss": "NoisyLoss", "metrics": ["Total"], "callbacks": ["Weigh"]}),
        ({"function": "custom.py:build"}, {"steps_per_execution": 2}),
    ],
    ids=["loss, metric and layer", "optimizer"],
)
def test_state_outside_the_model_is_kept(trainings: Any, model: Any, fields: Any) -> None:
    """A loss's, a metric's, that of a layer's module, a second optimizer's, and what a callback sets in each epoch."""
    these = trainings(**model)
    resumed = interrupted(these, **fields)

    assert [each["epochs"] for each in these.told("resumed")] == [3]
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
    write_checkpoint(Checkpoint(**{**values, "epochs": 2, "history": {}, "variables": [np.zeros(3)]}), folder)
    begun_anew = these.train("unfit")

    assert (folder / NAME).exists()
    assert "the training begins anew: its checkpoint has variables" in these.told("note")[0]["text"]
    assert these.told("resumed") == []
    assert begun_anew == these.train("whole")
