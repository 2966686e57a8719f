"""What a figure that moves is made of; `checking` says what of it fits together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd


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
class Grid:
    """Hold a panel of a code's modules, which a reader flips on top of a state.

    The page counts what differs from the owner's code, and chooses by these counts.

    modules: a text for each state, a "1" for each dark module and a "0" for each light
        one, size × size, row by row. owner: the same of the code without damage.
    byte: of each module its byte, from 0; −1 for one that is in no byte, and None for a
        part of a pattern, which is not flipped.
    block: of each byte its block, from 0. corrects: how many of its bytes each block
        may have damaged and still be corrected.
    logs: log10 of the claim's p-value by how many modules agree, from none to all.
    needed: how many have to agree for the claim to be accepted.
    columns: what the state is called, and the state with the reader's flips.
    says: the end of the sentence that is read aloud, in which `{name}` is one of
        COUNTED, with the reader's flips.
    """

    title: str
    modules: By
    owner: By
    byte: Sequence[int | None]
    block: Sequence[int]
    corrects: Sequence[int]
    logs: By
    needed: By
    columns: tuple[str, str]
    says: str


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
    panels: Sequence[Plot | Bars | Grid]
    readout: Readout
    table: pd.DataFrame = field(repr=False)
    formats: Mapping[str, str] = field(default_factory=dict)
