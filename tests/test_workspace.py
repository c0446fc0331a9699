"""Tests of the look at files, code and machine."""

import ast
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import types
import zipfile
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from pathlib import Path

import pytest

from kflow.imports import changed_sources
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

    @pytest.mark.parametrize(
        ("package", "expected"),
        [
            ("", set()),
            ("__all__ = ['one', 'value']\nvalue = 'two'\n", {"one.py"}),
            ("__all__ = ['one']\n__all__ += ['two']\n", {"one.py", "two.py"}),
            ("from . import one\n__all__ = one.__all__\n", {"one.py", "two.py"}),
        ],
    )
    def test_a_star_imports_what_the_package_lists(self, workspace, package, expected):
        """Python imports a module that is in ``__all__``; where that is worked out, any may be."""
        (workspace.root / "pkg").mkdir()
        (workspace.root / "a.py").write_text("from pkg import *\n")
        for name, text in {"__init__": package, "one": "__all__ = []\n", "two": ""}.items():
            (workspace.root / "pkg" / f"{name}.py").write_text(text)

        sources = workspace.sources("a.py")

        assert set(sources) == {"a.py", "pkg/__init__.py"} | {f"pkg/{name}" for name in expected}

    @pytest.mark.parametrize("ending", EXTENSION_SUFFIXES)
    def test_compiled_modules_count_by_their_bytes(self, workspace, ending):
        """Under each name that Python would import; they are not read as Python."""
        (workspace.root / "a.py").write_text("import fast\nfrom pkg import faster\n")
        (workspace.root / "pkg").mkdir()
        for name in ("fast", "pkg/faster"):
            (workspace.root / f"{name}{ending}").write_bytes(b"\x7fELF\0")

        assert set(workspace.code_digests("a.py")) == {"a.py", f"fast{ending}", f"pkg/faster{ending}"}
        assert workspace.imported_versions("a.py") == {}

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

    def install(self, site, name, version, *files):
        """Write what an installer writes of a distribution."""
        about = site / f"{name.replace('-', '_')}-{version}.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (about / "RECORD").write_text("".join(f"{file},,\n" for file in (*files, f"{about.name}/RECORD")))

    def versions_with(self, site, *names):
        """Return the versions that a process finds which has the folder in its path."""
        code = f"from kflow.imports import library_versions; print(library_versions({names!r}))"
        path = os.pathsep.join([str(site), *sys.path[1:]])
        done = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, check=True
        )
        return ast.literal_eval(done.stdout.decode())

    def test_the_package_that_brings_a_module_counts(self, tmp_path):
        """Not another one that has its name, as a placeholder does; of a namespace all of them."""
        self.install(tmp_path, "soup", "0.0.2")
        self.install(tmp_path, "beautifulsoup", "4.12.3", "soup/__init__.py")
        self.install(tmp_path, "own", "1.0", "own/first/__init__.py")
        self.install(tmp_path, "own-second", "2.0", "own/second.py")
        self.install(tmp_path, "alone", "3.0")

        found = self.versions_with(tmp_path, "soup", "own", "alone", "absent")

        several = {"own": "1.0", "own-second": "2.0"}
        assert found == {"beautifulsoup": "4.12.3", **several, "alone": "3.0", "absent": "none"}


