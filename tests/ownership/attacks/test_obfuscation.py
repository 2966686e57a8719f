"""Channels that are split, added and silenced, and the owner who merges them again."""

import copy
import functools
import itertools

import pytest
import torch
from torch import nn

from lottolab.nets import models
from lottolab.ownership.attacks import obfuscation, signs, silencing, symmetry
from lottolab.ownership.channels import alignment, hidden, matching
from lottolab.ownership.defences import merging

WIDTH = {"resnet8": 4, "resnet18": 4, "cnn4": 4, "vgg16_bn": 2, "lenet5": 6}
DOUBLE = ("cnn4", "vgg16_bn", "lenet5")  # all their channels but the image's are hidden


@functools.cache
def images():
    return torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
@functools.cache
def network(name, seed=0):
    """Return a network as training leaves it, half of its kernels alive."""
    options = {"channels": 3, "classes": 5, "width": WIDTH[name], "seed": seed}
    model = models.build(name, **options)
    generator = torch.Generator().manual_seed(seed + 1)
    state = model.state_dict()
    for key, tensor in state.items():
        if key.endswith("running_var"):
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
        elif tensor.ndim == 1:
            tensor.add_(0.2 * torch.randn(tensor.shape, generator=generator))
        elif tensor.ndim == 4 and not key.startswith("conv1."):
            tensor.mul_(torch.rand(tensor.shape, generator=generator) < 0.6)
            tensor.mul_(
                torch.rand((*tensor.shape[:2], 1, 1), generator=generator) < 0.5
            )
    return model.eval(), {k: v.clone() for k, v in state.items()}


@torch.no_grad()
def answers(name, state):
    """Evaluate a state dict by torch's own modules where they fit, else by ours."""
    if name.startswith("resnet"):
        return symmetry.logits(state, images())
    options = {"channels": 3, "classes": 5}
    factor = len(next(iter(state.values()))) / WIDTH[name]
    model = models.build(name, **options, width=round(WIDTH[name] * factor))
    model.load_state_dict(state)
    return model.eval()(images())


def off(found, expected):
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("spread", [1.0, 10.0])
@pytest.mark.parametrize("name", WIDTH)
def test_duplicates_keep_the_function_and_hide_the_zeros(name, spread):
    model, state = network(name)
    before = {k: v.clone() for k, v in state.items()}
    found = obfuscation.duplicate(state, 1, spread=spread)
    with torch.no_grad():
        expected = model(images())
    assert off(answers(name, found), expected) < 1e-5
    assert all(torch.equal(before[k], state[k]) for k in before)
    for places in hidden.hidden(state).values():
        for key, axis in places.items():
            assert found[key].shape[axis] == 2 * state[key].shape[axis]
            assert found[key].dtype == state[key].dtype
            if axis == 1:
                assert (found[key] != 0).float().mean() > 0.99


@pytest.mark.parametrize("name", ["resnet8", "resnet18"])
@pytest.mark.parametrize("members", [1, 2, 3])
def test_cliques_keep_the_function(name, members):
    model, state = network(name)
    found = obfuscation.add_cliques(state, 3, 1, members=members, spread=3.0)
    with torch.no_grad():
        expected = model(images())
    assert off(answers(name, found), expected) < 1e-5
    width = len(state["layer1.0.conv1.weight"])
    assert len(found["layer1.0.conv1.weight"]) == width + 3 * members


@pytest.mark.parametrize("name", ["resnet8", "cnn4", "vgg16_bn"])
@torch.no_grad()
def test_weights_of_half_precision_hide_behind_large_ones(name):
    model, state = network(name)
    before = {k: v.clone() for k, v in state.items()}
    found = obfuscation.split_in_half(state, 1)
    assert all(torch.equal(before[k], state[k]) for k in before)
    assert {w.dtype for w in found.values() if w.is_floating_point()} == {torch.half}
    wide = {k: v.float() if v.is_floating_point() else v for k, v in found.items()}
    assert off(answers(name, wide), model(images())) < 0.03  # rounding of one part
    for places in hidden.hidden(state).values():
        assert hidden.count(found, places) == 4 * hidden.count(state, places)
        for key in [key for key, axis in places.items() if axis == 1]:
            mean = state[key][state[key] != 0].abs().mean().nan_to_num(0)
            assert found[key].abs().max() * torch.finfo(torch.half).eps > 0.2 * mean


