"""Give a computation a place on disk: finished work is read back, never half-written.

A *stage* is a plain function of plain arguments that returns a dict of arrays, tables,
state dicts and JSON values. Its place is named by its own name, its arguments and the
checksum of its data set; its record holds the fingerprint of its code. A stage whose
code has changed since is *stale*: it is computed again when it is next asked for, and
until then nothing is thrown away.
"""

import atexit
import contextlib
import contextvars
import functools
import hashlib
import inspect
import json
import os
import platform
import reprlib
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock

from lottolab.checks import require
from lottolab.runs import definitions, files, fingerprint, progress, store

DRY = "LOTTOLAB_DRY_RUN"  # set where no stage may be computed
DIED = "LOTTOLAB_DIED"  # places of stages that ended their processes, and again alone
DRAWN = {"glyphs.drawn", "folders.decoded"}  # but these, which only make a data set
# Who knows more than this module joins in when it is imported: what the bytes are that
# the argument `dataset` names, and on what device stages are computed.
CHECKSUMS: dict[str, Callable[[Any], str]] = {}
SURROUNDINGS: dict[str, Callable[[], str]] = {}
_active: contextvars.ContextVar[dict | None] = contextvars.ContextVar(
    "active", default=None
)
_short = reprlib.Repr()
_short.maxlevel, _short.maxstring, _short.maxother = 2, 60, 60


class NotReproduced(Exception):
    """A rerun of a stage gave other bytes than its record."""


class DryRun(Exception):
    """A stage must be computed, and this is a dry run."""


class ProcessDied(Exception):
    """A stage has ended its process in this call of `jobs`, and is not tried again."""


def root() -> Path:
    """Return the folder of the run store: `LOTTOLAB_STORE`, or `.lottolab/`."""
    default = Path(__file__).resolve().parents[2] / ".lottolab"
    return Path(os.environ.get("LOTTOLAB_STORE") or default)


def stage(name: str) -> Callable[[Callable[..., dict]], Callable[..., dict]]:
    """Keep what a function returns on disk; call it again only when it must run.

    The name, such as `tickets.dense`, stands in the store and in the tables of results
    and stays when the function moves or is called something else. Two stages of the
    package with one name are an error of `definitions.stages`.

    The arguments must be JSON values. Of one called `dataset`, the checksum of what it
    means (`CHECKSUMS` has the function) joins the name of the place. The function
    returns a dict whose values are tensors or arrays, dicts of tensors, data frames or
    JSON values, and gets back what a reader would read.

    Raises:
        TypeError: an argument is missing, unknown or no JSON value.
    """

    def keep(function: Callable[..., dict]) -> Callable[..., dict]:
        @functools.wraps(function)
        def wrapper(**arguments):
            return _obtain(wrapper, arguments)

        wrapper.stage = name
        return wrapper

    return keep


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
    text = json.dumps([full, _checksum(full)], sort_keys=True)
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


def scratch() -> Path | None:
    """Return a folder for the checkpoints of the running stage, None outside of one.

    The n-th call within a stage gets the same folder when the stage is run again
    after it was killed.
    """
    active = _active.get()
    if active is None:
        return None
    active["scratches"] += 1
    folder = active["folder"] / f"scratch-{active['scratches']}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def verifying() -> Iterator[None]:
    """Within the block, stamp a stale stage current if a rerun gives the same bytes.

    Raises:
        NotReproduced: a rerun gave other bytes; the record stays as it was.
    """
    token = _verify.set(True)
    try:
        yield
    finally:
        _verify.reset(token)


_verify: contextvars.ContextVar[bool] = contextvars.ContextVar("verify", default=False)


