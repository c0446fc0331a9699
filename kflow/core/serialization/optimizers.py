"""Configurations of optimizers: what Keras 2.1 wrote and what means the same in Keras 3, in both directions.

Keras 2.1 called the learning rate ``lr``. With it in a configuration, ``decay`` lowers the rate at each step, and
``clipnorm`` is the limit for all gradients together (keras 2.1.6, ``optimizers.py``).
"""

import warnings
from collections.abc import Mapping
from importlib import import_module
from typing import Any

__all__ = ["modern_optimizer", "old_optimizer"]

# The schedule of Keras 3 that is decay at each step.
_SCHEDULE = "InverseTimeDecay"
_EACH_STEP = {"decay_steps": 1, "staircase": False, "name": _SCHEDULE}


def modern_optimizer(config: Mapping[str, Any], factory: type) -> dict[str, Any]:
    """Return the configuration that means in Keras 3 what it meant in Keras 2.

    Warns
    -----
    UserWarning
        If it is that of a Nadam whose momentum grew at another pace than that of Keras 3.
    """
    optimizers = import_module("keras").optimizers
    config = dict(config)
    if issubclass(factory, optimizers.Nadam) and config.pop("schedule_decay", 1.0) != 1.0:
        msg = "the Nadam of Keras 3 has no schedule_decay: its momentum comes to its full value sooner than in Keras 2"
        warnings.warn(msg, stacklevel=2)
    if config.get("decay") == 0.0:
        del config["decay"]
    if "lr" not in config:
        return config
    rate, decay, limit = config.pop("lr"), config.pop("decay", None), config.pop("clipnorm", None)
    config["learning_rate"] = rate if decay is None else _falling(rate, decay)
    if limit:
        config["global_clipnorm"] = limit
    if issubclass(factory, optimizers.Adagrad):
        return {"initial_accumulator_value": 0.0, **config}  # in Keras 3 it is 0.1
    return config


def _falling(rate: Any, decay: Any) -> dict[str, Any]:
    config = {"initial_learning_rate": rate, "decay_rate": decay, **_EACH_STEP}
    return {"module": "keras.optimizers.schedules", "class_name": _SCHEDULE, "config": config}


def old_optimizer(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration of Keras 3, the parts of which are in the old form already, as Keras 2.1 understands it.

    Raises
    ------
    ValueError
        If the optimizer limits each gradient by itself, which it does not in Keras 2.1.
    """
    config = dict(config)
    rate, limit = config.pop("learning_rate", None), config.pop("global_clipnorm", None)
    if config.pop("clipnorm", None) is not None:
        msg = (
            "the clipnorm of an optimizer, which limits each gradient by itself and in Keras 2.1 limited all together, "
            "has no form in the format of Keras 2.1; write it with keras_version=3, or use global_clipnorm"
        )
        raise ValueError(msg)
    return {**_old_rate(rate), **config, **({} if limit is None else {"clipnorm": limit})}


def _old_rate(rate: Any) -> dict[str, Any]:
    config = rate["config"] if isinstance(rate, dict) and rate.get("class_name") == _SCHEDULE else {}
    if config.get("decay_rate") and config.items() >= _EACH_STEP.items():
        return {"lr": config["initial_learning_rate"], "decay": config["decay_rate"]}
    return {} if rate is None else {"lr": rate}
