"""Networks of the papers, as plain modules, and their weights on disk.

The image size matters only to LeNet-5; all others end in a global average pool.
"""

import functools
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lottolab.checks import check_seed, one_of, require, whole
from lottolab.nets.device import here
from lottolab.nets.mobilenet import MobileNetV2
from lottolab.nets.resnets import conv, resnet18, resnet50, resnet_cifar
from lottolab.runs import files


class VGG16(nn.Module):
    """Stack 13 convolutions (Simonyan & Zisserman, 2015, column D) with batch norm.

    The head is one linear layer after a global average pool, as is usual on CIFAR. A
    max pool is left out where the image has shrunk to one pixel, so that images under
    32×32 pass.
    """

    PLAN = (1, 1, "M", 2, 2, "M", 4, 4, 4, "M", 8, 8, 8, "M", 8, 8, 8, "M")

    def __init__(
        self, *, channels: int, classes: int, width: int = 64, stem: str = "same"
    ) -> None:
        super().__init__()
        self.features, stride = nn.ModuleList(), 2 if stem == "stride2" else 1
        for step in self.PLAN:
            if step == "M":
                continue
            layer = nn.Conv2d(channels, step * width, 3, stride, 1)
            self.features.append(nn.Sequential(layer, nn.BatchNorm2d(step * width)))
            channels, stride = step * width, 1
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        layers = iter(self.features)
        for step in self.PLAN:
            if step != "M":
                x = F.relu(next(layers)(x), inplace=True)
            elif min(x.shape[2:]) > 1:
                x = F.max_pool2d(x, 2)
        return self.classifier(x.mean((2, 3)))


class LeNet5(nn.Module):
    """Stack two 5×5 convolutions and three linear layers (LeCun et al., 1998).

    With ReLU, max pooling and full connections between the convolutions, as pruning
    papers use it. Images under 32×32 are padded by two, which is how LeCun et al. fed
    28×28 digits to it. `width` is the number of first filters; all else scales with it.
    """

    def __init__(
        self, *, channels: int, classes: int, width: int = 6, size: int = 32
    ) -> None:
        super().__init__()
        padding = 2 if size < 32 else 0
        side = ((size + 2 * padding - 4) // 2 - 4) // 2
        require(side >= 1, "size must be at least 12 for lenet5", size)
        w2, w3, w4 = (round(width * n / 6) for n in (16, 120, 84))
        self.conv1 = nn.Conv2d(channels, width, 5, padding=padding)
        self.conv2 = nn.Conv2d(width, w2, 5)
        self.fc1 = nn.Linear(w2 * side**2, w3)
        self.fc2 = nn.Linear(w3, w4)
        self.fc3 = nn.Linear(w4, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x), inplace=True), 2)
        x = F.max_pool2d(F.relu(self.conv2(x), inplace=True), 2).flatten(1)
        x = F.relu(self.fc1(x), inplace=True)
        return self.fc3(F.relu(self.fc2(x), inplace=True))


class CNN4(nn.Module):
    """Stack four 3×3 convolutions with batch norm, a global pool and a linear layer.

    Small and quick: widths 1, 2, 4, 4 × `width`, strides 1 (or the stem's), 2, 2, 2.
    """

    def __init__(
        self, *, channels: int, classes: int, width: int = 32, stem: str = "same"
    ) -> None:
        super().__init__()
        widths = (channels, width, 2 * width, 4 * width, 4 * width)
        for i in range(4):
            stride = 1 if i == 0 and stem == "same" else 2
            self.add_module(f"conv{i + 1}", conv(widths[i], widths[i + 1], stride))
            self.add_module(f"bn{i + 1}", nn.BatchNorm2d(widths[i + 1]))
        self.fc = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        x = F.relu(self.bn3(self.conv3(x)), inplace=True)
        x = F.relu(self.bn4(self.conv4(x)), inplace=True)
        return self.fc(x.mean((2, 3)))


MODELS = {
    "resnet8": functools.partial(resnet_cifar, 8),
    "resnet20": functools.partial(resnet_cifar, 20),
    "resnet32": functools.partial(resnet_cifar, 32),
    "resnet44": functools.partial(resnet_cifar, 44),
    "resnet56": functools.partial(resnet_cifar, 56),
    "resnet110": functools.partial(resnet_cifar, 110),
    "resnet18": resnet18,
    "resnet50": resnet50,
    "vgg16_bn": VGG16,
    "mobilenet_v2": MobileNetV2,
    "lenet5": LeNet5,
    "cnn4": CNN4,
}


def build(
    name: str,
    *,
    channels: int,
    classes: int,
    width: int | None = None,
    stem: str = "same",
    size: int = 32,
    seed: int | None = None,
) -> nn.Module:
    """Make a network of `MODELS` with fresh weights.

    It maps images, float [B, channels, H, W], to logits, float [B, classes].
    `width` is the number of first filters (the paper's where None); `stem` is "same"
    (3×3, stride 1), "stride2" (3×3, stride 2, a quarter of the work) or, for resnet18
    and resnet50, "imagenet"; lenet5 has only its own. `size`, pixels a side, matters to
    lenet5 alone.
    With a seed the weights are its alone and torch's global generator is not touched.

    Raises ValueError for a name or an argument that is not allowed.

    >>> build("cnn4", channels=1, classes=10, seed=0)(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """
    one_of("model", name, MODELS)
    every = ["same", "stride2", "imagenet"]
    stems = {"resnet18": every, "resnet50": every, "lenet5": ["same"]}
    one_of(f"stem of {name}", stem, stems.get(name, ["same", "stride2"]))
    given = {"channels": channels, "classes": classes, "width": width, "size": size}
    options = {key: value for key, value in given.items() if value is not None}
    for key, value in options.items():
        whole(key, value, 2 if key == "classes" else 1)
    if name != "lenet5":
        options = {**options, "stem": stem}
        options.pop("size", None)
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            check_seed(seed)
            # Not torch.manual_seed, which would seed the GPUs too.
            torch.default_generator.manual_seed(seed)
        return here(_initialise(MODELS[name](**options)))


def _initialise(model: nn.Module) -> nn.Module:
    """Draw convolutions by Kaiming normal (He et al., 2015), as in the ResNet paper."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model


def save(model: nn.Module | dict[str, Tensor], path: str | Path) -> None:
    """Write a model's or a state dict's tensors to a safetensors file, in one step."""
    state = model.state_dict() if isinstance(model, nn.Module) else model
    files.tensors(state, path)


def load_state(path: str | Path) -> dict[str, Tensor]:
    """Read a safetensors file to a state dict on the CPU; nothing else is ever opened.

    Raises FileNotFoundError; ValueError for a pickle (`torch.save` writes one), which
    could run code, and for any other file that is not sound safetensors.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: give a .safetensors file")
    with path.open("rb") as file:
        head = file.read(9)
    # Eight bytes of header length, then JSON: no pickle, zip or tar begins like that.
    if head[8:] != b"{":
        raise ValueError(
            f"{path} is not safetensors but may be a pickle, which is never opened: "
            "convert it to safetensors where it is trusted (lottolab.nets.models.save)"
        )
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}; make it again") from None
