"""Every broken workflow with all that `kflow validate` says about it, word for word.

After a change of words run this file as a script, and read the difference as a user would.
"""

import contextlib
import io
import os
from pathlib import Path
from unittest.mock import patch

import pytest

from kflow.cli import validate

FOLDER = Path(__file__).parent / "invalid"
WORKFLOWS = sorted(FOLDER.glob("*.yaml"))


def complain(workflow: Path) -> tuple[int, str]:
    """Validate a workflow as from its own folder, on a machine without GPUs; return exit code and complaints."""
    complaints = io.StringIO()
    environ = {"CUDA_VISIBLE_DEVICES": "-1"}
    with contextlib.chdir(workflow.parent), patch.dict(os.environ, environ), contextlib.redirect_stderr(complaints):
        code = validate.run([Path(workflow.name)], [])
    return code, complaints.getvalue().replace(str(FOLDER.parent), "FOLDER")


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_complaints_are_word_for_word_those_that_were_reviewed(workflow: Path) -> None:
    """A broken workflow gives exit code 2 and exactly the text that lies beside it."""
    code, complaints = complain(workflow)

    assert complaints == workflow.with_suffix(".txt").read_text(encoding="utf-8")
    assert code == 2


def test_every_broken_workflow_has_its_complaints() -> None:
    """No text without a workflow, no workflow without a text."""
    texts = {path.stem for path in FOLDER.glob("*.txt")}

    assert texts == {path.stem for path in WORKFLOWS}


if __name__ == "__main__":
    for each in WORKFLOWS:
        each.with_suffix(".txt").write_text(complain(each)[1], encoding="utf-8")