class TestWhichComesFirst:
    """A user's module lies at the end of Python's path: what is run is what counts, or it is refused."""

    @pytest.fixture
    def source(self, tmp_path, monkeypatch):
        """Give a folder of Python's path."""
        (tmp_path / "src").mkdir()
        monkeypatch.setattr(sys, "path", [sys.path[0], str(tmp_path / "src"), *sys.path[1:]])
        return tmp_path / "src"

    def write(self, folder, *names, text=""):
        """Write modules."""
        for name in names:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text)

    @pytest.mark.parametrize("local", ["own.py", "own/__init__.py", f"own{EXTENSION_SUFFIXES[0]}"])
    @pytest.mark.parametrize("other", ["own.py", "own/__init__.py", f"own{EXTENSION_SUFFIXES[0]}"])
    def test_a_module_that_another_one_comes_before_is_refused(self, workspace, source, local, other):
        """Whichever were run, somebody would have meant the other one; both are named."""
        self.write(workspace.root, local)
        self.write(source, other)
        self.write(workspace.root, "a.py", text="def f():\n    from own.x import y\n")

        with pytest.raises(
            ValueError, match=rf"^'own' is {local} beside it and also {source}/{other}, .* rename {local}$"
        ):
            workspace.sources("a.py")

    def test_one_with_the_name_of_an_installed_library_is_refused(self, workspace):
        """Also where a module that is imported has it."""
        self.write(workspace.root, "yaml.py")
        self.write(workspace.root, "a.py", text="import b\n")
        self.write(workspace.root, "b.py", text="import yaml\n")

        with pytest.raises(ValueError, match=r"^'yaml' is yaml\.py beside it and also .*/yaml/__init__\.py"):
            workspace.sources("a.py")

    def test_one_with_the_name_of_an_editable_install_is_refused(self, workspace, tmp_path, monkeypatch):
        """Its finder may come before Python's path or after it."""

        class Finder:
            """Finds the library as setuptools' finder does."""

            __module__ = "__editable___own_finder"

            def find_spec(self, name, path):
                """Return where it lies."""
                del path
                return ModuleSpec(name, None, origin=str(tmp_path / "lib" / "own.py")) if name == "own" else None

        monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder()])
        self.write(workspace.root, "own.py", text="")
        self.write(workspace.root, "a.py", text="import own\n")
        self.write(tmp_path / "lib", "own.py")

        with pytest.raises(ValueError, match=r"^'own' is own\.py beside it and also .*/lib/own\.py"):
            workspace.sources("a.py")

    def test_the_same_file_by_two_ways_is_one(self, workspace, monkeypatch):
        """As where the project itself is in Python's path."""
        monkeypatch.setattr(sys, "path", [sys.path[0], str(workspace.root), *sys.path[1:]])
        self.write(workspace.root, "own.py")
        self.write(workspace.root, "a.py", text="import own\n")

        assert set(workspace.sources("a.py")) == {"a.py", "own.py"}
        assert workspace.imported_versions("a.py") == {}

    def test_the_standard_library_is_what_its_names_mean(self, workspace):
        """A file that has one of them is in nobody's way."""
        self.write(workspace.root, "random.py")
        self.write(workspace.root, "a.py", text="import random\n")

        assert "a.py" in workspace.sources("a.py")
        assert workspace.imported_versions("a.py") == {}

    def test_what_stands_in_for_the_standard_library_counts(self, workspace, source):
        """In Python's path it comes before it."""
        self.write(source, "random.py")
        self.write(workspace.root, "a.py", text="import random\n")

        assert set(workspace.imported_versions("a.py")) == {"sources of random"}

    def test_a_bare_folder_yields_to_a_library(self, workspace, source):
        """One without ``__init__.py``, as data lie in; one of Python's path yields to a module beside."""
        import yaml

        self.write(workspace.root, "yaml/a.txt", "lib/a.txt", "own.py")
        self.write(source, "lib.py", "own/a.txt")
        self.write(workspace.root, "a.py", text="import yaml, lib, own\n")

        assert set(workspace.sources("a.py")) == {"a.py", "own.py"}
        found = workspace.imported_versions("a.py")
        assert found == {"PyYAML": yaml.__version__, "sources of lib": found["sources of lib"]}

    def test_all_parts_of_a_namespace_count(self, workspace, source, tmp_path, monkeypatch):
        """Those beside the module, and those of every folder in Python's path."""
        self.write(tmp_path / "more", "x")
        monkeypatch.setattr(sys, "path", [sys.path[0], str(tmp_path / "more"), *sys.path[1:]])
        self.write(workspace.root, "own/near.py")
        self.write(source, "own/far.py", text="X = 1\n")
        self.write(tmp_path / "more", "own/farther.py", text="import numpy\n")
        self.write(workspace.root, "a.py", text="from own import near, far, farther\n")

        before = workspace.imported_versions("a.py")
        self.write(source, "own/far.py", text="X = 2\n")

        assert set(workspace.sources("a.py")) == {"a.py", "own/near.py"}
        assert set(before) == {"sources of own", "numpy"}
        assert changed_sources(before) == ["own"]

    def test_where_another_one_could_come_is_noted(self, workspace, source):
        """So that a command with nothing to do sees it."""
        self.write(workspace.root, "own.py")
        self.write(workspace.root, "a.py", text="import own, random\n")
        workspace.sources("a.py")
        workspace.imported_versions("a.py")

        assert {str(source / name) for name in ("own", "own.py", "random", "random.py")} <= set(workspace.seen)


