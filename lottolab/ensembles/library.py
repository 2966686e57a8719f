"""Keep tickets of several structures: one copy of the weights a structure, and masks.

On disk and in memory a ticket is a bit for each weight and the statistics of its batch
norms; the random weights are there once. A folder appears complete or not at all.
"""

import copy
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from torch.func import functional_call

from lottolab.checks import one_of, require, within
from lottolab.checks import tensors as check
from lottolab.checks.tensors import described, tensor
from lottolab.ensembles.queries import Normalised
from lottolab.ensembles.tickets import Scale, Ticket, kept, scratch
from lottolab.nets import masks as masking
from lottolab.nets.device import here
from lottolab.runs import store

BITS = torch.arange(8, dtype=torch.uint8)


class Library:
    """Tickets by structure and ratio.

    Args:
        structures: name to the arguments of `tickets.scratch`, plain JSON values.
        mean_std: float32 [C] each; the networks that come out take images in [0, 1].
    """

    def __init__(self, structures: dict[str, dict], mean_std: Scale) -> None:
        require(
            isinstance(structures, dict) and len(structures) > 0,
            "structures must be a dict of arguments of scratch, one or more",
            type(structures).__name__,
        )
        check.scale(mean_std)
        require(bool((mean_std[1] > 0).all()), "std of mean_std must be > 0", mean_std)
        self.structures, self.mean_std = structures, mean_std
        self.frames = {name: _frame(spec) for name, spec in structures.items()}
        self.tickets: dict[str, dict[float, dict]] = {name: {} for name in structures}

    def add(self, structure: str, ratio: float, ticket: Ticket) -> None:
        """Put a ticket in, in the place of an older one with its ratio.

        Raises:
            ValueError: an unknown structure, a ratio outside (0, 1], or masks or
                statistics that do not fit the structure's network.
        """
        one_of("structure", structure, self.structures)
        within("ratio", ratio, "(0, 1]")
        state = self.frames[structure].state_dict()
        require(
            isinstance(ticket, Ticket),
            "ticket must be a tickets.Ticket",
            type(ticket).__name__,
        )
        masking.check(ticket.masks, state)
        check.covered(
            masking.prunable(self.frames[structure], first=True, last=True),
            ticket.masks,
        )
        own = [name for name in state if "running_" in name]
        for name, mask in ticket.masks.items():
            right = int(mask.sum()) == kept(mask.numel(), ratio)
            share = float(mask.double().mean())
            require(right, f"mask {name} must keep the ratio {ratio}", share)
        known = sorted(ticket.statistics)
        require(known == sorted(own), "statistics must be of each batch norm", known)
        check.moments(ticket.statistics, state)
        packed = {name: pack(mask) for name, mask in ticket.masks.items()}
        held = {"masks": packed, "statistics": dict(ticket.statistics)}
        self.tickets[structure][ratio] = held

    def keys(self) -> list[tuple[str, float]]:
        """List (structure, ratio) of each ticket; ratios in ascending order."""
        return [(name, r) for name, held in self.tickets.items() for r in sorted(held)]

    def ticket(self, structure: str, ratio: float) -> Ticket:
        """Return one ticket, its masks unpacked."""
        one_of("ticket", (structure, ratio), self.keys())
        held, state = (
            self.tickets[structure][ratio],
            self.frames[structure].state_dict(),
        )
        masks = {n: unpack(m, state[n].shape) for n, m in held["masks"].items()}
        return Ticket(masks, dict(held["statistics"]))

    def network(self, structure: str, ratio: float, shared: bool = False) -> nn.Module:
        """Return a ticket's network, for evaluation, on images in [0, 1].

        With `shared` it holds no weights: each call unpacks the mask and lays it over
        the structure's. The logits have the same bits.
        """
        one_of("ticket", (structure, ratio), self.keys())
        frame, ticket = self.frames[structure], self.ticket(structure, ratio)
        if shared:
            network = _Shared(frame, self.tickets[structure][ratio])
        else:
            network = copy.deepcopy(frame)
            network.load_state_dict(frame.state_dict() | ticket.statistics)
            masking.apply_(network, ticket.masks)
        return here(Normalised(network, self.mean_std).eval())

    def networks(self, shared: bool = False) -> dict[str, list[nn.Module]]:
        """Return the networks of each structure that has a ticket, by ratio.

        Raises ValueError for an empty library.
        """
        self._check()
        found: dict[str, list[nn.Module]] = {}
        for name, ratio in self.keys():
            found.setdefault(name, []).append(self.network(name, ratio, shared))
        return found

    def sizes(self) -> pd.DataFrame:
        """Count bytes, a row a structure: what is held, and the networks stored whole.

        Columns: `structure`, `tickets`, `weights` (one copy), `masks`, `statistics`,
        `held` (the sum of the three) and `whole` (weights and statistics a ticket).
        """
        rows = []
        for name, held in self.tickets.items():
            weights = _bytes(dict(self.frames[name].named_parameters()))
            masks, moments = (
                sum(_bytes(ticket[part]) for ticket in held.values())
                for part in ("masks", "statistics")
            )
            total, whole = weights + masks + moments, len(held) * weights + moments
            rows.append((name, len(held), weights, masks, moments, total, whole))
        parts = ["weights", "masks", "statistics", "held", "whole"]
        return pd.DataFrame(rows, columns=["structure", "tickets", *parts])

    def save(self, folder: str | Path) -> None:
        """Write the library to `folder`, over an older one, in one step.

        Raises ValueError for an empty library.
        """
        folder = Path(folder)
        new = folder.with_name(folder.name + ".new")
        store.write(self.values(), new, {})
        store.publish(new, folder)

    def values(self) -> dict:
        """Return all of it as tensors and JSON values, as a stage may return it."""
        self._check()
        values: dict = {
            "structures": self.structures,
            "scale": dict(zip(("mean", "std"), self.mean_std, strict=True)),
        }
        for i, (name, frame) in enumerate(self.frames.items()):
            values[f"weights{i}"] = dict(frame.named_parameters())
            values[f"tickets{i}"] = {
                f"{ratio}/{part}/{key}": value
                for ratio, held in self.tickets[name].items()
                for part, tensors in held.items()
                for key, value in tensors.items()
            }
        return values

    @classmethod
    def of(cls, values: dict) -> "Library":
        """Make a library of what `values` returned."""
        scale = values["scale"]
        library = cls(values["structures"], (scale["mean"], scale["std"]))
        for i, (name, frame) in enumerate(library.frames.items()):
            frame.load_state_dict(frame.state_dict() | values[f"weights{i}"])
            for place, value in values[f"tickets{i}"].items():
                ratio, part, key = place.split("/", 2)
                empty: dict = {"masks": {}, "statistics": {}}
                held = library.tickets[name].setdefault(float(ratio), empty)
                held[part][key] = value
        return library

    @classmethod
    def load(cls, folder: str | Path) -> "Library":
        """Read a library back; `store.Damaged` if its bytes are not those written."""
        return cls.of(store.read(Path(folder)))

    def _check(self) -> None:
        require(len(self.keys()) > 0, "a library must hold at least one ticket", 0)


