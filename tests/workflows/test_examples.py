"""Every example workflow is run, in a folder of its own."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import h5py
import numpy as np
import pytest

pytestmark = pytest.mark.long

EXAMPLES = Path(__file__).parents[2] / "workflows"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_arguments):
        """Say nothing."""


@pytest.fixture
def examples(tmp_path):
    """Give a copy of the examples without results."""
    shutil.copytree(
        EXAMPLES, tmp_path / "workflows", ignore=shutil.ignore_patterns("results", "fashion-mnist.h5", "__pycache__")
    )
    return tmp_path / "workflows"


def _kflow(folder, *arguments):
    command = [sys.executable, "-m", "kflow", *arguments]
    environ = {**os.environ, "KFLOW_STORE": str(folder / ".kflow")}
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=280, check=False)


def _record(folder):
    return json.loads(_kflow(folder, "show", "latest", "--json").stdout)


def _digests(record):
    return {
        f"{step}.{name}": each["digest"] for step, s in record["steps"].items() for name, each in s["outputs"].items()
    }


def test_every_example_is_tested_here():
    """A new example needs a test."""
    assert {path.name for path in EXAMPLES.glob("*.yaml")} == {"digits.yaml", "fashion_mnist.yaml"}


def test_digits(examples):
    """The main job makes what it promises, and from nothing in another place it makes the same bytes."""
    quick = ["--set", "epochs=2", "--set", "least_accuracy=0.2"]
    done = _kflow(examples, "run", "digits.yaml", *quick)
    first = _record(examples)
    other = examples.parent / "in another place" / "workflows"
    shutil.copytree(examples, other, ignore=shutil.ignore_patterns(".kflow", "results"))
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(examples / "data"))) as server:
        threading.Thread(target=server.serve_forever).start()
        text = (other / "digits.yaml").read_text()
        url = f"http://127.0.0.1:{server.server_address[1]}/digits.h5"
        (other / "digits.yaml").write_text(text.replace("origin: data/digits.h5", f"origin: {url}"))
        again = _kflow(other, "run", "digits.yaml", *quick)
        server.shutdown()

    assert (done.returncode, done.stderr) == (0, "")
    results = {"guesses.npy", "digits.keras", "model.png", "curves.png"}
    assert {path.name for path in (examples / "results").iterdir()} == results
    assert all(f"results/{name}" in done.stdout for name in results)
    assert np.load(examples / "results" / "guesses.npy").shape == (297, 10)
    assert (again.returncode, again.stderr) == (0, "")
    assert _digests(_record(other)) == _digests(first)


def test_the_main_job_expects_an_accuracy(examples):
    """A model that is not good fails the run, says by how much, and what was finished is kept."""
    done = _kflow(examples, "run", "digits.yaml", "--set", "epochs=1")

    assert done.returncode == 1
    assert "step 'test' (evaluate) failed: accuracy: expected at least 0.96, got 0." in done.stdout
    assert _record(examples)["steps"]["fit"]["status"] == "run"


def test_fashion_mnist_on_a_made_slice(examples):
    """The second example runs on a file of the same form."""
    rng = np.random.default_rng(0)
    with h5py.File(examples / "data" / "fashion-mnist.h5", "w") as file:
        for part, rows in (("train", 300), ("test", 50)):
            labels = rng.integers(0, 10, rows, dtype="uint8")
            file[f"{part}/labels"] = labels
            file[f"{part}/images"] = np.broadcast_to(25 * labels[:, None, None, None], (rows, 28, 28, 1)).astype(
                "uint8"
            )
    sizes = {"train_rows": 250, "validation_end": 300, "test_rows": 50, "epochs": 1, "least_accuracy": 0}

    done = _kflow(examples, "run", "fashion_mnist.yaml", *(f"--set={name}={value}" for name, value in sizes.items()))

    assert (done.returncode, done.stderr) == (0, "")
    assert set(_record(examples)["metrics"]["test"]) == {"accuracy", "loss"}


def test_the_shipped_digest_is_that_of_the_file():
    """The workflow verifies the data that it ships with."""
    digest = hashlib.sha256((EXAMPLES / "data" / "digits.h5").read_bytes()).hexdigest()

    assert f"file_hash: sha256:{digest}" in (EXAMPLES / "digits.yaml").read_text()


def test_the_workflow_of_the_readme_is_right(examples):
    """What the README explains can be run as it stands, beside the data and layers of the examples."""
    readme = (EXAMPLES.parent / "README.md").read_text()
    (examples / "readme.yaml").write_text(readme.partition("```yaml\n")[2].partition("```")[0])

    done = _kflow(examples, "validate", "readme.yaml")

    assert (done.returncode, done.stderr) == (0, "")
