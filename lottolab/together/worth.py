"""What each defence is worth in a system, and what copies and other teams do to it."""

from torch import Tensor, nn

from lottolab import runs
from lottolab.checks import one_of
from lottolab.ensembles.attacks.gradient import pgd
from lottolab.ensembles.experiments import trials
from lottolab.ensembles.queries import Normalised
from lottolab.ensembles.sampler import Sampler
from lottolab.images import datasets
from lottolab.modelguard.attacks import extraction, measures
from lottolab.modelguard.queries import Service
from lottolab.nets import predict, tickets, train
from lottolab.nets.device import here
from lottolab.ownership import triggers as trigger
from lottolab.ownership.attacks import removal
from lottolab.ownership.experiments import signatures
from lottolab.ownership.signatures import signature
from lottolab.ownership.signatures.key import SignatureKey
from lottolab.together import leaks
from lottolab.together.systems import (
    THIEF,
    answering,
    key_of,
    single,
)

SCRATCHED = 0.1  # the share of the weights that a thief removes from what he stole


@runs.stage("together.worth.copied")
def copied(*, defences: list[str], guard: dict, owner: dict, thief: dict, **setting):
    """Copy a system: ask about each of the thief's images once, train on the answers.

    He takes the answers as they are (chapter 4's naive attack); behind the guard
    "Top-1" these are classes. Returns `weights`, and `metrics`: `accuracy` on the test
    images and `fidelity`, agreement with the system's clean predictions.
    """
    service, _, parts = answering(defences, guard, owner, **setting)
    images = leaks.strangers(thief["images"], **setting)[0]
    scale, recipe = datasets.normalisation(images), train.recipe(thief["recipe"])
    given = {"seed": setting["seed"] + THIEF, "mean_std": scale}
    answers = service(images)
    model = extraction.extract(images, answers, thief["network"], recipe, **given)
    test, labels = parts["test"]
    found = predict.logits(model, test, scale)
    service.defence = None
    metrics = {
        "accuracy": predict.accuracy(found, labels),
        "fidelity": measures.fidelity(found, service(test)),
    }
    weights = {k: v.cpu() for k, v in model.state_dict().items()}
    return {"weights": weights, "metrics": metrics}


def substitute(*, thief: dict, **given) -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    """Return the copy's network and what normalises its images."""
    setting = {
        k: v for k, v in given.items() if k not in ("defences", "guard", "owner")
    }
    parts = tickets.read(**setting)
    model = tickets.build(parts=parts, **setting | {"network": thief["network"]})
    model.load_state_dict(copied(thief=thief, **given)["weights"])
    return model, datasets.normalisation(leaks.strangers(thief["images"], **setting)[0])


@runs.stage("together.worth.measured")
def measured(
    *,
    defences: list[str],
    guard: dict,
    owner: dict,
    thief: dict,
    attack: dict,
    **setting,
) -> dict:
    """Measure what every defence is for, in one system.

    `attack` holds `epsilon`, `step`, `steps` and `eot` of PGD, the number of `images`
    and of `draws`. `metrics`, all in [0, 1]:

    accuracy: of the service on test images.
    signature: agreement of the claimed code, mean over the members of a team, after a
        thief has pruned a tenth; `signature accepted`: the claim, the same way.
    triggers: agreement, asked through the service. Both are there for systems that
        carry them, and as a control for the one without any defence.
    auc: of the calibrated membership attack, asked through the service.
    copy accuracy, copy fidelity: of a copy of the service.
    robust accuracy: under PGD, which sees all but the draws.
    """
    given = {"defences": defences, "guard": guard, "owner": owner} | setting
    service, outcomes, parts = answering(**given)
    test, labels = parts["test"]
    right = service(test).argmax(1) == labels
    metrics = {"accuracy": float(right.double().mean())}
    if "signature" in defences or not defences:
        claims = outcomes if defences else [unsigned(outcomes[0], owner, **setting)]
        metrics |= signed_still(claims, owner["text"], setting["seed"])
    if "triggers" in defences or not defences:
        secrets = signatures.draw_triggers(key_of(outcomes[0], **setting), **setting)
        found = trigger.verify_triggers(lambda x: service(x).argmax(1), secrets)
        metrics["triggers"] = found.agreement
    metrics["auc"] = leaks.exposed(service(parts["pool"][0]), **setting)["auc"]
    copy_of = copied(thief=thief, **given)["metrics"]
    metrics |= {f"copy {name}": value for name, value in copy_of.items()}
    target = attackable(service)
    x, y = first(parts, attack["images"])
    found = attacked(target, x, y, attack, setting["seed"])
    metrics["robust accuracy"] = survived(target, found, y, attack, setting["seed"])
    return {"metrics": metrics}


