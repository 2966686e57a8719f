"""The paper's attack with all that its attacker has, in the better of two encodings.

A classifier of a thousand confidences in the order of the classes must learn each class
by itself; of the largest ones, sorted, it need not. Which is better is for the attacker
to try on other networks.
"""

import torch

from lottolab import runs
from lottolab.checks import require, whole
from lottolab.membership import metrics
from lottolab.membership.attacks import supervised
from lottolab.membership.experiments.attacks import split
from lottolab.membership.experiments.targets import answers

KEYS = ("pool", "labels", "member")


@runs.stage("membership.experiments.encodings.learned")
def learned(*, top: int, samples: int, treatment: dict, **setting) -> dict:
    """Train the MLP on one half of what is known of a target, judge it on the rest.

    It sees the `top` largest confidences, sorted, or as many as there are classes; 0
    stands for all in the order of the classes. `samples` is how many examples it
    learns from at most, 0 for all that are known, half of the pool.
    """
    whole("top", top, 0)
    whole("samples", samples, 0)
    require(samples == 0 or samples >= 4, "samples must be 0 or at least 4", samples)
    seen, seed = answers(treatment=treatment, **setting), setting["seed"]
    known, judged = split(seen["member"], seed)
    half = len(known) // 2
    each = min(samples // 2 or half, half)
    known = torch.cat([known[:each], known[half : half + each]])
    parts = [tuple(seen[k][p] for k in KEYS) for p in (known, judged)]
    limit = min(top, seen["pool"].shape[1]) or None
    attack = supervised.shadow(parts[:1], top=limit, seed=seed)
    logits, labels, member = parts[1]
    return {"metrics": metrics.rates(attack(logits, labels), member)}


@runs.stage("membership.experiments.encodings.chosen")
def chosen(*, tops: list[int], others: list[int], treatment: dict, **setting) -> dict:
    """Attack in the encoding that is the most accurate on other networks.

    `others` are seeds, not the target's; of equally good encodings the first is
    taken. `metrics` are those of `learned` and the `top` that it was.
    """
    seed = setting.pop("seed")
    require(len(others) > 0, "others must name at least one seed", others)
    require(seed not in others, "others must not name the target", others)
    given = {"samples": 0, "treatment": treatment} | setting

    def elsewhere(top: int) -> float:
        tried = [learned(top=top, seed=other, **given) for other in others]
        return sum(one["metrics"]["accuracy"] for one in tried)

    best = max(tops, key=elsewhere)
    found = learned(top=best, seed=seed, **given)["metrics"]
    return {"metrics": found | {"top": float(best)}}
