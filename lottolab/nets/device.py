"""Choose where to compute and in which arithmetic, and name it.

`here` and `back` say where, not what: the fingerprint of a stage leaves them out.
"""

import functools
import os
from typing import Any

import torch
from torch import Tensor, nn

from lottolab.checks import one_of, require
from lottolab.runs import staging


def default_device() -> str:
    """Return `LOTTOLAB_DEVICE`, or cuda where there is one, or cpu."""
    named = os.environ.get("LOTTOLAB_DEVICE")
    return named or ("cuda" if torch.cuda.is_available() else "cpu")


def here(x: Any) -> Any:
    """Return `x` on the default device; on a CPU that is `x` itself.

    `x` is a tensor, a module (moved in place), or a dict, list or tuple of such;
    anything else in them comes back as it is. Generators live on the CPU, so that every
    device gets the same numbers: draw first, then place.

    Raises ValueError where `LOTTOLAB_DEVICE` names no device that is there.
    """
    device = _checked(default_device())
    return x if device == "cpu" else _moved(x, device)


def back(x: Any) -> Any:
    """Return `x`, as for `here`, on the CPU."""
    return _moved(x, "cpu")


def _moved(x: Any, device: str) -> Any:
    if isinstance(x, nn.Module) and any(p.is_meta for p in x.parameters()):
        return x  # there is nothing to move yet
    if isinstance(x, Tensor | nn.Module):
        return x.to(device)
    if isinstance(x, dict):
        return {key: _moved(value, device) for key, value in x.items()}
    return type(x)(_moved(v, device) for v in x) if type(x) in (list, tuple) else x


@functools.cache
def _checked(name: str) -> str:
    """Return the name of a device that can be computed on."""
    what = "LOTTOLAB_DEVICE must be a device that torch has here, as cpu or cuda:0"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError):
        require(False, what, name)
    return name


def choose_precision(device: str) -> str:
    """Return `bfloat16` where the device is faster with it, else `float32`.

    A CPU must have AMX: with AVX512-BF16 alone, bfloat16 was slower than float32.
    `LOTTOLAB_PRECISION` names one of the two for all devices; each table names its own.

    Raises ValueError where it names something else.
    """
    if named := os.environ.get("LOTTOLAB_PRECISION"):
        one_of("LOTTOLAB_PRECISION", named, ("float32", "bfloat16"))
        return named
    if torch.device(device).type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return "bfloat16" if capabilities.get("amx_bf16") else "float32"


def describe_device() -> str:
    """Name the device and the arithmetic that a run here uses."""
    device = default_device()
    if torch.device(device).type == "cuda":
        device = torch.cuda.get_device_name(device)
    else:
        capabilities = getattr(torch.cpu, "get_capabilities", dict)()
        device = f"{device} {capabilities.get('cpu_name', '')}".strip()
    return f"{device}, {choose_precision(default_device())}"


staging.SURROUNDINGS["device"] = describe_device
