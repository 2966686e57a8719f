"""Count what runs of stages do, or would have done: operations, seconds and memory."""

import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


@dataclass
class Work:
    """Floating-point operations (a multiply-add is two), operations asked of torch, and
    seconds on this machine."""

    flop: float = 0.0
    calls: float = 0.0
    seconds: float = 0.0

    def add(self, other: "Work", times: float = 1.0) -> None:
        self.flop += times * other.flop
        self.calls += times * other.calls
        self.seconds += times * other.seconds


@dataclass
class Ledger:
    """What one run of a stage did, or would have done, without the stages it asked.

    trained: images that trainings saw. training: the work on them. rows: the work of
    functions that give a row an image. rest: all other work, done in full. asked: the
    stages that it asked for, with their arguments. held, parameters: of the largest
    network that was trained, the bytes an image that wait for backward passes, and how
    many weights it has. weights, values: bytes on disk.
    """

    stage: Callable
    arguments: dict
    trained: float = 0.0
    training: Work = field(default_factory=Work)
    rows: Work = field(default_factory=Work)
    rest: Work = field(default_factory=Work)
    asked: list[tuple[Callable, dict]] = field(default_factory=list)
    held: float = 0.0
    parameters: int = 0
    weights: int = 0
    values: int = 0
    elsewhere: Work = field(default_factory=Work)  # work that is not the rest


class Counter(TorchDispatchMode):
    """Count calls, and their operations by the formulas of torch's own counter."""

    def __init__(self) -> None:
        super().__init__()
        self.flop = self.calls = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        found = func(*args, **kwargs)
        self.calls += 1
        if rule := flop_registry.get(func._overloadpacket):
            self.flop += rule(*args, **kwargs, out_val=found)
        return found

    def now(self) -> Work:
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # what was asked for may not be done yet
        return Work(self.flop, self.calls, time.perf_counter())

    def since(self, start: Work) -> Work:
        work = self.now()
        work.add(start, -1)
        return work


class Held:
    """Within the block, know the most bytes that were kept for backward passes at once.

    A storage counts once however often it is kept, and parameters do not count.
    """

    def __init__(self) -> None:
        self.now = self.most = 0
        self.kept: dict[int, int] = {}  # how often each storage is kept
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, self._unpack)

    def __enter__(self) -> "Held":
        self.hooks.__enter__()
        return self

    def __exit__(self, *error) -> None:
        self.hooks.__exit__(*error)

    def _pack(self, tensor: torch.Tensor):
        if isinstance(tensor, torch.nn.Parameter):
            return tensor
        storage = tensor.untyped_storage()
        place, size = storage.data_ptr(), storage.nbytes()
        if not self.kept.get(place):
            self.now += size
            self.most = max(self.most, self.now)
        self.kept[place] = self.kept.get(place, 0) + 1
        box = _Box(tensor)
        weakref.finalize(box, self._release, place, size)
        return box

    def _unpack(self, box) -> torch.Tensor:
        return box.tensor if isinstance(box, _Box) else box

    def _release(self, place: int, size: int) -> None:
        self.kept[place] -= 1
        if not self.kept[place]:
            self.now -= size


class _Box:
    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor
