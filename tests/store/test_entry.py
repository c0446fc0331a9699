"""A manifest says what lies in an entry, and whether that is whole."""

import hashlib
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kflow.artifacts import ExternalFile
from kflow.store.entry import Content, Entry, Manifest, Output, describe_files, seal

texts = st.text(max_size=8)
numbers = st.dictionaries(texts, st.floats(allow_nan=False))
outputs = st.builds(
    Output, type=st.just("metrics"), digest=texts, description=st.fixed_dictionaries({"metrics": numbers})
)
manifests = st.builds(
    Manifest,
    fingerprint=texts,
    kind=texts,
    outputs=st.dictionaries(texts, outputs, max_size=3),
    files=st.dictionaries(texts, st.builds(Content, st.integers(0), texts), max_size=3),
    external=st.lists(st.builds(ExternalFile, texts, st.integers(0), st.integers()), max_size=2).map(tuple),
    facts=st.dictionaries(texts, texts, max_size=2),
)


@given(manifests)
def test_a_manifest_is_read_back_as_it_was_written(manifest: Manifest) -> None:
    """Reading is the inverse of writing."""
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest


def test_another_format_is_no_manifest() -> None:
    """What a later kflow wrote is not taken for something known."""
    text = json.dumps({"format": 4, "fingerprint": "f", "kind": "k", "outputs": {}, "files": {}, "external": []})

    with pytest.raises(ValueError, match="another format"):
        Manifest.from_bytes(seal(text))


def test_a_manifest_without_a_digest_is_none() -> None:
    """As an earlier kflow wrote them: nobody could tell whether it is as it was written."""
    text = json.dumps({"format": 2, "fingerprint": "f", "kind": "k", "outputs": {}, "files": {}, "external": []})

    with pytest.raises(ValueError, match="the bytes that were written"):
        Manifest.from_bytes(text.encode())


def test_a_manifest_that_describes_what_no_value_is_like_is_none() -> None:
    """Though its digest is right: nothing that is told of a result may end the run that finds it."""
    text = Manifest("f", "k", {"a": Output("metrics", "d", {"metrics": {"loss": "low"}})}).to_bytes()

    with pytest.raises(ValueError, match="no manifest"):
        Manifest.from_bytes(text)


def test_the_digest_of_a_manifest_is_that_of_all_before_it() -> None:
    """Anybody can check it, and the whole is JSON."""
    text = Manifest("f", "k", {"a": Output("array", "d", {})}).to_bytes()
    head = text[: text.rindex(b', "digest"')]

    assert json.loads(text)["digest"] == hashlib.sha256(head).hexdigest()


def make_entry(folder: Path) -> Entry:
    (folder / "out").mkdir()
    (folder / "out" / "a.npy").write_bytes(b"12345")
    (folder / "data.h5").write_bytes(b"data")
    external = (ExternalFile.of(folder / "data.h5"),)
    return Entry(str(folder), Manifest("f", "k", {"a": Output("array", "d1", {})}, describe_files(folder), external))


def test_an_untouched_entry_is_whole(tmp_path: Path) -> None:
    """Its file has its size, the file outside its size and time."""
    entry = make_entry(tmp_path)

    assert entry.is_whole()
    assert entry.digests == {"a": "d1"}


@pytest.mark.parametrize("damage", ["truncated", "removed", "outside changed", "outside gone"])
def test_a_damaged_entry_is_not_whole(tmp_path: Path, damage: str) -> None:
    """Each way in which a file can differ is seen."""
    entry = make_entry(tmp_path)
    match damage:
        case "truncated":
            os.truncate(tmp_path / "out" / "a.npy", 3)
        case "removed":
            (tmp_path / "out" / "a.npy").unlink()
        case "outside changed":
            os.utime(tmp_path / "data.h5", ns=(0, 0))
        case "outside gone":
            (tmp_path / "data.h5").unlink()

    assert not entry.is_whole()
