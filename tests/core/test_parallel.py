"""Models divided among logical CPUs, against the same models on one device; measured by `parallel_script.py`."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("parallel")]  # measured once

SCRIPT = Path(__file__).with_name("parallel_script.py")
REPOSITORY = Path(__file__).parents[2]
TOWERS = ["CPU:1", "CPU:2", "CPU:3"]
EVERYTHING = (
    "cuts outputs training gradients eager layers masks dropout placement jit scale names relocation falling_back "
    "errors rows"
)


def start(folder: Path, names: str) -> dict:
    """Run the script."""
    command = [sys.executable, SCRIPT, folder, *names.split()]
    environ = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads((folder / f"{names.split(maxsplit=1)[0]}.json").read_text())


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Everything measured, in one process and a second one that loads what the first saved."""
    folder = tmp_path_factory.mktemp("measured")
    return start(folder, EVERYTHING) | start(folder, "loading")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """What layers assign, what threads do at once, and what is refused, in a process of its own."""
    return start(tmp_path_factory.mktemp("guarded"), "state threads files template unsaid")


# --- the results of one device -----------------------------------------------------------------------------


@pytest.mark.parametrize("count", range(1, 6))
@pytest.mark.parametrize("rows", range(1, 13))
def test_rows_are_dealt_out_as_numpy_splits(measured, rows, count):
    """The sizes are those of `numpy.array_split`, without a gap; a device without rows is given the last one."""
    starts, sizes = measured["cuts"][f"{rows}/{count}"]
    parts = np.array_split(np.arange(rows), count)

    assert sizes == [len(part) for part in parts]
    assert starts == [part[0] if len(part) else rows - 1 for part in parts]


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 7, 12])
def test_outputs_are_those_of_the_template(measured, rows):
    """Batches of any size give the template's outputs in order, also with fewer rows than devices."""
    gap, shapes = measured["outputs"][str(rows)]

    assert shapes == [[rows, 1], [rows, 3]]
    assert gap <= 1e-6


@pytest.mark.parametrize("rows", ["7", "2"])
def test_gradients_are_those_of_one_device(measured, rows):
    """With respect to each weight and to the inputs, regularizers and added losses included."""
    gap, largest = measured["gradients"][rows]

    assert gap <= 1e-6 * largest


@pytest.mark.parametrize("case", ["103", "34", "eager", "layers", "masks"])
def test_training_equals_training_on_one_device(measured, case):
    """Losses, metrics, weights and moving averages, for batches that do not divide or have fewer rows than devices.

    The models have several inputs and outputs, embeddings and masks, batch normalization (masked, renormalizing,
    nested, asked to be synchronized), regularizers of weights and activities, `add_loss`, spectral normalization.
    """
    result = {**measured, **measured["training"]}[case]

    assert result["losses"] <= 2e-6
    assert result["weights"] <= 2e-6
    assert result["moved"] > 1e-3


def test_evaluating_and_predicting_equal_one_device(measured):
    """With sample weights, metrics of each output and a last batch that does not divide."""
    result = measured["training"]

    assert result["evaluated"] <= 1e-6
    assert result["predicted"] <= 1e-6


def test_a_loaded_model_goes_on_as_if_it_had_not_been_saved(measured):
    """The state of the optimizer is in the file: two more epochs equal those of the model that was never divided."""
    histories, weights = measured["training"]["continued"]

    assert histories <= 2e-6
    assert weights <= 2e-6


def test_what_layers_assign_is_joined_as_they_say(guarded):
    """Counters, totals, averages, extremes, metrics, and a sum over all rows that the layer itself takes.

    The last batch has fewer rows than devices, and the epochs have batches that do not divide.
    """
    result = guarded["state"]

    assert result["rows"] == 32
    assert {"each_row", "whole_batch", "evaluated each_row", "evaluated whole_batch"} <= set(result["measured"])
    assert {name for name, gap in (result["weights"] | result["measured"]).items() if not gap <= 2e-6} == set()


def test_threads_do_not_disturb_one_another(guarded):
    """Two divided models and their template compute at once, and the template's layers are left as they were."""
    result = guarded["threads"]

    assert max(result["outputs"], result["training"], result["predicted"]) <= 1e-6
    assert result["left"] == []


def test_dropout_draws_another_mask_on_each_device_and_in_each_step(measured):
    """Of six rows on three devices no two have the same mask, each keeps about half, and the next step has new ones."""
    first, second = (np.array(mask) for mask in measured["dropout"]["masks"])

    assert len(np.unique(np.concatenate([first, second]), axis=0)) == 12
    assert np.concatenate([first, second]).mean() == pytest.approx(0.5, abs=0.1)


def test_dropout_follows_from_the_seed(measured):
    """A repeated training gives the same weights, and another seed others."""
    result = measured["dropout"]

    assert result["again"] == 0
    assert result["other"] > 1e-3


