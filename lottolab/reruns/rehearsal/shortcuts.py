"""Run stages with the first steps of everything long, and count the work of the whole.

Inside `measuring` a training takes its first few steps and then passes over its other
epochs; a function that gives a row an image computes its first few rows and repeats
them. The results are worth nothing, but each operation has run once, on the network and
on images of full size, and a ledger says what all of it would have been.
"""

import copy
import functools
import importlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from types import SimpleNamespace
from unittest.mock import patch

import torch

from lottolab import runs
from lottolab.nets import foresight
from lottolab.reruns.rehearsal.arguments import kind
from lottolab.reruns.rehearsal.ledger import Counter, Held, Ledger
from lottolab.runs import store

# Functions of (model, images, …) that return a row an image; each image costs the same.
BY_ROW = (
    "nets.predict.logits",
    "mia_pruning.attacks.samia.sensitivity",
    "modelguard.queries.perturbed",
)
ROUNDS = 100, 2  # of SynFlow: all, and those that are computed
PRIVATE = "mia_pruning.defences.dp"  # the one training with a loop of its own


class Meter:
    """Hold the counter, the ledgers and the stages that are running."""

    def __init__(self, steps: int, rows: int) -> None:
        self.steps, self.few = steps, rows
        self.counter, self.ledgers, self.saved = Counter(), [], set()
        self.networks: dict[str, dict] = {}  # arguments of the first, by kind
        self.asked = 0  # calls of functions that give a row an image
        self.running: list[Ledger] = [Ledger(measuring, {})]  # for work outside stages

    @property
    def ledger(self) -> Ledger:
        return self.running[-1]


@contextmanager
def measuring(steps: int, rows: int) -> Iterator[list[Ledger]]:
    """Within the block, take `steps` steps of each training and `rows` rows.

    Returns the list to which each stage that is computed adds its ledger.
    """
    meter = Meter(steps, rows)
    changes = {
        "runs.staging._obtain": _asking,
        "runs.staging._compute": _computing,
        "nets.train._epoch": _first_steps,
        "nets.train.save_training": _first_checkpoint,
        f"{PRIVATE}._step": _first_private_steps,
        "nets.foresight.prune": _pruned,
    } | dict.fromkeys(BY_ROW, _first_rows)
    changes |= dict.fromkeys(
        ("checks.tensors.trainable", "checks.tensors.answering"), _unasked
    )
    with ExitStack() as stack:
        for path, change in changes.items():
            module, _, name = f"lottolab.{path}".rpartition(".")
            owner = importlib.import_module(module)
            original = getattr(owner, name)
            # With its name and source kept, the fingerprints stay what they are.
            short = functools.wraps(original)(change(meter, original))
            stack.enter_context(patch.object(owner, name, short))
        stack.enter_context(meter.counter)
        yield meter.ledgers


def _asking(meter: Meter, original: Callable) -> Callable:
    """Note what is asked for; of a kind of network only the first is made."""

    def obtain(stage, given):
        full = runs.arguments(stage, given)
        meter.ledger.asked.append((stage, full))
        alike = kind(stage, full)
        result = original(stage, meter.networks.get(alike, given))
        if "weights" in result or "masks" in result:
            meter.networks.setdefault(alike, given)
        return result

    return obtain


def _unasked(meter: Meter, original: Callable) -> Callable:
    """Leave out the one image that a network is asked before it is trained or used."""
    return lambda *_, **__: None


def _computing(meter: Meter, original: Callable) -> Callable:
    def compute(stage, full, folder):
        ledger, start = Ledger(stage, full), meter.counter.now()
        meter.running.append(ledger)
        try:
            result = original(stage, full, folder)
        finally:
            meter.running.pop()
            whole = meter.counter.since(start)
            meter.ledger.elsewhere.add(whole)
        ledger.rest.add(whole)
        ledger.rest.add(ledger.elsewhere, -1)
        for file in store.read_record(folder)["files"].values():
            size = (folder / file["file"]).stat().st_size
            if file["kind"] == "state":
                ledger.weights += size
            else:
                ledger.values += size
        meter.ledgers.append(ledger)
        return result

    return compute