def test_noise_that_does_not_cancel_changes_the_function():
    model, state = network("resnet8")
    found = obfuscation.duplicate(state, 1)
    name = "layer1.0.conv2.weight"
    found[name] = found[name] + 0.1 * torch.randn_like(found[name])
    with torch.no_grad():
        assert off(answers("resnet8", found), model(images())) > 1e-2


SIGNS = {
    "sign": lambda state, **how: signs.split_by_sign(state, 1, **how),
    "dead": lambda state, **how: signs.add_dead(state, 1.0, 1, **how),
    "sixes": lambda state, **how: signs.add_sixes(state, 3, 1, **how),
}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *itertools.product(("resnet8", "resnet18", "cnn4"), SIGNS),
        ("vgg16_bn", "dead"),  # maxima are not linear
        ("lenet5", "dead"),
    ],
)
@torch.no_grad()
def test_channels_of_other_signs_keep_the_function(name, kind):
    model, state = network(name)
    state = {k: v.double() if v.ndim else v for k, v in state.items()}
    before = {k: v.clone() for k, v in state.items()}
    found = SIGNS[kind](state, spread=3.0)
    assert all(torch.equal(before[k], state[k]) for k in before)
    groups = hidden.rectified(state)
    assert len(hidden.hidden(state)) - len(groups) == (name in DOUBLE)
    for places in groups.values():
        n = hidden.count(state, places)
        more = {"sign": 3 * n, "dead": n, "sixes": 18}[kind]
        assert hidden.count(found, places) == n + more
        rows = hidden.incoming(found, places)
        if kind == "dead":
            assert (rows <= 0).all(1).sum() >= n
            continue
        mixed = (rows[:, :-1] > 0).any(1) & (rows[:, :-1] < 0).any(1)
        unit = rows[mixed] / rows[mixed].norm(dim=1, keepdim=True)
        assert (unit @ unit.T).tril(-1).max() < 1 - 1e-9  # none is another's multiple
    assert all(found[key].dtype == state[key].dtype for key in state)
    expected = evaluate(name, state)
    assert off(evaluate(name, found), expected) < 1e-10
    assert off(expected, model(images())) < 1e-5


@torch.no_grad()
def evaluate(name, state):
    """Evaluate a state dict of any hidden widths by torch's own modules."""
    model = copy.deepcopy(network(name)[0])
    for key, tensor in state.items():
        owner, _, part = key.rpartition(".")
        module = model.get_submodule(owner)
        old = getattr(module, part)
        new = nn.Parameter(tensor) if isinstance(old, nn.Parameter) else tensor
        setattr(module, part, new)
    return model(images().double())


def agreeing(found, reference, names=None, limit=1e-5):
    """Return the share of kernels that are alive in both or empty in both."""
    same, total = 0, 0
    for name in names or [n for n, w in reference.items() if w.ndim == 4]:
        size = found[name].abs().flatten(2).amax(2)
        alive = size > limit * size.max()
        same += int((alive == reference[name].flatten(2).any(2)).sum())
        total += alive.numel()
    return same / total


def moved(state, kind):
    """Disguise a ResNet as a thief would who does all that costs nothing."""
    if kind == "duplicated":
        state = obfuscation.duplicate(state, 1, spread=5.0)
    elif kind == "tripled":
        state = obfuscation.duplicate(state, 1, copies=3, size=10.0)
    elif kind == "cliques":
        state = obfuscation.add_cliques(state, 5, 1, members=3)
    elif kind != "both":
        for step in kind.split(", "):
            again = functools.partial(obfuscation.duplicate, seed=1, size=10.0)
            state = SIGNS.get(step, again)(state)
    else:
        state = obfuscation.add_cliques(obfuscation.duplicate(state, 1), 4, 2)
    return symmetry.rescale_outputs(symmetry.permute(state, 4), 5)