class TestLibrariesInSource:
    """A library that nobody installed counts by its sources."""

    @pytest.fixture
    def source(self, tmp_path, monkeypatch):
        """Give a folder of Python's path with two libraries, of which one needs the other."""
        source = tmp_path / "src"
        (source / "lib" / "deep").mkdir(parents=True)
        (source / "lib" / "deep" / "core.py").write_text("import numpy, other\n")
        (source / "lib" / "old.py").write_text("print 'for another Python'\n")
        (source / "lib" / "data.txt").write_text("data")
        (source / "other.py").write_text("K = 1\n")
        monkeypatch.setattr(sys, "path", [sys.path[0], str(source), *sys.path[1:]])
        return source

    def versions(self, workspace):
        """Return the versions as a new command finds them."""
        (workspace.root / "flows").mkdir(exist_ok=True)
        (workspace.root / "flows" / "a.py").write_text("from lib.deep.core import K\n")
        return Workspace(workspace.root).imported_versions("flows/a.py")

    @pytest.mark.parametrize("changed", ["lib/deep/core.py", "lib/old.py", "lib/new.py", "other.py"])
    def test_a_change_anywhere_in_it_counts(self, workspace, source, changed):
        """In any of its modules, in a new one, and in another such library that it imports."""
        before = self.versions(workspace)
        (source / changed).write_text("K = 2\n")
        after = self.versions(workspace)

        assert set(before) == {"sources of lib", "sources of other", "numpy"}
        assert changed_sources(before) == ["other" if changed == "other.py" else "lib"]
        assert changed_sources(after) == []

    def test_data_and_bytecode_do_not_count(self, workspace, source):
        """They are no sources."""
        before = self.versions(workspace)
        (source / "lib" / "data.txt").write_text("other data")
        (source / "lib" / "__pycache__").mkdir()
        (source / "lib" / "__pycache__" / "old.py").write_text("")

        assert self.versions(workspace) == before

    def test_what_was_installed_there_counts_by_its_version(self, workspace, source):
        """As by ``pip install --target``."""
        (source / "lib-1.5.dist-info").mkdir()
        (source / "lib-1.5.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: lib\nVersion: 1.5\n")

        assert self.versions(workspace) == {"lib": "1.5"}

    @pytest.mark.parametrize(
        ("record", "has_brought_it"),
        [(None, False), ("other_lib/__init__.py,,\nlib_of_another/a.py,,\n", False), ("lib/old.py,,\n", True)],
    )
    def test_what_was_not_installed_there_counts_by_its_sources(self, workspace, source, record, has_brought_it):
        """Beside what was; the record of a distribution says what it brought."""
        about = source / "other_lib-1.5.dist-info"
        about.mkdir()
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: other-lib\nVersion: 1.5\n")
        if record:
            (about / "RECORD").write_text(record)

        assert ("sources of lib" not in self.versions(workspace)) is has_brought_it

    def test_the_part_of_a_namespace_that_was_installed_hides_no_other(self, workspace, source, tmp_path, monkeypatch):
        """Though it comes first in Python's path; it counts by its version."""
        (tmp_path / "target" / "own" / "first").mkdir(parents=True)
        (tmp_path / "target" / "own" / "first" / "__init__.py").write_text("")
        about = tmp_path / "target" / "own_first-1.0.dist-info"
        about.mkdir()
        (about / "RECORD").write_text("own/first/__init__.py,,\n")
        (source / "own" / "second").mkdir(parents=True)
        (source / "own" / "second" / "__init__.py").write_text("X = 1\n")
        monkeypatch.setattr(sys, "path", [sys.path[0], str(tmp_path / "target"), *sys.path[1:]])
        (workspace.root / "a.py").write_text("import own.first, own.second\n")
        before = workspace.imported_versions("a.py")
        (source / "own" / "second" / "__init__.py").write_text("X = 2\n")

        assert set(before) == {"sources of own"}
        assert changed_sources(before) == ["own"]

    def test_editable_parts_of_a_namespace_count(self, workspace, tmp_path, monkeypatch):
        """Their finder, as setuptools writes it, knows them by their whole names alone."""
        (tmp_path / "elsewhere" / "part").mkdir(parents=True)
        (tmp_path / "elsewhere" / "part" / "__init__.py").write_text("X = 1\n")
        finder = types.ModuleType("__editable___own_finder")
        finder.MAPPING = {"own.part": str(tmp_path / "elsewhere" / "part")}
        finder.Finder = type("Finder", (), {"find_spec": lambda *_: None, "__module__": finder.__name__})
        monkeypatch.setitem(sys.modules, finder.__name__, finder)
        monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, finder.Finder])
        (workspace.root / "a.py").write_text("import own.part\n")
        before = workspace.imported_versions("a.py")
        (tmp_path / "elsewhere" / "part" / "__init__.py").write_text("X = 2\n")

        assert set(before) == {"sources of own"}
        assert changed_sources(before) == ["own"]

    def test_packages_behind_links_count(self, workspace, source, tmp_path):
        """As Python imports them; links that go round in circles do no harm."""
        (source / "lib" / "deep").rename(tmp_path / "deep")
        (source / "lib" / "deep").symlink_to(tmp_path / "deep")
        (source / "lib" / "round").symlink_to(source / "lib")
        (tmp_path / "deep" / "up").symlink_to(source)
        before = self.versions(workspace)
        (tmp_path / "deep" / "core.py").write_text("K = 2\n")

        assert "numpy" in before
        assert changed_sources(before) == ["lib"]

    def test_a_zip_file_counts_by_its_bytes(self, workspace, source, monkeypatch):
        """With the libraries that modules in it import."""
        archive = source.with_suffix(".zip")
        monkeypatch.setattr(sys, "path", [sys.path[0], str(archive), *sys.path[1:]])
        self.write_zip(archive, "import numpy\n")
        before = self.versions(workspace)
        self.write_zip(archive, "import numpy as np\n")

        assert set(before) == {"sources of lib", "numpy"}
        assert changed_sources(before) == ["lib"]

    def write_zip(self, archive, text):
        """Write a zip file with a module."""
        with zipfile.ZipFile(archive, "w") as opened:
            opened.writestr("lib/deep/core.py", text)

    def test_an_editable_install_counts_by_its_sources(self, workspace, source, monkeypatch):
        """Where a finder of its own knows its place."""
        elsewhere = source.rename(source.with_name("elsewhere"))

        class Finder:
            """Finds the library as setuptools' finder does."""

            __module__ = "__editable___lib_finder"

            def find_spec(self, name, path):
                """Return where it lies."""
                del path
                spec = ModuleSpec(name, None, is_package=True)
                spec.submodule_search_locations.append(str(elsewhere / "lib"))
                return spec if name == "lib" else None

        monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder()])
        before = self.versions(workspace)
        (elsewhere / "lib" / "deep" / "core.py").write_text("K = 2\n")

        assert changed_sources(before) == ["lib"]

    def test_every_path_is_noted(self, workspace, source):
        """So that a command with nothing to do sees a change, or a file that comes."""
        (workspace.root / "a.py").write_text("import lib\n")
        workspace.imported_versions("a.py")

        assert {str(source / "lib" / "deep"), str(source / "lib" / "old.py"), str(source / "lib.py")} <= set(
            workspace.seen
        )


