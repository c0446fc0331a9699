"""Tests of the kinds that use Keras: build_model, train, evaluate, predict, save_model, load_model, plot_model."""

import json

import keras
import numpy as np
import pytest

from kflow.adapters.build_model import BuildModel
from kflow.adapters.evaluate import Evaluate, ExpectationError
from kflow.adapters.load_model import LoadModel
from kflow.adapters.plot_model import PlotModel
from kflow.adapters.predict import Predict
from kflow.adapters.register_objects import RegisterObjects
from kflow.adapters.save_model import SaveModel
from kflow.adapters.train import Train
from kflow.spec.facts import ArrayFact, ModelFact, ObjectsFact

LAYERS = [{"Input": {"shape": [4]}}, {"Dense": {"units": 8, "activation": "relu"}}, {"Dense": {"units": 3}}]
CUSTOM = """
import keras

class Doubled(keras.layers.Layer):
    def call(self, x):
        return 2 * x

def square(x):
    return x * x

class Small(keras.regularizers.Regularizer):
    def __call__(self, w):
        return 0.01 * keras.ops.sum(w * w)
    def get_config(self):
        return {}

class Positive(keras.constraints.Constraint):
    def __call__(self, w):
        return keras.ops.relu(w)

def miss(y, p):
    return keras.ops.mean((y - p) ** 2, axis=-1)

def far(y, p):
    return keras.ops.mean(keras.ops.abs(y - p))
"""
SUBCLASS = """
import keras

class Answers(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.out = keras.layers.Dense(3, activation="softmax")

    def build(self, shape):
        self.out.build(shape)
        self.built = True

    def call(self, x):
        return self.out(x)

def build():
    model = Answers()
    model.build((None, 4))
    return model
"""
OWN_STEP = SUBCLASS.replace(
    "def build():",
    """    def train_step(self, data):
        self(data[0], training=True)
        return {"own": 1.0}

def build():""",
)
NAMES = ("Doubled", "square", "Small", "Positive", "miss", "far")


@pytest.fixture
def data():
    """Give 40 rows that a linear model can learn."""
    x = np.random.default_rng(0).normal(size=(40, 4)).astype("float32")
    return x, (x @ np.arange(12).reshape(4, 3)).astype("float32")


@pytest.fixture
def inputs(bench, data):
    """Give the references that most steps use."""
    model = bench.run(BuildModel, layers=LAYERS).stored("model")
    return {"${m}": model, "${x}": ("array", data[0]), "${y}": ("array", data[1])}


def _train(bench, inputs, **fields):
    fields = {"model": "${m}", "x": "${x}", "y": "${y}", "loss": "mse", **fields}
    return bench.run(Train, inputs, **fields)


