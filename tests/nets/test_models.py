"""Models against published parameter counts and torchvision's networks."""

import pickle
import zipfile
from pathlib import Path

import pytest
import torch
import torchvision

from lottolab.nets import masks, models


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        # He et al. (2016), table 6, gives 0.27 to 1.7 M; to the digit, with option A:
        ("resnet20", {"channels": 3, "classes": 10}, 269_722),
        ("resnet32", {"channels": 3, "classes": 10}, 464_154),
        ("resnet44", {"channels": 3, "classes": 10}, 658_586),
        ("resnet56", {"channels": 3, "classes": 10}, 853_018),
        ("resnet110", {"channels": 3, "classes": 10}, 1_727_962),
        ("resnet18", {"channels": 3, "classes": 10}, 11_173_962),
        (
            "resnet18",
            {"channels": 3, "classes": 1000, "stem": "imagenet"},
            11_689_512,
        ),
        (
            "resnet50",
            {"channels": 3, "classes": 1000, "stem": "imagenet"},
            25_557_032,
        ),
        # As above less 1000 - 100 classes and a stem of 3×3 in place of 7×7.
        (
            "resnet50",
            {"channels": 3, "classes": 100},
            25_557_032 - 900 * (2048 + 1) - 64 * 3 * (49 - 9),
        ),
        ("vgg16_bn", {"channels": 3, "classes": 10}, 14_723_136 + 5130),
        ("mobilenet_v2", {"channels": 3, "classes": 1000}, 3_504_872),
        ("mobilenet_v2", {"channels": 3, "classes": 10}, 3_504_872 - 990 * 1281),
        ("lenet5", {"channels": 1, "classes": 10}, 61_706),
        ("lenet5", {"channels": 1, "classes": 10, "size": 28}, 61_706),
    ],
)
def test_parameter_counts_are_the_published_ones(name, options, expected):
    assert count(models.build(name, **options)) == expected


def randomise(module: torch.nn.Module) -> None:
    """Give batch norms statistics that matter, so that a swap would show."""
    for buffer in module.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    for parameter in module.parameters():
        if parameter.ndim == 1:
            parameter.data.uniform_(0.5, 1.5)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_a_resnet_computes_what_torchvisions_does(name):
    theirs = getattr(torchvision.models, name)().eval()
    randomise(theirs)
    ours = models.build(name, channels=3, classes=1000, stem="imagenet").eval()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x))


def test_vgg16_computes_what_torchvisions_features_do():
    theirs = torchvision.models.vgg16_bn().features.eval()
    randomise(theirs)
    ours = models.build("vgg16_bn", channels=3, classes=10).eval()
    values = theirs.state_dict().values()
    names = ours.features.state_dict()
    ours.features.load_state_dict(dict(zip(names, values, strict=True)))
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), ours.classifier(theirs(x).mean((2, 3))))


def test_mobilenet_v2_computes_what_torchvisions_does():
    theirs = torchvision.models.mobilenet_v2().eval()
    randomise(theirs)
    for parameter in theirs.parameters():
        if parameter.ndim == 4:  # or the signal dies: theirs count on the batch norms
            torch.nn.init.kaiming_normal_(parameter)
    ours = models.build("mobilenet_v2", channels=3, classes=1000, stem="stride2").eval()
    state = {k.replace("r.1.", "r."): v for k, v in theirs.state_dict().items()}
    assert list(ours.state_dict()) == list(state)
    ours.load_state_dict(state)
    x = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        found = ours(x)
        torch.testing.assert_close(found, theirs(x), rtol=1e-4, atol=1e-4)
    assert (found[0] - found[1]).abs().max() > 0.1


