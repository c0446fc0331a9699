"""Keras objects to plain data and back: conversion, the check of descriptions, and the format of Keras 2."""

from kflow.core.serialization.conversion import deserialize_keras_object, serialize_keras_object

__all__ = ["deserialize_keras_object", "serialize_keras_object"]
