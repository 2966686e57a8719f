"""Name the channels of a residual network and the tensors that hold them.

Channels that are added to each other go together. Option A pads a stream with zero
channels on both sides, so the stem's channels run through all stages and each later
stage brings a group of its own; with projections (option B) each stage has a stream of
its own. All of it follows from the names and the shapes in a state dict.
"""

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from lottolab.checks import require

NORM = ("weight", "bias", "running_mean", "running_var")
State = dict[str, Tensor]


@dataclass(frozen=True)
class Place:
    """Where a tensor holds a group's channels: number i at `at[i]` of `axis`.

    A tensor writes the channels along axis 0 (rows, batch norm) and reads them along
    axis 1 (columns). `at`: int64, as long as the group.
    """

    tensor: str
    axis: int
    at: Tensor


@dataclass(frozen=True)
class Group:
    """Channels that can be reordered among themselves, in all `places` at once.

    The channels between a block's convolutions are `hidden` and bear the block's name,
    or that of the convolution that writes them where the block has three of those;
    others belong to the stream, and bear the name `stem` or of the stage that adds
    them.
    """

    name: str
    hidden: bool
    size: int
    places: tuple[Place, ...]


def groups(state: State) -> list[Group]:
    """List the groups of a network in the order in which the image meets them.

    Raises:
        ValueError: the network is no ResNet of `lottolab.nets.resnets`, trained,
            widened or folded.
    """
    require(
        "conv1.weight" in state,
        "the state dict must be that of a ResNet of lottolab",
        "no conv1.weight",
    )
    places: dict[str, list[Place]] = {}

    def writes(conv: str, where: dict[str, Tensor]) -> None:
        for name in (f"{conv}.weight", *vectors(state, conv)):
            for group, at in where.items():
                places.setdefault(group, []).append(Place(name, 0, at))

    def reads(layer: str, where: dict[str, Tensor]) -> None:
        for group, at in where.items():
            places[group].append(Place(f"{layer}.weight", 1, at))

    hidden = set()
    stream = {"stem": torch.arange(_size(state, "conv1.weight", 0))}
    writes("conv1", stream)
    for block in blocks(state):
        third = f"{block}.conv3.weight" in state  # a bottleneck
        *inner, last = [f"{block}.conv{n}" for n in range(1, 4 if third else 3)]
        given = stream
        for place, conv in enumerate(inner):
            name = block if place == 0 else conv
            hidden.add(name)
            reads(conv, given)
            given = {name: torch.arange(_size(state, f"{conv}.weight", 0))}
            writes(conv, given)
        reads(last, given)
        outputs = _size(state, f"{last}.weight", 0)
        stage = block.split(".")[0]
        if f"{block}.downsample.0.weight" in state:
            reads(f"{block}.downsample.0", stream)
            stream = {stage: torch.arange(outputs)}
            writes(f"{block}.downsample.0", stream)
        else:
            stream = _padded(stream, stage, outputs)
        writes(last, stream)
    reads("fc", stream)
    _check_cover(state, places)
    return [
        Group(name, name in hidden, len(found[0].at), tuple(found))
        for name, found in places.items()
    ]


def blocks(state: State) -> list[str]:
    """List the names of the residual blocks, `layer1.0` first.

    Raises ValueError if there are none.
    """
    pattern = re.compile(r"(layer(\d+)\.(\d+))\.conv1\.weight")
    found = [match for name in state if (match := pattern.fullmatch(name))]
    require(
        bool(found), "the state dict must be that of a ResNet of lottolab", "no blocks"
    )
    return [m[1] for m in sorted(found, key=lambda m: (int(m[2]), int(m[3])))]


def convolutions(state: State) -> list[str]:
    """List the names of the convolutions, without `.weight`."""
    return [n.removesuffix(".weight") for n, w in state.items() if w.ndim == 4]


def norm_of(conv: str) -> str:
    """Name the batch norm that follows a convolution.

    >>> norm_of("layer2.0.conv2"), norm_of("layer2.0.downsample.0")
    ('layer2.0.bn2', 'layer2.0.downsample.1')
    """
    return conv.replace("conv", "bn").replace("downsample.0", "downsample.1")


def vectors(state: State, conv: str) -> list[str]:
    """Name what goes with a convolution's rows: its bias if folded, or batch norm."""
    if f"{conv}.bias" in state:
        return [f"{conv}.bias"]
    return [f"{norm_of(conv)}.{part}" for part in NORM]


