import gc
import inspect
import json
import os
import pickle
import subprocess
import sys
import time
import tracemalloc
import weakref
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from kflow.core import HDF5Matrix
from kflow.core.rows import streaming
from kflow.core.rows.streaming import batches

ROWS = 50
X = np.random.default_rng(0).random((ROWS, 6))
X[:, 0] = np.arange(ROWS)  # tells the row
Y = np.random.default_rng(1).random((ROWS, 1))
LABELS = np.random.default_rng(2).integers(0, 3, ROWS)
WEIGHTS = np.random.default_rng(3).random(ROWS)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A file with the same rows in several layouts, after and before others."""
    path = tmp_path_factory.mktemp("streaming") / "rows.h5"
    padded = np.concatenate([X[:7], X, X[:3]])
    with h5py.File(path, "w") as file:
        file["single"] = padded.astype("float32")  # the first one is where TensorFlow can take it
        file["contiguous"] = padded
        file["big-endian"] = padded.astype(">f8")
        file.create_dataset("gzip", data=padded, chunks=(8, 4), compression="gzip")
        file["y"], file["labels"], file["weights"] = Y, LABELS, WEIGHTS
    return path


@pytest.fixture
def matrix(path):
    """The inputs as a window."""
    return HDF5Matrix(path, "contiguous", 7, 7 + ROWS)


def _model(outputs=1, loss="mse"):
    """Make the same model each time."""
    keras.utils.set_random_seed(5)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(outputs)])
    model.compile("sgd", loss, metrics=["mae"] if loss == "mse" else [])
    return model


def _fit(x, y, *, model=None, **options):
    """Train, and return all that came of it."""
    model = model or _model()
    history = model.fit(x, y, verbose=0, **{"epochs": 2, "batch_size": 8, "shuffle": False, **options}).history
    return history, model.get_weights()


def _assert_same(got, expected):
    """Compare bit for bit."""
    assert got[0] == expected[0]
    for mine, other in zip(got[1], expected[1], strict=True):
        np.testing.assert_array_equal(mine, other)


# --- fit, evaluate and predict ----------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["single", "contiguous", "big-endian", "gzip"])
def test_fit_gives_what_it_gives_for_arrays(path, layout):
    """History and weights are the same bit for bit, with inputs, targets, weights and a validation split from files."""
    windows = HDF5Matrix(path, layout, 7, 7 + ROWS), HDF5Matrix(path, "y")
    options = {"validation_split": 0.2}

    got = _fit(*windows, sample_weight=HDF5Matrix(path, "weights"), **options)

    _assert_same(got, _fit(X, Y, sample_weight=WEIGHTS, **options))


def test_evaluate_and_predict_give_what_they_give_for_arrays(path, matrix):
    """Results are the same bit for bit, also with a normalizer and in the sizes that Keras chooses."""
    model = _model()
    halved = HDF5Matrix(path, "contiguous", 7, 7 + ROWS, normalizer=lambda block: block / 2)

    measured = model.evaluate(matrix, HDF5Matrix(path, "y"), sample_weight=WEIGHTS, verbose=0)

    assert measured == model.evaluate(X, Y, sample_weight=WEIGHTS, verbose=0)
    np.testing.assert_array_equal(model.predict(halved, verbose=0), model.predict(X / 2, verbose=0))
    np.testing.assert_array_equal(model.predict(matrix, steps=2, verbose=0), model.predict(X, steps=2, verbose=0))


@pytest.mark.parametrize("shuffle", [True, "batch"])
def test_fit_shuffles_the_rows_and_keeps_them_together(matrix, shuffle):
    """Training is what Keras makes, batch by batch, of arrays in memory in the order of the seed."""
    got = _fit(matrix, Y, shuffle=shuffle)[1]

    reference = _model()
    feed = batches((matrix, Y), 8, shuffle=shuffle)
    for _ in range(2):
        for x, _ in feed:
            rows = x.numpy()[:, 0].astype(int)
            reference.train_on_batch(X[rows], Y[rows])
    for mine, other in zip(got, reference.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, other)


def test_fit_shuffles_the_same_for_the_same_seed_only(matrix):
    """Runs after the same `set_random_seed` are identical; a second fit takes another order."""
    first, again = _fit(matrix, Y, shuffle=True), _fit(matrix, Y, shuffle=True)

    _assert_same(again, first)
    model = _model()
    keras.utils.set_random_seed(6)
    assert _fit(matrix, Y, shuffle=True, model=model)[0] != first[0]


def test_a_callback_list_of_keras_s_is_taken_as_it_is(matrix):
    """Its callbacks run, and it comes back without what the order of the rows needs."""
    model, history = _model(), keras.callbacks.History()
    callbacks = keras.callbacks.CallbackList([history], model=model, epochs=2, verbose=0, steps=7)

    got = _fit(matrix, Y, model=model, shuffle=True, callbacks=callbacks)

    assert got[0] == history.history
    assert callbacks.callbacks == [history]
    _assert_same(got, _fit(matrix, Y, shuffle=True))


def _two_by_two(losses=("mse", "mae")):
    """Make a model with two inputs and two outputs."""
    keras.utils.set_random_seed(5)
    inputs = {"a": keras.Input((6,), name="a"), "b": keras.Input((1,), name="b")}
    joined = keras.layers.Concatenate()([inputs["a"], inputs["b"]])
    outputs = [keras.layers.Dense(1, name=name)(joined) for name in ("one", "two")]
    model = keras.Model(inputs, outputs)
    model.compile("sgd", list(losses))
    return model


def test_several_inputs_and_outputs_mix_files_and_memory(path, matrix):
    """Dictionaries and lists hold windows and arrays side by side; one sample weight serves all outputs."""
    windows = {"a": matrix, "b": Y}, [HDF5Matrix(path, "y"), Y]
    arrays = {"a": X, "b": Y}, [Y, Y]

    got = _fit(*windows, model=_two_by_two(), sample_weight=WEIGHTS)

    _assert_same(got, _fit(*arrays, model=_two_by_two(), sample_weight=WEIGHTS))


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
@pytest.mark.parametrize(
    ("losses", "y", "weights"),
    [
        (("mse", "mae"), [Y, Y], [WEIGHTS, None]),
        (("mse", None), [Y, None], None),
        (("mse", None), [Y, None], WEIGHTS),
    ],
)
def test_an_output_may_go_without_targets_or_weights(matrix, losses, y, weights):
    """None in their place means what it means beside arrays."""
    options = {"sample_weight": weights, "validation_split": 0.2}

    got = _fit({"a": matrix, "b": Y}, y, model=_two_by_two(losses), **options)

    _assert_same(got, _fit({"a": X, "b": Y}, y, model=_two_by_two(losses), **options))


def test_validation_data_may_lie_in_files_alone(path, matrix):
    """Arrays are trained on as ever, and what is measured after each epoch is read in batches of its own size."""
    options = {"validation_batch_size": 5}

    got = _fit(X, Y, validation_data=(matrix, HDF5Matrix(path, "y"), WEIGHTS), **options)

    _assert_same(got, _fit(X, Y, validation_data=(X, Y, WEIGHTS), **options))


@pytest.mark.parametrize("options", [{"steps_per_epoch": 3, "batch_size": None}, {"steps_per_epoch": 2}])
def test_steps_are_counted_as_for_arrays(matrix, options):
    """Without a batch size the rows are divided by the steps; with one, an epoch ends early."""
    _assert_same(_fit(matrix, Y, **options), _fit(X, Y, **options))


@pytest.mark.parametrize("weights", [{0: 2.0, 2: 0.5}, {0: 2, 1: 0.5}, {2: 3}])
@pytest.mark.parametrize("encode", [lambda y: y, lambda y: y[:, np.newaxis], lambda y: np.eye(3)[y]])
def test_class_weights_are_looked_up_row_by_row(matrix, encode, weights):
    """Weights by class do what they do with arrays, for numbers, columns and one-hot rows; others weigh 1."""
    y = encode(LABELS)
    loss = "categorical_crossentropy" if y.shape[-1] == 3 else "sparse_categorical_crossentropy"
    options = {"class_weight": weights}

    got = _fit(matrix, y, model=_model(3, loss), **options)

    _assert_same(got, _fit(X, y, model=_model(3, loss), **options))


# --- memory -----------------------------------------------------------------------------------------------


class Watched(HDF5Matrix):
    """A window that cannot be read whole, and notes how many rows were read at a time."""

    greatest = 0

    def __array__(self, *_, **__):
        raise AssertionError

    def __getitem__(self, rows):
        block = super().__getitem__(rows)
        self.greatest = max(self.greatest, len(block))
        return block


@pytest.mark.parametrize("layout", ["contiguous", "gzip"])
@pytest.mark.parametrize("shuffle", [False, True, "batch"])
def test_no_read_is_larger_than_a_batch(path, layout, shuffle, monkeypatch):
    """With blocks of one batch, fit, evaluate and predict never ask for more rows than that."""
    monkeypatch.setattr(streaming, "_BLOCK", 1)
    watched, model = Watched(path, layout), _model()
    y = np.zeros(len(watched))

    model.fit(watched, y, batch_size=8, shuffle=shuffle, validation_split=0.5, verbose=0)
    model.evaluate(watched, y, batch_size=8, verbose=0)
    model.predict(watched, batch_size=8, verbose=0)

    assert watched.greatest == 8


def test_memory_does_not_grow_with_the_data(tmp_path):
    """Two shuffled epochs on 40 MB of compressed rows take a few blocks of one megabyte."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", data=np.zeros((10_000, 1000), "f4"), chunks=(100, 1000), compression="gzip")
    model = keras.Sequential([keras.Input((1000,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with HDF5Matrix(tmp_path / "a.h5", "x") as matrix:
        tracemalloc.start()
        model.fit(matrix, np.zeros(10_000), batch_size=100, epochs=2, verbose=0)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    assert peak < 10 * 2**20


def test_what_tensorflow_gets_is_nobody_elses(matrix):
    """TensorFlow writes into aligned arrays that it is given, so it gets none of the user's."""
    mine = streaming.empty_aligned((ROWS, 6), np.dtype("float32"))
    mine[:] = X
    normalized = HDF5Matrix(matrix.datapath, "contiguous", 0, ROWS, normalizer=lambda block: mine[: len(block)])
    stream = streaming.Stream((mine, normalized, matrix), ROWS)

    for block in stream._read(np.arange(ROWS)):
        assert not np.shares_memory(block, mine)


# --- rows that TensorFlow takes from where they lie -------------------------------------------------------


@pytest.fixture
def images(tmp_path):
    """Four megabytes of floats of Keras's own type, and labels behind them."""
    with h5py.File(tmp_path / "images.h5", "w") as file:
        file["x"] = np.random.default_rng(0).random((4000, 256), "float32")
        file["odd"] = b"odd"
        file["y"] = np.arange(4000) % 256
        file.create_dataset("gzip", data=file["x"], chunks=(100, 256), compression="gzip")
    return tmp_path / "images.h5"


@pytest.mark.parametrize(("name", "shuffle"), [("x", False), ("x", True), ("x", "batch"), ("gzip", True)])
def test_rows_that_lie_as_they_are_fed_are_not_read_by_python(images, name, shuffle, monkeypatch):
    """Batches are those that are read otherwise, from a window of the file and from what was unpacked of it."""
    data = HDF5Matrix(images, name, 100, 3900), HDF5Matrix(images, "y", 100, 3900)
    taken = streaming.Stream(data, 64, shuffle=shuffle, start=5, seed=1)
    monkeypatch.setattr(streaming.Stream, "_stored", lambda *_: [])
    read = list(streaming.Stream(data, 64, shuffle=shuffle, start=5, seed=1).dataset)

    asked, get = [], HDF5Matrix.__getitem__
    monkeypatch.setattr(HDF5Matrix, "__getitem__", lambda matrix, rows: asked.append(rows) or get(matrix, rows))
    for mine, other in zip(taken.dataset, read, strict=True):
        np.testing.assert_array_equal(mine[0], other[0])
        np.testing.assert_array_equal(mine[1], other[1])
    assert [np.arange(10)[rows].tolist() for rows in asked] == [[5], [5]]  # at the end, to look at the files


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize(("unseen", "most"), [(0, 40), (1e9, 4000)], ids=["now and then", "at the end"])
def test_a_change_is_noticed_while_rows_are_taken_from_the_file(images, monkeypatch, unseen, most, shuffle):
    """The file is looked at now and then, and at the end: no epoch ends well with rows that were changed in it."""
    monkeypatch.setattr(streaming, "_BLOCK", 1)
    monkeypatch.setattr(streaming, "_UNSEEN", unseen)
    taken = iter(streaming.Stream(HDF5Matrix(images, "x"), 1, shuffle=shuffle).dataset)
    next(taken)
    given = 0

    os.utime(images, (0, 0))

    with pytest.raises(tf.errors.OpError, match="has changed since it was opened"):
        for given, _ in enumerate(taken, 1):  # noqa: B007 - counted
            pass
    assert given < most


@pytest.mark.parametrize("change", [None, np.negative], ids=["taken", "read by Python"])
@pytest.mark.parametrize("steps", [None, 3])
def test_no_call_ends_well_on_rows_that_were_changed(images, monkeypatch, change, steps):
    """However late in the last epoch the file is changed, and whether Keras asks for the end of the data or not."""
    monkeypatch.setattr(streaming, "_UNSEEN", 1e9)
    matrix = HDF5Matrix(images, "x", normalizer=change)
    touch = keras.callbacks.LambdaCallback(
        on_predict_batch_begin=lambda batch, logs: batch == 2 and os.utime(images, (0, 0))
    )
    model = keras.Sequential([keras.Input((256,)), keras.layers.Activation("relu")])

    with pytest.raises(OSError, match="has changed since it was opened"):
        model.predict(matrix, batch_size=1000, steps=steps, verbose=0, callbacks=[touch])


@pytest.mark.parametrize("change", [None, np.negative], ids=["taken", "read by Python"])
def test_no_loop_ends_well_on_rows_that_were_changed(images, monkeypatch, change):
    """The file is looked at once more when the data set is at its end."""
    monkeypatch.setattr(streaming, "_UNSEEN", 1e9)
    taken = iter(batches(HDF5Matrix(images, "x", normalizer=change), 4000))
    next(taken)
    time.sleep(0.2)  # the next one is looked for ahead
    late = iter(batches(HDF5Matrix(images, "x", normalizer=change), 2000))
    next(late)

    os.utime(images, (0, 0))

    with pytest.raises(StopIteration):
        next(taken)
    with pytest.raises(tf.errors.OpError, match="has changed since it was opened"):
        list(late)


def test_a_window_may_be_closed_when_its_rows_have_been_read(images):
    """A callback of the last batch may do so."""
    matrix = HDF5Matrix(images, "x")
    close = keras.callbacks.LambdaCallback(on_predict_end=lambda _: matrix.close())
    model = keras.Sequential([keras.Input((256,)), keras.layers.Activation("relu")])

    assert len(model.predict(matrix, batch_size=1000, verbose=0, callbacks=[close])) == 4000


@pytest.mark.parametrize(
    "options",
    [
        {"steps_per_epoch": 4, "validation_split": 0.2},
        {"steps_per_epoch": 5, "validation_split": 0.5},
        {"validation_steps": 2, "validation_split": 0.2},
    ],
)
def test_steps_share_the_rows_that_they_are_steps_of(matrix, options):
    """Without a batch size, the rows that are held out, or those that are not, are what the steps divide."""
    fits = [_model().fit(x, Y, shuffle=False, verbose=0, epochs=2, **options) for x in (X, matrix)]

    assert fits[0].history == fits[1].history


def test_data_sets_are_made_inside_functions_of_tensorflow(images):
    """They go on reading when what made them has gone."""

    @tf.function
    def count():
        total = 0
        for batch in batches(HDF5Matrix(images, "y"), 300):
            total += tf.shape(batch)[0]
        return total

    counts = []
    for _ in range(2):
        counts.append(int(count()))
        gc.collect()

    assert counts == [4000, 4000]


@pytest.mark.parametrize("size", [np.int16(32), 10**30])
def test_any_whole_number_is_a_batch_size(images, size):
    """It need not be able to hold the bytes of a batch."""
    first = next(iter(batches(HDF5Matrix(images, "x"), size)))

    assert len(first) == min(int(size), 4000)


def test_a_clock_that_is_set_back_hides_no_change(images, monkeypatch):
    """A look that lies in the future is no look."""
    monkeypatch.setattr(streaming, "_BLOCK", 1)
    stream = streaming.Stream(HDF5Matrix(images, "x"), 1)
    stream._looked[0] = time.time() + 3600
    taken = iter(stream.dataset)
    next(taken)

    os.utime(images, (0, 0))
    stream._looked[0] = time.time() + 3600

    with pytest.raises(tf.errors.OpError, match="has changed since it was opened"):
        [next(taken) for _ in range(100)]
    assert isinstance(stream.error, OSError)


def test_a_window_that_is_closed_gives_no_more_rows(images):
    """The mapped file is there still, and nobody gets at it."""
    matrix = HDF5Matrix(images, "x")
    stream = streaming.Stream(matrix, 8)

    matrix.close()

    with pytest.raises(tf.errors.InvalidArgumentError, match="is closed"):
        list(stream.dataset)


@pytest.mark.parametrize(("name", "few"), [("x", 0), ("y", 2**24)])
def test_where_tensorflow_cannot_take_rows_they_are_copied_or_read(images, name, few, monkeypatch):
    """Data at an odd place are copied if they are small, and read batch by batch if not."""
    monkeypatch.setattr(streaming, "_FEW", few)
    matrix = HDF5Matrix(images, name, 1)

    got = np.concatenate(list(batches(matrix, 64)))

    np.testing.assert_array_equal(got, matrix[:])


def test_what_reads_otherwise_is_asked(images):
    """Something that hands on all but the reading to a window has the window's attributes, and other rows."""

    class Doubled:
        is_read_by_rows = True

        def __init__(self, window):
            self.window = window

        def __getattr__(self, name):
            return getattr(self.window, name)

        def __getitem__(self, rows):
            return 2 * self.window[rows]

    window = HDF5Matrix(images, "x")

    got = next(iter(batches(Doubled(window), 8)))

    np.testing.assert_array_equal(got, 2 * window[:8])


def test_rows_beside_the_window_are_not_looked_at(tmp_path):
    """They may hold what cannot be converted."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.array([1.0, 2.0, 1e300])

    got = [batch.numpy().tolist() for batch in batches(HDF5Matrix(tmp_path / "a.h5", "x", 0, 2), 1)]

    assert got == [[1.0], [2.0]]


def test_a_graph_reads_as_before(images):
    """It has no place for a tensor on a file."""
    with tf.Graph().as_default():
        feed = batches(HDF5Matrix(images, "y"), 3)
        iterator = tf.compat.v1.data.make_initializable_iterator(feed)
        batch = iterator.get_next()
        with tf.compat.v1.Session() as session:
            session.run(iterator.initializer)

            assert session.run(batch).tolist() == [0, 1, 2]


def test_rows_are_taken_until_the_last_user_is_gone(images):
    """The file stays mapped as long as a data set may read it, and no longer."""
    feed = batches(HDF5Matrix(images, "x"), 64)
    gc.collect()
    assert str(images) in Path("/proc/self/maps").read_text()

    assert sum(len(batch) for batch in feed) == 4000
    del feed
    gc.collect()

    assert str(images) not in Path("/proc/self/maps").read_text()


# --- errors -----------------------------------------------------------------------------------------------


def test_an_error_while_reading_is_the_original_one(tmp_path):
    """A file that changes under a fit is named by the error that reading it gives."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = X
    matrix = HDF5Matrix(tmp_path / "a.h5", "x")
    touch = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: os.utime(tmp_path / "a.h5", (0, 0)))

    with pytest.raises(OSError, match=r"'x' of .*a\.h5 has changed since it was opened"):
        _model().fit(matrix, Y, callbacks=[touch], epochs=3, verbose=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"y": Y[:-1]}, "the arrays have different numbers of rows: 49, 50"),
        ({"y": LABELS.tolist()}, "targets and sample weights must be arrays"),
        ({"validation_split": 0.999}, "50 rows cannot be divided by validation_split=0.999"),
        ({"class_weight": {0: 1.0}, "sample_weight": WEIGHTS}, "class_weight needs .* no sample_weight"),
        ({"class_weight": {0: 1.0}, "y": [Y, Y]}, "class_weight needs targets y for a single output"),
        ({"class_weight": "auto"}, r"class_weight must be a dictionary .* as \{0: 1.0, 1: 5\}, not 'auto'"),
        ({"class_weight": [1.0, 5.0]}, r"class_weight must be a dictionary .*, not \[1.0, 5.0\]"),
        ({"shuffle": "btach"}, "shuffle must be True, False or 'batch', not 'btach'"),
        ({"shuffle": ["batch"]}, r"shuffle must be True, False or 'batch', not \['batch'\]"),
    ],
)
def test_what_does_not_fit_together_is_said_before_training(matrix, options, message):
    """Different numbers of rows, lists of numbers, an empty part and an order that there is not are refused."""
    with pytest.raises(ValueError, match=message):
        _model().fit(**{"x": matrix, "y": Y, **options})


