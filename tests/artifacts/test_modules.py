"""Tests of user modules: which code runs, and what importing it leaves behind."""

import os
import py_compile
import sys

import pytest

from kflow.artifacts import digest_file
from kflow.artifacts.modules import holding_code_to, imported


def test_modules_in_two_folders_get_their_own_neighbors(tmp_path):
    """Each module imports from its own folder, and neighbors of one name with another content are refused."""
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"near_{folder}.py").write_text(f"WHERE = {folder!r}\n")
        (tmp_path / folder / f"f{folder}.py").write_text(
            f"import near_{folder} as near\n\ndef f(x):\n    return near.WHERE\n"
        )
    places = {"Fa": (tmp_path / "a" / "fa.py", "f"), "Fb": (tmp_path / "b" / "fb.py", "f")}
    with imported(places) as names:
        found = names["Fa"](0), names["Fb"](0)
    for folder in ("a", "b"):
        (tmp_path / folder / "common.py").write_text(f"WHERE = {folder!r}\n")
        (tmp_path / folder / f"f{folder}.py").write_text("import common\n\ndef f(x):\n    return common.WHERE\n")

    assert found == ("a", "b")
    with pytest.raises(ValueError, match="two different files are the module 'common'"), imported(places):
        pass
    assert "common" not in sys.modules


def test_bytecode_of_other_code_is_not_run(tmp_path):
    """What Python takes for the same file, by its size and second, can be other code: as after 'cp -p'."""
    for name, text in {"near": "X = {}\n", "steps": "from near import X\n\ndef f():\n    return X, {}\n"}.items():
        file = tmp_path / f"{name}.py"
        file.write_text(text.format(1))
        py_compile.compile(str(file))
        before = file.stat()
        file.write_text(text.format(2))
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))

    with imported({"f": (tmp_path / "steps.py", "f")}) as names:
        assert names["f"]() == (2, 2)


def test_no_bytecode_is_written_beside_the_code(tmp_path, monkeypatch):
    """An entry of the store stays what it is, also where a module imports others while it runs."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "deep.py").write_text("X = 1\n")
    (tmp_path / "near.py").write_text("from parts.deep import X\n")
    (tmp_path / "late.py").write_text("Y = 2\n")
    (tmp_path / "steps.py").write_text("import near\n\ndef f():\n    from late import Y\n    return near.X, Y\n")

    with imported({"f": (tmp_path / "steps.py", "f")}) as names:
        found = names["f"]()

    assert found == (1, 2)
    assert list(tmp_path.rglob("*.pyc")) == []


def test_a_module_is_found_that_came_after_the_folder_was_looked_at(tmp_path):
    """What Python remembers of a folder is forgotten, for a file can come within the second that it looks at."""
    (tmp_path / "first.py").write_text("def f():\n    return 1\n")
    with imported({"f": (tmp_path / "first.py", "f")}), pytest.raises(ModuleNotFoundError):
        __import__("second_of_two")
    changed = tmp_path.stat().st_mtime_ns
    (tmp_path / "second_of_two.py").write_text("X = 1\n")
    (tmp_path / "first.py").write_text("import second_of_two\n\ndef f():\n    return second_of_two.X\n")
    os.utime(tmp_path, ns=(changed, changed))

    with imported({"f": (tmp_path / "first.py", "f")}) as names:
        assert names["f"]() == 1


def test_libraries_of_an_environment_in_the_project_stay(tmp_path, monkeypatch):
    """Compiled ones cannot be loaded twice, so they are not forgotten with the modules of the user."""
    site = tmp_path / ".venv" / "lib" / "site-packages"
    site.mkdir(parents=True)
    (site / "library_of_an_environment.py").write_text("X = object()\n")
    (tmp_path / "steps.py").write_text("import library_of_an_environment as lib\n\ndef f():\n    return lib\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(site)])
    with imported({"f": (tmp_path / "steps.py", "f")}) as names:
        found = names["f"]()

    assert sys.modules.pop("library_of_an_environment") is found


def test_a_module_that_is_imported_late_is_held_to_its_fingerprint(tmp_path):
    """Also one that was changed after all that is imported first had been compared."""
    (tmp_path / "late.py").write_text("X = 1\n")
    (tmp_path / "steps.py").write_text("def f():\n    from late import X\n    return X\n")
    digests = {name: digest_file(tmp_path / name) for name in ("late.py", "steps.py")}
    with holding_code_to(tmp_path, digests, {}), imported({"f": (tmp_path / "steps.py", "f")}) as names:
        (tmp_path / "late.py").write_text("X = 2\n")

        with pytest.raises(ValueError, match=r"^late\.py was changed since the step was planned; run again$"):
            names["f"]()


def test_the_modules_of_a_step_stay_until_it_ends(tmp_path):
    """What they import late is found while its result is saved; then they are forgotten."""
    (tmp_path / "steps.py").write_text("def f():\n    import late_neighbor\n    return late_neighbor.X\n")
    (tmp_path / "late_neighbor.py").write_text("X = 1\n")
    digests = {name: digest_file(tmp_path / name) for name in ("steps.py", "late_neighbor.py")}

    with holding_code_to(tmp_path, digests, {}):
        with imported({"f": (tmp_path / "steps.py", "f")}) as names:
            pass
        found = names["f"]()

    assert found == 1
    assert not {"steps", "late_neighbor"} & set(sys.modules)
    assert str(tmp_path) not in sys.path
