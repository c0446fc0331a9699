"""What `test_parallel.py` measures, in a process of its own: TensorFlow gets logical CPUs only before it starts.

python tests/core/parallel_script.py FOLDER NAME ... calls the functions `measure_NAME` and writes what they return.
"""

import json
import pickle
import sys
import warnings
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import patch

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from kflow.core import multi_gpu_model
from kflow.core.parallel.exchange import sum_over_devices
from kflow.core.parallel.multi_gpu import DataParallel
from kflow.core.parallel.replicas import _cut
from kflow.core.parallel.scaling import measure_scaling
from kflow.core.plotting import model_to_text

TOWERS = ["CPU:1", "CPU:2", "CPU:3"]


@keras.saving.register_keras_serializable(package="test")
class Bounded(layers.Layer):
    """Adds the mean square of its inputs to the loss."""

    def call(self, inputs):
        """Add to the loss, and pass the inputs on."""
        self.add_loss(0.1 * ops.mean(inputs**2))
        return inputs


def make_template():
    """Two inputs, one of whole numbers; two outputs; all kinds of losses; batch normalization, with a mask as well."""
    keras.utils.set_random_seed(1)
    image, text = keras.Input((8, 8, 1), name="image"), keras.Input((5,), dtype="int32", name="text")
    # No bias before batch normalization: its gradient is zero but for rounding, which Adam would make large.
    x = layers.Conv2D(4, 3, use_bias=False, activity_regularizer="l2")(image)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.5)(x))
    y = layers.BatchNormalization(momentum=0.5)(layers.Embedding(20, 6, mask_zero=True)(text))
    both = layers.Concatenate()([layers.Flatten()(x), layers.GlobalAveragePooling1D()(y)])
    both = Bounded()(both)
    kind = layers.Dense(3, activation="softmax", name="kind", kernel_regularizer="l2")
    return keras.Model([image, text], [layers.Dense(1, name="size")(both), kind(both)])


def make_data(rows: int):
    """Give random inputs and targets."""
    rng = np.random.default_rng(0)
    x = [rng.normal(size=(rows, 8, 8, 1)).astype("float32"), rng.integers(0, 20, (rows, 5))]
    return x, {"size": rng.normal(size=(rows, 1)), "kind": rng.integers(0, 3, rows)}


def compiled(model, **arguments):
    """Compile a model, and return it."""
    losses = {"size": "mse", "kind": "sparse_categorical_crossentropy"}
    model.compile("adam", losses, metrics={"kind": ["accuracy"], "size": ["mae"]}, **arguments)
    return model


def fit(model, rows: int, batch_size: int = 32) -> list:
    """Train two epochs in a fixed order, and give all that was measured."""
    x, y = make_data(rows)
    history = model.fit(x, y, batch_size=batch_size, epochs=2, shuffle=False, verbose=0).history
    return [np.array(history[name]) for name in sorted(history)]


def difference(first, second) -> float:
    """Give the largest difference between two lists of arrays, NaN where one is NaN."""
    return float(np.max([np.max(np.abs(np.subtract(a, b))) for a, b in zip(first, second, strict=True)]))


def parallel(template, **arguments):
    """Divide a model among three CPUs."""
    return multi_gpu_model(template, TOWERS, **arguments)


def train_both(make, x, y, batch_size: int, **arguments) -> dict:
    """Train a model alone, and its twin in parallel, and compare."""
    alone, template = make(), make()
    divided, before = parallel(template), template.get_weights()
    histories = []
    for model in (alone, divided):
        model.compile(**{"optimizer": "adam", "loss": "mse"} | arguments)
        histories.append(model.fit(x, y, batch_size=batch_size, epochs=2, shuffle=False, verbose=0).history["loss"])
    return {
        "losses": difference(*histories),
        "weights": difference(alone.get_weights(), template.get_weights()),
        "moved": difference(before, template.get_weights()),
    }


# --- the results of one device -----------------------------------------------------------------------------


