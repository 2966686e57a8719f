"""Changed weights, same function: checked against the modules themselves."""

import functools
import itertools
import math

import pytest
import torch

from lottolab.nets import models, resnets
from lottolab.ownership.attacks import symmetry
from lottolab.ownership.channels import naming

KINDS = {
    "option A, depth 8": functools.partial(resnets.resnet_cifar, 8),
    "option A, depth 20": functools.partial(resnets.resnet_cifar, 20),
    "option B": resnets.resnet18,
}


@torch.no_grad()
def network(kind, stem="same", width=4, seed=0):
    """Return a module with batch norm as after training, and its state dict."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = KINDS[kind](channels=3, classes=5, width=width, stem=stem)
        norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = 1.0
            norm.weight.uniform_(0.5, 1.5)
            norm.weight *= torch.where(torch.rand(norm.weight.shape) < 0.2, -1, 1)
            norm.bias.normal_(0, 0.3)
        model.train()(images(64))
        for norm in norms:
            size = norm.running_var.shape
            norm.running_mean += 0.2 * torch.randn(size) * norm.running_var.sqrt()
            norm.running_var *= (0.3 * torch.randn(size)).exp()
    return model.eval(), model.state_dict()


@functools.cache
def images(size=16):
    """Return images that differ in colour and contrast."""
    generator = torch.Generator().manual_seed(9)
    colours = 2 * torch.randn(8, 3, 1, 1, generator=generator)
    return colours + torch.randn(8, 3, size, size, generator=generator)


@torch.no_grad()
def outputs(model):
    found = model(images().to(model.fc.weight.dtype))
    spread = found.std(0).min() / found.abs().max()
    assert spread > 0.02, "images must differ, or nothing is tested"
    return found


def same(a, b, tolerance=1e-4):
    return torch.allclose(a, b, rtol=0, atol=tolerance * float(b.abs().max()))


CHANGES = {
    "permute": lambda state, seed: symmetry.permute(state, seed),
    "outputs": lambda state, seed: symmetry.rescale_outputs(state, seed),
    "channels": lambda state, seed: symmetry.rescale_channels(state, seed),
    "widen": lambda state, seed: symmetry.widen(state, 4, seed),
    "fold": lambda state, seed: symmetry.fold(state),
}
# What needs batch norm comes before it is folded.
ORDERS = [
    ("permute", "outputs", "channels"),
    ("widen", "permute", "fold", "channels", "permute"),
    ("outputs", "fold", "widen", "permute", "channels"),
    ("channels", "outputs", "widen", "channels", "widen", "permute", "fold"),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "names", [*((name,) for name in CHANGES), *ORDERS], ids="-".join
)
def test_the_function_stays_and_the_weights_change(kind, names, dtype):
    model, _ = network(kind)
    expected, state = outputs(model.to(dtype)), model.state_dict()
    before = {n: t.clone() for n, t in state.items()}
    changed = state
    for seed, name in enumerate(names):
        changed = CHANGES[name](changed, seed)
    tolerance = 1e-9 if dtype == torch.float64 else 1e-4 if len(names) == 1 else 1e-3
    found = symmetry.logits(changed, images().to(dtype))
    assert same(found, expected, tolerance)
    if not {"widen", "fold"} & set(names):
        model.load_state_dict(changed)
        assert same(outputs(model), expected, tolerance)
        model.load_state_dict(before)
    for block in naming.blocks(state):
        for part in ("conv1", "conv2"):
            name = f"{block}.{part}.weight"
            assert changed[name].shape != state[name].shape or not torch.allclose(
                changed[name], state[name], rtol=0.05
            )
    assert all(torch.equal(before[n], state[n]) for n in before)
    assert all(t.dtype == dtype for t in changed.values() if t.ndim)


@pytest.mark.parametrize(
    ("kind", "stem"),
    [
        *itertools.product(KINDS, ["same", "stride2"]),
        ("option B", "imagenet"),
    ],
)
def test_the_functional_network_is_the_module(kind, stem):
    model, state = network(kind, stem=stem)
    with torch.no_grad():
        expected = model(images(32))
    assert same(symmetry.logits(state, images(32), stem), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_group_is_moved_in_all_its_places_or_the_function_breaks(kind):
    model, state = network(kind)
    expected = outputs(model)
    for group in naming.groups(state):
        moved = symmetry.reorder(state, {group.name: torch.arange(group.size).flip(0)})
        assert same(symmetry.logits(moved, images()), expected)
        for place in group.places:
            broken = moved | {place.tensor: state[place.tensor]}
            assert not same(symmetry.logits(broken, images()), expected)


def test_option_a_nests_the_stream():
    """Width 4: two channels are padded on each side of stage 2, four of stage 3."""
    _, state = network("option A, depth 8")
    found = {group.name: group for group in naming.groups(state)}
    blocks = ["layer1.0", "layer2.0", "layer3.0"]
    assert [n for n, group in found.items() if group.hidden] == blocks
    assert [n for n in found if n not in blocks] == ["stem", "layer2", "layer3"]
    at = {
        (name, place.tensor): place.at.tolist()
        for name, group in found.items()
        for place in group.places
    }
    assert at["stem", "conv1.weight"] == [0, 1, 2, 3]
    assert at["stem", "layer2.0.conv1.weight"] == [0, 1, 2, 3]
    assert at["stem", "layer2.0.bn2.bias"] == [2, 3, 4, 5]
    assert at["layer2", "layer2.0.bn2.bias"] == [0, 1, 6, 7]
    assert at["stem", "fc.weight"] == [6, 7, 8, 9]
    assert at["layer2", "fc.weight"] == [4, 5, 10, 11]
    assert at["layer3", "fc.weight"] == [0, 1, 2, 3, 12, 13, 14, 15]
    assert ("layer3", "layer3.0.conv1.weight") not in at


def test_with_projections_each_stage_has_its_stream():
    _, state = network("option B")
    found = {g.name: g for g in naming.groups(state) if not g.hidden}
    sizes = {name: group.size for name, group in found.items()}
    assert sizes == {"stem": 4, "layer2": 8, "layer3": 16, "layer4": 32}
    tensors = {place.tensor for place in found["layer2"].places}
    assert "layer2.0.downsample.1.running_var" in tensors
    assert "layer3.0.downsample.0.weight" in tensors
    assert "layer1.1.conv2.weight" not in tensors


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hidden", [True, False])
def test_permuting_touches_the_groups_that_are_asked_for(kind, hidden):
    _, state = network(kind, width=8)
    moved = symmetry.permute(state, 3, hidden=hidden, stream=not hidden)
    touched = {n for n in state if not torch.equal(moved[n], state[n])}
    asked = [g for g in naming.groups(state) if g.hidden == hidden]
    assert touched == {place.tensor for group in asked for place in group.places}
    assert ("conv1.weight" in touched) == (not hidden)
    for name in state:
        values = moved[name].flatten().sort().values
        assert torch.equal(values, state[name].flatten().sort().values)
    again = symmetry.permute(state, 3, hidden=hidden, stream=not hidden)
    assert all(torch.equal(again[name], moved[name]) for name in state)
    other = symmetry.permute(state, 4, hidden=hidden, stream=not hidden)
    assert any(not torch.equal(other[name], moved[name]) for name in state)


@pytest.mark.parametrize("kind", KINDS)
def test_the_inverse_order_undoes_an_order(kind):
    _, state = network(kind)
    generator = torch.Generator().manual_seed(0)
    orders = {
        group.name: torch.randperm(group.size, generator=generator)
        for group in naming.groups(state)
    }
    moved = symmetry.reorder(state, orders)
    back = symmetry.reorder(moved, {n: order.argsort() for n, order in orders.items()})
    assert all(torch.equal(back[name], state[name]) for name in state)
    assert not torch.equal(moved["fc.weight"], state["fc.weight"])


def test_rescaled_outputs_are_undone_where_epsilon_counts():
    """A variance as small as batch norm's epsilon: scaling it alone would show."""
    model, state = network("option A, depth 8")
    for name in state:
        if name.endswith("running_var"):
            state[name].fill_(1e-5)
        elif name.endswith(("bn1.weight", "bn2.weight")):
            state[name].mul_(3e-3)
    expected = outputs(model)
    changed = symmetry.rescale_outputs(state, 0, spread=100.0)
    assert same(symmetry.logits(changed, images()), expected)
    without = {n: state[n] for n in state if ".bn" in n and n.endswith(".weight")}
    assert not same(symmetry.logits(changed | without, images()), expected)


