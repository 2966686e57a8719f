"""Tickets that were found on images of nobody."""

from lottolab import runs
from lottolab.checks import require
from lottolab.nets import masks as masking
from lottolab.nets import tickets, train
from lottolab.nets.device import back

ELSEWHERE = 6_000_000  # is added to the seed: other images come in another order


@runs.stage("mia_pruning.experiments.controls.borrowed")
def borrowed(*, rates: list[float], **setting) -> dict:
    """Find a ticket on images outside the pool, and train it on the network's own.

    A control of `tickets.iterative`: the same initialisation, pruned as often and as
    much, but each training before the last sees the `val` images, which are nobody's.
    What pruning remembers of them is nothing about the pool.
    """
    require(len(rates) >= 1, "rates must hold at least one pruning rate", rates)
    parts, seed = tickets.read(**setting), setting["seed"]
    model, recipe = (
        tickets.build(parts=parts, **setting),
        train.recipe(setting["recipe"]),
    )
    start = {k: v.clone() for k, v in back(model.state_dict()).items()}
    masks = masking.dense(model)
    for rate in rates:
        model.load_state_dict(start)
        given = {"seed": seed + ELSEWHERE, "masks": masks}
        train.fit(model, *parts["val"], recipe, **given)
        state = back(model.state_dict())
        masks = masking.magnitude(state, back(masks), rate)
    return tickets.retrain(start, masks, **setting)
