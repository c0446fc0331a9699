"""Counting is tested on made-up roots; training on four logical CPUs, in processes of their own.

TensorFlow can be given logical CPUs only before it starts, which would change every other test of the same
process. So this file is also a script: each `measure_...` function runs there, and a test reads its result.
"""

import json
import os
import re
import subprocess
import sys
import warnings
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kflow.core.devices import count_gpus, visible_gpus

REPOSITORY = Path(__file__).parents[2]
TOWERS = ["CPU:1", "CPU:2", "CPU:3"]
FORWARD = ["_FusedConv2D", "_FusedMatMul"]
BACKWARD = ["MatMul", "Conv2DBackpropFilter", "BiasAddGrad"]

# --- counting ----------------------------------------------------------------------------------------------


def make_root(path: Path, uuids: list[str]) -> Path:
    """Write what the driver shows of each GPU."""
    (path / "proc/driver/nvidia/gpus").mkdir(parents=True)
    for number, uuid in enumerate(uuids):
        folder = path / f"proc/driver/nvidia/gpus/0000:{number:02x}:00.0"
        folder.mkdir()
        lines = (
            "Model: \t\t Some GPU",
            "IRQ:   \t\t 7",
            f"GPU UUID: \t {uuid}",
            f"Device Minor: \t {number}",
        )
        (folder / "information").write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """A machine with three GPUs, two of whose UUIDs begin alike."""
    return make_root(tmp_path_factory.mktemp("three"), ["GPU-aa11-01", "GPU-aa22-02", "GPU-bb33-03"])


def test_all_gpus_are_visible_when_nothing_is_said(three):
    """Without CUDA_VISIBLE_DEVICES each GPU of the driver is one."""
    environ = {}

    assert visible_gpus(root=three, environ=environ) == ("0", "1", "2")


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("", ()),
        ("-1", ()),
        ("NoDevFiles", ()),
        ("0", ("0",)),
        ("2,0", ("2", "0")),
        (" 1 , 2 ", ("1", "2")),
        ("0,3,1", ("0",)),
        ("0,-1,1", ("0",)),
        ("0,,1", ("0",)),
        ("0,x,1", ("0",)),
        ("1,1", ()),
        ("GPU-bb", ("GPU-bb",)),
        ("GPU-aa22-02,GPU-aa11-01", ("GPU-aa22-02", "GPU-aa11-01")),
        ("GPU-aa", ()),
        ("GPU-cc,0", ()),
        ("0,GPU-aa11", ()),
        ("0,GPU-bb33-03", ("0", "GPU-bb33-03")),
        ("MIG-1234,MIG-5678", ("MIG-1234",)),
        ("²", ()),
    ],
)
def test_cuda_visible_devices_is_read_as_cuda_reads_it(three, setting, expected):
    """Indices, UUIDs, beginnings of UUIDs, repetitions and nonsense have CUDA's meaning."""
    environ = {"CUDA_VISIBLE_DEVICES": setting}

    assert visible_gpus(root=three, environ=environ) == expected


@given(st.lists(st.integers(-1, 4)))
def test_a_list_of_indices_is_cut_at_the_first_wrong_one(three, indices):
    """The result is the beginning of the list up to the first wrong index, and nothing if one repeats."""
    wrong = next((place for place, index in enumerate(indices) if not 0 <= index < 3), len(indices))
    right = [str(index) for index in indices[:wrong]]
    environ = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, indices))}

    assert visible_gpus(root=three, environ=environ) == (tuple(right) if len(set(right)) == len(right) else ())


def test_device_files_are_counted_where_the_driver_is_hidden(tmp_path):
    """Only /dev/nvidia<number> is a GPU; the control files are not."""
    (tmp_path / "dev").mkdir()
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "nvidia-caps", "null"):
        (tmp_path / "dev" / name).touch()

    assert visible_gpus(root=tmp_path, environ={}) == ("0", "1")


