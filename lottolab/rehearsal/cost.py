"""Say what a chapter costs, from what its rehearsal did and measured.

The rule for a GPU: its seconds are the floating-point operations over `SUSTAINED`, but
a training takes at least `ISSUE` for each operation that is asked of torch, which is
what holds small networks back.
"""

from collections.abc import Callable

import pandas as pd

from lottolab import runs, train
from lottolab.rehearsal.arguments import find, growth, main
from lottolab.rehearsal.ledger import Ledger
from lottolab.rehearsal.rehearsal import Rehearsal

GPU = "NVIDIA A100"
SUSTAINED = 30e12  # operations a second: a tenth of its peak in bfloat16
ISSUE = 10e-6  # seconds to issue an operation, views and small kernels alike
RULE = (
    f"GPU-hours are for one {GPU} that sustains {SUSTAINED / 1e12:.0f} TFLOP/s, and "
    f"issues an operation in {1e6 * ISSUE:.0f} µs: assumed, not measured"
)
COLUMNS = ["stage", "network", "dataset", "runs", "steps", "seconds a step", "PFLOP"]
COLUMNS += ["in training", "hours here", "GPU-hours", "CPU-hours", "GPU GB", "disk GB"]
COLUMNS += ["error"]
STATE = 12  # bytes a parameter: weight, gradient and momentum
# Below this many operations a second nothing but small change was computed.
NETWORK = 1e9


def table(found: Rehearsal) -> pd.DataFrame:
    """Return a row for each stage, network and data set, in the order of computing.

    `runs`; `steps` of the optimiser, in all; `seconds a step` of the full batch, on a
    core here; `PFLOP`, 10¹⁵ floating-point operations, and those `in training`; `hours
    here`, on a core;
    `GPU-hours` by the rule above and `CPU-hours`, of work without networks, beside
    them; `disk GB` in the store; `error`, where the rehearsal ended in one.
    """
    rows = [
        _run(stage, full, found.ledgers.get(key)) | {"error": found.errors.get(key, "")}
        for stage, full, key in found.runs.values()
    ]
    summed = ["runs", "steps", "PFLOP", "in training", "hours here", "GPU-hours"]
    how = dict.fromkeys([*summed, "CPU-hours", "disk GB"], "sum")
    how |= {"training seconds": "sum", "GPU GB": "max", "error": "max"}
    by = ["stage", "network", "dataset"]
    wide = pd.DataFrame(rows).groupby(by, sort=False).agg(how).reset_index()
    wide["seconds a step"] = wide["training seconds"] / wide["steps"].where(
        wide["steps"] > 0
    )
    return wide[COLUMNS]


def _run(stage: Callable, full: dict, ledger: Ledger | None) -> dict:
    """Return what one run costs; nothing is known of a kind that failed."""
    row = {"stage": runs.name(stage), "network": _network(full), "runs": 1}
    row |= {"dataset": _dataset(full)}
    names = ["steps", "training seconds", "PFLOP", "in training", "hours here"]
    names += ["GPU-hours", "CPU-hours", "GPU GB", "disk GB"]
    row |= dict.fromkeys(names, 0.0)
    if ledger is None:
        return row
    cut = ledger.arguments
    more = main(full) / main(cut) if main(cut) else 1.0
    rest, training = growth(stage, cut, full), more * ledger.training.seconds
    steps = more * ledger.trained / _batch(full)
    calls = ledger.training.calls / max(ledger.trained / _batch(cut), 1e-9)
    flop = more * ledger.training.flop
    other = more * ledger.rows.flop + rest * ledger.rest.flop
    issued = max(flop / SUSTAINED, steps * calls * ISSUE)
    here = training + more * ledger.rows.seconds + rest * ledger.rest.seconds
    small = ledger.rest.flop < NETWORK * ledger.rest.seconds
    alone = rest * ledger.rest.seconds if small else 0.0
    disk = ledger.weights + more * ledger.values
    return row | {
        "steps": steps,
        "training seconds": training,
        "PFLOP": (flop + other) / 1e15,
        "in training": flop / 1e15,
        "hours here": here / 3600,
        "GPU-hours": (issued + other / SUSTAINED) / 3600,
        "CPU-hours": alone / 3600,
        "GPU GB": (ledger.held * _batch(full) + STATE * ledger.parameters) / 1e9,
        "disk GB": disk / 1e9,
    }


def _batch(full: dict) -> int:
    """Return how many images a step of the run's training takes."""
    return find(full, "batch") or train.Recipe.batch


def _network(full: dict) -> str:
    """Name the network that a run trains or asks; `library` for all of one."""
    if "structures" in full and "network" not in full:
        return "library"
    treatment = full.get("treatment") or {}
    network = treatment.get("network") or full.get("network") or {}
    width = f" ×{network['width']}" if network.get("width") else ""
    return network.get("name", "") + width


def _dataset(full: dict) -> str:
    named = full.get("dataset", "")
    return named if isinstance(named, str) else named["name"]
