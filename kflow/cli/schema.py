"""``kflow schema``: the JSON Schema of workflow files and run records."""

import typer

from kflow.registry import Registry
from kflow.run.record import record_schema, to_text
from kflow.spec.schema import workflow_schema


def run(is_record: bool) -> int:
    """Print a schema."""
    typer.echo(to_text(record_schema() if is_record else workflow_schema(Registry())), nl=False)
    return 0