def test_a_window_without_rows_is_refused(path):
    """There is nothing to predict for none."""
    with pytest.raises(ValueError, match="there are no rows from 0 to 0"):
        _model().predict(HDF5Matrix(path, "contiguous", 3, 3), verbose=0)


# --- batches for loops of one's own -----------------------------------------------------------------------


@settings(max_examples=12, deadline=None)
@given(
    file=st.tuples(st.sampled_from(["single", "gzip"]), st.sampled_from([1, 500, 2**20])),
    size=st.integers(1, 12),
    shuffle=st.sampled_from([False, True, "batch"]),
    bounds=st.tuples(st.integers(0, 20), st.integers(21, 50)),
)
def test_each_epoch_has_every_row_once(path, file, size, shuffle, bounds):
    """Batches have the size asked for, and the order is the one that the documentation promises."""
    (layout, block), (start, end) = file, bounds
    data = (HDF5Matrix(path, layout, 7, 7 + ROWS), {"y": [np.arange(ROWS)]})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming, "_BLOCK", block)
        feed = batches(data, size, shuffle=shuffle, start=start, end=end, seed=3)

    epochs = [[(x.numpy(), y["y"][0].numpy()) for x, y in feed] for _ in range(2)]

    whole, rest = divmod(end - start, size)
    lengths = [size] * whole + [rest] * bool(rest)
    assert feed.cardinality() == len(lengths)
    for epoch in epochs:
        assert [len(y) for _, y in epoch] == lengths
        numbers = np.concatenate([y for _, y in epoch])
        assert sorted(numbers) == list(range(start, end))
        np.testing.assert_array_equal(np.concatenate([x for x, _ in epoch]), X[numbers].astype("float32"))
        if shuffle is False:
            assert list(numbers) == list(range(start, end))
        if shuffle == "batch":
            assert all((np.diff(y) == 1).all() and (y[0] - start) % size == 0 for _, y in epoch)
            assert not rest or epoch[-1][1][-1] == end - 1
    orders = [np.concatenate([y for _, y in epoch]) for epoch in epochs]
    if shuffle is True and end - start > 15:
        assert list(orders[0]) != list(orders[1])
        again = batches(data, size, shuffle=True, start=start, end=end, seed=3)
        np.testing.assert_array_equal(np.concatenate([y["y"][0] for _, y in again]), orders[0])