@pytest.mark.parametrize("kind", ["duplicated", "tripled", "cliques", "both"])
def test_merging_before_matching_brings_every_module_back(kind):
    _, state = network("resnet8")
    stolen = moved(state, kind)
    merged = merging.merge(stolen, state)
    shapes = {k: v.shape for k, v in state.items()}
    assert {k: v.shape for k, v in merged.items()} == shapes
    assert off(answers("resnet8", merged), answers("resnet8", stolen)) < 1e-4
    assert agreeing(alignment.align(merged, state), state) == 1.0
    if kind != "cliques":  # matching alone gives each of ours the emptiest of theirs
        assert agreeing(alignment.align(stolen, state), state) < 0.8


@pytest.mark.parametrize("kind", [*SIGNS, "sign, duplicated", "dead, duplicated"])
def test_matching_finds_the_owners_channels_among_all_that_are_kept(kind):
    _, state = network("resnet8")
    stolen = moved(state, kind)
    assert agreeing(alignment.align(merging.merge(stolen, state), state), state) == 1.0


@pytest.mark.parametrize("kind", SIGNS)
def test_a_chain_may_be_wider_than_the_reference(kind):
    _, state = network("cnn4")
    groups = matching.chain(state)
    merged = merging.merge(SIGNS[kind](state), state)
    assert agreeing(matching.align(merged, state, groups), state) == 1.0


@pytest.mark.parametrize("name", ["cnn4", "lenet5"])
def test_merging_brings_a_chain_back_to_the_shapes_that_matching_needs(name):
    model, state = network(name)
    stolen = obfuscation.duplicate(state, 1, spread=3.0)
    groups = matching.chain(state)
    assert agreeing(matching.align(stolen, state, groups), state) < 0.9
    merged = merging.merge(stolen, state)
    with torch.no_grad():
        assert off(answers(name, merged), model(images())) < 1e-4
    assert agreeing(matching.align(merged, state, groups), state) == 1.0


def test_merging_leaves_a_network_of_the_right_size_alone():
    _, state = network("resnet8")
    state = state | {
        n: t.clone() for n, t in state.items() if n.startswith("layer1.0.")
    }
    for name, places in [*hidden.hidden(state).items()][:1]:
        for key, axis in places.items():  # the owner's own channels 0 and 1 are alike
            if axis == 0:
                state[key][1] = state[key][0]
        assert name == "layer1.0"
    found = merging.merge(state, state)
    assert all(torch.equal(found[k], state[k]) for k in state)
    stolen = obfuscation.duplicate(state, 1)
    merged = merging.merge(stolen, state)
    assert off(answers("resnet8", merged), answers("resnet8", state)) < 1e-4


@pytest.mark.parametrize(("jitter", "back"), [(0.05, True), (0.5, False)])
def test_copies_that_training_moved_are_merged_within_the_tolerance(jitter, back):
    _, state = network("resnet8")
    stolen = obfuscation.duplicate(state, 1)
    generator = torch.Generator().manual_seed(0)
    for name in [n for n in stolen if n.endswith("conv1.weight") and "." in n[:-7]]:
        noise = torch.randn(stolen[name].shape, generator=generator)
        stolen[name] = stolen[name] * (1 + jitter * noise)
    merged = merging.merge(stolen, state)
    reads = [n for n in state if n.endswith("conv2.weight")]
    share = agreeing(alignment.align(merged, state), state, reads, limit=0.03)
    assert (share > 0.97) == back


def test_dead_channels_are_merged_with_their_own_copies():
    _, state = network("resnet8")
    dead = "layer1.0.conv1.weight"
    state = state | {dead: state[dead].clone()}
    state[dead][:2] = 0
    merged = merging.merge(obfuscation.duplicate(state, 1), state)
    assert agreeing(alignment.align(merged, state), state) == 1.0


class Inverted(nn.Module):
    """Hold MobileNet's block: widen, filter each channel, narrow."""

    def __init__(self, width):
        super().__init__()
        self.expand, self.bn1 = nn.Conv2d(3, width, 1), nn.BatchNorm2d(width)
        self.depth = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.bn2, self.project = nn.BatchNorm2d(width), nn.Conv2d(width, 4, 1)

    def forward(self, x):
        x = self.bn1(self.expand(x)).clamp(0, 6)
        return self.project(self.bn2(self.depth(x)).clamp(0, 6))


