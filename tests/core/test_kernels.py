"""Kernels are compared with convolutions written out as sums in NumPy."""

import itertools
import re
import warnings

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from kflow.core.kernels import (
    convert_all_kernels_in_model,
    convert_dense_weights_data_format,
    convert_kernel,
)

L = keras.layers

CONVOLUTIONS = {
    "Conv1D": (lambda: L.Conv1D(3, 3), 1),
    "Conv2D": (lambda: L.Conv2D(3, (2, 3)), 2),
    "Conv3D": (lambda: L.Conv3D(3, 2), 3),
    "grouped": (lambda: L.Conv2D(4, 3, groups=2), 2),
    "Conv1DTranspose": (lambda: L.Conv1DTranspose(3, 3), 1),
    "Conv2DTranspose": (lambda: L.Conv2DTranspose(3, 3), 2),
    "Conv3DTranspose": (lambda: L.Conv3DTranspose(3, 2), 3),
    "DepthwiseConv1D": (lambda: L.DepthwiseConv1D(3), 1),
    "DepthwiseConv2D": (lambda: L.DepthwiseConv2D(3), 2),
    "SeparableConv1D": (lambda: L.SeparableConv1D(3, 3), 1),
    "SeparableConv2D": (lambda: L.SeparableConv2D(3, 3), 2),
}


class Sharpen(L.Conv2D):
    """A subclass, which Keras 2.1 passed over."""


class Pair(L.Layer):
    """A custom layer that keeps convolutions in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = [L.Conv2D(2, 3), L.Conv2D(2, 3)]

    def call(self, x):
        """Apply one after the other."""
        return self.steps[1](self.steps[0](x))


def reversed_by_hand(kernel: np.ndarray) -> np.ndarray:
    """Reverse each spatial axis, one element at a time."""
    result = np.empty_like(kernel)
    spatial = kernel.shape[:-2]
    for place in itertools.product(*map(range, spatial)):
        result[place] = kernel[tuple(size - 1 - index for size, index in zip(spatial, place, strict=True))]
    return result


def true_convolution(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Sum image[p + size - 1 - q] * kernel[q] over the places q and the channels, where all are inside."""
    spatial = kernel.shape[:-2]
    valid = [have - want + 1 for have, want in zip(image.shape[:-1], spatial, strict=True)]
    result = np.zeros([*valid, kernel.shape[-1]])
    for p in itertools.product(*map(range, valid)):
        for q in itertools.product(*map(range, spatial)):
            at = tuple(a + size - 1 - b for a, b, size in zip(p, q, spatial, strict=True))
            result[p] += image[at] @ kernel[q]
    return result


def kernels_of(model) -> list[np.ndarray]:
    return [w.value.numpy() for w in model.weights if w.name in {"kernel", "depthwise_kernel", "recurrent_kernel"}]


kernels = nps.arrays(
    np.float32, nps.array_shapes(min_dims=3, max_dims=5, max_side=4), elements=st.floats(-9, 9, width=32)
)


@given(kernels)
def test_a_kernel_is_reversed_along_each_spatial_axis(kernel):
    """Every element moves to the mirrored place, in all ranks."""
    assert np.array_equal(convert_kernel(kernel), reversed_by_hand(kernel))


@given(kernels)
def test_converting_twice_changes_nothing(kernel):
    """The conversion is its own inverse and keeps the dtype."""
    twice = convert_kernel(convert_kernel(kernel))

    assert (twice.tobytes(), twice.dtype) == (kernel.tobytes(), kernel.dtype)


def test_the_argument_stays_as_it_is():
    """The result is a new array, so writing to it leaves the kernel alone."""
    kernel = np.arange(3.0).reshape(3, 1, 1)
    convert_kernel(kernel)[:] = -1

    assert kernel.ravel().tolist() == [0, 1, 2]


@pytest.mark.parametrize("rank", [0, 1, 2, 6])
def test_other_ranks_are_refused(rank):
    """An array that cannot be a kernel is an error that shows its shape."""
    shape = (1,) * rank

    with pytest.raises(ValueError, match=r"kernel of shape \(.*three spatial axes"):
        convert_kernel(np.zeros(shape))


