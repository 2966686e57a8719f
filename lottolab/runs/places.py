"""What a stage is called, where its result lies, and whether that is still current."""

import hashlib
import inspect
import json
import os
import reprlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lottolab.runs import fingerprint, store

# Who knows what bytes the argument `dataset` means joins in when it is imported.
CHECKSUMS: dict[str, Callable[[Any], str]] = {}
_short = reprlib.Repr()
_short.maxlevel, _short.maxstring, _short.maxother = 2, 60, 60


def root() -> Path:
    """Return the folder of the run store: `LOTTOLAB_STORE`, or `.lottolab/`."""
    default = Path(__file__).resolve().parents[2] / ".lottolab"
    return Path(os.environ.get("LOTTOLAB_STORE") or default)


def name(stage: Callable) -> str:
    """Return the name that the stage was given."""
    return stage.stage


def told(stage: Callable, given: dict) -> str:
    """Return `name(argument=value, …)`, with long values cut short."""
    values = ", ".join(f"{key}={_short.repr(given[key])}" for key in given)
    return f"{name(stage)}({values})"


def arguments(stage: Callable, given: dict) -> dict:
    """Return all arguments of the stage, defaults filled in, whole floats as floats.

    Raises:
        TypeError: an argument is missing, unknown or no JSON value.
    """
    signature = inspect.signature(stage)
    bound = signature.bind(**given)
    bound.apply_defaults()
    full = dict(bound.arguments)
    for key, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            full |= full.pop(key)
            continue
        if parameter.annotation in (float, "float") and type(full[key]) is int:
            full[key] = float(full[key])
    try:
        return json.loads(json.dumps(full, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{name(stage)}: arguments must be finite numbers, strings, booleans, None "
            f"or lists and dicts of them, got {full!r} ({error})"
        ) from error


def place(stage: Callable, **given) -> Path:
    """Return the folder of the stage's result, whether it exists or not."""
    full = arguments(stage, given)
    text = json.dumps([full, checksum(full)], sort_keys=True)
    return root() / name(stage) / hashlib.sha256(text.encode()).hexdigest()[:16]


def record(stage: Callable, **given) -> dict | None:
    """Return the record of the finished stage (arguments, fingerprint, seconds, digest,
    memory, versions …) with `stale` set, or None where there is no result."""
    found = store.read_record(place(stage, **given))
    if found is None:
        return None
    return found | {"stale": found["fingerprint"] != current(stage, found["arguments"])}


def current(stage: Callable, full: dict) -> str:
    """Return the fingerprint of the stage's code as it stands, for these arguments."""
    named = frozenset(words(full))
    known = vars(stage).setdefault("_fingerprints", {})
    if named not in known:
        known[named] = fingerprint.fingerprint(stage, named)
    return known[named]


def words(value) -> Iterator[str]:
    """Yield every string in a JSON value: a table's key may be among them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from words(part)


def checksum(full: dict) -> str | None:
    """Return the checksum of the data set that the arguments name, if they name one."""
    return CHECKSUMS["dataset"](full["dataset"]) if "dataset" in full else None
