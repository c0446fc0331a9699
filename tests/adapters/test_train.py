"""Steps on several devices, against the same steps on one; on logical CPUs, in a process of its own.

TensorFlow can be given logical CPUs only before it starts, so this file is also a script; the tests read its results.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kflow.adapters.evaluate import Evaluate
from kflow.adapters.predict import Predict
from kflow.adapters.train import Train
from kflow.core.parallel import multi_gpu
from kflow.spec.facts import ArrayFact
from kflow.workspace import Workspace

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("train")]

REPOSITORY = Path(__file__).parents[2]
LAYERS = [
    {"Input": {"shape": [4]}},
    {"Dense": {"units": 8, "use_bias": False, "activity_regularizer": "l2"}},
    "BatchNormalization",
    "ReLU",
    {"Dense": {"units": 3, "kernel_regularizer": "l2", "name": "out"}},
]


def measure(root: Path) -> dict:
    """Build a model, train it on one device and on two, go on, measure and predict; compare."""
    import numpy as np
    import tensorflow as tf
    from conftest import Bench

    from kflow.adapters.build_model import BuildModel

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    # Logical CPUs stand in for GPUs; all else is as it runs.
    choose = multi_gpu.choose_devices
    multi_gpu.choose_devices = lambda gpus: choose([f"CPU:{number}" for number in range(gpus)])
    bench = Bench(root)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(41, 4)).astype("float32")
    y = (x @ rng.normal(size=(4, 3))).astype("float32")
    built = bench.run(BuildModel, layers=LAYERS).stored("model")
    arrays = {"${x}": ("array", x), "${y}": ("array", y)}
    given = {"x": "${x}", "model": "${m}", "batch_size": 7}
    labelled = {**given, "y": "${y}"}
    compiled = {"loss": "mse", "optimizer": "adam", "metrics": ["mae"], "epochs": 2, "validation_split": 0.3}
    outputs = []
    for gpus in (0, 2):
        first = bench.run(Train, {"${m}": built, **arrays}, gpus=gpus, **labelled, **compiled)
        trained = first.stored("model")
        metrics = bench.run(Evaluate, {"${m}": trained, **arrays}, gpus=gpus, **labelled)["metrics"]
        answers = bench.run(Predict, {"${m}": trained, "${x}": arrays["${x}"]}, gpus=gpus, **given)
        outputs.append((trained.open(), first["history"], metrics, answers["array"]))
    (alone, *_), (divided, *_) = outputs

    def gap(first: object, second: object) -> float:
        return float(np.max(np.abs(np.asarray(first, "float64") - np.asarray(second, "float64"))))

    return {
        "classes": [type(alone).__name__, type(divided).__name__],
        "weights": max(map(gap, alone.get_weights(), divided.get_weights())),
        "optimizer": [
            len(divided.optimizer.variables),
            max(map(gap, *(m.optimizer.variables for m in (alone, divided)))),
        ],
        "history": max(gap(outputs[0][1][name], outputs[1][1][name]) for name in outputs[0][1]),
        "metrics": max(gap(outputs[0][2][name], outputs[1][2][name]) for name in outputs[0][2]),
        "answers": gap(outputs[0][3][:], outputs[1][3][:]),
    }


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Run this file as a script."""
    environ = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, __file__, tmp_path_factory.mktemp("divided")]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("what", ["weights", "history", "metrics", "answers"])
def test_two_devices_give_the_results_of_one(measured, what):
    """Training with a validation split and a last batch of five rows, measuring, and predicting."""
    gap = measured[what]

    assert gap <= 2e-6


def test_what_is_stored_is_the_plain_model_with_its_optimizer(measured):
    """Nothing of the division is left in the model, and the optimizer's state is that of one device."""
    count, gap = measured["optimizer"]

    assert measured["classes"] == ["Sequential", "Sequential"]
    assert count > 2
    assert gap <= 2e-6


@pytest.mark.parametrize("gpus", [4, "all"])
@pytest.mark.parametrize("kind", [Train, Evaluate, Predict])
def test_a_batch_with_fewer_rows_than_gpus_is_found_beforehand(bench, monkeypatch, kind, gpus):
    """It would leave GPUs idle."""
    monkeypatch.setattr(Workspace, "count_gpus", lambda _: 4)
    fields = {"model": "${m}", "x": "${x}", "batch_size": 3, "gpus": gpus}
    more = {"y": "${y}", "loss": "mse"} if kind is not Predict else {}
    spec = kind.model_validate({**fields, **more})

    _, problems = bench.examine(spec, x=ArrayFact((40, 4)), y=ArrayFact((40, 3)))

    assert "a batch of 3 cannot be divided among 4 GPUs; enlarge it" in problems


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]))))  # noqa: T201
