"""The runner: the CPU time that trivial steps take with kflow, with its peers, and with bare Python, in one run.

    make peers                                      # ninja, doit, Snakemake and DVC from PyPI, once
    .venv/bin/python benchmarks/runner.py [ROUNDS] [SCENARIO...]

Each round lets every tool carry out the same graph in turn; the figures are medians over the rounds (default 5), with
the CPU time of all children, and their ratio to ninja's. A tool that takes longer than 10 s of CPU is asked once. What
is not installed is left out. The scenarios: start, no-op, dry, first, changed, growth, chain.
"""

import json
import math
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from measure import Cost, spend
from runner_graphs import Graph, chain, change_input, layered
from runner_tools import DOIT, KFLOW, MAKE, NINJA, PEERS_OF_KFLOW, Tool

SLOW = 10.0
"""Seconds of CPU after which a tool is not asked again."""
_START = 0.011
"""The seconds that bare Python took to start where targets in seconds were set: with it they hold on any machine."""
BOUND = "Python's own bound"
START = "python -c pass"
READ_INDEX = """
import json, os
with open("index.json") as stream:
    index = json.load(stream)
changed = 0
for path, known in index.items():
    stat = os.stat(path)
    changed += known != [stat.st_size, stat.st_mtime_ns, stat.st_ino]
raise SystemExit(changed)
"""
"""The least that a program in Python can do to see that nothing is to be done."""


Calls = Mapping[str, Callable[[], Cost]]


@dataclass
class Bench:
    """The measurements of one run, and what came of the targets."""

    folder: Path
    rounds: int
    tools: tuple[Tool, ...]
    verdicts: list[str] = field(default_factory=list)
    count: int = 0
    """The folders made so far."""

    def fresh(self, tool: Tool, graph: Graph) -> Path:
        """Return a folder in which nothing has been run; one that was emptied takes more time than a new one."""
        self.count += 1
        folder = self.folder / f"fresh-{self.count}"
        tool.set_up(graph, folder)
        return folder

    def done(self, tool: Tool, graph: Graph) -> Path:
        """Return a folder with nothing left to do, as a run has seen that could trust the times of the files."""
        folder = self.folder / f"done-{len(graph)}-{tool.name.replace(' ', '_')}"
        if not folder.exists():
            tool.set_up(graph, folder)
            for _ in range(2):
                tool.spend(tool.run, folder)
        return folder

    def calls(self, scenario: str, graph: Graph, call: Callable[["Bench", Tool, Graph], Cost]) -> Calls:
        """Return a call for each tool that can be asked for so many steps."""
        tools = [tool for tool in self.tools if tool.takes(scenario, len(graph))]
        return {tool.name: partial(call, self, tool, graph) for tool in tools}

    def compare(self, calls: Calls) -> dict[str, list[Cost]]:
        """Call every candidate once a round."""
        found: dict[str, list[Cost]] = {name: [] for name in calls}
        for _ in range(self.rounds):
            for name, call in calls.items():
                if not found[name] or found[name][0].cpu < SLOW:
                    found[name].append(call())
        return found

    def check(self, what: str, value: float, limit: float, unit: str = "") -> None:
        """Hold a figure against its target."""
        word = "met   " if value <= limit else "MISSED"
        self.verdicts.append(f"{word}  {what:64}{value:9.3f}{unit}  <= {limit:.3f}{unit}")


def show(title: str, found: Mapping[str, list[Cost]]) -> dict[str, float]:
    """Print a table of medians with their ratio to ninja's; return the medians of the CPU seconds."""
    cpu = {name: statistics.median(cost.cpu for cost in costs) for name, costs in found.items()}
    base = cpu.get(NINJA.name)
    print(f"\n{title}")  # noqa: T201
    print(f"  {'':28}{'CPU s':>9}{'to ninja':>10}{'wall s':>9}{'MiB':>7}{'rounds':>8}")  # noqa: T201
    for name, costs in found.items():
        ratio = f"{cpu[name] / base:10.2f}" if base else f"{'':10}"
        wall, memory = statistics.median(cost.wall for cost in costs), max(cost.memory for cost in costs) / 2**20
        note = "  (it ended with an error)" if costs[0].code else ""
        print(f"  {name:28}{cpu[name]:9.3f}{ratio}{wall:9.2f}{memory:7.0f}{len(costs):8}{note}")  # noqa: T201
    sys.stdout.flush()
    return cpu


def _run_again(bench: Bench, tool: Tool, graph: Graph) -> Cost:
    return tool.spend(tool.run, bench.done(tool, graph))


def _run_afresh(bench: Bench, tool: Tool, graph: Graph) -> Cost:
    return tool.spend(tool.run, bench.fresh(tool, graph))


def _dry_run_afresh(bench: Bench, tool: Tool, graph: Graph) -> Cost:
    return tool.spend(tool.dry, bench.fresh(tool, graph), may_fail=tool.dry_may_fail)


def _run_changed(bench: Bench, tool: Tool, graph: Graph) -> Cost:
    folder = bench.done(tool, graph)
    change_input(folder)
    return tool.spend(tool.run, folder)


def _python(code: str, folder: Path) -> Cost:
    return spend([sys.executable, "-c", code], folder)


