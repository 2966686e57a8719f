"""Schemes V2 and V3: signed networks, and claims on networks that nobody signed."""

from dataclasses import asdict, replace

import numpy as np
import torch
from torch import Tensor, nn

from lottolab import runs
from lottolab.images import datasets
from lottolab.nets import tickets
from lottolab.nets.device import here
from lottolab.ownership import framework
from lottolab.ownership import triggers as trigger
from lottolab.ownership.attacks import symmetry
from lottolab.ownership.signatures import decoding, detection, signature
from lottolab.ownership.signatures.key import SignatureKey


@runs.stage("ownership.experiments.signatures.signed")
def signed(
    *, text: str, ecc: str, triggers: int, rates: list[float], **setting
) -> dict:
    """Sign the ticket's masks, then train it: scheme V2, or V3 with triggers.

    `triggers` images of the owner's trigger set join each batch; 0 for
    none. Returns what `tickets.iterative` does, the owner's `key` and
    `metrics`.
    """
    ticket = tickets.iterative(rates=rates, **setting)
    start = tickets.dense(**setting)["rewind"]
    own = {"seed": setting["seed"], "secret": signature.public(setting["seed"])}
    masks, key = framework.embed_mask(ticket["masks"], text, ecc=ecc, **own)
    images = draw_triggers(key.secret, **setting) if triggers else None
    outcome = framework.embed_weights(start, masks, images, triggers, **setting)
    key = signature.calibrate(outcome["weights"], key)
    metrics = {"test_accuracy": outcome["accuracy"]["test"]}
    metrics |= recognised(outcome["weights"], key, text, **setting)
    return outcome | {"key": asdict(key), "metrics": metrics}


@runs.stage("ownership.experiments.signatures.unsigned")
def unsigned(*, text: str, ecc: str, rates: list[float], **setting) -> dict:
    """Control: ask for the signature and the triggers in the ticket before signing."""
    ticket = tickets.iterative(rates=rates, **setting)
    own = {"seed": setting["seed"], "secret": signature.public(setting["seed"])}
    _, key = signature.embed(ticket["masks"], text, ecc=ecc, **own)
    metrics = {"test_accuracy": ticket["accuracy"]["test"]}
    return {"metrics": metrics | recognised(ticket["weights"], key, text, **setting)}


def recognised(
    weights: dict[str, Tensor], key: SignatureKey, text: str, **setting
) -> dict[str, float]:
    """Return what the owner finds in a network: by its weights, and by its answers.

    A layer of another shape than the key's cannot be read at all.
    """
    scale = datasets.normalisation(tickets.read(**setting)["train"][0])
    predict = trigger.predictor(network(weights, **setting), scale)
    black = trigger.verify_triggers(predict, draw_triggers(key.secret, **setting))
    metrics = {"triggers": black.agreement, "triggers accepted": float(black.accepted)}
    if not key.fits(weights):
        return metrics | {"decoded": 0.0, "accepted": 0.0}
    return metrics | white_box(weights, key, text)


def white_box(
    weights: dict[str, Tensor], key: SignatureKey, text: str
) -> dict[str, float]:
    """Return what a network's weights say of a text: claimed, and read blindly.

    Both are asked: a blind reading may erase doubtful bytes, a claim does not.
    """
    claimed = signature.verify(weights, key, claim=text)
    return {
        "modules": claimed.agreement,
        "accepted": float(claimed.accepted),
        "decoded": float(signature.verify(weights, key).text == key.spelling(text)),
    }


def draw_triggers(secret: str, **setting) -> trigger.Triggers:
    """Draw the trigger set that a secret gives for the setting's data set."""
    parts = tickets.read(**setting)
    channels, size = parts["train"][0].shape[1:3]
    shape = {"classes": parts["classes"], "channels": channels, "size": size}
    return trigger.draw(framework.COUNT, **shape, secret=secret)


def setting(given: dict) -> dict:
    """Return the arguments of `tickets.dense` among those of `signed`."""
    own = ("text", "ecc", "triggers", "rates")
    return {k: v for k, v in given.items() if k not in own}