def measure_cuts(_):
    """Cut 1 to 12 rows for 1 to 5 replicas."""
    found = {}
    for rows in range(1, 13):
        for count in range(1, 6):
            cut = _cut(tf.zeros((rows, 2)), count)
            found[f"{rows}/{count}"] = [[int(each) for each in part] for part in (cut.starts, cut.sizes)]
    return found


def measure_outputs(_):
    """Compute batches of several sizes."""
    template = make_template()
    model = parallel(template)
    cases = {}
    for rows in (1, 2, 3, 4, 7, 12):
        x, _y = make_data(rows)
        outputs = model(x)
        cases[rows] = [difference(template(x), outputs), [list(output.shape) for output in outputs]]
    return cases


def measure_training(folder):
    """Train on 103 rows, whose last batch is uneven, then on 34, whose last batch has fewer rows than towers."""
    alone, template = compiled(make_template()), compiled(make_template())
    model = compiled(parallel(template))
    results = {}
    for rows in (103, 34):
        before = template.get_weights()
        histories = [fit(alone, rows), fit(model, rows)]
        results[str(rows)] = {
            "losses": difference(*histories),
            "weights": difference(alone.get_weights(), template.get_weights()),
            "moved": difference(before, template.get_weights()),
        }
    x, y = make_data(13)
    y, weight = list(y.values()), [np.linspace(0.1, 2, 13)] * 2
    evaluated = [each.evaluate(x, y, sample_weight=weight, batch_size=5, verbose=0) for each in (alone, model)]
    predicted = [each.predict(x, batch_size=5, verbose=0) for each in (alone, model)]
    template.save(folder / "template.keras")
    model.save(folder / "parallel.keras")
    model.save_weights(folder / "parallel.weights.h5")
    (folder / "parallel.pickle").write_bytes(pickle.dumps(model))
    np.savez(folder / "expected.npz", *predicted[1])
    results |= {"evaluated": difference(*evaluated), "predicted": difference(*predicted)}
    return results | measure_continuing(folder, alone)


def measure_continuing(folder, alone):
    """Load the parallel model, and train it and the model alone on."""
    loaded = keras.models.load_model(folder / "parallel.keras")
    histories = [fit(alone, 20, 8), fit(loaded, 20, 8)]
    weights = difference(alone.get_weights(), loaded.replicas.template.get_weights())
    return {"continued": [difference(*histories), weights]}


def measure_gradients(_):
    """Compute the gradients of one batch with respect to weights and inputs, eagerly."""
    found = {}
    for rows in (7, 2):
        template = make_template()
        gradients = []
        for model in (template, parallel(template)):
            x, y = make_data(rows)
            x = [tf.constant(each) for each in x]
            with tf.GradientTape() as tape:
                tape.watch(x[0])
                size, kind = model(x, training=True)
                loss = tf.reduce_mean((size - y["size"]) ** 2) + tf.reduce_mean(kind[:, 0] ** 2) + ops.sum(model.losses)
            sources = [*(variable.value for variable in template.trainable_variables), x[0]]
            gradients.append([tf.convert_to_tensor(each).numpy() for each in tape.gradient(loss, sources)])
        found[str(rows)] = [difference(*gradients), max(float(np.abs(each).max()) for each in gradients[0])]
    return found


def measure_eager(_):
    """Train without compiling, eight rows and then two on three devices."""
    x, y = make_data(10)
    losses = {"size": "mse", "kind": "sparse_categorical_crossentropy"}
    return train_both(make_template, x, y, 8, loss=losses, run_eagerly=True)


def measure_layers(_):
    """Train layers that do unusual things: assign to weights, or hide batch normalization."""

    def make():
        keras.utils.set_random_seed(2)
        x = keras.Input((3, 4))
        inner = keras.Sequential([keras.Input((4,)), layers.BatchNormalization(synchronized=True, momentum=0.5)])
        y = layers.TimeDistributed(inner)(x)
        y = layers.BatchNormalization(renorm=True)(layers.Dense(4, activation="tanh")(y))
        return keras.Model(x, layers.SpectralNormalization(layers.Dense(3))(y))

    rng = np.random.default_rng(0)
    return train_both(
        make, rng.normal(size=(23, 3, 4)), rng.normal(size=(23, 3, 3)), 5, optimizer="sgd", steps_per_execution=3
    )