@pytest.mark.parametrize(("rank", "layer"), [(1, L.Conv1D), (2, L.Conv2D), (3, L.Conv3D)])
def test_a_converted_layer_computes_a_true_convolution(rank, layer):
    """What was a cross-correlation with the kernel becomes a convolution with it."""
    model = keras.Sequential([keras.Input((5,) * rank + (2,)), layer(3, (3, 2, 3)[:rank], use_bias=False)])
    kernel = model.get_weights()[0]
    image = np.random.default_rng(0).normal(size=(5,) * rank + (2,)).astype("float32")
    convert_all_kernels_in_model(model)

    np.testing.assert_allclose(model(image[None]).numpy()[0], true_convolution(image, kernel), atol=1e-5)


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_every_kind_of_convolution_is_converted(kind):
    """Plain, transposed, depthwise and separable kernels turn; biases and pointwise kernels stay."""
    make, rank = CONVOLUTIONS[kind]
    model = keras.Sequential([keras.Input((6,) * rank + (2,)), make()])
    model.set_weights([np.random.default_rng(1).normal(size=w.shape) for w in model.weights])
    before = model.get_weights()
    convert_all_kernels_in_model(model)
    after = model.get_weights()

    assert np.array_equal(after[0], reversed_by_hand(before[0]))
    assert not np.array_equal(after[0], before[0])
    assert all(np.array_equal(a, b) for a, b in zip(after[1:], before[1:], strict=True))


def test_a_convolutional_lstm_turns_both_kernels():
    """The input's and the state's kernel are convolutions both."""
    model = keras.Sequential([keras.Input((2, 5, 5, 1)), L.ConvLSTM2D(2, 3)])
    before = kernels_of(model)
    convert_all_kernels_in_model(model)
    after = kernels_of(model)

    assert len(before) == 2
    assert all(np.array_equal(a, reversed_by_hand(b)) for a, b in zip(after, before, strict=True))


def test_nested_wrapped_subclassed_and_shared_layers_turn_once():
    """Each kernel at any depth is reversed exactly once, however often its layer is used."""
    shared = L.Conv2D(1, 3, padding="same")
    inner = keras.Sequential([keras.Input((12, 12, 1)), shared, L.TimeDistributed(L.Conv1D(2, 3)), Pair()])
    x = keras.Input((12, 12, 1))
    y = keras.Input((12, 12, 1))
    model = keras.Model([x, y], L.Add()([Sharpen(1, 2)(inner(shared(x))), Sharpen(1, 2)(inner(y))]))
    before = kernels_of(model)
    convert_all_kernels_in_model(model)
    after = kernels_of(model)

    assert len(before) == 6
    assert all(np.array_equal(a, reversed_by_hand(b)) for a, b in zip(after, before, strict=True))


def test_other_layers_stay_as_they_are():
    """Dense, embedding and recurrent weights are not convolutions."""
    model = keras.Sequential([keras.Input((4,), dtype="int32"), L.Embedding(9, 3), L.LSTM(2), L.Dense(2)])
    before = [w.tobytes() for w in model.get_weights()]
    convert_all_kernels_in_model(model)

    assert [w.tobytes() for w in model.get_weights()] == before


def test_low_rank_adaptation_turns_with_its_kernel():
    """The effective kernel of a layer with LoRA is reversed, although it is computed from parts."""
    layer = L.Conv2D(3, 3)
    model = keras.Sequential([keras.Input((6, 6, 2)), layer])
    layer.enable_lora(2, b_initializer="ones")
    before = layer.kernel.numpy()
    convert_all_kernels_in_model(model)

    np.testing.assert_allclose(layer.kernel.numpy(), reversed_by_hand(before), rtol=1e-6)


def test_an_unbuilt_layer_is_an_error_and_changes_nothing():
    """The error names the layer, and the kernels found before it are as they were."""
    built = L.Conv1D(2, 3)
    built.build((None, 8, 1))
    before = built.get_weights()[0]
    model = keras.Sequential([built, L.Conv1D(2, 3, name="late")])

    with pytest.raises(ValueError, match=r"'late' has no kernel yet; build"):
        convert_all_kernels_in_model(model)
    assert np.array_equal(built.get_weights()[0], before)


