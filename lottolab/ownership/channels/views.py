"""See each weight as rows × columns × the rest, whatever axes its channels have.

Axes are grouped as in `matching`; a suspect may have more channels than the reference.
"""

from dataclasses import dataclass, replace

from torch import Tensor

from lottolab.checks import one_of, require
from lottolab.ownership.channels.naming import State

Groups = dict[str, dict[str, int]]  # for each group its tensors, and their axes


@dataclass(frozen=True)
class View:
    """A weight as rows × columns × the rest; `row`, `column`: axes, `rows` … sizes."""

    row: int
    column: int
    rows: int
    columns: int

    def of(self, weight: Tensor) -> Tensor:
        """Return the weight as float64, rows × columns × the rest."""
        front = weight.double().movedim((self.row, self.column), (0, 1))
        split = front.reshape(
            self.rows, front.shape[0] // self.rows, self.columns, -1
        )  # what a channel has of its rows, and of its columns and the rest
        return split.transpose(1, 2).flatten(2)

    def back(self, weight: Tensor, like: Tensor) -> Tensor:
        """Undo `of`: give a weight the shape and the dtype of another."""
        sizes = list(like.movedim((self.row, self.column), (0, 1)).shape)
        split = weight.view(self.rows, self.columns, sizes[0] // self.rows, -1)
        front = split.transpose(1, 2).reshape(sizes)
        return front.movedim((0, 1), (self.row, self.column)).to(like.dtype)


def views_of(state: State, reference: State, groups: Groups) -> dict[str, View]:
    """Check the groups and both networks; return how each weight is to be seen."""
    held: dict[str, dict[int, int]] = {}
    for group, places in groups.items():
        for name, axis in places.items():
            one_of(f"a tensor of group {group}", name, reference)
            shape = tuple(reference[name].shape)
            inside = 0 <= axis < len(shape)
            require(inside, f"an axis of {name}, {shape}, must be one of its own", axis)
            once = axis not in held.setdefault(name, {})
            require(
                once, f"axis {axis} of {name} must be in one group", f"also {group}"
            )
            own = size(reference, places)
            fits = shape[axis] % own == 0
            require(fits, f"axis {axis} of {name} must be a multiple of {own}", shape)
            held[name][axis] = own
    found = {}
    for name, axes in held.items():
        shape = reference[name].shape
        wide = list(shape)
        for places in groups.values():
            if name in places:
                own, theirs = size(reference, places), width(state, reference, places)
                wide[places[name]] = shape[places[name]] // own * theirs
        same = name in state and state[name].shape == tuple(wide)
        if len(shape) < 2 or (len(axes) == 1 and not same):
            continue
        there = f"the network must hold {name}, as the reference does (rename it?)"
        require(name in state, there, "none")
        require(same, f"{name} must be {tuple(wide)}", tuple(state[name].shape))
        finite = all(bool(s[name].isfinite().all()) for s in (state, reference))
        require(finite, f"{name} must be finite", "NaN or inf")
        require(len(axes) < 3, f"{name} must be in at most two groups", len(axes))
        others = [axis for axis in range(len(shape)) if axis not in axes]
        row, column = sorted([*axes, *others][:2])
        sizes = [axes.get(axis, shape[axis]) for axis in (row, column)]
        found[name] = View(row, column, *sizes)
    return found


def size(state: State, places: dict[str, int]) -> int:
    """Return how many channels a group has: what all its axes are multiples of."""
    sizes = [state[n].shape[a] for n, a in places.items() if a < state[n].ndim]
    return min(sizes, default=1)


def width(state: State, reference: State, places: dict[str, int]) -> int:
    """Return how many channels the suspect has in a group, as many as ours or more."""
    own, found = size(reference, places), []
    for name, axis in places.items():
        if name in state and axis < state[name].ndim:
            found.append(state[name].shape[axis] * own // reference[name].shape[axis])
    return max(own, min(found, default=own))  # narrower ones are refused


def widened(
    views: dict[str, View], state: State, reference: State, groups: Groups
) -> dict[str, View]:
    """Return how the suspect's weights are to be seen, where it has more channels."""
    result = dict(views)
    for places in groups.values():
        theirs = width(state, reference, places)
        for name in places.keys() & views.keys():
            side = "rows" if places[name] == views[name].row else "columns"
            result[name] = replace(result[name], **{side: theirs})
    return result
