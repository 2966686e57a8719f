"""Where something is computed is the environment's choice, and no stage's business."""

import pytest
import torch
from torch import nn

from lottolab.nets import models
from lottolab.nets.device import back, choose_precision, describe_device, here

KINDS = {
    "tensor": torch.arange(3.0),
    "tuple": (torch.ones(2), torch.zeros(1)),
    "list": [torch.ones(2), "text"],
    "dict": {"a": torch.ones(2), "b": {"c": torch.zeros(1)}},
    "number": 3,
}


def tensors(x) -> list[torch.Tensor]:
    if isinstance(x, dict | list | tuple):
        inner = x.values() if isinstance(x, dict) else x
        return [t for part in inner for t in tensors(part)]
    return [x] if isinstance(x, torch.Tensor) else []


@pytest.mark.parametrize("kind", KINDS)
def test_on_a_cpu_here_is_the_identity_and_back_changes_nothing(kind, monkeypatch):
    monkeypatch.setenv("LOTTOLAB_DEVICE", "cpu")
    assert here(KINDS[kind]) is KINDS[kind]
    again = back(KINDS[kind])
    assert type(again) is type(KINDS[kind])
    for old, new in zip(tensors(KINDS[kind]), tensors(again), strict=True):
        assert new is old


@pytest.mark.parametrize("kind", KINDS)
def test_here_moves_every_tensor(kind, monkeypatch):
    monkeypatch.setenv("LOTTOLAB_DEVICE", "meta")  # a device that every machine has
    moved = here(KINDS[kind])
    assert type(moved) is type(KINDS[kind])
    found = tensors(moved)
    assert [t.shape for t in found] == [t.shape for t in tensors(KINDS[kind])]
    assert all(t.device.type == "meta" for t in found)
    assert all(t.device.type == "cpu" for t in tensors(KINDS[kind]))


def test_a_module_is_moved_in_place_and_one_without_memory_is_left(monkeypatch):
    module = nn.Linear(2, 2)
    assert back(module) is module
    monkeypatch.setenv("LOTTOLAB_DEVICE", "meta")
    assert here(module) is module
    assert module.weight.device.type == "meta"
    assert back(module).weight.device.type == "meta"


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "cpu:x"])
def test_a_device_that_is_not_there_is_named_in_one_line(name, monkeypatch):
    monkeypatch.setenv("LOTTOLAB_DEVICE", name)
    with pytest.raises(ValueError, match=f"LOTTOLAB_DEVICE must be .* got {name}$"):
        here(torch.zeros(1))
    with pytest.raises(ValueError, match="LOTTOLAB_DEVICE must be"):
        models.build("cnn4", channels=1, classes=10)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_network_is_built_on_the_gpu_with_the_bits_of_the_cpu(monkeypatch):
    given = {"channels": 1, "classes": 10, "width": 4, "seed": 3}
    monkeypatch.setenv("LOTTOLAB_DEVICE", "cuda")
    there = models.build("cnn4", **given)
    monkeypatch.setenv("LOTTOLAB_DEVICE", "cpu")
    plain = models.build("cnn4", **given).state_dict()
    assert {p.device.type for p in there.parameters()} == {"cuda"}
    for name, value in back(there.state_dict()).items():
        assert torch.equal(value, plain[name])


@pytest.mark.parametrize("named", ["float32", "bfloat16"])
def test_the_environment_names_the_precision_of_any_device(named, monkeypatch):
    monkeypatch.setenv("LOTTOLAB_DEVICE", "cpu")
    monkeypatch.setenv("LOTTOLAB_PRECISION", named)
    assert choose_precision("cpu") == choose_precision("cuda") == named
    assert describe_device().endswith(f", {named}")


def test_a_precision_that_is_none_is_refused(monkeypatch):
    monkeypatch.setenv("LOTTOLAB_PRECISION", "float16")
    with pytest.raises(ValueError, match="must be one of float32, bfloat16"):
        choose_precision("cpu")
