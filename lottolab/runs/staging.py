"""Read what a stage has returned, or compute it, once however many ask, or resume."""

import functools
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock

from lottolab.runs import places, progress, store

DRY = "LOTTOLAB_DRY_RUN"  # set where no stage may be computed
DIED = "LOTTOLAB_DIED"  # places of stages that ended their processes, and again alone
DRAWN = {"glyphs.drawn", "folders.decoded"}  # but these, which only make a data set
# Who knows on what device stages are computed joins in when it is imported.
SURROUNDINGS: dict[str, Callable[[], str]] = {}
# Who looks on while stages are computed, as a rehearsal does: the last one may change
# the arguments of a stage (`asked`) and calls its function (`computed`).
WATCHING: list[Any] = []
_active: ContextVar[dict | None] = ContextVar("active", default=None)


class DryRun(Exception):
    """A stage must be computed, and this is a dry run."""


class ProcessDied(Exception):
    """A stage has ended its process in this call of `jobs`, and is not tried again."""


def stage(name: str) -> Callable[[Callable[..., dict]], Callable[..., dict]]:
    """Keep what a function returns on disk; call it again only when it must run.

    The name, such as `tickets.dense`, stands in the store and in the tables of results
    and stays when the function moves or is called something else.

    The arguments must be JSON values. Of one called `dataset`, the checksum of what it
    means (see `places.CHECKSUMS`) joins the name of the place. The function returns a
    dict whose values are tensors or arrays, dicts of tensors, data frames or JSON
    values, and gets back what a reader would read.

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


def _obtain(stage: Callable, given: dict) -> dict:
    full = places.arguments(stage, given)
    if WATCHING:
        full = WATCHING[-1].asked(stage, full)
    name, folder = places.name(stage), places.place(stage, **full)
    folder.parent.mkdir(parents=True, exist_ok=True)
    main = {k: full[k] for k in ("dataset", "index", "seed") if k in full}
    if isinstance(main.get("dataset"), dict):
        main["dataset"] = main["dataset"]["name"]
    label = " ".join([name, *(f"{k}={v}" for k, v in main.items())])
    outer, asked = _active.get(), time.perf_counter()
    with FileLock(folder.with_suffix(".lock")):
        own, run = f"{name}/{folder.name}", places.told(stage, full)
        progress.emit("start", stage=name, label=label, place=own, run=run)
        try:
            result, cached = _read(stage, full, folder), True
            if result is None:
                result, cached = _compute(stage, full, folder), False
        except BaseException as error:
            progress.emit("fail", stage=name)
            error.add_note(f"in the stage {run}")
            raise
        seconds = store.read_record(folder)["seconds"]
        progress.emit("end", stage=name, cached=cached, seconds=seconds)
    if outer is not None:  # its own seconds leave out what it asked of others
        outer["nested"] += time.perf_counter() - asked
        outer["asked"].add(own)
    return result


def _read(stage: Callable, full: dict, folder: Path) -> dict | None:
    found = store.read_record(folder)
    if found is None or found["fingerprint"] != places.current(stage, full):
        return None
    try:
        return store.read(folder)
    except store.Damaged as error:
        progress.emit("message", text=f"{error}; computed again")
        print(f"lottolab: {error}; computed again", file=sys.stderr)
        return None


def _compute(stage: Callable, full: dict, folder: Path) -> dict:
    import torch

    name = places.name(stage)
    if os.environ.get(DRY) and name not in DRAWN:
        raise DryRun(f"{name} is not in the store")
    if f"{name}/{folder.name}" in os.environ.get(DIED, "").split():
        raise ProcessDied(f"{places.told(stage, full)} has ended its process twice")
    torch.set_num_threads(1)
    partial = folder.with_name(f"{folder.name}.partial-{places.current(stage, full)}")
    partial.mkdir(exist_ok=True)
    active = {"folder": partial, "scratches": 0, "nested": 0.0, "asked": set()}
    token, start = _active.set(active), time.perf_counter()
    try:
        if WATCHING:
            values = WATCHING[-1].computed(stage, full)
        else:
            values = stage.__wrapped__(**full)
    finally:
        _active.reset(token)
    wall = time.perf_counter() - start
    meta = {
        "stage": name,
        "arguments": full,
        "data": places.checksum(full),
        "fingerprint": places.current(stage, full),
        "seconds": round(wall - active["nested"], 3),
        "asked": sorted(active["asked"]),
    } | surroundings()
    store.write(values, partial / "result", meta)
    store.publish(partial / "result", folder)
    shutil.rmtree(partial)
    return store.read(folder)


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