# --- how Keras is taught ----------------------------------------------------------------------------------


HELD_OUT = "validation_data validation_split validation_batch_size validation_steps"


@pytest.mark.parametrize(
    ("method", "used"),
    [
        ("fit", f"x y sample_weight class_weight batch_size steps_per_epoch shuffle {HELD_OUT}"),
        ("evaluate", "x y batch_size sample_weight steps"),
        ("predict", "x batch_size steps"),
    ],
)
def test_keras_has_the_arguments_that_are_replaced(method, used):
    """When an upgrade of Keras renames one, kflow/core/fitting.py must follow."""
    found = inspect.signature(getattr(keras.Model, method)).parameters

    missing = set(used.split()) - set(found)
    assert not missing, f"keras.Model.{method} has no {missing}: adapt _prepare_{method} in kflow/core/fitting.py"


def test_calls_without_windows_are_those_of_keras(matrix):
    """The method that Keras has is called with what was given, and complains as it does."""
    del matrix
    plain = keras.Model.fit.__wrapped__
    model = _model()
    expected = plain(model, X, Y, epochs=2, batch_size=8, verbose=0).history, model.get_weights()

    _assert_same(_fit(X, Y, shuffle=True), expected)
    with pytest.raises(TypeError, match="unexpected keyword argument 'epoch'"):
        model.fit(X, Y, epoch=1)


