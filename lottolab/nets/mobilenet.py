"""MobileNetV2, for small images and large."""

from torch import Tensor, nn


class InvertedResidual(nn.Module):
    """Widen, convolve each channel alone, narrow (Sandler et al., 2018, section 3.3).

    The narrow ends have no activation. The input is added to the output where both
    have the same shape.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = expansion * inputs
        self.conv = (
            nn.Sequential()
            if expansion == 1
            else nn.Sequential(_unit(inputs, inner, kernel=1))
        )
        self.conv.append(_unit(inner, inner, stride, groups=inner))
        self.conv.append(nn.Conv2d(inner, outputs, 1, bias=False))
        self.conv.append(nn.BatchNorm2d(outputs))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetV2(nn.Module):
    """Stack 17 inverted residuals between two convolutions (Sandler et al., table 2).

    The stem "stride2" gives the network of the paper; "same" leaves out the first of
    its five halvings, for small images. `width` is the number of first filters, 32 in
    the paper; all other widths scale with it, the last too, rounded to whole channels
    (the authors' code rounds to multiples of eight and never narrows the last).
    There is no dropout before the classifier, as torchvision has it. The names and
    the order of the parameters are torchvision's, but `classifier.1`.

    >>> net = MobileNetV2(channels=3, classes=1000, stem="stride2")
    >>> sum(p.numel() for p in net.parameters())
    3504872
    """

    # Expansion, channels, blocks and the first block's stride, of each stage.
    PLAN = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )

    def __init__(
        self, *, channels: int, classes: int, width: int = 32, stem: str = "same"
    ) -> None:
        super().__init__()
        first, inputs = 2 if stem == "stride2" else 1, width
        self.features = nn.Sequential(_unit(channels, width, first))
        for expansion, filters, blocks, stride in self.PLAN:
            outputs = _scaled(filters, width)
            for i in range(blocks):
                step = stride if i == 0 else 1
                block = InvertedResidual(inputs, outputs, step, expansion)
                self.features.append(block)
                inputs = outputs
        last = _scaled(1280, width)
        self.features.append(_unit(inputs, last, kernel=1))
        self.classifier = nn.Linear(last, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


def _unit(
    inputs: int, outputs: int, stride: int = 1, *, kernel: int = 3, groups: int = 1
) -> nn.Sequential:
    """Make a convolution that keeps the size at stride 1, batch norm and ReLU6."""
    layer = nn.Conv2d(
        inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False
    )
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU6(inplace=True))


def _scaled(filters: int, width: int) -> int:
    return max(1, round(filters * width / 32))