def test_what_is_no_model_is_refused():
    """A path given for a model is a TypeError that says what is wanted."""
    path = "model.keras"

    with pytest.raises(TypeError, match=r"model is a str; give a keras\.Model"):
        convert_all_kernels_in_model(path)


@given(
    st.lists(st.integers(1, 4), min_size=2, max_size=4).map(tuple),
    st.sampled_from(["channels_first", "channels_last"]),
    st.booleans(),
)
def test_a_dense_layer_gives_the_same_on_the_other_data_format(shape, target, use_bias):
    """The converted layer on the converted map equals the first layer on the first map."""
    rng = np.random.default_rng(0)
    feature_map = rng.normal(size=shape)  # in the target format
    first = target == "channels_first"
    original = np.moveaxis(feature_map, 0, -1) if first else np.moveaxis(feature_map, -1, 0)
    dense = L.Dense(3, use_bias=use_bias)
    dense.build((None, feature_map.size))
    expected = original.ravel() @ dense.get_weights()[0]
    convert_dense_weights_data_format(dense, shape, target)

    np.testing.assert_allclose(feature_map.ravel() @ dense.get_weights()[0], expected, atol=1e-5)


def test_a_shape_that_does_not_fit_is_refused():
    """The error shows the shape and the rows it should have."""
    dense = L.Dense(3)
    dense.build((None, 32))

    with pytest.raises(ValueError, match=r"\(2, 4, 5\) does not fit .* 32 rows"):
        convert_dense_weights_data_format(dense, (2, 4, 5))


@pytest.mark.parametrize("shape", [None, 24, "234", [2, 3.0, 4], (None, 3, 4)])
def test_a_shape_must_be_a_sequence_of_whole_numbers(shape):
    """A single number, a text and a batch axis are told as what they are."""
    dense = L.Dense(3)
    dense.build((None, 24))

    with pytest.raises(TypeError, match=re.escape(f"before Flatten, such as (channels, rows, columns), not {shape!r}")):
        convert_dense_weights_data_format(dense, shape)


@pytest.mark.parametrize("data_format", ["channel_first", ["channels_first"], None])
def test_an_unknown_data_format_is_refused(data_format):
    """A misspelt format is named."""
    dense = L.Dense(3)
    dense.build((None, 32))

    with pytest.raises(ValueError, match=re.escape(f"{data_format!r}; use 'channels_first' or")):
        convert_dense_weights_data_format(dense, (2, 4, 4), data_format)


def test_only_a_dense_layer_is_reordered():
    """A convolution given by mistake is refused."""
    layer = L.Conv1D(1, 1)

    with pytest.raises(TypeError, match=r"dense is a Conv1D; give a keras\.layers\.Dense"):
        convert_dense_weights_data_format(layer, (2, 4, 4))


def test_an_unbuilt_dense_layer_is_refused():
    """A layer without a kernel is an error that says what to do."""
    dense = L.Dense(3, name="head")

    with pytest.raises(ValueError, match=r"'head' has no kernel yet; build"):
        convert_dense_weights_data_format(dense, (2, 4, 4))


# --- against convolving ------------------------------------------------------------------------------------

MIRRORED = {
    "Conv1D": lambda: L.Conv1D(3, 3),
    "Conv1D same": lambda: L.Conv1D(3, 5, padding="same", activation="relu"),
    "Conv2D dilated": lambda: L.Conv2D(4, 3, groups=2, dilation_rate=2, padding="same"),
    "Conv2D strided": lambda: L.Conv2D(3, 3, strides=2),
    "Conv3D": lambda: L.Conv3D(2, (2, 3, 1)),
    "Conv1DTranspose": lambda: L.Conv1DTranspose(3, 4, strides=3),
    "Conv2DTranspose": lambda: L.Conv2DTranspose(3, (2, 3)),
    "Conv3DTranspose": lambda: L.Conv3DTranspose(2, 2, strides=2),
    "DepthwiseConv1D": lambda: L.DepthwiseConv1D(3, depth_multiplier=2),
    "DepthwiseConv2D": lambda: L.DepthwiseConv2D(3),
    "SeparableConv1D": lambda: L.SeparableConv1D(3, 3),
    "SeparableConv2D": lambda: L.SeparableConv2D(3, (3, 1), padding="same"),
    "ConvLSTM1D": lambda: L.ConvLSTM1D(2, 3, padding="same"),
    "ConvLSTM2D": lambda: L.ConvLSTM2D(2, 3),
    "ConvLSTM3D": lambda: L.ConvLSTM3D(1, 3),
}