class TestBuildModel:
    """The three ways to say what a model is."""

    def test_layers(self, bench):
        """A list of layers becomes a Sequential model of these layers."""
        model = bench.run(BuildModel, layers=[*LAYERS, "Softmax"], name="small")["model"]

        assert [type(layer).__name__ for layer in model.layers] == ["Dense", "Dense", "Softmax"]
        assert (model.name, model.output_shape) == ("small", (None, 3))

    def test_a_full_config(self, bench):
        """What model.to_json() writes builds the same model."""
        original = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="d")])
        model = bench.run(BuildModel, config=json.loads(original.to_json()))["model"]

        assert model.get_config()["layers"][1]["config"]["units"] == 2

    def test_a_function(self, bench):
        """A function of the user's gets its arguments."""
        layers = "[keras.Input((4,)), keras.layers.Dense(width)]"
        code = f"import keras\ndef build(width):\n    return keras.Sequential({layers})\n"
        (bench.root / "models.py").write_text(code)
        model = bench.run(BuildModel, function="models.py:build", arguments={"width": 5})["model"]

        assert model.output_shape == (None, 5)

    def test_nested_objects(self, bench):
        """Arguments that are objects are written the same way."""
        layers = [
            {"Input": {"shape": [5, 4]}},
            {"TimeDistributed": {"layer": {"Dense": {"units": 2, "kernel_regularizer": {"L2": {"l2": 0.5}}}}}},
        ]
        model = bench.run(BuildModel, layers=layers)["model"]

        assert model.layers[0].layer.kernel_regularizer.l2 == 0.5

    def test_the_seed_makes_the_weights(self, bench):
        """Two models from one text have the same weights, and the same bytes."""
        first, second = (bench.run(BuildModel, layers=LAYERS) for _ in range(2))
        files = sorted(bench.root.glob("staging-*/model/model.keras"))

        np.testing.assert_array_equal(first["model"].get_weights()[0], second["model"].get_weights()[0])
        assert files[0].read_bytes() == files[1].read_bytes()

    @pytest.mark.parametrize(
        ("code", "message"),
        [
            ("def build(): return 3", r"expected a keras\.Model, got int"),
            ("import keras\ndef build(): return keras.Sequential([keras.layers.Dense(2)])", "no weights yet"),
        ],
    )
    def test_a_function_that_gives_no_model(self, bench, code, message):
        """What comes back is checked."""
        (bench.root / "models.py").write_text(code)

        with pytest.raises((TypeError, ValueError), match=message):
            bench.run(BuildModel, function="models.py:build")

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({}, "this one has none"),
            ({"layers": LAYERS, "config": {}}, "layers and config"),
            ({"layers": LAYERS, "arguments": {"a": 1}}, "arguments go with a function"),
            ({"layers": [{"Dense": {"units": 3}}]}, "the first layer must be Input"),
            ({"layers": []}, "at least one layer"),
            ({"layers": [LAYERS[0], {"Dense": {"unit": 3}}]}, "Dense has no argument 'unit'"),
            ({"layers": [LAYERS[0], "Swish"]}, "unknown layer 'Swish'"),
        ],
    )
    def test_problems_are_found_beforehand(self, bench, fields, message):
        """Names, arguments and combinations are checked without Keras."""
        _, problems = bench.examine(BuildModel(**fields))

        assert message in problems[0]

    def test_facts(self, bench):
        """Input and output shape are read off the list."""
        facts, _ = bench.examine(BuildModel(layers=LAYERS, objects="${c}"), c=ObjectsFact(("A",)))

        assert facts["model"] == ModelFact(("A",), (4,), (3,), is_compiled=False)


class TestCustomObjects:
    """Names work wherever Keras takes a text, in the steps that take them, and nowhere after."""

    @pytest.fixture
    def given(self, bench, data):
        """Give a model that uses a custom object in every place, and what goes with it."""
        (bench.root / "custom.py").write_text(CUSTOM)
        objects = bench.run(RegisterObjects, objects={name: f"custom.py:{name}" for name in NAMES}).stored("objects")
        dense = {"units": 3, "activation": "square", "kernel_regularizer": "Small", "kernel_constraint": "Positive"}
        layers = [{"Input": {"shape": [4]}}, "Doubled", {"Dense": dense}, {"Activation": {"activation": "square"}}]
        model = bench.run(BuildModel, {"${c}": objects}, layers=layers, objects="${c}").stored("model")
        return {"${c}": objects, "${m}": model, "${x}": ("array", data[0]), "${y}": ("array", data[1])}

    def test_every_place(self, bench, given):
        """Layer, activation, regularizer, constraint, loss and metric resolve, in training and after it."""
        trained = bench.run(
            Train, given, model="${m}", x="${x}", y="${y}", loss="miss", metrics=["far"], objects="${c}"
        )
        given |= {"${t}": trained.stored("model")}
        metrics = bench.run(Evaluate, given, model="${t}", x="${x}", y="${y}", objects="${c}")["metrics"]

        assert list(trained["history"]) == ["far", "loss"]
        assert metrics["far"] > 0

    def test_nowhere_after(self, bench, given):
        """A step that does not take the objects does not see them, and says which name is missing."""
        with pytest.raises(ValueError, match=r"the model uses .*Doubled.*; take them with 'objects:'"):
            bench.run(Predict, given, model="${m}", x="${x}")

        assert not set(NAMES) & set(keras.saving.get_custom_objects())

    def test_a_name_that_differs_from_the_one_in_the_module(self, bench, data):
        """The workflow's name counts, also for a model that has been stored, and a registration is taken back."""
        code = (
            "import keras\n@keras.saving.register_keras_serializable(package='mine')\ndef relu(x):\n    return x * x\n"
        )
        (bench.root / "mine.py").write_text(code)
        objects = bench.run(RegisterObjects, objects={"Squared": "mine.py:relu"}).stored("objects")
        layers = [{"Input": {"shape": [4]}}, {"Activation": {"activation": "Squared"}}]
        model = bench.run(BuildModel, {"${c}": objects}, layers=layers, objects="${c}").stored("model")
        given = {"${c}": objects, "${m}": model, "${x}": ("array", data[0])}

        rows = bench.run(Predict, given, model="${m}", x="${x}", objects="${c}")["array"]

        np.testing.assert_allclose(rows[:], data[0] ** 2, rtol=1e-6)
        assert [name for name in keras.saving.get_custom_objects() if "relu" in name or "Squared" in name] == []

    def test_what_only_callbacks_use_is_no_part_of_the_model(self, bench):
        """A callback, and what stands in its arguments, unless the model or how it is compiled has it as well."""
        spec = Train(
            model="${m}",
            x="${x}",
            y="${y}",
            loss={"Scaled": {"by": "grow"}},
            callbacks=["Stop", {"Call": {"with": ["shrink", "grow", "Swish"]}}],
            objects="${c}",
        )
        names = ("Stop", "Call", "shrink", "grow", "Swish", "Scaled", "unknown")
        facts, _ = bench.examine(spec, m=ModelFact(("Swish",)), c=ObjectsFact(names))

        assert facts["model"].objects == ("grow", "Swish", "Scaled", "unknown")

    def test_a_model_whose_objects_are_not_taken_is_found_beforehand(self, bench):
        """The model knows what it was built with."""
        spec = Predict(model="${m}", x="${x}")
        _, problems = bench.examine(spec, m=ModelFact(("Swish",)))

        assert problems == ["the model uses Swish; take them with 'objects:'"]


