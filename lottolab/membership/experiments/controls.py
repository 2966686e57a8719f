"""Controls that no other chapter needs."""

from lottolab import runs
from lottolab.checks import require
from lottolab.nets import masks as masking
from lottolab.nets import tickets, train


@runs.stage("membership.experiments.controls.partner_mask")
def partner_mask(*, rates: list[float], **setting) -> dict:
    """Train the ticket's rewound weights under a mask that was found on other images.

    The mask is that of iterative magnitude pruning from the same
    initialisation, in the same order, on the half of the pool that the
    network's partner trains on (see `partition.halves`): as good a mask,
    which has seen none of the network's members.
    """
    require(len(rates) >= 1, "rates must hold at least one pruning rate", rates)
    parts, recipe = tickets.read(**setting), train.recipe(setting["recipe"])
    model = tickets.build(parts=parts, **setting)
    masks, start, seed = masking.dense(model), None, setting["seed"]
    for rate in rates:
        given = {"seed": seed, "masks": masks}
        if start is None:
            given |= {"rewind_at": setting["rewind_at"]}
        else:
            model.load_state_dict(start)
            masking.apply_(model, masks)
            given |= {"start": setting["rewind_at"]}
        fitted = train.fit(model, *parts["out"], recipe, **given)
        start = start or fitted.rewind
        masks = masking.magnitude(model.state_dict(), masks, rate)
    return tickets.retrain(tickets.dense(**setting)["rewind"], masks, **setting)