@pytest.mark.parametrize("kind", MIRRORED)
def test_the_converted_layer_sees_the_mirrored_input(kind):
    """A layer with turned kernels gives on an input what it gave on the mirrored one, mirrored."""
    layer = MIRRORED[kind]()
    rank = int(kind[re.search(r"\dD", kind).start()])
    axes = tuple(range(-rank - 1, -1))
    shape = (1, *((2,) if "LSTM" in kind else ()), *(5,) * rank, 2)
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    before = np.asarray(layer(np.flip(x, axes)))
    convert_all_kernels_in_model(layer)
    after = np.asarray(layer(x))

    np.testing.assert_allclose(after, np.flip(before, axes), atol=1e-5)
    assert not np.allclose(after, before, atol=1e-3)


@st.composite
def convolutions(draw):
    """Draw an image of one to three spatial axes and a kernel that fits into it, of small whole numbers."""
    rank = draw(st.integers(1, 3))
    size = draw(st.tuples(*[st.integers(1, 3)] * rank))
    image = tuple(side + draw(st.integers(0, 2)) for side in size)
    channels = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    numbers = st.integers(-9, 9)
    return (
        draw(nps.arrays(np.float64, (*image, channels[0]), elements=numbers)),
        draw(nps.arrays(np.float64, (*size, *channels), elements=numbers)),
    )


@settings(max_examples=60, deadline=None)
@given(convolutions())
def test_correlating_with_the_converted_kernel_is_a_true_convolution(drawn):
    """Keras's operation with the turned kernel gives the sum that defines a convolution, to the last bit."""
    image, kernel = drawn
    result = np.asarray(keras.ops.conv(image[None], convert_kernel(kernel), padding="valid"))[0]

    assert np.array_equal(result, true_convolution(image, kernel))


@settings(max_examples=60, deadline=None)
@given(convolutions(), st.integers(1, 2))
def test_correlating_with_the_converted_kernel_is_mirroring_twice(drawn, stride):
    """conv(x, turned k) = mirror(conv(mirror(x), k)), when the strides end where the image does."""
    image, kernel = drawn
    axes = tuple(range(1, image.ndim))
    fitting = (have - (have - size) % stride for have, size in zip(image.shape, kernel.shape[:-2], strict=False))
    x = image[tuple(slice(each) for each in fitting)][None]
    straight = np.asarray(keras.ops.conv(x, convert_kernel(kernel), strides=stride, padding="valid"))
    mirrored = np.asarray(keras.ops.conv(np.flip(x, axes).copy(), kernel, strides=stride, padding="valid"))

    assert np.array_equal(straight, np.flip(mirrored, axes))


# --- report, dry run, check, copy --------------------------------------------------------------------------


def make_nested():
    """A model with a shared, a nested, a wrapped and a recurrent convolution, and a Dense layer."""
    shared = L.Conv2D(1, 3, padding="same", name="shared")
    layers = [keras.Input((6, 6, 1)), shared, L.TimeDistributed(L.SeparableConv1D(1, 3, name="rows"), name="each")]
    inner = keras.Sequential(layers, name="inner")
    x = keras.Input((6, 6, 1), name="x")
    y = L.ConvLSTM1D(1, 3, name="scan")(inner(shared(x)))
    return keras.Model(x, L.Dense(2, name="head")(y), name="outer")


