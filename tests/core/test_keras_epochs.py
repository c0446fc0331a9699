"""What Keras's fit, evaluate and predict do with a sequence."""

import multiprocessing
import random
import sys
import threading
import time

import keras
import numpy as np
import pytest
from keras.src.backend.tensorflow import trainer
from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter

from kflow.core import OrderedEnqueuer, Sequence
from kflow.core.sequences.epochs import Draws
from kflow.core.sequences.keras_epochs import Epochs


class Marks(Sequence):
    """Batches of one row that tell their epoch and index, and a log of what is asked of them, in order."""

    def __init__(self, length=5, broken=None, **kwargs):
        super().__init__(**kwargs)
        self.length, self.broken, self.log = length, broken, []

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        self.log.append(index)
        if index == self.broken and "begin" in self.log:
            raise UnusualError(f"nothing at {index}", index)
        return np.full((1, 3), 100 * self.epochs_done + index, "float32"), np.zeros((1, 1), "float32")

    def on_epoch_begin(self):
        """Note it."""
        self.log.append("begin")

    def on_epoch_end(self):
        """Note it."""
        self.log.append("end")

    @property
    def hooks(self):
        """The hooks alone."""
        return [entry for entry in self.log if isinstance(entry, str)]


class UnusualError(Exception):
    """An error that nobody but the sequence raises."""

    def __init__(self, message, index):
        super().__init__(message, index)
        self.index = index


class Recorder(keras.Model):
    """A model that keeps what it is given, and learns nothing."""

    def __init__(self):
        super().__init__()
        self.trained, self.tested = [], []

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


@pytest.fixture
def recorder():
    """A model with nothing on record."""
    model = Recorder()
    model.compile("sgd", "mse", run_eagerly=True)
    return model


@pytest.fixture(scope="module")
def compiled():
    """A model that is compiled to graphs, with two steps in a call."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", steps_per_execution=2)
    return model


def run(model, method, data, **kwargs):
    """Feed a model through one of the three methods, or as validation data."""
    if method == "validation":
        return model.fit(Marks(), validation_data=data, verbose=0, **kwargs)
    return getattr(model, method)(data, verbose=0, **kwargs)


METHODS = ["fit", "evaluate", "predict", "validation"]


# --- the parts of Keras that are relied on -----------------------------------------------------------------


def test_keras_still_has_the_parts_that_are_replaced():
    """If this fails after an upgrade of Keras, kflow/core/keras_epochs.py must be read beside Keras's new trainer."""
    replaced = Epochs.__mro__[1]
    hint = f"Keras {keras.__version__} feeds its models in another way: see kflow/core/keras_epochs.py"

    assert trainer.TFEpochIterator is Epochs, hint
    for name in ("reset", "_enumerate_iterator", "catch_stop_iteration", "_interrupted_warning", "_get_iterator"):
        assert callable(getattr(replaced, name, None)), f"{hint} ({name})"
    for name in ("_standardize_batch", "get_tf_dataset", "_get_iterator"):
        assert callable(getattr(PyDatasetAdapter, name, None)), f"{hint} ({name})"
    for method in ("fit", "evaluate", "predict"):
        names = getattr(trainer.TensorFlowTrainer, method).__wrapped__.__code__.co_names
        assert {"TFEpochIterator", "catch_stop_iteration"} <= set(names), f"{hint} ({method})"


def test_keras_still_has_the_bug_that_is_mended(recorder):
    """A data set of Keras's own is told of the end of an epoch before the first one; else there is less to do here."""

    class Told(keras.utils.PyDataset):
        ends = 0

        def __len__(self):
            return 2

        def __getitem__(self, index):
            return np.zeros((1, 3), "float32"), np.zeros((1, 1), "float32")

        def on_epoch_end(self):
            self.ends += 1

    data = Told(workers=1)

    recorder.fit(data, epochs=2, verbose=0)

    assert data.ends == 3


