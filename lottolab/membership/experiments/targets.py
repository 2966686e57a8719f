"""Train the networks that are attacked, and ask them about every image."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lottolab import runs
from lottolab.checks import one_of, require
from lottolab.images import datasets, partition
from lottolab.membership import signals
from lottolab.nets import predict, tickets
from lottolab.truth import results

# How a network was made. A treatment is a dict of such a name and whatever arguments
# of the stage, or of the setting, are its own.
TREATMENTS = {
    "dense": tickets.dense,
    "ticket": tickets.iterative,
    "random mask": tickets.random_mask,
    "foresight": tickets.foresight,
}


def check(sparsities: list[float], classes: list[int], **setting) -> None:
    """Raise ValueError now if the chapter would raise it later.

    `setting` as for `tickets.check`.
    """
    for name, values, count in (("sparsities", sparsities, 5), ("classes", classes, 3)):
        rising = len(values) == count and sorted(set(values)) == list(values)
        require(rising, f"{name} must be {count} different, rising values", values)
    tickets.check(**setting)


def asked(
    setting: dict, treatment: dict, seeds: list[int], marks: dict
) -> list[results.Asked]:
    """Ask for networks and their answers; `marks` are the columns of their rows."""
    given = [setting | {"treatment": treatment, "seed": seed} for seed in seeds]
    trainings = [training(**g) for g in given]
    return [(marks, *t) for t in trainings] + results.cross(answers, given, marks)


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
    model.load_state_dict(stage(**given)["weights"])
    return model, parts


@runs.stage("membership.experiments.targets.answers")
def answers(*, treatment: dict, **setting) -> dict:
    """Ask a network for the logits of its pool and of fresh images.

    Members and non-members pass the same transform: normalised, never
    cropped or flipped. `member` says which images of the pool it trained
    on.
    """
    return question(*trained(treatment, **setting), **setting)


def question(model: nn.Module, parts: dict, *, dataset, sizes, seed, **_) -> dict:
    """Return what `answers` does, of a network of the seed's pool."""
    places = partition.halves(datasets.get(dataset), **sizes, seed=seed)
    member = torch.isin(places["pool"], places["train"])
    scale = datasets.normalisation(parts["train"][0])
    (images, labels), (fresh, fresh_labels) = parts["pool"], parts["test"]
    pool = predict.logits(model, images, scale)
    found = {"pool": pool, "labels": labels, "member": member}
    found |= {"fresh": predict.logits(model, fresh, scale)}
    right = signals.correctness(pool, labels)
    metrics = {"member_accuracy": right[member].mean()}
    metrics |= {"nonmember_accuracy": right[~member].mean()}
    metrics = {name: float(value) for name, value in metrics.items()}
    metrics["fresh_accuracy"] = predict.accuracy(found["fresh"], fresh_labels)
    return found | {"fresh_labels": fresh_labels, "metrics": metrics}


@runs.stage("membership.experiments.targets.robustness")
def robustness(*, treatment: dict, **setting) -> dict:
    """Ask a network for the classes of shifted copies, all that label-only attacks see.

    `score` is how far an image is from a wrong answer: 0 for one that is
    misclassified, else 1 and the share of its eight shifts by one pixel
    that are still given its label (Choquette-Choo et al., 2021).
    """
    model, parts = trained(treatment, **setting)
    images, labels = parts["pool"]
    scale = datasets.normalisation(parts["train"][0])
    steps = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    votes = torch.stack(
        [
            predict.logits(model, shift(images, *step), scale).argmax(1) == labels
            for step in steps
        ]
    )
    own = steps.index((0, 0))
    around = torch.cat([votes[:own], votes[own + 1 :]])
    return {"score": votes[own] * (1 + signals.robustness(around))}


def shift(images: Tensor, rows: int, columns: int) -> Tensor:
    """Move images, uint8 N×C×H×W, by whole pixels; what comes in repeats the edge."""
    height, width = images.shape[2:]
    down = (torch.arange(height) - rows).clamp(0, height - 1)
    right = (torch.arange(width) - columns).clamp(0, width - 1)
    return images[:, :, down][:, :, :, right]