def test_the_report_says_where_each_kernel_is():
    """One record for each kernel: path, class, weight and shape, a shared one at its first place only."""
    model = make_nested()
    report = convert_all_kernels_in_model(model)

    assert report.model is model
    assert str(report).splitlines() == [
        "4 kernels turned by 180 degrees",
        "  shared (Conv2D): kernel (3, 3, 1, 1)",
        "  inner/each/rows (SeparableConv1D): depthwise_kernel (3, 1, 1)",
        "  scan/conv_lstm_cell (ConvLSTMCell): kernel (3, 1, 4)",
        "  scan/conv_lstm_cell (ConvLSTMCell): recurrent_kernel (3, 1, 4)",
    ]


def test_a_dry_run_reports_the_same_and_writes_nothing():
    """The kernels are those that the conversion then turns; every byte of the model is as it was."""
    model = make_nested()
    before = [weight.tobytes() for weight in model.get_weights()]
    planned = convert_all_kernels_in_model(model, dry_run=True, inplace=False, check=True)
    untouched = [weight.tobytes() for weight in model.get_weights()]

    assert untouched == before
    assert (planned.model, planned.is_dry_run) == (model, True)
    assert "4 kernels would be turned" in str(planned)
    assert planned.kernels == convert_all_kernels_in_model(model).kernels


@pytest.mark.parametrize("kind", MIRRORED)
def test_the_check_finds_right_kernels_right(kind):
    """Every kind passes its numerical check and is converted as without it."""
    layer = MIRRORED[kind]()
    rank = int(kind[re.search(r"\dD", kind).start()])
    layer(np.zeros((1, *((2,) if "LSTM" in kind else ()), *(6,) * rank, 2)))
    before = kernels_of(layer)
    report = convert_all_kernels_in_model(layer, check=True)

    assert len(report.kernels) == len(before)
    assert all(np.array_equal(a, reversed_by_hand(b)) for a, b in zip(kernels_of(layer), before, strict=True))


class Rounded(keras.Variable):
    """A weight that keeps two digits, as some custom layers do."""

    def assign(self, value):
        """Keep less than was given."""
        return super().assign(keras.ops.round(value, 2))


class Rounding(L.Conv1D):
    """A convolution that swaps its kernel for a rounded one."""

    def build(self, input_shape):
        """Add the weights and round."""
        super().build(input_shape)
        self._trainable_variables[0] = self._kernel = Rounded(self._kernel, name="kernel")


def test_a_failed_check_names_the_kernel_and_restores_all():
    """When what arrives in a weight is not the turned kernel, nothing stays converted."""
    model = keras.Sequential([keras.Input((9, 1)), L.Conv1D(2, 3), Rounding(1, 3, name="coarse")])
    before = model.layers[0].get_weights()[0]

    with pytest.raises(ArithmeticError, match=r"check of coarse \(Rounding\): kernel \(3, 2, 1\) failed"):
        convert_all_kernels_in_model(model, check=True)
    assert np.array_equal(model.layers[0].get_weights()[0], before)


@pytest.mark.parametrize("hole", [np.nan, np.inf])
def test_the_check_of_a_kernel_that_is_not_finite(hole, monkeypatch):
    """What is finite is compared as ever: a right conversion passes without a warning, a wrong one does not."""
    kernel = np.random.default_rng(0).normal(size=(3, 3, 1, 2))
    kernel[1, 0, 0, 0] = hole
    layer = L.Conv2D(2, 3, dtype="float64")
    layer.build((None, 6, 6, 1))
    layer.set_weights([kernel, np.zeros(2)])

    with warnings.catch_warnings(action="error"):
        convert_all_kernels_in_model(layer, check=True)
    monkeypatch.setattr("kflow.core.kernels.convert_kernel", lambda kernel: np.where(np.isfinite(kernel), 0, kernel))
    with pytest.raises(ArithmeticError, match="does not give the mirrored result"):
        convert_all_kernels_in_model(layer, check=True)


def test_a_wrong_conversion_does_not_pass_the_check(monkeypatch):
    """The check would see a kernel that is turned along one axis only."""
    model = keras.Sequential([keras.Input((6, 6, 1)), L.Conv2D(2, 3)])
    monkeypatch.setattr("kflow.core.kernels.convert_kernel", lambda kernel: np.flip(kernel, 0))

    with pytest.raises(ArithmeticError, match="does not give the mirrored result"):
        convert_all_kernels_in_model(model, check=True)


