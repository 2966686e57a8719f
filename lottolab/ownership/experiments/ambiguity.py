"""False evidence: second signatures, accusers, and claims on innocent networks."""

import numpy as np

from lottolab import runs
from lottolab.images import datasets
from lottolab.nets import tickets
from lottolab.ownership import triggers as trigger
from lottolab.ownership.attacks import removal
from lottolab.ownership.channels import alignment
from lottolab.ownership.experiments import attacks, signatures
from lottolab.ownership.signatures import signature
from lottolab.ownership.signatures.key import SignatureKey

LEVELS = (0.05, 0.01, 0.001)  # at which p-values are checked


@runs.stage("ownership.experiments.ambiguity.rival")
def rival(*, epochs: int, **given) -> dict:
    """Let a thief sign a stolen network too, train it, and let both parties claim it.

    `given` are the arguments of `signatures.signed`.
    """
    owned, setting = signatures.signed(**given), signatures.setting(given)
    state, theirs = attacks.forged(owned, given)
    masks = removal.sparsity(state, sorted(owned["masks"]))
    state = attacks.fine_tune(state, masks, epochs, **setting)
    theirs = signature.calibrate(state, theirs)
    model = signatures.network(state, **setting)
    metrics = {"test_accuracy": tickets.accuracy(model, tickets.read(**setting))}
    keys = {"owner": SignatureKey(**owned["key"]), "thief": theirs}
    texts = {"owner": given["text"], "thief": attacks.THIEF}
    for who, key in keys.items():
        claimed = signature.verify(state, key, claim=texts[who])
        blind = signature.verify(state, key).text
        metrics[f"{who} accepted"] = float(claimed.accepted)
        metrics[f"{who} decoded"] = float(blind == texts[who])
        metrics[f"{who} modules"] = claimed.agreement
    before = signature.verify(owned["weights"], theirs, claim=attacks.THIEF)
    return {"metrics": metrics | {"thief accepted before": float(before.accepted)}}


@runs.stage("ownership.experiments.ambiguity.accused")
def accused(*, epsilon: int, controls: list[float], **setting) -> dict:
    """Accuse an innocent network by triggers: a judge with and without other networks.

    The accuser fixes secret labels, then changes his trigger images by up
    to `epsilon` grey levels until a network of his own answers them so. The
    innocent network is the dense one, the accuser's another initialisation
    under the ticket's mask, the judge's two others; `controls` are the
    rates of the ticket whose controls these are. `forged`: labels that are
    the innocent network's own answers.
    """
    ticket = {"rates": controls} | setting
    parts = tickets.read(**setting)
    scale = datasets.normalisation(parts["train"][0])

    def known(outcome: dict):
        return signatures.network(outcome["weights"], **setting)

    innocent = trigger.predictor(known(tickets.dense(**setting)), scale)
    own = known(tickets.new_initialisation(**ticket))
    others = [tickets.random_mask(**ticket), tickets.iterative(**ticket)]
    judge = [trigger.predictor(known(outcome), scale) for outcome in others]
    fair = signatures.draw_triggers(f"{setting['seed']:064x}", **setting)
    options = {"epsilon": epsilon, "steps": 40, "step_size": max(epsilon / 10, 1)}
    unfair = trigger.accuse(own, fair, scale, **options)
    forged = trigger.forge(innocent, fair.images, classes=parts["classes"])
    metrics = {}
    for name, images in {"fair": fair, "unfair": unfair, "forged": forged}.items():
        alone = trigger.verify_triggers(innocent, images)
        compared = trigger.verify_triggers(innocent, images, unmarked=judge)
        metrics[name] = alone.agreement
        metrics[f"{name} accepted"] = float(alone.accepted)
        metrics[f"{name} accepted, compared"] = float(compared.accepted)
    return {"metrics": metrics}


@runs.stage("ownership.experiments.ambiguity.aligned_claims")
def aligned_claims(*, keys: int, controls: list[float], **given) -> dict:
    """Claim innocent networks after alignment, to the signed network and to its twin.

    Alignment to the signed network makes others look like it. The unsigned
    twin does not know the secret, so that what is aligned to it agrees with
    a signature by the toss of coins: `keys` fresh secrets are tried on each
    of four innocent networks. `controls` as for `accused`.
    """
    owned, setting = signatures.signed(**given), signatures.setting(given)
    twin = tickets.iterative(rates=given["rates"], **setting)
    key, text = SignatureKey(**owned["key"]), given["text"]
    ticket = {"rates": controls} | setting
    innocent = [tickets.dense(**setting), tickets.iterative(**ticket)]
    innocent += [tickets.random_mask(**ticket), tickets.new_initialisation(**ticket)]
    biased, p_values = [], []
    for place, outcome in enumerate(innocent):
        back = alignment.align(outcome["weights"], owned["weights"])
        biased.append(signature.verify(back, key, claim=text).agreement)
        back = alignment.align(outcome["weights"], twin["weights"])
        for draw in range(keys):
            secret = f"{(setting['seed'] * 4 + place) * keys + draw:064x}"
            masks, ecc = twin["masks"], given["ecc"]
            _, fresh = signature.choose(masks, text, secret, ecc=ecc)
            p_values.append(signature.verify(back, fresh, claim=text).p_value)
    found = {f"p ≤ {level}": np.mean(np.array(p_values) <= level) for level in LEVELS}
    metrics = {name: float(share) for name, share in found.items()}
    metrics["accepted"] = int(np.sum(np.array(p_values) < signature.ACCEPT))
    metrics["claims"] = len(p_values)
    return {"metrics": metrics | {"modules, aligned to the signed": max(biased)}}
