"""Write ``kflow/spec/keras_names.json``: the names and arguments that the installed Keras knows.

``make schema`` runs it; a test runs it with ``--check``.
"""

import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

_LOOKED_UP = ("activations", "constraints", "initializers", "losses", "metrics", "optimizers", "regularizers")
TARGET = Path(__file__).parents[1] / "kflow" / "spec" / "keras_names.json"


def _arguments(thing: object) -> list[str] | None:
    """Return the arguments of a class (with those it hands to its bases) or function; None where anything goes."""
    names: set[str] = set()
    classes = inspect.getmro(thing)[:-1] if inspect.isclass(thing) else (thing,)
    for each in classes:
        parameters = inspect.signature(each.__init__ if inspect.isclass(each) else each).parameters.values()
        names |= {p.name for p in parameters if p.kind not in {p.VAR_KEYWORD, p.VAR_POSITIONAL} and p.name != "self"}
        if each.__name__ == "Layer":
            return sorted(names | {"batch_size", "input_dtype", "input_shape"})
        if each.__name__ == "BaseOptimizer" or not any(p.kind is p.VAR_KEYWORD for p in parameters):
            return sorted(names)
    return None


def _public(module: ModuleType) -> Iterator[tuple[str, object]]:
    for name in dir(module):
        thing = getattr(module, name)
        if not name.startswith("_") and callable(thing) and name not in {"get", "serialize", "deserialize"}:
            yield name, thing


def collect() -> dict[str, dict[str, list[str] | None]]:
    """Read the public modules of Keras, and the tables in which it looks up strings."""
    import keras

    families = ("callbacks", "layers", *_LOOKED_UP)
    names = {family: {n: _arguments(t) for n, t in _public(getattr(keras, family))} for family in families}
    for family in _LOOKED_UP:
        source = sys.modules[f"keras.src.{family}"]
        table = getattr(source, "ALL_OBJECTS_DICT", {})
        for name, thing in table.items():
            if isinstance(name, str):
                names[family].setdefault(name, _arguments(thing))
    names["metrics"] |= {"accuracy": None, "acc": None, "crossentropy": None, "ce": None} | {
        name: None for name in names["losses"] if name.islower()
    }
    names["layers"] |= {"Input": _arguments(keras.Input)}
    return {family: dict(sorted(table.items())) for family, table in names.items()}


def main() -> int:
    """Write the file, or with ``--check`` say whether it is what would be written."""
    text = json.dumps(collect(), indent=1, sort_keys=True) + "\n"
    if "--check" in sys.argv:
        return 0 if TARGET.read_text(encoding="utf-8") == text else 1
    TARGET.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
