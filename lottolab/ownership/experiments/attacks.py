"""What a thief can do with a signed network, by name.

He has the network and images of his own, the `holdout` part. Each attack of `ATTACKS`
takes the owner's outcome, the arguments of `signatures.signed` and its own options,
and returns a state dict; what is zero in it counts as pruned.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lottolab.images import datasets
from lottolab.nets import masks as masking
from lottolab.nets import predict, tickets, train
from lottolab.nets.device import here
from lottolab.ownership import framework
from lottolab.ownership.attacks import removal, symmetry
from lottolab.ownership.channels.naming import State
from lottolab.ownership.experiments import signatures
from lottolab.ownership.signatures import qr, signature
from lottolab.ownership.signatures.key import SignatureKey

THIEF = "thief"  # the text that he signs with


def fine_tune(
    state: State,
    masks: dict[str, Tensor] | None,
    epochs: int,
    *,
    part: str = "holdout",
    loss: train.Loss = train.cross_entropy,
    **setting,
) -> State:
    """Train on for `epochs` on the thief's images, from a fifth of the peak rate on."""
    parts = tickets.read(**setting)
    model = signatures.network(state, **setting)
    recipe = dict(setting["recipe"], epochs=epochs, schedule="cosine")
    recipe["lr"] = setting["recipe"].get("lr", train.Recipe.lr) / 5
    scale = datasets.normalisation(parts["train"][0])
    options = {"masks": masks, "loss": loss, "mean_std": scale}
    train.fit(
        model, *parts[part], train.recipe(recipe), seed=setting["seed"] + 1, **options
    )
    return {k: v.cpu() for k, v in model.state_dict().items()}


def _none(owned: dict, given: dict) -> State:
    return owned["weights"]


def _pruned(owned: dict, given: dict, *, amount: float, method: str) -> State:
    names = sorted(owned["masks"])
    return removal.prune(owned["weights"], names, amount, method, given["seed"])


def _added(owned: dict, given: dict, *, rate: float, size: float) -> State:
    names = sorted(owned["masks"])
    return removal.add_on(owned["weights"], names, rate, size, given["seed"])


def _lifted(owned: dict, given: dict, *, size: float, factor: float) -> State:
    """Fill every empty place and make all channels larger; batch norm undoes that."""
    filled = _added(owned, given, rate=1.0, size=size)
    return symmetry.rescale_outputs(filled, given["seed"], spread=1.0, size=factor)


def _overwritten(owned: dict, given: dict) -> State:
    """Replace the owner's code by the thief's (the paper's fake_3)."""
    key = SignatureKey(**owned["key"])
    modules, form = qr.encode(THIEF, key.ecc, version=key.version)
    theirs = replace(key, secret=framework.stranger(given["seed"]), mask=form.mask)
    wanted = torch.from_numpy(signature.covered(modules, theirs))
    return removal.overwrite(owned["weights"], key, wanted, given["seed"])


def _signed_again(owned: dict, given: dict) -> State:
    """Write a second signature, as Algorithm 2 does."""
    return forged(owned, given)[0]


def forged(owned: dict, given: dict) -> tuple[State, SignatureKey]:
    """Return the network with the thief's signature, and his key."""
    names, ecc = sorted(owned["masks"]), given["ecc"]
    options = {"ecc": ecc, "seed": given["seed"]}
    return framework.invert(owned["weights"], names, THIEF, **options)


def _permuted(
    owned: dict, given: dict, *, hidden: bool, stream: bool, amount: float
) -> State:
    """Prune `amount` by magnitude, then permute channels."""
    state = _pruned(owned, given, amount=amount, method="magnitude")
    return symmetry.permute(state, given["seed"], hidden=hidden, stream=stream)


def _disguised(owned: dict, given: dict, *, spread: float) -> State:
    """Permute all channels and give each a scale of its own."""
    state = symmetry.permute(owned["weights"], given["seed"])
    state = symmetry.rescale_outputs(state, given["seed"], spread)
    return symmetry.rescale_channels(state, given["seed"], spread)


def _widened(owned: dict, given: dict, *, extra: int) -> State:
    state = symmetry.permute(owned["weights"], given["seed"])
    return symmetry.widen(state, extra, given["seed"])


def _folded(owned: dict, given: dict) -> State:
    return symmetry.fold(symmetry.permute(owned["weights"], given["seed"]))


def _pruned_again(
    owned: dict, given: dict, *, amount: float, rounds: int, epochs: int
) -> State:
    """Go on with iterative pruning, rewinding to the stolen weights each time."""
    names, masks, state = sorted(owned["masks"]), owned["masks"], owned["weights"]
    for _ in range(rounds):
        masks = masking.magnitude(state, masks, amount)
        kept = {name: owned["weights"][name] * masks[name] for name in names}
        state = fine_tune(
            owned["weights"] | kept, masks, epochs, **signatures.setting(given)
        )
    return state


def _freed(owned: dict, given: dict, *, epochs: int) -> State:
    """Drop the mask, train all weights, and prune to the density that there was."""
    state = fine_tune(owned["weights"], None, epochs, **signatures.setting(given))
    rate = 1 - masking.density(owned["masks"])
    masks = {name: mask | True for name, mask in owned["masks"].items()}
    masks = masking.magnitude(state, masks, rate)
    return state | {name: state[name] * mask for name, mask in masks.items()}


def _distilled(owned: dict, given: dict, *, epochs: int) -> State:
    """Train a fresh dense network on the stolen one's probabilities."""
    setting = signatures.setting(given)
    parts, seed = tickets.read(**setting), setting["seed"]
    teacher = signatures.network(owned["weights"], **setting)
    scale = datasets.normalisation(parts["train"][0])
    wanted = here(F.softmax(predict.logits(teacher, parts["holdout"][0], scale), 1))

    def soft(model: nn.Module, x: Tensor, y: Tensor, index: Tensor) -> Tensor:
        return F.cross_entropy(model(x), wanted[index])

    fresh = tickets.build(parts=parts, **setting | {"seed": seed + 2_000_000})
    recipe = train.recipe(dict(setting["recipe"], epochs=epochs))
    options = {"seed": seed, "loss": soft, "mean_std": scale}
    train.fit(fresh, *parts["holdout"], recipe, **options)
    return {k: v.cpu() for k, v in fresh.state_dict().items()}


ATTACKS = {
    "none": _none,
    "pruned": _pruned,
    "added": _added,
    "lifted": _lifted,
    "overwritten": _overwritten,
    "signed again": _signed_again,
    "permuted": _permuted,
    "disguised": _disguised,
    "widened": _widened,
    "folded": _folded,
    "pruned again": _pruned_again,
    "freed": _freed,
    "distilled": _distilled,
}