class TestTrain:
    """Training takes what compile and fit take."""

    def test_the_weights_are_those_of_keras(self, bench, inputs, data):
        """Without shuffling the result equals Keras's own fit on the same arrays, bit for bit."""
        keras.utils.set_random_seed(7)
        reference = inputs["${m}"].open()
        reference.compile("sgd", "mse")
        reference.fit(*data, epochs=3, batch_size=8, shuffle=False, verbose=0)

        model = _train(bench, inputs, optimizer="sgd", epochs=3, batch_size=8, shuffle=False)["model"]

        for ours, theirs in zip(model.get_weights(), reference.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)

    def test_shuffling_follows_from_the_seed(self, bench, inputs):
        """Two trainings of one text give the same bytes; each way of shuffling makes another model."""
        first, second, batches, plain = (
            _train(bench, inputs, epochs=2, batch_size=8, shuffle=shuffle)["model"].get_weights()[0]
            for shuffle in (True, True, "batch", False)
        )

        np.testing.assert_array_equal(first, second)
        assert len({weights.tobytes() for weights in (first, batches, plain)}) == 3

    def test_all_that_compile_and_fit_take(self, bench, inputs):
        """Objects with arguments, callbacks, weights and validation data."""
        outputs = _train(
            bench,
            inputs | {"${w}": ("array", np.ones(40, "float32"))},
            optimizer={
                "Adam": {
                    "learning_rate": {
                        "ExponentialDecay": {"initial_learning_rate": 0.1, "decay_steps": 5, "decay_rate": 0.5}
                    }
                }
            },
            loss={"Huber": {"delta": 2.0}},
            metrics=["mae", {"MeanSquaredError": {"name": "squared"}}],
            weighted_metrics=["mse"],
            sample_weight="${w}",
            validation_data={"x": "${x}", "y": "${y}"},
            callbacks=[{"EarlyStopping": {"monitor": "loss", "patience": 0, "min_delta": 1e9}}, "TerminateOnNaN"],
            epochs=9,
            steps_per_execution=2,
            jit_compile=False,
        )

        history = outputs["history"]
        assert len(history["loss"]) == 2, "early stopping has stopped it"
        assert set(history) == {*("loss", "mae", "squared", "mse"), *("val_loss", "val_mae", "val_squared", "val_mse")}

    def test_validation_split_takes_the_last_rows(self, bench, inputs, data):
        """The held-out rows are the last ones, as in Keras."""
        outputs = _train(bench, inputs, validation_split=0.25, epochs=1)
        model = outputs["model"]

        expected = model.evaluate(data[0][30:], data[1][30:], verbose=0)
        assert outputs["history"]["val_loss"][-1] == pytest.approx(expected, rel=1e-5)

    def test_class_weights(self, bench, inputs):
        """A class of weight zero teaches nothing."""
        labels = np.zeros(40, "uint8")
        before = inputs["${m}"].open().get_weights()[0]
        model = _train(
            bench, inputs | {"${y}": ("array", labels)}, loss="sparse_categorical_crossentropy", class_weight={"0": 0.0}
        )["model"]

        np.testing.assert_array_equal(model.get_weights()[0], before)

    @pytest.mark.parametrize("label", [3, -1])
    def test_a_label_that_the_last_layer_does_not_have(self, bench, inputs, label):
        """Value, row and number of classes are told, before the training."""
        labels = np.array([0, 1, 2, label] * 10, "int16")
        message = f"y has the label {label} in row 3; the last layer has 3 classes"

        with pytest.raises(ValueError, match=message):
            _train(bench, inputs | {"${y}": ("array", labels)}, loss="sparse_categorical_crossentropy")

    def test_labels_for_a_subclass_of_keras_model(self, bench, data):
        """It says what it gives only when it is given something; right labels are learned, wrong ones are told."""
        (bench.root / "models.py").write_text(SUBCLASS)
        objects = bench.run(RegisterObjects, objects={"Answers": "models.py:Answers"}).stored("objects")
        model = bench.run(BuildModel, {"${c}": objects}, function="models.py:build", objects="${c}").stored("model")
        inputs = {"${c}": objects, "${m}": model, "${x}": ("array", data[0])}
        fields = {"loss": "sparse_categorical_crossentropy", "objects": "${c}"}
        losses = _train(bench, inputs | {"${y}": ("array", np.arange(40) % 3)}, **fields)["history"]["loss"]

        assert np.isfinite(losses).all()
        with pytest.raises(ValueError, match="y has the label 3 in row 3; the last layer has 3 classes"):
            _train(bench, inputs | {"${y}": ("array", np.arange(40) % 4)}, **fields)

    def test_a_step_of_training_that_computes_no_metrics(self, bench, data):
        """A model with a `train_step` of its own that only gives its losses."""
        (bench.root / "models.py").write_text(OWN_STEP)
        objects = bench.run(RegisterObjects, objects={"Answers": "models.py:Answers"}).stored("objects")
        model = bench.run(BuildModel, {"${c}": objects}, function="models.py:build", objects="${c}").stored("model")
        inputs = {"${c}": objects, "${m}": model, "${x}": ("array", data[0]), "${y}": ("array", data[1])}

        assert _train(bench, inputs, objects="${c}", epochs=2)["history"]["own"] == [1.0, 1.0]

    def test_several_inputs_by_name(self, bench, data):
        """A model with two inputs takes a mapping, or a list."""
        (bench.root / "models.py").write_text(
            "import keras\n"
            "def build():\n"
            "    a, b = keras.Input((4,), name='a'), keras.Input((4,), name='b')\n"
            "    return keras.Model([a, b], keras.layers.Dense(3)(keras.layers.Add()([a, b])))\n"
        )
        model = bench.run(BuildModel, function="models.py:build").stored("model")
        inputs = {"${m}": model, "${x}": ("array", data[0]), "${y}": ("array", data[1])}

        named = _train(bench, inputs, x={"a": "${x}", "b": "${x}"})["history"]
        listed = _train(bench, inputs, x=["${x}", "${x}"])["history"]

        assert named == listed

    def test_progress_is_told(self, bench, inputs):
        """There is an event for the end of each epoch, with the metrics."""
        _train(bench, inputs, epochs=2, batch_size=10)

        ends = [event for event in bench.events if event["event"] == "epoch"]
        assert [(e["epoch"], e["epochs"], e["batch"], e["batches"]) for e in ends] == [(1, 2, 4, 4), (2, 2, 4, 4)]
        assert ends[0]["metrics"].keys() == {"loss"}

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"gpus": 99}, "the step wants 99 GPUs"),
            ({"loss": "mze"}, "unknown loss 'mze'"),
            ({"metrics": [{"AUC": {"nam": 1}}]}, "AUC has no argument 'nam'"),
            ({"optimizer": "adamm"}, "unknown optimizer 'adamm'"),
            ({"callbacks": ["Early"]}, "unknown callback 'Early'"),
            (
                {"callbacks": [{"BackupAndRestore": {"backup_dir": "b"}}]},
                "BackupAndRestore would start from what another try left; 'checkpoint' resumes here",
            ),
            ({"class_weight": {"one": 1.0}}, "a class is a whole number in quotes"),
            ({"validation_split": 0.5, "validation_data": {"x": "${x}", "y": "${y}"}}, "not both"),
            ({"x": "${short}"}, "x has 30 rows and y has 40 rows"),
            (
                {"loss": "categorical_crossentropy", "y": "${five}"},
                "the last layer gives rows of shape (3,), y has (5,)",
            ),
            ({"loss": "sparse_categorical_crossentropy", "y": "${hot}"}, "takes class numbers; y is one-hot"),
            ({"loss": "categorical_crossentropy", "y": "${labels}"}, "encode them with encode_labels"),
            ({"x": "${wide}"}, "the model takes rows of shape (4,), x has (9,)"),
        ],
    )
    def test_problems_are_found_beforehand(self, bench, fields, message):
        """Names, shapes, numbers of rows and GPUs are checked without Keras."""
        spec = Train.model_validate({"model": "${m}", "x": "${x}", "y": "${y}", "loss": "mse"} | fields)
        facts = {
            "m": ModelFact((), (4,), (3,)),
            "x": ArrayFact((40, 4)),
            "y": ArrayFact((40, 3)),
            "short": ArrayFact((30, 4)),
            "five": ArrayFact((40, 5)),
            "hot": ArrayFact((40, 3), is_one_hot=True),
            "labels": ArrayFact((40,)),
            "wide": ArrayFact((40, 9)),
        }

        _, problems = bench.examine(spec, **facts)

        assert len(problems) == 1
        assert message in problems[0]