@pytest.mark.parametrize(("spread", "size"), [(2.0, 1.0), (50.0, 0.01)])
def test_factors_are_spread_over_the_range(spread, size):
    _, state = network("option B", width=16)
    changed = symmetry.rescale_outputs(state, 1, spread, size)
    name = "layer4.1.conv2.weight"
    factors = (changed[name] / state[name]).flatten(1)
    assert torch.allclose(factors, factors[:, :1].expand_as(factors), rtol=1e-5)
    logs = (factors[:, 0] / size).log() / math.log(spread)
    assert logs.abs().max() <= 1 + 1e-5
    assert logs.min() < -0.8
    assert logs.max() > 0.8
    assert abs(logs.mean()) < 0.2


def test_dummies_look_alive_but_their_pairs_cancel():
    model, state = network("option A, depth 8", width=8)
    expected = outputs(model)
    wide = symmetry.widen(state, 6, seed=2)
    positions = set()
    for block in naming.blocks(state):
        rows, columns = wide[f"{block}.conv1.weight"], wide[f"{block}.conv2.weight"]
        old = state[f"{block}.conv1.weight"]
        assert len(rows) == len(old) + 6 == columns.shape[1]
        real = [i for i, row in enumerate(rows) if (row == old).flatten(1).all(1).any()]
        assert torch.equal(rows[real], old)
        assert torch.equal(columns[:, real], state[f"{block}.conv2.weight"])
        dummies = [i for i in range(len(rows)) if i not in real]
        positions.update(i < len(old) for i in dummies)
        norms = [part.flatten(1).norm(dim=1) for part in (rows[dummies], old)]
        strength = norms[0] / norms[1].mean()
        assert 0.5 < strength.min() <= strength.max() < 2
        for dummy in dummies:
            assert (rows[dummies] == rows[dummy]).flatten(1).all(1).sum() == 2
            alone = columns.clone()
            alone[:, dummy] = 0
            cut = wide | {f"{block}.conv2.weight": alone}
            assert not same(symmetry.logits(cut, images()), expected)
    assert positions == {True, False}


