"""Networks that nobody signed, judged as the page says that suspects are judged."""

from dataclasses import replace

import numpy as np

from lottolab import runs
from lottolab.checks import whole
from lottolab.nets import tickets
from lottolab.ownership.defences import reading
from lottolab.ownership.experiments import signatures
from lottolab.ownership.signatures import signature
from lottolab.ownership.signatures.key import SignatureKey

LEVELS = (0.05, 0.01, 0.001)  # at which p-values are checked


@runs.stage("ownership.experiments.innocents.judged")
def judged(*, keys: int, controls: list[float], **given) -> dict:
    """Claim innocent networks with secrets of other people, by `defences.reading`.

    Four networks that do not know the secret are read in all of its ways, with the
    owner's unsigned ticket as the reference: the dense network, the ticket at the rates
    of `controls`, and both of its controls. `keys` secrets are drawn, one after the
    other for each of them; each has a window of its own, that of `signature.choose` in
    the unsigned ticket.

    What the price for windows and readings hides is told as well: the tail for one
    window and one reading, the last in order and at the key's threshold. For it the
    window is drawn anew, since the one that agrees best with the ticket agrees well
    with what is like the ticket, for which its price is paid.

    Args:
        keys: of all four networks together, >= 1.

    Metrics: `claims`, how many were made; how many were `accepted`; how many of the
    p-values that are paid for were `paid p ≤ 0.05` …, and of the tails `p ≤ 0.05` …,
    as shares.
    """
    whole("keys", keys, 1)
    owned, setting = signatures.signed(**given), signatures.setting(given)
    own, text = SignatureKey(**owned["key"]), given["text"]
    twin = tickets.iterative(rates=given["rates"], **setting)
    ticket = {"rates": controls} | setting
    innocent = [tickets.dense(**setting), tickets.iterative(**ticket)]
    innocent += [tickets.random_mask(**ticket), tickets.new_initialisation(**ticket)]
    networks = [reading.seen(n["weights"], own, twin["weights"]) for n in innocent]
    how = {"ecc": given["ecc"], "layer": own.layer}
    paid, tails = [], []
    for draw in range(keys):
        secret = f"{setting['seed'] * keys + draw:064x}"
        _, key = signature.choose(twin["masks"], text, secret, **how)
        key = replace(key, threshold=own.threshold)
        found = networks[draw % len(networks)]
        paid.append(reading.evidence(found, key, text)[1])
        free = _moved(key, draw)
        modules = signature.extract(found[-1], free)
        price = 1 / free.windows  # is taken back
        tails.append(signature.evidence(modules, free, text, price)[1])
    metrics = {
        "claims": keys,
        "accepted": int(np.sum(np.array(paid) < signature.ACCEPT)),
    }
    for name, values in {"paid p": paid, "p": tails}.items():
        for level in LEVELS:
            share = np.mean(np.array(values) <= level)
            metrics[f"{name} ≤ {level}"] = float(share)
    return {"metrics": metrics}


def _moved(key: SignatureKey, seed: int) -> SignatureKey:
    """Give a key a window that is drawn evenly from all places of its layer."""
    random, side = np.random.default_rng(seed), key.form.size
    row, column = (int(random.integers(n - side + 1)) for n in key.shape)
    return replace(key, row=row, column=column)
