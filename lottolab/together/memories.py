"""What robust networks, and teams of them, remember of their training images."""

from torch import nn

from lottolab import runs
from lottolab.checks import one_of
from lottolab.ensembles.experiments import libraries
from lottolab.ensembles.queries import Normalised
from lottolab.ensembles.sampler import Ensemble
from lottolab.modelguard.queries import Service
from lottolab.nets import predict, tickets
from lottolab.nets.device import here
from lottolab.ownership.experiments import signatures
from lottolab.together import leaks
from lottolab.together.systems import PIXELS, member, shared, subnetwork, team


@runs.stage("together.worth.memorised")
def memorised(*, kind: str, owner: dict, **setting) -> dict:
    """Ask what a robust network remembers: `metrics` of `leaks.exposed`, and accuracy.

    kind: "standard", chapter 2's dense network; "adversarial", the team's first
    structure, trained adversarially for as many epochs; "ticket", the same with its
    weights frozen and their scores trained, at the largest ratio; "member", the same as
    it is in the team; "draw", the team as it answers; "static", all members at once.
    """
    one_of("kind", kind, KINDS)
    parts = tickets.read(**setting)
    service = Service(KINDS[kind](owner, **setting), PIXELS)
    test, labels = parts["test"]
    found = {"accuracy": predict.accuracy(service(test), labels)}
    return {"metrics": found | leaks.exposed(service(parts["pool"][0]), **setting)}


def _standard(owner: dict, **setting) -> nn.Module:
    scale = libraries.scale(tickets.read(**setting))
    model = signatures.network(tickets.dense(**setting)["weights"], **setting)
    return here(Normalised(model, scale))


def _adversarial(owner: dict, **setting) -> nn.Module:
    how, parts = owner["team"], tickets.read(**setting)
    network, epochs = how["structures"][0], setting["recipe"]["epochs"]
    recipe = how["search"] | {"lr": how["dense_lr"], "epochs": epochs}
    own = {"inner": how["inner"], "background": "plain", "recipe": recipe}
    found = libraries.dense(network=network, **own, **shared(setting))
    model = tickets.build(parts=parts, **setting | {"network": network})
    model.load_state_dict(found["weights"])
    return here(Normalised(model, libraries.scale(parts)))


def _ticket(owner: dict, **setting) -> nn.Module:
    return _searched(owner, setting["recipe"]["epochs"], **setting)


def _member(owner: dict, **setting) -> nn.Module:
    return _searched(owner, owner["team"]["search"]["epochs"], **setting)


def _searched(owner: dict, epochs: int, **setting) -> nn.Module:
    how = owner["team"]
    network, ratio = how["structures"][0], how["ratios"][0][-1]
    given = {"network": network, "ratio": ratio, "inner": how["inner"], "owner": {}}
    search = how["search"] | {"epochs": epochs}
    found = member(**given, search=search, **shared(setting))
    return subnetwork(found, network, ratio, **setting)


def _draw(owner: dict, **setting) -> nn.Module:
    return team([], owner, **setting)[0]


def _static(owner: dict, **setting) -> nn.Module:
    return Ensemble(list(team([], owner, **setting)[0].networks))


KINDS = {
    "standard": _standard,
    "adversarial": _adversarial,
    "ticket": _ticket,
    "member": _member,
    "draw": _draw,
    "static": _static,
}
