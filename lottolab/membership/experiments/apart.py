"""Shadow networks that share no image with the pool that they attack.

The arguments are those of `lottolab.nets.tickets`, with the `sizes` of
`partition.halves`; networks start from their initialisation.
"""

import pandas as pd
import torch
from torch import Tensor, nn

from lottolab import runs
from lottolab.images import datasets, partition
from lottolab.membership import metrics, signals
from lottolab.membership.attacks import supervised
from lottolab.membership.experiments import attacks, families
from lottolab.nets import masks as masking
from lottolab.nets import predict, tickets, train


@runs.stage("membership.experiments.apart.shadow")
def shadow(*, group: int, place: int, shadows: int, rates: list, **setting) -> dict:
    """Train shadow network `place` of `shadows`, none of whose images pool `group` has.

    It is dense, or a one-shot ticket of the one of `rates`. Returns logits of its
    own images (`pool`), their `labels`, which of them it trained on (`member`), and
    its accuracies on these and the others in `metrics`.
    """
    images, labels, member = disjoint(group, place, shadows, **setting)
    parts = {"train": (images[member], labels[member])}
    parts["classes"] = datasets.get(setting["dataset"]).classes
    masks = None
    model = fitted(parts, masks, **setting)
    for rate in rates:
        state = {k: v.cpu() for k, v in model.state_dict().items()}
        masks = masking.magnitude(state, masks or masking.dense(model.cpu()), rate)
        model = fitted(parts, masks, **setting)
    scale = datasets.normalisation(parts["train"][0])
    logits = predict.logits(model, images, scale)
    right = signals.correctness(logits, labels)
    known = {"member_accuracy": right[member].mean()}
    known |= {"nonmember_accuracy": right[~member].mean()}
    found = {"pool": logits, "labels": labels, "member": member}
    return found | {"metrics": {name: float(v) for name, v in known.items()}}


def disjoint(
    group: int, place: int, shadows: int, *, dataset, sizes: dict, **_
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw a shadow's images, labels and members, apart from those of pool `group`.

    As many images as the pool has, or all that are left. Each of `shadows` networks
    trains on half of them; 2k and 2k + 1 have complementary halves.
    """
    source, pool, test = datasets.get(dataset), sizes["pool"], sizes["test"]
    official = bool(source.test.any())
    drawn = (source.first & ~source.test) if official else source.first
    count = min(pool, int(drawn.sum()) - pool - (0 if official else test))
    given = {"train": pool, "val": count, "test": test, "seed": group}
    places = partition.splits(source, **given)["val"]
    member = partition.subsets(count, shadows, seed=group)[place]
    return source.images[places], source.labels[places], member


def fitted(parts: dict, masks: dict | None, **setting) -> nn.Module:
    """Train the seed's network on `parts["train"]`, from its initialisation."""
    model = tickets.build(parts=parts, **setting)
    if masks is not None:
        masking.apply_(model, masks)
    recipe = train.recipe(setting["recipe"])
    train.fit(model, *parts["train"], recipe, seed=setting["seed"], masks=masks)
    return model


@runs.stage("membership.experiments.apart.shadowed")
def shadowed(
    *,
    shadows: list[int],
    rates: list,
    per_class: bool,
    top: int,
    treatment: dict,
    group: int,
    **setting,
) -> dict:
    """Attack a pool by shadow networks that share no image with it.

    As `attacks.shadowed`, whose shadows are of another pool and share some. `shadows`
    are the networks' seeds.
    """
    outputs = []
    for place, seed in enumerate(shadows):
        own = {"group": group, "place": place, "shadows": len(shadows), "seed": seed}
        seen = shadow(rates=rates, **own, **setting)
        places = torch.cat(attacks.split(seen["member"], seed))
        outputs.append(tuple(seen[k][places] for k in ("pool", "labels", "member")))
    given = {"per_class": per_class, "top": top or None, "seed": group}
    attack, rows = supervised.shadow(outputs, **given), []
    for seed, seen in zip(*families.known(treatment, group, **setting), strict=True):
        _, judged = attacks.split(seen["member"], seed)
        scores = attack(seen["pool"][judged], seen["labels"][judged])
        found = metrics.rates(scores, seen["member"][judged])
        rows += [{"seed": seed, "metric": m, "value": v} for m, v in found.items()]
    return {"measurements": pd.DataFrame(rows)}
