"""Who was in the training set? Asked of answers, also defended ones, and of sparsity.

The attacker's references are chapter 2's dense models of the same pool.
"""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lottolab import runs
from lottolab.images import datasets, partition
from lottolab.membership import metrics, signals
from lottolab.membership.attacks import lira
from lottolab.membership.experiments import families, targets
from lottolab.modelguard.experiments import services
from lottolab.nets import predict, tickets, train

LEAST = 1e-6  # a probability below it counts as it: an answer may be 0
DENSE = {"name": "dense"}


def odds(answers: Tensor, labels: Tensor) -> Tensor:
    """Return the log odds that the answers, N×C probabilities, give the labels."""
    return signals.scaled_confidence(answers.double().clamp_min(LEAST).log(), labels)


def references(seed: int, **setting) -> tuple[Tensor, Tensor]:
    """Return the log odds of the other models of a seed's pool, and their members.

    Neither the seed's own model nor its partner is among them; both are [models, N].
    """
    models = setting["sizes"]["models"]
    group, place = divmod(seed, models)
    _, seen = families.known(DENSE, group, **setting)
    others = [seen[i] for i in range(models) if i // 2 != place // 2]
    scaled = [signals.scaled_confidence(s["pool"], s["labels"]) for s in others]
    return torch.stack(scaled), torch.stack([s["member"] for s in others])


def calibrated(scores: Tensor, seed: int, **setting) -> Tensor:
    """Subtract from an image's log odds the mean of the references without it.

    What is left of an image that is easy for everybody is nothing (Watson et al.,
    2022, "On the importance of difficulty calibration in membership inference").
    """
    known, member = references(seed, **setting)
    return scores - torch.where(member, torch.nan, known).nanmean(0)


def members(*, dataset, sizes, seed, **_) -> tuple[Tensor, Tensor]:
    """Return the labels of a pool, and which of its images are the seed's members."""
    source = datasets.get(dataset)
    places = partition.halves(source, **sizes, seed=seed)
    return source.labels[places["pool"]], torch.isin(places["pool"], places["train"])


def exposed(answers: Tensor, **setting) -> dict[str, float]:
    """Return what the answers to a pool, N×C probabilities, give away.

    `auc` of the calibrated log odds, `loss auc` of the log odds alone; `gap`, the
    accuracy on members less that on the others; and `loss gap`, the mean cross-entropy
    on the others less that on members, in nats.
    """
    labels, member = members(**setting)
    scores, right = odds(answers, labels), (answers.argmax(1) == labels).double()
    logs = F.logsigmoid(scores)
    return {
        "auc": metrics.auc(calibrated(scores, **setting), member),
        "loss auc": metrics.auc(scores, member),
        "gap": float(right[member].mean() - right[~member].mean()),
        "loss gap": float(logs[member].mean() - logs[~member].mean()),
    }


def strangers(images: int, *, dataset, sizes, seed, **_) -> tuple[Tensor, Tensor]:
    """Return images outside a pool, and their labels: the same for all of the pool."""
    source, group = datasets.get(dataset), seed // sizes["models"]
    given = {"train": sizes["pool"], "val": 0, "test": sizes["test"], "seed": group}
    places = partition.splits(source, **given, holdout=images)["holdout"]
    return source.images[places], source.labels[places]


@runs.stage("together.leaks.behind")
def behind(*, guard: dict, aware: bool, group: int, **setting) -> dict:
    """Attack the dense models of a pool through the answers of a guard.

    Each model has a guard of its own, with an empty state, that is asked about the pool
    in its order. If `aware`, the references' answers pass such a guard too.
    `measurements` of each model: the `auc` of the log odds (attack "loss"), of online
    LiRA, and of whether the label is right ("gap"); its `tpr at 1% fpr` where the pool
    is large enough; and `label changed`, the share of answers with another top class.
    """
    seeds, seen = families.known(DENSE, group, **setting)
    member, labels = torch.stack([s["member"] for s in seen]), seen[0]["labels"]
    clean = [s["pool"].softmax(1) for s in seen]
    pairs = zip(clean, seeds, strict=True)
    answers = [_guarded(guard, p, seed, **setting) for p, seed in pairs]
    scores = torch.stack([odds(a, labels) for a in answers])
    known = scores if aware else torch.stack([odds(p, labels) for p in clean])
    rights = torch.stack([(a.argmax(1) == labels).double() for a in answers])
    found = {
        "loss": scores,
        "gap": rights,
        "lira, online": lira_online(scores, member, known),
    }
    rows = aucs(found, member, seeds)
    if (~member[0]).sum() >= metrics.needed(0.01):
        rows += [
            {"attack": name, "seed": seed, "metric": "tpr at 1% fpr"}
            | {"value": metrics.tpr_at(found[name][i], member[i], 0.01)}
            for name in ("loss", "lira, online")
            for i, seed in enumerate(seeds)
        ]
    for seed, a, p in zip(seeds, answers, clean, strict=True):
        changed = float((a.argmax(1) != p.argmax(1)).double().mean())
        rows.append({"seed": seed, "metric": "label changed", "value": changed})
    return {"measurements": pd.DataFrame(rows)}


@runs.stage("together.leaks.labels_alone")
def labels_alone(*, group: int, **setting) -> dict:
    """Attack the dense models of a pool by the labels of shifted copies, and no more.

    `measurements`: the `auc` of chapter 2's label-only attack (attack "label only").
    """
    seeds, seen = families.known(DENSE, group, **setting)
    given = {"treatment": DENSE} | setting
    votes = [targets.robustness(**given, seed=seed)["score"] for seed in seeds]
    member = torch.stack([s["member"] for s in seen])
    rows = aucs({"label only": torch.stack(votes)}, member, seeds)
    return {"measurements": pd.DataFrame(rows)}


def _guarded(guard: dict, clean: Tensor, seed: int, **setting) -> Tensor:
    parts = tickets.read(**setting, seed=seed)
    return services.build(guard, parts=parts, **setting, seed=seed)(clean)


def lira_online(scores: Tensor, member: Tensor, known: Tensor | None = None) -> Tensor:
    """Score each model of a pool by the others but its partner, [models, N].

    `known` are the references' scores, where they differ from the targets'.
    """
    known, rows = scores if known is None else known, []
    for place, mine in enumerate(scores):
        rest = families.others(place, len(scores))
        rows.append(lira.online(mine, known[rest], member[rest]))
    return torch.stack(rows)


def aucs(found: dict[str, Tensor], member: Tensor, seeds: list[int]) -> list[dict]:
    return [
        {"attack": name, "seed": seed, "metric": "auc"}
        | {"value": metrics.auc(scores[i], member[i])}
        for name, scores in found.items()
        for i, seed in enumerate(seeds)
    ]


@runs.stage("together.leaks.trajectory")
def trajectory(*, rates: list[float], at: list[int], **setting) -> dict:
    """Train a ticket, or the dense network without `rates`, and look at it on the way.

    `measurements`: at the end of each epoch in `at`, those of `exposed`.
    """
    parts, seed = tickets.read(**setting), setting["seed"]
    model, recipe = (
        tickets.build(parts=parts, **setting),
        train.recipe(setting["recipe"]),
    )
    masks = tickets.iterative(rates=rates, **setting)["masks"] if rates else {}
    images, scale = parts["pool"][0], datasets.normalisation(parts["train"][0])
    steps, rows = len(parts["train"][0]) // recipe.batch, []

    def look(model: nn.Module, step: int) -> None:
        epoch, rest = divmod(step + 1, steps)
        if rest == 0 and epoch in at:
            found = exposed(predict.logits(model, images, scale).softmax(1), **setting)
            rows.extend(
                {"epoch": epoch, "metric": m, "value": v} for m, v in found.items()
            )
            model.train()

    with tempfile.TemporaryDirectory() as folder:  # who goes on would miss the rows
        given = {"seed": seed, "masks": masks, "after_step": look}
        train.fit(model, *parts["train"], recipe, **given, checkpoint=Path(folder))
    return {"measurements": pd.DataFrame(rows)}


@runs.stage("together.leaks.beyond")
def beyond(*, sparsities: list[float], at: list[int], **setting) -> dict:
    """Compare sparse networks with the dense one where the gap is the same.

    `measurements` by `sparsity`, each of the calibrated attack's AUC less the dense
    network's: `at the end`; `at equal gap` and `at equal loss gap`, the mean over the
    epochs `at`, where the dense network's AUC at a gap is interpolated between its
    epochs (and 0.5 before the first, without a gap; epochs with a larger gap than it
    ever has count only if all are such); and `adjusted`, the coefficient of being
    sparse in a linear regression of the AUC on the gap, the logarithm of the epoch and
    it, over both networks' epochs.
    """
    rows, dense = [], _path([], at, **setting)
    for sparsity in sparsities:
        sparse = _path([sparsity], at, **setting)
        found = {"at the end": sparse["auc"].iloc[-1] - dense["auc"].iloc[-1]}
        for gap in ("gap", "loss gap"):
            found[f"at equal {gap}"] = _at_equal(gap, dense, sparse)
        found["adjusted"] = _adjusted(dense, sparse)
        rows += [
            {"sparsity": sparsity, "metric": m, "value": v} for m, v in found.items()
        ]
    return {"measurements": pd.DataFrame(rows)}


def _path(rates: list[float], at: list[int], **setting) -> pd.DataFrame:
    """Return gap and AUC by epoch."""
    table = trajectory(rates=rates, at=at, **setting)["measurements"]
    return table.pivot(index="epoch", columns="metric", values="value")


def _at_equal(gap: str, dense: pd.DataFrame, sparse: pd.DataFrame) -> float:
    order = dense.sort_values(gap)
    known, auc = [0.0, *order[gap]], [0.5, *order["auc"]]
    common = sparse[sparse[gap] <= known[-1]]
    common = sparse if common.empty else common
    return float((common["auc"] - np.interp(common[gap], known, auc)).mean())


def _adjusted(dense: pd.DataFrame, sparse: pd.DataFrame) -> float:
    both = pd.concat([dense, sparse])
    is_sparse = np.repeat([0.0, 1.0], [len(dense), len(sparse)])
    columns = [np.ones(len(both)), both["gap"], np.log(both.index), is_sparse]
    return float(
        np.linalg.lstsq(np.column_stack(columns), both["auc"], rcond=None)[0][3]
    )