def test_keras_may_be_loaded_after_a_window_is_made(path, tmp_path):
    """Making or unpickling a window waits for Keras without loading it, and teaches it once."""
    (tmp_path / "matrix").write_bytes(pickle.dumps(HDF5Matrix(path, "contiguous")))
    code = """
import importlib.util, json, pickle, sys
from pathlib import Path
def waiting():
    return sum(type(finder).__name__ == "_KerasWatcher" for finder in sys.meta_path)
matrix, _ = (pickle.loads(Path(sys.argv[1]).read_bytes()) for _ in range(2))
before = waiting(), "keras" in sys.modules
importlib.util.find_spec("keras")  # looks, and does not load
import keras
pickle.loads(Path(sys.argv[1]).read_bytes())
twice = hasattr(keras.Model.fit.__wrapped__, "reads_by_rows")
print(json.dumps([before, waiting(), keras.Model.fit.reads_by_rows, twice]))
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "matrix"], capture_output=True, text=True, check=True)

    assert json.loads(done.stdout.splitlines()[-1]) == [[1, False], 0, True, False]


def test_a_training_keeps_no_window_alive(tmp_path):
    """When nobody uses them any more the windows are gone, with their files and what was unpacked for shuffling."""
    path = tmp_path / "data.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.ones((64, 3), "float32"), chunks=(8, 3), compression="gzip")
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    window = HDF5Matrix(path, "x")
    gone = weakref.ref(window)

    model.fit(window, np.ones(64), verbose=0)
    model.predict(window, verbose=0)
    del window
    gc.collect()

    assert gone() is None


def test_batches_keep_what_they_read_alive(tmp_path):
    """A data set that was derived from one of ours reads on when nobody else holds the window."""
    path = tmp_path / "data.h5"
    with h5py.File(path, "w") as file:
        file["x"] = np.arange(6)

    doubled = batches(HDF5Matrix(path, "x"), batch_size=4).map(lambda x: 2 * x)
    gc.collect()

    assert [batch.numpy().tolist() for batch in doubled] == [[0, 2, 4, 6], [8, 10]]


def test_the_first_window_of_a_process_streams_when_it_is_made_in_the_call(tmp_path):
    """Python takes the method of the model before it makes the window."""
    path = tmp_path / "data.h5"
    with h5py.File(path, "w") as file:
        file["x"] = np.ones((64, 3), "float32")
    code = """if True:
        import sys, keras
        from kflow.core import HDF5Matrix
        class Watched(HDF5Matrix):
            def __array__(self, *args, **kwargs):
                raise SystemExit("read whole")
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        print(model.predict(Watched(sys.argv[1], "x"), verbose=0).shape)
    """

    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)

    assert done.stdout == "(64, 1)\n", done.stderr


@pytest.mark.parametrize("size", [0, -3, 1.5])
def test_a_batch_has_at_least_one_row(tmp_path, size):
    """Sizes that mean nothing are named."""
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["x"] = np.arange(4)

    with pytest.raises(ValueError, match=f"batch_size must be a number of rows, at least 1, not {size}"):
        batches(HDF5Matrix(tmp_path / "data.h5", "x"), batch_size=size)
