"""The format of Keras 2.1 is read, and written so that it can be read."""

import copy
import inspect
import json
from typing import Any

import keras
import numpy as np
import pytest

from kflow.core.objects import CustomObjectScope
from kflow.core.serialization import deserialize_keras_object, serialize_keras_object
from tests.core.sample_parts import Affine, old, twice


def old_dense(name: str, units: int, **config: Any) -> dict[str, Any]:
    """A Dense layer as Keras 2.1.3 wrote it."""
    initializer = old("VarianceScaling", scale=1.0, mode="fan_avg", distribution="uniform", seed=None)
    return old(
        "Dense",
        name=name,
        trainable=True,
        units=units,
        activation="relu",
        use_bias=True,
        kernel_initializer=initializer,
        bias_initializer=old("Zeros"),
        kernel_regularizer=old("L1L2", l1=0.0, l2=0.25),
        bias_regularizer=None,
        activity_regularizer=None,
        kernel_constraint=old("MaxNorm", max_value=2, axis=0),
        bias_constraint=None,
        **config,
    )


def test_a_sequential_model_of_keras_2() -> None:
    """A bare list of layers, the first of which has the input's shape, becomes a built model."""
    description = {
        "class_name": "Sequential",
        "config": [
            old_dense("first", 4, batch_input_shape=[None, 3], dtype="float32"),
            old("Dropout", name="drop", trainable=True, rate=0.5, noise_shape=None, seed=None),
            old_dense("second", 2),
        ],
    }

    model = deserialize_keras_object(description, printable_module_name="layer")

    assert [layer.name for layer in model.layers] == ["first", "drop", "second"]
    assert model.input_shape == (None, 3)
    assert model.count_params() == (3 * 4 + 4) + (4 * 2 + 2)
    assert isinstance(model.layers[0].kernel_regularizer, keras.regularizers.L1L2)
    assert float(model.layers[0].kernel_regularizer.l2) == 0.25
    assert isinstance(model.layers[2].kernel_constraint, keras.constraints.MaxNorm)


def test_a_functional_model_of_keras_2() -> None:
    """The class Model with layers, nodes and outputs becomes a working model; wrapped layers are read too."""
    shape = {"batch_input_shape": [None, 5, 3], "dtype": "float32", "sparse": False, "name": "x"}
    description = old(
        "Model",
        name="net",
        layers=[
            {"name": "x", **old("InputLayer", **shape), "inbound_nodes": []},
            {
                "name": "each",
                **old("TimeDistributed", name="each", trainable=True, layer=old_dense("inner", 4)),
                "inbound_nodes": [[["x", 0, 0, {}]]],
            },
            {
                "name": "own",
                **old("Affine", name="own", shift=1.0, function="twice"),
                "inbound_nodes": [[["each", 0, 0, {}]]],
            },
        ],
        input_layers=[["x", 0, 0]],
        output_layers=[["own", 0, 0]],
    )

    model = deserialize_keras_object(description, custom_objects={"Affine": Affine, "twice": twice})
    x = np.ones((2, 5, 3), np.float32)
    kernel, bias = model.get_weights()

    expected = 2 * np.maximum(x @ kernel + bias, 0) + 1
    np.testing.assert_allclose(model(x), expected, rtol=1e-6)


def test_an_optimizer_of_keras_2() -> None:
    """The learning rate was called lr."""
    description = old("SGD", lr=0.25, momentum=0.5, decay=0.0, nesterov=True)

    optimizer = deserialize_keras_object(description)

    assert float(optimizer.learning_rate) == 0.25
    assert (optimizer.momentum, optimizer.nesterov) == (0.5, True)


def test_a_lambda_layer_of_keras_2_with_a_named_function() -> None:
    """A named function is found among the custom objects."""
    description = old(
        "Lambda",
        name="l",
        function="twice",
        function_type="function",
        output_shape=None,
        output_shape_type="raw",
        arguments={},
    )

    layer = deserialize_keras_object(description, custom_objects={"twice": twice})

    assert float(layer(np.float32(4))) == 8.0


