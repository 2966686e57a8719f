"""A signed network's code as pruning damages it: modules, bytes and p-value."""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
import torch
from scipy import stats

from lottolab import runs
from lottolab.checks import require
from lottolab.ownership.attacks import removal
from lottolab.ownership.channels.naming import State
from lottolab.ownership.experiments import signatures, thief
from lottolab.ownership.signatures import qr, signature, squeeze
from lottolab.ownership.signatures.key import SignatureKey

PATTERN = -2  # in `byte`, a module that every code has and nobody writes


@runs.stage("ownership.experiments.codes.pruned")
def pruned(*, amounts: list[float], **given) -> dict:
    """Prune a signed network by magnitude, without training, and read its code.

    `given` are the arguments of `signatures.signed`. `amounts`: A shares of the weights
    that are left, in [0, 1), rising.

    Returns:
        `modules`, bool [A, size, size], the uncovered code, True = dark, with its fixed
        patterns: see `claimed`; `owner`, bool [size, size], the code without damage;
        `byte`, int64 [size, size], the byte of each module, −1 for one that is in none
        and PATTERN; `block`, int64 [bytes], and `corrects`, int64 [blocks], see
        `qr.layout`; `logs`, float64 [n + 1], see `log_p`; and `needed`, int, how
        many modules must agree for a claim to be accepted.
        `measurements` are by `amount` the test accuracy, `modules`, the share that
        agrees, its `log p`, `damaged bytes`, and whether all are `corrected` (see
        `damaged`; these of the modules returned); and, as the library's `verify` says,
        whether the text is `decoded` blindly and the claim of it `accepted`.

    Raises:
        ValueError: the amounts do not rise or are not in [0, 1).
    """
    rising = all(a < b for a, b in pairwise(amounts))
    inside = len(amounts) > 0 and all(0 <= a < 1 for a in amounts)
    require(inside and rising, "amounts must be in [0, 1) and rise", amounts)
    key = SignatureKey(**signatures.signed(**given)["key"])
    owner, _ = qr.encode(
        key.spelling(given["text"]), key.ecc, version=key.version, mask=key.mask
    )
    byte, block, corrects = qr.layout(key.form)
    logs, seen, rows = log_p(key), [], []
    for amount in amounts:
        modules, told = _attacked(amount, owner, logs, **given)
        seen.append(modules)
        rows += [{"amount": amount, "metric": m, "value": v} for m, v in told.items()]
    where, whole = qr.places(key.version), np.full(owner.shape, PATTERN)
    whole[where[:, 0], where[:, 1]] = byte
    arrays = {"modules": np.stack(seen), "owner": owner, "byte": whole}
    arrays |= {"block": block, "corrects": corrects, "logs": logs}
    found = {name: torch.from_numpy(array) for name, array in arrays.items()}
    needed = int((logs < math.log10(signature.ACCEPT)).argmax())
    return found | {"needed": needed, "measurements": pd.DataFrame(rows)}


def _attacked(
    amount: float, owner: np.ndarray, logs: np.ndarray, **given
) -> tuple[np.ndarray, dict[str, float]]:
    """Return the code of a network that is pruned by `amount`, and what is measured."""
    owned = signatures.signed(**given)
    key, names = SignatureKey(**owned["key"]), sorted(owned["masks"])
    how = (amount, "magnitude", given["seed"])
    state = removal.prune(owned["weights"], names, *how)
    text = key.spelling(given["text"])
    modules = qr.draw(claimed(state, key, text), key.form)
    wrong, corrected = damaged(modules, owner, key.form)
    agree = (modules == owner)[tuple(qr.places(key.version).T)].sum()
    told = {"damaged bytes": int(wrong.sum()), "corrected": float(corrected)}
    told |= {"log p": float(logs[agree])} | signatures.white_box(state, key, text)
    worth = thief.described(state, owned, **signatures.setting(given))
    return modules, told | {"test_accuracy": worth["test_accuracy"]}


def claimed(state: State, key: SignatureKey, text: str) -> np.ndarray:
    """Return the uncovered modules that a claim of `text` counts, bool size×size.

    Of the two readings of `signature.verify`, at the key's threshold and at the
    window's median, that in which more modules agree; of equals the first.
    """
    limits = (key.threshold, squeeze.median(state, key))
    readings = [squeeze.extract(state, key, threshold=limit) for limit in limits]
    best = max(readings, key=lambda r: signature.evidence(r, key, text)[0])
    return signature.covered(best, key)


def log_p(key: SignatureKey) -> np.ndarray:
    """Return log10 of a claim's p-value by how many of n modules agree: [n + 1].

    Float64; the binomial tail times the windows and the two readings, 1 at most: what
    `signature.verify` says of a claim.
    """
    count = len(qr.places(key.version))
    tails = stats.binom.logsf(np.arange(-1, count), count, 0.5)
    paid = tails + math.log(key.windows * signature.READINGS)
    return np.minimum(paid, 0) / math.log(10)


def damaged(
    modules: np.ndarray, owner: np.ndarray, form: qr.Format
) -> tuple[np.ndarray, bool]:
    """Say which bytes of a code hold a wrong module, and whether all are corrected.

    modules, owner: uncovered, bool size×size. Returns bool [bytes], and whether no
    block has more damaged bytes than half of its check bytes: the bounded-distance
    rule, by which error correction alone reads. `signature.verify` reads more: it has a
    second reading, and erases doubtful bytes.
    """
    where = tuple(qr.places(form.version).T)
    byte, block, corrects = qr.layout(form)
    wrong = np.zeros(len(block), dtype=bool)
    wrong[byte[(modules != owner)[where] & (byte >= 0)]] = True
    hit = np.bincount(block[wrong], minlength=len(corrects))
    return wrong, bool((hit <= corrects).all())


def by_amount(outcome: dict, amounts: Sequence[float]) -> list[dict[str, float]]:
    """Return what `pruned` measured at each of the amounts, by metric."""
    table = outcome["measurements"]
    return [
        table[table["amount"] == a].set_index("metric")["value"].to_dict()
        for a in amounts
    ]
