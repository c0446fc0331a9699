"""Runs on disks that are full, read-only, apart, or lie about locks: each has a clear outcome."""

import functools
import os
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.long

MakeFolder = Callable[..., Any]

FLOCK_THAT_LIES = "import fcntl\nfcntl.flock = lambda descriptor, operation: None\n"


@functools.cache
def own_mounts() -> tuple[str, ...]:
    """Return what lets a command mount file systems that only it sees, as root or by a user namespace."""
    for prefix in (("unshare", "--mount"), ("unshare", "--user", "--map-root-user", "--mount")):
        command = [*prefix, "mount", "-t", "tmpfs", "none", "/tmp"]
        try:
            if subprocess.run(command, capture_output=True, check=False).returncode == 0:
                return prefix
        except OSError:
            break
    pytest.skip("this kernel, or the container around, permits no mounts")


def mounted(script: str) -> tuple[str, ...]:
    """Return what to put before a command so that it finds mounts that a script makes."""
    return (*own_mounts(), "sh", "-ec", f'{script}\nexec "$@"', "sh")


def kflow(folder: Any, *arguments: str, prefix: tuple[str, ...] = (), **environ: str) -> tuple[int, str]:
    """Run kflow behind a prefix, and return its exit code and what it said."""
    process = folder.start(*arguments, prefix=prefix, **environ)
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in out + err
    assert "has a bug" not in err
    return process.returncode, out + err


def read_only(*folders: Path) -> str:
    """Return a script that makes folders read-only."""
    return "\n".join(f"mount --bind '{each}' '{each}'; mount -o remount,bind,ro '{each}'" for each in folders)


# --- read-only -----------------------------------------------------------------------------------------------


def test_a_read_only_store_serves_hits(make_folder: MakeFolder, tmp_path: Path) -> None:
    """As in an image or a restored cache: what is there is reused, and it is said that there is no record."""
    folder, store = make_folder(), tmp_path / "store"
    folder.kflow("run", "w.yaml")
    before = sorted(store.rglob("*"))
    prefix = mounted(read_only(store, folder.path))

    code, said = kflow(folder, "run", "w.yaml", prefix=prefix)
    assert code == 0, said
    assert "light succeeded in 0.0 s: 5 reused" in said
    assert "no run record" in said
    assert "Read-only file system; make it writable, or name another store with --store or KFLOW_STORE" in said
    assert kflow(folder, "plan", "w.yaml", "--exit-code", prefix=prefix)[0] == 0
    assert kflow(folder, "store", "verify", prefix=prefix)[0] == 0
    assert sorted(store.rglob("*")) == before


def test_a_run_in_a_read_only_store_can_be_verified(make_folder: MakeFolder, tmp_path: Path) -> None:
    """What is done again lies in a temporary folder meanwhile."""
    folder, store = make_folder(), tmp_path / "store"
    kflow(folder, "run", "w.yaml")
    temporary = tmp_path / "temporary"
    temporary.mkdir()

    code, said = kflow(
        folder, "verify", "latest", "--only", "y", prefix=("env", f"TMPDIR={temporary}", *mounted(read_only(store)))
    )

    assert code == 0, said
    assert re.search(r"y\.array +identical", said)
    assert list(temporary.glob("kflow-verify-*")) == []


def test_a_read_only_store_takes_no_work(make_folder: MakeFolder, tmp_path: Path) -> None:
    """It is refused before anything runs, with the steps that would have to be run; another store takes it."""
    folder = make_folder()
    folder.kflow("run", "w.yaml")
    prefix = mounted(read_only(tmp_path / "store"))

    code, said = kflow(folder, "run", "w.yaml", "--set", "order=1", prefix=prefix)
    assert code == 1
    assert said.startswith(f"the store {tmp_path / 'store'} cannot be written, and there is work to do (unit): ")
    assert kflow(folder, "run", "w.yaml", "--set", "order=1", "--store", "other", prefix=prefix)[0] == 0


def test_a_read_only_folder_is_not_cured_by_another_store(make_folder: MakeFolder) -> None:
    """What belongs beside the workflow has no other place, so none is advised."""
    folder = make_folder()
    folder.kflow("run", "w.yaml")

    code, said = kflow(folder, "lock", "w.yaml", prefix=mounted(read_only(folder.path)))
    assert code == 1
    assert said.endswith("w.lock.yaml: Read-only file system; make it writable\n")


