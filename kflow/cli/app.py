"""The commands and their options; what each does is in a module of its own."""

import gc
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    name="kflow",
    help="Run typed YAML workflows for repeatable Keras experiments.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 fine, 1 the run failed, 2 the workflow or the command is wrong, "
    "3 'plan --exit-code' found work to do, 130 interrupted.",
)


def _read_store(text: str) -> Path:
    if not text:  # else it would be the current folder
        message = "expected a folder, and found an empty text"
        raise typer.BadParameter(message)
    return Path(text)


File = Annotated[Path, typer.Argument(help="The workflow file.", metavar="FILE")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Give a param another value; can be repeated.")
]
StoreOption = Annotated[
    Path | None,
    typer.Option(
        "--store",
        metavar="DIR",
        envvar="KFLOW_STORE",
        parser=_read_store,
        help="Where results and runs are kept; default ./.kflow.",
    ),
]
RemoteOption = Annotated[
    str | None,
    typer.Option(
        "--remote",
        metavar="URL",
        envvar="KFLOW_REMOTE",
        help="A store elsewhere, to pull results from and push them to: a folder, s3://BUCKET/FOLDER or gs://...",
    ),
]
Only = Annotated[list[str] | None, typer.Option("--only", metavar="STEP", help="Run this step alone; can be repeated.")]
From = Annotated[
    list[str] | None, typer.Option("--from", metavar="STEP", help="Run this step and all that hang on it.")
]
Until = Annotated[
    list[str] | None, typer.Option("--until", metavar="STEP", help="Run this step and all that it needs.")
]
Force = Annotated[bool, typer.Option("--force", help="Run the chosen steps even if their results are stored.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _complete_kind(start: str) -> list[str]:
    from kflow.adapters import BUILTIN

    return [name for name in BUILTIN if name.startswith(start)]


def _complete_run(context: typer.Context, start: str) -> list[str]:
    from kflow.cli.loading import open_store
    from kflow.run.record import read_records

    root = open_store(context.params.get("store")).root
    return [name for name in ("latest", *(record.id for record in read_records(root))) if name.startswith(start)]


RunArgument = Annotated[
    str,
    typer.Argument(metavar="RUN", autocompletion=_complete_run, help="The id of a run, the start of one, or 'latest'."),
]


def _import(command: str) -> Any:
    """Import the module of a command; from here on garbage is looked for."""
    module = import_module(f"kflow.cli.{command}")
    gc.freeze()
    gc.enable()
    return module


def _call(command: str, **arguments: Any) -> None:
    """Import the module of a command and run it."""
    code: int = _import(command).run(**arguments)
    raise typer.Exit(code)


def _print_version(wanted: bool) -> None:
    if wanted:
        from kflow import __version__

        typer.echo(f"kflow {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version


@app.command()
def validate(
    files: Annotated[list[Path], typer.Argument(help="The workflow files.", metavar="FILE...")],
    set_: Set = None,
    debug: Debug = False,
) -> None:
    """Check workflows without running anything; every problem is shown with its place."""
    del debug
    _call("validate", files=files, overrides=set_ or [])


@app.command()
def plan(
    file: File,
    set_: Set = None,
    only: Only = None,
    from_: From = None,
    until: Until = None,
    force: Force = False,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="End with 0 if nothing is to be done, else 3.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="PLAN", help="Write the plan down; 'kflow run PLAN' runs it.")
    ] = None,
    store: StoreOption = None,
    remote: RemoteOption = None,
    debug: Debug = False,
) -> None:
    """Tell for each step whether it will be run or reused, and why."""
    del debug
    choice = {"only": only or [], "first": from_ or [], "last": until or [], "is_forced": force}
    _call(
        "plan",
        file=file,
        overrides=set_ or [],
        choice=choice,
        store=store,
        remote=remote,
        tells_by_code=exit_code,
        output=output,
    )


@app.command()
def run(
    file: Annotated[Path, typer.Argument(help="The workflow file, or a plan of one.", metavar="FILE")],
    set_: Set = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs", "-j", min=1, metavar="N", help="Steps at once; default as many as the processors have room for."
        ),
    ] = None,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", "-k", help="After a failure go on with what does not hang on it.")
    ] = False,
    only: Only = None,
    from_: From = None,
    until: Until = None,
    force: Force = False,
    locked: Annotated[
        bool, typer.Option("--locked", help="Fail where steps or results differ from the lock beside the file.")
    ] = False,
    output: Annotated[bool, typer.Option("--output", help="Show what the steps print; the logs have it too.")] = False,
    store: StoreOption = None,
    remote: RemoteOption = None,
    no_push: Annotated[
        bool, typer.Option("--no-push", envvar="KFLOW_NO_PUSH", help="Pull from the remote, and send it nothing.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Run a workflow, or exactly what was planned; steps whose result is in the store are reused."""
    choice = {"only": only or [], "first": from_ or [], "last": until or [], "is_forced": force}
    wishes = {"jobs": jobs, "keeps_going": keep_going, "shows_output": output}
    _call(
        "run",
        file=file,
        overrides=set_ or [],
        choice=choice,
        wishes=wishes,
        store=store,
        remote=remote,
        pushes=not no_push,
        is_locked=locked,
        is_debug=debug,
    )


@app.command()
def lock(file: File, set_: Set = None, store: StoreOption = None, debug: Debug = False) -> None:
    """Write FILE's results down beside it, for git; 'kflow run --locked' compares with them."""
    del debug
    _call("lock", file=file, overrides=set_ or [], store=store)


@app.command()
def verify(
    run_id: RunArgument,
    only: Only = None,
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", help="The workflow file, if it has moved since.")
    ] = None,
    store: StoreOption = None,
    debug: Debug = False,
) -> None:
    """Do a run again in a scratch store, and tell which outputs are identical and where others differ."""
    _call("verify", run_id=run_id, only=only or [], file=file, store=store, is_debug=debug)


@app.command()
def runs(
    sort: Annotated[
        str | None, typer.Option("--sort", metavar="METRIC", help="Greatest first, such as test.accuracy.")
    ] = None,
    least_first: Annotated[bool, typer.Option("--least-first", help="With --sort: the least first.")] = False,
    store: StoreOption = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """List the runs, newest first."""
    del debug
    _call("runs", store=store, sort=sort, as_json=as_json, least_first=least_first)


@app.command()
def why(
    step: Annotated[str, typer.Argument(metavar="STEP", help="The name of a step.")],
    run_id: Annotated[
        str, typer.Option("--run", metavar="RUN", autocompletion=_complete_run, help="The run; default the latest.")
    ] = "latest",
    against: Annotated[
        str | None,
        typer.Option(
            metavar="RUN", autocompletion=_complete_run, help="The run to compare with; default the one before."
        ),
    ] = None,
    store: StoreOption = None,
    debug: Debug = False,
) -> None:
    """Tell why a step was run again: what differs from an earlier run, and where that comes from."""
    del debug
    _call("why", step=step, run_id=run_id, against=against, store=store)


@app.command()
def diff(
    first: RunArgument, second: RunArgument, store: StoreOption = None, as_json: AsJson = False, debug: Debug = False
) -> None:
    """Show how two runs differ: params, code, data, metrics and time."""
    del debug
    _call("diff", first=first, second=second, store=store, as_json=as_json)


@app.command()
def show(
    run_id: RunArgument,
    store: StoreOption = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show the record of a run."""
    del debug
    _call("show", run_id=run_id, store=store, as_json=as_json)


@app.command()
def kinds(
    kind: Annotated[
        str | None, typer.Argument(metavar="KIND", autocompletion=_complete_kind, help="A step kind.")
    ] = None,
    debug: Debug = False,
) -> None:
    """List the step kinds, or show the manual of one."""
    del debug
    _call("kinds", kind=kind)


@app.command()
def schema(
    record: Annotated[bool, typer.Option("--record", help="That of run records instead.")] = False, debug: Debug = False
) -> None:
    """Print the JSON Schema of workflow files, for editors."""
    del debug
    _call("schema", is_record=record)


store_app = typer.Typer(help="Look after the store.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(store_app, name="store")


def _call_store(function: str, **arguments: Any) -> None:
    code: int = getattr(_import("store"), function)(**arguments)
    raise typer.Exit(code)


@store_app.command("ls")
def store_ls(store: StoreOption = None, debug: Debug = False) -> None:
    """List the entries, the one used last in front."""
    del debug
    _call_store("list_entries", store=store)


@store_app.command("du")
def store_du(store: StoreOption = None, debug: Debug = False) -> None:
    """Tell how much each part of the store takes."""
    del debug
    _call_store("show_sizes", store=store)


@store_app.command("verify")
def store_verify(store: StoreOption = None, debug: Debug = False) -> None:
    """Read every entry and set the damaged ones aside; the exit code is 1 if there are any."""
    del debug
    _call_store("verify", store=store)


@store_app.command("push")
def store_push(
    run_id: RunArgument = "latest", remote: RemoteOption = None, store: StoreOption = None, debug: Debug = False
) -> None:
    """Send the results of a run, of the last one by default, to a remote that does not have them."""
    del debug
    _call_store("push", run_id=run_id, remote=remote, store=store)


@store_app.command("gc")
def store_gc(
    older_than: Annotated[
        str | None, typer.Option("--older-than", metavar="TIME", help="What was not used for so long, such as 30d.")
    ] = None,
    max_size: Annotated[
        str | None,
        typer.Option("--max-size", metavar="SIZE", help="The least recently used, until the rest takes so much."),
    ] = None,
    unreferenced: Annotated[
        bool, typer.Option("--unreferenced", help="What no run in the store has made or used.")
    ] = False,
    grace: Annotated[str, typer.Option("--grace", metavar="TIME", help="What was used since stays.")] = "1h",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would go.")] = False,
    store: StoreOption = None,
    debug: Debug = False,
) -> None:
    """Remove entries, checkpoints and what was set aside; runs under way are not disturbed."""
    del debug
    _call_store(
        "collect_garbage",
        store=store,
        older_than=older_than,
        max_size=max_size,
        grace=grace,
        unreferenced=unreferenced,
        is_dry=dry_run,
    )