def _obtain(stage: Callable, given: dict) -> dict:
    full = arguments(stage, given)
    folder = place(stage, **given)
    folder.parent.mkdir(parents=True, exist_ok=True)
    main = {k: full[k] for k in ("dataset", "index", "seed") if k in full}
    if isinstance(main.get("dataset"), dict):
        main["dataset"] = main["dataset"]["name"]
    label = " ".join([name(stage), *(f"{k}={v}" for k, v in main.items())])
    outer, asked = _active.get(), time.perf_counter()
    with FileLock(folder.with_suffix(".lock")):
        own, run = f"{name(stage)}/{folder.name}", told(stage, full)
        progress.emit("start", stage=name(stage), label=label, place=own, run=run)
        try:
            result, cached = _read(stage, full, folder), True
            if result is None:
                result, cached = _compute(stage, full, folder), False
        except BaseException as error:
            progress.emit("fail", stage=name(stage))
            error.add_note(f"in the stage {run}")
            raise
        seconds = store.read_record(folder)["seconds"]
        progress.emit("end", stage=name(stage), cached=cached, seconds=seconds)
    if outer is not None:  # its own seconds leave out what it asked of others
        outer["nested"] += time.perf_counter() - asked
        outer["asked"].add(own)
    return result


def _read(stage: Callable, full: dict, folder: Path) -> dict | None:
    found = store.read_record(folder)
    if found is None or found["fingerprint"] != current(stage, full):
        return None
    try:
        return store.read(folder)
    except store.Damaged as error:
        progress.emit("message", text=f"{error}; computed again")
        print(f"lottolab: {error}; computed again", file=sys.stderr)
        return None


def _compute(stage: Callable, full: dict, folder: Path) -> dict:
    import torch

    if os.environ.get(DRY) and name(stage) not in DRAWN:
        raise DryRun(f"{name(stage)} is not in the store")
    if f"{name(stage)}/{folder.name}" in os.environ.get(DIED, "").split():
        raise ProcessDied(f"{told(stage, full)} has ended its process twice before")
    torch.set_num_threads(1)
    partial = folder.with_name(f"{folder.name}.partial-{current(stage, full)}")
    partial.mkdir(exist_ok=True)
    active = {"folder": partial, "scratches": 0, "nested": 0.0, "asked": set()}
    token, start = _active.set(active), time.perf_counter()
    try:
        values = stage.__wrapped__(**full)
    finally:
        _active.reset(token)
    wall = time.perf_counter() - start
    meta = {
        "stage": name(stage),
        "arguments": full,
        "data": _checksum(full),
        "fingerprint": current(stage, full),
        "seconds": round(wall - active["nested"], 3),
        "asked": sorted(active["asked"]),
    } | surroundings()
    if _verify.get() and (old := store.read_record(folder)):
        _compare(old, store.write(values, partial / "result", meta), folder)
    store.write(values, partial / "result", meta)
    store.publish(partial / "result", folder)
    shutil.rmtree(partial)
    return store.read(folder)


def _compare(old: dict, new: dict, folder: Path) -> None:
    if old["digest"] != new["digest"]:
        raise NotReproduced(
            f"{old['stage']} {old['arguments']}: a rerun gives other bytes than the "
            f"record in {folder}; run the chapter again"
        )


def _checksum(full: dict) -> str | None:
    """Return the checksum of the data set that the arguments name, if they name one."""
    if "dataset" not in full:
        return None
    known = "dataset" in CHECKSUMS
    require(
        known,
        "who has a stage with a dataset must import lottolab.images.datasets",
        "none",
    )
    return _named(json.dumps(full["dataset"], sort_keys=True))


@functools.cache
def _named(dataset: str) -> str:
    return CHECKSUMS["dataset"](json.loads(dataset))


def surroundings() -> dict:
    """Say where and when: device, versions, date and this process's peak memory."""
    import torch  # records are read without it

    versions = {"python": platform.python_version(), "torch": torch.__version__}
    versions |= {p: version(p) for p in ("numpy", "lottolab")}
    return {
        **{name: say() for name, say in SURROUNDINGS.items()},
        "versions": ", ".join(f"{k} {v}" for k, v in versions.items()),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "peak_mb": store.peak_memory(),
    }
