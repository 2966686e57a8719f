"""Whose network is it? Three kinds of evidence on the same suspects.

The owner's network is a ticket with a signature and triggers, `systems.DEFENCES[:2]`.
A *suspect* is a dict of its `name` in SUSPECTS and whatever else that needs.
"""

from scipy import stats
from torch import Tensor

from lottolab import runs
from lottolab.checks import one_of
from lottolab.images import datasets
from lottolab.membership import metrics
from lottolab.mia_pruning.defences import admm
from lottolab.modelguard.queries import Service
from lottolab.nets import masks as masking
from lottolab.nets import predict, tickets, train
from lottolab.nets.device import back
from lottolab.ownership import triggers as trigger
from lottolab.ownership.attacks import removal
from lottolab.ownership.experiments import signatures
from lottolab.ownership.signatures import signature
from lottolab.ownership.signatures.key import SignatureKey
from lottolab.together import leaks, systems, worth

MARKED = list(systems.DEFENCES[:2])
RIVAL = 8_000_000  # is added to the seed of who trains on the owner's images


@runs.stage("together.evidence.judged")
def judged(*, suspect: dict, owner: dict, thief: dict, **setting) -> dict:
    """Look for the owner's three kinds of evidence in a suspect.

    `metrics`: `accuracy` on test images; `signature`, agreement of the claimed code;
    `triggers`, agreement; `auc` of the calibrated membership attack on the owner's
    training images against the rest of his pool; and for each whether the claim is
    `accepted`, at a p-value below 10⁻⁶: `signature accepted`, `triggers accepted`,
    `members accepted` (one-sided Mann-Whitney test of the calibrated log odds).
    """
    one_of("suspect", suspect["name"], SUSPECTS)
    own = {k: v for k, v in suspect.items() if k != "name"}
    given = {"owner": owner, "thief": thief} | setting
    model, scale = SUSPECTS[suspect["name"]](**own, **given)
    mine, parts = owned(owner, **setting), tickets.read(**setting)
    service = Service(model, scale)
    test, labels = parts["test"]
    found = {"accuracy": predict.accuracy(service(test), labels)}
    key, state = SignatureKey(**mine["key"]), back(model.state_dict())
    white = signature.verify(state, key, claim=owner["text"])
    secrets = signatures.draw_triggers(key.secret, **setting)
    black = trigger.verify_triggers(trigger.predictor(model, scale), secrets)
    found |= {"signature": white.agreement, "signature accepted": float(white.accepted)}
    found |= {"triggers": black.agreement, "triggers accepted": float(black.accepted)}
    _, member = leaks.members(**setting)
    odds = leaks.odds(service(parts["pool"][0]), parts["pool"][1])
    scores = leaks.calibrated(odds, **setting)
    found["auc"] = metrics.auc(scores, member)
    p_value = claimed(scores, member)
    found["members accepted"] = float(p_value < signature.ACCEPT)
    return {"metrics": found}


def claimed(scores: Tensor, member: Tensor) -> float:
    """Return the p-value of a claim that a network was trained on the members.

    Who is a member was drawn at random from the pool, so a network that does not
    depend on that draw gives all of the pool's images the same chances.
    """
    pair = scores[member].numpy(), scores[~member].numpy()
    return float(stats.mannwhitneyu(*pair, alternative="greater").pvalue)


def owned(owner: dict, **setting) -> dict:
    """Return the owner's network, signed and taught."""
    stage, given = systems.single(MARKED, owner, **setting)
    return stage(**given)


def _scaled(state: dict[str, Tensor], **setting):
    """Return the network of a state dict, and what normalises its images."""
    scale = datasets.normalisation(tickets.read(**setting)["train"][0])
    return signatures.network(state, **setting), scale


def _stolen(*, owner: dict, thief: dict, **setting):
    return _scaled(owned(owner, **setting)["weights"], **setting)


def _tuned(*, epochs: int, owner: dict, thief: dict, **setting):
    """Train on with the thief's labelled images."""
    mine = owned(owner, **setting)
    state = continued(mine["weights"], mine["masks"], epochs, thief, **setting)
    return _scaled(state, **setting)


def _pruned(
    *, method: str, amount: float, epochs: int, owner: dict, thief: dict, **setting
):
    """Prune `amount` of what is left, by chapter 1's magnitude or chapter 5's ADMM.

    Both train on the thief's images for `epochs` in all; ADMM half of them before it
    cuts, with `thief["rho"]`, so that weights which were pruned may come back.
    """
    one_of("method", method, METHODS)
    mine = owned(owner, **setting)
    return METHODS[method](mine, amount, epochs, thief, **setting)


