"""Tests that share what takes minutes to make are done by one process."""

import os

import pytest


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="all tests are done by one process")
@pytest.mark.xdist_group("a group")
def test_a_group_is_known_to_the_scheduler(request: pytest.FixtureRequest) -> None:
    """Nothing says so when pytest and pytest-xdist do not go together: each process makes all of it again."""
    assert request.node.nodeid.endswith("@a group")
