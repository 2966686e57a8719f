"""Channels of networks that are no ResNets: found again, by groups that are named."""

import json

import pytest
import torch
import yaml
from dating import dated
from safetensors.torch import load_file, save_file
from torch import nn

from lottolab.cli import main
from lottolab.ownership.channels import matching

pytestmark = pytest.mark.usefixtures("on_one_thread")


class Residual(nn.Module):
    """Two blocks that add to one stream."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(10, 24)
        self.inside = nn.ModuleList(nn.Linear(24, 30) for _ in range(2))
        self.outside = nn.ModuleList(nn.Linear(30, 24) for _ in range(2))
        self.last = nn.Linear(24, 5)

    def forward(self, x):
        x = self.first(x)
        for inside, outside in zip(self.inside, self.outside, strict=True):
            x = x + outside(inside(x).relu())
        return self.last(x)


def convolutional():
    norms = nn.BatchNorm2d(24), nn.BatchNorm2d(32)
    first = [nn.Conv2d(3, 24, 3, bias=False), norms[0], nn.ReLU()]
    second = [nn.Conv2d(24, 32, 3), norms[1], nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(
        *first, *second, nn.Flatten(), nn.Linear(128, 16), nn.ReLU(), nn.Linear(16, 5)
    )


def perceptron():
    return nn.Sequential(
        nn.Linear(10, 30), nn.ReLU(), nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 5)
    )


# What goes together, written by hand, biases and batch norms as well.
KINDS = {
    "convolutional": (
        convolutional,
        (3, 8, 8),
        {
            "a": {"0.weight": 0, "1.*": 0, "3.weight": 1},
            "b": {"3.weight": 0, "3.bias": 0, "4.*": 0, "8.weight": 1},
            "c": {"8.weight": 0, "8.bias": 0, "10.weight": 1},
        },
    ),
    "perceptron": (
        perceptron,
        (10,),
        {
            "a": {"0.weight": 0, "0.bias": 0, "2.weight": 1},
            "b": {"2.weight": 0, "2.bias": 0, "4.weight": 1},
        },
    ),
    "residual": (
        Residual,
        (10,),
        {
            "stream": {"first.*": 0, "inside.0.weight": 1, "inside.1.weight": 1}
            | {"outside.0.*": 0, "outside.1.*": 0, "last.weight": 1},
            "in 0": {"inside.0.weight": 0, "inside.0.bias": 0, "outside.0.weight": 1},
            "in 1": {"inside.1.weight": 0, "inside.1.bias": 0, "outside.1.weight": 1},
        },
    ),
}
PARTS = ("weight", "bias", "running_mean", "running_var")


def network(kind, seed=0, density=1.0):
    """Return a module with random weights and batch norms, and its groups."""
    make, shape, short = KINDS[kind]
    generator = torch.Generator().manual_seed(seed)
    model = make().eval()
    state = model.state_dict()
    for name, tensor in state.items():
        if tensor.is_floating_point():
            drawn = torch.randn(tensor.shape, generator=generator) / 3
            kept = torch.rand(tensor.shape, generator=generator) < density
            positive = name.endswith("running_var") or tensor.ndim == 1
            tensor.copy_(drawn.abs() + 0.5 if positive else drawn * kept)
    groups = {
        group: {
            name: axis
            for short_name, axis in places.items()
            for name in (
                [short_name.replace("*", part) for part in PARTS]
                if "*" in short_name
                else [short_name]
            )
            if name in state
        }
        for group, places in short.items()
    }
    images = torch.randn(6, *shape, generator=generator)
    return model, groups, images


def drawn(state, groups, seed=1):
    """Draw an order of the channels of each group."""
    generator = torch.Generator().manual_seed(seed)
    sizes = {
        group: min(state[name].shape[axis] for name, axis in places.items())
        for group, places in groups.items()
    }
    return {g: torch.randperm(n, generator=generator) for g, n in sizes.items()}


def hidden(state, groups):
    """Put the channels of each group in the order of `drawn`, place by place."""
    result = dict(state)
    for group, order in drawn(state, groups).items():
        for name, axis in groups[group].items():
            each = state[name].shape[axis] // len(order)
            index = (order[:, None] * each + torch.arange(each)).flatten()
            result[name] = result[name].index_select(axis, index)
    return result


def weights(state):
    return {name: tensor for name, tensor in state.items() if tensor.ndim > 1}


@pytest.mark.parametrize("density", [1.0, 0.3])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_the_weights_come_back_in_order(kind, density):
    model, groups, images = network(kind, density=density)
    ours, before = dict(model.state_dict()), model(images)
    ours = {name: tensor.clone() for name, tensor in ours.items()}
    stolen = hidden(ours, groups)
    model.load_state_dict(stolen)
    assert torch.allclose(model(images), before, atol=1e-3)  # the theft is for nothing
    assert any(not torch.equal(stolen[n], ours[n]) for n in weights(ours))
    found = matching.align(stolen, ours, groups)
    assert set(found) == set(weights(ours))
    for name, weight in weights(ours).items():
        assert torch.allclose(found[name], weight, atol=1e-4), name


@pytest.mark.parametrize("kind", ["convolutional", "perceptron"])
def test_a_chain_needs_no_file_and_scales_do_not_matter(kind):
    model, groups, _ = network(kind, density=0.5)
    ours = model.state_dict()
    generator = torch.Generator().manual_seed(2)
    scaled = dict(ours)
    for places in groups.values():
        count = min(ours[name].shape[axis] for name, axis in places.items())
        factor = torch.exp(2 * torch.randn(count, generator=generator))
        for name, axis in places.items():
            if ours[name].ndim > 1:
                each = factor.repeat_interleave(ours[name].shape[axis] // count)
                shape = [-1 if i == axis else 1 for i in range(ours[name].ndim)]
                scaled[name] = scaled[name] * (each if axis == 0 else 1 / each).view(
                    shape
                )
    named = matching.chain(ours)
    wanted = {
        tuple(sorted((n, a) for n, a in g.items() if n in weights(ours)))
        for g in groups.values()
    }
    assert {tuple(sorted(g.items())) for g in named.values()} == wanted
    found = matching.align(hidden(scaled, groups), ours, named)
    for name, weight in weights(ours).items():
        assert torch.allclose(found[name], weight, atol=1e-3), name


def test_axes_may_stand_anywhere():
    """As other libraries keep kernels: height, width, inputs, outputs."""
    model, groups, _ = network("convolutional")
    ours, turned = dict(model.state_dict()), {"0.weight": 3, "3.weight": 3}
    where = {0: 3, 1: 2}
    groups = {
        group: {n: where[a] if n in turned else a for n, a in places.items()}
        for group, places in groups.items()
    }
    ours |= {name: ours[name].permute(2, 3, 1, 0).contiguous() for name in turned}
    found = matching.align(hidden(ours, groups), ours, groups)
    for name, weight in weights(ours).items():
        assert torch.allclose(found[name], weight, atol=1e-4), name


def test_channels_are_found_although_training_went_on():
    model, groups, _ = network("convolutional")
    ours = model.state_dict()
    generator = torch.Generator().manual_seed(3)
    tuned = {
        name: tensor + 0.1 * torch.randn(tensor.shape, generator=generator)
        if tensor.ndim > 1
        else tensor
        for name, tensor in ours.items()
    }
    orders, _ = matching.match(hidden(tuned, groups), ours, groups)
    for group, order in drawn(ours, groups).items():
        assert torch.equal(orders[group], order.argsort())


def test_natural_names_are_in_order():
    names = ["c.10.weight", "c.9.weight", "c.1.weight"]
    state = {"fc.weight": torch.zeros(2, 5)} | {n: torch.zeros(5, 5) for n in names}
    state["c.1.weight"] = torch.zeros(5, 7)
    assert list(matching.chain(state)) == ["c.1.weight", "c.9.weight", "c.10.weight"]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"a": {"0.wight": 0}}, "a tensor of group a must be one of .*did you mean"),
        ({"a": {"0.weight": 2}}, r"an axis of 0.weight, \(30, 10\), must be .*got 2"),
        ({"a": {"0.weight": -1}}, "must be one of its own, got -1"),
        (
            {"a": {"0.weight": 0}, "b": {"0.weight": 0}},
            "axis 0 of 0.weight must be in one group, got also b",
        ),
        (
            {"a": {"0.weight": 0, "4.weight": 1}},
            r"axis 0 of 0.weight must be a multiple of 20, got \(30, 10\)",
        ),
    ],
)
def test_groups_that_do_not_fit_are_refused(groups, message):
    state = network("perceptron")[0].state_dict()
    with pytest.raises(ValueError, match=message):
        matching.align(state, state, groups)


def test_networks_that_do_not_fit_are_refused():
    state = network("perceptron")[0].state_dict()
    groups = matching.chain(state)
    less = {name: tensor for name, tensor in state.items() if name != "2.weight"}
    other = state | {"2.weight": torch.zeros(21, 30)}
    broken = state | {"2.weight": torch.full((20, 30), torch.nan)}
    for suspect, message in (
        (less, "the network must hold 2.weight, as"),
        (other, r"2.weight must be \(20, 30\), got \(21, 30\)"),
        (broken, "2.weight must be finite, got NaN or inf"),
    ):
        with pytest.raises(ValueError, match=message):
            matching.align(suspect, state, groups)
    with pytest.raises(ValueError, match="restarts must be at least 1, got 0"):
        matching.align(state, state, groups, restarts=0)
    with pytest.raises(ValueError, match="b must take the 4 outputs of a, or the gro"):
        matching.chain({"a": torch.zeros(4, 3), "b": torch.zeros(2, 5)})
    with pytest.raises(ValueError, match="a chain must have two layers, got 1"):
        matching.chain({"a": torch.zeros(4, 3)})


@pytest.mark.parametrize("text", ["", "[1]", "a: 1", "a: {}", "a: {b: c}", "a: [b"])
def test_a_file_of_another_form_is_refused_in_one_line(tmp_path, text):
    path = tmp_path / "groups.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"must map each group|is no YAML") as caught:
        matching.read(path)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("by", ["chain", "yaml", "json"])
def test_a_moved_signature_of_a_plain_network_is_read(
    tmp_path, monkeypatch, capsys, by
):
    monkeypatch.chdir(tmp_path)
    model, groups, _ = network("convolutional", density=0.3)
    state = {n: t for n, t in model.state_dict().items() if t.is_floating_point()}
    save_file(state, "ticket")
    (tmp_path / "yaml").write_text(yaml.safe_dump(groups))
    (tmp_path / "json").write_text(json.dumps(groups))
    more = [] if by == "chain" else ["--groups", by]
    sign = ["ownership", "embed", "ticket", "--text", "Ada", "--output", "signed"]
    assert main([*sign, "--key", "key", *more]) == 0
    save_file(hidden(load_file("signed"), groups), "stolen")
    ask = ["ownership", "verify", "stolen", "--key", "key", "--claim", "Ada"]
    assert main(ask) == 1
    bound = dated("key", "Ada", "ticket", *more[1:])
    assert main([*ask, *bound]) == 0
    assert "accepted" in capsys.readouterr().out
    other = network("convolutional", seed=5, density=0.3)[0].state_dict()
    save_file({n: other[n] for n in state}, "other")
    ask[2] = "other"
    assert main([*ask, *bound]) == 1
    align = ["ownership", "align", "stolen", "--reference", "ticket", *more]
    assert main([*align, "--output", "aligned"]) == 0
    assert set(load_file("aligned")) == set(weights(state))
    assert main([*ask, "--groups", "yaml"]) == 2
    assert "give one" in capsys.readouterr().err
