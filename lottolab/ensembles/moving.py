"""Chapter 3's figure that moves: how far an attack may go, and how often it may ask.

Who answers with a draw answers otherwise the next time. Right on average is one thing,
right in each of n draws another. Both were measured, at every radius and every number
of draws that is offered.
"""

import itertools
import math
from collections.abc import Mapping, Sequence

import pandas as pd
from IPython.display import HTML

from lottolab.checks import require
from lottolab.ensembles import figures
from lottolab.pages import moving
from lottolab.pages.plots import where
from lottolab.truth import stats

RADIUS, DRAWS = "ε of the attack", "Draws that must all be right"
COLUMNS = ("right", "taken by the attack")
LOOKS = {"dense": 0, "R2S": 4, "matched": 2, "ensemble": 1}
CLEAN = 0.0


def again(
    table: pd.DataFrame, draws: Sequence[int], paper: Mapping[float, float]
) -> HTML:
    """Show `figures.curves`, with a slider for ε and one for the number of draws.

    Args:
        table: of the chapter's results. Rows of `point` curve have `accuracy`, and
            those of `point` again, by the column `again`, what was right in all of so
            many draws (`worst`). Of defences of one structure those of the first.
        draws: the numbers of draws to offer, rising; 1 is the accuracy.
        paper: as of `figures.curves`.

    Raises:
        ValueError: a defence was not measured at a radius with a number of draws.
    """
    rows = table[table["place"].isin(["first", "all"])]
    curve = where(rows, point="curve")
    arms = [arm for arm in LOOKS if arm in set(curve["arm"])]
    radii = sorted(curve["epsilon"].unique())
    states = itertools.product(arms, draws, radii)
    found = {state: _interval(rows, *state) for state in states}
    controls = [
        moving.Control(RADIUS, [_radius(r) for r in radii], len(radii) // 2),
        moving.Control(DRAWS, [str(n) for n in draws]),
    ]
    axes = ("ε (255ths)", "linear", None, None), ("accuracy (%)", "linear", 0.0, 1.0)
    lines = [_line(arm, found, draws, radii) for arm in arms]
    lines.append(_paper(paper))
    figure = moving.Moving(
        "fig-ens-epsilons",
        controls,
        [moving.Plot("Right under attack", lines, *axes)],
        _readout(arms, found, draws, radii),
        _summed(arms, found, draws, radii),
    )
    return moving.shown(figure, figures.curves(table, dict(paper)))


def _interval(rows: pd.DataFrame, arm: str, n: int, radius: float) -> list[float]:
    """Return a share and its interval's ends; of one library the share alone."""
    here = where(rows, arm=arm, epsilon=radius)
    here = (
        where(here, point="curve", metric="accuracy")
        if n == 1
        else where(here, point="again", again=n, metric="worst")
    )
    told = {"defence": arm, "draws": n, "radius": radius}
    require(len(here) > 0, "each defence must be measured in each state", told)
    own = stats.mean_interval(here["value"])
    ends = [] if math.isnan(own.low) else [own.low, own.high]
    return [own.estimate, *ends]


def _radius(radius: float) -> str:
    return f"{radius:g}/255" if radius else "no attack"


def _line(arm: str, found: Mapping, draws, radii) -> moving.Series:
    points = [[found[arm, n, radius] for radius in radii] for n in draws]
    dots = [[[r, line[k][0]] for line in points] for k, r in enumerate(radii)]
    reach = [
        [[r, r, *(line[k][1:] or 2 * line[k])] for line in points]
        for k, r in enumerate(radii)
    ]
    names = [f"{arm}, {_radius(r)}" for r in radii]
    return moving.Series(
        arm,
        moving.By([DRAWS], [list(radii)] * len(draws)),
        moving.By([DRAWS], [[point[0] for point in line] for line in points]),
        dot=moving.By([RADIUS, DRAWS], dots),
        look=LOOKS[arm],
        kind="joined",
        reach=moving.By([RADIUS, DRAWS], reach),
        names=moving.By([DRAWS], [names] * len(draws)),
    )


def _paper(paper: Mapping[float, float]) -> moving.Series:
    names = [f"the paper's ensemble, {_radius(radius)}" for radius in paper]
    x, y = (moving.By([], list(side)) for side in (paper, paper.values()))
    own = moving.By([], names)
    return moving.Series("paper, its own", x, y, look=5, kind="points", names=own)


def _readout(arms: Sequence[str], found: Mapping, draws, radii) -> moving.Readout:
    """Return what each defence gets right, and what the attack takes of it."""
    cells = [
        [
            [
                [found[arm, n, r], found[arm, n, CLEAN][0] - found[arm, n, r][0]]
                for arm in arms
            ]
            for n in draws
        ]
        for r in radii
    ]
    right, taken = COLUMNS
    told = ", ".join(f"{arm} {{{arm}|{right}}}" for arm in arms)
    said = f"{{{RADIUS}}}, right in all of {{{DRAWS}}} draws: {told}."
    by = moving.By([RADIUS, DRAWS], cells)
    rows = dict.fromkeys(arms, "percent")
    return moving.Readout(rows, (right, taken), by, said, "95 % intervals")


def _summed(arms: Sequence[str], found: Mapping, draws, radii) -> pd.DataFrame:
    """Return a row for each defence and number of draws, a column a radius."""
    rows = []
    for arm in arms:
        for n in draws:
            own = {_radius(r): moving.text("percent", found[arm, n, r]) for r in radii}
            rows.append({"defence": arm, "draws": n} | own)
    return pd.DataFrame(rows)