def test_gpus(workspace):
    """'all' comes to what is there, which may be none."""
    assert workspace.gpus("all") == workspace.count_gpus()
    assert workspace.gpus(2) == 2


@pytest.mark.parametrize(
    ("library", "name"),
    [
        ("tensorflow", "KERAS_MAX_EPOCHS"),
        ("tensorflow", "KERAS_MAX_STEPS_PER_EPOCH"),
        ("tensorflow", "TF_DETERMINISTIC_OPS"),
        ("tensorflow", "TF_CUDNN_DETERMINISTIC"),
        ("numpy", "MKL_CBWR"),
    ],
)
def test_variables(workspace, monkeypatch, library, name):
    """They count if they are set, and for the library that they are read by."""
    monkeypatch.delenv(name, raising=False)
    before = workspace.variables((library,))
    monkeypatch.setenv(name, "1")

    assert workspace.variables((library,)) == {**before, name: "1"}
    assert name not in workspace.variables(("matplotlib",))


def test_versions(workspace):
    """A library that is not there has version 'none', and Python one without its last number."""
    import numpy as np

    found = workspace.versions(("numpy", "no-such-library", "python"))

    python = ".".join(platform.python_version_tuple()[:2])
    assert found == {"numpy": np.__version__, "no-such-library": "none", "python": python}