def test_a_sparse_network_gets_sparse_dummies():
    _, state = network("option A, depth 8", width=8)
    name = "layer2.0.conv1.weight"
    state[name][torch.rand(state[name].shape) < 0.9] = 0
    wide = symmetry.widen(state, 16, seed=0)[name]
    assert 0.05 < float((wide != 0).float().mean()) < 0.2


@pytest.mark.parametrize("kind", KINDS)
def test_a_folded_network_has_biases_and_no_batch_norm(kind):
    _, state = network(kind)
    folded = symmetry.fold(state)
    convolutions = naming.convolutions(state)
    expected = {
        f"{conv}.{part}" for conv in convolutions for part in ("weight", "bias")
    }
    assert set(folded) == expected | {"fc.weight", "fc.bias"}


def test_other_networks_are_refused():
    _, state = network("option A, depth 8")
    for name in ("cnn4", "vgg16_bn", "lenet5"):
        other = models.build(name, channels=1, classes=3, width=6, size=32, seed=0)
        with pytest.raises(ValueError, match="must be that of a ResNet"):
            symmetry.permute(other.state_dict(), 0)
    for missing in ("bn1.weight", "fc.bias", "layer2.0.conv2.weight"):
        with pytest.raises(ValueError, match=missing):
            symmetry.permute({n: t for n, t in state.items() if n != missing}, 0)
    with pytest.raises(ValueError, match="bn3"):
        symmetry.permute(state | {"layer1.0.conv3.weight": torch.ones(4, 4, 1, 1)}, 0)
    for name, axis in (("layer1.0.bn1.running_var", 0), ("layer2.0.conv1.weight", 1)):
        cut = state[name].narrow(axis, 0, 3)
        with pytest.raises(ValueError, match=f"axis {axis} of {name} must have"):
            symmetry.permute(state | {name: cut}, 0)


def test_bad_arguments_are_refused():
    _, state = network("option A, depth 8")
    for extra in (0, 1, 3, -2, 2.0):
        with pytest.raises(ValueError, match="extra must be even and at least 2"):
            symmetry.widen(state, extra, 0)
    for change in (symmetry.rescale_outputs, symmetry.rescale_channels):
        for spread in (0.5, -1.0, math.nan, math.inf):
            with pytest.raises(ValueError, match="spread must be finite"):
                change(state, 0, spread)
    for size in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="size must be finite"):
            symmetry.rescale_outputs(state, 0, size=size)
    folded = symmetry.fold(state)
    for change in (symmetry.fold, lambda s: symmetry.rescale_outputs(s, 0)):
        with pytest.raises(ValueError, match="must have batch norm"):
            change(folded)
    with pytest.raises(ValueError, match="groups must be of stem, layer1"):
        symmetry.reorder(state, {"layer9": torch.arange(4)})
    for order in ([0, 0, 1, 2], [0, 1, 2], [1, 2, 3, 4]):
        with pytest.raises(ValueError, match="stem must be a permutation"):
            symmetry.reorder(state, {"stem": torch.tensor(order)})