def signed_weights(state: State) -> State:
    """Return convolutions and classifier as float64, outputs × inputs × kernel.

    Rows that batch norm turns around are turned, as folding would.
    """
    names = [*(f"{conv}.weight" for conv in convolutions(state)), "fc.weight"]
    shaped = {n: state[n].double().view(*state[n].shape[:2], -1) for n in names}
    return {name: weight * row_signs(state, name) for name, weight in shaped.items()}


def row_signs(state: State, name: str) -> Tensor:
    """Return −1 for each row of a weight whose gamma is negative, else 1: n×1×1."""
    gamma = state.get(f"{norm_of(name.removesuffix('.weight'))}.weight")
    if name == "fc.weight" or gamma is None:
        gamma = torch.ones(len(state[name]))
    return torch.where(gamma < 0, -1.0, 1.0).double().view(-1, 1, 1)


def comparable(state: State, reference: State) -> State:
    """Leave out what the reference does not know, and a head that does not fit it.

    An empty one of other classes stands in its place, which is not compared.

    Raises ValueError if one of them has no residual blocks.
    """
    known = {*reference, *(f"{conv}.bias" for conv in convolutions(reference))}
    kept = {n for n in state if n in known or re.match(r"layer\d+\.\d+\.", n)}
    state = {name: tensor for name, tensor in state.items() if name in kept}
    both = blocks(state) and blocks(reference)  # each refuses what is no ResNet
    if not both or "fc.weight" not in reference:
        return state
    head, wanted = state.get("fc.weight"), reference["fc.weight"]
    if head is None or head.shape[1:] != wanted.shape[1:]:
        head = wanted.new_zeros(len(wanted) + 1, *wanted.shape[1:])
    return state | {"fc.weight": head, "fc.bias": head.new_zeros(len(head))}


def shared(state: State, reference: State) -> State:
    """Leave out what the reference has not, as blocks that were added, and counters.

    The biases that stand for its batch norms where these were folded are kept.
    """
    norms = {norm_of(conv): f"{conv}.bias" for conv in convolutions(reference)}
    folded = {bias for norm, bias in norms.items() if f"{norm}.weight" not in state}
    kept = {n for n in reference if not n.endswith("num_batches_tracked")} | folded
    return {name: tensor for name, tensor in state.items() if name in kept}


def residual(state: State) -> State:
    """Leave out what no ResNet of lottolab has, such as a tensor that is not used."""
    block = r"layer\d+\.\d+\.((conv|bn)\d|downsample\.[01])"
    return {n: w for n, w in state.items() if re.match(rf"({block}|conv1|bn1|fc)\.", n)}


def _size(state: State, name: str, axis: int) -> int:
    require(name in state, f"the state dict must hold {name}", "none")
    return state[name].shape[axis]


def _padded(stream: dict[str, Tensor], stage: str, outputs: int) -> dict[str, Tensor]:
    """Pad a stream on both sides with channels of a group of their own (option A)."""
    inputs = sum(map(len, stream.values()))
    if outputs == inputs:
        return stream
    before = (outputs - inputs) // 2
    every = torch.arange(outputs)
    added = torch.cat([every[: max(before, 0)], every[before + inputs :]])
    return {name: at + before for name, at in stream.items()} | {stage: added}


def _check_cover(state: State, places: dict[str, list[Place]]) -> None:
    """Refuse a state dict whose tensors do not hold just these channels."""
    held: dict[tuple[str, int], list[Tensor]] = {}
    for place in (p for found in places.values() for p in found):
        held.setdefault((place.tensor, place.axis), []).append(place.at)
    known = {name for name, _ in held} | {"fc.bias"}
    missing = known - set(state)
    require(not missing, "the network must be a ResNet of lottolab", f"no {missing}")
    other = {n for n in state if not n.endswith("num_batches_tracked")} - known
    require(not other, "the network must be a ResNet of lottolab", f"also {other}")
    for (name, axis), parts in held.items():
        shape, every = tuple(state[name].shape), torch.cat(parts).sort().values
        fits = len(shape) > axis and torch.equal(every, torch.arange(shape[axis]))
        require(fits, f"axis {axis} of {name} must have {len(every)} channels", shape)
