"""What the networks give away, by chapter 2's attacks.

The arguments are those of `treatments`, and the `treatment` itself: a dict of its name
and its own arguments. Members, non-members and fresh images are chapter 2's.
"""

from collections.abc import Callable

import pandas as pd
import torch
from torch import Tensor, nn

from lottolab import runs
from lottolab.checks import one_of
from lottolab.membership import metrics, signals
from lottolab.membership.attacks import nasr
from lottolab.membership.experiments import attacks, families, targets
from lottolab.mia_pruning import divergence
from lottolab.mia_pruning.defences import dp
from lottolab.mia_pruning.experiments import controls, treatments
from lottolab.nets import tickets
from lottolab.truth import results

TREATMENTS = {
    "dense": tickets.dense,
    "one-shot": tickets.iterative,
    "early": treatments.early,
    "continued": treatments.continued,
    "pruned": treatments.pruned,
    "guarded": treatments.guarded,
    "private": treatments.private,
    "group norm": treatments.group_norm,
    "borrowed": controls.borrowed,
    "joint": controls.joint,
}


def asked(
    setting: dict, treatment: dict, seeds: list[int], attack: dict, marks: dict
) -> list[results.Asked]:
    """Ask for networks, their answers and the paper's attack on each.

    `attack` are arguments of `nasr.fit`; `marks` are the columns of the rows.
    """
    given = [setting | {"treatment": treatment, "seed": seed} for seed in seeds]
    trainings = [(marks, *training(**g)) for g in given]
    found = trainings + results.cross(answers, given, marks)
    return found + results.cross(
        attacked, [g | {"attack": attack} for g in given], marks | {"attack": "nasr"}
    )


def training(treatment: dict, **setting) -> tuple[Callable, dict]:
    """Return the stage that trains a network by a treatment, and its arguments."""
    one_of("treatment", treatment["name"], TREATMENTS)
    own = {k: v for k, v in treatment.items() if k != "name"}
    return TREATMENTS[treatment["name"]], setting | own


def trained(treatment: dict, **setting) -> tuple[nn.Module, dict]:
    """Return the trained network and its parts, as `tickets.read` does."""
    stage, given = training(treatment, **setting)
    parts = tickets.read(**given)
    model = tickets.build(parts=parts, **given)
    if treatment["name"] in ("private", "group norm"):
        model = dp.group_norm(model)
    model.load_state_dict(stage(**given)["weights"])
    return model, parts


@runs.stage("mia_pruning.experiments.leaks.answers")
def answers(*, treatment: dict, **setting) -> dict:
    """Ask a network for the logits of its pool and of fresh images.

    What comes back is that of `targets.question`.
    """
    return targets.question(*trained(treatment, **setting), **setting)


@runs.stage("mia_pruning.experiments.leaks.attacked")
def attacked(*, attack: dict, treatment: dict, **setting) -> dict:
    """Attack with the network of Nasr et al. (2018), which the paper uses.

    It learns from half of the members and as many non-members, and is judged
    on the rest. `attack` are arguments of `nasr.fit`. `measurements` are
    those of `metrics.rates`; the false positive rate; the gain of Equation
    1; JS, the Jensen-Shannon divergence of its scores less its bias, both
    in nats; and the rank correlation over `classes` of accuracy and gap,
    see `in_classes`.
    """
    seen, seed = answers(treatment=treatment, **setting), setting["seed"]
    scores, judged = tried(seen, attack, seed)
    member = seen["member"][judged]
    found = metrics.rates(scores, member)
    found["fpr"] = float((scores[~member] > 0.5).double().mean())
    found["gain"] = divergence.gain(scores[member], scores[~member])
    found["js"] = js(scores, member, seed)
    rows = [{"metric": name, "value": value} for name, value in found.items()]
    inside = in_classes(seen, judged, (scores > 0.5) == member)
    wide = inside.pivot(index="class", columns="metric", values="value")
    together = wide.corr("spearman").loc["gap in class", "accuracy in class"]
    rows.append({"metric": "class correlation", "value": together})
    return {"measurements": pd.DataFrame(rows), "classes": inside}


def tried(seen: dict, attack: dict, seed: int) -> tuple[Tensor, Tensor]:
    """Return the scores of Nasr's attack, and the places in the pool that they are of.

    It has learned from the other half of the pool.
    """
    known, judged = attacks.split(seen["member"], seed)
    given = [seen[key] for key in ("pool", "labels", "member")]
    fitted = nasr.fit(*(x[known] for x in given), **attack, seed=seed)
    return fitted(*(x[judged] for x in given[:2])), judged


def js(scores: Tensor, member: Tensor, seed: int) -> float:
    """Return the Jensen-Shannon divergence of scores, less the estimate's bias."""
    estimate, bias = divergence.jensen_shannon(
        scores[member], scores[~member], seed=seed
    )
    return estimate - bias


def in_classes(seen: dict, judged: Tensor, right: Tensor) -> pd.DataFrame:
    """Measure in each class the attack's accuracy and the gap of the network."""
    labels, member = seen["labels"], seen["member"]
    known = signals.correctness(seen["pool"], labels)
    rows = []
    for number in labels.unique().tolist():
        here = labels == number
        inside, outside = known[here & member], known[here & ~member]
        values = {"accuracy": right[labels[judged] == number].double()}
        values["gap"] = inside.mean() - outside.mean()
        rows += [
            {"metric": f"{name} in class", "value": float(v.mean()), "class": number}
            for name, v in values.items()
            if v.numel()
        ]
    return pd.DataFrame(rows)


@runs.stage("mia_pruning.experiments.leaks.family")
def family(*, treatment: dict, group: int, **setting) -> dict:
    """Attack every model of a pool; others of its treatment are its references.

    Returns `measurements`, the rows of `families.judged` and JS of the loss
    for each model; who is a `member`, models×images; and by attack the `scores` as
    ranks in (0, 1], float32 models×images, ties alike, so that those of all attacks
    and models compare.
    """
    models = setting["sizes"]["models"]
    seeds = [models * group + place for place in range(models)]
    seen = [answers(treatment=treatment, **setting, seed=seed) for seed in seeds]
    found, member = families.scored(seen)
    rows = families.judged(found, member, seeds)
    for seed, scores, truth in zip(seeds, found["loss"], member, strict=True):
        marks = {"attack": "loss", "seed": seed, "metric": "js"}
        rows.append(marks | {"value": js(scores, truth, seed)})
    ranks = {n: torch.stack([_ranks(row) for row in x]) for n, x in found.items()}
    kept = {"scores": ranks, "member": member}
    return kept | {"measurements": pd.DataFrame(rows)}


def _ranks(scores: Tensor) -> Tensor:
    values, place = scores.double().unique(return_inverse=True)
    return ((place + 1) / len(values)).float()
