"""Eight runners at once on one store, some of them killed, with locks that hold and with locks that lie.

KFLOW_SOAK_ROUNDS says how often, KFLOW_SOAK_SEED with which kills.
"""

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from kflow.run.record import RunRecord, read_records
from tests.soak.inspection import MARK, find_corruption, survivors

MakeFolder = Callable[..., Any]
ROUNDS = int(os.environ.get("KFLOW_SOAK_ROUNDS", "20"))
SEED = int(os.environ.get("KFLOW_SOAK_SEED", "0"))
RUNNERS = 8

WORKFLOW = """
kflow: 1
name: shared
params: {round: 0}
steps:
  digits: {kind: fetch, origin: digits.h5}
  x: {kind: slice_hdf5, datapath: "${digits}", dataset: images, start: "${params.round}", end: 1000}
  labels: {kind: slice_hdf5, datapath: "${digits}", dataset: labels, start: "${params.round}", end: 1000,
           normalizer: user.py:change}
  y: {kind: encode_labels, y: "${labels}", num_classes: 12}
  unit: {kind: normalize, x: "${x}", axis: 0}
  other: {kind: normalize, x: "${labels}", axis: 0, order: 1}
"""
CODE = "import time\n\ndef change(block):\n    time.sleep(0.05)\n    return block + 1\n"


def digests(record: RunRecord) -> Mapping[str, str]:
    """Return the digest of every output of a run."""
    return {f"{name}.{out}": each.digest for name, step in record.steps.items() for out, each in step.outputs.items()}


@pytest.mark.timeout(0)
@pytest.mark.parametrize("locks", ["honest", "lying"])
def test_runners_do_not_disturb_each_other(make_folder: MakeFolder, tmp_path: Path, locks: str) -> None:
    """0 corrupt; who was not killed succeeds with the right bytes, and only locks that lie let work be done twice."""
    folder, store = make_folder(WORKFLOW, {"user.py": CODE}), tmp_path / "store"
    chance = random.Random(f"{locks} {SEED}")
    paths = [str(Path(__file__).with_name("lying_flock")), os.environ.get("PYTHONPATH", "")]
    environ = {"PYTHONPATH": os.pathsep.join(paths)} if locks == "lying" else {}

    for number in range(ROUNDS):
        options = ("run", "w.yaml", "--set", f"round={number}")
        mark = f"{locks} {number} {time.time_ns()}"
        before = {record.id for record in read_records(store)}
        runners = [folder.start(*options, **environ, **{MARK: mark}) for _ in range(RUNNERS)]
        killed = chance.sample(range(RUNNERS), number % 4)
        for each in killed:
            time.sleep(chance.uniform(0.0, 1.5))
            runners[each].kill()
        ends = [runner.communicate(timeout=600) for runner in runners]
        records = [record for record in read_records(store) if record.id not in before]
        alone = folder.kflow(*options, "--store", str(tmp_path / f"alone{number}"))

        assert [runner.returncode for each, runner in enumerate(runners) if each not in killed] == [0] * (
            RUNNERS - len(killed)
        ), ends
        assert not any("Traceback" in text for end in ends for text in end)
        assert survivors(mark) == []
        assert find_corruption(store) == []
        assert alone.returncode == 0
        (expected,) = read_records(tmp_path / f"alone{number}")
        whole = [digests(record) for record in records if record.status == "succeeded"]
        assert len(whole) >= RUNNERS - len(killed)
        assert all(each == digests(expected) for each in whole)
        done = Counter(name for record in records for name, step in record.steps.items() if step.status == "run")
        assert locks == "lying" or killed or max(done.values()) == 1, done
