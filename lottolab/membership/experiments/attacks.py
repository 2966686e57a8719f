"""Attacks that learn from labelled members, on one target at a time."""

from functools import partial

import pandas as pd
import torch
from torch import Tensor

from lottolab import runs
from lottolab.checks import one_of, require
from lottolab.images import datasets
from lottolab.membership import metrics, signals
from lottolab.membership.attacks import nasr, supervised, thresholds
from lottolab.membership.experiments.targets import answers, shift, trained
from lottolab.nets import predict
from lottolab.truth import results


def by_loss(logits: Tensor, is_member: Tensor, *, labels: Tensor, seed: int):
    """Call a member whose loss is below the best limit (Yeom et al., 2018).

    What comes back is a score in (0, 1) of (logits, labels), above 0.5 for members.
    """
    limit = thresholds.best(signals.loss(logits, labels), is_member)
    return lambda logits, labels: torch.sigmoid(signals.loss(logits, labels) - limit)


ATTACKS = {
    "mlp": partial(supervised.fit, classifier="mlp"),
    "mlp, sgd": partial(supervised.fit, classifier="mlp, sgd"),
    "svm": partial(supervised.fit, classifier="svm"),
    "forest": partial(supervised.fit, classifier="forest"),
    "nasr": nasr.fit,
    "loss threshold": by_loss,
}
WITH_LABELS = ("nasr", "loss threshold")


def asked(
    setting: dict,
    treatment: dict,
    seeds: list[int],
    marks: dict,
    classifier: str,
    samples: int,
) -> list[results.Asked]:
    """Ask for attacks on networks; `marks` are the columns of their rows."""
    given = {"treatment": treatment, "classifier": classifier, "samples": samples}
    here = [setting | given | {"seed": seed} for seed in seeds]
    return results.cross(attacked, here, marks | {"attack": classifier})