def test_a_new_model_on_request():
    """The copy has the turned kernels and the other weights; the model itself stays as it is."""
    model = make_nested()
    before = model.get_weights()
    report = convert_all_kernels_in_model(model, inplace=False)
    again = convert_all_kernels_in_model(report.model, inplace=False).model

    assert report.model is not model
    assert [w.tobytes() for w in model.get_weights()] == [w.tobytes() for w in before]
    assert all(
        np.array_equal(a, reversed_by_hand(b)) for a, b in zip(kernels_of(report.model), kernels_of(model), strict=True)
    )
    assert [w.tobytes() for w in again.get_weights()] == [w.tobytes() for w in before]
    assert len(report.kernels) == 4


class Blur(keras.Model):
    """A model whose graph is in its code, and that can be made anew."""

    def __init__(self, filters=2, **options):
        super().__init__(**options)
        self.filters = filters
        self.pair = Pair()

    def call(self, x):
        """Apply the layer."""
        return self.pair(x)

    def get_config(self):
        """Give the arguments."""
        return {**super().get_config(), "filters": self.filters}


@pytest.mark.parametrize("kind", ["subclassed", "lambda", "layer"])
def test_what_can_be_copied(kind):
    """Subclassed models with a config, Lambda layers of this process, and single layers."""
    x = np.random.default_rng(0).normal(size=(1, 7, 7, 1)).astype("float32")
    layers = [keras.Input((7, 7, 1)), L.Lambda(lambda value: 2 * value), L.Conv2D(1, 3)]
    model = {"subclassed": Blur, "lambda": lambda: keras.Sequential(layers), "layer": lambda: L.Conv2D(2, 3)}[kind]()
    before = np.asarray(model(np.flip(x, (1, 2))))
    new = convert_all_kernels_in_model(model, inplace=False).model

    np.testing.assert_allclose(np.asarray(new(x)), np.flip(before, (1, 2)), atol=1e-5)
    assert np.array_equal(np.asarray(model(np.flip(x, (1, 2)))), before)


def test_what_cannot_be_copied_is_refused():
    """A class that cannot be made from its config is an error that says what to do."""

    class Stubborn(L.Conv1D):
        """A layer with an argument that its config does not have."""

        def __init__(self, depth, **options):
            super().__init__(1, 3, **options)

    model = keras.Sequential([keras.Input((8, 1)), Stubborn(2)], name="odd")

    with pytest.raises(ValueError, match=r"'odd' cannot be copied; .* or convert in place\. .* argument: 'depth'"):
        convert_all_kernels_in_model(model, inplace=False)


# --- layers of one's own -----------------------------------------------------------------------------------


class Gated(L.Conv2D):
    """A subclass with a second kernel, a mask of the kernel, and a weight that is no kernel."""

    def build(self, input_shape):
        """Add the weights."""
        super().build(input_shape)
        self.gate = self.add_weight(shape=self._kernel.shape, initializer="glorot_uniform", name="gate")
        self.mask = self.add_weight(shape=self._kernel.shape, initializer="normal", trainable=False, name="mask")
        self.scale = self.add_weight(shape=(5, 3, 1, 1), initializer="normal", name="scale")

    def call(self, x):
        """Multiply two convolutions."""
        first = keras.ops.conv(x, self._kernel * self.mask, padding="valid")
        return first * keras.ops.sigmoid(keras.ops.conv(x, self.gate, padding="valid"))


def test_a_subclass_with_several_kernels_turns_all_of_them():
    """The gate and the mask turn with the kernel; what has not its size stays."""
    model = keras.Sequential([keras.Input((7, 7, 2)), Gated(2, 3)])
    x = np.random.default_rng(0).normal(size=(1, 7, 7, 2)).astype("float32")
    before, scale = np.asarray(model(np.flip(x, (1, 2)))), model.layers[0].scale.numpy()
    report = convert_all_kernels_in_model(model)

    assert [each.weight for each in report.kernels] == ["kernel", "gate", "mask"]
    np.testing.assert_allclose(np.asarray(model(x)), np.flip(before, (1, 2)), atol=1e-5)
    assert np.array_equal(model.layers[0].scale.numpy(), scale)


