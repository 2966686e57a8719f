"""What this machine sustains on the networks and the work of the scale `paper`.

Each case is a loop of ours (`train.fit`, `pgd`, `predict.logits` …) on a network of the
papers' size and on random images. It is run for a few steps and for many; the time of
those between the two, without what comes before the first step, is measured. The
operations are counted once, on a small batch.

    python benchmarks/bench_scale.py [--out throughput.csv] [--seconds 2]
        [--processes 1,4] [--only resnet20,vgg16_bn] [--work training,attack]

A row a case and number of processes that share the device; `images/s` and `TFLOP/s` are
those of all of them together. An image counts once for each step of an attack.
`step FLOP` and `step calls` are the operations of a step, floating-point and asked of
torch, `ms a step` is of one process, and `GB` is the most memory that a process held.
The table is written after each case. A short run on a processor:

    python benchmarks/bench_scale.py --seconds 1 --only resnet20
"""

import argparse
import copy
import functools
import math
import multiprocessing
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from lottolab.ensembles import tickets as robust
from lottolab.ensembles.attacks.gradient import pgd
from lottolab.ensembles.folding import folded
from lottolab.ensembles.queries import Normalised
from lottolab.ensembles.sampler import Sampler
from lottolab.membership.attacks import nasr
from lottolab.mia_pruning.attacks import samia
from lottolab.mia_pruning.defences import dp, minmax
from lottolab.nets import device, masks, models, predict, train

Loop = Callable[[int], object]  # goes through so many steps
SCALE = torch.full((3,), 0.5), torch.full((3,), 0.25)
BALL = {"epsilon": 8 / 255, "step": 2 / 255}
FEW = 8  # images a batch, where the operations are counted
LONG = 32  # steps an epoch has at most


class Case(NamedTuple):
    """What is measured: the kind of work, the network, its width, and the batch."""

    work: str
    network: str
    width: int
    batch: int
    classes: int = 10
    shared: bool = False  # also by several processes at once


LIBRARY = (("resnet18", 64), ("resnet50", 64), ("resnet32", 160), ("resnet44", 160))
CASES = [
    Case("training", "resnet20", 16, 128, shared=True),
    Case("ticket training", "resnet20", 16, 128, shared=True),
    Case("training", "resnet18", 64, 128, 100, True),
    Case("ticket training", "resnet18", 64, 128, 100),
    Case("training", "resnet50", 64, 128, 100),
    Case("training", "vgg16_bn", 64, 128, shared=True),
    Case("training", "vgg16_bn", 64, 64, 100, True),
    Case("training", "vgg16_bn", 8, 128, shared=True),
    Case("training", "mobilenet_v2", 8, 128),
    Case("training", "resnet8", 16, 128),
    Case("game", "vgg16_bn", 64, 128),
    Case("private training", "vgg16_bn", 64, 128),
    *[Case("robust training", *network, 256) for network in LIBRARY],
    *[Case("ticket search", *network, 256) for network in LIBRARY],
    *[Case("attack", *network, 128) for network in LIBRARY],
    Case("attack", "vgg16_bn", 64, 128),
    Case("attack on teams", "library", 0, 128),
    Case("attack on teams", "library", 0, 32),
    *[Case("prediction", *network, 500) for network in LIBRARY],
    Case("prediction", "resnet20", 16, 500),
    Case("prediction", "vgg16_bn", 64, 500),
    Case("sensitivity", "vgg16_bn", 64, 500),
    Case("membership network", "nasr", 0, 128),
    Case("membership network on cpu", "nasr", 0, 128),
]


