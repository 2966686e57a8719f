"""Make the data of the lab on membership: small networks, half of a pool each."""

import numpy as np
import torch

from lottolab.labs import small

MODELS, POOL = 34, 800


def prepare(variant: int) -> tuple[dict, dict]:
    """Return what students get and what only the teacher knows.

    Networks 0 to 31 are references, 32 the practice target, 33 the secret target.
    Each network's members are drawn on their own, so that the references' members do
    not give a target's away.
    """
    random = torch.Generator().manual_seed(variant)
    [(pictures, inputs, labels)] = small.clothes([POOL], random)
    rows = torch.rand(MODELS, POOL, generator=random).argsort(1)[:, : POOL // 2]
    member = torch.zeros(MODELS, POOL, dtype=torch.bool).scatter_(1, rows, True).numpy()
    weights = small.train(inputs, labels, rows, random, steps=110)
    logits = small.ask(weights, inputs).half().float().numpy()
    given = {"labels": labels.numpy(), "pictures": pictures[:40].numpy()}
    given |= {"references": logits[:32], "member": member[:32]}
    given |= {"target": logits[32], "target_member": member[32], "secret": logits[33]}
    return given, {"secret_member": np.packbits(member[33])}
