"""Give names to custom layers, activations, losses, metrics and the like from a Python file of yours.

    layers:
      kind: register_objects
      objects:
        Swish: layers.py:Swish        # name: file.py:name in the file

Nothing global is changed: a step sees these names if it takes them with ``objects: ${layers}``, wherever Keras takes
a text, and no other step does. The source is kept with the result, so that a later run uses the same code. It is
executed there: a data file beside the module (``Path(__file__).parent``) is not found.

Outputs: ``objects``.
"""

import ast
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field

from kflow.spec.base import Examination, StepContext, StepOutputs, StepSpec
from kflow.spec.calls import keras_names
from kflow.spec.facts import Fact, ObjectsFact
from kflow.spec.types import Objects, Symbol


class RegisterObjects(StepSpec, kind="register_objects", version=1):
    """Names for custom objects."""

    loads_keras = True
    is_random = False  # the code is executed to see that it can be; its source is what counts

    objects: dict[str, Symbol] = Field(min_length=1, description="For each name the file and the name in it.")

    class Outputs(StepOutputs):
        """What others may reference."""

        objects: Objects

    def examine(self, exam: Examination) -> Mapping[str, Fact]:
        """Refuse names that Keras has already."""
        for name in self.objects:
            for family, known in keras_names().items():
                if name in known:
                    exam.problem(f"{name!r} is one of Keras's own {family}; choose another name", "objects", name)
                    break
        first: dict[str, str] = {}
        for name, symbol in self.objects.items():
            if first.setdefault(symbol, name) != name:
                message = f"{symbol} has the name {first[symbol]!r} already; Keras saves an object under one name"
                exam.problem(message, "objects", name)
        return {"objects": ObjectsFact(tuple(self.objects))}

    def run(self, context: StepContext) -> StepOutputs:
        """Import every object once, so that a broken module shows here, and keep the source."""
        from kflow.artifacts.modules import imported
        from kflow.artifacts.objects import ObjectSources
        from kflow.core.objects import custom_object_scope
        from kflow.imports import find_libraries, library_versions

        places = {name: (context.root / symbol.module, symbol.name) for name, symbol in self.objects.items()}
        with custom_object_scope({}), imported(places):  # the scope takes back what the modules register with Keras
            pass
        modules = dict.fromkeys(symbol.module for symbol in self.objects.values())
        sources = {
            context.root / module: tuple(Path(context.root, each) for each in context.sources[module])
            for module in modules
        }
        libraries: dict[str, str] = {}
        for module, files in sources.items():
            trees = [ast.parse(file.read_bytes()) for file in files if file.suffix == ".py" or file == module]
            libraries |= library_versions(find_libraries(trees, module.parent))
        return self.Outputs(objects=ObjectSources(places, sources, libraries))
