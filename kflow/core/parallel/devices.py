"""GPUs: how many there are, and which of them a request means.

Counting reads files of the driver, so that a scheduler can ask without loading TensorFlow, which would
claim the memory of every GPU.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

__all__ = ["choose_devices", "count_gpus", "find_gpu_folders", "list_devices", "visible_gpus"]

_ROOT = Path("/")


def visible_gpus(*, root: Path = _ROOT, environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """List the NVIDIA GPUs that a CUDA program started now would see, without loading one.

    Parameters
    ----------
    root : Path, default '/'
        Where ``proc`` and ``dev`` are. The driver lists each GPU as ``proc/driver/nvidia/gpus/<bus id>``;
        where that is hidden, as in some containers, the files ``dev/nvidia<number>`` are counted.
    environ : mapping, default `os.environ`
        Read for ``CUDA_VISIBLE_DEVICES``: a list of indices, UUIDs or beginnings of UUIDs. As in CUDA,
        the first entry that names no GPU ends the list, an entry that is repeated empties it, and
        a MIG slice, of which CUDA uses one per process, is the last one.

    Returns
    -------
    tuple of str
        Entries to put into ``CUDA_VISIBLE_DEVICES`` for a child process, in the order of CUDA's numbering.

    Notes
    -----
    The rules are those of the chapter "CUDA environment variables" of NVIDIA's CUDA programming guide.
    GPUs of other makers, and those of the Windows subsystem for Linux, are not seen.

    Examples
    --------
    >>> visible_gpus(environ={"CUDA_VISIBLE_DEVICES": ""})
    ()
    """
    present = _present_gpus(root)
    wanted = (os.environ if environ is None else environ).get("CUDA_VISIBLE_DEVICES")
    if wanted is None:
        return tuple(str(index) for index in range(len(present)))
    chosen: dict[int, str] = {}
    for entry in (part.strip() for part in wanted.split(",")):
        if entry.startswith("MIG-") and present:
            return (*chosen.values(), entry)
        index = _find_gpu(entry, present)
        if index is None:
            break
        if index in chosen:
            return ()
        chosen[index] = entry
    return tuple(chosen.values())


def count_gpus(*, root: Path = _ROOT, environ: Mapping[str, str] | None = None) -> int:
    """Count the NVIDIA GPUs that a CUDA program started now would see, without loading TensorFlow.

    Parameters
    ----------
    root, environ
        As in `visible_gpus`.

    Returns
    -------
    int
        Zero or more.

    Examples
    --------
    >>> count_gpus(environ={"CUDA_VISIBLE_DEVICES": "-1"})
    0
    """
    return len(visible_gpus(root=root, environ=environ))


def find_gpu_folders(gpus: Sequence[str], *, root: Path = _ROOT) -> dict[str, Path]:
    """Return for each GPU the folder in which the driver describes it: one for all who see it, whatever they call it.

    Parameters
    ----------
    gpus : sequence of str
        Some of `visible_gpus`; a number counts in the order of the bus ids.
    root : Path, default '/'
        As in `visible_gpus`.

    Returns
    -------
    dict of str to Path
        Without those that the driver shows no folder of, and without MIG slices, which are parts of a GPU.

    Examples
    --------
    >>> find_gpu_folders(["MIG-1"])
    {}
    """
    listed = _describing_files(root)
    present = [_read_uuid(path) for path in listed]
    found = {gpu: _find_gpu(gpu, present) for gpu in gpus}
    return {gpu: listed[index].parent for gpu, index in found.items() if index is not None}


def _describing_files(root: Path) -> list[Path]:
    """List the files in which the driver describes the GPUs in the machine, in the order of their bus ids."""
    return sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))


def _present_gpus(root: Path) -> list[str]:
    """List the UUIDs of the GPUs in the machine, in the order of their bus ids; '' for an unknown one."""
    listed = _describing_files(root)
    if listed:
        return [_read_uuid(path) for path in listed]
    return ["" for path in (root / "dev").glob("nvidia*") if re.fullmatch(r"nvidia\d+", path.name)]


def _read_uuid(information: Path) -> str:
    """Read the line "GPU UUID: GPU-..." of the driver's description of one GPU; '' where it cannot be read."""
    try:
        text = information.read_text(errors="replace")
    except OSError:
        return ""
    found = re.search(r"^GPU UUID:\s*(GPU-[0-9A-Fa-f-]+)", text, re.MULTILINE)
    return found[1] if found else ""


