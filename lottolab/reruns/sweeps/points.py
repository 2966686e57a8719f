"""Run many points of a grid, each once, on this machine or on a Dask cluster.

A point has a folder of its own. When it has ended, its `point.json` is there, whole:
the point, its seconds and its error, or None. Points that have ended well are never
run again; all else is, at the next call.
"""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import joblib
from joblib.externals.loky.process_executor import BrokenProcessPool

from lottolab.checks import require
from lottolab.jobs import cluster
from lottolab.runs import files

Call = Callable[[dict, Path], None]
TRIES = 3  # that a point whose worker is killed gets, as in Dask
RECORD = "point.json"


def run(
    call: Call,
    points: dict[str, dict],
    folder: Path,
    *,
    jobs: int = 1,
    scheduler: str | None = None,
    gpus: int = 0,
) -> Iterator[tuple[str, dict]]:
    """Call `call(point, its folder)` for each point; yield name and record as they end.

    An exception is the point's error, and no more. So is the death of its worker, once
    it has cost it its third try.

    Args:
        points: JSON values by name; the name is the folder's.
        folder: of the points' folders; on a cluster all workers must reach it.
        jobs: processes side by side. scheduler: of a Dask cluster, instead of them.
        gpus: how much of a worker's resource `GPU` a point takes.

    Raises:
        RuntimeError: the scheduler cannot be reached, or no process can be started.
    """
    folder = folder.resolve()  # workers may run elsewhere
    folder.mkdir(parents=True, exist_ok=True)
    for name in points:
        (folder / name).mkdir(exist_ok=True)
        for old in (RECORD, "tries"):
            (folder / name / old).unlink(missing_ok=True)
    if scheduler is None:
        require(gpus == 0, "gpus are a resource of a cluster; give a scheduler", gpus)
        yield from _here(call, points, folder, jobs)
    else:
        yield from _there(call, points, folder, scheduler, gpus)


def read(folder: Path) -> dict | None:
    """Return the record of a point that has ended, or None."""
    try:
        return json.loads((folder / RECORD).read_text())
    except (OSError, ValueError):
        return None


def _here(
    call: Call, points: dict[str, dict], folder: Path, jobs: int
) -> Iterator[tuple[str, dict]]:
    left, begun = dict(points), -1
    while left:
        try:
            todo = [joblib.delayed(_one)(call, n, p, folder) for n, p in left.items()]
            parallel = joblib.Parallel(
                jobs, "loky", "generator_unordered", batch_size=1
            )
            for name in parallel(todo):
                del left[name]
                yield name, read(folder / name)
        except BrokenProcessPool as error:
            for name in [n for n in left if read(folder / n)]:
                del left[name]
                yield name, read(folder / name)
            before, begun = begun, sum(_tries(folder / n) for n in points)
            if before == begun:  # it is not the points
                raise RuntimeError(f"no process can run a point: {error}") from error
            # Who was killed cannot be told from who was beside.
            for name in [n for n in left if _tries(folder / n) >= TRIES]:
                said = f"its worker was killed {TRIES} times"
                yield name, _record(folder / name, left.pop(name), 0.0, said)


def _there(
    call: Call, points: dict[str, dict], folder: Path, scheduler: str, gpus: int
) -> Iterator[tuple[str, dict]]:
    from dask.distributed import Client, as_completed

    try:
        client = Client(scheduler, timeout=10, set_as_default=False)
    except (OSError, ValueError) as error:
        raise RuntimeError(f"no scheduler at {scheduler}: {error}") from error
    needed = {"GPU": gpus} if gpus else None
    with client, cluster.watched(client, needed):
        futures = {
            client.submit(_one, call, n, p, folder, pure=False, resources=needed): n
            for n, p in points.items()
        }
        for future in as_completed(futures, loop=client.loop):
            name = futures.pop(future)  # the scheduler forgets what nobody holds
            if future.status != "finished":
                lost = future.exception() if future.status == "error" else "cancelled"
                said = f"its worker was lost: {lost}".splitlines()[0]
                _record(folder / name, points[name], 0.0, said)
            yield name, read(folder / name)


def _one(call: Call, name: str, point: dict, folder: Path) -> str:
    """Run one point in a worker; its name comes back, its record is on the disk."""
    own, start, said = folder / name, time.perf_counter(), None
    with open(own / "tries", "a") as file:
        file.write(".")
    try:
        call(point, own)
    except Exception as error:
        said = f"{type(error).__name__}: {error}".splitlines()[0]
    _record(own, point, time.perf_counter() - start, said)
    return name


def _record(own: Path, point: dict, seconds: float, error: str | None) -> dict:
    record = {"point": point, "seconds": round(seconds, 3), "error": error}
    with files.replacing(own / RECORD) as new:
        new.write_text(json.dumps(record))
    return record


def _tries(own: Path) -> int:
    path = own / "tries"
    return path.stat().st_size if path.exists() else 0
