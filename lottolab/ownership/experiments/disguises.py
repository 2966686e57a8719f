"""A stolen network in disguise, before and after the owner's answers.

Nothing here trains: channels are split, added and silenced, and what the network
answers stays. `given` are the arguments of `signatures.signed`.
"""

import torch
from torch import Tensor

from lottolab import runs
from lottolab.checks import number, one_of, require, whole
from lottolab.images import datasets
from lottolab.nets import predict, tickets
from lottolab.ownership.attacks import obfuscation, signs, silencing, symmetry
from lottolab.ownership.channels import alignment
from lottolab.ownership.channels.naming import State
from lottolab.ownership.defences import reading
from lottolab.ownership.experiments import signatures, thief
from lottolab.ownership.signatures.key import SignatureKey

STEPS = {
    "both": ("duplicated", "cliques"),
    "sign, duplicated": ("sign", "duplicated"),
    "dead, duplicated": ("dead", "duplicated"),
}
KINDS = ("duplicated", "cliques", "sign", "sixes", "dead", "half", *STEPS)


@runs.stage("ownership.experiments.disguises.split")
def split(
    *,
    kind: str,
    copies: int,
    extra: int,
    members: int,
    size: float,
    spread: float,
    **given,
) -> dict:
    """Write hidden channels several times, or add some that do nothing, and look again.

    Yan et al., 2023, section 4 (NeuronSplit, NeuronClique); see `obfuscation` and, for
    channels of other signs, `signs`. Then all channels are permuted and the outputs get
    a scale of their own.

    Args:
        kind: `duplicated`, `cliques`, or `both`, in this order; `sign`, `sixes` or as
            many `dead` channels as there are; the first and the last also `duplicated`
            on top. `half` is `obfuscation.split_in_half`, without a scale of outputs.
        copies: of each hidden channel, >= 2. extra: cliques a group, >= 1, of `members`
            channels each, >= 1. size, spread: as in `obfuscation.duplicate`; what comes
            second is as large as the weights that it finds.

    Metrics: those of `judged`, and `logits changed`, the largest change of a logit on
    the test images, as a share of the largest logit.
    """
    one_of("kind", kind, KINDS)
    whole("copies", copies, 2)
    whole("extra", extra, 1)
    whole("members", members, 1)
    number("size", size, 1e-9)
    number("spread", spread, 1.0)
    owned, seed = signatures.signed(**given), given["seed"]
    state, looks = owned["weights"], {"size": size, "spread": spread}
    for place, step in enumerate(STEPS.get(kind, (kind,))):
        how = looks | ({"size": 1.0} if place else {})
        if step == "duplicated":
            state = obfuscation.duplicate(state, seed + place, copies=copies, **how)
        elif step == "cliques":
            how |= {"members": members}
            state = obfuscation.add_cliques(state, extra, seed + 1, **how)
        elif step == "sign":
            state = signs.split_by_sign(state, seed, **how)
        elif step == "sixes":
            state = signs.add_sixes(state, extra, seed, **how)
        elif step == "half":
            state = obfuscation.split_in_half(state, seed)
        else:
            state = signs.add_dead(state, 1.0, seed, **how)
    state = symmetry.permute(state, seed)
    if kind != "half":  # other scales would be rounded in other ways
        state = symmetry.rescale_outputs(state, seed)
    return {"metrics": judged(state, owned, given)}


@runs.stage("ownership.experiments.disguises.silenced")
def silenced(*, decades: float, dust: float, giants: int, spare: bool, **given) -> dict:
    """Hide the window behind channels that are always zero, and look again.

    See `silencing.silence`. With `spare` channels are added to each group before, which
    are silenced instead of some that the owner used, so that the function stays but for
    the dust.

    Args:
        decades: in [0, 30]. dust: share of the layer's mean |w|, >= 0.
        giants: channels of each group that are silenced, >= 1.

    Metrics: as `split`.
    """
    number("decades", decades, 0, 30)
    number("dust", dust, 0)
    whole("giants", giants, 1)
    require(type(spare) is bool, "spare must be true or false", spare)
    owned, seed = signatures.signed(**given), given["seed"]
    state = owned["weights"]
    if spare:
        state = obfuscation.add_cliques(state, giants, seed, members=1)
    how = {"decades": decades, "dust": dust, "giants": giants}
    state = silencing.silence(state, seed, **how)
    return {"metrics": judged(symmetry.rescale_outputs(state, seed), owned, given)}


def judged(state: State, owned: dict, given: dict) -> dict[str, float]:
    """Return what a disguise costs, and what three readers find.

    It is run in float32, whatever its numbers are kept in. `plain …` is read from the
    network as it is (nothing where the shape is another), `aligned …` after alignment
    to the unsigned twin, `answered …` by `defences.reading.verify`: tamed, merged and
    aligned, and without each of these. For each `modules`, `accepted` and `decoded` as
    in `signatures.white_box`.
    """
    setting = signatures.setting(given)
    run = {n: w.float() if w.is_floating_point() else w for n, w in state.items()}
    metrics = thief.described(run, owned, **setting)
    metrics["logits changed"] = changed(run, owned["weights"], **setting)
    return metrics | readers(state, owned, given)


def readers(state: State, owned: dict, given: dict) -> dict[str, float]:
    """Return what `judged` says that the three readers find.

    `aligned` and `answered` are left out after an attack that no reader can follow.
    """
    key, text = SignatureKey(**owned["key"]), given["text"]
    found = {"accepted": 0.0, "decoded": 0.0}
    if key.fits(state):
        found = signatures.white_box(state, key, text)
    metrics = {f"plain {name}": value for name, value in found.items()}
    setting = signatures.setting(given)
    twin = tickets.iterative(rates=given["rates"], **setting)["weights"]
    back = alignment.align(state, twin)
    for name, value in signatures.white_box(back, key, text).items():
        metrics[f"aligned {name}"] = value
    told = reading.verify(state, key, claim=text, reference=twin)
    metrics["answered modules"] = told.agreement
    metrics["answered accepted"] = float(told.accepted)
    return metrics | {"answered decoded": float(told.text == key.spelling(text))}


def changed(state: State, before: State, **setting) -> float:
    """Return the largest change of a logit on the test images, over the largest."""
    parts = tickets.read(**setting)
    scale = datasets.normalisation(parts["train"][0])
    seen: list[Tensor] = [
        predict.logits(signatures.network(weights, **setting), parts["test"][0], scale)
        for weights in (before, state)
    ]
    return float(torch.dist(seen[0], seen[1], torch.inf) / seen[0].abs().max())