@runs.stage("together.worth.fooled")
def fooled(*, source: dict, owner: dict, thief: dict, attack: dict, **setting) -> dict:
    """Attack a team with examples that were made elsewhere.

    `source` has a `name`: "itself", the team with its draws averaged; "copy" of the
    system of `defences`; or "stranger", a network that another half of the pool was
    used for. `metrics`: the team's `accuracy` on them, and that of the `source`.
    """
    none, seed = {"name": "none"}, setting["seed"]
    given = {"guard": none, "owner": owner} | setting
    service, _, parts = answering(["team"], **given)
    target = attackable(service)
    if source["name"] == "itself":
        maker = target
    elif source["name"] == "copy":
        copy_of = substitute(defences=source["defences"], thief=thief, **given)
        maker = here(Normalised(*copy_of).eval())
    else:
        one_of("source", source["name"], ("itself", "copy", "stranger"))
        maker = attackable(answering([], **given | {"seed": seed ^ 1})[0])
    x, y = first(parts, attack["images"])
    found = attacked(maker, x, y, attack, seed)
    metrics = {
        "accuracy": survived(target, found, y, attack, seed),
        "source accuracy": survived(maker, found, y, attack, seed),
    }
    return {"metrics": metrics}


def attackable(service: Service) -> nn.Module:
    """Return what is behind a service as a model of images in [0, 1]."""
    if isinstance(service.model, Sampler):
        return service.model
    return here(Normalised(service.model, service.mean_std).eval())


def first(parts: dict, count: int) -> tuple[Tensor, Tensor]:
    """Return the first test images in [0, 1], and their labels."""
    images, labels = parts["test"]
    return here((images[:count].float() / 255, labels[:count]))


def attacked(
    target: nn.Module, x: Tensor, y: Tensor, attack: dict, seed: int
) -> Tensor:
    """Return PGD's examples; draws are averaged where there are some."""
    drawn = isinstance(target, Sampler)
    given = {k: attack[k] for k in ("epsilon", "step", "steps")}
    given |= {"eot": attack["eot"] if drawn else 1, "stop": not drawn, "seed": seed}
    if drawn:
        target.per = "batch"
    return pgd(target, x, y, **given)


def survived(target: nn.Module, x: Tensor, y: Tensor, attack: dict, seed: int) -> float:
    """Return the accuracy on examples, over fresh draws where there are some."""
    hits = trials.hits(target, x, y, attack["draws"], seed + trials.SCORE)
    return float(hits.double().mean())


def signed_still(outcomes: list[dict], text: str, seed: int) -> dict[str, float]:
    """Return the mean over members of what a claim finds after a tenth is pruned."""
    found = []
    for outcome in outcomes:
        key = SignatureKey(**outcome["key"])
        names = sorted(outcome["masks"])
        state = outcome["weights"]
        state = removal.prune(state, names, SCRATCHED, "magnitude", seed)
        found.append(signature.verify(state, key, claim=text))
    count = len(found)
    return {
        "signature": sum(claim.agreement for claim in found) / count,
        "signature accepted": sum(claim.accepted for claim in found) / count,
    }


def unsigned(outcome: dict, owner: dict, **setting) -> dict:
    """Return a network's outcome with the key of a signature that it does not carry."""
    stage, given = single(["signature"], owner, **setting)
    return outcome | {"key": stage(**given)["key"]}