def test_other_data_are_left_to_keras(recorder):
    """Arrays are fed as ever, and what Keras refuses beside a data set it still refuses."""
    recorder.fit(np.arange(12).reshape(4, 3), np.zeros((4, 1)), batch_size=1, shuffle=False, verbose=0)

    assert recorder.trained == [0, 3, 6, 9]
    with pytest.raises(ValueError, match="`y` should not be passed"):
        recorder.fit(Marks(), np.zeros((4, 1)), verbose=0)


# --- hooks and order ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 3])
def test_epochs_of_fewer_steps_share_one_stream(recorder, workers):
    """As in Keras 2.1, an epoch goes on where the one before stopped; the hooks surround each epoch."""
    data = Marks(5, workers=workers)

    recorder.fit(data, epochs=4, steps_per_epoch=2, shuffle=False, verbose=0)

    assert recorder.trained == [0, 1, 102, 103, 204, 200, 301, 302]
    assert data.hooks == ["begin", "end"] * 4
    if workers == 1:
        assert data.log[2:] == [
            *["begin", 0, 1, "end", "begin", 2, 3, "end"],
            *["begin", 4, 0, "end", "begin", 1, 2, "end"],
        ]


def test_a_pass_in_several_epochs_has_each_batch_once(recorder):
    """Shuffled, too."""
    recorder.fit(Marks(6), epochs=4, steps_per_epoch=3, shuffle=True, verbose=0)

    seen = [mark % 100 for mark in recorder.trained]
    assert sorted(seen[:6]) == sorted(seen[6:]) == list(range(6))


@pytest.mark.parametrize("method", ["fit", "evaluate", "predict"])
def test_more_steps_than_batches_go_round(recorder, method):
    """The data do not run out, and there is one epoch."""
    data = Marks(3)

    run(recorder, method, data, **{"steps_per_epoch" if method == "fit" else "steps": 5}, **NO_SHUFFLE.get(method, {}))

    assert data.log == [0, 1, "begin", 0, 1, 2, 0, 1, "end"]


NO_SHUFFLE = {"fit": {"shuffle": False}}


def test_validation_begins_with_the_first_batch_each_time(recorder):
    """validation_steps takes the first ones."""
    data = Marks(5)

    recorder.fit(Marks(1), epochs=2, validation_data=data, validation_steps=2, verbose=0)

    assert recorder.tested == [0, 1, 100, 101]
    assert data.hooks == ["begin", "end"] * 2


def test_initial_epoch_counts_the_epochs_that_are_run(recorder):
    """Each of them has its hooks, and epochs_done can be set to go on with a training."""
    data = Marks(2)
    data.epochs_done = 3

    recorder.fit(data, epochs=5, initial_epoch=3, shuffle=False, verbose=0)

    assert data.hooks == ["begin", "end"] * 2
    assert recorder.trained == [300, 301, 400, 401]
    assert data.epochs_done == 5


@pytest.mark.parametrize("method", METHODS)
def test_the_length_is_read_anew_for_each_epoch(recorder, method):
    """A data set that grows or shrinks between epochs, or when one begins."""

    class Growing(Marks):
        def on_epoch_begin(self):
            super().on_epoch_begin()
            self.length += 1

        def on_epoch_end(self):
            super().on_epoch_end()
            self.length -= 3 if self.length > 6 else 0

    data = Growing(5)
    for _ in range(3):
        run(recorder, method, data, **NO_SHUFFLE.get(method, {}))
    if method == "validation":
        run(recorder, method, data, epochs=2)

    lengths = " ".join(map(str, data.log)).replace("0 1 begin", "begin").split("begin")[1:]
    expected = [6, 7, 5, 6, 7] if method == "validation" else [6, 7, 5]
    assert [each.split() for each in lengths] == [[*map(str, range(size)), "end"] for size in expected]


def test_one_training_with_epochs_of_several_lengths(recorder):
    """Within one call of fit, with no warning."""

    class Changing(Marks):
        def on_epoch_end(self):
            super().on_epoch_end()
            self.length = {1: 5, 2: 1}.get(self.epochs_done, 2)

    recorder.fit(Changing(3), epochs=3, shuffle=False, verbose=0)

    assert recorder.trained == [0, 1, 2, *range(100, 105), 200]