def test_mobilenet_v2_halves_four_times_and_narrows_as_a_whole():
    net = models.build("mobilenet_v2", channels=1, classes=10, width=4).eval()
    shapes = []
    for layer in net.features:
        layer.register_forward_hook(lambda _, __, out: shapes.append(out.shape[1:]))
    assert net(torch.zeros(1, 1, 28, 28)).shape == (1, 10)
    widths = [4, 2, *[3] * 2, *[4] * 3, *[8] * 4, *[12] * 3, *[20] * 3, 40, 160]
    sides = [28, 28, *[14] * 2, *[7] * 3, *[4] * 7, *[2] * 5]
    expected = [(c, s, s) for c, s in zip(widths, sides, strict=True)]
    assert [tuple(shape) for shape in shapes] == expected
    assert 30_000 < count(net) < 50_000
    least = models.build("mobilenet_v2", channels=1, classes=10, width=1)
    assert 2_000 < count(least) < 10_000
    # All but the first convolution and the classifier, the depthwise ones too.
    assert len(masks.prunable(net)) == 2 + 16 * 3 + 1


def test_option_a_subsamples_and_pads_with_zeros():
    block = models.build("resnet20", channels=1, classes=2).layer2[0].eval()
    block.bn2.weight.data.zero_()  # leaves the shortcut alone
    x = torch.rand(1, 16, 8, 8)
    out = block(x)
    assert torch.equal(out[:, 8:24], x[:, :, ::2, ::2])
    assert not out[:, :8].any()
    assert not out[:, 24:].any()


def test_resnet50_halves_and_doubles_by_stage_and_its_3x3_has_the_stride():
    net = models.build("resnet50", channels=1, classes=5, width=2, stem="same").eval()
    shapes = {}
    for name in ("conv1", "layer1", "layer2.0.conv1", "layer2", "layer3", "layer4"):
        net.get_submodule(name).register_forward_hook(
            lambda _, __, out, name=name: shapes.__setitem__(name, list(out.shape[1:]))
        )
    assert net(torch.zeros(1, 1, 32, 32)).shape == (1, 5)
    assert shapes == {
        "conv1": [2, 32, 32],
        "layer1": [8, 32, 32],
        "layer2.0.conv1": [4, 32, 32],
        "layer2": [16, 16, 16],
        "layer3": [32, 8, 8],
        "layer4": [64, 4, 4],
    }


def test_all_of_resnet50_but_the_first_convolution_and_the_classifier_is_prunable():
    net = models.build("resnet50", channels=3, classes=10, width=1)
    weights = [k for k, v in net.state_dict().items() if v.ndim in (2, 4)]
    assert len(weights) == 1 + 16 * 3 + 4 + 1  # stem, blocks, projections, classifier
    assert masks.prunable(net) == weights[1:-1]


NAMES = ["resnet20", "resnet18", "resnet50", "vgg16_bn", "lenet5", "cnn4"]
NAMES += ["mobilenet_v2"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32), (2, 40)])
def test_forward_and_backward(name, channels, size):
    width = {"lenet5": 6}.get(name, 4)
    stems = ["same"] if name == "lenet5" else ["same", "stride2"]
    for stem in stems:
        model = models.build(
            name, channels=channels, classes=7, width=width, stem=stem, size=size
        )
        out = model(torch.randn(3, channels, size, size))
        assert out.shape == (3, 7)
        out.square().sum().backward()
        assert all(p.grad is not None for p in model.parameters())


def test_the_stride2_stem_quarters_the_work():
    seen = {}
    for stem in ("same", "stride2"):
        model = models.build("resnet20", channels=1, classes=2, stem=stem)
        model.layer1.register_forward_hook(
            lambda _, __, out, stem=stem: seen.__setitem__(stem, out.shape[2:].numel())
        )
        model(torch.zeros(1, 1, 28, 28))
    assert seen["same"] == 4 * seen["stride2"]


def test_lenet_pads_small_images_to_its_own_size():
    small = models.build("lenet5", channels=1, classes=10, size=28, seed=0)
    large = models.build("lenet5", channels=1, classes=10, size=32, seed=0)
    x = torch.rand(2, 1, 28, 28)
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2))
    torch.testing.assert_close(small(x), large(padded))


