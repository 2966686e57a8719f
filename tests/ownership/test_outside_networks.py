"""Networks that this project did not write: signed, stolen in disguise, verified.

Torchvision's architectures and torch's transformer, made sparse by torch's own pruning,
with random weights. The groups of channels are written down here by hand, layer by
layer, and a permutation by them must leave the network's answers as they are.
"""

import itertools
from pathlib import Path

import pytest
import torch
import yaml
from dating import dated
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils import prune
from torchvision import models

from lottolab.cli import main

pytestmark = [pytest.mark.usefixtures("on_one_thread"), pytest.mark.long]
LAYERS = (nn.Conv2d, nn.Linear)


class Transformer(nn.Module):
    """A small encoder over patches of numbers, with a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(12, 64)
        layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)
        self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.last = nn.Linear(64, 10)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        return self.last(self.blocks(self.first(patches)).mean(1))


def transformer() -> dict[str, dict[str, int]]:
    stream = {"first.weight": 0, "first.bias": 0, "last.weight": 1}
    groups = {"stream": stream}
    for n in range(2):
        b = f"blocks.layers.{n}."
        inside = {b + "linear1.weight": 0, b + "linear1.bias": 0}
        groups[f"inside {n}"] = inside | {b + "linear2.weight": 1}
        for name in ("self_attn.out_proj", "linear2"):
            stream |= {b + name + ".weight": 0, b + name + ".bias": 0}
        stream |= {b + "self_attn.in_proj_weight": 1, b + "linear1.weight": 1}
        for name in ("norm1", "norm2"):
            stream |= {b + name + ".weight": 0, b + name + ".bias": 0}
    return groups


def norm(name: str) -> dict[str, int]:
    parts = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{part}": 0 for part in parts}


def resnet18() -> dict[str, dict[str, int]]:
    streams = [{"conv1.weight": 0} | norm("bn1")]
    groups = {}
    for stage, block in itertools.product((1, 2, 3, 4), (0, 1)):
        b = f"layer{stage}.{block}."
        groups[b] = {b + "conv1.weight": 0, b + "conv2.weight": 1} | norm(b + "bn1")
        streams[-1][b + "conv1.weight"] = 1
        if block == 0 and stage > 1:
            streams[-1][b + "downsample.0.weight"] = 1
            streams.append({b + "downsample.0.weight": 0} | norm(b + "downsample.1"))
        streams[-1] |= {b + "conv2.weight": 0} | norm(b + "bn2")
    streams[-1]["fc.weight"] = 1
    return groups | {f"stream {n}": places for n, places in enumerate(streams)}


def vgg16_bn() -> dict[str, dict[str, int]]:
    at = (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40)
    names = [f"features.{i}" for i in at] + [f"classifier.{i}" for i in (0, 3, 6)]
    groups = {}
    for name, after in itertools.pairwise(names):
        groups[name] = {f"{name}.weight": 0, f"{name}.bias": 0, f"{after}.weight": 1}
        if name.startswith("features"):
            groups[name] |= norm(f"features.{int(name.split('.')[1]) + 1}")
    return groups


def mobilenet_v2() -> dict[str, dict[str, int]]:
    groups = {"first": {"features.0.0.weight": 0} | norm("features.0.1")}
    first, stream = groups["first"], None
    first |= {"features.1.conv.0.0.weight": 0} | norm("features.1.conv.0.1")
    first |= {"features.1.conv.1.weight": 1}
    widths = [16, *[24] * 2, *[32] * 3, *[64] * 4, *[96] * 3, *[160] * 3, 320]
    before = None
    for n, width in enumerate(widths, 1):
        b = f"features.{n}.conv."
        if n > 1:
            inside = {b + "0.0.weight": 0, b + "1.0.weight": 0, b + "2.weight": 1}
            groups[b] = inside | norm(b + "0.1") | norm(b + "1.1")
            stream[b + "0.0.weight"] = 1
        if width != before:
            stream = groups[f"stream {width}"] = {}
        last = "1" if n == 1 else "2"
        stream |= {f"{b}{last}.weight": 0} | norm(f"{b}{int(last) + 1}")
        before = width
    stream["features.18.0.weight"] = 1
    end = {"features.18.0.weight": 0, "classifier.1.weight": 1}
    return groups | {"end": end | norm("features.18.1")}


NETWORKS = {
    "transformer": (Transformer, transformer, (2, 5, 12), True),
    "resnet18": (models.resnet18, resnet18, (2, 3, 64, 64), False),
    "vgg16_bn": (models.vgg16_bn, vgg16_bn, (1, 3, 64, 64), False),
    "mobilenet_v2": (models.mobilenet_v2, mobilenet_v2, (2, 3, 64, 64), True),
}


def permuted(state, groups, seed=3):
    """Put the channels of every group into another order, as a thief would."""
    state = {name: tensor.clone() for name, tensor in state.items()}
    generator = torch.Generator().manual_seed(seed)
    for places in groups.values():
        n = min(state[name].shape[axis] for name, axis in places.items())
        order = torch.randperm(n, generator=generator)
        for name, axis in places.items():
            each = state[name].shape[axis] // n  # pixels of a flattened channel
            index = (order[:, None] * each + torch.arange(each)).flatten()
            state[name] = state[name].index_select(axis, index)
    return state


@torch.no_grad()
def damaged(state, share):
    """Train on as far as a stand-in can: move all weights, prune what is smallest."""
    generator = torch.Generator().manual_seed(4)
    result = dict(state)
    for name, weight in state.items():
        if weight.ndim > 1:
            living = weight[weight != 0].abs()
            moved = torch.randn(weight.shape, generator=generator) * living.mean()
            limit = living.flatten()[:1_000_000].quantile(share)
            kept = weight.where(weight.abs() > limit, 0.0)
            result[name] = torch.where(kept != 0, kept + 0.05 * moved, kept)
    return result


@pytest.mark.parametrize("name", NETWORKS)
def test_a_stolen_network_of_another_kind_is_recognised(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    build, grouped, shape, named = NETWORKS[name]
    torch.manual_seed(0)
    model = build().eval()
    for module in list(model.modules()):
        if type(module) in LAYERS:
            prune.l1_unstructured(module, "weight", 0.8)
            prune.remove(module, "weight")
    save_file(model.state_dict(), "ticket")
    sign = ["ownership", "embed", "ticket", "--text", "Ada", "--key", "key"]
    assert main([*sign, "--output", "mine"]) == 0
    state, groups = load_file("mine"), grouped()
    model.load_state_dict(state)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = model(images)
        model.load_state_dict(permuted(state, groups))
        torch.testing.assert_close(model(images), before, rtol=1e-3, atol=1e-4)
    save_file(permuted(damaged(state, 0.05), groups), "stolen")
    weights = {n: a for g in groups.values() for n, a in g.items() if "weight" in n}
    assert weights  # biases and batch norms need not be named
    files = {g: {n: a for n, a in p.items() if n in weights} for g, p in groups.items()}
    Path("groups.yaml").write_text(yaml.safe_dump(files))
    ask = ["ownership", "verify", "stolen", "--key", "key", "--claim", "Ada"]
    assert main(ask) == 1
    bound = dated("key", "Ada", "ticket", "groups.yaml" if named else None)
    assert main([*ask, *bound]) == 0
    torch.manual_seed(5)
    save_file(build().state_dict(), "stranger")
    ask[2] = "stranger"
    assert main([*ask, *bound]) == 1
