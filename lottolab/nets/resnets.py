"""Residual networks: the CIFAR family, ResNet-18 and ResNet-50."""

import torch.nn.functional as F
from torch import Tensor, nn

from lottolab.checks import require
from lottolab.nets.strided import subsampled


def conv(inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> nn.Conv2d:
    """Make a convolution that keeps the size at stride 1, without bias."""
    return subsampled(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    )


class Block(nn.Module):
    """Add two 3×3 convolutions to a shortcut (He et al., 2016, figure 2).

    Where the shape changes, `option` "A" subsamples and pads with zero channels, which
    takes no parameter; "B" projects by a 1×1 convolution.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, option: str) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(inputs, outputs, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = conv(outputs, outputs), nn.BatchNorm2d(outputs)
        self.stride, self.extra = stride, outputs - inputs
        self.downsample = None
        if option == "B" and (stride > 1 or self.extra):
            projection = conv(inputs, outputs, stride, kernel=1)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            x = self.downsample(x)
        elif self.stride > 1 or self.extra:
            before = self.extra // 2
            x = x[:, :, :: self.stride, :: self.stride]
            x = F.pad(x, (0, 0, 0, 0, before, self.extra - before))
        return F.relu(out + x, inplace=True)


class ResNet(nn.Module):
    """Stack stages of basic blocks; each stage after the first halves and doubles.

    The names of the parameters are torchvision's.
    """

    def __init__(
        self,
        blocks: list[int],
        channels: int,
        classes: int,
        width: int,
        stem: str,
        option: str,
    ) -> None:
        super().__init__()
        if stem == "imagenet":
            self.conv1 = nn.Conv2d(channels, width, 7, 2, 3, bias=False)
        else:
            self.conv1 = conv(channels, width, stride=2 if stem == "stride2" else 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.pool = stem == "imagenet"
        self.stages, inputs = len(blocks), width
        for i, count in enumerate(blocks):
            outputs, stage = width * 2**i, []
            for j in range(count):
                stride = 2 if i > 0 and j == 0 else 1
                stage.append(Block(inputs, outputs, stride, option))
                inputs = outputs
            self.add_module(f"layer{i + 1}", nn.Sequential(*stage))
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        if self.pool:
            x = F.max_pool2d(x, 3, 2, 1)
        for i in range(self.stages):
            x = self.get_submodule(f"layer{i + 1}")(x)
        return self.fc(x.mean((2, 3)))


class Bottleneck(nn.Module):
    """Add 1×1, 3×3 and 1×1 convolutions to a shortcut (He et al., 2016, figure 5).

    `inner` channels between them, `EXPANSION` times as many out. The 3×3 has the
    stride, as torchvision's has ("ResNet v1.5"); in the paper the first 1×1 has it.
    Where the shape changes, the shortcut is projected by a 1×1 convolution.
    """

    EXPANSION = 4

    def __init__(self, inputs: int, inner: int, stride: int) -> None:
        super().__init__()
        outputs = self.EXPANSION * inner
        self.conv1, self.bn1 = conv(inputs, inner, kernel=1), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = conv(inner, inner, stride), nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = conv(inner, outputs, kernel=1), nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride > 1 or inputs != outputs:
            projection = conv(inputs, outputs, stride, kernel=1)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = F.relu(self.bn2(self.conv2(out)), inplace=True)
        out = self.bn3(self.conv3(out))
        shortcut = x if self.downsample is None else self.downsample(x)
        return F.relu(out + shortcut, inplace=True)


class BottleneckResNet(ResNet):
    """Stack stages of bottlenecks between the stem and the pool of a `ResNet`.

    The names and the order of the parameters are torchvision's.
    """

    def __init__(
        self, blocks: list[int], channels: int, classes: int, width: int, stem: str
    ) -> None:
        super().__init__([], channels, classes, width, stem, "B")
        del self.fc  # it comes last and has more inputs
        self.stages, inputs = len(blocks), width
        for i, count in enumerate(blocks):
            inner, stage = width * 2**i, []
            for j in range(count):
                stride = 2 if i > 0 and j == 0 else 1
                stage.append(Bottleneck(inputs, inner, stride))
                inputs = Bottleneck.EXPANSION * inner
            self.add_module(f"layer{i + 1}", nn.Sequential(*stage))
        self.fc = nn.Linear(inputs, classes)


def resnet_cifar(
    depth: int, *, channels: int, classes: int, width: int = 16, stem: str = "same"
) -> ResNet:
    """Make the CIFAR ResNet of 6n+2 layers (He et al., 2016, section 4.2, option A).

    Raises ValueError unless `depth` is 6n+2 with n at least 1.

    >>> sum(p.numel() for p in resnet_cifar(20, channels=3, classes=10).parameters())
    269722
    """
    fits = depth >= 8 and depth % 6 == 2
    require(fits, "depth must be 6n+2 and at least 8 (20, 32, 44, …)", depth)
    return ResNet([(depth - 2) // 6] * 3, channels, classes, width, stem, "A")


def resnet18(
    *, channels: int, classes: int, width: int = 64, stem: str = "same"
) -> ResNet:
    """Make ResNet-18 with projections; its stem is the 3×3 one used on small images.

    The stem "imagenet", 7×7 with stride 2 and a max pool, gives the network of
    He et al. (2016, table 1).
    """
    return ResNet([2, 2, 2, 2], channels, classes, width, stem, "B")


def resnet50(
    *, channels: int, classes: int, width: int = 64, stem: str = "same"
) -> BottleneckResNet:
    """Make ResNet-50 of bottlenecks; its stems are those of `resnet18`.

    With the stem "imagenet" it is He et al. (2016, table 1), but for the stride's place
    (see `Bottleneck`).

    >>> net = resnet50(channels=3, classes=1000, stem="imagenet")
    >>> sum(p.numel() for p in net.parameters())
    25557032
    """
    return BottleneckResNet([3, 4, 6, 3], channels, classes, width, stem)
