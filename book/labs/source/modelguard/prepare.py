"""Make the data of the lab on ModelGuard: what a target predicts for a thief."""

import torch

from lottolab.labs import small

TRAINED, ASKED, TESTED = 1000, 1000, 400


def prepare(variant: int) -> tuple[dict, dict]:
    """Return what students get and what only the teacher knows.

    Two networks of the same kind: the target, and one that the thief has trained on
    half of his images; its predictions for the other half are his table.
    """
    random = torch.Generator().manual_seed(variant)
    owner, thief, test = small.clothes([TRAINED, ASKED, TESTED], random)
    target = learn(*owner[1:], random)
    predictions = small.ask(target, thief[1])[0].softmax(1)
    half = ASKED // 2
    shadow = learn(thief[1][:half], thief[2][:half], random)
    table = small.ask(shadow, thief[1][half:])[0].softmax(1)
    given = {"predictions": predictions, "images": thief[1], "table": table}
    given |= {"test_images": test[1], "test_labels": test[2]}
    fresh = small.ask(target, test[1])[0].softmax(1)
    kept = {"fresh": fresh[:200].half()}
    as_arrays = {name: value.double().numpy() for name, value in given.items()}
    as_arrays |= {n: given[n].numpy() for n in ("images", "test_images", "test_labels")}
    return as_arrays, {name: value.numpy() for name, value in kept.items()}


def learn(inputs, labels, random) -> small.Weights:
    """Train one network, not for long, so that it is unsure of some images."""
    rows = torch.arange(len(inputs))[None]
    return small.train(inputs, labels, rows, random, steps=60)