def network(weights: dict[str, Tensor], **setting) -> nn.Module:
    """Return a network with these weights: the setting's, or whatever form it has."""
    model = tickets.build(parts=tickets.read(**setting), **setting)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    if shapes != {name: tensor.shape for name, tensor in weights.items()}:
        return AnyForm(weights, setting["network"].get("stem", "same"))
    model.load_state_dict(weights)
    return model


class AnyForm(nn.Module):
    """Evaluate a state dict that no module fits, see `symmetry.logits`."""

    def __init__(self, state: dict[str, Tensor], stem: str) -> None:
        super().__init__()
        self.state, self.stem = here(state), stem
        self.place = nn.Parameter(here(torch.zeros(0)))  # says which device

    def forward(self, x: Tensor) -> Tensor:
        return symmetry.logits(self.state, x, self.stem)


@runs.stage("ownership.experiments.signatures.imperceptible")
def imperceptible(**given) -> dict:
    """Look for the signed window without the key; `given` are those of `signed`.

    `found`: is the window that stands out most the true one? `chance`: of
    hitting it blindly. `signed`, `unsigned`: how much the best window stands
    out in the layer with the signature, and before it was signed.
    """
    owned = signed(**given)
    key = SignatureKey(**owned["key"])
    ticket = tickets.iterative(rates=given["rates"], **setting(given))
    before = ticket["masks"][key.layer]
    tables = [
        detection.prominence(signature.alive(mask), key.version)
        for mask in (owned["masks"][key.layer], before)
    ]
    best = np.unravel_index(tables[0].argmax(), tables[0].shape)
    metrics = {"found": float(best == (key.row, key.column)), "chance": 1 / key.windows}
    peaks = {"signed": tables[0].max(), "unsigned": tables[1].max()}
    return {"metrics": metrics | {name: float(x) for name, x in peaks.items()}}


@runs.stage("ownership.experiments.signatures.false_claims")
def false_claims(*, keys: int, **given) -> dict:
    """Try `keys` secrets of other people on a signed network.

    Counts how many read any text, and how many claims are accepted:
    blindly, and for the very text that is there.
    """
    victim = signed(**given)
    key = SignatureKey(**victim["key"])
    counts = {"read": 0, "accepted blindly": 0, "accepted": 0}
    for other in range(keys):
        theirs = replace(key, secret=f"{given['seed'] * keys + other:064x}")
        blind = signature.verify(victim["weights"], theirs)
        claimed = signature.verify(victim["weights"], theirs, claim=given["text"])
        counts["read"] += blind.text is not None
        counts["accepted blindly"] += blind.accepted
        counts["accepted"] += claimed.accepted
    return {"metrics": counts | {"keys": keys}}


@runs.stage("ownership.experiments.signatures.blind_reads")
def blind_reads(*, texts: list[str], ecc: str, rates: list[float], **setting) -> dict:
    """Sign the ticket's masks with each text and count how many are read again."""
    masks = tickets.iterative(rates=rates, **setting)["masks"]
    read = 0
    for place, text in enumerate(texts):
        seed = setting["seed"] * len(texts) + place
        own = {"seed": seed, "secret": signature.public(seed)}
        changed, key = signature.embed(masks, text, ecc=ecc, **own)
        weights = {name: mask.float() for name, mask in changed.items()}
        read += signature.verify(weights, key).text == key.spelling(text)
    return {"metrics": {"read": read, "texts": len(texts)}}


@runs.stage("ownership.experiments.signatures.read_back")
def read_back(
    *,
    text: str,
    ecc: str,
    flips: list[float],
    trials: int,
    seed: int,
    readers: list[str],
) -> dict:
    """Count who still reads a damaged code; `table` is that of `decoding.compare`.

    The `readers` are named, so that no result depends on what happens to be installed.
    """
    return {"table": decoding.compare(text, ecc, flips, trials, seed, readers)}
