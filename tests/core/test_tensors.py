import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from kflow.core import normalize, to_categorical
from kflow.core.rows.views import RowsView


def eagerly(function, x):
    """Call a function with a tensor that has values."""
    return function(tf.constant(x))


def in_a_graph(function, x):
    """Call a function in a graph whose tensors have no values yet."""
    return tf.function(function, autograph=False)(tf.constant(x))


def in_a_data_set(function, x):
    """Call a function in a pipeline of batches."""
    return next(iter(tf.data.Dataset.from_tensors(tf.constant(x)).map(function)))


ROUTES = pytest.mark.parametrize("route", [eagerly, in_a_graph, in_a_data_set])

ENCODINGS = [
    ([2, 0, 1], {"num_classes": 3}),
    ([[2], [0]], {"num_classes": 3, "dtype": "uint8"}),
    (np.array([[1.0, 2.0]], "float32"), {"num_classes": 4, "label_smoothing": 0.2}),
    ([True, False], {"num_classes": 2, "dtype": "bool"}),
    (np.array([3, 1], "uint8"), {"num_classes": 4, "sparse": True}),
    (["dog", "cat"], {"classes": ["cat", "dog"]}),
    ([5, 7], {"classes": [7, 6, 5], "label_smoothing": 0.3, "dtype": "float64"}),
    (np.array([0.5, -1.0], "float32"), {"classes": [-1.0, 0.5], "sparse": True}),
    ([2, 0, 1], {"num_classes": 3, "dtype": tf.float16, "label_smoothing": 0.3}),
    ([2, 0, 1], {"num_classes": 3, "dtype": "bfloat16"}),
    (np.array([2, 0, 1], tf.bfloat16.as_numpy_dtype), {"num_classes": 3, "dtype": tf.bfloat16}),
    (np.array([0.5, -1.0], tf.bfloat16.as_numpy_dtype), {"classes": [-1.0, 0.5], "sparse": True}),
]


@ROUTES
@pytest.mark.parametrize(("y", "options"), ENCODINGS)
def test_labels_in_tensors_become_tensors(route, y, options):
    """A tensor is encoded as the array of its values is."""
    got = route(lambda tensor: to_categorical(tensor, **options), y)

    expected = to_categorical(y, **options)
    assert tf.is_tensor(got)
    assert got.dtype.name == expected.dtype.name
    np.testing.assert_allclose(got, expected, rtol=1e-6)


WRONG = [
    ([0, 1, -1], {"num_classes": 3}, -1),
    ([0, 1, 3], {"num_classes": 3, "sparse": True}, 3),
    ([0.0, 1.0, 1.5], {"num_classes": 3}, 1.5),
    ([0.0, 1.0, math.nan], {"num_classes": 3}, "nan"),
    ([0.0, 1.0, math.inf], {"num_classes": 3}, "inf"),
    (np.array([0.0, 1.0, 1.5], tf.bfloat16.as_numpy_dtype), {"num_classes": 3}, 1.5),
    (["cat", "dog", "cow"], {"classes": ["cat", "dog"]}, "cow"),
    ([1, 2, 0], {"classes": [1, 2], "dtype": "int32"}, 0),
]


@pytest.mark.parametrize(("y", "options", "label"), WRONG)
def test_a_wrong_label_in_a_tensor_is_named_with_its_index(y, options, label):
    """Eagerly it is the error of arrays; in a graph TensorFlow's, when it runs."""
    with pytest.raises(ValueError, match=f"label b?'?{label}'? at index 2 "):
        to_categorical(tf.constant(y), **options)
    for route in in_a_graph, in_a_data_set:
        with pytest.raises(tf.errors.InvalidArgumentError, match=rf"\[label\] \[{label}\] \[at index\] \[\[2\]\]"):
            route(lambda tensor: to_categorical(tensor, **options), y)