@pytest.mark.parametrize("setting", [None, "0", "GPU-aa", "MIG-1"])
def test_a_machine_without_gpus_has_none(tmp_path, setting):
    """Whatever the environment asks for, there is nothing to see."""
    environ = {} if setting is None else {"CUDA_VISIBLE_DEVICES": setting}

    assert count_gpus(root=tmp_path, environ=environ) == 0


def test_the_environment_of_the_process_is_read_by_default(three, monkeypatch):
    """Without `environ` the variable of this process counts."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,2")

    assert count_gpus(root=three) == 2


def test_counting_does_not_load_tensorflow():
    """A scheduler may count GPUs without claiming their memory."""
    code = """
import sys
from kflow.core.devices import count_gpus
count_gpus()
print({'tensorflow', 'keras'} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "set()"


# --- what runs in the script -------------------------------------------------------------------------------


def make_template(batch_norm: bool = False):
    """Two inputs, one of them of integers, and two outputs."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(1)
    image = keras.Input((8, 8, 1), name="image")
    text = keras.Input((5,), dtype="int32", name="text")
    x = layers.Conv2D(4, 3, activation="relu")(image)
    if batch_norm:
        x = layers.BatchNormalization()(x)
    y = layers.GlobalAveragePooling1D()(layers.Embedding(20, 6, mask_zero=True)(text))
    both = layers.Concatenate()([layers.Flatten()(x), y])
    kind = layers.Dense(3, activation="softmax", name="kind", kernel_regularizer="l2")
    return keras.Model([image, text], [layers.Dense(1, name="size")(both), kind(both)])


def make_data(rows: int):
    import numpy as np

    rng = np.random.default_rng(0)
    x = [rng.normal(size=(rows, 8, 8, 1)).astype("float32"), rng.integers(0, 20, (rows, 5))]
    return x, {"size": rng.normal(size=(rows, 1)), "kind": rng.integers(0, 3, rows)}


def fit(model, rows: int, batch_size: int = 32) -> list[float]:
    """Train two epochs in a fixed order and give the losses."""
    x, y = make_data(rows)
    return model.fit(x, y, batch_size=batch_size, epochs=2, shuffle=False, verbose=0).history["loss"]


def compiled(model, **arguments):
    """Compile a model, and return it."""
    losses = {"size": "mse", "kind": "sparse_categorical_crossentropy"}
    model.compile("adam", losses, **arguments)
    return model


def difference(first, second) -> float:
    """Give the largest difference between two lists of arrays, NaN where one is NaN."""
    import numpy as np

    return float(max(np.abs(a - b).max() for a, b in zip(first, second, strict=True)))


def parallel(template, **arguments):
    from kflow.core.devices import multi_gpu_model

    return multi_gpu_model(template, devices=TOWERS, **arguments)


def message(*arguments, **keywords) -> str:
    """Give the error that a call raises."""
    from kflow.core.devices import multi_gpu_model

    try:
        multi_gpu_model(*arguments, **keywords)
    except (TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def measure_outputs(_):
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
    import numpy as np

    alone, template = compiled(make_template()), compiled(make_template())
    model = compiled(parallel(template))
    results = {}
    for rows in (103, 34):
        before = template.get_weights()
        losses = [fit(alone, rows), fit(model, rows)]
        results[str(rows)] = compare(losses, before, alone, template)
    x, _y = make_data(7)
    expected = [output.numpy() for output in model(x)]
    template.save(folder / "template.keras")
    model.save(folder / "parallel.keras")
    np.savez(folder / "expected.npz", *expected)
    return results


def compare(losses, before, alone, template):
    """Compare the model trained alone with the template that was trained in parallel."""
    return {
        "losses": difference(*losses),
        "weights": difference(alone.get_weights(), template.get_weights()),
        "moved": difference(before, template.get_weights()),
    }


def measure_eager_training(_):
    alone, template = compiled(make_template(), run_eagerly=True), make_template()
    before = template.get_weights()
    losses = [fit(alone, 10, 5), fit(compiled(parallel(template), run_eagerly=True), 10, 5)]
    return {"eager": compare(losses, before, alone, template)}


def measure_batch_norm(_):
    import numpy as np

    template = make_template(batch_norm=True)
    losses = fit(compiled(parallel(template), run_eagerly=True), 10, 8)
    return bool(np.isfinite(losses).all()) and all(bool(np.isfinite(w).all()) for w in template.get_weights())


def measure_placement(_):
    """Read which device each operation of a training step ran on, from the executed graphs."""
    import keras
    import tensorflow as tf
    from keras import layers
    from tensorflow.python.eager import context

    found = {}
    for cpu_merge in (True, False):
        template = keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(3)])
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


def measure_names(_):
    import keras
    from keras import layers

    x = keras.Input((4,), name="x")
    shared = layers.Dense(2, name="twin")
    siamese = keras.Model(x, [shared(x), shared(layers.Dense(4)(x)), layers.Dense(1, name="other")(x)])
    named = keras.Model({"x": x}, {"a": layers.Dense(1, name="p")(x), "b": layers.Dense(2, name="q")(x)})
    divided = parallel(named)
    answer = divided({"x": keras.ops.ones((5, 4))})
    return {
        "siamese": parallel(siamese).output_names,
        "inputs": [tensor.name for tensor in parallel(make_template()).inputs],
        "dict": {key: list(value.shape) for key, value in answer.items()},
        "compiled": divided.compiled,
    }


def measure_relocation(_):
    template = make_template()
    x, _y = make_data(6)
    model = parallel(template, cpu_relocation=True)
    before = difference(template(x), model(x))
    weights = template.get_weights()
    fit(compiled(model, run_eagerly=True), 6)
    return {"before": before, "template": difference(weights, template.get_weights())}


def measure_jit(_):
    model = parallel(make_template())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.compile("sgd", "mse", jit_compile=True)
    return {"jit": model.jit_compile, "warned": any("jit_compile" in str(w.message) for w in caught)}


def measure_loading(folder):
    """Load in a process that has not made a parallel model."""
    import keras
    import numpy as np

    from kflow.core.devices import DataParallel

    x, _y = make_data(7)
    with np.load(folder / "expected.npz") as file:
        expected = [file[name] for name in file.files]
    model = keras.models.load_model(folder / "parallel.keras")
    template = keras.models.load_model(folder / "template.keras")
    layer = next(layer for layer in model.layers if isinstance(layer, DataParallel))
    return {
        "template": difference(expected, template(x)),
        "parallel": difference(expected, model(x)),
        "devices": layer.devices,
        "slots": len(model.optimizer.variables) > 2,
    }


def measure_errors(_):
    import keras

    template = make_template()
    return {
        "none": message(template),
        "one": message(template, 1),
        "two": message(template, 2),
        "ids": message(template, [0, 7]),
        "repeated": message(template, devices=["CPU:1", "/cpu:1"]),
        "missing": message(template, devices=["CPU:1", "CPU:9"]),
        "both": message(template, 2, devices=TOWERS),
        "bool": message(template, True),
        "text": message(template, "0,1"),
        "device": message(template, devices="CPU:1"),
        "path": message("model.keras", 2),
        "unbuilt": message(keras.Sequential([keras.layers.Dense(1)], name="late"), devices=TOWERS),
    }


def run_script(names: list[str], folder: Path) -> None:
    """Give TensorFlow four logical CPUs, run the functions and write what they return."""
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 4)
    measured = {name: globals()[f"measure_{name}"](folder) for name in names}
    (folder / f"{names[0]}.json").write_text(json.dumps(measured))


# --- what the script measured ------------------------------------------------------------------------------


def start(folder: Path, names: list[str]) -> dict:
    """Run this file as a script."""
    command = [sys.executable, __file__, str(folder), *names]
    environ = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / f"{names[0]}.json").read_text())


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Everything measured, in one process and a second one that loads what the first saved."""
    folder = tmp_path_factory.mktemp("measured")
    names = [name.removeprefix("measure_") for name in globals() if name.startswith("measure_")]
    first = start(folder, [name for name in names if name != "loading"])
    return first | start(folder, ["loading"])


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 7, 12])
def test_outputs_are_those_of_the_template(measured, rows):
    """Batches of any size give the template's outputs in order, also with fewer rows than devices."""
    gap, shapes = measured["outputs"][str(rows)]

    assert shapes == [[rows, 1], [rows, 3]]
    assert gap <= 1e-6


