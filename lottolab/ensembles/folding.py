"""Make a copy of a network that is quicker to attack, and answers the same.

An attack asks for the gradient in the image, of fixed weights in evaluation mode. So
batch norm can be part of the convolution before it; and the gradient in an image of few
channels can be a matrix product, for which a CPU's convolution does many times the work
(it computes sixteen channels at least).
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lottolab.checks import require
from lottolab.checks.tensors import asked, tensor

FEW = 3  # channels; with more, the convolution's own gradient is quicker


@torch.no_grad()
def folded(model: nn.Module, x: Tensor) -> nn.Module:
    """Return a copy in evaluation mode whose batch norms are part of convolutions.

    Logits and their gradients in the image are the same up to rounding; no weight has a
    gradient. Weights are stored channels last. A batch norm is folded if a convolution
    gives it its input, as is seen while the model looks at `x`, float [n, C, H, W].

    Raises:
        ValueError: `model` does not answer `x` with logits, or these differ, as they do
            where something else than its batch norm also reads a convolution's output.
    """
    right = isinstance(model, nn.Module)
    require(right, "model must be a network", type(model).__name__)
    tensor("x", x)
    model = copy.deepcopy(model).eval()
    before = asked(model, x)
    names = {module: name for name, module in model.named_modules()}
    for conv, norm in _pairs(model, x):
        _replace(model, names[conv], fuse_conv_bn_eval(conv, norm))
        _replace(model, names[norm], nn.Identity())
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Conv2d) and _is_thin(module):
            _replace(model, name, _Thin(module))
    model.to(memory_format=torch.channels_last).requires_grad_(False)
    error = float((model(x) - before).abs().max())
    what = "logits must not change when batch norm is folded"
    require(error <= 1e-3 * (1 + float(before.abs().max())), what, error)
    return model


class _Columns(torch.autograd.Function):
    """Convolve; backward, in the image alone, multiply and add up the columns."""

    @staticmethod
    def forward(ctx, x, weight, bias, stride, padding, dilation):
        ctx.save_for_backward(weight)
        ctx.given = x.shape[2:], weight.shape[2:], dilation, padding, stride
        return F.conv2d(x, weight, bias, stride, padding, dilation)

    @staticmethod
    @once_differentiable
    def backward(ctx, slope):
        (weight,) = ctx.saved_tensors
        columns = torch.matmul(weight.flatten(1).T, slope.flatten(2))
        return F.fold(columns, *ctx.given), None, None, None, None, None


class _Thin(nn.Module):
    """A frozen convolution of images of few channels."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        self.settings = conv.stride, conv.padding, conv.dilation

    def forward(self, x: Tensor) -> Tensor:
        return _Columns.apply(x, self.weight, self.bias, *self.settings)


def _is_thin(conv: nn.Conv2d) -> bool:
    usual = conv.groups == 1 and conv.padding_mode == "zeros"
    return conv.in_channels <= FEW and usual and not isinstance(conv.padding, str)


def _pairs(model: nn.Module, x: Tensor) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Return each convolution with the batch norm that reads its output."""
    made: dict[int, tuple[nn.Conv2d, Tensor]] = {}
    pairs, hooks = [], []

    def note(conv, _, output):
        made[id(output)] = (conv, output)  # held, so that no other gets its id

    def ask(norm, inputs):
        if id(inputs[0]) in made:
            pairs.append((made[id(inputs[0])][0], norm))

    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(note))
        elif isinstance(module, nn.BatchNorm2d):
            hooks.append(module.register_forward_pre_hook(ask))
    model(x)
    for hook in hooks:
        hook.remove()
    return pairs


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, module)
