"""Make the data of the lab on ensembles: six robust networks and images to attack."""

import numpy as np
import torch

from lottolab.labs import small

TRAINED, SHOWN, MEMBERS, EPSILON = 1000, 100, 6, 0.06


def prepare(variant: int) -> tuple[dict, dict]:
    """Return what students get; the teacher knows nothing more but other images."""
    random = torch.Generator().manual_seed(variant)
    trained, shown, fresh = small.clothes([TRAINED, SHOWN, SHOWN], random)
    # Half of the images each, so that the members differ.
    rows = torch.rand(MEMBERS, TRAINED, generator=random).argsort(1)[:, : TRAINED // 2]
    keep = torch.rand(MEMBERS, 196, 1, generator=random) < 0.3  # pixels that it sees
    how = {"hidden": 48, "steps": 60, "epsilon": EPSILON / 2, "keep": keep}
    weights = small.train(trained[1], trained[2], rows, random, **how)
    given = {f"weights{i}": w.numpy() for i, w in enumerate(weights)}
    given |= {"images": shown[1].numpy(), "labels": shown[2].numpy()}
    given |= {"epsilon": np.array(EPSILON)}
    pixels = (fresh[1] * 255).round().byte().numpy()
    return given, {"images": pixels, "labels": fresh[2].numpy()}
