"""Evidence by answers alone: a filter against it, its abuse, a peer without secrets.

Also the check that p-values are worth their name, by secrets that nobody signed with.
`given` are the arguments of `signatures.signed`, a `setting` those of `tickets.dense`.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import pandas as pd
from torch import nn

from lottolab import runs
from lottolab.checks import require, whole, within
from lottolab.images import datasets
from lottolab.nets import tickets, train
from lottolab.ownership import framework
from lottolab.ownership import triggers as trigger
from lottolab.ownership.attacks import accusing, filtering, training
from lottolab.ownership.channels.naming import State
from lottolab.ownership.defences import boundary, provenance
from lottolab.ownership.experiments import attacks, signatures
from lottolab.ownership.signatures import signature
from lottolab.ownership.signatures.key import SignatureKey


@runs.stage("ownership.experiments.black_box.filtered")
def filtered(*, refused: float, level: int, **given) -> dict:
    """Ask for triggers where a filter answers odd pictures at random.

    See `filtering`: a picture with fewer black pixels than nearly all of the thief's
    own images have is answered by chance.

    Args:
        refused: share of the thief's images that may be refused, in [0, 1).
        level: grey level below which a pixel is black, in [1, 255].

    Metrics: `test_accuracy` behind the filter, what it `refused` of the test images,
    `triggers` and `triggers accepted`.
    """
    within("refused", refused, "[0, 1)")
    whole("level", level, 1)
    owned, setting = signatures.signed(**given), signatures.setting(given)
    parts = tickets.read(**setting)
    share = filtering.cut(parts["holdout"][0], refused, level)
    known = _predictor(owned["weights"], **setting)
    how = {"share": share, "classes": parts["classes"], "level": level}
    service = filtering.filtered(known, secret=framework.stranger(given["seed"]), **how)
    images, labels = parts["test"]
    right = service(images).cpu() == labels
    metrics = {"test_accuracy": float(right.double().mean())}
    odd = filtering.black(images, level) < share
    metrics["refused"] = float(odd.double().mean())
    secret = SignatureKey(**owned["key"]).secret
    seen = trigger.verify_triggers(service, signatures.draw_triggers(secret, **setting))
    metrics["triggers"] = seen.agreement
    return {"metrics": metrics | {"triggers accepted": float(seen.accepted)}}


@runs.stage("ownership.experiments.black_box.accused")
def accused(
    *,
    accusers: list[int],
    judge: int,
    epsilons: list[int],
    steps: int,
    controls: list[float],
    **setting,
) -> dict:
    """Accuse an innocent dense network with dense networks of other seeds.

    See `accusing`; beside `ambiguity.accused`, whose accuser has a sparse network only.

    Args:
        accusers: seeds of the accuser's networks. judge: seed of the judge's, which are
            the dense one and the ticket of the rates `controls`. All differ from the
            innocent's `seed`.
        epsilons: largest changes of a pixel, in [1, 255]. steps: of descent, >= 1.

    Measurements, for each `epsilon`: the share of `triggers` that the innocent answers
    as accused, whether it is `convicted`, also where the judge `compared` with his
    networks or with two of the innocent's own start (`compared, same start`), and
    whether the pictures are `lawful`, just those that the accuser's secret gives.
    """
    seeds = [setting["seed"], *accusers, judge]
    apart = len(set(seeds)) == len(seeds) > 2
    require(apart, "accusers and judge must be seeds of their own", seeds)
    whole("steps", steps, 1)
    parts = tickets.read(**setting)
    scale = datasets.normalisation(parts["train"][0])
    given = {seed: setting | {"seed": seed} for seed in seeds}
    own = [_network(tickets.dense(**given[seed]), **setting) for seed in accusers]
    innocent = _predictor(tickets.dense(**setting)["weights"], **setting)
    pairs = {"compared": [tickets.dense(**given[judge])]}
    pairs["compared"] += [tickets.iterative(rates=controls, **given[judge])]
    pairs["compared, same start"] = [
        stage(rates=controls, **setting)
        for stage in (tickets.random_mask, tickets.iterative)
    ]
    secret = f"{setting['seed']:064x}"
    fair = signatures.draw_triggers(secret, **setting)
    unfair = accusing.accusations(own, fair, scale, epsilons, steps=steps)
    rows = []
    for name, outcomes in pairs.items():
        others = [_predictor(o["weights"], **setting) for o in outcomes]
        lawful = partial(provenance.drawn, secret=secret)
        how = {"unmarked": others, "lawful": lawful}
        judged = accusing.convictions(innocent, unfair, **how)
        for epsilon, found in judged.items():
            rows.append((epsilon, f"convicted, {name}", found["compared"].accepted))
            if name == "compared":
                rows.append((epsilon, "triggers", found["alone"].agreement))
                rows.append((epsilon, "convicted", found["alone"].accepted))
                rows.append((epsilon, "lawful", found["lawful"]))
    table = pd.DataFrame(rows, columns=["epsilon", "metric", "value"])
    return {"measurements": table.astype({"value": float})}


@runs.stage("ownership.experiments.black_box.fingerprinted")
def fingerprinted(
    *,
    count: int,
    margin: float,
    steps: int,
    epochs: int,
    share: float,
    others: list[int],
    **given,
) -> dict:
    """Recognise copies by pictures at the class boundary, and by triggers beside them.

    IPGuard (Cao et al., 2021), see `defences.boundary`, of the signed network and
    `count` of the owner's training images.

    Args:
        margin, steps: as in `boundary.fingerprint`. epochs, share: of the thief's
            training, see `rewriting.unmasked`; distillation takes five times as many.
        others: three seeds of dense networks: two that are known to be independent, and
            a stranger's, which must not be taken for a copy.

    Measurements, for each suspect (column `attack`): `triggers` and `fingerprint`, the
    shares of pictures that it answers as the owner's, and whether each is `accepted`.
    """
    whole("count", count, 1)
    apart = len({given["seed"], *others}) == 4
    require(apart, "others must be three more seeds", others)
    owned, setting = signatures.signed(**given), signatures.setting(given)
    parts = tickets.read(**setting)
    scale = datasets.normalisation(parts["train"][0])
    how = {"classes": parts["classes"], "seed": given["seed"], "margin": margin}
    own = _network(owned, **setting)
    images = parts["train"][0][:count]
    marks = boundary.fingerprint(own, images, scale, steps=steps, **how)
    known = SignatureKey(**owned["key"]).secret
    secret = signatures.draw_triggers(known, **setting)
    dense = [tickets.dense(**setting | {"seed": seed})["weights"] for seed in others]
    unmarked = [_predictor(weights, **setting) for weights in dense[:2]]
    rows = []
    for name, state in [
        *_suspects(owned, given, epochs, share),
        ("stranger", dense[2]),
    ]:
        suspect = _predictor(state, **setting)
        black = trigger.verify_triggers(suspect, secret)
        peer = boundary.verify(suspect, marks, unmarked=unmarked)
        for metric, found in {"triggers": black, "fingerprint": peer}.items():
            rows.append((name, metric, found.agreement))
            rows.append((name, f"{metric} accepted", float(found.accepted)))
    table = pd.DataFrame(rows, columns=["attack", "metric", "value"])
    return {"measurements": table}


def _suspects(
    owned: dict, given: dict, epochs: int, share: float
) -> Iterator[tuple[str, State]]:
    """Yield what was derived from the owner's network, by name."""
    setting, weights = signatures.setting(given), owned["weights"]
    yield "nothing", weights
    names = sorted(owned["masks"])
    yield "pruned 20 %", attacks.removal.prune(weights, names, 0.2, "magnitude", 0)
    parts = tickets.read(**setting)
    scale = datasets.normalisation(parts["train"][0])
    recipe = training.recipe(train.recipe(setting["recipe"]), epochs, share)
    for mask, name in {"kept": "fine-tuned", "dropped": "unmasked"}.items():
        how = {"seed": given["seed"] + 1, "mask": mask, "mean_std": scale}
        model = signatures.network(weights, **setting)
        yield name, training.fine_tune(model, *parts["holdout"], recipe, **how)
    yield "distilled", attacks.ATTACKS["distilled"](owned, given, epochs=5 * epochs)