def _first_steps(meter: Meter, original: Callable) -> Callable:
    def epoch(model, optimiser, batches, number, loss, masks, after_step, precision):
        gains = getattr(model, "gains", [])  # the Min-Max game notes one a step
        known = vars(optimiser).get("rehearsed")
        passed = known is not None
        if not passed:
            known = optimiser.rehearsed = SimpleNamespace(noted=len(gains))
            stamps = [meter.counter.now()]

            def stamp(model, step):
                if after_step:
                    after_step(model, step)
                stamps.append(meter.counter.now())

            short = copy.copy(batches)
            short.steps = min(meter.steps, batches.steps)
            short.epoch = lambda number: islice(batches.epoch(number), short.steps)
            start = meter.counter.now()
            with Held() as held:
                known.mean = original(
                    model, optimiser, short, number, loss, masks, stamp, precision
                )
            meter.ledger.elsewhere.add(meter.counter.since(start))
            each = held.most / batches.recipe.batch
            meter.ledger.held = max(meter.ledger.held, each)
            count = sum(p.numel() for p in model.parameters())
            meter.ledger.parameters = max(meter.ledger.parameters, count)
            known.step = stamps[-1]  # the last one, when all is warm
            known.step.add(stamps[-2], -1)
        ended = not passed and meter.steps >= batches.steps
        if after_step and not ended:  # some wait for the end of an epoch
            _end_epoch(meter, model, known, after_step, (number + 1) * batches.steps)
        known.noted += batches.steps
        gains.extend(gains[-1:] * (known.noted - len(gains)))
        images = len(batches.images)
        meter.ledger.trained += images
        meter.ledger.training.add(known.step, images / batches.recipe.batch)
        return known.mean

    return epoch


def _end_epoch(meter: Meter, model, known, after_step: Callable, steps: int) -> None:
    """Call what comes after the last step; of ADMM's updates only the first."""
    is_admm = hasattr(model, "total")  # of the penalty over the epoch
    if not is_admm:
        after_step(model, steps - 1)
        return
    if "update" not in vars(known):
        model.total = next(model.parameters()).new_tensor(known.mean)
        start = meter.counter.now()
        after_step(model, steps - 1)
        known.update = meter.counter.since(start)
    else:
        meter.ledger.rest.add(known.update)


def _first_checkpoint(meter: Meter, original: Callable) -> Callable:
    def save(folder, model, optimiser, rows, rewind):
        shape = type(model), sum(p.numel() for p in model.parameters())
        if shape not in meter.saved:  # one of each network shows that it can be done
            meter.saved.add(shape)
            original(folder, model, optimiser, rows, rewind)

    return save


def _first_private_steps(meter: Meter, original: Callable) -> Callable:
    def step(optimiser, gradients, trained, kept, x, y, chunk):
        if not len(x):
            return original(optimiser, gradients, trained, kept, x, y, chunk)
        done = vars(optimiser).setdefault("rehearsed", [])
        if len(done) < meter.steps:
            few, start = slice(meter.few), meter.counter.now()
            given = x[few], y[few], chunk
            losses = original(optimiser, gradients, trained, kept, *given)
            work, share = meter.counter.since(start), 1 / len(x[few])
            meter.ledger.elsewhere.add(work)
            done.append((torch.cat(losses).mean(), work, share))
        mean, work, share = done[-1]
        meter.ledger.trained += len(x)
        meter.ledger.training.add(work, share * len(x))
        return [mean.expand(len(x))]

    return step


def _pruned(meter: Meter, original: Callable) -> Callable:
    def prune(method, model, x, y, rate):
        start = meter.counter.now()
        if method == "synflow":
            times = ROUNDS[0] / ROUNDS[1]
            found = foresight.synflow(model, tuple(x.shape[1:]), rate, ROUNDS[1])
        else:
            times = len(x) / meter.few
            found = original(method, model, x[: meter.few], y[: meter.few], rate)
        meter.ledger.rest.add(meter.counter.since(start), times - 1)
        return found

    return prune


def _first_rows(meter: Meter, original: Callable) -> Callable:
    def rows(model, images, *given, **options):
        count, start = len(images), meter.counter.now()
        meter.asked += 1
        found = original(model, images[: meter.few], *given, **options)
        work = meter.counter.since(start)
        meter.ledger.elsewhere.add(work)
        meter.ledger.rows.add(work, count / max(1, len(found)))
        if count <= meter.few:
            return found
        found = found[torch.arange(count) % meter.few]
        if not found.is_floating_point():
            return found
        # No two alike, for attacks on equal rows would only divide by zero, and none
        # below 0 that was not.
        generator = torch.Generator().manual_seed(meter.asked)
        return found + 0.1 * torch.rand(found.shape, generator=generator)

    return rows
