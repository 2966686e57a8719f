"""Ask chapter 4's services over HTTP, where their customers would.

The arguments are those of `studies`.
"""

import copy
import functools
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from filelock import FileLock
from joblib.externals.loky.backend import get_context
from torch import Tensor

from lottolab import runs
from lottolab.modelguard.defences import scan
from lottolab.modelguard.defences.quantisers import ModelGuardS
from lottolab.modelguard.experiments import attackers, services, studies
from lottolab.modelguard.queries import Service
from lottolab.modelguard.service import endpoints, server
from lottolab.modelguard.service.client import Remote
from lottolab.modelguard.service.state import State
from lottolab.modelguard.service.worker import guarded

START = 300  # seconds that a server's process may take to begin


@runs.stage("modelguard.experiments.over_http.timed")
def timed(*, defence: dict, public, budget: int, **setting) -> dict:
    """Time the answers to single queries, in this process and over HTTP (Figure 6).

    The server is a process of its own on loopback, with its state on the disk. Both
    answer the attacker's images first, then 200 of them one by one, in turns.

    `measurements` have a row for each `via`, "in process" and "HTTP": `response`, the
    median in ms, and `response, 95th percentile`. `equal` is the share of the
    attacker's images whose two answers are the same, bit by bit. A time never repeats
    to the last digit; runs of this stage wait for each other, for two side by side
    would share the cores that they time.
    """
    with FileLock(runs.root() / "timing.lock"):
        return {"measurements": _measured(defence, public, budget, setting)}


def _measured(defence: dict, public, budget: int, setting: dict) -> pd.DataFrame:
    target, parts = services.defended(defence, **setting)
    target.defence = scan.quick(target.defence)
    images, _ = attackers.gathered(public, budget, **setting)
    with served(target, tuple(images.shape[1:]), parts["classes"]) as remote:
        ways = {"in process": functools.partial(guarded, target), "HTTP": remote}
        first, second = (ask(images) for ask in ways.values())
        took = in_turns(list(ways.values()), images[: studies.SINGLE])
    rows = [
        {"metric": "equal", "value": float((first == second).all(1).double().mean())}
    ]
    for via, seconds in zip(ways, took, strict=True):
        median, late = 1000 * np.quantile(seconds, (0.5, 0.95))
        rows.append({"metric": "response", "value": median, "via": via})
        late = {"metric": "response, 95th percentile", "value": late}
        rows.append(late | {"via": via})
    return pd.DataFrame(rows)


@contextmanager
def served(
    target: Service, shape: tuple[int, int, int], classes: int
) -> Iterator[Remote]:
    """Serve a copy of a target in another process; yield who asks it.

    Args:
        shape: of an image, C×H×W. classes: of an answer.

    Raises:
        RuntimeError: the server ends before it begins.
    """
    context = get_context("loky")  # the only one that works in joblib's processes
    ours, theirs = context.Pipe()
    own = copy.deepcopy(target)  # tensors that are handed on share their memory
    process = context.Process(target=_serve, args=(own, shape, classes, theirs))
    process.start()
    theirs.close()
    try:
        with closing(Remote(f"http://127.0.0.1:{_port(ours)}")) as remote:
            yield remote
    finally:
        ours.close()
        process.join(30)
        process.terminate()


def in_turns(ways: list[Callable[[Tensor], Tensor]], images: Tensor) -> list[list]:
    """Ask about one image after the other, each way in turn; return each's seconds."""
    took = [[] for _ in ways]
    for image in images.split(1):
        for ask, seconds in zip(ways, took, strict=True):
            start = time.perf_counter()
            ask(image)
            seconds.append(time.perf_counter() - start)
    return took


def _port(pipe: Connection) -> int:
    with suppress(EOFError):
        if pipe.poll(START):
            return pipe.recv()
    raise RuntimeError("the service ended before it began")


def _serve(
    target: Service, shape: tuple[int, int, int], classes: int, pipe: Connection
) -> None:
    """Serve until the other end of the pipe is closed, or its process is gone."""
    torch.set_num_threads(1)
    bound = server.listen("127.0.0.1", 0)
    with tempfile.TemporaryDirectory() as folder:
        keeps = isinstance(target.defence, ModelGuardS)
        state = State(Path(folder, "state"), {}) if keeps else None
        api = endpoints.app(target, shape, classes, state=state)
        pipe.send(bound.getsockname()[1])
        threading.Thread(target=_end_with, args=[pipe], daemon=True).start()
        server.run(api, bound)


def _end_with(pipe: Connection) -> None:
    pipe.poll(None)
    os.kill(os.getpid(), signal.SIGTERM)
