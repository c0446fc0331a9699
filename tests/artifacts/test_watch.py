"""Tests of the watch over what a step executes: what its fingerprint does not count is refused."""

import os
import sys
import tempfile
import time
import zipfile

import pytest

from kflow.artifacts import digest_file
from kflow.artifacts.modules import holding_code_to, imported
from kflow.imports import library_versions

LOADS = {
    "sys.path": "import sys\nsys.path.insert(0, {folder!r})\nimport helper_below",
    "by name": "import importlib\nimportlib.import_module('lib.helper_below')",
    "by path": (
        "from importlib.util import module_from_spec, spec_from_file_location\n"
        "spec = spec_from_file_location('helper_below', {folder!r} + '/helper_below.py')\n"
        "spec.loader.exec_module(module_from_spec(spec))"
    ),
    "in a thread": (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "ThreadPoolExecutor(1).submit(__import__, 'lib.helper_below').result()"
    ),
}


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
@pytest.mark.parametrize("is_late", [False, True])
def test_a_file_of_the_project_that_no_fingerprint_counts_is_not_executed(tmp_path, load, is_late):
    """However it is found and whenever; it is told how kflow would see it, and then it may be executed."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "helper_below.py").write_text("")
    body = load.format(folder=str(tmp_path / "lib"))
    lines = body.replace("\n", "\n    ")
    (tmp_path / "steps.py").write_text(f"def f():\n    {lines}\n" if is_late else f"{body}\ndef f():\n    pass\n")
    seen = {"steps.py": digest_file(tmp_path / "steps.py")}
    objects = {"f": (tmp_path / "steps.py", "f")}
    told = r"^lib/helper_below\.py was to be executed, and .* such as 'import lib\.helper_below', which need not be "

    with (
        pytest.raises(ValueError, match=told),
        holding_code_to(tmp_path, seen, {}),
        imported(objects) as names,
    ):
        names["f"]()
    seen["lib/helper_below.py"] = digest_file(tmp_path / "lib" / "helper_below.py")
    with holding_code_to(tmp_path, seen, {}), imported(objects) as names:
        names["f"]()


def test_a_file_of_a_folder_that_the_code_puts_into_the_path_counts_as_one_of_the_project(tmp_path):
    """Those of stored results in the project, which count otherwise, are left alone, and what is installed."""
    project, mine = tmp_path / "project", tmp_path / "mine"
    for folder in (project, mine, project / "stored"):
        folder.mkdir()
        (folder / f"part_of_{folder.name}.py").write_text("")
    (project / "steps.py").write_text(
        "import sys\ndef f(name, folder):\n    sys.path.append(folder)\n    __import__(name)\n"
    )
    digests = {"steps.py": digest_file(project / "steps.py")}
    places = {"f": (project / "steps.py", "f")}

    time.sleep(0.2)  # what is written now is older than the step by more than a tick of the clock
    others = [os.path.realpath(project / "stored")]
    with holding_code_to(project, digests, {}, others), imported(places) as names:
        names["f"]("stored.part_of_stored", str(tmp_path))
        names["f"]("sqlite3.dump", str(tmp_path))
    with (
        pytest.raises(ValueError, match=r"part_of_mine\.py .* move it beside the module that the step names"),
        holding_code_to(project, digests, {}, others),
        imported(places) as names,
    ):
        names["f"]("part_of_mine", str(mine))


RUNS = "import runpy\n\ndef f(path):\n    return runpy.run_path(path)['X']\n"
"""A module that executes the file of a path."""


@pytest.fixture
def call(tmp_path):
    """Give a function that lets a module in a project execute what it is given, with what counts of libraries."""
    (tmp_path / "project").mkdir()

    def call(argument, code=RUNS, libraries=()):
        steps = tmp_path / "project" / "steps.py"
        steps.write_text(code)
        digests = {"steps.py": digest_file(steps)}
        time.sleep(0.2)  # what was written before is older than the step by more than a tick of the clock
        held = holding_code_to(steps.parent, digests, library_versions(libraries))
        with held, imported({"f": (steps, "f")}) as names:
            return names["f"](argument)

    return call


@pytest.fixture
def add_to_path(tmp_path, monkeypatch):
    """Give a function that makes a folder that Python's path has, and writes a module into it."""

    def add(folder, name, text):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / name).write_text(text)
        monkeypatch.setattr(sys, "path", [sys.path[0], str(tmp_path / folder), *sys.path[1:]])
        return tmp_path / folder / name

    return add


