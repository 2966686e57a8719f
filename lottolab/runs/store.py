"""Write a stage's result as files and read it back: safetensors, CSV and JSON only.

A folder appears under its name in one step, complete, or not at all.
"""

import hashlib
import json
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# What holds values is imported where one is written or read, not to read records.
from lottolab.runs import files


class Damaged(Exception):
    """A stored result is not what was written."""


def write(values: dict, folder: Path, record: dict) -> dict:
    """Write the values and the record, completed by files and digest; return it.

    Args:
        values: name to tensor, array, dict of tensors, data frame or JSON value.
        folder: made anew.
        record: what else to remember of the result, as JSON values.

    Raises:
        TypeError: a value is of another kind.
        DiskFull: there is no room. Nothing is left of what was written.
    """
    if not isinstance(values, dict):
        raise TypeError(f"a stage must return a dict, got {type(values).__name__}")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        with files.room(folder):
            folder.mkdir(parents=True)
            told = {name: _write_value(folder, name, v) for name, v in values.items()}
            hashes = sorted(file["sha256"] for file in told.values())
            digest = hashlib.sha256("".join(hashes).encode()).hexdigest()[:16]
            record = record | {"files": told, "digest": digest}
            (folder / "record.json").write_text(json.dumps(record, indent=1))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return record


def publish(folder: Path, place: Path) -> None:
    """Move the finished `folder` to `place`, where an older result may stand."""
    old = place.with_name(place.name + ".old")
    with files.room(place):
        # One wait for the disk instead of one a file.
        with ThreadPoolExecutor() as pool:
            list(pool.map(_sync, folder.iterdir()))
        _sync(folder)
        shutil.rmtree(old, ignore_errors=True)
        files.swap(folder, place, old)
    shutil.rmtree(old, ignore_errors=True)


def read_record(place: Path) -> dict | None:
    """Return the record, or None where there is none that can be read."""
    try:
        record = json.loads((place / "record.json").read_text())
        files = record["files"].values()
        texts = [file[key] for file in files for key in ("kind", "file", "sha256")]
    except (AttributeError, KeyError, OSError, TypeError, ValueError):
        return None
    return record if all(isinstance(text, str) for text in texts) else None


def read(place: Path) -> dict:
    """Read the values back.

    Raises:
        Damaged: a file is missing, has other bytes than were written, or is no
            safetensors file (a pickle, say, which is never opened as one).
    """
    record = read_record(place)
    if record is None:
        raise Damaged(f"{place / 'record.json'} is missing or damaged")
    from safetensors import SafetensorError

    values = {}
    for name, file in record["files"].items():
        path = place / file["file"]
        if not path.is_file() or sha256(path) != file["sha256"]:
            raise Damaged(f"{path} is missing or damaged (its sha256 differs)")
        try:
            values[name] = _read_value(path, file["kind"])
        except (SafetensorError, ValueError, KeyError) as error:
            raise Damaged(f"{path} cannot be read ({error})") from error
    return values


def sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def peak_memory() -> int:
    """Return the largest resident memory of this process so far, in MB."""
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset // 2**20
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (2**20 if sys.platform == "darwin" else 2**10)


def _write_value(folder: Path, name: str, value) -> dict:
    import torch

    kind = _kind(name, value)
    suffix = {"table": "csv", "json": "json"}.get(kind, "safetensors")
    path = folder / f"{name}.{suffix}"
    if kind == "table":
        value.to_csv(path, index=False, lineterminator="\n")
    elif kind == "json":
        path.write_text(json.dumps(value, allow_nan=False))
    else:
        tensors = value if kind == "state" else {"value": torch.as_tensor(value)}
        files.tensors(tensors, path)
    return {"kind": kind, "file": path.name, "sha256": sha256(path)}


def _kind(name: str, value) -> str:
    import numpy as np
    import pandas as pd
    import torch

    if isinstance(value, pd.DataFrame):
        return "table"
    if isinstance(value, torch.Tensor):
        return "tensor"
    if isinstance(value, np.ndarray):
        return "array"
    parts = value.values() if isinstance(value, dict) else ()
    if parts and all(isinstance(part, torch.Tensor) for part in parts):
        return "state"
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"a stage's value {name!r} must be a tensor, an array, a dict of tensors, "
            f"a data frame or a JSON value, got {type(value).__name__} ({error})"
        ) from error
    return "json"


def _read_value(path: Path, kind: str):
    if kind == "table":
        import pandas as pd

        return pd.read_csv(path, keep_default_na=False, na_values=[""])
    if kind == "json":
        return json.loads(path.read_text())
    from safetensors.torch import load_file

    tensors = load_file(path)
    if kind == "state":
        return tensors
    return tensors["value"].numpy() if kind == "array" else tensors["value"]


def _sync(path: Path) -> None:
    """Have the disk hold the bytes before the name does; Windows has no folder sync."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