def test_shuffled_orders_follow_the_seed_for_any_number_of_workers(recorder):
    """What batches draw from Python's random does not change the order; the orders of epochs differ."""

    class Jittered(Marks):
        def __getitem__(self, index):
            random.random()
            return super().__getitem__(index)

    orders = []
    for workers in (1, 4):
        recorder.trained.clear()
        keras.utils.set_random_seed(11)
        recorder.fit(Jittered(9, workers=workers), epochs=2, verbose=0)
        orders.append([mark % 100 for mark in recorder.trained])

    assert orders[0] == orders[1]
    assert sorted(orders[0][:9]) == sorted(orders[0][9:]) == list(range(9))
    assert orders[0][:9] != orders[0][9:]


def test_none_is_skipped(recorder):
    """Such an epoch is shorter, and no warning says that the data ran out."""

    class Gaps(Marks):
        def __getitem__(self, index):
            batch = super().__getitem__(index)
            return batch if index % 2 else None

    data, nothing = Gaps(6), Marks(3)
    nothing.__class__ = type("Nothing", (Marks,), {"__getitem__": lambda self, index: None})

    recorder.fit(data, epochs=2, shuffle=False, verbose=0)

    assert recorder.trained == [1, 3, 5, 101, 103, 105]
    assert data.hooks == ["begin", "end"] * 2
    with pytest.raises(ValueError, match="every batch of Nothing is None"):
        recorder.fit(nothing, verbose=0)


def test_an_endless_sequence_goes_on(recorder):
    """Keras's data sets may have no length; epochs then have steps_per_epoch batches."""

    class Endless(Marks):
        num_batches = None

    recorder.fit(Endless(), epochs=2, steps_per_epoch=3, shuffle=False, verbose=0)

    assert recorder.trained == [0, 1, 2, 103, 104, 105]


def test_lists_of_inputs_and_class_weights():
    """[x_1, x_2] goes to a model with two inputs, as in Keras 2.1; class weights become weights of rows."""

    class Two(Marks):
        def __getitem__(self, index):
            return [np.full((2, 1), 1.0), np.full((2, 1), 2.0)], np.array([[0], [1]])

    inputs = [keras.Input((1,)), keras.Input((1,))]
    outputs = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")(keras.layers.Add()(inputs))
    model = keras.Model(inputs, outputs)
    model.compile("sgd", "mse")

    plain = model.evaluate(Two(1), verbose=0)
    weighted = model.fit(Two(1), class_weight={0: 0.0, 1: 2.0}, verbose=0).history["loss"]

    assert plain == (3.0**2 + 2.0**2) / 2
    assert weighted == [2 * 2.0**2 / 2]


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"workers": "2"}, "workers must be a whole number, at least 0, not '2'"),
        ({"workers": 2.5}, "workers must be a whole number, at least 0, not 2.5"),
        ({"workers": -1}, "workers must be a whole number, at least 0, not -1"),
        ({"max_queue_size": None}, "max_queue_size must be a whole number, at least 0, not None"),
        ({"timeout": -1}, "timeout must be a number of seconds above 0, or None for the default, not -1"),
        ({"timeout": "1"}, "timeout must be a number of seconds above 0, or None for the default, not '1'"),
    ],
)
def test_limits_that_are_none_are_refused(recorder, limits, message):
    """Also those that a subclass sets as attributes, without a word to the base class."""
    sequence = Marks()
    for name, limit in limits.items():
        setattr(sequence, name, limit)

    with pytest.raises(ValueError, match=message):
        recorder.fit(sequence, verbose=0)


@pytest.mark.parametrize("length", [0, -1])
def test_a_sequence_without_batches_is_refused(recorder, length):
    """At once, and also when it is emptied later."""

    class Sized(Marks):
        num_batches = length

    with pytest.raises(ValueError, match=f"Sized has no batches: its length is {length}"):
        recorder.fit(Sized(), verbose=0)


