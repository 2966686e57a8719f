"""A stolen network that its thief trains on, or signs again, and what it still shows.

`given` are the arguments of `signatures.signed`; the thief has the `holdout` images.
"""

from lottolab import runs
from lottolab.checks import number, one_of, require, whole, within
from lottolab.images import datasets
from lottolab.nets import masks as masking
from lottolab.nets import tickets, train
from lottolab.ownership import framework
from lottolab.ownership.attacks import (
    detector,
    obfuscation,
    resigning,
    symmetry,
    training,
)
from lottolab.ownership.channels.naming import State
from lottolab.ownership.experiments import attacks, disguises, signatures, thief
from lottolab.ownership.signatures import signature
from lottolab.ownership.signatures.key import SignatureKey

KNOWS = ("insider", "detector")


@runs.stage("ownership.experiments.rewriting.unmasked")
def unmasked(
    *,
    mask: str,
    epochs: int,
    share: float,
    split: float,
    sparse: bool,
    permuted: bool,
    **given,
) -> dict:
    """Train a stolen network on, under the owner's mask or under none, and look again.

    Args:
        mask: `kept` or `dropped`, see `training.fine_tune`. epochs: >= 1.
        share: of the owner's peak learning rate that the thief starts from, in (0, 1].
        split: if > 0, hidden channels are written twice before, with split weights of
            this size (`obfuscation.duplicate`); without the mask alone.
        sparse: prune to the ticket's density afterwards; that has been `kept` anyway.
        permuted: permute the channels at last, which changes no answer.

    Metrics: what the network is worth (`thief.described`), `triggers` and `triggers
    accepted`, and what the readers of `disguises.readers` find; `plain` is read before
    channels are permuted.
    """
    one_of("mask", mask, training.MASKS)
    whole("epochs", epochs, 1)
    within("share", share, "(0, 1]")
    number("split", split, 0)
    require(not split or mask == "dropped", "split must be 0 where mask is kept", split)
    for name, value in {"sparse": sparse, "permuted": permuted}.items():
        require(type(value) is bool, f"{name} must be true or false", value)
    owned, setting = signatures.signed(**given), signatures.setting(given)
    density = masking.density(owned["masks"]) if sparse and mask == "dropped" else None
    state = owned["weights"]
    if split:
        state = obfuscation.duplicate(state, given["seed"], size=split)
    state = _trained(state, mask, density, epochs, share, **setting)
    key = SignatureKey(**owned["key"])
    metrics = thief.described(state, owned, **setting)
    before = signatures.recognised(state, key, given["text"], **setting)
    if permuted:
        state = symmetry.permute(state, given["seed"])
    metrics |= disguises.readers(state, owned, given)
    for name in {"modules", "accepted", "decoded"} & before.keys():
        metrics[f"plain {name}"] = before[name]
    told = ("triggers", "triggers accepted")
    return {"metrics": metrics | {name: before[name] for name in told}}


@runs.stage("ownership.experiments.rewriting.resigned")
def resigned(*, knows: str, measure: str, epochs: int, share: float, **given) -> dict:
    """Sign a stolen network in the owner's own window and train it under the new mask.

    Beside the paper's fake_3, which writes noise there (section 4.4).

    Args:
        knows: the `insider` is told the window, the others take the one that their
            `detector` points at, by `measure` (see `attacks.detector`).
        epochs: >= 1. share: as in `unmasked`.

    Metrics: what the network is worth, `triggers`, what the readers of
    `disguises.readers` find for the owner, whether the thief's own claim is `thief
    accepted` and his text `thief decoded`, and whether his window is the owner's (`true
    window`).
    """
    one_of("knows", knows, KNOWS)
    one_of("measure", measure, detector.MEASURES)
    whole("epochs", epochs, 1)
    within("share", share, "(0, 1]")
    owned, setting = signatures.signed(**given), signatures.setting(given)
    key, weights = SignatureKey(**owned["key"]), owned["weights"]
    row, column = key.row, key.column
    if knows == "detector":
        row, column = detector.found(weights[key.layer], key.version, measure)
    where = {"layer": key.layer, "row": row, "column": column}
    how = where | {"version": key.version, "ecc": key.ecc, "seed": given["seed"]}
    secret = framework.stranger(given["seed"])
    state, theirs = resigning.resign(weights, attacks.THIEF, secret, **how)
    state = _trained(state, "kept", None, epochs, share, **setting)
    theirs = signature.calibrate(state, theirs)
    own = signatures.white_box(state, theirs, attacks.THIEF)
    metrics = thief.described(state, owned, **setting)
    black = signatures.recognised(state, key, given["text"], **setting)
    metrics |= {name: black[name] for name in ("triggers", "triggers accepted")}
    metrics |= disguises.readers(state, owned, given)
    metrics |= {f"thief {name}": own[name] for name in ("accepted", "decoded")}
    return {"metrics": metrics | {"true window": float(_same(key, row, column))}}


