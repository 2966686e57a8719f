"""Say what a chapter costs, from what its rehearsal did and measured.

Here are the operations, and the hours of a core of this machine. Hours of a GPU follow
from the operations in `throughput`.
"""

import inspect
from collections.abc import Callable

import pandas as pd

from lottolab import runs
from lottolab.nets import models, train
from lottolab.reruns.rehearsal.arguments import RECIPES, find, main
from lottolab.reruns.rehearsal.rehearsal import Rehearsal, growth

WORK = ["in training", "in predictions", "in the rest"]  # PFLOP
COLUMNS = ["stage", "network", "dataset", "batch", "runs", "steps", "seconds a step"]
COLUMNS += [*WORK, "hours here", "CPU-hours", "GPU GB", "disk GB", "error"]
STATE = 12  # bytes a parameter: weight, gradient and momentum
# Below this many operations a second nothing but small change was computed.
NETWORK = 1e9


def table(found: Rehearsal) -> pd.DataFrame:
    """Return a row for each stage, network, data set and batch, in order of computing.

    `runs`; `steps` of the optimiser, in all; `seconds a step` of the full batch, on a
    core here; PFLOP, 10¹⁵ floating-point operations, `in training`, `in predictions`,
    and `in the rest`, attacks above all; `hours here`, on a core, and of these the
    `CPU-hours`, of work without networks, which no GPU makes shorter; `GPU GB`, what a
    training holds; `disk GB` in the store; `error`, where the rehearsal ended in one.
    """
    rows = [
        _run(found, *run) | {"error": found.errors.get(run[2], "")}
        for run in found.runs.values()
    ]
    summed = ["runs", "steps", *WORK, "hours here", "CPU-hours", "disk GB"]
    summed.append("training seconds")
    how = dict.fromkeys(summed, "sum") | {"GPU GB": "max", "error": "max"}
    wide = pd.DataFrame(rows).groupby(COLUMNS[:4], sort=False).agg(how).reset_index()
    wide["seconds a step"] = wide["training seconds"] / wide["steps"].where(
        wide["steps"] > 0
    )
    return wide[COLUMNS]


def _run(found: Rehearsal, stage: Callable, full: dict, key: str) -> dict:
    """Return what one run costs; nothing is known of a kind that failed."""
    row = dict.fromkeys([*COLUMNS, "training seconds"], 0.0)
    row |= {"stage": runs.name(stage), "network": _network(full), "runs": 1}
    row |= {"dataset": _dataset(full), "batch": _batch(full)}
    ledger = found.ledgers.get(key)
    if ledger is None:
        return row
    cut, work = ledger.arguments, ledger.work
    more = main(full) / main(cut) if main(cut) else 1.0
    training = more * work["seconds training"]
    rest = growth(found, key, full, "seconds rest") * work["seconds rest"]
    small = work["flop rest"] < NETWORK * work["seconds rest"]
    held = ledger.held * _batch(full) + STATE * ledger.parameters
    flop = growth(found, key, full, "flop rest") * work["flop rest"]
    weights, values = found.disk[key]
    return row | {
        "steps": more * work["steps"] * _batch(cut) / _batch(full),
        "training seconds": training,
        "in training": more * work["flop training"] / 1e15,
        "in predictions": more * work["flop predictions"] / 1e15,
        "in the rest": flop / 1e15,
        "hours here": (training + more * work["seconds predictions"] + rest) / 3600,
        "CPU-hours": rest / 3600 if small else 0.0,
        "GPU GB": held / 1e9,
        "disk GB": (weights + more * values) / 1e9,
    }


def _batch(full: dict) -> int:
    """Return how many images a step of the run's training takes."""
    for name in ("budget", *RECIPES):
        if found := find(full, f"{name}.batch"):
            return found
    return train.Recipe.batch


def _network(full: dict) -> str:
    """Name the network that a run trains or asks; `library` for all of one."""
    if "structures" in full and "network" not in full:
        return "library"
    treatment = full.get("treatment") or {}
    network = treatment.get("network") or full.get("network") or {}
    if not network:
        return ""
    made = inspect.signature(models.MODELS[network["name"]]).parameters["width"]
    return f"{network['name']} ×{network.get('width', made.default)}"


def _dataset(full: dict) -> str:
    named = full.get("dataset", "")
    return named if isinstance(named, str) else named["name"]
