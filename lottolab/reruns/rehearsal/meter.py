"""Count the work of stages of which a rehearsal computes a few steps.

Work is a `Counter`: `flop`, floating-point operations (a multiply-add is two), and
`seconds` on this machine, each of `training`, of `predictions` and of the `rest`; and
`steps` of optimisers. What is left out is added as it would have been.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from lottolab.jobs import steps
from lottolab.reruns.rehearsal.arguments import kind


class OneModule(nullcontext):
    """Tell the counter that all work is done in one place."""

    parents = frozenset({"Global"})


def times(work: Counter, factor: float) -> Counter:
    return Counter({key: factor * value for key, value in work.items()})


def less(work: Counter, other: Counter) -> Counter:
    return Counter({key: value - other[key] for key, value in work.items()})


@dataclass
class Ledger:
    """What one run of a stage would have done, without the stages that it asked for.

    asked: these, with their arguments. held, parameters: of the largest network that
    was trained, the bytes an image that wait for backward passes, and how many weights
    it has.
    """

    stage: Callable
    arguments: dict
    work: Counter = field(default_factory=Counter)
    asked: list[tuple[Callable, dict]] = field(default_factory=list)
    held: float = 0.0
    parameters: int = 0


class Meter(steps.Watcher):
    """Let loops take their last `most` items, and functions see the first `rows`."""

    def __init__(self, most: int, rows: int) -> None:
        self.most, self.rows = most, rows
        self.counter = FlopCounterMode(display=False)
        # It would count by module too, with hooks that an attack's gradients refuse.
        self.counter.mod_tracker = OneModule()
        self.kind, self.total, self.seen = "rest", Counter(), (0, time.perf_counter())
        self.networks: dict[str, dict] = {}  # arguments of the first, by kind
        self.calls = 0  # of functions that give a row an image
        self.running = [Ledger(Meter, {})]  # the first is for work outside of stages
        self.written: list[Ledger] = []

    def now(self) -> Counter:
        """Return all work so far."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # what was asked for may not be done yet
        flop, clock = self.counter.get_total_flops(), time.perf_counter()
        self.total[f"flop {self.kind}"] += flop - self.seen[0]
        self.total[f"seconds {self.kind}"] += clock - self.seen[1]
        self.seen = flop, clock
        return Counter(self.total)

    @contextmanager
    def doing(self, kind: str) -> Iterator[None]:
        """Take what is done within the block for a kind of work."""
        self.now()
        before, self.kind = self.kind, kind
        try:
            yield
        finally:
            self.now()
            self.kind = before

    def few(self, items: Iterable, also: object, kind: str) -> Iterator:
        items, before = list(items), self.kind
        # Batches of private training are of any size, and may be empty.
        sizes = [len(i) if isinstance(i, torch.Tensor) else 1 for i in items]
        order = sorted(range(len(items)), key=lambda place: (sizes[place], place))
        last = order[len(items) - self.taken(len(items)) :]
        named = [] if also is None else [p for p, i in enumerate(items) if i == also]
        # The last epoch may end in a look at the network that the others do without.
        first = [0] if kind == "epochs" and items else []
        kept, costs = sorted({*first, *named, *last}), []
        for place in kept:
            if before == "rest" and kind:
                self.now()
                self.kind = "training"
            start = self.now()
            if kind == "steps":
                self.total["steps"] += 1
            with self._weighed(kind, items[place]):
                yield items[place]
            costs.append(less(self.now(), start))
            self.kind = before
        if kept:
            each = costs[0 if first else -1]
            left = sum(sizes) - sum(sizes[p] for p in kept)
            passed = times(each, left / max(1, sizes[kept[-1]]))
            passed["steps"] = each["steps"] * (len(items) - len(kept))
            self.total += passed

    @contextmanager
    def _weighed(self, kind: str, item: object) -> Iterator[None]:
        """Note what a step on a batch holds; `torch.func` cannot be looked into."""
        if kind != "steps" or not isinstance(item, tuple):
            yield
            return
        with (held := Held()):
            yield
        ledger, images = self.running[-1], item[1][0]
        ledger.held = max(ledger.held, held.most / len(images))
        ledger.parameters = max(ledger.parameters, sum(held.weights.values()))

    def taken(self, count: int) -> int:
        return min(count, self.most)

    def by_row(self, function: Callable, model, images, *given, **options):
        count, before = len(images), self.kind
        self.calls += 1
        with self.doing("predictions" if before == "rest" else before):
            start = self.now()
            found = function(model, images[: self.rows], *given, **options)
            spent = less(self.now(), start)
            self.total += times(spent, count / max(1, len(found)) - 1)
        if count <= self.rows:
            return found
        found = found[torch.arange(count) % self.rows]
        if not found.is_floating_point():
            return found
        # No two alike, for attacks on equal rows would only divide by zero, and none
        # below 0 that was not.
        generator = torch.Generator().manual_seed(self.calls)
        return found + 0.1 * torch.rand(found.shape, generator=generator)

    def asked(self, stage: Callable, full: dict) -> dict:
        self.running[-1].asked.append((stage, full))
        return self.networks.get(kind(stage, full), full)

    def computed(self, stage: Callable, full: dict) -> dict:
        ledger = Ledger(stage, full)
        self.running.append(ledger)
        with self.doing("rest"):
            start = self.now()
            try:
                result = stage.__wrapped__(**full)
            finally:
                self.running.pop()
                whole = less(self.now(), start)
                self.running[-1].work.subtract(whole)
        ledger.work.update(whole)
        self.written.append(ledger)
        if "weights" in result or "masks" in result:
            self.networks.setdefault(kind(stage, full), full)
        return result


class Held(saved_tensors_hooks):
    """Within the block, know the most bytes that waited for a backward pass at once.

    A storage counts once however often it is kept, and parameters do not count.
    """

    def __init__(self) -> None:
        super().__init__(self._pack, self._unpack)
        self.kept: dict[int, int] = {}  # bytes of each storage that waits
        self.weights: dict[int, int] = {}  # how many a parameter has
        self.most = 0

    def _pack(self, tensor: torch.Tensor) -> torch.Tensor:
        if isinstance(tensor, torch.nn.Parameter):
            self.weights[id(tensor)] = tensor.numel()
        else:
            storage = tensor.untyped_storage()
            self.kept[storage.data_ptr()] = storage.nbytes()
            self.most = max(self.most, sum(self.kept.values()))
        return tensor

    def _unpack(self, tensor: torch.Tensor) -> torch.Tensor:
        self.kept.pop(tensor.untyped_storage().data_ptr(), None)
        return tensor
