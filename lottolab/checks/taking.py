"""Take numbers as they come, in a list, an array or a tensor, and return a tensor."""

import torch
from torch import Tensor

from lottolab.checks import numbers, require
from lottolab.checks.tensors import described, tensor, without_rows


def floats(name: str, given) -> Tensor:
    """Return numbers as a float tensor without gradient, on the device they are on.

    A float32 or float64 tensor comes back with its bits; half precision becomes
    float32, all else (an array, a list, integers) float64.

    Raises ValueError for what is no numbers.

    >>> floats("scores", [1, 0.1]).dtype, floats("scores", torch.ones(1).half()).dtype
    (torch.float64, torch.float32)
    """
    if not isinstance(given, Tensor):
        return torch.from_numpy(numbers(name, given))
    what = f"{name} must be numbers"
    require(not (given.is_complex() or without_rows(given)), what, described(given))
    if given.dtype in (torch.float32, torch.float64):
        return given.detach()
    half = given.is_floating_point()
    return given.detach().to(torch.float32 if half else torch.float64)


def taken(name: str, given) -> Tensor:
    """Return labels, or marks of members, as a tensor of the dtype that they have.

    Raises ValueError for what no tensor can hold.
    """
    try:
        found = torch.as_tensor(given)
    except (RuntimeError, TypeError, ValueError):
        raise ValueError(f"{name} must be numbers, got {described(given)}") from None
    tensor(name, found)
    return found
