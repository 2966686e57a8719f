"""Measure what this machine has; needs only the standard library."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from lottolab.pages.site.browser import chromium

__all__ = ["ask_torch", "chromium", "cores", "memory", "writable"]

TORCH = """\
import json, torch
gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
free = [torch.cuda.mem_get_info(i)[1] for i in range(len(gpus))]
cpu = torch.backends.cpu.get_cpu_capability()
print(json.dumps([torch.__version__, cpu, gpus, free]))"""


def cores() -> int:
    """Count the cores that this process may use, as a container limits them."""
    affine = getattr(os, "sched_getaffinity", None)
    count = len(affine(0)) if affine else os.cpu_count() or 1
    quota, _, period = _limit("cpu.max").partition(" ")
    return min(count, max(1, int(quota) // int(period))) if quota.isdecimal() else count


def memory() -> int | None:
    """Return the bytes of memory, as a container limits them; None if unknown."""
    total = None
    with contextlib.suppress(ImportError):
        import psutil

        total = psutil.virtual_memory().total
    with contextlib.suppress(AttributeError, ValueError, OSError):
        total = total or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = _limit("memory.max")
    return min(total or int(limit), int(limit)) if limit.isdecimal() else total


def _limit(name: str) -> str:
    try:
        return Path("/sys/fs/cgroup", name).read_text().strip()
    except OSError:
        return ""


def writable(folder: Path) -> bool:
    """Try it: what the mode says does not hold on read-only disks, nor for root."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def ask_torch() -> list | str:
    """Return torch's version, CPU capability, GPUs and their bytes, or what failed.

    It is asked in a process of its own, which may die, and waits two minutes.
    """
    command = [sys.executable, "-c", TORCH]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        return json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        return "nothing within two minutes"
    except ValueError:
        return (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
