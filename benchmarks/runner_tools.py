"""kflow and its peers: how each is started, and what it leaves behind."""

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import runner_graphs as graphs
from measure import Cost, spend

PEERS = Path(__file__).parents[1] / ".bench" / "peers" / "bin"
"""Where `make peers` puts those that come from PyPI."""

_ALL = 10**9


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that carries out graphs of steps."""

    name: str
    program: str
    file: str
    write: Callable[[graphs.Graph], str]
    run: tuple[str, ...] = ()
    dry: tuple[str, ...] = ()
    prepare: tuple[str, ...] = ()
    """The arguments of a command that must have been run before the first run."""
    most: Mapping[str, int] = field(default_factory=dict)
    """The most steps that a scenario is tried with; more would take it minutes."""
    dry_may_fail: bool = False

    @property
    def path(self) -> str | None:
        """The program; None when it is not installed."""
        places = os.pathsep.join([str(Path(sys.executable).parent), str(PEERS), os.environ.get("PATH", "")])
        return shutil.which(self.program, path=places)

    def takes(self, scenario: str, count: int) -> bool:
        """Tell whether it can be asked for so many steps."""
        return count <= self.most.get(scenario, _ALL)

    def set_up(self, graph: graphs.Graph, folder: Path) -> None:
        """Write the graph into a new folder."""
        graphs.write_inputs(graph, folder)
        (folder / self.file).write_text(self.write(graph))
        if self.prepare:
            self.spend(self.prepare, folder)

    def spend(self, arguments: tuple[str, ...], folder: Path, *, may_fail: bool = False) -> Cost:
        """Run it in a folder, and return what that took; what others have written before is on the disk by then."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith("KFLOW_")}
        os.sync()
        cost = spend([str(self.path), *arguments], folder, {**environ, "DVC_NO_ANALYTICS": "1"})
        if cost.code and not may_fail:
            message = f"{self.name} {' '.join(arguments)} in {folder} ended with {cost.code}"
            raise SystemExit(message)
        return cost


KFLOW = Tool("kflow", "kflow", "graph.yaml", graphs.for_kflow, ("run", "graph.yaml"), ("plan", "graph.yaml"))
NINJA = Tool("ninja", "ninja", "build.ninja", graphs.for_ninja, (), ("-n",))
MAKE = Tool("make", "make", "Makefile", graphs.for_make, ("-j2",), ("-n",))
DOIT = Tool("doit", "doit", "dodo.py", graphs.for_doit, (), ("list", "--all", "--status"))
DOIT_IN_PROCESS = Tool(
    "doit, in process",
    "doit",
    "dodo.py",
    graphs.for_doit_in_process,
    (),
    ("list", "--all", "--status"),
)
_SLOW = {"first run": 1000, "no-op": 1000, "one input changed": 1000}
SNAKEMAKE = Tool(
    "Snakemake",
    "snakemake",
    "Snakefile",
    graphs.for_snakemake,
    ("--cores", "2"),
    ("--cores", "2", "-n"),
    most=_SLOW,
)
DVC = Tool(
    "DVC",
    "dvc",
    "dvc.yaml",
    graphs.for_dvc,
    ("repro",),
    ("repro", "--dry"),
    ("init", "--no-scm", "--force"),
    dict.fromkeys(_SLOW, 100) | {"dry run": 1000},
    dry_may_fail=True,  # of a fresh graph: it looks for files that no step has made yet
)
PEERS_OF_KFLOW = (NINJA, MAKE, DOIT, DOIT_IN_PROCESS, SNAKEMAKE, DVC)