# --- what goes wrong ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("broken", [2, 4])
def test_the_exception_is_the_sequence_s_own(compiled, method, workers, broken):
    """Type, attributes, traceback and the index of the batch, in the middle of a call and in the last one."""
    data = Marks(5, broken=broken, workers=workers)

    with pytest.raises(UnusualError, match=f"nothing at {broken}") as caught:
        run(compiled, method, data)

    assert caught.value.index == broken
    assert caught.value.__notes__ == [f"raised while making batch {broken}"]
    assert caught.traceback[-1].name == "__getitem__"
    assert data.hooks == ["begin"]
    assert no_worker_is_left("Marks")


def no_worker_is_left(name, seconds=20):
    """Whether the workers of a sequence are gone, or go soon."""
    deadline = time.monotonic() + seconds
    while any(each.name.startswith(name) for each in [*threading.enumerate(), *multiprocessing.active_children()]):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("end", [StopIteration, GeneratorExit])
def test_the_end_of_an_iterator_is_told_with_its_index(recorder, workers, end):
    """It cannot pass the generators of the pipeline; an error tells of it, with its place and batch."""

    class Ending(Marks):
        def __getitem__(self, index):
            if index == 3:
                raise end
            return super().__getitem__(index)

    with pytest.raises(RuntimeError, match=f"__getitem__ raised {end.__name__} in batch 3") as caught:
        recorder.fit(Ending(workers=workers), shuffle=False, verbose=0)

    assert caught.traceback[-1].name == "__getitem__"
    assert caught.value.__notes__ == ["raised while making batch 3"]


def test_an_exception_before_the_first_epoch_has_its_index_too(recorder):
    """Batches 0 and 1 are read beforehand; what they must be is Keras's business."""

    class Wrong(Marks):
        def __getitem__(self, index):
            if index:
                raise KeyError("left.png")
            return {"x": 1}, 2, 3, 4

    with pytest.raises(ValueError, match=r"must return a tuple or a dict") as shaped:
        recorder.fit(Wrong(1), verbose=0)
    Wrong.__getitem__ = lambda self, index: Marks.__getitem__(self, index) if index == 0 else {}["left.png"]
    with pytest.raises(KeyError, match=r"left\.png") as caught:
        recorder.fit(Wrong(2), verbose=0)

    assert shaped.value.__notes__ == ["raised while making batch 0"]
    assert caught.value.__notes__ == ["raised while making batch 1"]


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (
            (np.ones((3, 5)), np.ones((3, 1))),
            r"shapes \(\(3, 5\), \(3, 1\)\) and those of .* \(\(None, 3\), \(None, 1\)\)",
        ),
        ((np.ones((3, 3, 1)), np.ones((3, 1))), r"shapes \(\(3, 3, 1\), \(3, 1\)\) and those of the first batches"),
        ((np.ones((3, 3)),), r"shapes \(\(3, 3\),\) and those of the first batches"),
        ((np.ones((3, 3)), np.ones((1, 1))), r"different numbers of rows; the shapes are \(\(3, 3\), \(1, 1\)\)"),
    ],
    ids=["a size", "a dimension", "no targets", "rows"],
)
@pytest.mark.parametrize("workers", [1, 2])
def test_a_batch_of_another_shape_has_its_index(compiled, workers, batch, message):
    """Shapes that do not go with the first batches or with one another are told before TensorFlow meets them."""

    class Shaped(Marks):
        def __getitem__(self, index):
            return batch if index == 3 else super().__getitem__(index)

    with pytest.raises(ValueError, match=message) as caught:
        compiled.fit(Shaped(workers=workers), shuffle=False, verbose=0)

    assert caught.value.__notes__ == ["raised while making batch 3"]


