"""Control: a mask that was found on other images, from the same initialisation.

The arguments are those of `lottolab.nets.tickets`, with the `sizes` of
`partition.halves`: the other images are the half of the pool that the seed's network
does not train on, its partner's.
"""

from lottolab import runs
from lottolab.checks import require
from lottolab.nets import masks as masking
from lottolab.nets import tickets, train


@runs.stage("membership.experiments.borrowed.partner")
def partner(**setting) -> dict:
    """Train the seed's dense network on the other half of its pool.

    Initialisation and order are the seed's; the images alone are others.
    """
    parts = tickets.read(**setting)
    require("out" in parts, "sizes must be those of partition.halves", [*parts])
    parts |= {"train": parts["out"]}
    model = tickets.build(parts=parts, **setting)
    recipe = train.recipe(setting["recipe"])
    fitted = train.fit(model, *parts["train"], recipe, seed=setting["seed"])
    return tickets.judge(model, masking.dense(model), parts, fitted)


@runs.stage("membership.experiments.borrowed.ticket")
def ticket(*, rates: list[float], **setting) -> dict:
    """Train the seed's network under the mask of one-shot pruning on the other half.

    The mask's network started from the very weights that the mask is now put on, so
    that nothing differs from a one-shot ticket but whose images chose the mask.
    """
    require(len(rates) == 1, "rates must hold one pruning rate", rates)
    start = setting["rewind_at"]
    require(start == 0, "rewind_at must be 0, the initialisation", start)
    other = partner(**setting)
    masks = masking.magnitude(other["weights"], other["masks"], rates[0])
    return tickets.retrain(tickets.dense(**setting)["rewind"], masks, **setting)
