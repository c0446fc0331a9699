"""Tests of the look at files, code and machine."""

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from kflow.workspace import Workspace

DIGITS = Path(__file__).parents[1] / "workflows" / "data" / "digits.h5"


@pytest.fixture
def workspace(tmp_path):
    """Give an empty workspace with the digits in it."""
    shutil.copy(DIGITS, tmp_path)
    workspace = Workspace(tmp_path)
    yield workspace
    workspace.probe.stop()


def test_digests_are_those_of_hashlib(workspace):
    """Any algorithm of hashlib will do."""
    data = DIGITS.read_bytes()

    assert workspace.file_digest("digits.h5") == hashlib.sha256(data).hexdigest()
    assert workspace.digest("digits.h5", "md5") == hashlib.md5(data).hexdigest()


class TestDatasets:
    """A child process looks into HDF5 files."""

    def test_shape_and_dtype(self, workspace):
        """Only the header is read."""
        assert workspace.describe_dataset("digits.h5", "images") == ((1797, 8, 8, 1), "uint8")

    @pytest.mark.parametrize(
        ("content", "dataset", "message"),
        [
            (None, "image", "has no data set 'image'; did you mean 'images'"),
            (b"no HDF5 at all", "images", "is not a complete HDF5 file: 14 bytes"),
            (b"", "images", "is not a complete HDF5 file"),
            (DIGITS.read_bytes()[:1000], "images", "is not a complete HDF5 file"),
        ],
    )
    def test_one_sentence_says_what_is_wrong(self, workspace, content, dataset, message):
        """Broken files are told from missing data sets."""
        if content is not None:
            (workspace.root / "digits.h5").write_bytes(content)

        with pytest.raises(OSError, match=message):
            workspace.describe_dataset("digits.h5", dataset)

    def test_a_probe_that_dies_is_replaced(self, workspace):
        """A file that crashes the HDF5 library is called damaged, and the next file is looked into."""
        workspace.describe_dataset("digits.h5", "images")
        workspace.probe._process.kill()
        workspace.probe._process.wait()

        with pytest.raises(OSError, match="the HDF5 library crashed on it"):
            workspace.describe_dataset("digits.h5", "labels")
        other = Workspace(workspace.root, probe=workspace.probe)
        assert other.describe_dataset("digits.h5", "labels") == ((1797,), "uint8")

    def test_a_probe_that_stalls_is_given_up(self, workspace, monkeypatch):
        """No file can hold up a validation for ever."""
        monkeypatch.setattr("kflow.workspace.PROBE_TIMEOUT", 0.0)

        with pytest.raises(OSError, match="took more than 0 seconds"):
            workspace.describe_dataset("digits.h5", "images")


class TestSymbols:
    """Python files are read, not run."""

    @pytest.mark.parametrize(
        "code",
        [
            "def f(): pass",
            "class f: pass",
            "f = 1",
            "f: int = 1",
            "(e, f) = 1, 2",
            "from x import f",
            "import a as f",
            "try:\n    from x import f\nexcept ImportError:\n    f = None",
            "if True:\n    def f(): pass",
            "while True:\n    def f(): pass\n    break",
            "match 1:\n    case 1:\n        def f(): pass",
            "try:\n    pass\nexcept* OSError:\n    f = 1",
            "for f in (1,): pass",
            "with open('x') as (e, f): pass",
            "from x import *",
        ],
    )
    def test_a_name_that_is_defined(self, workspace, code):
        """However it is defined at the top level, or may be by a star import."""
        (workspace.root / "a.py").write_text(code)

        assert workspace.check_symbol("a.py", "f") is None

    @pytest.mark.parametrize("code", ["", "def g():\n    f = 1", "class C:\n    def f(self): pass"])
    def test_a_name_that_is_not(self, workspace, code):
        """Names inside functions and classes do not count."""
        (workspace.root / "a.py").write_text(code)

        with pytest.raises(LookupError, match=r"a\.py defines no 'f'"):
            workspace.check_symbol("a.py", "f")

    def test_a_syntax_error_has_its_place(self, workspace):
        """Python's own error comes through."""
        (workspace.root / "a.py").write_text("x = 1\ndef (:\n")

        with pytest.raises(SyntaxError) as caught:
            workspace.check_symbol("a.py", "f")
        assert caught.value.lineno == 2

    @pytest.mark.parametrize("code", ["-" * 100_000 + "1", "x = 1" + "+1" * 100_000])
    def test_code_that_is_too_deeply_nested(self, workspace, code):
        """What Python itself could not compile is a complaint about the file."""
        (workspace.root / "a.py").write_text(code)

        with pytest.raises(SyntaxError, match="too deeply nested"):
            workspace.check_symbol("a.py", "f")

    def test_a_long_chain_of_elif(self, workspace):
        """Python nests each one deeper; names are found in the last one too."""
        (workspace.root / "a.py").write_text("if a: pass\n" + "elif b: pass\n" * 1200 + "else:\n    f = 1\n")

        assert workspace.check_symbol("a.py", "f") is None

    def test_a_pipe_is_not_waited_for(self, workspace):
        """A module is a regular file."""
        os.mkfifo(workspace.root / "a.py")

        with pytest.raises(OSError, match="it is no regular file"):
            workspace.check_symbol("a.py", "f")

    def test_nothing_is_run(self, workspace):
        """Looking at a module has no effect."""
        (workspace.root / "a.py").write_text("open('made', 'w')\nf = 1\n")

        workspace.check_symbol("a.py", "f")

        assert not (workspace.root / "made").exists()


