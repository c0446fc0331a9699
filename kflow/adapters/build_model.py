"""Build a model: from a list of layers, from a full Keras config, or with a function of yours.

    model:
      kind: build_model
      layers:
        - Input: {shape: [8, 8, 1]}
        - Conv2D: {filters: 32, kernel_size: 3, activation: relu}
        - Flatten
        - Dense: {units: 10, activation: softmax}
      objects: ${layers}              # custom names that the layers use

    model:
      kind: build_model
      function: models.py:build       # returns a keras.Model
      arguments: {width: 64}

    model:
      kind: build_model
      config: {class_name: Functional, module: keras, config: {...}}     # as model.to_json() writes it

Arguments that are objects themselves are written the same way: ``kernel_regularizer: {L2: {l2: 0.001}}``.

Outputs: ``model``, with its initial weights; they follow from the seed of the workflow.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from kflow.adapters.session import ObjectsField, as_tuple, construct, keras_session
from kflow.spec.base import Examination, StepContext, StepOutputs, StepSpec
from kflow.spec.calls import Call, Layer, check_call, custom_names
from kflow.spec.facts import Fact, ModelFact
from kflow.spec.types import Model, Symbol


class BuildModel(StepSpec, kind="build_model", version=1):
    """A model with initial weights."""

    libraries = ("keras", "tensorflow")
    is_random = True

    layers: tuple[Layer, ...] | None = Field(default=None, description="The layers, first Input.")
    config: dict[str, Any] | None = Field(
        default=None, description="A full Keras config, as model.to_json() writes it."
    )
    function: Symbol | None = Field(default=None, description="A function of yours that returns a keras.Model.")
    arguments: dict[str, Any] = Field(default_factory=dict, description="The arguments of the function.")
    name: str | None = Field(default=None, pattern=r"^[A-Za-z][\w.-]*$", description="The name of the model.")
    objects: ObjectsField

    class Outputs(StepOutputs):
        """What others may reference."""

        model: Model

    def examine(self, exam: Examination) -> Mapping[str, Fact]:
        """Check the names and arguments of all layers."""
        given = [name for name in ("layers", "config", "function") if getattr(self, name) is not None]
        if len(given) != 1:
            what = f"this one has {' and '.join(given)}" if given else "this one has none"
            exam.problem(f"a model is built from exactly one of layers, config and function; {what}")
        if self.arguments and self.function is None:
            exam.problem("arguments go with a function", "arguments")
        custom = custom_names(exam, self.objects)
        layers = self.layers or ()
        if all(exam.fact(each) for each in as_tuple(self.objects)):
            for index, layer in enumerate(layers):
                check_call(exam, layer, "layers", custom, "layers", index)
        if self.layers == ():
            exam.problem("a model has at least one layer after its Input", "layers")
        if layers and layers[0].name not in {"Input", "InputLayer"} and "input_shape" not in layers[0].arguments:
            exam.problem("the first layer must be Input, such as 'Input: {shape: [28, 28, 1]}'", "layers", 0)
        return {"model": ModelFact(custom, _input_shape(layers), _output_shape(layers), is_compiled=False)}

    def run(self, context: StepContext) -> StepOutputs:
        """Build the model in the scope of its custom objects."""
        with keras_session(context, self.objects) as custom:
            return self.Outputs(model=_checked(self._build(context, custom)))

    def _build(self, context: StepContext, custom: Mapping[str, Any]) -> Any:
        import keras

        if self.layers is not None:
            return keras.Sequential([_layer(call, custom) for call in self.layers], name=self.name)
        if self.config is not None:
            from kflow.core.serialization import deserialize_keras_object

            return deserialize_keras_object(self.config, custom_objects=dict(custom))
        from kflow.artifacts.modules import imported

        assert self.function is not None, "examine() has seen to it"
        with imported({"build": (context.root / self.function.module, self.function.name)}) as names:
            return names["build"](**self.arguments)


def _layer(call: Call, custom: Mapping[str, Any]) -> Any:
    import keras

    if call.name == "Input":
        return keras.Input(**call.arguments)
    layer = construct(call, keras.layers, custom)
    return keras.layers.Activation(layer) if not isinstance(layer, keras.Layer) else layer


def _checked(model: Any) -> Any:
    import keras

    if not isinstance(model, keras.Model):
        message = f"expected a keras.Model, got {type(model).__name__}"
        raise TypeError(message)
    if not model.built:
        message = "the model has no weights yet: give it an Input, or call model.build(input_shape)"
        raise ValueError(message)
    return model


def _input_shape(layers: tuple[Call, ...]) -> tuple[int | None, ...] | None:
    arguments = layers[0].arguments if layers else {}
    shape = arguments.get("shape", arguments.get("input_shape"))
    return tuple(shape) if isinstance(shape, list) and all(n is None or isinstance(n, int) for n in shape) else None


_KEEP_SHAPE = frozenset({"Activation", "ActivityRegularization", "BatchNormalization", "Dropout", "Softmax"})


def _output_shape(layers: tuple[Call, ...]) -> tuple[int | None, ...] | None:
    """Tell the output of a model that ends in Flatten or pooling, Dense layers, and layers that keep the shape."""
    shaping = [layer for layer in layers if layer.name not in _KEEP_SHAPE]
    if len(shaping) < 2 or shaping[-1].name != "Dense":
        return None
    before = next((layer for layer in reversed(shaping) if layer.name != "Dense"), None)
    shape = _input_shape((before,)) if before and before.name == "Input" else None
    is_flat = before is not None and (
        before.name == "Flatten" or before.name.startswith("Global") or len(shape or ()) == 1
    )
    units = shaping[-1].arguments.get("units")
    return (units,) if is_flat and isinstance(units, int) else None