@pytest.mark.parametrize("case", ["103", "34", "eager"])
def test_two_epochs_equal_those_on_one_device(measured, case):
    """Losses and weights follow the single device, whether or not the last batch has a row for each tower."""
    result = {**measured["training"], **measured["eager_training"]}[case]

    assert result["losses"] <= 1e-6
    assert result["weights"] <= 1e-6
    assert result["moved"] > 1e-3


def test_batch_normalization_gives_no_nan(measured):
    """A last batch of two rows on three devices leaves moving averages and losses finite."""
    is_finite = measured["batch_norm"]

    assert is_finite


@pytest.mark.parametrize("op", FORWARD + BACKWARD)
def test_forward_and_backward_operations_run_on_each_device(measured, op):
    """Both directions are on the towers' devices and on no other."""
    places = measured["placement"]["True"]

    assert places[op] == TOWERS


@pytest.mark.parametrize(("cpu_merge", "device"), [("True", "CPU:0"), ("False", "CPU:1")])
def test_outputs_are_joined_where_asked(measured, cpu_merge, device):
    """On the CPU, or on the first of the devices."""
    places = measured["placement"][cpu_merge]

    assert places["ConcatV2"] == [device]


def test_names_and_structures_are_kept(measured):
    """Inputs and outputs keep names and nesting, repeated output names are numbered, nothing is compiled."""
    result = measured["names"]

    assert result == {
        "siamese": ["twin", "twin_1", "other"],
        "inputs": ["image", "text"],
        "dict": {"a": [5, 1], "b": [5, 2]},
        "compiled": False,
    }


