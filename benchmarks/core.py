"""The utility core against its limits and its neighbours: ratios of medians, side by side in one run.

    .venv/bin/python benchmarks/core.py [PART ...] [--rounds N]

Each part is a module beside this file with one function, ``report(rounds)``; without a name all are run.
"""

import argparse
import importlib
import sys
from pathlib import Path

PARTS = ("arrays", "files", "archives", "hdf5", "sequences", "parallel")


def main() -> None:
    """Run the parts that were named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - set(PARTS)
    if unknown:
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    sys.path.insert(0, str(Path(__file__).parent))
    for part in arguments.parts or PARTS:
        importlib.import_module(f"core_{part}").report(arguments.rounds)


if __name__ == "__main__":
    main()