class Flattened(L.Conv2D):
    """A subclass that stores its kernel in a way of its own."""

    def build(self, input_shape):
        """Add one row for all offsets."""
        self.kernel_row = self.add_weight(shape=(9, input_shape[-1] * self.filters), name="kernel")


def test_a_kernel_of_another_shape_is_refused():
    """A convolution whose kernel cannot be told is never passed over in silence."""
    model = keras.Sequential([keras.Input((7, 7, 2)), Flattened(2, 3, name="flat")])

    with pytest.raises(ValueError, match=r"'flat' is a Flattened of kernel_size \(3, 3\), but none of its weights"):
        convert_all_kernels_in_model(model)


class Whole(L.Conv1D):
    """A subclass with a quantized kernel."""

    def build(self, input_shape):
        """Add a kernel of bytes."""
        self.bytes = self.add_weight(shape=(3, 1, 1), dtype="int8", name="kernel", initializer="ones", trainable=False)

    def call(self, x):
        """Convolve with the bytes."""
        return keras.ops.conv(x, keras.ops.cast(self.bytes, x.dtype))


def test_a_quantized_kernel_is_refused():
    """Its numbers may be packed, so it is converted before it is quantized."""
    model = keras.Sequential([keras.Input((8, 1)), Whole(1, 3, name="bytes")])

    with pytest.raises(ValueError, match=r"'bytes' is quantized \(kernel: int8\); convert it before"):
        convert_all_kernels_in_model(model)


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method:UserWarning")
@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_quantized_dense_layers(mode):
    """They do not keep the convolutions beside them from turning, but cannot be reordered themselves."""
    model = keras.Sequential([keras.Input((6, 6, 2)), L.Conv2D(2, 3), L.Flatten(), L.Dense(4, name="head")])
    model.quantize(mode)
    before = kernels_of(model.layers[0])[0]
    convert_all_kernels_in_model(model)

    assert np.array_equal(kernels_of(model.layers[0])[0], reversed_by_hand(before))
    with pytest.raises(ValueError, match=r"'head' is quantized \(kernel: int8\)"):
        convert_dense_weights_data_format(model.layers[-1], (2, 4, 4))


def test_layers_that_refer_to_each_other():
    """A circle of layers is walked once."""
    first, second = Pair(), Pair()
    first.other, second.other = second, first
    for convolution in [*first.steps, *second.steps]:
        convolution.build((None, 9, 9, 2))

    assert len(convert_all_kernels_in_model(first).kernels) == 4


def test_half_precision_is_kept():
    """A bfloat16 kernel turns without a detour that changes it, and passes the check."""
    layer = L.Conv1D(2, 3, dtype="bfloat16")
    layer.build((None, 8, 1))
    before = layer.get_weights()[0]
    convert_all_kernels_in_model(layer, check=True)

    assert layer.kernel.dtype == "bfloat16"
    assert layer.get_weights()[0].tobytes() == before[::-1].tobytes()


class Scaled(keras.layers.Layer):
    """A convolution beside a weight of its own without a name."""

    def build(self, shape):
        """Make the weights."""
        self.inner = keras.layers.Conv2D(2, 3)
        self.inner.build(shape)
        self.scale = self.add_weight(shape=(2,), initializer="ones")

    def call(self, x):
        """Convolve and scale."""
        return self.inner(x) * self.scale


def test_a_copy_takes_over_weights_without_a_name():
    """Keras numbers such names, so those of a copy are others."""
    inputs = keras.Input((5, 5, 1))
    model = keras.Model(inputs, Scaled()(inputs))

    copy = convert_all_kernels_in_model(model, inplace=False).model

    np.testing.assert_array_equal(copy.layers[1].scale, model.layers[1].scale)
    np.testing.assert_array_equal(copy.layers[1].inner.kernel, np.flip(model.layers[1].inner.kernel, (0, 1)))