def test_relocation_copies_the_weights_and_leaves_the_template_alone(measured):
    """The copy starts with the template's weights and is trained apart from it."""
    result = measured["relocation"]

    assert result["before"] <= 1e-6
    assert result["template"] == 0


def test_it_is_never_compiled_by_xla(measured):
    """XLA would use one device only, so asking for it is answered by a warning of Keras."""
    result = measured["jit"]

    assert result == {"jit": False, "warned": True}


def test_both_models_are_loaded_in_another_process(measured):
    """The files restore weights, devices and the state of the optimizer."""
    result = measured["loading"]

    assert result["template"] <= 1e-6
    assert (result["parallel"], result["devices"], result["slots"]) == (0, TOWERS, True)


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        (
            "none",
            "ValueError: cannot divide .* 0 asked for, and at least 2 are needed; TensorFlow sees CPU:0",
        ),
        ("one", "ValueError: .* 1 asked for, and at least 2 are needed"),
        ("two", "ValueError: .* there is no GPU:0, GPU:1; TensorFlow sees CPU:0"),
        ("ids", "ValueError: .* there is no GPU:0, GPU:7; TensorFlow sees CPU:0"),
        ("repeated", "ValueError: .* CPU:1, CPU:1 names a device twice"),
        ("missing", "ValueError: .* there is no CPU:9; TensorFlow sees CPU:0, CPU:1, CPU:2, CPU:3"),
        ("both", "ValueError: both gpus and devices are given"),
        ("bool", "TypeError: gpus is True; give a number of GPUs"),
        ("text", "TypeError: gpus is '0,1'; give a number of GPUs"),
        ("device", "TypeError: devices is 'CPU:1'; give a list of names"),
        ("path", "TypeError: model is a str; multi_gpu_model takes a keras.Model"),
        ("unbuilt", "ValueError: the model 'late' has no inputs yet: begin it with keras.Input"),
    ],
)
def test_what_cannot_be_divided_is_refused(measured, case, expected):
    """Each error says what is wrong and which devices are there."""
    said = measured["errors"][case]

    assert re.match(expected, said), said


if __name__ == "__main__":
    run_script(sys.argv[2:], Path(sys.argv[1]))
