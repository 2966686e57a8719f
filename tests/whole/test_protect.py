"""Ownership on files that did not come from this book."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
from dating import dated
from safetensors.torch import load_file, save_file

from lottolab.cli import main
from lottolab.nets import checkpoint
from lottolab.ownership.attacks import obfuscation, signs, silencing

EXAMPLE = Path(__file__).parents[2] / "examples/protect.py"


def sparse(shapes, density=0.1, dtype=torch.float32):
    """Return tensors by name; the weights hold few numbers."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in shapes.items():
        weight = torch.randn(shape, generator=generator)
        if len(shape) > 1:
            weight *= torch.rand(shape, generator=generator) < density
        state[name] = weight.to(dtype)
    return state


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(
    ("shapes", "layer"),
    [
        ({"a.weight": (64, 80), "a.bias": (64,), "b.weight": (96, 64)}, "a.weight"),
        ({"encoder.0.w": (48, 40, 3, 3), "head": (200, 48)}, "encoder.0.w"),
    ],
)
def test_any_file_is_signed_and_all_else_in_it_stays(
    tmp_path, capsys, shapes, layer, dtype
):
    state = sparse(shapes, dtype=dtype)
    net, out, key = (str(tmp_path / n) for n in ("net", "signed", "key"))
    save_file(state, net, metadata={"format": "pt", "mine": "kept"})
    sign = ["ownership", "embed", net, "--text", "Ada", "--key", key, "--output", out]
    assert main(sign) == 0
    signed = load_file(out)
    assert checkpoint.header(out) == {"format": "pt", "mine": "kept"}
    assert json.loads(Path(key).read_text())["layer"] == layer
    changed = [n for n in state if not torch.equal(state[n], signed[n])]
    assert changed == [layer]
    assert signed[layer].shape == state[layer].shape
    assert signed[layer].dtype == dtype
    assert (signed[layer] != 0).sum() == (state[layer] != 0).sum()
    assert main(["ownership", "calibrate", out, "--key", key]) == 0
    ask = ["--key", key, "--claim", "Ada"]
    assert main(["ownership", "verify", out, *ask]) == 0
    assert "text 'Ada', 100.0% of the modules agree" in capsys.readouterr().out
    assert main(["ownership", "verify", net, *ask]) == 1


def test_a_hash_is_published_before_and_checked_after(tmp_path, capsys):
    net, out, key = (str(tmp_path / n) for n in ("net", "signed", "key"))
    save_file(sparse({"w": (40, 40, 3, 3)}), net)
    main(["ownership", "embed", net, "--text", "Ada", "--key", key, "--output", out])
    capsys.readouterr()
    ask = ["ownership", "commit", "--key", key, "--text"]
    assert main([*ask, "Ada"]) == 0
    published, kept = (
        line.split()[-1] for line in capsys.readouterr().out.splitlines()
    )
    assert main([*ask, "Ada", "--nonce", kept]) == 0
    assert published in capsys.readouterr().out
    assert main([*ask, "Ada"]) == 0
    assert published not in capsys.readouterr().out  # another nonce
    assert main([*ask, "Eve"]) == 2
    assert "was not made for the text 'Eve'" in capsys.readouterr().err
    assert main([*ask, "Ada", "--nonce", "short"]) == 2


def test_the_example_signs_trains_and_is_stolen(
    tmp_path, capsys, monkeypatch, on_one_thread
):
    monkeypatch.setenv("PROTECT_IMAGES", "256")
    monkeypatch.chdir(tmp_path)
    key, claim = ["--key", "key"], ["--claim", "Ada"]

    def example(*words):
        monkeypatch.setattr(sys, "argv", ["protect.py", *words])
        runpy.run_path(str(EXAMPLE), run_name="__main__")

    example("prune", "ticket")
    sign = ["ownership", "embed", "ticket", "--text", "Ada", "--output", "signed"]
    assert main([*sign, *key]) == 0
    example("train", "signed", "mine")
    signed, mine = load_file("signed"), load_file("mine")
    layer = json.loads(Path("key").read_text())["layer"]
    assert torch.equal(signed[layer] != 0, mine[layer] != 0)
    assert not torch.equal(signed[layer], mine[layer])
    assert main(["ownership", "calibrate", "mine", *key]) == 0
    assert main(["ownership", "verify", "mine", *key, *claim]) == 0
    example("steal", "mine", "stolen")
    stolen = ["ownership", "verify", "stolen", *key, *claim]
    assert main(stolen) == 1
    bind = ["ownership", "commit", *key, "--text", "Ada"]
    assert "20% of the weights" in capsys.readouterr().out
    assert main(bind) == 0
    told = [line.split()[-1] for line in capsys.readouterr().out.splitlines()]
    bound = ["--published", told[0], "--nonce", told[1], "--reference", "ticket"]
    assert main([*stolen, *bound]) == 0


def disguised(state, how):
    """Return a network that answers as before, and hides what it has."""
    if how == "duplicated":
        return obfuscation.duplicate(state, 1)
    if how == "cliques":
        return obfuscation.add_cliques(state, 6, 1)
    if how == "half precision":
        return obfuscation.split_in_half(state, 1)
    if how == "dead":
        return signs.add_dead(state, 1.0, 1)
    return silencing.silence(state, 1, decades=20, dust=1e-6)


@pytest.mark.parametrize(
    "how", ["duplicated", "cliques", "half precision", "dead", "silenced"]
)
def test_channels_that_were_split_added_or_silenced_are_read_through(
    tmp_path, capsys, how
):
    shapes = {"0.weight": (40, 3, 3, 3), "0.bias": (40,), "2.weight": (48, 40, 3, 3)}
    shapes |= {"2.bias": (48,), "5.weight": (10, 48)}
    net, out, key = (str(tmp_path / n) for n in ("net", "signed", "key"))
    twin = sparse(shapes) | {"0.weight": torch.randn(40, 3, 3, 3)}
    save_file(twin, net)
    main(["ownership", "embed", net, "--text", "Ada", "--key", key, "--output", out])
    main(["ownership", "calibrate", out, "--key", key])
    assert json.loads(Path(key).read_text())["layer"] == "2.weight"
    stolen = str(tmp_path / "stolen")
    save_file(disguised(load_file(out), how), stolen)
    ask = ["ownership", "verify", stolen, "--key", key, "--claim", "Ada"]
    assert main(ask) == (0 if how == "silenced" else 2)  # of another shape
    if how != "silenced":  # which is read where it stands
        assert main([*ask, *dated(key, "Ada", net)]) == 0
    assert ": accepted" in capsys.readouterr().out
    other = str(tmp_path / "other")
    save_file(disguised(twin, how), other)
    ask[2] = other
    assert main([*ask, *dated(key, "Ada", net)]) == 1  # it was never signed
