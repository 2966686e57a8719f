"""No network dies of torch's strided 1×1 convolutions, on any CPU."""

import ast
import copy
import csv
import functools
import itertools
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from opacus.grad_sample import GradSampleModule
from torch import nn
from torch.func import functional_call
from torch.nn.utils import parametrizations, parametrize, prune

from lottolab.nets import models
from lottolab.nets.strided import CHANNELS, Subsampled, subsampled
from lottolab.pages import parameters
from lottolab.truth import results

CHILD = Path(__file__).with_name("backward.py")
STEMS = ("same", "stride2", "imagenet")
NARROW = range(1, CHANNELS)


def survives(settings: list[dict], onednn: str | None, aten: str | None) -> None:
    """Compute the settings in a child with other kernels; say where it died."""
    choice = {"ONEDNN_MAX_CPU_ISA": onednn, "ATEN_CPU_CAPABILITY": aten}
    # Since glibc 2.34 the allocator checks only with its debugging library before it.
    checks = {"MALLOC_CHECK_": "3", "LD_PRELOAD": "libc_malloc_debug.so.0"}
    hidden = {k: v for k, v in os.environ.items() if k not in choice}
    asked = {k: v for k, v in choice.items() if v}
    done = subprocess.run(
        [sys.executable, CHILD],
        input=json.dumps(settings),
        env={**hidden, **checks, **asked, "PYTHONPATH": str(CHILD.parents[1])},
        capture_output=True,
        text=True,
    )
    last = done.stdout.splitlines()[-1:]
    where = f"{done.returncode} at {last}: {done.stderr[-500:]}"
    assert (done.returncode, last) == (0, ["done"]), where


# What the book trains


@functools.cache
def used() -> set[tuple[str, int | None]]:
    """Return each network with each width that a scale, a page or a stage gives it."""
    found = set()
    for chapter in parameters.chapters():
        defaults = {name: p.default for name, p in parameters.of(chapter).items()}
        for scale in parameters.scales(chapter):
            values = defaults | parameters.resolve(chapter, scale, {})
            found |= set(_in_parameters(values)) | set(_in_cells(chapter, values))
    for path in results.COMMITTED.glob("*/*.stages.csv"):
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                found |= set(_in_arguments(json.loads(row["arguments"])))
    return found


def _in_parameters(values: dict) -> Iterator[tuple[str, int | None]]:
    flat = {k: v if isinstance(v, list) else [v] for k, v in values.items()}
    widths = [w for k, v in flat.items() if k in ("width", "widths") for w in v]
    names = [n for v in flat.values() for n in v if isinstance(n, str)]
    yield from itertools.product(set(names) & set(models.MODELS), [*widths, None])


