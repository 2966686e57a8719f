"""Single predictions: what a client sees of them, and what a thief makes of that.

The arguments are those of `thefts`, and

ranks: in [0, 1], rising; 0 is the thief's least sure prediction and 1 the surest.
"""

import pandas as pd
from torch import Tensor

from lottolab import runs
from lottolab.checks import require
from lottolab.modelguard import utility
from lottolab.modelguard.experiments import attackers, rules


@runs.stage("modelguard.experiments.single.seen")
def seen(*, attack: dict, defence: dict, ranks: list[float], **given) -> dict:
    """Ask a service as a thief does, and keep some of the answers, R×C each.

    All of his images are asked about, in his order, and undone together, as in
    `thefts.stolen`, but nothing is trained. `exact` are the target's predictions,
    `answer` what the defence made of them, `recovered` what the thief believes. The
    `measurements` are `answer ℓ1` and `recovered ℓ1`, their distances to the exact
    prediction in [0, 2], with the `rank` of each.
    """
    theft, _ = rules.begun(attack, defence, **given)
    answers = attackers.ask(theft, theft.images)
    guess = attackers.undo(theft, theft.images, answers)
    exact = theft.clean(theft.images)
    places = ranked(exact, ranks)
    found = {"exact": exact[places], "answer": answers[places]}
    found["recovered"] = guess[places]
    rows = [
        {"metric": f"{name} ℓ1", "rank": rank, "value": value}
        for name in ("answer", "recovered")
        for rank, value in zip(
            ranks, utility.l1(found[name], found["exact"]).tolist(), strict=True
        )
    ]
    return found | {"measurements": pd.DataFrame(rows)}


def ranked(predictions: Tensor, ranks: list[float]) -> Tensor:
    """Return the places, int64 [R], of rows N×C by how large their largest entry is.

    Raises ValueError unless the ranks are in [0, 1] and rise.

    >>> import torch
    >>> ranked(torch.tensor([[0.6, 0.4], [0.0, 1.0], [0.5, 0.5]]), [0.0, 0.5, 1.0])
    tensor([2, 0, 1])
    """
    rising = len(ranks) > 0 and list(ranks) == sorted(set(ranks))
    right = rising and ranks[0] >= 0 and ranks[-1] <= 1
    require(right, "ranks must be in [0, 1] and rise", ranks)
    order = predictions.amax(1).argsort(stable=True)
    return order[[round(rank * (len(order) - 1)) for rank in ranks]]