def test_a_file_outside_of_the_project_is_not_executed_from_its_path(tmp_path, call):
    """Nor is one in a zip file; a change in it would not be seen."""
    (tmp_path / "beside.py").write_text("X = 1\n")
    with zipfile.ZipFile(tmp_path / "lib.zip", "w") as archive:
        archive.writestr("zipped.py", "X = 1\n")
    imports = "import sys\n\ndef f(path):\n    sys.path.append(path)\n    import zipped\n"

    with pytest.raises(ValueError, match=r"/beside\.py was to be executed, .* move it beside the module"):
        call(str(tmp_path / "beside.py"))
    with pytest.raises(ValueError, match=r"/lib\.zip/zipped\.py was to be executed"):
        call(str(tmp_path / "lib.zip"), imports)


def test_a_module_of_the_path_that_is_imported_by_name_is_told_how_it_would_count(call, add_to_path):
    """As one of the project is, and then it may be executed."""
    add_to_path("src", "module_by_name.py", "X = 1\n")
    code = "import importlib\n\ndef f(name):\n    return importlib.import_module(name).X\n"

    with pytest.raises(ValueError, match=r"such as 'import module_by_name', which need not be reached"):
        call("module_by_name", code)
    assert call("module_by_name", code, ["module_by_name"]) == 1


def test_a_zip_file_of_the_path_counts_as_a_whole(tmp_path, call, monkeypatch):
    """What is in it may be executed, as it is now."""
    monkeypatch.setattr(sys, "path", [sys.path[0], str(tmp_path / "lib.zip"), *sys.path[1:]])
    found = []
    for text in ("X = 1\n", "X = 2 + len('longer')\n"):
        with zipfile.ZipFile(tmp_path / "lib.zip", "w") as archive:
            archive.writestr("zipped_module.py", text)
        sys.modules.pop("zipped_module", None)
        found.append(call("", "import zipped_module\n\ndef f(_):\n    return zipped_module.X\n", ["zipped_module"]))
    sys.modules.pop("zipped_module")

    assert found == [1, 8]


@pytest.mark.parametrize("folder", ["temporary", "home/.cache"])
def test_what_a_library_generates_is_executed(tmp_path, call, add_to_path, monkeypatch, folder):
    """In the folder for temporary files, and in caches; not if it is the step's code that loads such a file."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr("kflow.artifacts.watch._TEMPORARY", ())
    add_to_path("site-packages", "library_that_generates.py", RUNS)
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "generated.py").write_text("X = 1\n")
    code = "from library_that_generates import f\n"

    assert call(str(tmp_path / folder / "generated.py"), code) == 1
    assert sys.modules.pop("library_that_generates")
    with pytest.raises(ValueError, match="was to be executed"):
        call(str(tmp_path / folder / "generated.py"))


def test_what_a_library_loads_from_elsewhere_is_not_executed(tmp_path, call, add_to_path, monkeypatch):
    """A file of the user's that a library is told to load."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr("kflow.artifacts.watch._TEMPORARY", ())
    add_to_path("site-packages", "library_that_loads.py", RUNS)
    (tmp_path / "mine.py").write_text("X = 1\n")

    with pytest.raises(ValueError, match=r"/mine\.py was to be executed"):
        call(str(tmp_path / "mine.py"), "from library_that_loads import f\n")
    assert sys.modules.pop("library_that_loads")


def test_what_the_step_itself_has_written_for_a_moment_is_executed(tmp_path, call):
    """It comes from what counts."""
    code = f"import pathlib\n{RUNS}".replace("    ", "    pathlib.Path(path).write_text('X = 1')\n    ")

    assert call(str(tmp_path / "written.py"), code) == 1


def test_functions_that_tensorflow_translates_are_executed(call):
    """It writes them into the folder for temporary files, as modules."""
    code = (
        "import tensorflow as tf\n\n@tf.function\ndef f(x):\n"
        "    for _ in tf.range(3):\n        if x > 0:\n            x = x / 2\n    return x\n"
    )

    assert call(8.0, code).numpy() == 1.0


