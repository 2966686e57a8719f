"""Defences as their authors made them, where `services` has a weaker one: MAD.

The stages are those of `thefts` and `studies`, with the same arguments; `defence` may
also be a name in RULES with its arguments.
"""

import time
from dataclasses import replace

import numpy as np
from torch import Tensor

from lottolab import runs
from lottolab.images import datasets
from lottolab.modelguard import MAD, ModelGuardS, utility
from lottolab.modelguard.attacks import measures
from lottolab.modelguard.defences import grown, mad, scan
from lottolab.modelguard.experiments import attackers, services, studies, thefts
from lottolab.modelguard.experiments.attackers import Theft
from lottolab.modelguard.queries import Service
from lottolab.nets import predict, tickets


def turning(parts: dict, setting: dict, **own) -> MAD:
    """Return MAD with the paper's surrogate, a network of random weights."""
    number = setting["seed"] + services.SURROGATE
    surrogate = tickets.build(parts=parts, **setting | {"seed": number})
    return MAD(surrogate, datasets.normalisation(parts["train"][0]), **own)


RULES = {"MAD": turning}


def defended(defence: dict, **setting) -> tuple[Service, dict]:
    """Return the target behind a defence with an empty state, and its parts."""
    name, own = defence["name"], {k: v for k, v in defence.items() if k != "name"}
    if name not in RULES:
        return services.defended(defence, **setting)
    service, parts = services.trained(**setting)
    service.defence = RULES[name](parts, setting, **own)
    return service, parts


def begun(attack: dict, defence: dict, **given) -> tuple[Theft, dict]:
    """Put up the service and give the attacker his images; and the target's parts."""
    theft, parts = thefts.begun(attack, {"name": "none"}, **given)
    service, _ = defended(defence, **theft.setting)
    return replace(theft, service=service), parts


@runs.stage("modelguard.experiments.rules.stolen")
def stolen(*, attack: dict, defence: dict, jbda: int, **given) -> dict:
    """Steal a service by an attack of `attackers`; `metrics` are those of `thefts`."""
    theft, parts = begun(attack, defence, **given)
    images = theft.images
    if jbda:
        images, answers = attackers.grow(theft, jbda)
    else:
        answers = attackers.ask(theft, images)
    targets = attackers.undo(theft, images, answers)
    return {"metrics": judged(theft, parts, images, targets)}


def judged(theft: Theft, parts: dict, images: Tensor, targets: Tensor) -> dict:
    """Train on the targets, N×C; return what was stolen, as `thefts.stolen` does."""
    model = attackers.learn(theft, images, targets)
    test, labels = parts["test"]
    found, clean = predict.logits(model, test, theft.scale), theft.clean(images)
    metrics = {
        "accuracy": predict.accuracy(found, labels),
        "fidelity": measures.fidelity(found, theft.clean(test)),
        "recovery ℓ1": measures.recovery_distance(targets, clean),
        "recovery ℓ2": measures.recovery_distance(targets, clean, p=2),
        "asked": theft.service.asked,
    }
    if isinstance(theft.service.defence, ModelGuardS):
        metrics["centroids"] = theft.service.defence.count
    if theft.exact is not None:
        metrics["exact"] = float(theft.exact.double().mean())
    return metrics


@runs.stage("modelguard.experiments.rules.served")
def served(*, defence: dict, public, budget: int, foreign: dict, **setting) -> dict:
    """Measure what honest users pay; `metrics` are those of `studies.served`."""
    service, parts = defended(defence, **setting)
    clean, _ = services.trained(**setting)
    images, _ = attackers.gathered(public, budget, **setting)
    test, labels = parts["test"]
    others = datasets.get(foreign).images[: len(test)]
    asked, answers, odd = (service(x) for x in (images, test, others))
    truth = clean(test)
    metrics = utility.report(answers, truth, labels, odd)
    metrics["maximal ℓ1, queries"] = float(utility.l1(asked, clean(images)).max())
    kept = answers.argmax(1) == truth.argmax(1)
    metrics["kept"] = float(kept.double().mean())
    return {"metrics": metrics}


@runs.stage("modelguard.experiments.rules.timed")
def timed(*, defence: dict, public, budget: int, **setting) -> dict:
    """Time the answers to single queries; `metrics` are those of `studies.timed`."""
    service, _ = defended(defence, **setting)
    clean, _ = services.trained(**setting)
    images, _ = attackers.gathered(public, budget, **setting)
    service.defence = scan.quick(service.defence)
    seconds = [], []
    for image in images[: studies.SINGLE].split(1):
        for asked, found in zip((service, clean), seconds, strict=True):
            start = time.perf_counter()
            asked(image)
            found.append(time.perf_counter() - start)
    guarded, bare = (float(np.median(found)) for found in seconds)
    return {"metrics": {"response": 1000 * guarded, "times none": guarded / bare}}


@runs.stage("modelguard.experiments.rules.turned")
def turned(*, epsilon: float, public, budget: int, **setting) -> dict:
    """Compare three searches of MAD on the attacker's images.

    `metrics` are the mean `deviation` of the answers, in [0, 4], and the mean size of
    the set of the first two: `while it helps`, the first edition's; `authors`; and
    `answer`, which looks at what the answer turns.
    """
    service, _ = defended({"name": "MAD", "epsilon": epsilon}, **setting)
    clean, _ = services.trained(**setting)
    images, _ = attackers.gathered(public, budget, **setting)
    y = clean(images)
    p = service.defence.guessed(y, images)
    top = y.argmax(1, keepdim=True)
    answers = {
        "while it helps": mad.deviate(y, p, epsilon),
        "authors": grown.deviate(y, p, epsilon),
        "answer": grown.deviate(y, p, epsilon, "answer"),
    }
    metrics = {
        f"deviation, {name}": float(mad.deviation(a, y, p).mean())
        for name, a in answers.items()
    }
    for name, find in (("while it helps", mad.grown_vertex), ("authors", grown.grown)):
        chosen = find(y.double(), p.double(), top)
        metrics[f"classes, {name}"] = float(chosen.sum(1).double().mean())
    return {"metrics": metrics}
