"""A small run to be broken: two steps in the runner, two in a worker, and a file for the user; no TensorFlow.

Steps are made to run in the runner's first thread, where strace counts; what happens, and in which order, is the same.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.soak import strace

REPOSITORY = Path(__file__).parents[2]
STEPS = ("digits", "x", "unit", "page")
EXPORT = "results/deep/page.txt"

WORKFLOW = f"""
kflow: 1
name: small
steps:
  digits: {{kind: fetch, origin: digits.h5}}
  x: {{kind: slice_hdf5, datapath: "${{digits}}", dataset: images, end: 20}}
  unit: {{kind: normalize, x: "${{x}}", axis: 0}}
  page: {{kind: page, source: "${{digits}}", text: hello, to_file: {EXPORT}}}
"""

KIND = '''"""Write a page."""

from kflow.spec.base import StepOutputs, StepSpec
from kflow.spec.types import File, OutputPath


class Page(StepSpec, kind="page", version=1):
    """A page of text."""

    is_light = True

    source: File
    text: str
    to_file: OutputPath

    class Outputs(StepOutputs):
        """What others may reference."""

        page: File

    def exports(self):
        """Give the page its place."""
        return {"page": self.to_file}

    def run(self, context):
        """Write the page."""
        path = context.workdir / "page.txt"
        with path.open("w") as stream:
            for number in range(2):
                stream.write(f"{self.text} {number} {context.path(self.source).stat().st_size}\\n" * 400)
                stream.flush()
        return self.Outputs(page=path)
'''

SITE = """
import os, sys

if os.environ.get("SOAK_WORKER"):
    sys.executable = os.environ["SOAK_WORKER"]
    if "kflow.run.forkserver" in sys.orig_argv:  # beside another thread it does not fork, and strace can be put before
        import threading

        threading.Thread(target=threading.Event().wait, daemon=True).start()

if os.environ.get("SOAK_INLINE"):
    from kflow.run.threads import Threads

    Threads.call = lambda self, work, **_: work()
"""


@dataclass(frozen=True)
class SmallRun:
    """The folder of a small run: workspace, store, and what Python is to find."""

    root: Path

    @property
    def here(self) -> Path:
        """The workspace."""
        return self.root / "here"

    @property
    def store(self) -> Path:
        """The store."""
        return self.root / "store"

    @property
    def exported(self) -> Path:
        """The file that the user has asked for."""
        return self.here / EXPORT

    def lay_out(self) -> None:
        """Make workspace and packages anew."""
        shutil.rmtree(self.root, ignore_errors=True)
        self.here.mkdir(parents=True)
        shutil.copy2(REPOSITORY / "workflows" / "data" / "digits.h5", self.here / "digits.h5")
        (self.here / "w.yaml").write_text(WORKFLOW)
        site = self.root / "site"
        info = site / "pages-1.0.dist-info"
        info.mkdir(parents=True)
        (site / "pages.py").write_text(KIND)
        (site / "sitecustomize.py").write_text(SITE)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pages\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[kflow.adapters]\npage = pages:Page\n")

    def environ(self, **more: str) -> dict[str, str]:
        """Return the environment of its commands."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("KFLOW", "SOAK"))}
        return {
            **kept,
            "HOME": str(self.root),
            "KFLOW_STORE": str(self.store),
            "PYTHONPATH": f"{self.root / 'site'}{os.pathsep}{REPOSITORY}",
            "PYTHONDONTWRITEBYTECODE": "1",  # else the first run of all would do more than the others
            **more,
        }

    def kflow(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run a command undisturbed."""
        return strace.run((), (sys.executable, "-m", "kflow", *arguments), self.here, self.environ())

    def watched(
        self, prefix: Sequence[str], arguments: Sequence[str], *, in_worker: bool
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command with strace before the runner, or before its worker."""
        command = (sys.executable, "-m", "kflow", *arguments)
        if not in_worker:
            return strace.run(prefix, command, self.here, self.environ(SOAK_INLINE="1"))
        wrapper = self.root / "site" / "python"
        quoted = " ".join(f"'{each}'" for each in prefix)
        wrapper.write_text(
            "#!/bin/sh\n"
            f'case "$*" in *kflow.run.worker*) exec {quoted} {sys.executable} "$@";; esac\n'
            f'exec {sys.executable} "$@"\n'
        )
        wrapper.chmod(0o755)
        return strace.run((), command, self.here, self.environ(SOAK_INLINE="1", SOAK_WORKER=str(wrapper)))