def images(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return random images, uint8, and labels of ten classes."""
    drawn = torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8)
    return drawn, torch.arange(count) % 10


def build(case: Case) -> torch.nn.Module:
    """Build the network of a case, on the processor, from where trainings move it."""
    shape = {"channels": 3, "classes": case.classes, "width": case.width}
    return models.build(case.network, **shape, stem="same", seed=0)


def fitting(case: Case, batch: int) -> Loop:
    """Return a loop that trains, in one of the ways that go through `train.fit`."""
    network = build(case)
    ways = {"training": train.fit, "ticket training": train.fit}
    ways |= {"robust training": functools.partial(robust.adversarial_fit, **BALL)}
    ways |= {"game": minmax.minmax_train, "ticket search": robust.find_ticket}
    given: dict = {"seed": 0, "mean_std": SCALE}
    if case.work == "ticket training":
        given["masks"] = masks.random(masks.dense(network), 0.9, 0)
    if case.work == "ticket search":
        frame = {"name": case.network, "width": case.width, "stem": "same"}
        shape = {"channels": 3, "classes": case.classes}
        network = robust.scratch(frame, **shape, seed=0)
        given |= BALL | {"ratio": 0.2}
    if case.work in ("robust training", "ticket search"):
        given["steps"] = 7
    if case.work == "game":
        given["gamma"] = 1.0

    def loop(steps: int) -> None:
        epochs = math.ceil(steps / LONG)
        shown = images(math.ceil(steps / epochs) * batch)
        fresh = images(2 * batch) if case.work == "game" else ()
        recipe = train.Recipe(epochs=epochs, batch=batch, crop=4)
        ways[case.work](network, *shown, *fresh, recipe, **given)

    return loop


def private(case: Case, batch: int) -> Loop:
    """Return a loop of DP-SGD, on a network with group norm."""
    network, shown = dp.group_norm(build(case)), images(batch)
    given = {"epsilon": 6.28, "delta": 1e-5, "clip": 1.0, "lr": 0.1, "seed": 0}

    def loop(steps: int) -> None:
        # Each image is in each batch, so that an epoch is a step.
        dp.dp_train(network, *shown, epochs=steps, batch=batch, mean_std=SCALE, **given)

    return loop


def attacking(case: Case, batch: int) -> Loop:
    """Return a loop of PGD on a network, or on teams drawn from a library."""
    x, y = (part.to(device.default_device()) for part in images(batch))
    x, eot = x / 255, 1
    if case.work == "attack":
        model = quick(build(case), x)
    else:
        groups, eot = {}, 64
        for name, width in LIBRARY:
            network = quick(build(case._replace(network=name, width=width)), x)
            groups[name] = [network, *(copy.deepcopy(network) for _ in range(9))]
        model = Sampler(groups, seed=0)

    def loop(steps: int) -> None:
        pgd(model, x, y, **BALL, steps=steps, eot=eot, seed=0, batch=batch)

    return loop


def quick(network: torch.nn.Module, x: torch.Tensor) -> torch.nn.Module:
    """Return what the chapter attacks in place of a network."""
    return folded(Normalised(network, SCALE).to(x.device).eval(), x[:4])


def asking(case: Case, batch: int) -> Loop:
    """Return a loop that asks a network about images."""
    network, shown = build(case), images(batch)[0]
    network.to(device.default_device(), memory_format=torch.channels_last)
    ask = functools.partial(samia.sensitivity, seed=0)
    if case.work == "prediction":
        ask = predict.logits

    def loop(steps: int) -> None:
        for _ in range(steps):
            ask(network, shown, SCALE)

    return loop


def inferring(case: Case, batch: int) -> Loop:
    """Return a loop that trains the network of Nasr et al. on predictions."""
    place = "cpu" if case.work.endswith("cpu") else device.default_device()

    def loop(steps: int) -> None:
        logits = torch.randn(steps * batch, 100, device=place)
        labels = torch.arange(len(logits), device=place) % 100
        nasr.fit(logits, labels, labels % 2 == 0, epochs=1, batch=batch, seed=0)

    return loop


# Trainings take the precision of the device; all else is float32, as in the chapters.
TRAINS = ("training", "ticket training", "game", "robust training", "ticket search")
MAKERS = {"private training": private, "attack": attacking, "prediction": asking}
MAKERS |= {"attack on teams": attacking, "sensitivity": asking}
MAKERS |= dict.fromkeys(["membership network", "membership network on cpu"], inferring)


def seconds(loop: Loop, steps: int) -> float:
    """Return how long so many steps take, to the end of what they asked for."""
    synchronise()
    start = time.perf_counter()
    loop(steps)
    synchronise()
    return time.perf_counter() - start


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class Calls(TorchDispatchMode):
    """Count the operations that are asked of torch."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


def counted(case: Case) -> dict:
    """Return the operations of a step, from the second step of a small batch."""
    loop, found = MAKERS.get(case.work, fitting)(case, FEW), []
    for steps in (1, 2):
        with FlopCounterMode(display=False) as flop, Calls() as calls:
            loop(steps)
        found.append((flop.get_total_flops(), calls.count))
    (flop, calls), (both, all_calls) = found
    return {
        "step FLOP": (both - flop) * case.batch / FEW,
        "step calls": all_calls - calls,
    }


def measured(case: Case, least: float, meet: Callable[[], object]) -> dict:
    """Return the seconds of a step and the memory; `meet` waits for the others."""
    loop, count = MAKERS.get(case.work, fitting)(case, case.batch), {}
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    loop(1)
    one = seconds(loop, 1)
    steps = 1 + math.ceil(least / max((seconds(loop, 3) - one) / 2, 1e-4))
    meet()
    one = seconds(loop, 1)
    each = (seconds(loop, steps) - one) / (steps - 1)
    if torch.cuda.is_available():
        count["GB"] = torch.cuda.max_memory_allocated() / 1e9
    return {"seconds": each, "steps": steps - 1, **count}


def worker(cases: list[Case], least: float, barriers: list, answers) -> None:
    """Measure the cases; answer each with its row, or with its error."""
    torch.set_num_threads(1)
    for case, barrier in zip(cases, barriers, strict=True):
        row: dict = {"error": ""}
        try:
            row |= counted(case) | measured(case, least, barrier.wait)
            barrier.wait()  # nobody begins the next case while this one is measured
        except Exception as error:  # the others go on, and the table says so
            row["error"] = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            barrier.abort()
        answers.put(row)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def together(cases: list[Case], processes: int, least: float) -> Iterator[dict]:
    """Yield a row a case, measured by so many processes at once."""
    context = multiprocessing.get_context("spawn")
    barriers = [context.Barrier(processes) for _ in cases]
    queues = [context.Queue() for _ in range(processes)]
    given = [(cases, least, barriers, queue) for queue in queues]
    started = [context.Process(target=worker, args=g, daemon=True) for g in given]
    for process in started:
        process.start()
    for case in cases:
        found = [queue.get(timeout=600) for queue in queues]
        errors = sorted({row["error"] for row in found} - {""})
        row = {k: v for k, v in case._asdict().items() if k != "shared"}
        row |= {"processes": processes, "error": "; ".join(errors)}
        if not errors:
            row |= joined(case, found)
        yield row
    for process in started:
        process.join()


def joined(case: Case, found: list[dict]) -> dict:
    """Add up what the processes did at once."""
    step = {key: found[0][key] for key in ("step FLOP", "step calls")}
    rates = [1 / row["seconds"] for row in found]
    trains = case.work in TRAINS
    precision = device.choose_precision(device.default_device())
    return step | {
        "images/s": case.batch * sum(rates),
        "TFLOP/s": step["step FLOP"] * sum(rates) / 1e12,
        "ms a step": 1000 * len(rates) / sum(rates),
        "GB": max(row.get("GB", math.nan) for row in found),
        "steps": min(row["steps"] for row in found),
        "precision": precision if trains else "float32",
    }


def chosen(given: argparse.Namespace) -> list[Case]:
    """Return the cases that were asked for."""
    networks, works = (text and text.split(",") for text in (given.only, given.work))
    return [
        case
        for case in CASES
        if (not networks or case.network in networks)
        and (not works or case.work in works)
    ]


def main() -> None:
    """Measure the cases one after the other, and keep the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("throughput.csv"))
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--processes", default="1", help="1,4: one, then four at once")
    parser.add_argument("--only", default="", help="networks, as resnet20,vgg16_bn")
    parser.add_argument("--work", default="", help="kinds, as training,attack")
    given = parser.parse_args()
    on = device.default_device()
    cuda = torch.device(on).type == "cuda"
    name = torch.cuda.get_device_name(on) if cuda else device.describe_device()
    marks = {"device": name, "torch": torch.__version__}
    marks["measured"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    rows = []
    for processes in map(int, given.processes.split(",")):
        cases = [c for c in chosen(given) if c.shared or processes == 1]
        for row in together(cases, processes, given.seconds):
            rows.append(row | marks)
            table = pd.DataFrame(rows)
            table.to_csv(given.out, index=False, float_format="%.5g")
            told = row["error"] or f"{row['images/s']:,.0f} images/s, "
            told += "" if row["error"] else f"{row['TFLOP/s']:.3g} TFLOP/s"
            names = [str(row[k]) for k in ("work", "network", "width", "batch")]
            print(" ".join(names), f"x{processes}: {told}", flush=True)


if __name__ == "__main__":
    main()
