"""Turn counted operations into hours of a GPU, by what was measured on one.

`benchmarks/bench_scale.py` measures it: a row a kind of work, network and batch, which
`read` takes from data/results/throughput.csv. Until that is there, everything is taken
to run at one assumed speed.
"""

import math
from pathlib import Path

import pandas as pd

from lottolab.truth import results

PATH = results.COMMITTED / "throughput.csv"
ASSUMED = {"work": "training", "network": "", "width": 0, "batch": 128}
ASSUMED |= {"TFLOP/s": 30.0, "device": "NVIDIA A100"}  # a tenth of its peak in bfloat16
# Which kind of work a stage's trainings are, but for `training`, and what else its
# networks do, but for `prediction`.
TRAINING = {
    "tickets.iterative": "ticket training",
    "tickets.random_mask": "ticket training",
    "tickets.new_initialisation": "ticket training",
    "tickets.foresight": "ticket training",
    "ensembles.experiments.libraries.ticket": "ticket search",
    "ensembles.experiments.libraries.dense": "robust training",
    "mia_pruning.experiments.treatments.private": "private training",
    "mia_pruning.experiments.treatments.guarded": "game",
}
OTHER = {
    "ensembles.experiments.libraries.best": "attack",
    "ensembles.experiments.trials.averaged": "attack",
    "ensembles.experiments.trials.examples": "attack",
    "ensembles.experiments.trials.strongest": "attack",
    "ensembles.experiments.studies.masked": "attack",
    "ensembles.experiments.studies.transfer": "attack",
    "ensembles.experiments.studies.transferred": "attack",
    "ensembles.experiments.bounded.law": "attack",
    "together.worth.fooled": "attack",
}


def read(path: Path | None = None) -> pd.DataFrame:
    """Return what one process alone sustains, a row a kind of work, network and batch;
    or the one row that is assumed, where nothing was measured."""
    path = path or PATH
    if not path.is_file():
        return pd.DataFrame([ASSUMED])
    table = pd.read_csv(path, keep_default_na=False, na_values={"TFLOP/s": [""]})
    return table[(table["processes"] == 1) & table["TFLOP/s"].notna()]


def rule(speeds: pd.DataFrame) -> str:
    """Say in a line whose hours these are, and where they come from."""
    device = speeds["device"].iloc[0]
    if "measured" not in speeds:
        rate = speeds["TFLOP/s"].iloc[0]
        return f"for one {device} that does {rate:.0f} TFLOP/s: assumed, not measured"
    day = speeds["measured"].iloc[0][:10]
    return (
        f"for one {device}, at the rates measured on it on {day} ({len(speeds)} loops)"
    )


def rate(speeds: pd.DataFrame, work: str, network: str, batch: int) -> float:
    """Return how many operations a second a kind of work does on a network.

    That of the same network at the nearest batch. Where this kind of work was not
    measured on it, that of trainings; where those were not either, the slowest network.
    """
    own = speeds[speeds["work"].str.startswith(work)]  # attacks on teams are attacks
    trainings = speeds[speeds["work"] == "training"]
    found = _of(own, network)
    if found.empty and (own.empty or work.endswith("training")):
        found = _of(trainings, network)
    if found.empty:
        return 1e12 * float((trainings if own.empty else own)["TFLOP/s"].min())
    away = [abs(math.log(b / batch)) for b in found["batch"]]
    return 1e12 * float(found["TFLOP/s"].iloc[away.index(min(away))])


def _of(speeds: pd.DataFrame, network: str) -> pd.DataFrame:
    """Return the rows of a network, which is named as in the table of costs."""
    widths = speeds["width"].map(lambda width: f" ×{width}" if width else "")
    return speeds[speeds["network"] + widths == network]


def hours(costs: pd.DataFrame, speeds: pd.DataFrame) -> pd.DataFrame:
    """Return the GPU-hours of each row of `cost.table`, by the columns `cost.WORK`."""

    def each(row: pd.Series) -> dict[str, float]:
        work = TRAINING.get(row["stage"], "training")
        parts = {"in training": work, "in predictions": "prediction"}
        parts["in the rest"] = OTHER.get(row["stage"], "prediction")
        network = row["network"], row["batch"]
        return {
            part: 1e15 * row[part] / rate(speeds, work, *network) / 3600
            for part, work in parts.items()
        }

    rows = [each(row) for _, row in costs.iterrows()]
    return pd.DataFrame(rows, index=costs.index)
