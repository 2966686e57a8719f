"""Choose where to compute and in which arithmetic, and name it."""

import os

import torch


def default_device() -> str:
    """Return `LOTTOLAB_DEVICE`, or cuda where there is one, or cpu."""
    named = os.environ.get("LOTTOLAB_DEVICE")
    return named or ("cuda" if torch.cuda.is_available() else "cpu")


def choose_precision(device: str) -> str:
    """Return `bfloat16` where the device is faster with it, else `float32`.

    A CPU must have AMX: with AVX512-BF16 alone, bfloat16 was slower than float32.
    """
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
