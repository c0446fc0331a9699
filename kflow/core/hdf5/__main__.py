"""Describe data sets for another process: ``python -m kflow.core.hdf5``.

It reads lines from standard input, each a JSON list of ``{"path": ..., "dataset": ...}``, and prints for each a JSON
list of ``{"shape": ..., "dtype": ...}`` or ``{"error": ...}``.
"""

from __future__ import annotations

import json
import sys

from kflow.core.hdf5.description import describe_dataset


def main() -> int:
    """Answer each line of standard input, a JSON list of data sets, with a line; until the input ends."""
    for line in sys.stdin:
        try:
            wanted = [(str(asked["path"]), str(asked["dataset"])) for asked in json.loads(line)]
        except (ValueError, LookupError, TypeError) as error:
            sys.stderr.write(f'expected a JSON list of {{"path": ..., "dataset": ...}}: {error!r}\n')
            return 2
        sys.stdout.write(json.dumps([_described(path, dataset) for path, dataset in wanted]) + "\n")
        sys.stdout.flush()
    return 0


def _described(path: str, dataset: str) -> dict[str, object]:
    """Return what is known of a data set, or why nothing is."""
    try:
        info = describe_dataset(path, dataset)
    except (OSError, LookupError, ValueError, TypeError, RuntimeError) as error:
        return {"error": str(error.args[-1] if error.args else error)}
    return {"shape": info.shape, "dtype": info.dtype}


if __name__ == "__main__":
    sys.exit(main())