@pytest.mark.parametrize(
    ("index", "batch", "message"),
    [
        (0, (np.ones((1, 3), object), np.ones((1, 1))), "an array of dtype object, which no model takes"),
        (1, ([[1.0, 2.0, 3.0]], [[1.0]]), "a single value, of type float, where an array must be"),
        (1, (np.ones((1, 3, 1)), np.ones((1, 1))), "must have the same rank"),
        (3, (np.full((1, 3), np.datetime64(0, "s")), np.ones((1, 1))), r"an array of dtype datetime64\[s\]"),
        (3, (1.0, np.ones((1, 1))), "a single value, of type float, where an array must be"),
    ],
)
def test_a_batch_without_arrays_of_numbers_has_its_index(recorder, index, batch, message):
    """Among the first two, from which shapes and dtypes are learned, and later."""

    class Odd(Marks):
        def __getitem__(self, number):
            return batch if number == index else super().__getitem__(number)

    with pytest.raises(ValueError, match=message) as caught:
        recorder.fit(Odd(), shuffle=False, verbose=0)

    assert caught.value.__notes__ == [f"raised while making batch {index}"]


def test_the_model_s_own_exceptions_are_not_mistaken(recorder):
    """Even if the batch after it is broken as well."""

    def fails(data):
        raise ZeroDivisionError("in the model")

    recorder.train_step = fails
    data = Marks(5, broken=1)

    with pytest.raises(ZeroDivisionError, match="in the model"):
        recorder.fit(data, shuffle=False, verbose=0)


@pytest.mark.parametrize(("workers", "stuck"), [(1, 3), (2, 3), (1, 0), (2, 1)])
def test_a_stuck_worker_times_out(recorder, workers, stuck):
    """The thread is named, before the first epoch too, and one thread is timed if a time is given."""
    release = threading.Event()

    class Stuck(Marks):
        def __getitem__(self, index):
            if index == stuck:
                release.wait(60)
            return super().__getitem__(index)

    data = Stuck(workers=workers, timeout=0.3)

    with pytest.raises(
        TimeoutError, match=rf"batch {stuck} of Stuck is not ready after 0\.3 s: thread 'Stuck worker"
    ) as caught:
        recorder.fit(data, shuffle=False, verbose=0)

    release.set()
    assert "release.wait(60)" in "".join(caught.value.__notes__)
    assert (recorder.trained, data.hooks) == (([0, 1, 2], ["begin"]) if stuck == 3 else ([], []))
    assert no_worker_is_left("Stuck")


# --- workers -----------------------------------------------------------------------------------------------