def test_xla_does_not_make_a_row_of_zeros_of_a_wrong_label():
    """XLA leaves assertions out, so the row is NaN, and any loss of it too."""
    encode = tf.function(lambda y: to_categorical(y, 3), jit_compile=True, autograph=False)

    np.testing.assert_array_equal(encode(tf.constant([1, -1])), [[0, 1, 0], [math.nan] * 3])


def test_the_number_of_classes_of_a_tensor():
    """It is found where there are values, and must be given in a graph."""
    assert to_categorical(tf.constant([0, 4])).shape == (2, 5)
    with pytest.raises(ValueError, match="known only when the graph runs; give num_classes or classes"):
        in_a_graph(to_categorical, [0, 4])
    with pytest.raises(ValueError, match="known only when the model runs; give num_classes or classes"):
        to_categorical(keras.Input((1,), dtype="int32"))


VECTORS = np.random.default_rng(0).normal(size=(4, 3, 2))
VECTORS[0, 0] = 0


@pytest.mark.parametrize("axis", [0, -1, (0, 2)])
@pytest.mark.parametrize("order", [2, 1, 3, 0.5, 0, math.inf, -math.inf, -1])
def test_vectors_in_tensors_become_tensors(axis, order):
    """A tensor is normalized as the array of its values is."""
    expected = normalize(VECTORS, axis, order)
    for route in eagerly, in_a_graph:
        got = route(lambda tensor: normalize(tensor, axis, order), VECTORS)

        assert tf.is_tensor(got)
        np.testing.assert_allclose(got, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("x", "dtype"), [(np.array([[300, 400]], "float16"), "float16"), ([[3, 4]], "float32"), ([[3e30, 4e30]], "float32")]
)
def test_types_and_ranges_of_tensors(x, dtype):
    """Floats keep their type, whole numbers take that of Keras, and nothing overflows."""
    got = normalize(tf.constant(x))

    assert got.dtype == dtype
    np.testing.assert_allclose(got, [[0.6, 0.8]], rtol=1e-3)


def test_gradients_flow_through_normalize():
    """The gradient is that of x / |x|, and zero vectors give none that is NaN."""
    x = tf.Variable([[3.0, 4.0], [0.0, 0.0]])
    with tf.GradientTape() as tape:
        first = normalize(x)[:, 0]

    np.testing.assert_allclose(tape.gradient(first, x), [[16 / 125, -12 / 125], [1, 0]], rtol=1e-6)


