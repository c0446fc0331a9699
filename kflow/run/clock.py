"""When a run began, and the id that it gets from that."""

import os
from datetime import UTC, datetime


def now() -> str:
    """Return the time, UTC, in ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def new_id(workflow: str) -> str:
    """Return the id of a run that begins now; fine enough that ids sort by time."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    return f"{stamp}-{workflow[:40]}-{os.urandom(3).hex()}"