MODULE = """
import random
import sys

import numpy as np

from kflow.core import Sequence


class Elsewhere(Sequence):
    broken = None
    error = KeyError("left.png")

    def __len__(self):
        return 4

    def __getitem__(self, index):
        random.random()
        if index == self.broken:
            raise self.error
        loaded = 1000 * ("tensorflow" in sys.modules)
        return np.full((1, 3), loaded + 100 * self.epochs_done + index, "float32"), np.zeros((1, 1), "float32")
"""


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A sequence of a module that another process can import."""
    (tmp_path / "elsewhere_of_a_test.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "elsewhere_of_a_test", raising=False)
    from elsewhere_of_a_test import Elsewhere

    return Elsewhere(use_multiprocessing=True, workers=2, max_queue_size=3)


def test_processes_after_tensorflow_has_worked(recorder, compiled, elsewhere):
    """No fork, no deadlock, no TensorFlow in the processes, and none of them left behind."""
    compiled.fit(Marks(3), verbose=0)

    recorder.fit(elsewhere, epochs=3, shuffle=False, verbose=0)

    assert recorder.trained == [100 * epoch + index for epoch in range(3) for index in range(4)]
    assert no_worker_is_left("kflow-batches")


def test_shuffled_orders_follow_the_seed_with_processes_too(recorder, elsewhere):
    """What batches draw here, or there, does not change them."""
    orders = []
    for elsewhere.use_multiprocessing in (False, True):
        recorder.trained.clear()
        keras.utils.set_random_seed(11)
        recorder.fit(elsewhere, verbose=0)
        orders.append([mark % 100 for mark in recorder.trained])

    assert orders[0] == orders[1]


@pytest.mark.parametrize(("method", "broken"), [("fit", 2), ("predict", 0)])
def test_an_exception_of_a_process(recorder, elsewhere, method, broken):
    """It is of its own type, and tells where it was raised; the first batches are made there too."""
    elsewhere.broken = broken

    with pytest.raises(KeyError, match=r"left\.png") as caught:
        run(recorder, method, elsewhere)

    assert "raised in process " in caught.value.__notes__[0]
    assert "raise self.error" in caught.value.__notes__[0]
    assert caught.value.__notes__[1] == f"raised while making batch {broken}"
    assert no_worker_is_left("kflow-batches")


def test_the_end_of_an_iterator_in_a_process(recorder, elsewhere):
    """It is told as in a thread, and tells where it was raised."""
    elsewhere.broken, elsewhere.error = 2, StopIteration()

    with pytest.raises(RuntimeError, match="__getitem__ raised StopIteration in batch 2") as caught:
        recorder.fit(elsewhere, shuffle=False, verbose=0)

    assert "raise self.error" in caught.value.__notes__[0]
    assert caught.value.__notes__[1] == "raised while making batch 2"


def test_workers_are_let_go_when_an_epoch_is_broken_off(recorder):
    """By a callback, and when fit returns."""

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = True

    data = Marks(50, workers=3)

    recorder.fit(data, epochs=2, shuffle=False, verbose=0, callbacks=[Stop()])

    assert recorder.trained == [0]
    assert data.hooks == ["begin"]
    assert no_worker_is_left("Marks")


# --- the example of Keras 2.1's page -----------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path):
    """Files with pictures of 32 x 32 pixels, and their classes."""
    from skimage.io import imsave

    files = [tmp_path / f"{number}.png" for number in range(7)]
    for number, file in enumerate(files):
        imsave(file, np.full((32, 32, 3), 30 * number, "uint8"), check_contrast=False)
    return [str(file) for file in files], [number % 2 for number in range(7)]


def test_the_example_of_keras_2_1_runs_as_it_is_written(pictures):
    """Without super().__init__() and without a warning: in fit, in both enqueuers, and with workers."""
    from skimage.io import imread
    from skimage.transform import resize

    class CIFAR10Sequence(Sequence):
        def __init__(self, x_set, y_set, batch_size):
            self.x, self.y = x_set, y_set
            self.batch_size = batch_size

        def __len__(self):
            return len(self.x) // self.batch_size

        def __getitem__(self, idx):
            batch_x = self.x[idx * self.batch_size : (idx + 1) * self.batch_size]
            batch_y = self.y[idx * self.batch_size : (idx + 1) * self.batch_size]

            return np.array([resize(imread(file_name), (200, 200)) for file_name in batch_x]), np.array(batch_y)

    model = keras.Sequential(
        [keras.Input((200, 200, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2, "softmax")]
    )
    model.compile("sgd", "sparse_categorical_crossentropy")
    data = CIFAR10Sequence(*pictures, 2)

    history = model.fit(data, epochs=2, validation_data=CIFAR10Sequence(*pictures, 3), verbose=0).history
    predicted = model.predict(data, verbose=0)
    data.workers, data.max_queue_size = 2, 4
    again = model.predict(data, verbose=0)
    enqueuer = OrderedEnqueuer(data, use_multiprocessing=False, shuffle=False)
    enqueuer.start(workers=2, max_queue_size=10)
    batches = enqueuer.get()
    pairs = [next(batches) for _ in range(4)]
    enqueuer.stop()

    assert np.isfinite([history["loss"], history["val_loss"]]).all()
    assert predicted.shape == (6, 2)
    assert np.array_equal(predicted, again)
    assert [y.tolist() for _, y in pairs] == [[0, 1], [0, 1], [0, 1], [0, 1]]
    assert np.allclose([x.mean() for x, _ in pairs], np.array([15, 75, 135, 15]) / 255)


def test_the_order_of_the_epochs_is_the_same_with_processes():
    """Processes need a seed for each epoch; drawing it leaves the orders alone."""
    random.seed(1)
    threads = Draws()
    orders = [threads.order(20, shuffle=True) for _ in range(3)]
    random.seed(1)
    processes = Draws()

    assert [(processes.seed(), processes.order(20, shuffle=True))[1] for _ in range(3)] == orders