@pytest.mark.parametrize("module_objects", [None, vars(keras.layers)])
def test_lambdas_of_keras_2_are_refused(module_objects: Any) -> None:
    """The byte code of another Python cannot be read at all."""
    description = old("Lambda", function=["4wEAAAABAAAA\n", None, None], function_type="lambda")

    with pytest.raises(ValueError, match="byte code of Keras 2 cannot be read"):
        deserialize_keras_object(description, module_objects, safe_mode=False)


def test_the_description_is_not_changed() -> None:
    """Reading leaves the caller's dictionary as it was, in both formats."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    model.compile("adam", "mse")
    descriptions = [
        serialize_keras_object(model),
        {"class_name": "Sequential", "config": [old_dense("first", 4, batch_input_shape=[None, 3])]},
        old("SGD", lr=0.25, decay=0.0),
    ]
    before = copy.deepcopy(descriptions)

    for description in descriptions:
        deserialize_keras_object(description)

    assert descriptions == before


def keys_of_descriptions(value: Any) -> set[str]:
    """All keys beside class_name in what has a class_name."""
    if isinstance(value, list):
        return set().union(*map(keys_of_descriptions, value))
    if not isinstance(value, dict):
        return set()
    own = value.keys() - {"class_name"} if "class_name" in value else set()
    return own.union(*map(keys_of_descriptions, value.values()))


def written(instance: Any) -> Any:
    """The description in Keras 2.1's format, after it was stored as JSON text."""
    return json.loads(json.dumps(serialize_keras_object(instance, keras_version=2)))


def simple_objects() -> list[Any]:
    """One of each stateless class of Keras that needs no argument, and some layers."""
    return [
        getattr(getattr(keras, module), name)()
        for module in ("optimizers", "losses", "metrics", "initializers", "regularizers", "constraints")
        for name, value in sorted(vars(getattr(keras, module)).items())
        if inspect.isclass(value)
        and name == value.__name__
        and name not in ("Optimizer", "Loss", "Metric", "Initializer", "Regularizer", "Constraint", "STFT")
        and all(
            parameter.default is not inspect.Parameter.empty or parameter.kind is inspect.Parameter.VAR_KEYWORD
            for parameter in inspect.signature(value).parameters.values()
        )
    ] + [
        keras.layers.Dense(3, activation="relu", kernel_regularizer=keras.regularizers.L2(0.5)),
        keras.layers.Conv2D(4, (3, 2), strides=2, padding="same", kernel_constraint="max_norm"),
        keras.layers.Bidirectional(keras.layers.LSTM(3)),
        keras.layers.BatchNormalization(momentum=0.5),
        keras.layers.InputLayer(shape=(2, 3), batch_size=4),
        keras.layers.Dense(2, dtype="mixed_float16"),
        keras.layers.Lambda(keras.activations.gelu),
        keras.metrics.MeanMetricWrapper(keras.losses.mean_squared_error),
        keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.5, 10, 0.5), momentum=0.5),
    ]


def noun_of(instance: Any) -> str:
    """What a reader is told to expect, which tells apart losses, metrics and initializers of the same name."""
    kinds = ("Loss", "Metric", "Initializer")
    return next((name.lower() for name in kinds if isinstance(instance, getattr(keras, name))), "object")


def test_what_is_written_in_the_old_format_is_read_back() -> None:
    """Objects of every kind come back with an equal configuration, and only the two keys are written."""
    instances = simple_objects()

    descriptions = [written(instance) for instance in instances]
    restored = [
        deserialize_keras_object(description, printable_module_name=noun_of(instance))
        for description, instance in zip(descriptions, instances, strict=True)
    ]

    assert len(instances) > 90
    assert [type(each) for each in restored] == [type(each) for each in instances]
    assert [each.get_config() for each in restored] == [each.get_config() for each in instances]
    assert keys_of_descriptions(descriptions) == {"config"}


