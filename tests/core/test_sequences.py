import importlib.util
import math
import pickle
import random
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest

from kflow.core.sequences import GeneratorEnqueuer, OrderedEnqueuer, Sequence


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


@pytest.mark.parametrize("epochs", [1, 2, 3])
@pytest.mark.parametrize("length", [1, 2, 5])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("validation", [None, 1, 3])
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


@pytest.mark.filterwarnings("ignore:.*ran out of data:UserWarning")  # Keras says so of any short epoch
def test_steps_per_epoch_beyond_the_length_end_the_epoch_once(recorder):
    """An epoch that runs out of batches is an epoch still."""
    data = Epochs(3)

    recorder.fit(data, epochs=2, steps_per_epoch=5, shuffle=False, verbose=0)

    assert data.log == data.expected_log(2)


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
    plain, threaded = Epochs(1), Sized(workers=2, max_queue_size=3)
    assert (plain.workers, plain.use_multiprocessing, plain.max_queue_size) == (1, False, 10)
    assert (threaded.workers, threaded.use_multiprocessing, threaded.max_queue_size) == (2, False, 3)
    assert threaded.num_batches == 4


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
    spec = importlib.util.spec_from_file_location("fresh", sys.modules["kflow.core.sequences"].__file__)
    fresh = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fresh)

    with ThreadPoolExecutor(8) as pool:
        kinds = set(pool.map(lambda _: fresh.Sequence, range(50)))

    assert [(kind.__module__, kind.__qualname__) for kind in kinds] == [("fresh", "Sequence")]
    with pytest.raises(AttributeError, match="module 'fresh' has no attribute 'Other'"):
        fresh.Other  # noqa: B018 - reading it is the test


class Slow:
    """Batches that take the longer the sooner they are needed."""

    def __init__(self, length=6, wrong=None):
        self.length, self.wrong = length, wrong
        self.epoch, self.asked = 0, []

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        time.sleep(0.002 * (self.length - index))
        self.asked.append((self.epoch, index))
        if index == self.wrong:
            raise OSError(28, "No space left on device")
        return self.epoch, index

    def on_epoch_end(self):
        """Go on to the next epoch."""
        self.epoch += 1


@pytest.fixture
def started():
    """A function that starts an enqueuer which is stopped at the end of the test."""
    running = []

    def start(enqueuer, **kwargs):
        enqueuer.start(**kwargs)
        running.append(enqueuer)
        return enqueuer

    yield start
    for enqueuer in running:
        enqueuer.stop()


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("max_queue_size", [1, 4, 20])
def test_batches_keep_their_order_over_epochs(started, workers, max_queue_size):
    """Whatever is ready first, batch 0 of epoch 0 comes first, and epochs do not mix."""
    data = Slow()
    enqueuer = started(OrderedEnqueuer(data), workers=workers, max_queue_size=max_queue_size)

    batches = enqueuer.get()
    got = [next(batches) for _ in range(18)]

    assert got == [(epoch, index) for epoch in range(3) for index in range(6)]
    assert data.epoch == 3


def test_batches_are_made_ahead_but_not_too_far(started):
    """At most max_queue_size batches wait for their consumer."""
    data = Slow()
    enqueuer = started(OrderedEnqueuer(data), workers=2, max_queue_size=2)

    next(enqueuer.get())
    deadline = time.monotonic() + 30
    while len(data.asked) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)

    assert sorted(data.asked) == [(0, 0), (0, 1), (0, 2)]


def test_shuffled_epochs_are_permutations_from_the_global_seed(started):
    """Each epoch has its own order, and the seed decides it."""
    runs = []
    for _ in range(2):
        random.seed(3)
        batches = started(OrderedEnqueuer(Slow(8), shuffle=True), workers=3).get()
        runs.append([next(batches) for _ in range(16)])

    assert runs[0] == runs[1]
    assert runs[0][:8] != [(0, index) for index in range(8)]
    assert sorted(runs[0]) == [(epoch, index) for epoch in range(2) for index in range(8)]


def test_the_length_is_read_anew_for_each_epoch(started):
    """A data set may shrink when an epoch ends."""

    class Shrinking(Slow):
        def on_epoch_end(self):
            super().on_epoch_end()
            self.length -= 2

    batches = started(OrderedEnqueuer(Shrinking(4))).get()

    assert [next(batches) for _ in range(6)] == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1)]


def test_the_original_exception_comes_with_the_batch(started):
    """Type, arguments and traceback are those of the failure; the note tells the index."""
    enqueuer = started(OrderedEnqueuer(Slow(wrong=3)), workers=4)
    batches = enqueuer.get()
    assert [next(batches)[1] for _ in range(3)] == [0, 1, 2]

    with pytest.raises(OSError, match="No space left on device") as caught:
        next(batches)

    assert caught.value.errno == 28
    assert caught.value.__notes__ == ["raised while making batch 3"]
    assert caught.traceback[-1].name == "__getitem__"
    assert not enqueuer.is_running()


