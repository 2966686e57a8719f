"""Pretend a device beside the CPU, on a machine that has none.

Its tensors are computed by the CPU, to the last bit as the CPU's own; which storages
are "there" is kept in a table. What a card refuses is refused: operands on two devices,
but for scalars, indices and copies; a generator of the other device; whole numbers in a
matrix product; numpy. So what a stage computes on it is what it computes on a CPU, or
an error that a card would raise too.

It holds for the thread that asks for it. A card's own rounding and its own random
numbers are not in it, nor are its limits of memory.
"""

import functools
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from unittest.mock import patch

import torch
from places_of_tensors import CPU, GENERATOR, NAME, There, WrongDevice, changes
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
COPIES = {aten.copy_, aten._to_copy}  # between devices too
INDEXED = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}
SCALARS = INDEXED | {aten.where, aten.masked_fill, aten.masked_fill_, aten.fill_}
FLOATS = {aten.mm, aten.bmm, aten.addmm, aten.baddbmm, aten.mv, aten.dot}
FLOATS |= {aten.convolution}  # of whole numbers a card has no product


@contextmanager
def pretended() -> Iterator[There]:
    """Within the block there is the device, and it is the one that lottolab uses.

    What is on it must not be used after the block.
    """
    there, device = There(), _named()
    with ExitStack() as stack:
        stack.enter_context(patch.dict(os.environ, {"LOTTOLAB_DEVICE": NAME}))
        for owner, name, changed in changes(there, device):
            stack.enter_context(patch.object(owner, name, changed))
        stack.enter_context(_Around(there))
        stack.enter_context(_Operations(there))
        yield there


def _leaves(values) -> Iterator:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _leaves(value)
        elif value is not None:
            yield value


class _Around(TorchFunctionMode):
    """Note whether the call has operands there: what it makes inside is there too."""

    def __init__(self, there: There) -> None:
        super().__init__()
        self.there = there

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs, there = kwargs or {}, self.there
        before = there.around
        given = _leaves((*args, *kwargs.values()))
        there.around = any(isinstance(x, Tensor) and there.has(x) for x in given)
        try:
            return func(*args, **kwargs)
        finally:
            there.around = before


class _Operations(TorchDispatchMode):
    """Refuse what a card refuses, and note what is there of what is computed."""

    def __init__(self, there: There) -> None:
        super().__init__()
        self.there = there

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, there = dict(kwargs or {}), self.there
        given = list(_leaves((*args, *kwargs.values())))
        operands = [x for x in given if isinstance(x, Tensor)]
        on = [there.has(x) for x in operands]
        result_there = any(on) or (not operands and self._made())
        device = kwargs.get("device")
        if device is not None and device.type == NAME:
            kwargs["device"], result_there = CPU, True
        for x in given:
            if isinstance(x, GENERATOR):
                drawn_there = x._cdata in there.generators
                if drawn_there != result_there:
                    told = NAME if drawn_there else "the CPU"
                    raise WrongDevice(f"{func.name()}: the generator is of {told}")
        if result_there:
            there.count += 1
            _refuse(func, operands, on, args)
        out = func(*args, **kwargs)
        if result_there and func.overloadpacket is not aten.copy_:
            for x in _leaves((out,)):
                if isinstance(x, Tensor):
                    there.add(x)
        return out

    def _made(self) -> bool:
        made = self.there.made
        return self.there.around if made is None else made.type == NAME


def _refuse(func, operands, on, args) -> None:
    packet, name = func.overloadpacket, func.name()
    if packet in FLOATS and not all(x.is_floating_point() for x in operands):
        raise WrongDevice(f"{name}: not implemented for whole numbers on a card")
    if all(on) or packet in COPIES:
        return
    own = on[0] if isinstance(args[0], Tensor) else True
    if packet in INDEXED:
        values = args[2] if len(args) > 2 else None
        fine = own and (values is None or not values.ndim or on[-1])
    else:
        pointwise = torch.Tag.pointwise in func.tags or packet in SCALARS
        pointwise |= name.startswith("aten::_foreach")
        scalars = all(
            there or not x.ndim for x, there in zip(operands, on, strict=True)
        )
        written = func._schema.arguments[0].alias_info
        fine = pointwise and scalars and (own or not (written and written.is_write))
    if not fine:
        told = ", ".join(
            f"{list(x.shape)} on {NAME if there else 'cpu'}"
            for x, there in zip(operands, on, strict=True)
        )
        raise WrongDevice(f"{name}: expected all tensors on one device, got {told}")


@functools.cache
def _named() -> torch.device:
    """Have torch know the name, which it does from then on, and find no such device."""
    torch.utils.rename_privateuse1_backend(NAME)
    says = {"is_available": lambda: False, "_is_in_bad_fork": lambda: False}
    says |= {"device_count": lambda: 0, "manual_seed_all": lambda seed: None}
    torch._register_device_module(NAME, SimpleNamespace(**says))
    return torch.device(NAME, 0)