def test_the_old_format_of_a_layer() -> None:
    """The description is what Keras 2.1 wrote of the parts that it had: names, and nested descriptions."""
    layer = keras.layers.Dense(3, activation="tanh", kernel_regularizer=keras.regularizers.L2(0.5), name="d")

    description = written(layer)

    assert description["class_name"] == "Dense"
    assert description["config"].items() >= {"name": "d", "units": 3, "activation": "tanh", "dtype": "float32"}.items()
    assert description["config"]["kernel_regularizer"] == {"class_name": "L2", "config": {"l2": 0.5}}
    assert description["config"]["bias_initializer"] == {"class_name": "Zeros", "config": {}}


def test_the_old_format_of_an_optimizer_and_a_function() -> None:
    """The learning rate is lr, and a function is its name."""
    assert written(keras.optimizers.SGD(0.25))["config"]["lr"] == 0.25
    assert written(keras.activations.relu) == "relu"


def test_the_old_format_of_a_sequential_model() -> None:
    """A Sequential model is a list of layers, and comes back with the same shapes and results."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, activation="relu"), Affine(1.0, twice)])
    description = written(model)

    restored = deserialize_keras_object(description, custom_objects={"Affine": Affine, "twice": twice})
    restored.set_weights(model.get_weights())

    assert description.keys() == {"class_name", "config"}
    assert [layer["class_name"] for layer in description["config"]] == ["InputLayer", "Dense", "Affine"]
    assert description["config"][0]["config"]["batch_input_shape"] == [None, 3]
    assert description["config"][2]["config"]["function"] == "twice"
    np.testing.assert_array_equal(restored(np.ones((2, 3))), model(np.ones((2, 3))))


def branched_model() -> keras.Model:
    """Two inputs, a shared layer, a nested model with a name, two outputs."""
    first, second = keras.Input((3,), name="first"), keras.Input((3,), name="second")
    shared = keras.layers.Dense(3, name="shared")
    inner = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)], name="inner")
    total = keras.layers.Add(name="total")([shared(first), shared(second)])
    return keras.Model([first, second], [inner(total), keras.layers.Dropout(0.5, name="drop")(total)])


def test_the_old_format_of_a_functional_model() -> None:
    """The nodes of a Model are lists, and the graph comes back with its shared layer and its nested model."""
    model = branched_model()
    description = written(model)

    restored = deserialize_keras_object(description)
    restored.set_weights(model.get_weights())

    nodes = {layer["name"]: layer["inbound_nodes"] for layer in description["config"]["layers"]}
    assert description["class_name"] == "Model"
    assert description["config"]["input_layers"] == [["first", 0, 0], ["second", 0, 0]]
    assert nodes["shared"] == [[["first", 0, 0, {}]], [["second", 0, 0, {}]]]
    assert nodes["total"] == [[["shared", 0, 0, {}], ["shared", 1, 0, {}]]]
    assert [layer.name for layer in restored.layers] == [layer.name for layer in model.layers]
    x = [np.ones((2, 3)), np.full((2, 3), 2.0)]
    for ours, theirs in zip(restored(x), model(x), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_single_input_and_output_stay_single() -> None:
    """What Keras 2.1 wrote as a list of one is read as one tensor."""
    x = keras.Input((3,), name="x")
    model = keras.Model(x, keras.layers.Dense(2, name="y")(x))
    description = written(model)

    restored = deserialize_keras_object(description)

    assert description["config"]["output_layers"] == [["y", 0, 0]]
    assert restored.output_shape == (None, 2)


def test_registered_classes_are_written_by_their_registered_names() -> None:
    """The old format has no place but class_name for the name under which a class is found."""
    with CustomObjectScope():
        keras.saving.register_keras_serializable("house", "shifted")(Affine)
        description = written(Affine(2.5, "relu"))
        restored = deserialize_keras_object(description)

    assert description["class_name"] == "house>shifted"
    assert (type(restored), restored.shift) == (Affine, 2.5)


def named_ends() -> keras.Model:
    x = keras.Input((3,), name="x")
    return keras.Model({"x": x}, keras.layers.Dense(2)(x))


def operation() -> keras.Model:
    x = keras.Input((3,))
    return keras.Model(x, keras.ops.square(x))


def two_arguments() -> keras.Model:
    x = keras.Input((3, 2))
    return keras.Model(x, keras.layers.MultiHeadAttention(1, 2, name="mha")(x, x))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (named_ends, "a model whose inputs or outputs have names has no form in the format of Keras 2.1"),
        (operation, r"the operation Square \(square\w*\) has no form"),
        (lambda: keras.random.SeedGenerator(5), "the SeedGenerator has no form"),
        (two_arguments, "the way in which the layer 'mha' is called, .* has no form .*keras_version=3"),
    ],
)
def test_what_has_no_form_in_the_old_format(build: Any, message: str) -> None:
    """What Keras 2.1 could not say is an error, not something else."""
    with pytest.raises(ValueError, match=message):
        serialize_keras_object(build(), keras_version=2)


def test_a_class_whose_name_is_that_of_another_kind_is_found_by_its_key() -> None:
    """Identity is a layer and an initializer; the key says which one a description without a module means."""
    description = old("Dense", units=2, kernel_initializer=old("Identity", gain=3.0))
    description = old("TimeDistributed", layer=description)

    wrapper = deserialize_keras_object(description)
    layer = deserialize_keras_object(old("Sequential", name="s", layers=[old("Identity")])).layers[0]

    assert isinstance(wrapper.layer.kernel_initializer, keras.initializers.Identity)
    assert wrapper.layer.kernel_initializer.gain == 3.0
    assert isinstance(layer, keras.layers.Identity)


@pytest.mark.parametrize("keras_version", [1, "2.1", None])
def test_other_versions_are_refused(keras_version: Any) -> None:
    """There are two formats."""
    with pytest.raises(ValueError, match=r"keras_version is .*, but must be 2 or 3"):
        serialize_keras_object(keras.layers.Dense(1), keras_version=keras_version)


def test_hard_sigmoid_is_that_of_keras_2():
    """The name means another function in Keras 3, which would change what a trained LSTM predicts."""
    config = {"units": 3, "recurrent_activation": "hard_sigmoid", "implementation": 1}
    x = np.linspace(-4, 4, 33, dtype="float32")

    layer = deserialize_keras_object({"class_name": "LSTM", "config": config})

    np.testing.assert_allclose(layer.recurrent_activation(x), np.clip(0.2 * x + 0.5, 0, 1), atol=1e-6)
    assert serialize_keras_object(layer, keras_version=2)["config"]["recurrent_activation"] == "hard_sigmoid"
    again = deserialize_keras_object(serialize_keras_object(layer))
    assert again.recurrent_activation is layer.recurrent_activation


def test_hard_sigmoid_of_keras_3_has_no_form_in_keras_2():
    """Written by its name it would come back as another function."""
    layer = keras.layers.Dense(2, activation="hard_sigmoid")

    with pytest.raises(ValueError, match=r"activation hard_sigmoid of Keras 3, .* has no form"):
        serialize_keras_object(layer, keras_version=2)


@pytest.mark.parametrize("name", ["GRU", "GRUCell"])
def test_a_gru_of_keras_2_1_keeps_its_equations(name):
    """Keras 3's default would want weights of another shape."""
    old = deserialize_keras_object({"class_name": name, "config": {"units": 3}})
    later = deserialize_keras_object({"class_name": name, "config": {"units": 3, "reset_after": True}})

    assert (old.reset_after, later.reset_after) == (False, True)


