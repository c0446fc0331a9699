"""The graphs that all tools are given, and each tool's way to write them down.

A step copies a file of its own, `in/I.txt`, and may wait for one other step. kflow's step is a `fetch` of the file: it
verifies it and publishes an entry of its store. The others start `cp`, or call a function that copies.
"""

from collections.abc import Sequence
from pathlib import Path

Graph = Sequence[int | None]
"""For each step the one that it waits for."""


def layered(count: int) -> Graph:
    """Return a chain of every tenth step, with nine leaves at each of its links."""
    return [None if not step else step - 10 if step % 10 == 0 else step - step % 10 for step in range(count)]


def chain(count: int) -> Graph:
    """Return steps that wait each for the one before."""
    return [step - 1 if step else None for step in range(count)]


def write_inputs(graph: Graph, folder: Path) -> None:
    """Make the files that the steps take, and the folder for those that they make."""
    (folder / "out").mkdir(parents=True)
    (folder / "in").mkdir()
    for step in range(len(graph)):
        (folder / "in" / f"{step}.txt").write_text(f"{step}\n")


def change_input(folder: Path) -> None:
    """Change the input of a step in the middle of a layered graph, one that others wait for."""
    count = len(list((folder / "in").iterdir()))
    with (folder / "in" / f"{count // 20 * 10}.txt").open("a") as stream:
        stream.write("changed\n")


def for_kflow(graph: Graph) -> str:
    """Write a workflow."""
    lines = ["kflow: 1", "name: graph", "steps:"]
    for step, before in enumerate(graph):
        lines += [f"  s{step}:", "    kind: fetch", f"    origin: in/{step}.txt"]
        lines += [f"    needs: [s{before}]"] if before is not None else []
    return "\n".join([*lines, ""])


def for_ninja(graph: Graph) -> str:
    """Write a build.ninja, with dependencies for order only."""
    after = _texts(graph, " || out/{}.txt")
    lines = [f"build out/{step}.txt: copy in/{step}.txt{after[step]}" for step in range(len(graph))]
    return "\n".join(["rule copy", "  command = cp $in $out", *lines, ""])


def for_make(graph: Graph) -> str:
    """Write a Makefile, with prerequisites for order only."""
    after = _texts(graph, " | out/{}.txt")
    goals = " ".join(f"out/{step}.txt" for step in range(len(graph)))
    lines = [f"out/{step}.txt: in/{step}.txt{after[step]}\n\t@cp $< $@" for step in range(len(graph))]
    return "\n".join([f"all: {goals}", *lines, ""])


def for_doit(graph: Graph) -> str:
    """Write a dodo.py whose steps start a shell, as those of the others do."""
    return _dodo(graph, 'f"cp {source} {target}"')


def for_doit_in_process(graph: Graph) -> str:
    """Write a dodo.py whose steps are calls of a function."""
    return _dodo(graph, "(copy, [source, target])")


def _dodo(graph: Graph, action: str) -> str:
    return f"""import shutil

def copy(source, target):
    shutil.copyfile(source, target)

def task_copy():
    for step, before in enumerate({list(graph)}):
        source, target = f"in/{{step}}.txt", f"out/{{step}}.txt"
        after = [f"copy:{{before}}"] if before is not None else []
        yield {{"name": str(step), "actions": [{action}], "file_dep": [source], "targets": [target], "task_dep": after}}
"""


def for_snakemake(graph: Graph) -> str:
    """Write a Snakefile: one rule with a wildcard, as its users would, and inputs whose time does not matter."""
    return f"""GRAPH = {list(graph)}

def before(wildcards):
    step = GRAPH[int(wildcards.step)]
    return [] if step is None else f"out/{{step}}.txt"

rule all:
    input: expand("out/{{step}}.txt", step=range(len(GRAPH)))

rule copy:
    input: own="in/{{step}}.txt", after=ancient(before)
    output: "out/{{step}}.txt"
    shell: "cp {{input.own}} {{output}}"
"""


def for_dvc(graph: Graph) -> str:
    """Write a dvc.yaml; it knows no dependency for order only, so a step depends on what the other makes."""
    lines = ["stages:"]
    for step, before in enumerate(graph):
        lines += [f"  s{step}:", f"    cmd: cp in/{step}.txt out/{step}.txt", f"    deps: [in/{step}.txt"]
        lines[-1] += f", out/{before}.txt]" if before is not None else "]"
        lines += [f"    outs: [out/{step}.txt]"]
    return "\n".join([*lines, ""])


def _texts(graph: Graph, form: str) -> list[str]:
    return ["" if before is None else form.format(before) for before in graph]
