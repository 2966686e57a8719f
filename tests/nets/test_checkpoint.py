"""A network's file says how to build it, and is never trusted further than that."""

import json

import pytest
import serving
import torch
from safetensors.torch import save_file

from lottolab.nets import checkpoint, models, predict


def written(path, told, state=None):
    """Write a file whose header says `told`."""
    state = state or models.build(**serving.NETWORK).state_dict()
    text = told if isinstance(told, str) else json.dumps(told)
    save_file(state, path, metadata={"lottolab": text})
    return path


def told(**changed):
    network = serving.NETWORK | changed
    return {"network": network, "mean": [0.5], "std": [0.3]}


@pytest.mark.parametrize("name", ["cnn4", "resnet8", "lenet5", "vgg16_bn"])
def test_the_network_that_is_read_predicts_what_the_written_one_does(tmp_path, name):
    stem = "same" if name == "lenet5" else "stride2"
    network = {"name": name, "channels": 3, "classes": 5, "stem": stem, "size": 28}
    network |= {"width": 4}
    model, path = models.build(**network, seed=0), tmp_path / "network"
    scale = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.2, 0.3, 0.4])
    checkpoint.save(model, path, network=network, mean_std=scale)
    found = checkpoint.load(path)
    x = torch.randint(256, (6, 3, 28, 28), dtype=torch.uint8)
    ours = predict.logits(model, x, scale)
    assert torch.equal(predict.logits(found.model, x, found.mean_std), ours)
    assert found.shape == (3, 28, 28)
    assert found.network == network
    assert [p.name for p in tmp_path.iterdir()] == ["network"]


def test_a_description_of_another_network_is_not_written(tmp_path):
    model, path = models.build(**serving.NETWORK), tmp_path / "network"
    for wrong in ({"width": 3}, {"name": "resnet8"}, {"classes": 11}):
        network = serving.NETWORK | wrong
        with pytest.raises((ValueError, RuntimeError)):
            checkpoint.save(model, path, network=network, mean_std=serving.SCALE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("header", "part"),
    [
        ("no JSON", "Expecting value"),
        ([1], "list indices"),
        ({"network": serving.NETWORK}, "'mean'"),
        (told(name="cnn5"), "did you mean cnn4"),
        (told(wdth=3), "network must have ('name', 'channels'"),
        (told(width="2"), "whole number"),
        (told(size=0), "size must be a whole number"),
        (told() | {"std": [0.0]}, "one a channel, and std > 0"),
        (told() | {"mean": [0.5, 0.5]}, "one a channel, and std > 0"),
        (told() | {"mean": "a"}, "does not say how"),
        (told(classes=11), "must hold the tensors of its cnn4"),
        (told(name="resnet8"), "must hold the tensors of its resnet8"),
    ],
)
def test_a_header_that_does_not_fit_is_refused_in_one_line(tmp_path, header, part):
    with pytest.raises(ValueError, match=r"network") as caught:
        checkpoint.load(written(tmp_path / "network", header))
    assert part in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_header_that_asks_for_a_giant_gets_no_memory(tmp_path):
    path = written(tmp_path / "network", told(width=2**20))
    with pytest.raises(ValueError, match="must hold the tensors"):  # not: no memory
        checkpoint.load(path)


def test_no_header_no_numbers_and_pickles_are_refused(tmp_path):
    state = models.build(**serving.NETWORK).state_dict()
    models.save(state, tmp_path / "bare")
    with pytest.raises(ValueError, match=r"write it by lottolab\.nets\.check"):
        checkpoint.load(tmp_path / "bare")
    state["fc.bias"][0] = torch.nan
    with pytest.raises(ValueError, match=r"NaN or inf in \['fc.bias'\]"):
        checkpoint.load(written(tmp_path / "nan", told(), state))
    state["fc.bias"] = torch.zeros(10, dtype=torch.float16)
    with pytest.raises(ValueError, match="must hold the tensors"):
        checkpoint.load(written(tmp_path / "half", told(), state))
    torch.save(state, tmp_path / "pickle")
    with pytest.raises(ValueError, match="never opened"):
        checkpoint.load(tmp_path / "pickle")
    with pytest.raises(FileNotFoundError):
        checkpoint.load(tmp_path / "none")
