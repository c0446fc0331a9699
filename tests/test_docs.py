"""The documentation: what it names is there, and its examples run."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = ROOT / "docs" / "core"


def _deviations():
    """Return the rows of the table as lists of cells."""
    rows = [line for line in (CORE / "deviations.md").read_text().splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows[1:]]


@pytest.mark.parametrize("row", _deviations(), ids=lambda row: f"{row[0]}: {row[1][:40]}")
def test_each_deviation_has_a_reason_and_a_test(row):
    """The test that it names exists under that name."""
    utility, before, now, reason, test = row
    path, _, name = test.strip("`").partition("::")

    assert all((utility, before, now, reason))
    assert re.search(rf"^def {re.escape(name)}\(", (ROOT / path).read_text(), re.MULTILINE), test


@pytest.mark.parametrize("page", sorted(set(CORE.glob("*.md")) - {CORE / "deviations.md"}), ids=lambda page: page.stem)
def test_the_examples_of_a_page_run(page, tmp_path, monkeypatch):
    """Its Python blocks, one after the other in an empty folder, in which the data of the examples lie."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "workflows").symlink_to(ROOT / "workflows")
    namespace = {"__name__": "example"}
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)

    assert blocks
    for block in blocks:
        exec(compile(block, str(page), "exec"), namespace)
