"""Doing: the executor, the worker process that owns TensorFlow, events, and the record of a run."""