def measure_masks(_):
    """Train a model that masks its outputs, so that the loss leaves steps out; and clip the gradients."""

    def make():
        keras.utils.set_random_seed(3)
        text = keras.Input((6,), dtype="int32")
        return keras.Model(text, layers.Dense(3)(layers.Embedding(11, 5, mask_zero=True)(text)))

    rng = np.random.default_rng(0)
    x, y = rng.integers(1, 11, (23, 6)), rng.normal(size=(23, 6, 3))
    x[np.arange(6) >= rng.integers(1, 7, (23, 1))] = 0
    optimizer = {"class_name": "SGD", "config": {"learning_rate": 1.0, "clipnorm": 0.02}}
    return train_both(make, x, y, 5, optimizer=optimizer)


class Watch(layers.Layer):
    """Keeps numbers about the rows that it saw, each joined in another way."""

    state_over_devices = {"rows": "sum", "total": "sum", "centre": "mean", "largest": "max", "smallest": "min"} | {
        "steps": "same",
        "each_row": "sum",
        "batches": "mean",  # an attribute, whose own name is whole_batch
    }

    def build(self, shape):
        """Make the weights and the metrics."""
        zeros = {"initializer": "zeros", "trainable": False}
        self.rows = self.add_weight(shape=(), dtype="int32", name="rows", **zeros)
        self.steps = self.add_weight(shape=(), dtype="int32", name="steps", **zeros)
        self.total, self.centre, self.largest, self.smallest = (
            self.add_weight(shape=(shape[-1],), name=name, **zeros)
            for name in ("total", "centre", "largest", "smallest")
        )
        self.each_row = keras.metrics.Mean(name="each_row")
        self.batches = keras.metrics.Mean(name="whole_batch")

    def call(self, x, training=False):
        """Look at the inputs, and pass them on."""
        self.each_row.update_state(ops.mean(x, axis=1))
        self.batches.update_state(ops.mean(x))
        if training:
            self.rows.assign_add(ops.shape(x)[0])
            self.steps.assign_add(1)
            self.total.assign_add(ops.sum(x, axis=0))
            self.centre.assign(0.9 * self.centre + 0.1 * ops.mean(x, axis=0))
            self.largest.assign(ops.maximum(self.largest, ops.max(x, axis=0)))
            self.smallest.assign(ops.minimum(self.smallest, ops.min(x, axis=0)))
        return x


class Decayed(layers.Layer):
    """Keeps a decayed sum over all rows, of which it takes something away from each row."""

    state_over_devices = "same"

    def build(self, shape):
        """Make the weight."""
        self.sum = self.add_weight(shape=(shape[-1],), initializer="zeros", trainable=False, name="sum")

    def call(self, x, training=False):
        """Move the sum, and take it away; add a loss that is a sum over all rows."""
        self.add_loss(0.01 * sum_over_devices(ops.sum(x**2)))
        if training:
            self.sum.assign(0.9 * self.sum + 0.1 * sum_over_devices(ops.sum(x, axis=0)))
        return x - 0.01 * self.sum - 0.1 * sum_over_devices(ops.sum(ops.tanh(x), axis=0))


def measure_state(_):
    """Train layers that assign to their weights, with batches of 7 and 2 rows on three devices."""

    def make():
        keras.utils.set_random_seed(6)
        return keras.Sequential([keras.Input((4,)), layers.Dense(4), Watch(), Decayed(), layers.Dense(1)])

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(16, 4)), rng.normal(size=(16, 1))
    alone, template = make(), make()
    histories = []
    for model in (alone, parallel(template)):
        model.compile("sgd", "mse")
        history = model.fit(x, y, batch_size=7, epochs=2, shuffle=False, verbose=0).history
        evaluated = model.evaluate(x, y, batch_size=5, verbose=0, return_dict=True)
        histories.append(history | {f"evaluated {name}": value for name, value in evaluated.items()})
    return {
        "weights": {
            weight.path: difference([weight.numpy()], [other.numpy()])
            for weight, other in zip(alone.weights, template.weights, strict=True)
        },
        "measured": {name: difference([value], [histories[1][name]]) for name, value in histories[0].items()},
        "rows": int(template.layers[1].rows.numpy()),
    }