def test_a_store_without_permission_serves_hits(make_folder: MakeFolder, tmp_path: Path) -> None:
    """The same where it is the user who may not write: one whom the system does not know, in a store of another."""
    prefix = ("unshare", "--user", "--map-user=12345")
    if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode != 0:
        if os.getuid() == 0:
            pytest.skip("this kernel permits no user namespaces, and root may write everywhere")
        prefix = ()
    folder, store = make_folder(), tmp_path / "store"
    folder.kflow("run", "w.yaml")
    folders = [store, *(path for path in store.rglob("*") if path.is_dir())]
    for each in folders:
        each.chmod(0o555)

    code, said = kflow(folder, "run", "w.yaml", prefix=prefix)
    for each in folders:
        each.chmod(0o755)
    assert code == 0, said
    assert "Permission denied; make it writable" in said


# --- full ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", ["12k", "24k", "40k"])
def test_a_full_disk_stops_a_run_that_goes_on_with_more_room(
    make_folder: MakeFolder, tmp_path: Path, size: str
) -> None:
    """It is said what could not be written and what to do; nothing is half there."""
    folder, store = make_folder(), tmp_path / "store"
    store.mkdir()
    said = tmp_path / "said"
    script = f"""
        mount -t tmpfs -o size={size} none '{store}'
        code=0; "$@" > '{said}' 2>&1 || code=$?
        test $code = 1
        mount -o remount,size=20m '{store}'
    """

    code, second = kflow(folder, "run", "w.yaml", prefix=mounted(script))
    assert code == 0, said.read_text() + second
    assert "No space left on device" in said.read_text()
    assert "Traceback" not in said.read_text()
    assert "light succeeded" in second


CODED = """
kflow: 1
name: coded
steps:
  changed: {kind: slice_hdf5, datapath: digits.h5, dataset: labels, end: 9, normalizer: user.py:change}
  after: {kind: normalize, x: "${changed}", axis: 0}
"""
CRASH = "import os, signal\n\ndef change(block):\n    os.kill(os.getpid(), signal.SIGSEGV)\n"


def test_a_crash_on_a_full_disk_is_told_as_that(make_folder: MakeFolder, tmp_path: Path) -> None:
    """HDF5 crashes where the disk takes no more; the user learns what the reason may be."""
    (tmp_path / "store").mkdir()
    prefix = mounted(f"mount -t tmpfs -o size=500k none '{tmp_path / 'store'}'")

    code, said = kflow(make_folder(CODED, {"user.py": CRASH}), "run", "w.yaml", prefix=prefix)
    assert code == 1
    assert "the worker process crashed with SIGSEGV; the disk of the store is full: there are " in said


# --- file systems apart --------------------------------------------------------------------------------------


def test_a_store_in_two_file_systems_is_refused(make_folder: MakeFolder, tmp_path: Path) -> None:
    """What could not be renamed is not copied in its place: that could be seen half done."""
    temporary = tmp_path / "store" / "tmp"
    temporary.mkdir(parents=True)

    code, said = kflow(make_folder(), "run", "w.yaml", prefix=mounted(f"mount -t tmpfs none '{temporary}'"))
    assert code == 1
    assert f"{tmp_path / 'store'}: its tmp/ and entries/ must lie on one file system" in said
    assert not list((tmp_path / "store" / "entries").glob("*/*"))


# --- locks that lie ------------------------------------------------------------------------------------------


def test_two_runners_where_locks_lie(make_folder: MakeFolder, tmp_path: Path) -> None:
    """Work may be done twice; both end right, and there is one whole result of each step."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(FLOCK_THAT_LIES)
    python_path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    folder = make_folder()
    runners = [folder.start("run", "w.yaml", PYTHONPATH=python_path) for _ in range(3)]
    said = [runner.communicate(timeout=120) for runner in runners]

    assert [runner.returncode for runner in runners] == [0, 0, 0], said
    assert len(list((tmp_path / "store").glob("entries/*/*"))) == 5
    assert kflow(folder, "store", "verify")[0] == 0


def test_a_runner_at_work_is_not_swept_where_locks_lie(make_folder: MakeFolder, tmp_path: Path) -> None:
    """What looks left behind may be the work of a runner whose lock is not kept; after a week it is not."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(FLOCK_THAT_LIES)
    python_path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    folder = make_folder()
    for name, age in (("hours", 5 * 3600), ("weeks", 14 * 86400)):
        (tmp_path / "store" / "tmp" / name).mkdir(parents=True)
        os.utime(tmp_path / "store" / "tmp" / name, (time.time() - age,) * 2)
    assert kflow(folder, "run", "w.yaml", PYTHONPATH=python_path)[0] == 0

    assert [path.name for path in (tmp_path / "store" / "tmp").iterdir()] == ["hours"]
    assert kflow(folder, "run", "w.yaml")[0] == 0
    assert not list((tmp_path / "store" / "tmp").iterdir())