class _Shared(nn.Module):
    """A ticket's mask and statistics, and a network that is another's."""

    def __init__(self, frame: nn.Module, held: dict) -> None:
        super().__init__()
        self.frames, self.masks = (frame,), held["masks"]  # a tuple hides the weights
        self.statistics = held["statistics"]

    def forward(self, x: Tensor) -> Tensor:
        frame = self.frames[0]
        state = dict(here(self.statistics))
        for name, packed in here(self.masks).items():
            weight = frame.get_parameter(name)
            # A clone keeps the layout, and with it the kernel and its last bits.
            dropped = ~unpack(packed, weight.shape)
            state[name] = weight.clone().masked_fill_(dropped, 0)
        return functional_call(frame, state, (x,))


def pack(mask: Tensor) -> Tensor:
    """Return a bool tensor's elements as bits, the first in the lowest; uint8.

    >>> pack(torch.tensor([True, False, True]))
    tensor([5], dtype=torch.uint8)
    """
    tensor("mask", mask)
    require(mask.dtype == torch.bool, "mask must be torch.bool", mask.dtype)
    flat = mask.flatten().to(torch.uint8)
    rows = nn.functional.pad(flat, (0, -len(flat) % 8)).view(-1, 8)
    return (rows << BITS.to(mask.device)).sum(1, dtype=torch.uint8)


def unpack(packed: Tensor, shape: torch.Size) -> Tensor:
    """Return the bool tensor of this shape that was packed."""
    tensor("packed", packed)
    require(
        packed.dtype == torch.uint8 and packed.shape == (-(-shape.numel() // 8),),
        f"packed must be uint8, a bit for {list(shape)}",
        described(packed),
    )
    bits = (packed[:, None] >> BITS.to(packed.device)) & 1
    return bits.flatten()[: shape.numel()].view(shape).bool()


def _frame(spec: dict) -> nn.Module:
    return scratch(**spec).eval().to(memory_format=torch.channels_last)


def _bytes(tensors: dict[str, Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors.values())
