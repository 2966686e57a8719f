"""Keep a fault of torch's away from strided 1×1 convolutions.

On a CPU whose best instructions are AVX2, oneDNN (as torch 2.14.1 has it) writes past
its buffer in the weight gradient of a 1×1 convolution with a stride, no padding and
fewer than 8 input channels, where images lie channels last: the heap is corrupted, and
the process dies some time later.
"""

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

CHANNELS = 8  # from here on the fault does not show


def subsampled(model: nn.Module) -> nn.Module:
    """Let convolutions that the fault concerns subsample first; return `model`.

    At stride 1 the same function is sound. Only the class of these modules changes, in
    place; their names, settings, weights, hooks and parametrisations stay. A module
    that has a forward of its own, or is compiled, is left as it is.

    It says how to compute, not what: the fingerprint of a stage leaves it out.

    >>> subsampled(nn.Conv2d(4, 8, 1, stride=2))
    Subsampled(4, 8, kernel_size=(1, 1), stride=(2, 2))
    """
    for module in model.modules():
        kind = type(module)
        if getattr(kind, "forward", None) is nn.Conv2d.forward and _at_risk(module):
            # A parametrised layer has a class of its own, which goes with that again.
            bases = kind.__bases__ if is_parametrized(module) else (kind,)
            own = kind.__name__, (Subsampled, *bases), dict(vars(kind))
            module.__class__ = Subsampled if kind is nn.Conv2d else type(*own)
    return model


class Subsampled(nn.Conv2d):
    """A strided 1×1 convolution, computed of the pixels that it looks at."""

    def forward(self, x: Tensor) -> Tensor:
        # The mean of one pixel; unlike x[..., ::2, ::2] it keeps the layout.
        seen = F.avg_pool2d(x, 1, self.stride)
        return F.conv2d(seen, self.weight, self.bias)


def _at_risk(conv: nn.Conv2d) -> bool:
    bare = conv.padding in ((0, 0), "valid") and conv.groups == 1
    strided = conv.kernel_size == (1, 1) and conv.stride != (1, 1)
    return bare and strided and conv.in_channels < CHANNELS