class TestEvaluateAndPredict:
    """Measuring and computing agree with Keras."""

    def test_metrics_are_those_of_keras(self, bench, inputs, data):
        """Loss and metrics come along with a trained model."""
        trained = _train(bench, inputs, metrics=["mae"])
        inputs["${t}"] = trained.stored("model")
        expected = trained["model"].evaluate(*data, return_dict=True, verbose=0)

        metrics = bench.run(Evaluate, inputs, model="${t}", x="${x}", y="${y}")["metrics"]

        assert metrics == pytest.approx(expected, rel=1e-5)

    def test_another_loss_and_other_metrics(self, bench, inputs):
        """They can be given in place."""
        metrics = bench.run(Evaluate, inputs, model="${m}", x="${x}", y="${y}", loss="mae", metrics=["mse"])["metrics"]

        assert set(metrics) == {"loss", "mse"}

    def test_a_metric_of_several_numbers_has_a_name_for_each(self, bench, inputs):
        """Which is what F1Score gives if nothing else is asked for: one for each class."""
        metrics = ["accuracy", "F1Score"]
        trained = _train(bench, inputs, metrics=metrics, loss="categorical_crossentropy", epochs=2)
        inputs["${t}"] = trained.stored("model")
        expect = {"f1_score[2]": {"max": 1e6}}

        measured = bench.run(Evaluate, inputs, model="${t}", x="${x}", y="${y}", expect=expect)["metrics"]

        names = {"accuracy", "loss", "f1_score[0]", "f1_score[1]", "f1_score[2]"}
        assert set(measured) == set(trained["history"]) == names
        assert len(trained["history"]["f1_score[0]"]) == 2

    def test_an_expectation_that_is_missed_fails(self, bench, inputs):
        """The message has bound and value."""
        expect = {"loss": {"max": 1e-9}}

        with pytest.raises(ExpectationError, match="loss: expected at most 1e-09, got "):
            bench.run(Evaluate, inputs, model="${m}", x="${x}", y="${y}", loss="mse", expect=expect)

    def test_a_metric_that_is_not_there(self, bench):
        """A misspelt metric is found before the training that it would have waited for."""
        spec = Evaluate(model="${m}", x="${x}", y="${y}", expect={"acuracy": {"min": 0.5}})

        _, problems = bench.examine(spec, m=ModelFact(metrics=("loss", "accuracy"), is_compiled=True))

        assert problems == ["the model reports no metric 'acuracy'"]

    def test_a_model_without_a_loss(self, bench):
        """A model that was only built needs a loss here."""
        _, problems = bench.examine(Evaluate(model="${m}", x="${x}", y="${y}"), m=ModelFact(is_compiled=False))

        assert "it has no loss" in problems[0]

    def test_predictions_are_those_of_keras(self, bench, inputs, data):
        """One row for each row, whatever the size of the batches."""
        expected = inputs["${m}"].open().predict(data[0], verbose=0)

        rows = bench.run(Predict, inputs, model="${m}", x="${x}", batch_size=7)["array"]

        np.testing.assert_allclose(rows[:], expected, rtol=1e-4, atol=1e-6)


