"""Start-up: the CPU time of kflow commands against bare Python, side by side in one run.

    .venv/bin/python benchmarks/startup.py [ROUNDS]

Each round runs every command once, in turn; the figures are medians over the rounds (default 15) and their ratio to
``python -c pass``. Children count too: ``validate`` looks into HDF5 files through a child process.
"""

import os
import statistics
import sys
import tempfile
from pathlib import Path

from measure import spend

ROOT = Path(__file__).parents[1]
KFLOW = str(Path(sys.executable).with_name("kflow"))
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "kflow --version": [KFLOW, "--version"],
    "kflow --help": [KFLOW, "--help"],
    "kflow validate digits.yaml": [KFLOW, "validate", "workflows/digits.yaml"],
    "kflow plan digits.yaml": [KFLOW, "plan", "workflows/digits.yaml"],
    "kflow run digits.yaml, reused": [KFLOW, "run", "workflows/digits.yaml"],
    "python -c 'import tensorflow'": [sys.executable, "-c", "import tensorflow"],
}


def main() -> None:
    """Print a table of medians and ratios."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    with tempfile.TemporaryDirectory() as store:
        environ = {**os.environ, "KFLOW_STORE": store}
        spend(COMMANDS["kflow run digits.yaml, reused"], ROOT, environ)  # fills the store
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
        for _ in range(rounds):
            for name, command in COMMANDS.items():
                cost = spend(command, ROOT, environ)
                times[name].append((cost.cpu, cost.wall))
                if cost.code:
                    raise SystemExit(f"{name} ended with {cost.code}")
    bare = statistics.median(cpu for cpu, _ in times["python -c pass"])
    print(f"{'command':32}{'CPU s':>8}{'ratio':>8}{'wall s':>8}   medians of {rounds}")  # noqa: T201
    for name, pairs in times.items():
        cpu, wall = (statistics.median(column) for column in zip(*pairs, strict=True))
        print(f"{name:32}{cpu:8.3f}{cpu / bare:8.1f}{wall:8.3f}")  # noqa: T201


if __name__ == "__main__":
    main()