def measure_dropout(_):
    """Train and compute with dropout."""

    def make(seed=4):
        keras.utils.set_random_seed(seed)
        return keras.Sequential([keras.Input((50,)), layers.Dropout(0.5), layers.Dense(50, use_bias=False)])

    def train(seed):
        template = make(seed)
        model = parallel(template)
        model.compile("sgd", "mse")
        model.fit(np.ones((20, 50)), np.ones((20, 50)), batch_size=9, epochs=2, shuffle=False, verbose=0)
        return template.get_weights()

    template = make()
    template.set_weights([np.eye(50)])
    model = parallel(template)
    masks = [(model(tf.ones((6, 50)), training=True).numpy() > 0).astype(int).tolist() for _ in range(2)]
    runs = [train(4), train(4), train(5)]
    return {"masks": masks, "again": difference(runs[0], runs[1]), "other": difference(runs[0], runs[2])}


# --- where it runs -----------------------------------------------------------------------------------------


def measure_placement(_):
    """Read which device each operation of a training step ran on, from the executed graphs."""
    from tensorflow.python.eager import context

    found = {}
    for cpu_merge in (True, False):
        stack = [layers.Conv2D(4, 3), layers.BatchNormalization(), layers.Flatten(), layers.Dense(3)]
        template = keras.Sequential([keras.Input((8, 8, 1)), *stack])
        model = parallel(template, cpu_merge=cpu_merge)
        model.compile("sgd", "mse")
        batch = (tf.zeros((10, 8, 8, 1)), tf.zeros((10, 3)))
        step = tf.function(lambda model=model, batch=batch: model.train_step(batch))
        context.context().enable_run_metadata()
        step()
        executed = context.context().export_run_metadata()
        context.context().disable_run_metadata()
        places = defaultdict(set)
        for function in executed.function_graphs:
            for node in (node for graph in function.partition_graphs for node in graph.node):
                places[node.op].add(node.device.split("device:")[-1])
        found[str(cpu_merge)] = {op: sorted(devices) for op, devices in places.items()}
    return found


def measure_jit(_):
    """Ask for XLA."""
    model = parallel(make_template())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.compile("sgd", "mse", jit_compile=True)
    return {"jit": model.jit_compile, "warned": any("jit_compile" in str(w.message) for w in caught)}


def measure_scale(_):
    """Measure a batch that is far too small to be divided, and what the report says."""
    x, _y = make_data(8)
    model = parallel(make_template())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scaling = measure_scaling(model, x, rounds=2)
    said = [str(each.message) for each in caught if each.category is UserWarning]
    return {
        "seconds": [scaling.one_device, scaling.all_devices, *scaling.parts.values()],
        "parts": list(scaling.parts),
        "speedup": scaling.speedup,
        "efficiency": scaling.efficiency,
        "said": said,
    }


def measure_threads(_):
    """Use a divided model, another one of the same template, and the template, each in threads."""

    def make():
        keras.utils.set_random_seed(7)
        return keras.Sequential([keras.Input((4,)), layers.Dense(5), layers.BatchNormalization(), layers.Dense(1)])

    x = np.random.default_rng(0).normal(size=(20, 4)).astype("float32")
    template, reference = make(), make()
    calls = [
        (parallel(template), {"training": False}),
        (parallel(template), {"training": False}),
        (template, {"training": False}),
    ]
    trained = reference(x, training=True)
    template(x, training=True)

    def compute(call):
        model, arguments = call
        return [model(x, **arguments).numpy() for _ in range(5)]

    with ThreadPoolExecutor(len(calls) * 2 + 2) as threads:
        outputs = list(threads.map(compute, calls * 2))
        # The template trains, which changes its moving averages, while the divided models compute.
        training = threads.submit(lambda: [template(x, training=True).numpy() for _ in range(20)])
        meanwhile = [threads.submit(compute, call) for call in calls[:2]]
        batches = training.result()
        for each in meanwhile:
            each.result()
        predicted = list(threads.map(lambda call: call[0].predict(x, verbose=0), calls[:2]))
    expected = reference(x, training=False)
    return {
        "outputs": max(difference([expected] * 5, each) for each in outputs),
        "training": difference([trained] * 20, batches),
        "predicted": difference([template(x, training=False)] * 2, predicted),
        "left": [name for name in vars(template.layers[1]) if "moments" in name],
    }


