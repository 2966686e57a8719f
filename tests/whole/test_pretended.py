"""Every stage computes on a device beside the CPU, mixing nothing: a pretended one.

A stage that is new is among them when its chapter asks for it.
"""

import copy
import inspect

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pretended import NAME, WrongDevice, pretended
from torch import nn

from lottolab.jobs import named as stages_by_name
from lottolab.nets import models, predict, tickets, train
from lottolab.nets.device import back, here
from lottolab.reruns.rehearsal import arguments, plan, rehearsal
from lottolab.runs import places, staging
from lottolab.truth.claims_file import CHAPTERS

X = torch.linspace(-1, 1, 12).reshape(4, 3)
Y = torch.arange(4) % 3
TINY = {
    "dataset": {"name": "digits", "size": 16},
    "sizes": {"train": 120, "val": 0, "test": 40},
    "network": {"name": "cnn4", "width": 4, "stem": "same"},
    "recipe": {"epochs": 1, "batch": 40, "lr": 0.05, "crop": 1},
    "rewind_at": 0,
}


def refused() -> dict:
    """Return what a card refuses, by name: functions of a tensor on each device."""
    return {
        "a sum": lambda x, y: x + y,
        "a product": lambda x, y: x @ y.T,
        "a loss": lambda x, y: F.cross_entropy(y, Y),
        "a join": lambda x, y: torch.cat([x, y]),
        "a choice": lambda x, y: torch.where(y > 0, y, x),
        "an equality": lambda x, y: torch.equal(x, y),
        "a card's index of the CPU's": lambda x, y: x[y.argmax(0)],
        "a card's sum into the CPU's": lambda x, y: x.clone().add_(y),
        "numpy": lambda x, y: y.numpy(),
        "numpy by itself": lambda x, y: np.asarray(y),
        "a CPU's generator": lambda x, y: torch.rand(
            3, generator=torch.Generator(), device=y.device
        ),
        "a CPU's generator in place": lambda x, y: y.normal_(
            generator=torch.Generator()
        ),
        "whole numbers": lambda x, y: y.long() @ y.long().T,
        "a gradient": lambda x, y: _gradient(x, y),
    }


def _gradient(x, y) -> None:
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, z):
            return z * 2

        @staticmethod
        def backward(ctx, gradient):
            return gradient * torch.ones(gradient.shape)  # on the CPU

    Wrong.apply(y.requires_grad_()).sum().backward()


ALLOWED = {
    "a number": lambda x, y: y * torch.tensor(2.0),
    "a choice of a number": lambda x, y: torch.where(y > 0, y, torch.tensor(0.0)),
    "an index": lambda x, y: y[torch.tensor([1, 0])],
    "a mask": lambda x, y: y[x > 0],
    "a copy into it": lambda x, y: torch.zeros_like(y).copy_(x),
    "one-hot rows": lambda x, y: F.one_hot(y.argmax(1), 3),
    "a count": lambda x, y: torch.bincount(y.argmax(1)),
    "zeros like it": lambda x, y: torch.zeros(2, device=y.device) + y.new_tensor([1.0]),
    "its own draw": lambda x, y: torch.rand(
        2, generator=torch.Generator(y.device).manual_seed(0), device=y.device
    ),
    "a deep copy": lambda x, y: copy.deepcopy(y),
    "a cast": lambda x, y: y.double().softmax(1),
    "a largest value's gradient": lambda x, y: torch.autograd.grad(
        (z := y.clone().requires_grad_()).max(1).values.sum(), z
    )[0],
}


@pytest.mark.parametrize("name", refused())
def test_the_device_refuses_what_a_card_refuses(name):
    with pretended(), pytest.raises(WrongDevice):
        refused()[name](X.clone(), here(X))
    if name not in ("a loss", "a card's index of the CPU's"):
        refused()[name](X.clone(), X.clone())  # which the CPU does


@pytest.mark.parametrize("name", ALLOWED)
def test_it_computes_the_rest_as_the_cpu_does(name):
    with pretended():
        found = ALLOWED[name](X, here(X))
        assert found.device.type == NAME
        found = back(found)
        assert found.device.type == "cpu"
    assert torch.equal(found, ALLOWED[name](X, X.clone()))


def test_a_tensor_goes_there_and_back_and_so_does_its_gradient():
    with pretended():
        x = X.clone().requires_grad_()
        there = here(x)
        assert (x.device.type, there.device.type) == ("cpu", NAME)
        assert there.to(NAME) is there
        assert there.to(x).device.type == "cpu"
        assert x.to(there).dtype == x.dtype
        (there * here(X)).sum().backward()
        assert x.grad.device.type == "cpu"
    assert torch.equal(x.grad, X)