def test_stop_ends_the_stream_and_the_threads():
    """After stop nothing is made or given any more, and it can be started again."""
    enqueuer = OrderedEnqueuer(Slow())
    enqueuer.start(workers=3)
    batches = enqueuer.get()
    next(batches)

    enqueuer.stop()

    assert list(batches) == []
    assert not enqueuer.is_running()
    deadline = time.monotonic() + 10
    while any(t.name.startswith("OrderedEnqueuer") for t in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    enqueuer.start()
    assert next(enqueuer.get()) == (0, 0)
    enqueuer.stop()
    enqueuer.stop()


def test_stop_waits_no_longer_than_told():
    """A batch that takes for ever does not hold up a stop with a timeout."""
    release = threading.Event()

    class Stuck(Slow):
        def __getitem__(self, index):
            if index:
                release.wait(30)
            return index

    enqueuer = OrderedEnqueuer(Stuck())
    enqueuer.start()
    next(enqueuer.get())
    begun = time.monotonic()

    enqueuer.stop(timeout=0.1)

    assert time.monotonic() - begun < 10
    release.set()


def test_stopping_from_another_thread_frees_a_waiting_consumer():
    """A consumer that waits for a batch still in the queue is not left waiting."""
    enqueuer = OrderedEnqueuer(Slow(50))
    enqueuer.start(workers=1, max_queue_size=50)
    batches = enqueuer.get()
    next(batches)
    threading.Timer(0.05, enqueuer.stop).start()

    assert len(list(batches)) < 50


def test_an_enqueuer_reads_a_sequence(started):
    """A Sequence is what it is for."""
    data = Epochs(2)
    batches = started(OrderedEnqueuer(data), workers=2).get()

    got = [int(next(batches)[0][0, 0]) for _ in range(4)]

    assert got == [0, 1, 10, 11]


def test_none_is_skipped(started):
    """As in Keras 2.1, a batch that is None is not given."""

    class Gaps(Slow):
        def __getitem__(self, index):
            return index if index % 2 else None

    batches = started(OrderedEnqueuer(Gaps(4))).get()

    assert [next(batches) for _ in range(3)] == [1, 3, 1]
    assert list(started(GeneratorEnqueuer(iter([None, 1, None]))).get()) == [1]


@pytest.mark.parametrize("workers", [1, 4])
def test_a_generator_is_drawn_from_in_order(started, workers):
    """One thread draws, whatever the number of workers; the stream ends with the generator."""
    enqueuer = started(GeneratorEnqueuer(index**2 for index in range(30)), workers=workers)

    assert list(enqueuer.get()) == [index**2 for index in range(30)]


def test_a_generator_s_exception_comes_with_the_batch(started):
    """The failure is the generator's own."""

    def broken():
        yield math.pi
        raise ZeroDivisionError("no data")

    batches = started(GeneratorEnqueuer(broken())).get()
    assert next(batches) == math.pi

    with pytest.raises(ZeroDivisionError, match="no data") as caught:
        next(batches)

    assert caught.value.__notes__ == ["raised while making batch 1"]


def test_an_endless_generator_is_stopped():
    """Only so much is drawn ahead of the consumer."""
    drawn = []
    enqueuer = GeneratorEnqueuer(drawn.append(1) or 1 for _ in iter(int, 1))
    enqueuer.start(max_queue_size=3)
    batches = enqueuer.get()
    next(batches)

    enqueuer.stop()

    assert list(batches) == []
    assert len(drawn) <= 4


@pytest.mark.parametrize("kind", [OrderedEnqueuer, GeneratorEnqueuer])
def test_wrong_use_is_refused(kind):
    """Each misuse has its own message."""
    source = Slow() if kind is OrderedEnqueuer else iter(())
    enqueuer = kind(source)

    with pytest.raises(ValueError, match="works with threads only"):
        kind(source, use_multiprocessing=True)
    with pytest.raises(RuntimeError, match=rf"this {kind.__name__} does not run; call start\(\)"):
        enqueuer.get()
    with pytest.raises(ValueError, match="must be at least 1, not 0 and 10"):
        enqueuer.start(workers=0)
    enqueuer.start()
    with pytest.raises(RuntimeError, match=r"runs already; call stop\(\) before start"):
        enqueuer.start()
    enqueuer.stop()


def test_an_empty_sequence_is_refused(started):
    """No batches would mean an endless search for one."""
    with pytest.raises(ValueError, match="Slow has no batches: its length is 0"):
        next(started(OrderedEnqueuer(Slow(0))).get())
