"""Tests of the small artifact types."""

import hashlib
import os

import pytest

from kflow.artifacts import TYPES, artifact_type, digest_file
from kflow.spec import types


@pytest.mark.parametrize("name", sorted(TYPES))
def test_every_type_saves_and_loads(name):
    """The table names modules that have both functions."""
    module = artifact_type(name)

    assert callable(module.save)
    assert callable(module.load)


def test_every_type_can_be_referenced():
    """For each type of artifact there is a type of field, and the other way round."""
    fields = {
        each.type_name for each in vars(types).values() if isinstance(each, type) and issubclass(each, types.Reference)
    }

    assert fields - {""} == set(TYPES)


@pytest.mark.parametrize(("name", "value"), [("metrics", {"loss": 0.5}), ("history", {"loss": [2.0, 1.0], "mae": []})])
def test_numbers_come_back(tmp_path, name, value):
    """What was measured is what is read, and the digest follows from it."""
    module = artifact_type(name)
    saved, again = (module.save(value, tmp_path / place) for place in ("a", "b"))

    assert module.load(saved.description, tmp_path / "a") == value
    assert saved.digest == again.digest


def test_a_picture_of_the_user_is_not_moved(tmp_path):
    """A kind may give one that it has found."""
    (tmp_path / "own.png").write_bytes(b"abc")
    (tmp_path / "step").mkdir()
    artifact_type("image").save(tmp_path / "own.png", tmp_path / "step" / "picture")

    assert (tmp_path / "own.png").read_bytes() == b"abc"
    assert (tmp_path / "step" / "picture" / "own.png").read_bytes() == b"abc"


def test_a_file_of_the_user_is_not_moved(tmp_path):
    """It is referred to, with its digest."""
    path = tmp_path / "mine.txt"
    path.write_text("mine")

    saved = artifact_type("file").save(path, tmp_path / "store" / "out")

    assert artifact_type("file").load(saved.description, tmp_path / "nowhere") == path
    assert saved.digest == digest_file(path)
    assert saved.external[0].path == str(path)


def test_a_file_of_the_step_moves_into_the_store(tmp_path):
    """What a step made in its folder becomes part of the entry."""
    path = tmp_path / "work" / "made.txt"
    path.parent.mkdir()
    path.write_text("made")

    saved = artifact_type("file").save(path, tmp_path / "out")

    assert artifact_type("file").load(saved.description, tmp_path / "out").read_text() == "made"
    assert (path.exists(), saved.external) == (False, ())


@pytest.mark.parametrize("way", ["dots", "link"])
def test_a_file_of_the_user_is_not_moved_by_whatever_way_it_is_named(tmp_path, way):
    """A path that starts in the folder of the step may lead out of it."""
    path, work = tmp_path / "mine.txt", tmp_path / "staging" / "work"
    work.mkdir(parents=True)
    path.write_text("mine")
    (work / "link").symlink_to(path)

    named = work / "link" if way == "link" else work / ".." / ".." / "mine.txt"
    saved = artifact_type("file").save(named, tmp_path / "staging" / "out")

    assert path.read_text() == "mine"
    assert artifact_type("file").load(saved.description, tmp_path / "nowhere") == path
    assert saved.external[0].path == str(path)


def test_a_file_of_the_step_is_known_behind_a_link(tmp_path):
    """The store may lie behind one."""
    (tmp_path / "disk" / "work").mkdir(parents=True)
    (tmp_path / "store").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "work" / "made.txt").write_text("made")

    saved = artifact_type("file").save(tmp_path / "disk" / "work" / "made.txt", tmp_path / "store" / "out")

    assert (saved.description, saved.external) == ({"name": "made.txt"}, ())


@pytest.mark.parametrize("size", [0, 1, 2**14 - 1, 2**14, 2**14 + 1, 2**15, 2**15 + 1, 2**18 + 2**15 + 1, 10**6])
def test_the_digest_of_a_file(tmp_path, size):
    """It is that of its bytes, however many there are."""
    content = os.urandom(size)
    path = tmp_path / "a"
    path.write_bytes(content)

    assert digest_file(path) == hashlib.sha256(content).hexdigest()