def _in_cells(chapter: str, values: dict) -> Iterator[tuple[str, int | None]]:
    """Work out `dict(name="resnet8", width=width // 2, …)` in a chapter's code."""
    page = json.loads((parameters.BOOK / f"{chapter}.ipynb").read_text("utf-8"))
    cells = ["".join(c["source"]) for c in page["cells"] if c["cell_type"] == "code"]
    for node in (node for cell in cells for node in ast.walk(ast.parse(cell))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "dict":
            given = {k.arg: ast.unparse(k.value) for k in node.keywords if k.arg}
            try:
                name = eval(given.get("name", "None"), {}, values)
                width = eval(given.get("width", "None"), {}, values)
            except NameError:
                continue  # of a comprehension, over parameters
            if name in models.MODELS:
                yield name, width


def _in_arguments(value: object) -> Iterator[tuple[str, int | None]]:
    if isinstance(value, dict) and value.get("name") in models.MODELS:
        yield value["name"], value.get("width")
    parts = value.values() if isinstance(value, dict) else value
    for part in parts if isinstance(value, dict | list) else []:
        yield from _in_arguments(part)


def settings(networks: set[tuple[str, int | None]]) -> list[dict]:
    """Return the networks with every stem that they have, on images of two kinds."""
    found, images = [], itertools.cycle([(1, 28), (3, 32)])
    for (name, width), stem in itertools.product(sorted(networks, key=str), STEMS):
        with torch.device("meta"):
            try:
                models.build(name, width=width, stem=stem, channels=1, classes=10)
            except ValueError:
                continue  # the network has no such stem
        channels, size = next(images)
        given = {"name": name, "width": width, "stem": stem}
        found.append(given | {"channels": channels, "size": size})
    return found


READERS = [
    {"how": how, "channels": channels, "stride": stride}
    for how in ("fit", "dp", "snip", "grasp")
    for channels, stride in ((3, 2), (1, [2, 1]), (7, 2))
]


def test_the_book_has_narrow_networks_with_strided_convolutions():
    names = {name for name, _ in used()}
    assert {"cnn4", "resnet18", "resnet50", "mobilenet_v2", "lenet5"} <= names
    assert {("resnet18", 4), ("resnet8", 6), ("resnet18", 10)} <= used()
    net = models.build("resnet18", width=4, channels=1, classes=10)
    kinds = [type(m) for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert kinds.count(Subsampled) == 1
    assert not any(isinstance(m, Subsampled) for m in wide().modules())


def wide() -> nn.Module:
    return models.build("resnet18", width=8, channels=1, classes=10)


def test_narrow_networks_survive_avx2():
    narrow = {(n, w) for n, w in used() if w in NARROW and n.startswith("resnet")}
    quick = [reader for reader in READERS if reader["how"] != "dp"]  # imports Opacus
    survives([*quick, *settings(narrow)], "AVX2", "avx2")


@pytest.mark.long
@pytest.mark.parametrize("aten", [None, "avx2"])
@pytest.mark.parametrize("onednn", ["SSE41", "AVX2", None])
def test_every_network_survives_every_kernel(onednn, aten):
    narrow = set(itertools.product(models.MODELS, NARROW))
    survives([*READERS, *settings(used() | narrow)], onednn, aten)


# What is done to a convolution


def convolve(x, weight, stride):
    """Return a 1×1 convolution by its definition."""
    down, right = stride
    return np.einsum("ncij,oc->noij", x[:, :, ::down, ::right], weight[:, :, 0, 0])


@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize("stride", [(2, 2), (3, 1), (1, 2)])
@pytest.mark.parametrize("last", [True, False])
def test_it_computes_the_same(size, stride, last):
    torch.manual_seed(0)
    layer = nn.Conv2d(5, 4, 1, stride).double()
    weight, bias = (p.detach().numpy() for p in layer.parameters())
    kind = torch.channels_last if last else torch.contiguous_format
    x = torch.randn(3, 5, size, size).double().contiguous(memory_format=kind)
    x.requires_grad_()
    layer = subsampled(layer)
    y = layer(x)
    wanted = convolve(x.detach().numpy(), weight, stride) + bias[:, None, None]
    assert y.detach().numpy() == pytest.approx(wanted)
    assert y.is_contiguous(memory_format=kind)
    assert layer(x[0]).detach().numpy() == pytest.approx(wanted[0])
    slope = torch.randn_like(y)
    y.backward(slope)
    down, right = stride
    seen, out = x.detach().numpy()[:, :, ::down, ::right], slope.numpy()
    assert layer.weight.grad[:, :, 0, 0].numpy() == pytest.approx(
        np.einsum("noij,ncij->oc", out, seen)
    )
    assert layer.bias.grad.numpy() == pytest.approx(out.sum((0, 2, 3)))
    back = np.zeros(x.shape)
    back[:, :, ::down, ::right] = np.einsum("noij,oc->ncij", out, weight[:, :, 0, 0])
    assert x.grad.numpy() == pytest.approx(back)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(8, 4, 1, 2),
        nn.Conv2d(4, 4, 1),
        nn.Conv2d(4, 4, 1, 2, padding=1),
        nn.Conv2d(4, 4, 3, 2),
        nn.Conv2d(4, 4, (1, 2), 2),
        nn.Conv2d(4, 4, 1, 2, groups=2),
        nn.Conv1d(4, 4, 1, 2),
        nn.ConvTranspose2d(4, 4, 1, 2),
    ],
    ids=str,
)
def test_a_sound_layer_is_left_as_it_is(layer):
    kind, before = type(layer), dict(vars(layer))
    assert subsampled(layer) is layer
    assert type(layer) is kind
    assert vars(layer) == before