@pytest.mark.parametrize(
    "value",
    [
        [keras.losses.mean_squared_error],
        {"activation": keras.activations.relu},
        {"nested": [1, (keras.activations.relu,)]},
        keras.dtype_policies.DTypePolicy("mixed_float16"),
    ],
)
def test_what_would_be_read_back_as_a_text_has_no_form_in_keras_2(value: Any) -> None:
    """A function in a container, or a policy by itself, was a bare name there; Keras 3's format keeps it."""
    with pytest.raises(ValueError, match=r"has no form in the format of Keras 2\.1; write it with keras_version=3"):
        serialize_keras_object(value, keras_version=2)

    assert serialize_keras_object(deserialize_keras_object(serialize_keras_object(value))) == serialize_keras_object(
        value
    )


@pytest.mark.parametrize("name", ["SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D"])
def test_arguments_that_spatial_dropout_no_longer_takes(name: str) -> None:
    """Keras 2.1 wrote those of Dropout and of every layer, which have no effect here."""
    config = {"name": "s", "trainable": True, "rate": 0.25, "noise_shape": None, "seed": 7, "dtype": "float16"}

    layer = deserialize_keras_object({"class_name": name, "config": config})

    assert (type(layer).__name__, layer.name, layer.rate, layer.seed, layer.dtype) == (name, "s", 0.25, 7, "float16")