@runs.stage("ownership.experiments.black_box.chances")
def chances(*, keys: int, **given) -> dict:
    """Are p-values right before they are paid for? Ask `keys` secrets of other people.

    What the price for windows and readings hides stands here: the tail for one reading
    and one window, which must be at most 5 % in 5 % of all cases, and not in far fewer.

    Metrics: how often the tail is `p ≤ 0.05`, `p ≤ 0.01` and `p ≤ 0.001`, of the signed
    network and the text that is there.
    """
    whole("keys", keys, 1)
    owned = signatures.signed(**given)
    key, text = SignatureKey(**owned["key"]), given["text"]
    modules = signature.extract(owned["weights"], key)
    tails = []
    for other in range(keys):
        theirs = replace(key, secret=f"{given['seed'] * keys + other:064x}")
        free = 1 / key.windows  # takes the price back
        tails.append(signature.evidence(modules, theirs, text, free)[1])
    found = pd.Series(tails)
    levels = (0.05, 0.01, 0.001)
    shares = {f"p ≤ {level}": float((found <= level).mean()) for level in levels}
    return {"metrics": shares}


def _network(outcome: dict, **setting) -> nn.Module:
    return signatures.network(outcome["weights"], **setting)


def _predictor(state: State, **setting) -> trigger.Predict:
    scale = datasets.normalisation(tickets.read(**setting)["train"][0])
    return trigger.predictor(signatures.network(state, **setting), scale)