def _find_gpu(entry: str, present: Sequence[str]) -> int | None:
    """Resolve one entry of CUDA_VISIBLE_DEVICES, or None when it names no GPU or more than one."""
    if entry.isascii() and entry.isdigit():
        return int(entry) if int(entry) < len(present) else None
    if not entry.startswith("GPU-"):
        return None
    matches = [index for index, uuid in enumerate(present) if uuid.lower().startswith(entry.lower())]
    return matches[0] if len(matches) == 1 else None


# --- what TensorFlow sees ----------------------------------------------------------------------------------


def choose_devices(gpus: int | Sequence[int | str] | None) -> tuple[str, ...]:
    """Turn a request into the names of at least two different devices that TensorFlow sees.

    Parameters
    ----------
    gpus : int, sequence of int or str, or None
        A number of GPUs, their ids, names of logical devices such as ``'CPU:1'``, or None for all GPUs.

    Returns
    -------
    tuple of str
        Names such as ``'GPU:0'``.

    Raises
    ------
    TypeError
        `gpus` has another type.
    ValueError
        Fewer than two devices, one that is repeated, or one that is not there.

    Examples
    --------
    >>> choose_devices("0,1")
    Traceback (most recent call last):
    TypeError: gpus is '0,1'; give a number of GPUs, such as 2, a list of ids or device names, or None for all GPUs
    """
    wanted = None if gpus is None else [_name_device(each) for each in _read_request(gpus)]
    there = list_devices()
    chosen = tuple(device for device in there if device.startswith("GPU:")) if wanted is None else tuple(wanted)
    problem = _find_problem(chosen, there)
    if problem:
        msg = f"cannot divide the model among devices: {problem}; TensorFlow sees {', '.join(there)}"
        raise ValueError(msg)
    return chosen


def list_devices() -> list[str]:
    """List the devices that TensorFlow sees, as 'CPU:0', 'GPU:0', ...

    Examples
    --------
    >>> "CPU:0" in list_devices()
    True
    """
    import tensorflow as tf

    return [_name_device(device.name) for device in tf.config.list_logical_devices()]


def _find_problem(chosen: Sequence[str], there: Sequence[str]) -> str:
    if len(chosen) < 2:
        return f"{len(chosen)} asked for, and at least 2 are needed"
    if len(set(chosen)) < len(chosen):
        return f"{', '.join(chosen)} names a device twice"
    missing = [device for device in chosen if device not in there]
    return f"there is no {', '.join(missing)}" if missing else ""


def _read_request(gpus: int | Sequence[int | str]) -> Sequence[int | str]:
    """Write a number of GPUs as their ids, and refuse what is neither a number nor a list."""
    each: Any = range(int(gpus)) if isinstance(gpus, Integral) else gpus
    if isinstance(gpus, Integral) and int(gpus) < 0:
        msg = f"gpus is {gpus}, which is no number of GPUs; give one of at least 2, a list, or None for all GPUs"
        raise ValueError(msg)
    is_list = isinstance(each, Sequence) and not isinstance(gpus, bool | str)
    if not is_list or any(isinstance(item, bool) or not isinstance(item, Integral | str) for item in each):
        msg = f"gpus is {gpus!r}; give a number of GPUs, such as 2, a list of ids or device names, or None for all GPUs"
        raise TypeError(msg)
    return [item if isinstance(item, str) else int(item) for item in each]


def _name_device(device: int | str) -> str:
    """Write 0, '/device:GPU:0', '/gpu:0' and 'gpu:0' as 'GPU:0'."""
    return device.strip("/").upper().rpartition("DEVICE:")[2] if isinstance(device, str) else f"GPU:{device}"