def test_the_threshold_of_a_layer_that_is_gone() -> None:
    """ThresholdedReLU is a ReLU of Keras 3: the threshold itself gives 0, too."""
    layer = deserialize_keras_object(old("ThresholdedReLU", name="t", trainable=True, theta=0.5))

    assert layer.name == "t"
    np.testing.assert_array_equal(layer(np.array([-1.0, 0.25, 0.5, 0.75], "float32")), [0, 0, 0, 0.75])


def steps_of_descent(clipnorm: float = 0.0, decay: float = 0.0) -> list[np.ndarray]:
    """Two steps of SGD with the rate 0.5 over the gradients (3, 0) and (0, 4), as Keras 2.1.6 calculates them."""
    gradients = [np.array([3.0, 0.0]), np.array([0.0, 4.0])]
    norm = np.sqrt(sum((gradient**2).sum() for gradient in gradients))
    scale = clipnorm / norm if clipnorm else 1.0
    rate = sum(0.5 / (1 + decay * step) for step in range(2))
    return [-rate * scale * gradient for gradient in gradients]


@pytest.mark.parametrize("config", [{"clipnorm": 1.0}, {"decay": 0.25}, {"clipnorm": 2.0, "decay": 0.5}, {}])
def test_an_optimizer_of_keras_2_1_takes_the_same_steps(config: dict[str, float]) -> None:
    """Its clipnorm limits all gradients together, and its decay lowers the rate at each step."""
    optimizer = deserialize_keras_object(old("SGD", lr=0.5, momentum=0.0, nesterov=False, **{"decay": 0.0, **config}))
    variables = [keras.Variable(np.zeros(2)), keras.Variable(np.zeros(2))]
    gradients = [keras.ops.convert_to_tensor([3.0, 0.0]), keras.ops.convert_to_tensor([0.0, 4.0])]

    for _ in range(2):
        optimizer.apply(gradients, variables)

    np.testing.assert_allclose([variable.numpy() for variable in variables], steps_of_descent(**config), rtol=1e-6)


@pytest.mark.parametrize("arguments", [{"global_clipnorm": 2.0}, {"clipvalue": 0.5}, {}])
@pytest.mark.parametrize("decay", [0.0, 0.25])
def test_limits_and_decay_are_written_as_keras_2_1_had_them(arguments: dict[str, float], decay: float) -> None:
    """They come back as what they were."""
    schedule = keras.optimizers.schedules.InverseTimeDecay(0.5, 1, decay) if decay else 0.5
    optimizer = keras.optimizers.SGD(schedule, **arguments)

    config = written(optimizer)["config"]
    restored = deserialize_keras_object(old("SGD", **config))

    limit = {"clipnorm": 2.0} if "global_clipnorm" in arguments else {}
    assert {key: config[key] for key in ("lr", "decay", "clipnorm") if key in config} == {
        "lr": 0.5,
        **({"decay": 0.25} if decay else {}),
        **limit,
    }
    assert restored.get_config() == optimizer.get_config()


