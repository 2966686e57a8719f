"""A small network whose predictions differ, and a server for it as its users run it."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import torch

from lottolab.modelguard import ModelGuardS
from lottolab.modelguard.queries import Service
from lottolab.modelguard.service import server as servers
from lottolab.nets import checkpoint, models

SIZE, CLASSES = 8, 10
EPSILON = 0.1  # of the images below opens about every fourth a centroid
NETWORK = {"name": "cnn4", "channels": 1, "classes": CLASSES, "width": 2}
NETWORK |= {"stem": "stride2", "size": SIZE}
SCALE = torch.tensor([0.5]), torch.tensor([0.3])


def network(path: Path, spread: float = 40.0, **changed) -> Path:
    """Write a network of random weights, sure of its predictions by `spread`."""
    described = NETWORK | changed
    model = models.build(**described, seed=0)
    with torch.no_grad():
        model.fc.weight.mul_(spread)
    checkpoint.save(model, path, network=described, mean_std=SCALE)
    return path


def target(path: Path) -> Service:
    """Return the network in this process, behind a fresh ModelGuard-S."""
    found = checkpoint.load(path)
    guard = ModelGuardS(EPSILON, found.network["classes"])
    return Service(found.model, found.mean_std, guard)


def images(count: int, seed: int, size: int = SIZE) -> torch.Tensor:
    """Draw images, uint8 N×1×size×size; all differ at 8×8 pixels."""
    generator = torch.Generator().manual_seed(seed)
    shape = (count, 1, size, size)
    return torch.randint(256, shape, dtype=torch.uint8, generator=generator)


@contextmanager
def within(api, bound=None):
    """Serve an application in a thread of this process; yield a client for it."""
    bound = bound or servers.listen("127.0.0.1", 0)
    running = servers.made(api, 10.0)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [bound]})
    thread.start()
    while not running.started:
        time.sleep(0.01)
    try:
        with httpx.Client(base_url=servers.address(bound), timeout=60) as http:
            yield http
    finally:
        running.should_exit = True
        thread.join()


@contextmanager
def server(path: Path, *words: str, end: int = signal.SIGTERM):
    """Run `lottolab modelguard serve` on a free port; yield its address and process."""
    command = [sys.executable, "-m", "lottolab.cli", "modelguard", "serve", str(path)]
    process = subprocess.Popen(
        [*command, "--port", "0", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
    )
    try:
        line = process.stdout.readline()
        assert line.startswith("http://"), process.stderr.read()
        yield line.split(": ")[0], process
    finally:
        process.send_signal(end)
        process.wait(30)
        process.stdout.close()
        process.stderr.close()
