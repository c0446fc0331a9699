"""``kflow schema``: the JSON Schema of workflow files and run records."""

from kflow.cli.output import say
from kflow.registry import Registry
from kflow.run.record import record_schema, to_text
from kflow.spec.schema import workflow_schema


def run(is_record: bool) -> int:
    """Print a schema."""
    say(to_text(record_schema() if is_record else workflow_schema(Registry())).removesuffix("\n"))
    return 0