def test_code_that_names_a_file_that_is_not_there_is_executed(call):
    """Where it was compiled, or what a generator calls it."""
    code = "def f(path):\n    exec(compile('X = 1', path, 'exec'), found := {})\n    return found['X']\n"

    assert call("/built/elsewhere/module.py", code) == 1


@pytest.mark.parametrize("name", ["code", "time", "yaml"])
def test_a_file_with_the_name_of_a_library_is_to_be_renamed(tmp_path, call, name):
    """An import statement would name the library."""
    (tmp_path / "project" / f"{name}.py").write_text("X = 1\n")

    with pytest.raises(ValueError, match=rf"rename {name}\.py, as '{name}' is another module, and name it"):
        call(str(tmp_path / "project" / f"{name}.py"))


def test_a_kind_of_step_without_code_of_the_users_imports_what_it_needs(tmp_path, add_to_path):
    """Its package counts by its version; but not what lies in the project."""
    add_to_path("src", "module_of_a_kind.py", "X = 1\n")
    (tmp_path / "project").mkdir()

    with holding_code_to(tmp_path / "project", {}, {}), imported({}):
        __import__("module_of_a_kind")
    assert sys.modules.pop("module_of_a_kind").X == 1


def test_a_refusal_that_is_caught_ends_the_step_all_the_same(tmp_path, call):
    """Else it would go on without what it asked for, and its result would be kept."""
    (tmp_path / "project" / "settings_of_mine.py").write_text("X = 2\n")
    code = (
        "import importlib\n\ndef f(name):\n    try:\n        return importlib.import_module(name).X\n"
        "    except Exception:\n        return 1\n"
    )

    with pytest.raises(ValueError, match=r"^settings_of_mine\.py was to be executed"):
        call("settings_of_mine", code)
    assert call("no_such_settings", code) == 1


def test_what_runs_after_the_modules_are_forgotten_is_watched(tmp_path):
    """Until the step ends: a class of the user's is asked again when a model is saved."""
    (tmp_path / "steps.py").write_text("import runpy\n\ndef f(path):\n    return runpy.run_path(path)\n")
    (tmp_path / "late_part.py").write_text("")
    digests = {"steps.py": digest_file(tmp_path / "steps.py")}

    def step():
        with holding_code_to(tmp_path, digests, {}):
            with imported({"f": (tmp_path / "steps.py", "f")}) as names:
                pass
            names["f"](str(tmp_path / "late_part.py"))

    with pytest.raises(ValueError, match=r"^late_part\.py was to be executed"):
        step()


@pytest.mark.parametrize("name", ["generated.py", "no/such/folder/generated.py"])
def test_a_name_that_is_given_to_compiled_text_is_no_file(call, name):
    """Relative ones start at the project."""
    code = "def f(name):\n    exec(compile('x = 1', name, 'exec'), {})\n    return 1\n"

    assert call(name, code) == 1


def test_what_was_installed_into_a_folder_of_the_project_is_executed(tmp_path, call, add_to_path):
    """If Python's path has the folder, as after ``pip install --target``; its version counts."""
    add_to_path("project/vendor", "library_from_vendor.py", "X = 1\n")
    about = tmp_path / "project" / "vendor" / "library-1.0.dist-info"
    about.mkdir()
    (about / "RECORD").write_text("library_from_vendor.py,,\nlibrary-1.0.dist-info/RECORD,,\n")
    code = "import library_from_vendor\n\ndef f(_):\n    return library_from_vendor.X\n"

    assert call(None, code) == 1


def test_what_a_library_generates_in_the_project_is_executed(tmp_path, call, add_to_path, monkeypatch):
    """Where the folder for temporary files is there."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "project"))
    library = f"from pathlib import Path\n{RUNS}".replace("return", "Path(path).write_text('X = 1')\n    return")
    add_to_path("site-packages", "library_that_writes.py", library)

    assert call(str(tmp_path / "project" / "generated.py"), "from library_that_writes import f\n") == 1
    assert sys.modules.pop("library_that_writes")