class TestSources:
    """The code of a user module is the module and every local module that it needs."""

    def test_imports_are_followed(self, workspace):
        """However far away, in packages, relative and inside functions; installed libraries are left out."""
        root = workspace.root
        (root / "pkg" / "sub").mkdir(parents=True)
        (root / "a.py").write_text("import keras\nimport b\nfrom pkg import c\n\ndef f():\n    import late\n")
        (root / "b.py").write_text("import a\n")
        (root / "late.py").write_text("")
        (root / "unused.py").write_text("")
        (root / "pkg" / "__init__.py").write_text("")
        (root / "pkg" / "c.py").write_text("from .sub import d\nfrom .sub.e import x\n")
        (root / "pkg" / "sub" / "__init__.py").write_text("")
        (root / "pkg" / "sub" / "d.py").write_text("from .. import c\n")
        (root / "pkg" / "sub" / "e.py").write_text("x = 1\n")

        sources = workspace.sources("a.py")

        expected = {"a.py", "b.py", "late.py", "pkg/__init__.py", "pkg/c.py", "pkg/sub/__init__.py"}
        assert set(sources) == expected | {"pkg/sub/d.py", "pkg/sub/e.py"}

    def test_digests_change_with_a_file_far_away(self, workspace):
        """A change two imports away changes the digests."""
        (workspace.root / "a.py").write_text("import b\n")
        (workspace.root / "b.py").write_text("import c\n")
        (workspace.root / "c.py").write_text("x = 1\n")
        before = workspace.code_digests("a.py")
        (workspace.root / "c.py").write_text("x = 2\n")

        after = Workspace(workspace.root).code_digests("a.py")

        assert {name for name in after if after[name] != before[name]} == {"c.py"}

    def test_versions_of_what_modules_import(self, workspace):
        """By the names of the packages; not those of the standard library and of local modules and folders."""
        import numpy as np
        import yaml

        root = workspace.root
        (root / "a.py").write_text("import os.path, b, numpy.linalg\nfrom folder.x import y\n")
        (root / "b.py").write_text("from . import a\n\ndef f():\n    import yaml, no_such_module\n")
        (root / "folder").mkdir()

        found = workspace.imported_versions("a.py")

        assert found == {"numpy": np.__version__, "PyYAML": yaml.__version__, "no_such_module": "none"}


def test_gpus(workspace):
    """'all' comes to what is there, which may be none."""
    assert workspace.gpus("all") == workspace.count_gpus()
    assert workspace.gpus(2) == 2


def test_versions(workspace):
    """A library that is not there has version 'none'."""
    import numpy as np

    assert workspace.versions(("numpy", "no-such-library")) == {"numpy": np.__version__, "no-such-library": "none"}