# --- where it runs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "operation",
    [
        pytest.param(r"Conv2D$", id="convolution"),
        pytest.param(r"FusedMatMul$", id="dense layer"),
        pytest.param(r"SquaredDifference$", id="batch normalization"),
        pytest.param(r"Conv2DBackpropFilter", id="gradient of the convolution"),
        pytest.param(r"(?<!Fused)MatMul$", id="gradient of the dense layer"),
        pytest.param(r"RsqrtGrad$", id="gradient of the batch normalization"),
    ],
)
def test_forward_and_backward_operations_run_on_each_device(measured, operation):
    """In the graphs that were executed both directions are on the towers' devices, and on no other."""
    places = measured["placement"]["True"]

    assert sorted({device for op in places if re.search(operation, op) for device in places[op]}) == TOWERS


@pytest.mark.parametrize(("cpu_merge", "device"), [("True", "CPU:0"), ("False", "CPU:1")])
def test_outputs_are_joined_where_asked(measured, cpu_merge, device):
    """On the CPU, or on the first of the devices."""
    places = measured["placement"][cpu_merge]

    assert places["ConcatV2"] == [device]


def test_it_is_never_compiled_by_xla(measured):
    """XLA would use one device only, so asking for it is answered by a warning of Keras."""
    result = measured["jit"]

    assert result == {"jit": False, "warned": True}


def test_the_report_of_the_scaling(measured):
    """It has a time for each device, and warns exactly when all together are not faster than one."""
    result = measured["scale"]
    one, together, *_parts = result["seconds"]

    assert (min(result["seconds"]) > 0, result["parts"]) == (True, TOWERS)
    assert (result["speedup"], result["efficiency"]) == (one / together, pytest.approx(one / together / 3))
    assert [bool(re.match("8 rows take .*; use larger batches, or one device", said)) for said in result["said"]] == (
        [True] if together >= one else []
    )


# --- names and files ---------------------------------------------------------------------------------------


@pytest.mark.timeout(900)  # Xception is large, and a machine may be busy
def test_the_example_of_the_page_runs(tmp_path):
    """Xception on two devices: the loss is finite, and training moved what the template can train."""
    result = start(tmp_path, "seed")["seed"]

    assert np.isfinite(result["loss"]).all()
    assert result["moved"] > 100


def test_names_and_structures_are_kept(measured):
    """Inputs and outputs keep names and nesting, nothing is compiled.

    Repeated output names are numbered, those of inputs that are passed on as well.
    """
    result = measured["names"]

    assert result.pop("passed") <= 1e-6
    assert result == {
        "siamese": ["twin", "twin_1", "other"],
        "both": ["x_1", "both_replicas"],
        "inputs": ["image", "text"],
        "dict": {"a": [5, 1], "b": [5, 2]},
        "compiled": False,
    }


def test_the_template_is_reached_by_its_name_and_saved_at_its_place(guarded):
    """As in Keras 2.1; only that `layers` holds the layer that divides it, which saves and loads it."""
    result = guarded["template"]

    assert result["is_template"]
    assert result["others"][:2] == ["x", "inner_replicas"]
    assert result["others"][2].startswith("ValueError: No such layer: y")
    assert result["weights"] == [0] * 4
    assert result["saved"] == "Sequential"
    assert result["parameters"] == [19, 19]


def test_the_template_is_drawn_inside_of_a_divided_model(guarded):
    """Expanded as a nested model is."""
    drawn = guarded["template"]["drawn"]

    assert drawn.splitlines() == [
        "x: InputLayer",
        "inner_replicas: DataParallel",
        "  x: InputLayer <- x",
        "  hidden: Dense <- inner_replicas/x",
        "  last: Dense <- inner_replicas/hidden",
        "last: Identity <- inner_replicas/last",
    ]


def test_relocation_copies_the_weights_and_leaves_the_template_alone(measured):
    """The copy starts with the template's weights and is trained apart from it."""
    result = measured["relocation"]

    assert result["before"] <= 1e-6
    assert result["template"] == 0


@pytest.mark.parametrize("model", ["template", "parallel", "fresh", "another", "pickled"])
def test_files_are_loaded_in_another_process(measured, model):
    """The template's file, the parallel model's, its weights into a template or another parallel model, its pickle."""
    result = measured["loading"]

    assert result["devices"] == TOWERS
    assert result[model] <= 1e-6


