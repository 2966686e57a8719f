"""What honest users pay, and single questions of the paper.

The arguments are those of `services` and `thefts`. Nothing is stolen here, so that the
attacker's images, `public` and `budget`, are only what a service is asked first.
"""

import time

import numpy as np
import pandas as pd
import torch

from lottolab import runs
from lottolab.checks import whole
from lottolab.images import datasets
from lottolab.modelguard import ModelGuardS, utility
from lottolab.modelguard.attacks import averaging, bayes, measures
from lottolab.modelguard.defences import scan
from lottolab.modelguard.experiments import attackers, services

SINGLE = 200  # queries that are timed one by one


@runs.stage("modelguard.experiments.studies.served")
def served(*, defence: dict, public, budget: int, foreign: dict, **setting) -> dict:
    """Measure what a defence costs honest users, after an attacker has asked.

    The service answers the attacker's images, the target's test images and, as foreign
    ones, the first of the data set `foreign`, as many, in this order and by the same
    state. `metrics` are those of `utility.report` on the test images; `maximal ℓ1,
    queries`, of the attacker's; `kept`, the share of test images whose top-1 class is
    the target's; `centroids` and `distinct`, how many different answers he got.
    """
    service, parts = services.defended(defence, **setting)
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
    metrics["distinct"] = len(torch.unique(asked, dim=0))
    if isinstance(service.defence, ModelGuardS):
        metrics["centroids"] = service.defence.count
    return {"metrics": metrics}


@runs.stage("modelguard.experiments.studies.timed")
def timed(*, defence: dict, public, budget: int, **setting) -> dict:
    """Time the answers to single queries, the network included (Figure 6).

    `response` is the median over 200 of them, in ms, after the attacker has asked, and
    `times none` its ratio to that without the defence, asked in turns. A time never
    repeats to the last digit.
    """
    service, _ = services.defended(defence, **setting)
    clean, _ = services.trained(**setting)
    images, _ = attackers.gathered(public, budget, **setting)
    service(images)
    service.defence = scan.quick(service.defence)
    seconds = [], []
    for image in images[:SINGLE].split(1):
        for asked, found in zip((service, clean), seconds, strict=True):
            start = time.perf_counter()
            asked(image)
            found.append(time.perf_counter() - start)
    guarded, bare = (float(np.median(found)) for found in seconds)
    return {"metrics": {"response": 1000 * guarded, "times none": guarded / bare}}


@runs.stage("modelguard.experiments.studies.grown")
def grown(*, defence: dict, public, budget: int, **setting) -> dict:
    """Count a quantiser's centroids while the attacker asks (Figure 5, right).

    `measurements` holds the count after each twentieth of the `queries`, and
    `second half`, the share of centroids that the second half of them opened.
    """
    whole("budget", budget, 20)
    service, _ = services.defended(defence, **setting)
    images, _ = attackers.gathered(public, budget, **setting)
    counts, queries = [], []
    for part in images.tensor_split(20):
        service(part)
        counts.append(service.defence.count)
        queries.append(service.asked)
    rows = pd.DataFrame({"metric": "centroids", "value": counts, "queries": queries})
    half = {"metric": "second half", "value": 1 - counts[9] / counts[-1]}
    return {"measurements": pd.concat([rows, pd.DataFrame([half])])}


@runs.stage("modelguard.experiments.studies.asked_twice")
def asked_twice(*, defence: dict, public, budget: int, **setting) -> dict:
    """Ask a quantiser for everything twice (2-QPI, Table 6).

    How many answers `changed`, and for those the distance to the prediction in ℓ2, of
    the first answer, `1-QPI`, and of the mean of both, `2-QPI`; 0 where none changed.
    """
    service, _ = services.defended(defence, **setting)
    clean, _ = services.trained(**setting)
    images, _ = attackers.gathered(public, budget, **setting)
    first = services.defended(defence, **setting)[0](images)
    both, changed = averaging.repeated(service, images)
    metrics = {"changed": int(changed.sum()), "1-QPI": 0.0, "2-QPI": 0.0}
    if changed.any():
        truth = clean(images[changed])
        for name, answers in (("1-QPI", first), ("2-QPI", both)):
            there = answers[changed]
            metrics[name] = measures.recovery_distance(there, truth, p=2)
    return {"metrics": metrics}


@runs.stage("modelguard.experiments.studies.completed")
def completed(
    *, defence: dict, public, budget: int, steps: int, draws: int, **setting
) -> dict:
    """Compare partial Bayes with the complete table, at three classes (section 3.4).

    `measurements` are `recovery ℓ2` of four attackers: `naive`; `partial Bayes`, the
    paper's, whose table is drawn around the target's predictions; `complete table`, all
    predictions on a grid of `steps` to the side, which count alike; and `true prior`,
    the target's predictions of the public images that the attacker does not ask about.
    """
    service, _ = services.defended(defence, **setting)
    clean, _ = services.trained(**setting)
    images, _ = attackers.gathered(public, budget, **setting)
    answers, truth = service(images), clean(images)
    guard = service.defence
    known = guard.peek if isinstance(guard, ModelGuardS) else guard
    others = clean(_rest(public, budget, **setting))
    seed = setting["seed"]
    tables = {
        "partial Bayes": bayes.lookup_table(truth, known, draws=draws, seed=seed),
        "complete table": bayes.pairs([(grid(steps), None)], known),
        "true prior": bayes.pairs([(others, None)], known),
    }
    found = {"naive": answers}
    for name, table in tables.items():
        found[name] = bayes.recover_partial_bayes(answers, table)
    rows = [
        {"attack": n, "value": measures.recovery_distance(x, truth, p=2)}
        for n, x in found.items()
    ]
    return {"measurements": pd.DataFrame(rows).assign(metric="recovery ℓ2")}


def grid(steps: int) -> torch.Tensor:
    """Return all rows of three multiples of 1/`steps` that sum to 1, float32 M×3.

    >>> len(grid(2))
    6
    """
    whole("steps", steps, 1)
    first, second = torch.meshgrid(*[torch.arange(steps + 1)] * 2, indexing="ij")
    there = first + second <= steps
    a, b = first[there], second[there]
    return torch.stack([a, b, steps - a - b], 1).float() / steps


def _rest(public: dict, budget: int, **setting) -> torch.Tensor:
    """Return the public images that the attacker does not have."""
    everything = len(datasets.get(public).images)
    return attackers.gathered(public, everything, **setting)[0][budget:]
