"""The paper's verification framework as five verbs (section 3.2).

`embed_mask` (ME) and `embed_weights` (WE) make an owner's network, `fidelity` (F) says
whether a network is still worth stealing, `verify` (V) whose it is, and `invert` (I)
is what a scheme must not allow: somebody else's evidence on the owner's network, which
`verify` accepts while `fidelity` holds.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from lottolab.checks import require
from lottolab.images import datasets
from lottolab.nets import tickets, train
from lottolab.ownership import triggers as trigger
from lottolab.ownership.attacks import removal
from lottolab.ownership.signatures import embedding, signature
from lottolab.ownership.signatures.key import SignatureKey

COUNT = 100  # images in a trigger set, as in the paper (section 4)


@dataclass(frozen=True)
class Verdict:
    """What the two ways of looking at a suspect say.

    white: from the weights, by the signature. black: from the predictions alone, by
    the triggers; None where there are none.
    """

    white: signature.Verification
    black: trigger.TriggerVerification | None


def embed_mask(
    masks: dict[str, Tensor],
    text: str,
    *,
    ecc: str = "H",
    seed: int = 0,
    secret: str | None = None,
) -> tuple[dict[str, Tensor], SignatureKey]:
    """ME(M₀, s): write the text `s` into the masks; see `signature.embed`."""
    return signature.embed(masks, text, ecc=ecc, seed=seed, secret=secret)


def embed_weights(
    start: dict[str, Tensor],
    masks: dict[str, Tensor],
    triggers: trigger.Triggers | None,
    per_batch: int,
    **setting,
) -> dict:
    """WE(D, T, s, N, L, W₀, M): train the masked network, with triggers in each batch.

    `setting` as for the stages of `lottolab.nets.tickets`, whose outcome is returned.
    """
    if triggers is None:
        return tickets.retrain(start, masks, **setting)
    scale = datasets.normalisation(tickets.read(**setting)["train"][0])
    loss: train.Loss = trigger.with_triggers(triggers, scale, per_batch)
    return tickets.retrain(start, masks, loss=loss, **setting)


def fidelity(accuracy: float, target: float, tolerance: float = 0.01) -> bool:
    """F: is the test accuracy within `tolerance` of what the owner's network has?

    The paper's definition has two sides (section 3.2): a network that is better by more
    than the tolerance is unfaithful too, though a thief would not mind.

    Raises:
        ValueError: tolerance is outside (0, 1).
    """
    require(0 < tolerance < 1, "tolerance must be in (0, 1)", tolerance)
    return abs(accuracy - target) < tolerance


def verify(
    state: dict[str, Tensor],
    key: SignatureKey,
    predict: Callable[[Tensor], Tensor] | None = None,
    triggers: trigger.Triggers | None = None,
    *,
    claim: str | None = None,
    reference: dict[str, Tensor] | None = None,
    unmarked: Sequence[Callable[[Tensor], Tensor]] = (),
) -> Verdict:
    """V(N, W, M, T, s): decide by the signature and, where there are some, triggers."""
    white = signature.verify(state, key, claim=claim, reference=reference)
    if triggers is None:
        return Verdict(white, None)
    black = trigger.verify_triggers(predict, triggers, unmarked=unmarked)
    return Verdict(white, black)


def invert(
    state: dict[str, Tensor], names: list[str], text: str, *, ecc: str, seed: int
) -> tuple[dict[str, Tensor], SignatureKey]:
    """I(N, T, s): forge a signature of one's own on a network that is not one's own.

    The thief knows how signatures are written but not the owner's secret, and signs
    the stolen network as Algorithm 2 does: in the most similar window, moving as few
    weights as that takes. Training again is up to him.
    """
    secret = stranger(seed)
    sparse = removal.sparsity(state, names)
    masks = {name: mask for name, mask in sparse.items() if state[name].ndim == 4}
    signed, key = signature.embed(masks, text, ecc=ecc, seed=seed, secret=secret)
    filled = embedding.fill(state[key.layer], signed[key.layer], seed)
    return state | {key.layer: filled}, key


def stranger(seed: int) -> str:
    """Return a secret that is nobody's else: the thief's."""
    return hashlib.sha256(f"lottolab thief {seed}".encode()).hexdigest()