def _bound(bench: Bench, graph: Graph) -> Callable[[], Cost]:
    """Return a call of bare Python that reads one index file and looks at every file in it."""
    folder = bench.done(KFLOW, graph)
    stats = {f"in/{step}.txt": (folder / "in" / f"{step}.txt").stat() for step in range(len(graph))}
    index = {path: [each.st_size, each.st_mtime_ns, each.st_ino] for path, each in stats.items()}
    (folder / "index.json").write_text(json.dumps(index))
    return partial(_python, READ_INDEX, folder)


def start(bench: Bench) -> None:
    """Measure what each takes to say its version."""
    calls = {tool.name: partial(tool.spend, ("--version",), bench.folder) for tool in bench.tools}
    show("saying the version", bench.compare({**calls, START: partial(_python, "pass", bench.folder)}))


def no_op(bench: Bench) -> None:
    """Measure a run that has nothing to do."""
    for count in (1000, 5000):
        graph = layered(count)
        calls = {BOUND: _bound(bench, graph), **bench.calls("no-op", graph, _run_again)}
        cpu = show(f"no-op, {count:,} steps", bench.compare(calls))
        if count == 1000:
            bench.check("no-op of 1,000: ratio to Python's own bound", cpu[KFLOW.name] / cpu[BOUND], 3)
            for peer in (DOIT.name, MAKE.name):
                if peer in cpu:
                    bench.check(f"no-op of 1,000: ratio to {peer}", cpu[KFLOW.name] / cpu[peer], 1)


def dry_run(bench: Bench) -> None:
    """Measure telling what is to be done in a folder where nothing has been run."""
    for count in (1000, 5000):
        bare = {START: partial(_python, "pass", bench.folder)}
        calls = bench.calls("dry run", layered(count), _dry_run_afresh)
        cpu = show(f"dry run from cold, {count:,} steps", bench.compare({**bare, **calls}))
        if count == 1000:
            bench.check("dry run of 1,000 from cold", cpu[KFLOW.name], 0.3, " s")
            ratio = cpu[KFLOW.name] / cpu[START]
            bench.check("dry run of 1,000 from cold: ratio to the start of Python", ratio, 0.3 / _START)


def first_run(bench: Bench) -> None:
    """Measure the first run."""
    for count in (100, 1000):
        calls = bench.calls("first run", layered(count), _run_afresh)
        cpu = show(f"first run, {count:,} steps", bench.compare(calls))
        if count == 1000 and NINJA.name in cpu:
            bench.check("first run of 1,000: ratio to ninja", cpu[KFLOW.name] / cpu[NINJA.name], 1)


def changed(bench: Bench) -> None:
    """Measure a run after the input of one step in the middle has changed.

    The others wait for that step, and take nothing of what it makes; with DVC they do.
    """
    for count in (100, 1000):
        calls = bench.calls("one input changed", layered(count), _run_changed)
        show(f"one input changed in the middle, {count:,} steps", bench.compare(calls))


def growth(bench: Bench) -> None:
    """Measure how kflow's time grows with the number of steps.

    What it takes to start would hide a growth that is not linear, so the last exponent leaves it out.
    """
    for title, call in (("dry run", _dry_run_afresh), ("first run", _run_afresh), ("no-op", _run_again)):
        counts = (1, 100, 2500, 10_000)
        calls = {f"{count:,} steps": partial(call, bench, KFLOW, layered(count)) for count in counts}
        cpu = list(show(f"growth of the {title}", bench.compare(calls)).values())
        whole = math.log(cpu[3] / cpu[1], 100)
        last = math.log((cpu[3] - cpu[0]) / (cpu[2] - cpu[0]), 4)
        bench.check(f"{title}: growth exponent from 100 to 10,000 steps", whole, 1.1)
        bench.check(f"{title}: the same from 2,500, without the time for one step", last, 1.1)


def long_chain(bench: Bench) -> None:
    """Measure planning 10,000 steps that wait each for the one before."""
    bare = {START: partial(_python, "pass", bench.folder)}
    found = bench.compare({**bare, KFLOW.name: partial(_dry_run_afresh, bench, KFLOW, chain(10_000))})
    cpu = show("plan of a chain of 10,000 steps, from cold", found)
    bench.check("plan of a chain of 10,000", cpu[KFLOW.name], 2, " s")
    bench.check("plan of a chain of 10,000: ratio to the start of Python", cpu[KFLOW.name] / cpu[START], 2 / _START)
    bench.check("plan of a chain of 10,000", max(cost.memory for cost in found[KFLOW.name]) / 1e6, 300, " MB")


SCENARIOS = {
    "start": start,
    "no-op": no_op,
    "dry": dry_run,
    "first": first_run,
    "changed": changed,
    "growth": growth,
    "chain": long_chain,
}


def main() -> None:
    """Measure the scenarios that were asked for, and say which targets are met."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    missing = [tool.name for tool in PEERS_OF_KFLOW if tool.path is None]
    if missing:
        print(f"not installed, and left out: {', '.join(missing)} ('make peers' brings what PyPI has)")  # noqa: T201
    tools = tuple(tool for tool in (KFLOW, *PEERS_OF_KFLOW) if tool.path)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), rounds, tools)
        for name in sys.argv[2:] or SCENARIOS:
            SCENARIOS[name](bench)
    print("\ntargets", *bench.verdicts, sep="\n  ")  # noqa: T201


if __name__ == "__main__":
    main()
