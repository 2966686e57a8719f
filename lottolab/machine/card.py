"""Compute each chapter's stages on the CPU and on a card, and say where they differ.

Each stage once, at the first setting that its chapter's smoke scale gives it. On the
card it reads what it asks of other stages as the CPU has computed it, so that what
differs is its own. Both compute in float32, without TF32.
"""

import math
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lottolab import jobs
from lottolab.ensembles.experiments import libraries
from lottolab.jobs import named
from lottolab.reruns.rehearsal import plan
from lottolab.runs import places, staging, store
from lottolab.truth.claims_file import CHAPTERS
from lottolab.units import duration

# The largest distance of two values that only rounding has parted: at once, and grown
# in a training. On a CPU with SSE4.1 in place of AVX2, 51 of the 56 cheaper stages at
# smoke stayed within the first and 4 within 0.02.
ROUNDED, GROWN = 1e-5, 0.05
SAME, CLOSE, DIFFERS, FAILS = "same", "close", "DIFFERS", "FAILS"


@dataclass
class Finding:
    """How one stage fared: its `mark`, the value that `differs` most with the distance,
    or the `error`, and the seconds on both devices."""

    stage: str
    mark: str
    differs: str
    seconds: tuple[float, float]


def main() -> int:
    """Print how every stage fares on the card; 1 if one fails there or differs."""
    if not (name := found()):
        print("no card: torch finds none that it can use; nothing to compare")
        return 0
    print(f"each stage on the CPU and on {name}, float32; distances of results: {SAME}")
    print(
        f"up to {ROUNDED:g}, {CLOSE} up to {GROWN:g} (rounding that training grows)\n"
    )
    counts = dict.fromkeys((SAME, CLOSE, DIFFERS, FAILS), 0)
    for chapter in CHAPTERS:
        print(chapter)
        for one in compared(plan.planned(chapter, "smoke"), name):
            counts[one.mark] += 1
            took = " and ".join(map(duration, one.seconds))
            print(f" {one.mark:8}{one.stage}: {one.differs} ({took})", flush=True)
    told = ", ".join(f"{count} {mark}" for mark, count in counts.items())
    print(f"\n{sum(counts.values())} runs of stages: {told}")
    return int(bool(counts[DIFFERS] or counts[FAILS]))


def found() -> str:
    """Return the device of the card that torch can use, "" if there is none."""
    return "cuda" if torch.cuda.is_available() else ""


def compared(work: list[tuple[Callable, dict]], card: str) -> Iterator[Finding]:
    """Yield how the work's stages, and those that they ask, fare on the card.

    Args:
        work: pairs of a stage and its settings; of each stage the first is taken.
        card: a device that torch has, such as `cuda`.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        here = Path(folder, "cpu")
        computed(work, here)
        for record in first(here):
            yield judged(record, here, card)


def computed(work: list[tuple[Callable, dict]], root: Path) -> None:
    """Compute the first setting of each stage on the CPU, into a store of its own."""
    firsts = {}
    for stage, given in work:
        firsts.setdefault(places.name(stage), (stage, given))
    with on("cpu", root):
        for stage, given in firsts.values():
            stage(**given)


def first(root: Path) -> list[dict]:
    """Return the record of one run of each stage in a store, oldest first."""
    paths = [p for p in root.glob("*/*/record.json") if ".partial" not in str(p)]
    chosen: dict[str, dict] = {}
    for path in sorted(paths, key=lambda path: path.stat().st_mtime_ns):
        record = store.read_record(path.parent)
        own = f"{path.parent.parent.name}/{path.parent.name}"
        if record["stage"] not in staging.DRAWN:
            chosen.setdefault(record["stage"], record | {"own": own})
    return list(chosen.values())


def judged(record: dict, here: Path, card: str) -> Finding:
    """Compute what a record of the CPU's store tells of on the card, and compare.

    All else that the stage may ask for is there, as the CPU has computed it.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        for path in here.glob("*/*/record.json"):
            link = Path(folder, path.parent.relative_to(here))
            if path.parent != here / record["own"]:
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(path.parent.resolve(), target_is_directory=True)
        return _judged(record, here, Path(folder), card)


def _judged(record: dict, here: Path, there: Path, card: str) -> Finding:
    libraries._networks.cache_clear()  # they are on the device that they were built on
    began = time.perf_counter()
    stage = named.find(record["stage"])
    try:
        with on(card, there):
            result = stage(**record["arguments"])
    except Exception as error:  # whatever it is: the page tells it
        mark, said = FAILS, f"{type(error).__name__}: {' '.join(str(error).split())}"
    else:
        mark, said = SAME, "times, which are not compared"
        if not record["stage"].endswith(".timed"):
            far, place = distance(store.read(here / record["own"]), result)
            mark = SAME if far <= ROUNDED else CLOSE if far <= GROWN else DIFFERS
            said = f"{far:.1g} in {place}" if far else "no difference"
    took = time.perf_counter() - began
    return Finding(record["stage"], mark, said, (record["seconds"], took))


@contextmanager
def on(device: str, root: Path) -> Iterator[None]:
    """Within the block stages are computed on a device, in float32, one at a time."""
    own = {"LOTTOLAB_DEVICE": device, "LOTTOLAB_STORE": str(root)}
    own |= {"LOTTOLAB_PRECISION": "float32", "LOTTOLAB_JOBS": "1"}
    convolutions = torch.backends.cudnn
    before, convolutions.allow_tf32 = convolutions.allow_tf32, False
    try:
        with jobs.adopted(jobs.variables() | own):
            yield
    finally:
        convolutions.allow_tf32 = before


def distance(a, b, place: str = "the result") -> tuple[float, str]:
    """Return how far two results are apart, and in which value.

    Of arrays it is the norm of the difference over the norm of `a`, of numbers
    |a - b| / max(1, |a|), of a table's column and a dict's or list's values the
    largest, of all else 0 or 1. What is in one alone, of another shape or kind, or not
    finite in one, is infinitely far.

    >>> distance({"x": 2.0, "y": [1, "a"]}, {"x": 3.0, "y": [1, "a"]})
    (0.5, 'x')
    """
    if isinstance(a, pd.DataFrame) and isinstance(b, pd.DataFrame):
        a, b = ({key: list(x) for key, x in table.items()} for table in (a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        if list(a) != list(b):
            return math.inf, place
        parts = [(a[key], b[key], str(key)) for key in a]
    elif isinstance(a, list) and isinstance(b, list):
        if len(a) != len(b):
            return math.inf, place
        parts = [(x, y, place) for x, y in zip(a, b, strict=True)]
    else:
        return _apart(a, b), place
    told = [distance(*part) for part in parts]
    return max(told, key=lambda pair: pair[0], default=(0.0, place))


def _apart(a, b) -> float:
    if isinstance(a, Tensor | np.ndarray) and isinstance(b, Tensor | np.ndarray):
        a, b = (np.asarray(torch.as_tensor(x).double().cpu()) for x in (a, b))
        if a.shape != b.shape:
            return math.inf
        size, difference = np.linalg.norm(a), np.linalg.norm(a - b)
        far = float(difference / size if size else difference)
        equal = np.array_equal(a, b, equal_nan=True)
    else:
        if not all(type(x) in (int, float) for x in (a, b)):
            return float(a != b)
        far = abs(a - b) / max(1.0, abs(a))
        equal = a == b or (a != a and b != b)
    return 0.0 if equal else far if math.isfinite(far) else math.inf
