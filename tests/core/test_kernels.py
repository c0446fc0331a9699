"""Kernels are compared with convolutions written out as sums in NumPy."""

import itertools

import keras
import numpy as np
import pytest
from hypothesis import given
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
    result = convert_all_kernels_in_model(model)
    after = model.get_weights()

    assert result is None
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


def test_an_unknown_data_format_is_refused():
    """A misspelt format is named."""
    dense = L.Dense(3)
    dense.build((None, 32))

    with pytest.raises(ValueError, match=r"'channel_first'; use 'channels_first' or"):
        convert_dense_weights_data_format(dense, (2, 4, 4), "channel_first")


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
