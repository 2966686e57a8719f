"""What a figure that moves is made of, and what of it fits together."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field

import pandas as pd

from lottolab.checks import one_of, require

CELL, DRAWN = 5, 4  # significant digits of what is read, and of what is drawn
SCALES = ("linear", "log")
KINDS = ("line", "steps", "points", "joined")
FORMS = ("percent", "number")  # 0.193 is 19.3 %, or 0.19


@dataclass(frozen=True)
class Control:
    """Hold what a reader chooses: a slider's step or an entry of a list.

    `options` are texts; where they depend on the option of another control, `by`
    names that one and there is a list of texts for each of its options.
    """

    name: str
    options: Sequence
    start: int = 0
    slider: bool = True
    by: str = ""

    @property
    def count(self) -> int:
        """Return how many options there are."""
        return len(self.options[0] if self.by else self.options)


@dataclass(frozen=True)
class By:
    """Hold what depends on the controls of these names; see the head of the module."""

    names: Sequence[str]
    values: Sequence


@dataclass(frozen=True)
class Series:
    """Hold one line of a plot: its points, and what moves on it.

    x, y: a list of numbers for each state; of `steps`, x are the edges, one more.
    dot: (x, y) of the one point that is marked. look: 0 to 5, colour, dash and shape.
    reach: the interval of `dot`: lowest and highest x, lowest and highest y.
    names: of the single marks of `points`, and of `joined`, which a line joins.
    """

    name: str
    x: By
    y: By
    dot: By | None = None
    look: int = 0
    kind: str = "line"
    reach: By | None = None
    names: By | None = None


@dataclass(frozen=True)
class Plot:
    """Hold a panel of lines. `cut` is the x of a vertical line, None for none.

    `level` is the y of a dotted horizontal line, such as chance.

    xs, ys: label, scale in SCALES, lowest and highest value, the two as numbers that
    hold for every state; or, for the limits of x, None: those of the lines.
    """

    title: str
    series: Sequence[Series]
    xs: tuple[str, str, float | None, float | None]
    ys: tuple[str, str, float, float]
    cut: By | None = None
    diagonal: bool = False
    level: float | None = None


@dataclass(frozen=True)
class Bars:
    """Hold a panel of bars across: a group a label, in it one a series, in [0, 1]."""

    title: str
    labels: By
    series: Mapping[str, By]


@dataclass(frozen=True)
class Readout:
    """Hold the numbers of a state, in a table of `rows` and `columns`.

    rows: name to its form in FORMS. cells: rows × columns, each None, a text, a number
    or a number and its interval's ends. says: the sentence that is read aloud, in which
    `{name}` is a control's option and `{row|column}` a cell.
    """

    rows: Mapping[str, str]
    columns: Sequence[str]
    cells: By
    says: str
    head: str = ""


@dataclass(frozen=True)
class Moving:
    """Hold a figure that moves. `name` is that of the cell's figure."""

    name: str
    controls: Sequence[Control]
    panels: Sequence[Plot | Bars]
    readout: Readout
    table: pd.DataFrame = field(repr=False)
    formats: Mapping[str, str] = field(default_factory=dict)


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


def _panel(panel: Plot | Bars, counts: Mapping[str, int]) -> None:
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


def _typed(panel: Plot | Bars) -> dict:
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
