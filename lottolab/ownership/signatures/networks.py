"""Networks of any make, as they come from outside: read, signed and verified.

Whatever a layer computes, its weights are outputs × inputs × kernel, and a linear
layer's kernel is 1×1. Names mean little: a thief changes them, and torch puts others in
front (`module.`, `_orig_mod.`).
"""

import math
import re
import secrets
from dataclasses import replace
from pathlib import Path

from scipy import stats
from torch import Tensor

from lottolab.checks import one_of, require
from lottolab.nets import models
from lottolab.ownership.channels.matching import natural
from lottolab.ownership.channels.naming import State
from lottolab.ownership.signatures import embedding, qr, signature
from lottolab.ownership.signatures.key import SignatureKey

WRAPPERS = re.compile(r"^(module\.|_orig_mod\.)+|(?<=\.)_orig_mod\.")
SMALLEST = qr.Format(1, "H", 0).size


def read(path: str | Path) -> State:
    """Read a safetensors file; what torch's pruning keeps apart becomes one weight.

    A module under `torch.nn.utils.prune` holds `weight_orig` and `weight_mask` and
    computes with their product, which is returned as `weight`.

    Raises:
        ValueError: the file cannot be read, is no safetensors or holds no tensor.
    """
    try:
        state = models.load_state(path)
    except OSError as error:
        raise ValueError(str(error)) from error
    require(len(state) > 0, f"{path} must hold at least one tensor", "none")
    for name in [n.removesuffix("_orig") for n in state if n.endswith("_orig")]:
        parts = [state.get(f"{name}{end}") for end in ("_orig", "_mask")]
        apart = parts[1] is not None and name not in state
        if apart and parts[0].shape == parts[1].shape:
            state[name] = parts[0] * parts[1].to(parts[0].dtype)
            del state[f"{name}_orig"], state[f"{name}_mask"]
    return state


def unwrapped(state: State) -> State:
    """Take from the names what torch puts in front; where two were alike they stay."""
    found: State = {}
    for name, tensor in sorted(state.items(), key=lambda item: len(item[0])):
        short = bare(name)
        found[name if short in found else short] = tensor
    return found


def bare(name: str) -> str:
    """Take from a name what torch puts in front.

    >>> bare("module.layer1._orig_mod.0.weight")
    'layer1.0.weight'
    """
    return WRAPPERS.sub("", name)


def embed(
    state: State,
    text: str,
    *,
    ecc: str = "H",
    layer: str | None = None,
    secret: str | None = None,
) -> tuple[State, SignatureKey]:
    """Write `text` into the zeros of a sparse state dict, with a secret of its own.

    Weights in places that were empty get the mean |w| of their layer and a random
    sign; the network has to be trained again.

    Args:
        layer: the one to use; by default the first that is sparse and large enough, in
            the order of the names, numbers by value, and linear ones last.
        secret: as `key.draw_secret` draws it for a reference; a new one if None.

    Raises:
        ValueError: as `signature.embed`; no layer is sparse, or none large enough; a
            tensor is not finite.
    """
    for name, tensor in state.items():
        finite = tensor.element_size() == 1 or bool(tensor.isfinite().all())
        require(finite, f"{name} must be finite to be written", "NaN or inf")
    layers = _signable(state, layer)
    masks = {name: weights != 0 for name, weights in layers.items()}
    options = {"ecc": ecc, "layer": layer, "secret": secret or secrets.token_hex(32)}
    masks, key = signature.embed(masks, text, **options)
    place = key.layer
    filled = embedding.fill(layers[place], masks[place], secrets.randbits(32))
    signed = state | {place: filled.view_as(state[place])}
    return signed, replace(key, layer=bare(place))