class Own(nn.Conv2d):
    """A convolution with a forward of its own."""

    def forward(self, x):
        return -super().forward(x)


class Named(nn.Conv2d):
    """A convolution that only says more about itself."""

    def extra_repr(self):
        return super().extra_repr() + ", named"


def test_a_forward_of_its_own_stays_and_a_class_of_its_own_too():
    assert type(subsampled(Own(4, 4, 1, 2))) is Own
    named = subsampled(Named(4, 4, 1, 2))
    assert isinstance(named, Subsampled)
    assert isinstance(named, Named)
    assert repr(named).endswith(", named)")


def net() -> nn.Sequential:
    torch.manual_seed(1)
    layers = nn.Conv2d(3, 4, 1, 2), nn.ReLU(), nn.Conv2d(4, 6, 1, 2, padding="valid")
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(24, 5))


X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def close(a, b) -> bool:
    return torch.allclose(a, b, atol=1e-5)


def test_names_and_copies_stay():
    plain, model = net(), subsampled(net())
    assert [type(m) for m in model[:3]] == [Subsampled, nn.ReLU, Subsampled]
    assert list(plain.state_dict()) == list(model.state_dict())
    plain.load_state_dict(model.state_dict())
    wanted = plain(X)
    kept = pickle.loads(pickle.dumps(model))
    for other in (model, copy.deepcopy(model), kept, subsampled(model)):
        assert close(other(X), wanted)
    state = {k: 2 * v for k, v in model.state_dict().items()}
    assert close(functional_call(model, state, X), functional_call(plain, state, X))


def test_torchs_own_pruning_goes_on():
    plain, model = net(), net()
    for network in (plain, model):
        prune.l1_unstructured(network[0], "weight", 0.5)
    wanted = plain(X)
    subsampled(model)
    prune.l1_unstructured(model[2], "weight", 1)
    prune.l1_unstructured(plain[2], "weight", 1)
    assert close(model(X), plain(X))
    assert not close(plain(X), wanted)
    prune.remove(model[0], "weight")
    assert type(model[0]) is Subsampled
    assert close(model(X), plain(X))


@pytest.mark.parametrize("first", [True, False])
def test_parametrised_weights_stay(first):
    plain, model = net(), net()
    parametrizations.weight_norm(plain[0])
    if first:
        parametrizations.weight_norm(model[0])
        subsampled(model)
    else:
        parametrizations.weight_norm(subsampled(model)[0])
    assert isinstance(model[0], Subsampled)
    assert list(plain.state_dict()) == list(model.state_dict())
    for network in (plain, model):
        network[0].parametrizations.weight.original0.data *= 3
    assert close(model(X), plain(X))
    assert close(copy.deepcopy(model)(X), plain(X))
    parametrize.remove_parametrizations(model[0], "weight")
    assert close(model(X), plain(X))


def test_opacus_sees_each_examples_gradient():
    model, y = subsampled(net()), torch.tensor([1, 3])
    wanted = []
    for image, label in zip(X, y, strict=True):
        model.zero_grad()
        nn.functional.cross_entropy(model(image[None]), label[None]).backward()
        wanted.append([p.grad.clone() for p in model.parameters()])
    model.zero_grad()
    sampled = GradSampleModule(model, loss_reduction="sum")
    nn.functional.cross_entropy(sampled(X), y, reduction="sum").backward()
    for place, weight in enumerate(model.parameters()):
        each = torch.stack([w[place] for w in wanted])
        assert torch.allclose(weight.grad_sample, each, atol=1e-5)