def test_one_device_computes_where_the_others_are_missing(measured):
    """When asked to, and always for a loaded model; each time with the reason, and with the outputs of the template."""
    result = measured["falling_back"]

    assert result["devices"] == [["CPU:0"]] * 3
    assert max(result["outputs"]) <= 1e-6
    assert [
        re.search(r"(there is no|saved for) GPU:0, GPU:1.*; CPU:0 computes everything", said) is not None
        for said in result["said"]
    ] == [True, True]


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("none", "ValueError: cannot divide .* 0 asked for, and at least 2 are needed; TensorFlow sees CPU:0"),
        ("one", "ValueError: .* 1 asked for, and at least 2 are needed"),
        ("two", "ValueError: .* there is no GPU:0, GPU:1; TensorFlow sees CPU:0"),
        ("ids", "ValueError: .* there is no GPU:0, GPU:7; TensorFlow sees CPU:0"),
        ("repeated", "ValueError: .* CPU:1, CPU:1 names a device twice"),
        ("missing", "ValueError: .* there is no CPU:9; TensorFlow sees CPU:0, CPU:1, CPU:2, CPU:3"),
        ("bool", "TypeError: gpus is True; give a number of GPUs"),
        ("negative", "ValueError: gpus is -1, which is no number of GPUs; give one of at least 2"),
        ("bools", r"TypeError: gpus is \[True, False\]; give a number of GPUs"),
        ("text", "TypeError: gpus is '0,1'; give a number of GPUs"),
        ("backend", "ValueError: multi_gpu_model needs the TensorFlow backend; Keras runs on jax"),
        ("path", "TypeError: model is a str; multi_gpu_model takes a keras.Model"),
        ("unbuilt", "ValueError: the model 'late' has no inputs yet: begin it with keras.Input"),
        ("fixed", "ValueError: .* its input 'fixed' has the fixed batch size 8; leave it open"),
        ("sparse", "ValueError: .* its input 'sparse' is sparse; make it dense"),
        ("scalar", r"ValueError: .* its output 'sum' has the shape \(\), so no row for each row"),
        ("stateful", "ValueError: .* memory keeps a state for each row of a batch"),
        ("divided", "ValueError: .* it is divided already; divide the model that it was made of"),
        ("moments", "ValueError: .* mine computes the moments of a batch normalization in its own way"),
        ("float8", "ValueError: .* is replaced by its gradient, as in layers of dtype float8; use another dtype"),
        ("own", "ValueError: .* its class OwnStep has its own train_step, which the divided model would not use"),
        ("strategy", "ValueError: .* in the scope of a distribution strategy; make it outside"),
        ("inside", "ValueError: .* in the scope of a distribution strategy; make it outside"),
    ],
)
def test_what_cannot_be_divided_is_refused(measured, case, expected):
    """Each error says what is wrong and which devices are there."""
    said = measured["errors"][case]

    assert re.match(expected, said), said


def test_outputs_with_more_rows_than_the_inputs_are_refused(measured):
    """No row is dropped; the error names the output and says what to do."""
    said = measured["rows"]

    assert len(said) == 3
    assert all("halves" in each and "reshape" in each and "do not divide the model" in each for each in said)


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        pytest.param(
            "unsaid",
            r"its layer 'watch' \(Assigning\) assigns to 'count' \(.*parallel_script.py:\d+\), and each device has "
            r"only its own rows; let the class say .* state_over_devices = {'count': 'mean'}",
        ),
        ("another", r"its layer 'watch' \(Assigning\) assigns to 'count'"),
        ("word", "says 'average' of 'count', which is none of mean, sum, max, min, same"),
        ("assign", "says 'sum' of 'count', which adds up .* does not call assign_add; .* sum_over_devices"),
        ("whole", "says 'mean' of 'count', which needs floating-point numbers, and these are int32"),
        ("metric", r"its layer 'watch' \(Assigning\) assigns to 'seen' .* state_over_devices = {'seen': 'mean'}"),
        ("elsewhere", "assigns to 'elsewhere', which no layer of it has; make it an attribute"),
        ("seed", "assigns to '.*seed_generator_state', which no layer of it has; .* a keras.random.SeedGenerator"),
        ("beside", "assigns to a tf.Variable, and would on each device; make it a weight with add_weight"),
    ],
)
def test_assignments_that_cannot_be_joined_are_refused(guarded, case, expected):
    """At the first batch, with the layer, the weight and the line, and without what Keras would add."""
    said = guarded["unsaid"][case]

    assert re.match(f"ValueError: the model 'counting' cannot be divided among devices: .*{expected}", said), said
    assert "Arguments received" not in said


def test_a_layer_that_says_how_is_taken(guarded):
    """The same layer is computed when its class has a word for the weight."""
    said = guarded["unsaid"]["said"]

    assert said == "no error"


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("save", "bad.h5: a divided model is saved as .keras; as HDF5 save the model that it was made of"),
        ("save_model", "a divided model is saved as .keras; as HDF5 save the model that it was made of"),
        ("save_weights", "keras.saving.save_weights does not know .* call its method save_weights"),
        ("load_weights", "keras.saving.load_weights does not know .* call its method load_weights"),
        ("scaling", "model is a Functional that is not divided; give what multi_gpu_model made of it"),
    ],
)
def test_functions_that_would_go_past_a_divided_model_are_refused(guarded, case, expected):
    """What would write files that cannot be loaded, and what needs a divided model."""
    said = guarded["files"][case]

    assert re.search(expected, said), said


def test_the_functions_of_keras_save_and_load_a_whole_model(guarded):
    """As its methods do."""
    gap = guarded["files"]["loaded"]

    assert gap <= 1e-6
