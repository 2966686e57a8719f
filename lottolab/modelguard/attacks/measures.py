"""Measure an extraction: agreement, recovery, and the strongest of several attacks.

Extraction accuracy is `predict.accuracy` of the substitute on the target's test set.
"""

from collections.abc import Iterable

import pandas as pd
from torch import Tensor

from lottolab.checks import one_of, require
from lottolab.checks.taking import floats
from lottolab.checks.tensors import logits
from lottolab.modelguard.queries import checked

POINTS = ("many", "few", "adaptive", "composed")


def fidelity(substitute: Tensor, target: Tensor) -> float:
    """Return the share of images on which both have the same largest class, in [0, 1].

    Logits or probabilities, N×K each, of the same images.

    Raises ValueError where the shapes differ or a number is not finite.
    """
    substitute = floats("substitute", substitute)
    target = floats("target", target)
    logits("substitute", substitute)
    logits("target", target)
    given = f"{list(substitute.shape)} and {list(target.shape)}"
    require(substitute.shape == target.shape, "both must be [N, K] of one shape", given)
    return float((substitute.argmax(1) == target.argmax(1)).double().mean())


def recovery_distance(recovered: Tensor, clean: Tensor, p: int = 1) -> float:
    """Return the mean ℓp distance of recovered and true predictions, N×K each.

    p = 2 is the paper's, Figure 4 and Table 6; p = 1 is the unit of ε, in [0, 2].

    Raises ValueError where the shapes differ or p is neither.
    """
    one_of("p", p, (1, 2))
    recovered, clean = checked(recovered), checked(clean)
    given = f"{list(recovered.shape)} and {list(clean.shape)}"
    require(recovered.shape == clean.shape, "both must be of one shape", given)
    difference = recovered.double() - clean.double()
    return float(difference.norm(p, dim=1).mean())


def strongest(
    scores: pd.DataFrame, choose_on: Iterable[int] | None = None
) -> pd.DataFrame:
    """Choose the attack that is best on some seeds and return its rows on the others.

    A maximum over attacks that is chosen and reported on the same seeds is too large:
    it picks the luckiest. Where seeds are few, choose on each half in turn and report
    both.

    Args:
        scores: columns `attack`, `seed`, `score` (larger is stronger), one row for
            each attack and seed; other columns are kept.
        choose_on: seeds; the first half of all, rounded up, if None.

    Returns:
        The rows of the attack with the largest mean, the first by name of equal ones,
        on the seeds not in `choose_on`.

    Raises:
        ValueError: an attack lacks a seed or has it twice, or no seed is left.
    """
    seeds = sorted(scores["seed"].unique().tolist())
    chosen = seeds[: -(-len(seeds) // 2)] if choose_on is None else list(choose_on)
    odd = sorted(set(chosen) - set(seeds))
    require(not odd, f"choose_on must be among the seeds {seeds}", odd)
    right = 0 < len(set(chosen)) < len(seeds)
    require(right, f"choose_on must be some of the seeds {seeds}, not all", chosen)
    counts = pd.crosstab(scores["attack"], scores["seed"])
    uneven = counts.stack()
    uneven = uneven[uneven != 1].to_dict()
    require(not uneven, "scores must hold each attack once for each seed", uneven)
    there = scores["seed"].isin(chosen)
    best = scores[there].groupby("attack")["score"].mean().idxmax()
    return scores[(scores["attack"] == best) & ~there]


def strongest_rows(rows: list[dict]) -> list[dict]:
    """Return rows of results for the strongest attack, chosen on the other seeds.

    For each target, defence (`arm`) and seed the attack with the best mean on all other
    seeds, among those that the paper runs on every seed (`point` many or few), and
    among these and the `adaptive` ones. The rows are copies whose `point` is
    "strongest" or "strongest of all". Of a single seed they are its own best, which is
    too good to be reported.
    """
    table = pd.DataFrame(rows)
    table = table[table["metric"].isin(("accuracy", "fidelity"))]
    found, pools = [], {"strongest": ("many", "few")}
    pools["strongest of all"] = ("many", "few", "adaptive")
    for point, among in pools.items():
        there = table[table["point"].isin(among)].assign(score=table["value"])
        for _, scores in there.groupby(["target", "arm", "metric"], sort=False):
            seeds = scores["seed"].unique().tolist()
            for seed in seeds:
                others = [s for s in seeds if s != seed]
                best = scores.nlargest(1, "score")
                if others:
                    best = strongest(scores, others)
                found.append(best.drop(columns="score").assign(point=point))
    return pd.concat(found).to_dict("records")


def composed_rows(rows: list[dict]) -> list[dict]:
    """Return rows of results for the strongest of all attacks, compositions included.

    For each target and defence the attack with the best mean accuracy on one half of
    the seeds, among those that were run on every seed, and its rows on the other half;
    and the other way round. The rows are copies whose `point` is "strongest
    composition". A single seed's is its own best, which is too good to be reported.
    """
    table = pd.DataFrame(rows)
    there = table[table["point"].isin(POINTS) & (table["metric"] == "accuracy")]
    there = there.assign(score=there["value"])
    found = []
    for _, scores in there.groupby(["target", "arm"], sort=False):
        seeds = sorted(scores["seed"].unique().tolist())
        if len(seeds) == 1:
            found.append(scores.nlargest(1, "score"))
            continue
        for half in (seeds[::2], seeds[1::2]):
            found.append(strongest(scores, half))
    best = pd.concat(found).drop(columns="score")
    return best.assign(point="strongest composition").to_dict("records")
