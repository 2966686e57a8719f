"""Scheme V1: what a ticket is worth without its key, and to who guesses the key."""

from lottolab import runs
from lottolab.nets import masks as masking
from lottolab.nets import tickets
from lottolab.ownership.attacks import removal
from lottolab.ownership.channels.naming import State
from lottolab.ownership.split import split_key


@runs.stage("ownership.experiments.keys.locked")
def locked(*, share: float, score: str, rates: list[float], **setting) -> dict:
    """Retrain the ticket without its key (section 4.2, Figure 2)."""
    start, lock, _ = _parted(share=share, score=score, rates=rates, **setting)
    return _metrics(tickets.retrain(start, lock, **setting))


@runs.stage("ownership.experiments.keys.guessed")
def guessed(*, share: float, score: str, rates: list[float], **setting) -> dict:
    """Retrain with a random key in the place of the true one (fake_1, Figure 5)."""
    start, lock, key = _parted(share=share, score=score, rates=rates, **setting)
    state, masks = removal.guess_key(start, lock, _count(key), setting["seed"])
    return _metrics(tickets.retrain(state, masks, **setting))


@runs.stage("ownership.experiments.keys.regrown")
def regrown(*, share: float, score: str, rates: list[float], **setting) -> dict:
    """Let training find the key: the thief who does not guess (not in the paper).

    He fills all that he was not given with noise, trains that dense
    network once, keeps as many weights as the ticket has, the locked ones
    and the largest others, rewinds and trains again.
    """
    start, lock, key = _parted(share=share, score=score, rates=rates, **setting)
    free = sum(int((~mask).sum()) for mask in lock.values())
    state, everything = removal.guess_key(start, lock, free, setting["seed"])
    dense = tickets.retrain(state, everything, **setting)["weights"]
    others = {name: ~mask for name, mask in lock.items()}
    found = masking.magnitude(dense, others, 1 - _count(key) / free)
    masks = {name: mask | found[name] for name, mask in lock.items()}
    return _metrics(tickets.retrain(state, masks, **setting))


@runs.stage("ownership.experiments.keys.transferred")
def transferred(
    *, source: dict, share: float, score: str, rates: list[float], **setting
) -> dict:
    """Train a locked ticket of another data set on this one (Table 4).

    `source` holds that set's `dataset` and `sizes`. The first convolution
    and the classifier are new. With `share` 0 the whole ticket moves, a
    control that the paper does not have: what is lost then is not the key's
    doing.
    """
    origin = setting | source
    if share:
        start, masks, _ = _parted(share=share, score=score, rates=rates, **origin)
    else:
        start = tickets.dense(**origin)["rewind"]
        masks = tickets.iterative(rates=rates, **origin)["masks"]
    drawn = setting | {"seed": setting["seed"] + 3_000_000}  # not the source's own
    model = tickets.build(parts=tickets.read(**setting), **drawn)
    fresh = {"conv1.weight", "fc.weight", "fc.bias"}
    new = {k: v for k, v in model.state_dict().items() if k in fresh}
    return _metrics(tickets.retrain(start | new, masks, **setting))


def _parted(*, share, score, rates, **setting) -> tuple[State, dict, dict]:
    """Return the rewound weights that the thief is given, the lock, and the key."""
    start = tickets.dense(**setting)["rewind"]
    masks = tickets.iterative(rates=rates, **setting)["masks"]
    key, lock = split_key(masks, start, share, score, setting["seed"])
    given = {name: start[name] * mask for name, mask in lock.items()}
    return start | given, lock, key


def _count(masks: masking.Masks) -> int:
    return sum(int(mask.sum()) for mask in masks.values())


def _metrics(outcome: dict) -> dict:
    metrics = {"test_accuracy": outcome["accuracy"]["test"]}
    return {"metrics": metrics | {"density": outcome["density"]}}
