"""Make the data of the lab on pruning: a trained network, its members and others."""

import torch

from lottolab.labs import small

MEMBERS, OTHERS = 300, 400


def prepare(variant: int) -> tuple[dict, dict]:
    """Return what students get and what only the teacher knows."""
    random = torch.Generator().manual_seed(variant)
    members, others, fresh = small.clothes([MEMBERS, OTHERS, OTHERS], random)
    rows = torch.arange(MEMBERS)[None]
    parent = small.train(members[1], members[2], rows, random, hidden=48)
    first, shift, last, bias = (w[0].numpy() for w in parent)
    given = {"first": first, "shift": shift[0], "last": last, "bias": bias[0]}
    for name, (_, inputs, labels) in {"member": members, "other": others}.items():
        given |= {f"{name}_images": inputs.numpy(), f"{name}_labels": labels.numpy()}
    pixels = (fresh[1] * 255).round().byte().numpy()
    return given, {"images": pixels[:200], "labels": fresh[2][:200].numpy()}
