"""An epoch of a small model: on one device, divided among two logical CPUs, and with Keras's own MirroredStrategy.

The devices share the cores of this machine, so nothing can become faster here: what is measured is the overhead.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROWS, BATCH = 1280, 128


def report(rounds: int) -> None:
    """Measure in a process of its own: TensorFlow gets logical CPUs only before it starts."""
    environ = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(Path(__file__).parents[1])}
    subprocess.run([sys.executable, __file__, str(rounds)], env=environ, check=True)  # noqa: S603  # itself


def _make(name: str, *, batch_norm: bool) -> Any:
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    normalize = [layers.BatchNormalization()] if batch_norm else []
    stacks = {
        "MLP": [layers.Flatten(), layers.Dense(256), *normalize, layers.ReLU(), layers.Dense(256, activation="relu")],
        "CNN": [layers.Conv2D(16, 3), *normalize, layers.ReLU(), layers.Conv2D(16, 3), layers.Flatten()],
    }
    return keras.Sequential([keras.Input((28, 28, 1)), *stacks[name], layers.Dense(10, activation="softmax")])


def _measure(rounds: int) -> None:
    import numpy as np
    import tensorflow as tf
    from measure import measure, show

    from kflow.core import multi_gpu_model

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    devices = ["CPU:0", "CPU:1"]
    rng = np.random.default_rng(0)
    x, y = rng.random((ROWS, 28, 28, 1), "float32"), rng.integers(0, 10, ROWS)
    for name in ("MLP", "CNN"):
        for batch_norm in (False, True):
            strategy = tf.distribute.MirroredStrategy(devices, tf.distribute.ReductionToOneDevice())
            with strategy.scope():
                mirrored = _make(name, batch_norm=batch_norm)
            models = {
                "one device": _make(name, batch_norm=batch_norm),
                "multi_gpu_model on two": multi_gpu_model(_make(name, batch_norm=batch_norm), devices),
                "MirroredStrategy with two, Keras's fit": mirrored,
            }
            candidates = {}
            for label, model in models.items():
                with strategy.scope() if model is mirrored else tf.device(None):
                    model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=False)
                candidates[label] = lambda model=model: model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0)
            title = f"{name}{' with batch normalization' * batch_norm}, {ROWS // BATCH} batches of {BATCH}"
            show(title, measure(candidates, rounds), "one device", {"multi_gpu_model on two": 1.10})


if __name__ == "__main__":
    _measure(int(sys.argv[1]))