@torch.no_grad()
def test_groups_that_are_named_may_be_written_twice():
    generator = torch.Generator().manual_seed(0)
    model = Inverted(6).eval()
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.1)
    state = model.state_dict()
    places = dict.fromkeys(
        [n for n, t in state.items() if t.ndim and not n.startswith("project.")], 0
    )
    groups = {"hidden": places | {"project.weight": 1}}
    stolen = obfuscation.duplicate(state, 1, groups=groups)
    wide = Inverted(12).eval()
    wide.load_state_dict(stolen)
    assert off(wide(images()), model(images())) < 1e-5
    merged = merging.merge(stolen, state, groups=groups)
    small = Inverted(6).eval()
    small.load_state_dict(merged)
    assert off(small(images()), model(images())) < 1e-4
    found = {tuple(row.tolist()) for row in merged["depth.weight"].flatten(1)}
    assert found == {tuple(row.tolist()) for row in state["depth.weight"].flatten(1)}


@pytest.mark.parametrize("giants", [1, 2])
@pytest.mark.parametrize("name", ["resnet8", "cnn4", "lenet5"])
def test_silenced_channels_are_all_that_a_network_loses(name, giants):
    _, state = network(name)
    found = silencing.silence(state, 1, decades=20.0, dust=1e-8, giants=giants)
    cut = {n: t.clone() for n, t in found.items()}
    for places in hidden.hidden(state).values():
        for key, axis in places.items():
            if axis == 1:  # without the silenced channel, and without the dust
                wide = hidden.columns(cut[key], hidden.count(state, places))
                loudest = wide.abs().amax(1).argsort(descending=True)[:giants]
                assert float(wide[loudest].abs().amax(1).min()) > 1e6
                wide[loudest] = 0
                clean = hidden.with_columns(wide, cut[key], len(wide))
                cut[key] = torch.where(state[key] == 0, 0, clean)
    assert off(answers(name, found), answers(name, cut)) < 1e-5


def test_bad_input_is_refused_in_a_line():
    _, state = network("resnet8")
    wrong = [
        (lambda: obfuscation.duplicate(state, 1, copies=1), "copies must be a whole"),
        (lambda: obfuscation.duplicate(state, 1, size=0), "size must be"),
        (lambda: obfuscation.duplicate(state, 1, spread=0.5), "spread must be"),
        (lambda: obfuscation.duplicate(state, -1), "seed must be"),
        (lambda: obfuscation.add_cliques(state, 0, 1), "extra must be a whole"),
        (lambda: obfuscation.add_cliques(state, 1, 1, members=0), "members must be"),
        (lambda: signs.split_by_sign(state, 1, size=0), "size must be"),
        (lambda: signs.add_dead(state, 0.0, 1), "share must be"),
        (lambda: signs.add_dead(state, 1.0, 1, density=2), "density must be"),
        (lambda: signs.add_sixes(state, 0, 1), "extra must be a whole"),
        (lambda: silencing.silence(state, 1, decades=31), "decades must be"),
        (lambda: silencing.silence(state, 1, dust=-1.0), "dust must be"),
        (lambda: silencing.silence(state, 1, giants=0), "giants must be a whole"),
        (lambda: silencing.silence(state, 1, giants=4), "giants must be fewer"),
        (lambda: merging.merge(state, state, tolerance=1.0), "tolerance must be"),
        (lambda: merging.merge(state, {}, groups={"a": {"fc.weight": 0}}), "reference"),
        (
            lambda: obfuscation.duplicate(state, 1, groups={"a": {"no": 0}}),
            "a tensor of",
        ),
        (
            lambda: obfuscation.duplicate(state, 1, groups={"a": {"fc.weight": 0}}),
            "a group must have a weight that writes and one that reads",
        ),
        (
            lambda: obfuscation.duplicate(
                state, 1, groups={"a": {"fc.weight": 2, "fc.bias": 0}}
            ),
            "an axis of fc.weight must be 0",
        ),
    ]
    for call, message in wrong:
        with pytest.raises(ValueError, match=message) as error:
            call()
        assert "\n" not in str(error.value)
    half = {n: t.half() for n, t in state.items()}
    with pytest.raises(ValueError, match="decades must fit"):
        silencing.silence(half, 1, decades=20)
