"""What a record tells of the place of a run: processors and GPUs, and the git repository around the workflow."""

import os
from typing import Any

_DRIVER = "/proc/driver/nvidia/gpus"


def devices() -> dict[str, Any]:
    """Return the processors and GPUs of this machine."""
    affinity = getattr(os, "sched_getaffinity", None)
    return {"cpus": len(affinity(0)) if affinity else os.cpu_count(), "gpus": _gpus()}


def _gpus() -> list[str]:
    # Most machines have none, and then nothing needs to be imported to say so.
    if not os.path.isdir(_DRIVER) and not any(name.startswith("nvidia") for name in os.listdir("/dev")):  # noqa: PTH112, PTH208
        return []
    from kflow.core.parallel.devices import visible_gpus

    return list(visible_gpus())


def git_state(folder: str) -> tuple[str, bool] | None:
    """Return the commit of the repository around a folder, and whether there are changes; None where there is none."""
    if not _lies_in_repository(folder):
        return None
    # Files that git does not know do not count, as in 'git describe --dirty': results are such files.
    text = _git(folder, "--no-optional-locks", "status", "--porcelain=v2", "--branch", "--untracked-files=no")
    head, *lines = text.splitlines() or [""]
    commit = head.removeprefix("# branch.oid ")
    if commit == head or not commit.isalnum():  # "(initial)" before the first commit
        return None
    return commit, any(not line.startswith("#") for line in lines)


def _lies_in_repository(folder: str) -> bool:
    """Tell whether git might find a repository, without starting it."""
    if "GIT_DIR" in os.environ:
        return True
    while not os.path.lexists(os.path.join(folder, ".git")):  # noqa: PTH118
        parent = os.path.dirname(folder)  # noqa: PTH120
        if parent == folder:
            return False
        folder = parent
    return True


def _git(folder: str, *arguments: str) -> str:
    import subprocess

    try:
        done = subprocess.run(  # noqa: S603  a fixed command
            ["git", "-C", folder, *arguments],  # noqa: S607  the user's own git
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