@pytest.mark.parametrize("order", [0.5, 0.1, 1, 1.5, 2, 3])
@pytest.mark.parametrize("vector", [[0.0, 3.0, -2.0], [0.0, 0.0, 4.0], [1.0, -2.0, 0.5]])
def test_gradients_are_those_of_the_formula_where_entries_are_zero(order, vector):
    """For L the length, d(x_i / L)/dx_j = [i = j] / L - x_i dL/dx_j / L², with a slope of 0 at a cusp."""
    x = tf.Variable([vector], dtype="float64")
    with tf.GradientTape() as tape:
        unit = normalize(x, -1, order)

    (v,) = x.numpy()
    length = np.sum(np.abs(v) ** order) ** (1 / order)
    slope = np.array([np.sign(each) * (abs(each) / length) ** (order - 1) if each else 0.0 for each in v])
    expected = np.eye(3) / length - np.outer(v, slope) / length**2
    np.testing.assert_allclose(tape.jacobian(unit, x)[0, :, 0], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("order", [0, 0.5, 1, 2, 3, -1, -0.5, math.inf, -math.inf])
def test_vectors_that_stay_as_they_are_hand_gradients_on(order):
    """Those of length 0: of zeros alone, and for orders below 0 of any with a zero."""
    x = tf.Variable([[0.0, 0.0], [0.0, 3.0]] if order < 0 else [[0.0, 0.0]])
    with tf.GradientTape() as tape:
        unit = normalize(x, -1, order)

    np.testing.assert_array_equal(tape.gradient(unit, x, tf.fill(x.shape, 5.0)), np.full(x.shape, 5.0))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: normalize(tf.ragged.constant([[1], [2, 3]])),
            TypeError,
            "not a RaggedTensor; make it one with to_tensor",
        ),
        (lambda: to_categorical(tf.sparse.from_dense([[1]])), TypeError, "make it one with tf.sparse.to_dense"),
        (lambda: normalize(tf.constant([1j])), TypeError, "only real numbers can be normalized, not type complex128"),
        (lambda: normalize(tf.constant([1.0]), lazy=True), TypeError, "out and lazy are for arrays"),
        (lambda: to_categorical(tf.constant([1]), lazy=True), TypeError, "lazy is for arrays"),
        (lambda: normalize(tf.constant([1.0]), 1), ValueError, "axis 1 is out of bounds"),
        (lambda: in_a_graph(lambda y: to_categorical(y, 3), ["1"]), TypeError, "for others give classes"),
        (lambda: in_a_graph(lambda y: to_categorical(y, classes=["a"]), [1]), TypeError, "int32 cannot be the classes"),
        (lambda: in_a_graph(lambda y: to_categorical(y, classes=[0.5]), [1]), TypeError, "int32 cannot be the classes"),
        (
            lambda: in_a_graph(lambda y: to_categorical(y, classes=[2**53 + 1]), np.array([2.0**53])),
            TypeError,
            "float64 cannot be the classes",
        ),
        (
            lambda: tf.function(normalize, input_signature=[tf.TensorSpec(None)])(tf.constant([1.0])),
            ValueError,
            "the number of axes of this tensor is not known; give it with tf.ensure_shape",
        ),
    ],
)
def test_what_cannot_be_done_with_tensors_is_refused(call, error, message):
    """Each mistake has its own message."""
    with pytest.raises(error, match=message):
        call()


def test_both_work_inside_a_model(tmp_path):
    """Tensors of Keras become operations of the model, which is saved and loaded with them."""
    labels, vectors = keras.Input((1,), dtype="int32"), keras.Input((4,))
    outputs = [to_categorical(labels, classes=[3, 4, 5], label_smoothing=0.3), normalize(vectors, order=1)]
    model = keras.Model([labels, vectors], outputs)
    given = [np.array([[5], [3]]), np.array([[1.0, 1, 1, 1], [0, 0, 0, 0]], "float32")]

    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")

    assert [output.shape for output in outputs] == [(None, 3), (None, 4)]
    for each in model, again:
        rows, units = each.predict(given, verbose=0)
        np.testing.assert_allclose(rows, [[0.1, 0.1, 0.8], [0.8, 0.1, 0.1]], rtol=1e-6)
        np.testing.assert_allclose(units, [[0.25] * 4, [0] * 4])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"\[label\] \[6\]"):
        model.predict([np.array([[6], [3]]), given[1]], verbose=0)


def test_keras_reads_views_batch_by_batch(monkeypatch):
    """``fit`` with views gives the losses of ``fit`` with arrays, and never calculates all rows at once."""
    x = np.random.default_rng(0).normal(size=(60, 4)).astype("float32")
    y = np.arange(60) % 3
    losses = []
    for lazy in False, True:
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
        model.compile(loss="categorical_crossentropy")
        inputs, targets = normalize(x, lazy=lazy), to_categorical(y, lazy=lazy)
        if lazy:
            monkeypatch.delattr(RowsView, "__array__")
        losses.append(model.fit(inputs, targets, batch_size=7, epochs=2, shuffle=False, verbose=0).history["loss"])

    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


def test_results_agree_with_keras():
    """The values are those of today's Keras, where it is right."""
    y = np.random.default_rng(0).integers(0, 5, (6, 2))
    x = VECTORS[1:]

    np.testing.assert_array_equal(to_categorical(y, 5), keras.utils.to_categorical(y, 5))
    for axis, order in itertools.product([-1, 1], [1, 2, math.inf]):
        np.testing.assert_allclose(normalize(x, axis, order), keras.utils.normalize(x, axis, order))