@runs.stage("ownership.experiments.rewriting.fullness")
def fullness(*, measure: str, **given) -> dict:
    """Look for the window by what living kernels hold, see `attacks.detector`.

    Metrics: the true window's `rank` among all `windows`, 1 the most suspicious;
    whether it is `found`, the first of all; and both for the unsigned ticket (`unsigned
    rank`, `unsigned found`), where there is nothing to be found.
    """
    one_of("measure", measure, detector.MEASURES)
    owned, setting = signatures.signed(**given), signatures.setting(given)
    key = SignatureKey(**owned["key"])
    twin = tickets.iterative(rates=given["rates"], **setting)
    metrics = {"windows": key.windows}
    for name, outcome in {"": owned, "unsigned ": twin}.items():
        layer = outcome["weights"][key.layer]
        table = detector.fullness(layer, key.version, measure)
        rank = detector.rank(table, key.row, key.column)
        metrics |= {f"{name}rank": rank, f"{name}found": float(rank == 1)}
    return {"metrics": metrics}


@runs.stage("ownership.experiments.rewriting.moved")
def moved(
    *, other: str | dict, sizes_there: dict, epochs: int, share: float, **given
) -> dict:
    """Train a signed network on the data set `other`, as its thief would (section 4.3).

    It gets a new classifier and `epochs` on that set's training images, under the
    owner's mask, from a `share` of the owner's peak learning rate on.

    Metrics: `test_accuracy there` and `modules there`.
    """
    whole("epochs", epochs, 1)
    within("share", share, "(0, 1]")
    owned, setting = signatures.signed(**given), signatures.setting(given)
    there = setting | {"dataset": other, "sizes": sizes_there}
    parts = tickets.read(**there)
    model = tickets.build(parts=parts, **there)
    head = {k: v for k, v in model.state_dict().items() if k.startswith("fc.")}
    state = owned["weights"] | head
    state = _trained(state, "kept", None, epochs, share, part="train", **there)
    accuracy = tickets.accuracy(signatures.network(state, **there), parts)
    key = SignatureKey(**owned["key"])
    modules = signature.verify(state, key, claim=given["text"]).agreement
    return {"metrics": {"test_accuracy there": accuracy, "modules there": modules}}


def _same(key: SignatureKey, row: int, column: int) -> bool:
    return (row, column) == (key.row, key.column)


def _trained(
    state: State,
    mask: str,
    density: float | None,
    epochs: int,
    share: float,
    *,
    part: str = "holdout",
    **setting,
) -> State:
    """Train on as `training.fine_tune` does, on the thief's images."""
    parts = tickets.read(**setting)
    scale = datasets.normalisation(parts["train"][0])
    peak = train.recipe(setting["recipe"])
    how = {"mask": mask, "density": density, "mean_std": scale}
    model = training.resized(tickets.build(parts=parts, **setting), state)
    return training.fine_tune(
        model,
        *parts[part],
        training.recipe(peak, epochs, share),
        seed=setting["seed"] + 1,
        **how,
    )