class TestFilesOfModels:
    """Saving, loading and drawing."""

    def test_a_saved_model_is_loaded_again(self, bench, inputs, data):
        """The file gives the same predictions, with Keras alone too."""
        file = bench.run(SaveModel, inputs, model="${m}", filepath="out/small.keras")["file"]
        (bench.root / "small.keras").write_bytes(file.read_bytes())

        model = bench.run(LoadModel, filepath="small.keras")["model"]

        expected = keras.saving.load_model(file).predict(data[0], verbose=0)
        np.testing.assert_array_equal(model.predict(data[0], verbose=0), expected)

    def test_weights_alone(self, bench, inputs):
        """A .weights.h5 file has the weights as Keras reads them."""
        file = bench.run(SaveModel, inputs, model="${m}", filepath="small.weights.h5")["file"]
        model = inputs["${m}"].open()
        before = model.get_weights()[0]
        model.set_weights([0 * w for w in model.get_weights()])
        model.load_weights(file)

        np.testing.assert_array_equal(model.get_weights()[0], before)

    def test_code_in_a_file_is_not_run(self, bench):
        """A model with a lambda in it is refused."""
        model = keras.Sequential([keras.Input((2,)), keras.layers.Lambda(lambda x: x)])
        model.save(bench.root / "lambda.keras")

        with pytest.raises(ValueError, match=r"(?i)lambda"):
            bench.run(LoadModel, filepath="lambda.keras")

    def test_a_damaged_file(self, bench):
        """What is no zip file is called so."""
        (bench.root / "torn.keras").write_bytes(b"PK\x03\x04 torn")

        with pytest.raises(ValueError, match=r"torn\.keras is not a whole \.keras file"):
            bench.run(LoadModel, filepath="torn.keras")

    def test_another_ending_is_refused(self):
        """The formats are named."""
        with pytest.raises(ValueError, match=r"ends in \.keras"):
            SaveModel(model="${m}", filepath="model.h5")

    def test_a_picture(self, bench, inputs):
        """The picture is drawn without a system graphviz, the same each time."""
        pictures = [
            bench.run(PlotModel, inputs, model="${m}", to_file="a/model.png", show_shapes=True)["image"].read_bytes()
            for _ in range(2)
        ]

        assert pictures[0].startswith(b"\x89PNG")
        assert pictures[0] == pictures[1]

    @pytest.mark.parametrize(
        ("to_file", "line"),
        [("a.txt", "  - activation: relu"), ("a.mmd", ': Dense<br/>activation: relu<br/>trainable: yes"')],
    )
    def test_a_picture_in_words(self, bench, inputs, to_file, line):
        """An outline and a Mermaid flowchart show what was asked for."""
        shown = {"show_trainable": True, "show_layer_activations": True}
        picture = bench.run(PlotModel, inputs, model="${m}", to_file=to_file, **shown)["image"]

        assert line in picture.read_text()

    @pytest.mark.parametrize(
        ("to_file", "message"),
        [
            ("a.pdf", "no installed program can draw a model as 'pdf': install your system's graphviz"),
            ("a.pdf", "this machine draws .dot, .gv, .mmd, .txt"),
            ("a.xyz", "a model is drawn as .png, .svg, .jpg, .pdf, .mmd, .txt or .dot"),
        ],
    )
    def test_a_picture_that_nothing_can_draw_is_found_beforehand(self, bench, monkeypatch, tmp_path, to_file, message):
        """On a machine without any renderer, the message says what to install and what works."""
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setattr("sys.executable", str(tmp_path / "python"))

        _, problems = bench.examine(PlotModel(model="${m}", to_file=to_file))

        assert message in problems[0]

    def test_predictions_go_to_a_file_of_numpy(self):
        """Another ending is refused."""
        with pytest.raises(ValueError, match=r"predictions are written to a file that ends in \.npy"):
            Predict(model="${m}", x="${x}", to_file="guesses.h5")
