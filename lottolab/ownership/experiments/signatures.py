"""The chapter's experiments on signatures, as stages.

A `setting` holds the arguments that all stages of `lottolab.tickets` share.
"""

from dataclasses import asdict, replace

import numpy as np
import pandas as pd
from torch import Tensor

from lottolab import data, predict, runs, tickets
from lottolab import masks as masking
from lottolab.checks import one_of
from lottolab.ownership import qr, signature
from lottolab.ownership.key import SignatureKey


@runs.stage
def signed(*, text: str, ecc: str, rate: float, rounds: int, **setting) -> dict:
    """Scheme V2: write the text into the ticket's masks, then train the ticket.

    Returns what `tickets.iterative` does, and the owner's `key`.
    """
    ticket = tickets.iterative(rate=rate, rounds=rounds, **setting)
    masks, key = signature.embed(ticket["masks"], text, ecc=ecc, seed=setting["seed"])
    outcome = tickets.retrain(tickets.dense(**setting)["rewind"], masks, **setting)
    key = signature.calibrate(outcome["weights"], key)
    return outcome | {"key": asdict(key)}


@runs.stage
def pruning_attack(*, method: str, amount: float, **given) -> dict:
    """Prune `amount` of the weights of a signed network, by `magnitude` or `random`.

    `given` are the arguments of `signed`. Returns the `accuracy` on the test images,
    the share of data `modules` that still agree, whether the text is `decoded`
    blindly, whether the claim of the text is `accepted`, and the share of the weights
    that the signature's window `lost`.
    """
    victim = signed(**given)
    weights, masks = victim["weights"], victim["masks"]
    one_of("method", method, ("magnitude", "random"))
    if method == "magnitude":
        masks = masking.magnitude(weights, masks, amount)
    else:
        masks = masking.random(masks, amount, given["seed"])
    weights = weights | {name: weights[name] * mask for name, mask in masks.items()}
    key = SignatureKey(**victim["key"])
    side = key.form.size
    rows, columns = key.row, key.column
    window = (slice(rows, rows + side), slice(columns, columns + side))
    kept = [int(m[key.layer][window].sum()) for m in (masks, victim["masks"])]
    claimed = signature.verify(weights, key, claim=given["text"])
    return {
        "accuracy": accuracy(weights, **given),
        "modules": claimed.agreement,
        "decoded": signature.verify(weights, key).text == given["text"],
        "accepted": claimed.accepted,
        "lost": 1 - kept[0] / kept[1],
    }


@runs.stage
def false_claims(*, keys: int, **given) -> dict:
    """Try `keys` secrets of other people on a signed network.

    Returns how many read any text, and how many claims are `accepted`: blindly, and
    for the very text that is there.
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
    return counts | {"keys": keys}


def unmarked(networks: list[dict], keys: list[dict], text: str) -> pd.DataFrame:
    """Try owners' keys on networks that nobody signed: a row for each pair.

    Args:
        networks: outcomes of the stages of `lottolab.tickets`; keys: of `signed`.
    """
    rows = []
    for place, network in enumerate(networks):
        for values in keys:
            key = SignatureKey(**values)
            found = signature.verify(network["weights"], key, claim=text)
            blind = signature.verify(network["weights"], key)
            rows.append((place, found.agreement, found.p_value, found.accepted))
            rows[-1] += (blind.accepted,)
    columns = ["network", "agreement", "p_value", "accepted", "accepted blindly"]
    return pd.DataFrame(rows, columns=columns)


def blind_reads(masks: dict[str, Tensor], texts: list[str], ecc: str) -> np.ndarray:
    """Sign the masks with each text and say which are read again, bool n."""
    read = []
    for seed, text in enumerate(texts):
        signed_masks, key = signature.embed(masks, text, ecc=ecc, seed=seed)
        weights = {name: mask.float() for name, mask in signed_masks.items()}
        read.append(signature.verify(weights, key).text == text)
    return np.array(read)


def accuracy(weights: dict[str, Tensor], **given) -> float:
    """Return the test accuracy of a state dict, in [0, 1]."""
    parts = tickets.read(**given)
    model = tickets.build(parts=parts, **given)
    model.load_state_dict(weights)
    images, labels = parts["test"]
    scale = data.normalisation(parts["train"][0])
    return predict.accuracy(predict.logits(model, images, scale), labels)


def longest(masks: dict[str, Tensor], ecc: str) -> int:
    """Return how many bytes of text the largest layer has room for."""
    side = max(min(m.shape[:2]) for m in masks.values() if m.ndim == 4)
    return qr.capacity((side - 17) // 4, ecc) if side >= 21 else 0