def _by_magnitude(mine: dict, amount: float, epochs: int, thief: dict, **setting):
    names = sorted(mine["masks"])
    state = removal.prune(mine["weights"], names, amount, "magnitude", setting["seed"])
    masks = removal.sparsity(state, names)
    return _scaled(continued(state, masks, epochs, thief, **setting), **setting)


def _by_admm(mine: dict, amount: float, epochs: int, thief: dict, **setting):
    model, scale = _scaled(mine["weights"], **setting)
    counts = {n: round((1 - amount) * int(m.sum())) for n, m in mine["masks"].items()}
    first = max(1, epochs // 2)
    given = {"rho": thief["rho"], "mean_std": scale}
    given |= {"retrain": _recipe(thief, epochs - first)}
    given |= {"seed": setting["seed"] + systems.THIEF}
    own = leaks.strangers(thief["images"], **setting)
    recipe = _recipe(thief, first, schedule="constant")
    masks, _ = admm.admm_prune(model, *own, recipe, counts, **given)
    masking.apply_(model, masks)
    return model, scale


METHODS = {"magnitude": _by_magnitude, "ADMM": _by_admm}


def _recipe(thief: dict, epochs: int, **more) -> train.Recipe:
    """Return the thief's recipe for going on: from a fifth of his peak rate."""
    lr = thief["recipe"].get("lr", train.Recipe.lr) / 5
    return train.recipe(thief["recipe"] | {"epochs": epochs, "lr": lr} | more)


def _copy(*, guard: dict, owner: dict, thief: dict, **setting):
    """Train a network of one's own on the owner's answers."""
    given = {"defences": MARKED, "guard": guard, "owner": owner, "thief": thief}
    return worth.substitute(**given, **setting)


def _stranger(*, overlap: str, owner: dict, thief: dict, **setting):
    """Return an innocent network: chapter 2's dense one of another half of the pool.

    `overlap` with the owner's images: "none", the other half; "half", the next pair's.
    "all": somebody else trained on the very same images.
    """
    one_of("overlap", overlap, OVERLAPS)
    seed, models = setting["seed"], setting["sizes"]["models"]
    if overlap == "all":
        return _scaled(rival(**setting)["weights"], **setting)
    other = seed ^ 1
    if overlap == "half":
        other = seed - seed % models + (seed % models + 2) % models
    there = setting | {"seed": other}
    return _scaled(tickets.dense(**there)["weights"], **there)


@runs.stage("together.evidence.rival")
def rival(**setting) -> dict:
    """Train a dense network on the owner's images, from another initialisation.

    What comes back is that of `tickets.judge`.
    """
    parts, seed = tickets.read(**setting), setting["seed"] + RIVAL
    model = tickets.build(parts=parts, **setting | {"seed": seed})
    recipe = train.recipe(setting["recipe"])
    fitted = train.fit(model, *parts["train"], recipe, seed=seed)
    return tickets.judge(model, masking.dense(model), parts, fitted)


OVERLAPS = ("none", "half", "all")
SUSPECTS = {
    "stolen": _stolen,
    "tuned": _tuned,
    "pruned": _pruned,
    "copy": _copy,
    "stranger": _stranger,
}


def continued(
    state: dict[str, Tensor], masks: masking.Masks, epochs: int, thief: dict, **setting
) -> dict[str, Tensor]:
    """Train on with the thief's images, under the masks."""
    model, scale = _scaled(state, **setting)
    own = leaks.strangers(thief["images"], **setting)
    given = {"seed": setting["seed"] + systems.THIEF, "masks": masks, "mean_std": scale}
    train.fit(model, *own, _recipe(thief, epochs), **given)
    return {k: v.cpu() for k, v in model.state_dict().items()}


@runs.stage("together.evidence.false_claims")
def false_claims(**setting) -> dict:
    """Count how many innocent models of the pool the members' evidence accuses.

    They are chapter 2's dense models of the pool but the owner's seed; all but its
    partner share half of the images with him.
    """
    _, member = leaks.members(**setting)
    known, _ = leaks.references(**setting)
    accused = [
        claimed(leaks.calibrated(odds, **setting), member) < signature.ACCEPT
        for odds in known
    ]
    return {"metrics": {"accused": sum(accused), "innocent": len(accused)}}
