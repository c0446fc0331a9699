"""An audit of a store that trusts nothing of kflow's code: digests are computed anew from the manifests."""

import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def find_faults(store: Path) -> list[str]:
    """Return all that is wrong with the entries and records below a store, in words."""
    return [*_entry_faults(store), *_record_faults(store)]


def _entry_faults(store: Path) -> Iterator[str]:
    for folder in sorted((store / "entries").glob("*/*")):
        where = f"entry {folder.name[:8]}"
        try:
            text = (folder / "manifest.json").read_bytes()
            manifest = json.loads(text)
            if hashlib.sha256(text[: text.rindex(b', "digest"')]).hexdigest() != manifest["digest"]:
                yield f"{where}: its manifest holds other bytes"
            files = {name: (content["size"], content["sha256"]) for name, content in manifest["files"].items()}
            if manifest["fingerprint"] != folder.name or folder.parent.name != folder.name[:2]:
                yield f"{where}: it has the name of another"
        except (OSError, ValueError, KeyError, TypeError) as error:
            yield f"{where}: no manifest: {error!r}"
            continue
        there = {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()} - {"manifest.json"}
        if there != set(files):
            yield f"{where}: files {sorted(there ^ set(files))}"
        for name in sorted(there & set(files)):
            data = (folder / name).read_bytes()
            if (len(data), hashlib.sha256(data).hexdigest()) != files[name]:
                yield f"{where}: {name} holds other bytes"
        for name, output in manifest["outputs"].items():
            kept = output["description"].get("name")
            if kept and _digest(folder / name / kept, output["type"]) != output["digest"]:
                yield f"{where}: the output {name} has another digest"


def _digest(path: Path, kind: str) -> str:
    """Return the digest of a file: that of its bytes, or of its values, where the layout of the text is no content."""
    data = path.read_bytes()
    if kind == "history":
        data = json.dumps(json.loads(data), sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(data).hexdigest()


def _record_faults(store: Path) -> Iterator[str]:
    for path in sorted((store / "runs").glob("*/record.json")):
        try:
            record = json.loads(path.read_bytes())
        except ValueError as error:
            yield f"record {path.parent.name}: {error!r}"
            continue
        # A step that was not chosen, by --only and its like, is "not run".
        undone = [
            name for name, step in record["steps"].items() if step["status"] in {"failed", "interrupted", "running"}
        ]
        if record["status"] == "succeeded" and undone:
            yield f"record {path.parent.name}: succeeded without {undone}"


def digests(store: Path) -> dict[str, Any]:
    """Return the digests of the outputs of each step in the newest record."""
    record = json.loads(max((store / "runs").glob("*/record.json")).read_bytes())
    return {
        name: {output: each["digest"] for output, each in step["outputs"].items()}
        for name, step in record["steps"].items()
    }


def statuses(store: Path) -> dict[str, str]:
    """Return what the newest record says of each step."""
    record = json.loads(max((store / "runs").glob("*/record.json")).read_bytes())
    return {name: step["status"] for name, step in record["steps"].items()}


def age_litter(*folders: Path) -> None:
    """Let what was left behind look an hour old: the next run leaves alone what is young."""
    past = time.time() - 3600
    for folder in folders:
        for path in folder.rglob("*"):
            if path.name.endswith(".tmp") or path.parent.name == "tmp":
                os.utime(path, (past, past))


def litter(store: Path, workspace: Path) -> list[str]:
    """Return what lies about that nobody will ask for."""
    return [
        *(f"tmp/{path.name}" for path in (store / "tmp").glob("*")),
        *(str(path) for path in workspace.rglob(".*.tmp")),
    ]
