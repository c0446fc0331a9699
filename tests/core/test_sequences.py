import importlib.util
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from keras.src.backend.tensorflow import trainer

import kflow.core
from kflow.core import sequences
from kflow.core.sequences import Sequence


class Epochs(Sequence):
    """Batches that tell their epoch and index, and a log of what is asked of them, in order."""

    def __init__(self, length):  # no super().__init__(), on purpose
        self.length = length
        self.epoch = 0
        self.log = []

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        self.log.append(index)
        return np.full((2, 3), 10 * self.epoch + index, "float32"), np.zeros((2, 1), "float32")

    def on_epoch_begin(self):
        """Note it."""
        self.log.append("begin")

    def on_epoch_end(self):
        """Note it, and go on to the next epoch."""
        self.log.append("end")
        self.epoch += 1

    def expected_log(self, epochs, shuffled=False):
        """What the contract says: the probe for shapes, then begin, all batches and end per epoch."""
        epoch = ["begin", *(["any"] * self.length if shuffled else range(self.length)), "end"]
        return [*range(min(2, self.length)), *(epoch * epochs)]

    def shuffled_log(self):
        """The log with the indices of all batches but the probe hidden."""
        probe = min(2, self.length)
        return self.log[:probe] + ["any" if isinstance(entry, int) else entry for entry in self.log[probe:]]


class Recorder(keras.Model):
    """A model that keeps what it is trained and tested on, and learns nothing."""

    trained, tested = (), ()

    def call(self, x):
        """Return the first column."""
        return x[:, :1]

    def train_step(self, data):
        """Keep the batch."""
        self.trained.append(int(data[0][0, 0]))
        return {"loss": 0.0}

    def test_step(self, data):
        """Keep the batch."""
        self.tested.append(int(data[0][0, 0]))
        return {"loss": 0.0}


@pytest.fixture(scope="module")
def compiled():
    """The recorder, compiled once for all tests."""
    model = Recorder()
    model.compile("sgd", "mse", run_eagerly=True)
    return model


@pytest.fixture
def recorder(compiled):
    """A recorder with nothing on record."""
    compiled.trained, compiled.tested = [], []
    return compiled