def test_a_module_keeps_its_parameters_and_they_are_there():
    with pretended():
        module = nn.Linear(3, 2)
        weight = module.weight
        assert here(module).weight is weight
        assert weight.device.type == NAME
        assert module(here(X)).device.type == NAME
        with pytest.raises(WrongDevice, match=r"\[4, 3\] on cpu"):
            module(X)


def test_what_it_trains_has_the_cpus_bits(on_one_thread):
    images = torch.randint(256, (40, 1, 8, 8), dtype=torch.uint8)
    labels, scale = torch.arange(40) % 4, (torch.zeros(1), torch.ones(1))
    recipe = train.Recipe(epochs=2, batch=10, optimiser="adam", lr=0.01)

    def trained() -> torch.Tensor:
        model = models.build("cnn4", channels=1, classes=4, size=8, width=4, seed=1)
        train.fit(model, images, labels, recipe, seed=2, mean_std=scale)
        return predict.logits(model, images, scale)

    with pretended() as there:
        found = trained()
        assert there.count > 100
    assert torch.equal(found, trained())


def test_nothing_of_it_is_left():
    before = torch.Tensor.device, torch.Tensor.to, torch.zeros, torch.Generator
    with pretended():
        pass
    after = torch.Tensor.device, torch.Tensor.to, torch.zeros, torch.Generator
    assert after == before


# ---------------------------------------------------------------- stages


@pytest.fixture(scope="module")
def store_of_all(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def kept(store_of_all, monkeypatch):
    """Give one store to all long tests: what one has computed the next one reads."""
    monkeypatch.setenv("LOTTOLAB_STORE", str(store_of_all))
    monkeypatch.setenv("LOTTOLAB_JOBS", "1")
    return store_of_all


def firsts(chapter: str) -> list:
    """Return each stage that a chapter asks for with its first setting at smoke."""
    found = {}
    for stage, given in plan.planned(chapter, "smoke"):
        found.setdefault(places.name(stage), (stage, given))
    return list(found.values())


def test_one_chapter_mixes_nothing(on_one_thread):
    """The rehearsal's form of it: a few images, the first steps of each training."""
    work = firsts("membership")
    with pretended() as there:
        found = rehearsal.rehearse(work, rehearsal.SIZES[""])
        assert there.count > 1000
    assert found.errors == {}
    computed = {places.name(ledger.stage) for ledger in found.ledgers.values()}
    assert computed >= {places.name(stage) for stage, _ in work}


def test_a_misplaced_tensor_of_a_stage_is_found(on_one_thread, monkeypatch, tmp_path):
    monkeypatch.setenv("LOTTOLAB_STORE", str(tmp_path))
    with pretended():
        tickets.foresight(method="snip", rate=0.5, seed=0, **TINY)
        monkeypatch.setattr(tickets, "here", lambda x: x)  # as if it were forgotten
        with pytest.raises(WrongDevice, match="all tensors on one device"):
            tickets.foresight(method="snip", rate=0.5, seed=1, **TINY)


@pytest.mark.long
def test_no_stage_mixes_devices(kept, on_one_thread):
    """Every stage that a chapter asks for once, in full at smoke size."""
    assert failed([pair for chapter in CHAPTERS for pair in firsts(chapter)]) == {}


@pytest.mark.long
def test_no_stage_mixes_devices_by_any_name(kept, on_one_thread):
    """Each stage with each method, network, attack … that its chapter names.

    All stages have run then that compute networks.
    """
    assert failed([pair for chapter in CHAPTERS for pair in named(chapter)]) == {}
    ran = {path.parents[1].name for path in kept.glob("*/*/record.json")}
    left = set(stages_by_name.stages()) - staging.DRAWN - ran
    assert [name for name in left if _has_data(stages_by_name.find(name))] == []


def _has_data(stage) -> bool:
    taken = inspect.signature(stage).parameters.values()
    return any(p.name == "dataset" or p.kind is p.VAR_KEYWORD for p in taken)


def failed(work: list) -> dict[str, str]:
    """Compute on the device; return what failed and why."""
    found = {}
    with pretended():
        for stage, given in work:
            try:
                stage(**given)
            except Exception as error:  # all of them are told at the end
                found[places.told(stage, given)] = str(error)
    return found


def named(chapter: str) -> list:
    """Return a chapter's runs at smoke that have a word where none before had it."""
    chosen, seen = [], set()
    for stage, given in plan.planned(chapter, "smoke"):
        words = arguments.walk(places.arguments(stage, given))
        new = {(p, v) for p, v in words if isinstance(v, str) and "text" not in p}
        new = {(places.name(stage), *pair) for pair in new} - seen
        chosen += [(stage, given)] if new else []
        seen |= new
    return chosen
