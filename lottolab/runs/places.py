"""What a stage is called, where its result lies, and whether that is still current.

None of it computes a stage, and what is asked by name imports none of its code.
"""

import atexit
import contextlib
import functools
import hashlib
import inspect
import json
import os
import reprlib
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from lottolab.checks import require
from lottolab.runs import definitions, files, fingerprint, store

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
    folder = place(stage, **given)
    found = store.read_record(folder)
    if found is None:
        return None
    return found | {"stale": found["fingerprint"] != current(stage, found["arguments"])}


def current(stage: Callable, full: dict) -> str:
    """Return the fingerprint of the stage's code as it stands, for these arguments."""
    words = frozenset(_words(full))
    known = vars(stage).setdefault("_fingerprints", {})
    if words not in known:
        known[words] = fingerprint.fingerprint(stage, words)
    return known[words]


def current_of(stage_name: str, full: dict) -> str | None:
    """Return the fingerprint of a stage by its name, importing none of its code; None
    if the code has no such stage any more."""
    return _current_of(stage_name, frozenset(_words(full)))


@functools.cache
def _current_of(stage_name: str, words: frozenset[str]) -> str | None:
    place = definitions.stages().get(stage_name)
    if place is None:
        return None
    known, key = _known(), json.dumps([stage_name, *sorted(words)])
    if key not in known:
        known[key] = fingerprint.of(place, words)
    return known[key]


@functools.cache
def _known() -> dict[str, str]:
    """Return what earlier processes found of the code as it stands; what this one adds
    is kept beside the store when it ends."""
    path, code = root() / "fingerprints.json", definitions.digest()
    try:
        known = dict(json.loads(path.read_text())[code])
    except (OSError, ValueError, LookupError, TypeError):
        known = {}
    before = len(known)

    def keep() -> None:
        if len(known) > before:
            with contextlib.suppress(OSError):
                path.parent.mkdir(parents=True, exist_ok=True)
                with files.replacing(path) as new:
                    new.write_text(json.dumps({code: known}))

    atexit.register(keep)
    return known


def _words(value) -> Iterator[str]:
    """Yield every string in a JSON value: a table's key may be among them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _words(part)


def find(stage_name: str) -> Callable:
    """Return the package's stage of that name.

    Raises:
        LookupError: there is no such stage any more.
    """
    place = definitions.stages().get(stage_name)
    if place is None:
        raise LookupError(f"the code has no stage {stage_name} any more")
    return getattr(import_module(place.module), place.name)


def checksum(full: dict) -> str | None:
    """Return the checksum of the data set that the arguments name, if they name one."""
    if "dataset" not in full:
        return None
    must = "who has a stage with a dataset must import lottolab.images.datasets"
    require("dataset" in CHECKSUMS, must, "none")
    return CHECKSUMS["dataset"](full["dataset"])