# --- names, files, refusals --------------------------------------------------------------------------------


def measure_names(_):
    """Look at names and structures."""
    x = keras.Input((4,), name="x")
    shared = layers.Dense(2, name="twin")
    siamese = keras.Model(x, [shared(x), shared(layers.Dense(4)(x)), layers.Dense(1, name="other")(x)])
    named = keras.Model({"x": x}, {"a": layers.Dense(1, name="p")(x), "b": layers.Dense(2, name="q")(x)})
    divided = parallel(named)
    answer = divided({"x": ops.ones((5, 4))})
    passing = keras.Model(x, [x, layers.Dense(2, name="both_replicas")(x)], name="both")
    both = parallel(passing)
    rows = tf.reshape(tf.range(20.0), (5, 4)) / 20
    return {
        "siamese": parallel(siamese).output_names,
        "both": both.output_names,
        "passed": difference(passing(rows), both(rows)),
        "inputs": [tensor.name for tensor in parallel(make_template()).inputs],
        "dict": {key: list(value.shape) for key, value in answer.items()},
        "compiled": divided.compiled,
    }


def measure_relocation(_):
    """Train a copy."""
    template = make_template()
    x, _y = make_data(6)
    model = parallel(template, cpu_relocation=True)
    before = difference(template(x), model(x))
    weights = template.get_weights()
    fit(compiled(model, run_eagerly=True), 6)
    return {"before": before, "template": difference(weights, template.get_weights())}


def measure_seed(_):
    """Run the example of the page of Keras 2.1, with smaller numbers and CPUs for GPUs."""
    from keras.applications import Xception

    with tf.device("/cpu:0"):
        model = Xception(weights=None, input_shape=(71, 71, 3), classes=5)
    before = model.get_weights()
    parallel_model = multi_gpu_model(model, gpus=["/cpu:0", "/cpu:1"])
    parallel_model.compile(loss="categorical_crossentropy", optimizer="rmsprop")
    rng = np.random.default_rng(0)
    x, y = rng.random((4, 71, 71, 3)), rng.random((4, 5))
    loss = parallel_model.fit(x, y, epochs=1, batch_size=4, verbose=0).history["loss"]
    return {
        "loss": loss,
        "moved": sum(not np.array_equal(*pair) for pair in zip(before, model.get_weights(), strict=True)),
    }


def measure_falling_back(_):
    """Ask for GPUs that are not there, in a call and in the configuration of a saved layer."""
    template = make_template()
    x, _y = make_data(5)
    config = parallel(template).replicas.get_config() | {"devices": ["GPU:0", "GPU:1"]}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = multi_gpu_model(template, 2, fall_back=True)
        loaded = DataParallel.from_config(config)
    again = DataParallel.from_config(loaded.get_config())  # warns of nothing, or the process ends
    loaded(x)
    loaded.template.set_weights(template.get_weights())
    return {
        "said": [str(each.message) for each in caught if each.category is UserWarning],
        "devices": [model.replicas.devices, loaded.devices, again.devices],
        "outputs": [difference(template(x), model(x)), difference(template(x), loaded(x))],
    }


