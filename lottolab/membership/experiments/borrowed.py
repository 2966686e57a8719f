"""Control: a mask that was found on other images, from the same initialisation.

The arguments are those of `lottolab.nets.tickets`, with the `sizes` of
`partition.halves`. The other images are the `partner`'s, the half of the pool that the
seed's network does not train on, or those of `outsiders`, as many that are in no pool.
The partner's are the network's non-members, and a mask knows whose images chose it:
under a partner's mask members and others are harder to tell apart than under one that
knows neither. A treatment is {"name": "borrowed", "rates": [0.95], "found_on":
"outsiders"}; it is none of `targets.TREATMENTS`, so that what others have stored stays
current.
"""

from lottolab import runs
from lottolab.checks import require
from lottolab.membership.experiments import apart, targets
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
    return _trained(parts | {"train": parts["out"]}, **setting)


@runs.stage("membership.experiments.borrowed.outsiders")
def outsiders(**setting) -> dict:
    """Train the seed's dense network on images that no network of its pool has seen.

    As many as its own, if so many are left (see `apart.disjoint`); initialisation and
    order are the seed's.
    """
    models = setting["sizes"]["models"]
    group, place = divmod(setting["seed"], models)
    parts = tickets.read(**setting)
    images, labels, member = apart.disjoint(group, place, models, **setting)
    return _trained(parts | {"train": (images[member], labels[member])}, **setting)


def _trained(parts: dict, **setting) -> dict:
    model = tickets.build(parts=parts, **setting)
    recipe = train.recipe(setting["recipe"])
    fitted = train.fit(model, *parts["train"], recipe, seed=setting["seed"])
    return tickets.judge(model, masking.dense(model), parts, fitted)


FOUND = {"partner": partner, "outsiders": outsiders}


@runs.stage("membership.experiments.borrowed.ticket")
def ticket(*, rates: list[float], found_on: str, **setting) -> dict:
    """Train the seed's network under the mask of one-shot pruning on others' images.

    The mask's network started from the very weights that the mask is now put on, so
    that nothing differs from a one-shot ticket but whose images chose the mask, the
    `partner`'s or the `outsiders`'.
    """
    require(len(rates) == 1, "rates must hold one pruning rate", rates)
    start = setting["rewind_at"]
    require(start == 0, "rewind_at must be 0, the initialisation", start)
    require(found_on in FOUND, f"found_on must be one of {[*FOUND]}", found_on)
    other = FOUND[found_on](**setting)
    masks = masking.magnitude(other["weights"], other["masks"], rates[0])
    return tickets.retrain(tickets.dense(**setting)["rewind"], masks, **setting)


@runs.stage("membership.experiments.borrowed.answers")
def answers(*, treatment: dict, **setting) -> dict:
    """Ask a network under a borrowed mask about every image, as `targets.answers`."""
    parts = tickets.read(**setting)
    model = tickets.build(parts=parts, **setting)
    found = ticket(**_how(treatment), **setting)
    model.load_state_dict(found["weights"])
    return targets.question(model, parts, **setting)


def asked(
    setting: dict, treatment: dict, seeds: list[int], marks: dict
) -> list[results.Asked]:
    """Ask for networks and their answers; `marks` are the columns of their rows."""
    given = [setting | {"seed": seed} for seed in seeds]
    trained = results.cross(ticket, [g | _how(treatment) for g in given], marks)
    how = {"treatment": treatment}
    return trained + results.cross(answers, [g | how for g in given], marks)


def _how(treatment: dict) -> dict:
    return {key: treatment[key] for key in ("rates", "found_on")}