@pytest.mark.parametrize("epochs", [1, 3])
@pytest.mark.parametrize("length", [1, 2, 5])
@pytest.mark.parametrize(("shuffle", "validation"), [(False, None), (False, 1), (True, 3)])
def test_hooks_run_once_around_each_epoch(recorder, epochs, length, shuffle, validation):
    """Begin, all batches, end: for training and validation data alike, and nothing before epoch one."""
    data = Epochs(length)
    val = None if validation is None else Epochs(validation)

    recorder.fit(data, epochs=epochs, shuffle=shuffle, validation_data=val, verbose=0)

    batches = [10 * epoch + index for epoch in range(epochs) for index in range(length)]
    if shuffle:
        assert data.shuffled_log() == data.expected_log(epochs, shuffled=True)
        assert sorted(recorder.trained) == batches
        assert [batch // 10 for batch in recorder.trained] == [batch // 10 for batch in batches]
    else:
        assert data.log == data.expected_log(epochs)
        assert recorder.trained == batches
    if val is not None:
        assert val.log == val.expected_log(epochs)
        assert recorder.tested == [10 * epoch + index for epoch in range(epochs) for index in range(validation)]


class TotalOfTargets(keras.metrics.Metric):
    """The sum of the targets of an epoch, which tells from compiled training what it was fed with."""

    def __init__(self, name="total"):
        super().__init__(name=name)
        self.total = self.add_weight(name="sum", initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Add the targets of a batch."""
        self.total.assign_add(keras.ops.sum(y_true))

    def result(self):
        """Return the sum."""
        return self.total


class Powers(Epochs):
    """Targets whose sum over an epoch could be of no other epoch or choice of batches."""

    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return x[:1], y[:1] + 2.0 ** (self.length * self.epoch + index)


@pytest.mark.parametrize(
    ("length", "workers", "steps", "shuffle"),
    [
        (1, 1, 1, False),
        (2, 1, 1, False),
        (5, 1, 1, True),
        (5, 1, 2, False),
        (5, 1, 8, False),
        (1, 3, 1, True),
        (2, 3, 1, False),
        (5, 3, 1, False),
        (5, 3, 2, True),
    ],
)
def test_compiled_training_sees_each_epoch_s_own_batches(length, workers, steps, shuffle):
    """No batch is fetched ahead over the end of an epoch, with any number of threads and steps."""
    data = Powers(length)
    data.workers = workers
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=[TotalOfTargets()], steps_per_execution=steps)

    history = model.fit(data, epochs=3, shuffle=shuffle, verbose=0)

    sums = [sum(2.0 ** (length * epoch + index) for index in range(length)) for epoch in range(3)]
    assert history.history["total"] == sums
    assert [entry for entry in data.log if entry == "end"] == ["end"] * 3
    assert data.epoch == 3


def test_a_second_fit_goes_on_where_the_first_ended(recorder):
    """Between two fits there is no extra end."""
    data = Epochs(3)

    recorder.fit(data, epochs=1, shuffle=False, verbose=0)
    recorder.fit(data, epochs=1, shuffle=False, verbose=0)

    assert data.log == data.expected_log(1) * 2
    assert recorder.trained == [0, 1, 2, 10, 11, 12]


class StopAfterOneBatch(keras.callbacks.Callback):
    """Breaks off the first epoch."""

    def on_train_batch_end(self, batch, logs=None):
        """Ask Keras to stop."""
        self.model.stop_training = True


def test_an_epoch_that_is_broken_off_has_no_end(recorder):
    """Neither at once nor when the next fit begins."""
    data = Epochs(5)

    recorder.fit(data, epochs=2, shuffle=False, verbose=0, callbacks=[StopAfterOneBatch()])
    recorder.fit(data, epochs=1, shuffle=False, verbose=0)

    assert [entry for entry in data.log if isinstance(entry, str)] == ["begin", "begin", "end"]
    assert recorder.trained == [0, 0, 1, 2, 3, 4]


def test_evaluate_and_predict_run_the_hooks_once(recorder):
    """Each is one epoch."""
    tested, predicted = Epochs(3), Epochs(3)

    recorder.evaluate(tested, verbose=0)
    got = recorder.predict(predicted, verbose=0)

    assert tested.log == tested.expected_log(1)
    assert predicted.log == predicted.expected_log(1)
    assert got.shape == (6, 1)


def test_a_distribution_strategy_s_symbolic_build_is_no_epoch():
    """Under a strategy Keras begins an epoch to build the model; that is not passed on either."""
    import tensorflow as tf

    data, val = Epochs(3), Epochs(2)
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")

    model.fit(data, epochs=2, shuffle=False, validation_data=val, verbose=0)

    hooks = [entry for entry in data.log if isinstance(entry, str)]
    assert hooks == ["begin", "end"] * 2
    assert [entry for entry in val.log if isinstance(entry, str)] == ["begin", "end"] * 2
    assert data.epoch == 2


def test_calls_by_anyone_but_keras_are_passed_on():
    """The common idiom of shuffling in __init__ by calling the hook works, as do loops by hand."""

    class Shuffled(Sequence):
        def __init__(self):
            self.ends = 0
            self.on_epoch_end()

        def on_epoch_end(self):
            self.ends += 1

    data = Shuffled()
    data.on_epoch_end()

    assert data.ends == 2


class Mixin:
    """A hook from a class that knows nothing of sequences."""

    ends = 0

    def on_epoch_end(self):
        """Count, and pass on."""
        self.ends += 1
        super().on_epoch_end()


class Mixed(Mixin, Epochs):
    """Two hooks, one after the other."""


class Child(Epochs):
    """A subclass of a subclass that adds to its hook."""

    ends = 0

    def on_epoch_end(self):
        """Pass on, and count."""
        super().on_epoch_end()
        self.ends += 1


@pytest.mark.parametrize("kind", [Mixed, Child])
def test_inherited_hooks_run_once_each(recorder, kind):
    """Mixins and super() calls are part of one hook."""
    data = kind(2)

    recorder.fit(data, epochs=2, shuffle=False, verbose=0)

    assert data.log == data.expected_log(2)
    assert data.ends == 2


def test_an_incomplete_subclass_says_what_to_define():
    """Each missing method names the class and itself."""

    class Half(Sequence):
        pass

    with pytest.raises(NotImplementedError, match=r"Half must define __getitem__\(self, index\)"):
        Half()[0]
    with pytest.raises(NotImplementedError, match=r"Half must define __len__\(self\)"):
        len(Half())
    with pytest.raises(NotImplementedError, match=r"Half must define __len__\(self\)"):
        next(iter(Half()))
    assert Half().on_epoch_begin() is None
    assert Half().on_epoch_end() is None


def test_iteration_is_finite_and_calls_no_hooks():
    """One pass over the batches."""
    data = Epochs(3)

    assert [int(x[0, 0]) for x, _ in data] == [0, 1, 2]
    assert data.log == [0, 1, 2]


def test_the_class_is_a_keras_dataset_with_keras_s_arguments():
    """Keras takes it for its own, and its three arguments have the same names and defaults."""

    class Sized(Epochs):
        def __init__(self, **kwargs):
            Sequence.__init__(self, **kwargs)
            self.length = 4

    assert issubclass(Sequence, keras.utils.PyDataset)
    plain, threaded = Epochs(1), Sized(workers=2, max_queue_size=3, timeout=5)
    assert (plain.workers, plain.use_multiprocessing, plain.max_queue_size, plain.timeout) == (1, False, 10, None)
    assert (threaded.workers, threaded.use_multiprocessing, threaded.max_queue_size, threaded.timeout) == (
        2,
        False,
        3,
        5,
    )
    assert threaded.num_batches == 4


def test_the_companions_are_where_they_are_looked_for():
    """In the core, and beside Sequence."""
    assert kflow.core.OrderedEnqueuer is sequences.OrderedEnqueuer
    assert kflow.core.GeneratorEnqueuer is sequences.GeneratorEnqueuer
    assert kflow.core.check_sequence is sequences.check


def load_again():
    """Load another copy of the module."""
    spec = importlib.util.spec_from_file_location("fresh", sequences.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_keras_that_does_not_fit_is_named(monkeypatch):
    """After an upgrade that changes what is relied on, the message says which version to install."""
    monkeypatch.delattr(trainer, "TFEpochIterator")
    monkeypatch.delitem(sys.modules, "kflow.core.sequences.keras_epochs")

    with pytest.raises(ImportError, match=r"^kflow.core.Sequence does not fit Keras 3\.") as caught:
        load_again().Sequence  # noqa: B018 - reading it is the test

    assert "cannot import name 'TFEpochIterator'" in str(caught.value)
    assert "pip install 'keras>=3.15.1,<3.16'" in str(caught.value)


def test_a_sequence_can_be_pickled():
    """The lazily made class does not get in the way."""
    copy = pickle.loads(pickle.dumps(PICKLED))

    assert isinstance(copy, Sequence)
    assert len(copy) == 7


class Plain(Sequence):
    """Defined in a module that pickle finds."""

    def __len__(self):
        return 7


PICKLED = Plain()


def test_importing_the_module_does_not_load_keras():
    """Nor TensorFlow, until the name Sequence is used."""
    code = "import sys, kflow.core.sequences as module; print({'keras', 'tensorflow'} & set(sys.modules))"

    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert output.stdout == "set()\n"


def test_all_threads_get_the_same_class():
    """The class is made once, under its own name."""
    fresh = load_again()

    with ThreadPoolExecutor(8) as pool:
        kinds = set(pool.map(lambda _: fresh.Sequence, range(50)))

    assert [(kind.__module__, kind.__qualname__) for kind in kinds] == [("fresh", "Sequence")]
    with pytest.raises(AttributeError, match="module 'fresh' has no attribute 'Other'"):
        fresh.Other  # noqa: B018 - reading it is the test