def split(member: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Split a pool into what the attacker knows and what he is judged on.

    Both hold as many members as non-members, in this order; int64 indices.
    """
    generator = torch.Generator().manual_seed(seed)
    kinds = [mark.nonzero().flatten() for mark in (member, ~member)]
    kinds = [k[torch.randperm(len(k), generator=generator)] for k in kinds]
    half = min(len(kind) for kind in kinds) // 2
    return (
        torch.cat([kind[:half] for kind in kinds]),
        torch.cat([kind[half : 2 * half] for kind in kinds]),
    )


def learn(classifier: str, seen: dict, samples: int, seed: int):
    """Train an attack on at most `samples` known examples, half of them members."""
    one_of("classifier", classifier, ATTACKS)
    require(samples >= 4, "samples must be at least 4", samples)
    known, _ = split(seen["member"], seed)
    half = len(known) // 2
    each = min(samples // 2, half)
    places = torch.cat([known[:each], known[half : half + each]])
    labels = seen["labels"][places] if classifier in WITH_LABELS else None
    told = {} if labels is None else {"labels": labels}
    given = {"is_member": seen["member"][places], "seed": seed} | told
    return ATTACKS[classifier](seen["pool"][places], **given)


def tried(classifier: str, seen: dict, samples: int, seed: int):
    """Train an attack on one half of what is known of a target; try it on the rest.

    Returns the attack, its scores on the rest, and who of them is a member.
    """
    attack = learn(classifier, seen, samples, seed)
    _, judged = split(seen["member"], seed)
    scores = attack(seen["pool"][judged], seen["labels"][judged])
    return attack, scores, seen["member"][judged]


@runs.stage("membership.experiments.attacks.attacked")
def attacked(*, classifier: str, samples: int, treatment: dict, **setting) -> dict:
    """Train an attack on one half of what is known of a target, judge it on the rest.

    `metrics` are those of `metrics.rates`, with the false positive rate
    (`fpr`) on the pool's non-members and on fresh ones (`fresh_fpr`).
    """
    seen, seed = answers(treatment=treatment, **setting), setting["seed"]
    attack, scores, member = tried(classifier, seen, samples, seed)
    fresh = attack(seen["fresh"], seen["fresh_labels"])
    found = metrics.rates(scores, member)
    found["fpr"] = float((scores[~member] > 0.5).double().mean())
    found["fresh_fpr"] = float((fresh > 0.5).double().mean())
    return {"metrics": found}


@runs.stage("membership.experiments.attacks.transferred")
def transferred(
    *, source: dict, targets: dict[str, dict], samples: int, **setting
) -> dict:
    """Train an attack on one network's answers and use it on others (section 4.3).

    `targets` are treatments by name; all have the source's members.
    """
    seed = setting["seed"]
    attack = learn("mlp", answers(treatment=source, **setting), samples, seed)
    rows = []
    for name, treatment in targets.items():
        seen = answers(treatment=treatment, **setting)
        _, judged = split(seen["member"], seed)
        scores = attack(seen["pool"][judged], seen["labels"][judged])
        accuracy = metrics.accuracy(scores, seen["member"][judged], 0.5)
        rows.append({"target": name, "metric": "accuracy", "value": accuracy})
    return {"measurements": pd.DataFrame(rows)}


@runs.stage("membership.experiments.attacks.shadowed")
def shadowed(
    *,
    shadows: list[int],
    shadow_treatment: dict,
    per_class: bool,
    top: int,
    treatment: dict,
    group: int,
    **setting,
) -> dict:
    """Train an attack on shadow models, whose seeds are given; use it on a whole pool.

    No shadow may be of the pool that is attacked, number `group`. `top` is
    how many of the largest confidences the attack sees, 0 for all in the
    order of the classes. A row of `measurements` has the `seed` of its
    target; its numbers are those of `metrics.rates`.
    """
    models = setting["sizes"]["models"]
    pools = {shadow // models for shadow in shadows}
    apart = group not in pools
    require(apart, f"shadows must not be of the target's pool {group}", sorted(pools))
    outputs = []
    for shadow in shadows:
        seen = answers(treatment=shadow_treatment, seed=shadow, **setting)
        places = torch.cat(split(seen["member"], shadow))
        outputs.append(tuple(seen[k][places] for k in ("pool", "labels", "member")))
    given = {"per_class": per_class, "top": top or None, "seed": group}
    attack, rows = supervised.shadow(outputs, **given), []
    for seed in range(models * group, models * (group + 1)):
        seen = answers(treatment=treatment, seed=seed, **setting)
        _, judged = split(seen["member"], seed)
        scores = attack(seen["pool"][judged], seen["labels"][judged])
        found = metrics.rates(scores, seen["member"][judged])
        rows += [{"seed": seed, "metric": m, "value": v} for m, v in found.items()]
    return {"measurements": pd.DataFrame(rows)}


@runs.stage("membership.experiments.attacks.confounded")
def confounded(*, samples: int, treatment: dict, **setting) -> dict:
    """Show what an attack learns if members pass another transform than non-members.

    The transform is a shift by one pixel, as a crop would do. `accuracy` is
    on the target's own members, shifted, and non-members, not shifted, as a
    careless study would judge; `fresh_fpr` on fresh non-members that pass
    the members' transform; `accuracy, equal` with all of them unshifted.
    """
    model, parts = trained(treatment, **setting)
    scale = datasets.normalisation(parts["train"][0])
    seen, seed = answers(treatment=treatment, **setting), setting["seed"]
    moved = [shift(parts[name][0], 1, 1) for name in ("pool", "test")]
    pool, fresh = (predict.logits(model, images, scale) for images in moved)
    member = seen["member"]
    mixed = torch.where(member[:, None], pool, seen["pool"])
    attack = learn("mlp", seen | {"pool": mixed}, samples, seed)
    _, judged = split(member, seed)
    plain, truth = attack(seen["pool"][judged]), member[judged]
    found = {
        "accuracy": metrics.accuracy(attack(mixed[judged]), truth, 0.5),
        "accuracy, equal": metrics.accuracy(plain, truth, 0.5),
        "fpr": (plain[~truth] > 0.5).double().mean(),
        "fresh_fpr": (attack(fresh) > 0.5).double().mean(),
    }
    return {"metrics": {name: float(value) for name, value in found.items()}}