def test_a_limit_for_each_gradient_has_no_form_in_keras_2() -> None:
    """There it would limit them together."""
    with pytest.raises(ValueError, match=r"the clipnorm of an optimizer, .* has no form .* use global_clipnorm"):
        serialize_keras_object(keras.optimizers.Adam(clipnorm=1.0), keras_version=2)


def test_adagrad_of_keras_2_1_starts_at_zero() -> None:
    """Keras 3's default would be another first step."""
    config = {"lr": 0.01, "decay": 0.0, "epsilon": 1e-7}

    restored = deserialize_keras_object(old("Adagrad", **config))
    later = deserialize_keras_object(old("Adagrad", **config, initial_accumulator_value=0.25))

    assert (restored.initial_accumulator_value, later.initial_accumulator_value) == (0.0, 0.25)


def test_a_nadam_of_keras_2_1_says_what_is_different() -> None:
    """Its schedule has no place in Keras 3."""
    config = {"lr": 0.002, "beta_1": 0.8, "beta_2": 0.99, "epsilon": 1e-7, "schedule_decay": 0.004}

    with pytest.warns(UserWarning, match="the Nadam of Keras 3 has no schedule_decay"):
        optimizer = deserialize_keras_object(old("Nadam", **config))

    values = float(optimizer.learning_rate), optimizer.beta_1, optimizer.beta_2, optimizer.epsilon
    assert values == (pytest.approx(0.002), 0.8, 0.99, 1e-7)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("cosine_proximity", keras.losses.cosine_similarity),
        ("cosine", keras.losses.cosine_similarity),
        ("kullback_leibler_divergence", keras.losses.kl_divergence),
        ("logcosh", keras.losses.log_cosh),
        ("maxnorm", keras.constraints.MaxNorm),
        ("nonneg", keras.constraints.NonNeg),
        ("unitnorm", keras.constraints.UnitNorm),
    ],
)
def test_names_that_only_keras_2_used(name: str, found: Any) -> None:
    """They are found, unless they are somebody's own."""
    own = deserialize_keras_object(name, custom_objects={name: twice})

    assert (deserialize_keras_object(name), own) == (found, twice)


def test_the_arguments_of_a_lambda_layer_of_keras_2() -> None:
    """Arrays had a form of their own, and the function of the output's shape is a name."""
    arguments = {"factor": {"type": "ndarray", "value": [[1.0, 2.0]]}}
    config = {"function": "multiply", "function_type": "function", "arguments": arguments}
    shape = {"output_shape": "same", "output_shape_type": "function", "name": "l", "trainable": True}
    functions = {"multiply": lambda x, factor: x * factor, "same": lambda shape: shape}

    layer = deserialize_keras_object(old("Lambda", **config, **shape), custom_objects=functions)

    np.testing.assert_array_equal(layer(np.array([[3.0, 4.0]], "float32")), [[3, 8]])
    assert layer.compute_output_shape((5, 2)) == (5, 2)


def test_one_dimensional_layers_of_keras_2_1_have_channels_last() -> None:
    """It did not say so, and the process may have another default."""
    keras.config.set_image_data_format("channels_first")
    try:
        layers = [
            deserialize_keras_object(old("Conv1D", filters=1, kernel_size=[2])),
            deserialize_keras_object(old("MaxPooling1D", pool_size=[2], strides=[2], padding="valid")),
        ]
    finally:
        keras.config.set_image_data_format("channels_last")

    assert [layer.data_format for layer in layers] == ["channels_last", "channels_last"]


def test_normal_weights_have_the_spread_that_keras_3_gives_them() -> None:
    """Keras 2.1 forgot that a normal distribution that is cut at two standard deviations is narrower."""
    config = {"scale": 2.0, "mode": "fan_in", "distribution": "normal", "seed": 3}

    values = deserialize_keras_object(old("VarianceScaling", **config))((100, 1000)).numpy()

    assert values.std() == pytest.approx(np.sqrt(2.0 / 100), rel=0.02)
