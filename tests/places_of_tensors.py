"""Know which tensors are on the pretended device, and have torch say and heed it."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

NAME, CPU = "pretended", torch.device("cpu")
FACTORIES = ("zeros", "ones", "empty", "full", "eye", "arange", "linspace", "logspace")
FACTORIES += ("rand", "randn", "randint", "randperm", "tensor", "as_tensor", "normal")
FACTORIES += ("from_numpy", "tril_indices", "triu_indices")
GENERATOR = torch.Generator


class WrongDevice(RuntimeError):
    """A card would have refused this."""


class There:
    """Which storages are on the pretended device; `count`, its operations so far."""

    def __init__(self) -> None:
        self.storages: dict[int, StorageWeakRef] = {}
        self.limit, self.made, self.around = 1000, None, False
        self.count, self.generators = 0, {}

    def has(self, x: Tensor) -> bool:
        """Say whether a tensor is there."""
        while torch._C._functorch.is_functorch_wrapped_tensor(x):
            x = torch._C._functorch.get_unwrapped(x)
        if x.is_meta or x.layout is not torch.strided:
            return False
        return x.untyped_storage()._cdata in self.storages

    def add(self, x: Tensor) -> None:
        """Have a tensor, and all that share its storage, be there."""
        if x.is_meta or x.layout is not torch.strided:
            return
        if len(self.storages) > self.limit:
            gone = [key for key, ref in self.storages.items() if ref.expired()]
            for key in gone:
                del self.storages[key]
            self.limit = max(1000, 2 * len(self.storages))
        storage = x.untyped_storage()
        # The reference keeps the number from being given to another storage.
        self.storages.setdefault(storage._cdata, StorageWeakRef(storage))


class _Moved(torch.autograd.Function):
    """Copy a tensor to the other device, and its gradient back."""

    @staticmethod
    def forward(ctx, x, there, to):
        ctx.there, ctx.origin = there, there.has(x)
        return _copied(x, there, to)

    @staticmethod
    def backward(ctx, gradient):
        return _copied(gradient, ctx.there, ctx.origin), None, None


def _copied(x: Tensor, there: There, to: bool) -> Tensor:
    with torch.utils._python_dispatch._disable_current_modes():
        copied = x.detach().clone()
    if to:
        there.add(copied)
    return copied


def changes(
    there: There, pretended: torch.device
) -> Iterator[tuple[object, str, object]]:
    """Yield what of torch asks or says where a tensor is: owner, name, replacement."""
    plain = torch.Tensor.to
    device = torch.Tensor.device

    def where(x: Tensor) -> torch.device:
        return pretended if there.has(x) else device.__get__(x)

    def to(x: Tensor, *args, **kwargs) -> Tensor:
        wanted, rest = kwargs.pop("device", None), list(args)
        if rest and isinstance(rest[0], Tensor):
            other = rest.pop(0)
            wanted, rest = other.device, [other.dtype, *rest]
        elif rest and not isinstance(rest[0], torch.dtype):
            wanted = rest.pop(0)
        kwargs |= zip(("dtype", "non_blocking", "copy"), rest, strict=False)
        kwargs = {k: v for k, v in kwargs.items() if v is not None}
        wanted = x.device if wanted is None else torch.device(wanted)
        if wanted.type not in (NAME, "cpu") or x.is_meta:
            return plain(x, wanted, **kwargs)
        cast = plain(x, **kwargs) if set(kwargs) - {"non_blocking"} else x
        if (wanted.type == NAME) == there.has(cast):
            return cast
        return _Moved.apply(cast, there, wanted.type == NAME)

    def refused(name: str) -> Callable:
        original = getattr(torch.Tensor, name)

        def call(x: Tensor, *args, **kwargs):
            if there.has(x):
                raise WrongDevice(f"{name}: a tensor on {NAME} is no numpy array")
            return original(x, *args, **kwargs)

        return call

    def made(owner, name: str) -> Callable:
        original = getattr(owner, name)

        def call(*args, **kwargs):
            if str(kwargs.get("device")) == "meta":
                return original(*args, **kwargs)
            known = [x for x in args[:1] if isinstance(x, Tensor)]
            wanted = kwargs.pop("device", None)
            if wanted is None and known:
                wanted = known[0].device  # as_tensor, normal, new_tensor
            wanted = torch.device(wanted or "cpu")
            before, there.made = there.made, wanted
            try:
                found = original(*args, **kwargs)
            finally:
                there.made = before
            return found.to(wanted)

        return call

    copied = torch.Tensor.__deepcopy__

    def deepcopy(x: Tensor, memo):
        found = copied(x, memo)
        if there.has(x):
            there.add(found)
        return found

    class Kind(type):
        def __instancecheck__(cls, x):
            return isinstance(x, GENERATOR)

    class Generator(metaclass=Kind):
        def __new__(cls, device="cpu"):
            is_there = torch.device(device).type == NAME
            made = GENERATOR("cpu" if is_there else device)
            if is_there:
                there.generators[made._cdata] = made
            return made

    started = torch.autocast.__init__

    def autocast(self, device_type, *args, **kwargs):
        started(self, "cpu" if device_type == NAME else device_type, *args, **kwargs)

    yield torch.Tensor, "device", property(where)
    yield torch.Tensor, "is_cpu", property(lambda x: not there.has(x))
    yield torch.Tensor, "to", to
    yield torch.Tensor, "cpu", lambda x, **_: to(x, "cpu")
    yield torch.Tensor, "__deepcopy__", deepcopy
    yield torch, "Generator", Generator
    yield torch.autocast, "__init__", autocast
    for name in ("numpy", "__array__"):
        yield torch.Tensor, name, refused(name)
    for name in FACTORIES:
        yield torch, name, made(torch, name)
    yield torch.Tensor, "new_tensor", made(torch.Tensor, "new_tensor")
