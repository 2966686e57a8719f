"""What of a figure that moves fits together, and what the page is given of it."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict

from lottolab.checks import one_of, require
from lottolab.pages.moving.parts import (
    Bars,
    By,
    Control,
    Grid,
    Moving,
    Plot,
    Readout,
    Series,
)

CELL, DRAWN = 5, 4  # significant digits of what is read, and of what is drawn
SCALES = ("linear", "log")
KINDS = ("line", "steps", "points", "joined")
FORMS = ("percent", "number")  # 0.193 is 19.3 %, or 0.19
COUNTED = ("flips", "agree", "damaged", "read", "p", "claim")  # on a grid


def checked(moving: Moving) -> dict:
    """Return the figure as plain lists and texts, without its table.

    Raises:
        ValueError: a part is by a control that there is not, has another number of
            values than that has options, holds numbers that are not finite, or a name
            of a scale, kind, look or form that there is not.
    """
    counts = {c.name: c.count for c in moving.controls}
    require(len(counts) == len(moving.controls), "controls must differ", list(counts))
    for control in moving.controls:
        _control(control, counts)
    for panel in moving.panels:
        _panel(panel, counts)
    _readout(moving.readout, counts)
    return {
        "controls": [asdict(c) | {"count": c.count} for c in moving.controls],
        "panels": _plain([_typed(panel) for panel in moving.panels], DRAWN),
        "readout": _plain(asdict(moving.readout), CELL),
    }


def _control(control: Control, counts: Mapping[str, int]) -> None:
    what = f"the start of {control.name} must be in [0, {control.count - 1}]"
    require(0 <= control.start < control.count, what, control.start)
    if control.by:
        options = By([control.by, control.name], control.options)
        list(_states(options, counts))


def _panel(panel: Plot | Bars | Grid, counts: Mapping[str, int]) -> None:
    if isinstance(panel, Grid):
        return _grid(panel, counts)
    if isinstance(panel, Bars):
        groups = len(next(_states(panel.labels, counts)))
        for part in (panel.labels, *panel.series.values()):
            sizes = {len(state) for state in _states(part, counts)}
            require(sizes == {groups}, f"there must be {groups} bars", sorted(sizes))
        return
    for scale in (panel.xs[1], panel.ys[1]):
        one_of("a scale", scale, SCALES)
    for series in panel.series:
        one_of("the kind of a series", series.kind, KINDS)
        require(0 <= series.look <= 5, "a look must be in [0, 5]", series.look)
        alike = list(series.x.names) == list(series.y.names)
        require(alike, "x and y must be by the same controls", series.y.names)
        pairs = zip(_states(series.x, counts), _states(series.y, counts), strict=True)
        for x, y in pairs:
            right = len(x) == len(y) + (series.kind == "steps")
            require(right, "x and y must fit", f"{len(x)} and {len(y)}")
        _marked(series, counts)
    list(_states(panel.cut, counts) if panel.cut else ())


def _grid(grid: Grid, counts: Mapping[str, int]) -> None:
    size = math.isqrt(len(grid.byte))
    require(size**2 == len(grid.byte) > 0, "a grid must be square", len(grid.byte))
    for state in (*_states(grid.modules, counts), *_states(grid.owner, counts)):
        fits = len(state) == size**2 and set(state) <= {"0", "1"}
        require(fits, f"modules must be a text of {size**2} times 0 or 1", state)
    held = {b for b in grid.byte if b is not None and b >= 0}
    all_there = held == set(range(len(grid.block)))
    require(all_there, "each byte must have modules and a block", sorted(held))
    all_there = set(grid.block) == set(range(len(grid.corrects)))
    require(all_there, "each block must have bytes", sorted(set(grid.block)))
    free = sum(b is not None for b in grid.byte)
    for logs in _states(grid.logs, counts):
        what = f"there must be {free + 1} logs, one by the modules that agree"
        require(len(logs) == free + 1, what, len(logs))
    for needed in _states(grid.needed, counts):
        require(0 <= needed <= free + 1, "needed must be a count of modules", needed)
    for name in re.findall(r"\{([^}]*)\}", grid.says):
        one_of("what a grid says", name, COUNTED)


def _marked(series: Series, counts: Mapping[str, int]) -> None:
    for part, size in ((series.dot, 2), (series.reach, 4)):
        for state in _states(part, counts) if part else ():
            what = f"a dot has 2 numbers and its reach 4: wanted {size}"
            require(len(state) == size, what, len(state))
    if series.names:
        pairs = zip(
            _states(series.names, counts), _states(series.x, counts), strict=True
        )
        for names, x in pairs:
            require(len(names) == len(x), f"there must be {len(x)} names", len(names))


def _readout(readout: Readout, counts: Mapping[str, int]) -> None:
    for form in readout.rows.values():
        one_of("the form of a row", form, FORMS)
    wanted = [len(readout.columns)] * len(readout.rows)
    for state in _states(readout.cells, counts):
        given = [len(row) for row in state]
        require(given == wanted, "cells must be rows × columns of the readout", given)
    for name in re.findall(r"\{([^}]*)\}", readout.says):
        row, _, column = name.partition("|")
        if name not in counts:
            one_of("what a readout says", row, readout.rows)
            one_of("what a readout says", column, readout.columns)


def _states(part: By, counts: Mapping[str, int]) -> Iterator:
    """Yield what there is at each combination of a part's controls, or refuse it."""
    level = [part.values]
    for name in part.names:
        one_of("a control", name, counts)
        for values in level:
            what = f"there must be {counts[name]} values by {name}"
            require(len(values) == counts[name], what, len(values))
        level = [value for values in level for value in values]
    yield from level


def _typed(panel: Plot | Bars | Grid) -> dict:
    return {"type": type(panel).__name__} | asdict(panel)


def _plain(value, digits: int):
    """Return numbers as Python's own, rounded; and refuse those that are not finite."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v, digits) for k, v in value.items()}
    if hasattr(value, "tolist"):  # an array, a tensor or one of their numbers
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(v, digits) for v in value]
    if isinstance(value, float):
        require(math.isfinite(value), "numbers of a figure must be finite", value)
        return float(f"{value:.{digits}g}")
    return value
