"""Control: a mask that was found on other images, from the same initialisation.

The arguments are those of `lottolab.nets.tickets`, with the `sizes` of
`partition.halves`: the other images are the half of the pool that the seed's network
does not train on, its partner's. A treatment is {"name": "borrowed", "rates": [0.95]};
it is none of `targets.TREATMENTS`, so that what others have stored stays current.
"""

from lottolab import runs
from lottolab.checks import require
from lottolab.membership.experiments import targets
from lottolab.nets import masks as masking
from lottolab.nets import tickets, train
from lottolab.truth import results


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


@runs.stage("membership.experiments.borrowed.answers")
def answers(*, treatment: dict, **setting) -> dict:
    """Ask a network under a borrowed mask about every image, as `targets.answers`."""
    parts = tickets.read(**setting)
    model = tickets.build(parts=parts, **setting)
    found = ticket(rates=treatment["rates"], **setting)
    model.load_state_dict(found["weights"])
    return targets.question(model, parts, **setting)


def asked(
    setting: dict, treatment: dict, seeds: list[int], marks: dict
) -> list[results.Asked]:
    """Ask for networks and their answers; `marks` are the columns of their rows."""
    given = [setting | {"seed": seed} for seed in seeds]
    trained = results.cross(
        ticket, [g | {"rates": treatment["rates"]} for g in given], marks
    )
    how = {"treatment": treatment}
    return trained + results.cross(answers, [g | how for g in given], marks)