def measure_loading(folder):
    """Load in a process that has not made a parallel model."""
    x, _y = make_data(13)
    with np.load(folder / "expected.npz") as file:
        expected = [file[name] for name in file.files]
    pickled = pickle.loads((folder / "parallel.pickle").read_bytes())
    model = keras.models.load_model(folder / "parallel.keras")
    template = keras.models.load_model(folder / "template.keras", compile=False)
    fresh = keras.models.clone_model(template)
    fresh.load_weights(folder / "parallel.weights.h5")
    another = parallel(keras.models.clone_model(template))
    another.load_weights(folder / "parallel.weights.h5")
    models = {"template": template, "parallel": model, "fresh": fresh, "another": another, "pickled": pickled}
    return {
        **{name: difference(expected, each.predict(x, batch_size=5, verbose=0)) for name, each in models.items()},
        "devices": model.replicas.devices,
    }


def said_by(call, *arguments, **keywords) -> str:
    """Give the error that a call raises."""
    try:
        call(*arguments, **keywords)
    except (TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def message(*arguments, **keywords) -> str:
    """Give the error of `multi_gpu_model`."""
    return said_by(multi_gpu_model, *arguments, **keywords)


def measure_rows(_):
    """Compute outputs that have two rows for one of the inputs, in graphs and eagerly, and for a device without one."""
    x = keras.Input((4,))
    model = parallel(keras.Model(x, [layers.Dense(1)(x), ops.reshape(x, (-1, 2))], name="halves"))
    said = []
    for compute, rows in ((model.predict, 5), (model.predict, 2), (model, 5)):
        try:
            compute(np.ones((rows, 4)))
        except tf.errors.InvalidArgumentError as error:
            said.append(str(error))
    return said


def measure_files(folder):
    """Write a divided model by the functions of Keras."""
    template = make_template()
    model = parallel(template)
    x, _y = make_data(5)
    model.save_weights(folder / "good.weights.h5")
    keras.saving.save_model(model, folder / "good.keras")
    loaded = keras.saving.load_model(folder / "good.keras")
    warnings.simplefilter("ignore", UserWarning)  # Keras goes on after the refusal, and raises it at the end
    refused = said_by(keras.saving.load_weights, model, folder / "good.weights.h5")
    warnings.simplefilter("error", UserWarning)
    return {
        "loaded": difference(template(x), loaded(x)),
        "save": said_by(model.save, folder / "bad.h5"),
        "save_model": said_by(keras.saving.save_model, model, folder / "bad.h5"),
        "save_weights": said_by(keras.saving.save_weights, model, folder / "bad.weights.h5"),
        "load_weights": refused,
        "scaling": said_by(measure_scaling, template, x),
    }


def measure_template(folder):
    """Reach the template in a divided model of one output, as code for Keras 2.1 does, also in a loaded one."""
    stack = [layers.Dense(3, name="hidden"), layers.Dense(1, name="last")]
    template = keras.Sequential([keras.Input((4,), name="x"), *stack], name="inner")
    model = parallel(template)
    model.layers[-2].save(folder / "by_place.keras")
    model.layers[-2].save_weights(folder / "by_place.weights.h5")
    saved = keras.saving.load_model(folder / "by_place.keras")
    fresh = parallel(keras.models.clone_model(template))
    fresh.layers[-2].load_weights(folder / "by_place.weights.h5")
    model.save(folder / "whole.keras")
    loaded = keras.saving.load_model(folder / "whole.keras")
    return {
        "is_template": model.get_layer("inner") is template,
        "others": [model.get_layer("x").name, model.get_layer(index=-2).name, said_by(model.get_layer, "y")],
        "weights": [
            difference(template.get_weights(), each.get_weights())
            for each in (saved, fresh, loaded.get_layer("inner"), model.layers[-2])
        ],
        "saved": type(saved).__name__,
        "parameters": [template.count_params(), model.count_params()],
        "drawn": model_to_text(model, expand_nested=True),
    }


class Assigning(layers.Layer):
    """Assigns to a weight in the way that it was told."""

    def __init__(self, assign, rules=None, dtype="float32"):
        super().__init__(name="watch")
        self.assign, self.state_over_devices = assign, rules
        self.count = self.add_weight(shape=(), dtype=dtype, initializer="zeros", trainable=False, name="count")
        self.seen = keras.metrics.Sum(name="sum_of_all")
        self.beside = tf.Variable(0.0)

    def call(self, x):
        """Assign, and pass the inputs on."""
        self.assign(self, x)
        return x


def measure_unsaid(_):
    """Divide models with layers that do not say how what they assign is joined, or say it wrong."""

    def said(*arguments, **keywords):
        watch = Assigning(*arguments, **keywords)
        model = parallel(keras.Sequential([keras.Input((4,)), watch, layers.Dense(1)], name="counting"))
        return said_by(model.predict, np.ones((5, 4)), verbose=0)

    elsewhere = keras.Variable(0.0, name="elsewhere")

    def count(layer, _x):
        layer.count.assign_add(1)

    def assign(layer, _x):
        layer.count.assign(layer.count + 1)

    return {
        "unsaid": said(count),
        "another": said(count, {"metric": "sum"}),
        "said": said(count, {"count": "same"}),
        "word": said(count, "average"),
        "assign": said(assign, "sum"),
        "whole": said(count, "mean", dtype="int32"),
        "metric": said(lambda layer, x: layer.seen.update_state(x)),
        "elsewhere": said(lambda *_: elsewhere.assign_add(1)),
        "seed": said(lambda _, x: keras.random.normal(ops.shape(x))),
        "beside": said(lambda layer, _: layer.beside.assign_add(1)),
    }


class OwnMoments(layers.BatchNormalization):
    """Computes moments in its own way."""

    def _moments(self, inputs, mask):
        return super()._moments(inputs, mask)


class OwnStep(keras.Model):
    """Trains in its own way."""

    def train_step(self, data):
        """Train as Keras does."""
        return super().train_step(data)


def measure_errors(_):
    """Ask for what cannot be."""
    template = make_template()
    x = keras.Input((4, 2), name="x")
    rows = keras.Input((4, 2), batch_size=8)
    stateful = keras.Model(rows, layers.LSTM(2, stateful=True, name="memory")(rows))
    fixed = keras.Input((4, 2), batch_size=8, name="fixed")
    sparse = keras.Input((4,), sparse=True, name="sparse")
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        mirrored = keras.Sequential([keras.Input((4,)), layers.Dense(1)])
    said = {
        "none": message(template),
        "one": message(template, 1),
        "two": message(template, 2),
        "ids": message(template, [0, 7]),
        "repeated": message(template, ["CPU:1", "/cpu:1"]),
        "missing": message(template, ["CPU:1", "CPU:9"]),
        "bool": message(template, True),
        "negative": message(template, -1),
        "bools": message(template, [True, False]),
        "text": message(template, "0,1"),
        "path": message("model.keras", 2),
        "unbuilt": message(keras.Sequential([layers.Dense(1)], name="late"), TOWERS),
        "fixed": message(keras.Model(fixed, layers.Flatten()(fixed)), TOWERS),
        "sparse": message(keras.Model(sparse, layers.Dense(1)(sparse)), TOWERS),
        "scalar": message(keras.Model(x, ops.sum(x)), TOWERS),
        "stateful": message(stateful, TOWERS),
        "divided": message(parallel(template), TOWERS),
        "moments": message(keras.Sequential([keras.Input((4,)), OwnMoments(name="mine")]), TOWERS),
        "float8": message(keras.Sequential([keras.Input((4,)), layers.Dense(1, dtype="float8_from_float32")]), TOWERS),
        "own": message(OwnStep(x, layers.Flatten()(x)), TOWERS),
        "strategy": message(mirrored, TOWERS),
    }
    with strategy.scope():
        said["inside"] = message(template, TOWERS)
    with patch("keras.backend.backend", lambda: "jax"):  # no other backend is installed
        said["backend"] = message(template, TOWERS)
    return said


def main(folder: Path, names: list[str]) -> None:
    """Give TensorFlow four logical CPUs, run the functions and write what they return."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 4)
    warnings.simplefilter("error", UserWarning)
    measured = {name: globals()[f"measure_{name}"](folder) for name in names}
    (folder / f"{names[0]}.json").write_text(json.dumps(measured))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