def verify(
    state: State, key: SignatureKey, *, claim: str | None = None, dated: bool = False
) -> tuple[str, signature.Verification]:
    """Look for the signature in every layer of the shape that the key is for.

    The layer of the key's name comes first, but names prove nothing: the p-value pays
    for all layers of this shape. What is not finite is no layer.

    Nor does a key say when it was made, and of all texts one fits a network best. So
    the p-value pays for all that a claimant could have chosen to fit, which is all but
    the secret: the text, the format and the threshold. Not if key and text are `dated`,
    bound by a hash that is older than the suspect.

    Returns the layer's name and what `signature.verify` says of it.

    Raises:
        ValueError: as `signature.verify`, or no layer has the shape.
    """
    layers = {n: w for n, w in state.items() if tuple(w.shape[:2]) == key.shape}
    layers = {n: w for n, w in layers.items() if w.numel() and w.isfinite().all()}
    what = "the key is for another network: a layer must have {} × {} finite kernels"
    require(len(layers) > 0, what.format(*key.shape), "none")
    found = []
    for name in sorted(layers, key=lambda name: name != key.layer):
        own = replace(key, layer=name)
        seen = signature.verify({name: _kernels(layers[name])}, own, claim=claim)
        p = _paid(seen, key, claim, len(layers), dated)
        accepted = p < signature.ACCEPT
        found.append((name, replace(seen, p_value=p, accepted=accepted)))
        if accepted:
            break
    return min(found, key=lambda pair: pair[1].p_value)


def _paid(
    seen: signature.Verification,
    key: SignatureKey,
    claim: str | None,
    layers: int,
    dated: bool,
) -> float:
    """Return the p-value of one of so many layers; see `verify`."""
    if dated or math.isnan(seen.agreement):
        return min(1.0, seen.p_value * layers)
    count, longest = len(qr.places(key.version)), qr.capacity(key.version, key.ecc)
    length = longest if claim is None else len(key.spelling(claim).encode())
    formats, thresholds = 40 * len(qr.LEVELS) * 8, count + 1
    tries = key.windows * layers * formats * thresholds
    tries *= longest * 256**length  # as a whole number: too large for a float
    tail = stats.binom.logsf(round(seen.agreement * count) - 1, count, 0.5)
    return math.exp(min(tail + math.log(tries), 0.0))


def calibrate(state: State, key: SignatureKey) -> SignatureKey:
    """Return the key with the threshold that fits the owner's trained network.

    Raises:
        ValueError: the network does not carry the signature, see `signature.calibrate`.
    """
    layer = bare(key.layer)
    key = replace(key, layer=layer)
    require(key.fits(state), f"the network must have {layer} as in the key", "another")
    exact = replace(key, threshold=0.0)
    own = {layer: _kernels(state[layer])}
    text = signature.decode(signature.extract(own, exact), exact).text
    signed = text is not None and key.spelling(text) == text
    require(signed, "the network must carry the key's signature, zeros kept", "none")
    return signature.calibrate(own, key)


def _signable(state: State, layer: str | None) -> State:
    """Return the layers that a signature can go to, outputs × inputs × kernel."""
    if layer is not None:
        one_of("layer", layer, state)
    wrong = {name: _unfit(weights) for name, weights in state.items()}
    if layer in wrong:
        require(not wrong[layer], f"{layer} must {wrong[layer]} to be signed", "others")
    names = [n for n in state if not wrong[n] and layer in (None, n)]
    sparse = "the network must have pruned weights (zeros) in a layer"
    twos = [name for name in state if "2:4" in wrong[name]]
    hint = "a dense network: prune it first, as by torch.nn.utils.prune"
    hint = (
        f"a 2:4 pattern in {twos[0]}, which a signature would break" if twos else hint
    )
    require(len(names) > 0, sparse, hint)
    most = max(names, key=lambda name: min(state[name].shape[:2]))
    size = " × ".join(map(str, state[most].shape[:2]))
    room = f"a sparse layer must be at least {SMALLEST} × {SMALLEST} to be signed"
    require(min(state[most].shape[:2]) >= SMALLEST, room, f"{most} is {size}")
    names.sort(key=lambda name: (state[name].ndim == 2, natural(name)))
    return {name: _kernels(state[name]) for name in names}


def _unfit(weights: Tensor) -> str:
    """Say what is missing for a layer that can be signed; nothing if it can be."""
    if weights.ndim < 2 or not weights.numel():
        return "have two axes or more"
    if not weights.is_floating_point() or weights.element_size() == 1:
        return "hold floating-point weights"
    held = weights[weights != 0]
    if len(held) == weights.numel():
        return "have zeros"
    if len(held) and bool((held == held[0]).all()):
        return "hold weights of more than one value, else it is a mask and no weights"
    if embedding.by_twos(weights != 0):
        return "have its zeros elsewhere than in two of every four (2:4)"
    return ""


def _kernels(weights: Tensor) -> Tensor:
    """Return weights of two and more axes as outputs × inputs × kernel, four axes."""
    return weights if weights.ndim == 4 else weights.reshape(*weights.shape[:2], -1, 1)