def test_a_seed_decides_the_weights_and_leaves_the_global_generator_alone():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    make = [models.build("cnn4", channels=1, classes=5, seed=s) for s in (1, 1, 2)]
    assert torch.equal(torch.rand(3), expected)
    states = [m.state_dict() for m in make]
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    assert not torch.equal(states[0]["conv1.weight"], states[2]["conv1.weight"])
    assert not torch.equal(states[0]["fc.weight"], states[2]["fc.weight"])


def test_without_a_seed_the_global_generator_decides():
    torch.manual_seed(1)
    a = models.build("cnn4", channels=1, classes=5).fc.weight
    b = models.build("cnn4", channels=1, classes=5).fc.weight
    torch.manual_seed(1)
    assert torch.equal(a, models.build("cnn4", channels=1, classes=5).fc.weight)
    assert not torch.equal(a, b)


def test_convolutions_are_kaiming_normal():
    weight = (
        models.build("resnet18", channels=3, classes=9, seed=0).layer3[1].conv1.weight
    )
    expected = (2 / (256 * 9)) ** 0.5
    assert abs(weight.std().item() / expected - 1) < 0.01
    kurtosis = (weight**4).mean() / (weight**2).mean() ** 2
    assert abs(kurtosis.item() - 3) < 0.05  # a uniform one has 1.8


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnett20", {}, "did you mean resnet20"),
        ("lenet5", {"stem": "stride2"}, "stem of lenet5 must be one of same"),
        ("resnet20", {"stem": "imagenet"}, "stem of resnet20 must be one of"),
        ("cnn4", {"channels": 0}, "channels must be a whole number >= 1, got 0"),
        ("cnn4", {"classes": 1}, "classes must be a whole number >= 2, got 1"),
        ("cnn4", {"width": 2.5}, r"width must be a whole number >= 1, got 2\.5"),
        ("lenet5", {"size": 7}, "size must be at least 12"),
    ],
)
def test_bad_arguments_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        models.build(name, **{"channels": 1, "classes": 10, **options})


def test_a_depth_outside_the_family_is_refused():
    with pytest.raises(ValueError, match=r"depth must be 6n\+2"):
        models.resnet_cifar(21, channels=3, classes=10)


def test_weights_come_back_from_safetensors(tmp_path):
    model = models.build("lenet5", channels=1, classes=10, seed=0)
    path = tmp_path / "weights.safetensors"
    models.save(model, path)
    state = models.load_state(path)
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[k], v) for k, v in model.state_dict().items())
    shared = torch.arange(6.0)
    models.save({"a": shared, "b": shared[:3], "c": shared.view(2, 3).T}, path)
    assert torch.equal(models.load_state(path)["c"], shared.view(2, 3).T)


class Bomb:
    """Create a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_is_refused_and_never_run(tmp_path):
    fuse, path = tmp_path / "ran", tmp_path / "weights.safetensors"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        raw = pickle.dumps(Bomb(fuse), protocol)
        pickle.loads(raw)
        assert fuse.exists(), "the bomb must work, or the test shows nothing"
        fuse.unlink()
        path.write_bytes(raw)
        with pytest.raises(ValueError, match="convert it to safetensors"):
            models.load_state(path)
        # One that passes for safetensors by its ninth byte.
        path.write_bytes(raw[:8] + b"{" + raw[9:])
        with pytest.raises(ValueError, match="damaged"):
            models.load_state(path)
    for legacy in (True, False):
        torch.save(Bomb(fuse), path, _use_new_zipfile_serialization=not legacy)
        assert zipfile.is_zipfile(path) != legacy
        with pytest.raises(ValueError, match="convert it to safetensors"):
            models.load_state(path)
    assert not fuse.exists()


def test_missing_and_damaged_weights_say_so(tmp_path):
    path = tmp_path / "weights.safetensors"
    with pytest.raises(FileNotFoundError, match="is missing"):
        models.load_state(path)
    models.save({"a": torch.ones(5)}, path)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match="damaged"):
        models.load_state(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="not safetensors"):
        models.load_state(path)
