"""Chapter 1's figure that moves: prune a signed ticket, flip modules, read its code.

`found` are outcomes of `codes.pruned` by what a ticket is called, all at the same
amounts and of one text.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from IPython.display import HTML
from matplotlib.figure import Figure

from lottolab.checks import require
from lottolab.ownership.experiments.codes import PATTERN, by_amount
from lottolab.ownership.figures import still
from lottolab.pages import moving

TICKET, PRUNED = "Ticket", "Pruned of what is left, by magnitude"
HERE = "as pruned"
ACCURACY, TEXT, CLAIM = (
    "test accuracy",
    "text, by the owner’s whole reader",
    "claim of the text, by the owner’s whole reader",
)
READ, ACCEPTED = ("not read", "read"), ("not accepted", "accepted")
SAYS = (
    f"{{{TICKET}}}, {{{PRUNED}}} pruned: accuracy {{{ACCURACY}|{HERE}}}, the text "
    f"{{{TEXT}|{HERE}}} by the owner’s whole reader."
)
FLIPPED = (
    "Your flips: {flips}; modules that agree: {agree}; damaged bytes: {damaged}. By "
    "error correction alone the text is {read}. The logarithm of the claim’s p-value "
    "is {p}: {claim}."
)
STILL = 6  # codes a ticket in the picture that stands


def pruned_codes(found: Mapping[str, Mapping], amounts: Sequence[float]) -> HTML:
    """Show the code at each amount of pruning, and let the reader flip its modules.

    Raises:
        ValueError: the outcomes are of codes of different make.
    """
    tickets, each = list(found), list(found.values())
    alike = all(np.array_equal(one["byte"], each[0]["byte"]) for one in each)
    require(alike, "all tickets must carry a code of one version and level", tickets)
    steps = [f"{100 * amount:g} %" for amount in amounts]
    controls = [
        moving.Control(TICKET, tickets, len(tickets) - 1, slider=False),
        moving.Control(PRUNED, steps, 0),
    ]
    told = {name: by_amount(one, amounts) for name, one in found.items()}
    cells = [[_cells(state) for state in told[name]] for name in tickets]
    forms = dict.fromkeys((ACCURACY, TEXT, CLAIM), "percent")
    by = moving.By([TICKET, PRUNED], cells)
    readout = moving.Readout(forms, [HERE], by, SAYS, "the network, without your flips")
    figure = moving.Moving(
        "fig-flips", controls, [_grid(each)], readout, _summed(told, steps, each[0])
    )
    return moving.shown(figure, stood(found, told, steps))


def stood(found: Mapping, told: Mapping, steps: Sequence[str]) -> Figure:
    """Draw some of the amounts a ticket, the first and the last among them."""
    places = np.linspace(0, len(steps) - 1, min(STILL, len(steps))).round().astype(int)
    return still.codes(
        {
            name: [
                (steps[p], one["modules"][p].numpy(), told[name][p]["corrected"] == 1)
                for p in places
            ]
            for name, one in found.items()
        }
    )


def _grid(each: Sequence[Mapping]) -> moving.Grid:
    first, own = each[0], [TICKET]
    byte = [None if b == PATTERN else b for b in first["byte"].flatten().tolist()]
    return moving.Grid(
        "The code that the owner uncovers, module by module",
        moving.By(
            [TICKET, PRUNED], [[_text(state) for state in o["modules"]] for o in each]
        ),
        moving.By(own, [_text(one["owner"]) for one in each]),
        byte,
        first["block"].tolist(),
        first["corrects"].tolist(),
        moving.By(own, [one["logs"] for one in each]),
        moving.By(own, [one["needed"] for one in each]),
        (HERE, "then flipped"),
        FLIPPED,
    )


def _text(modules) -> str:
    return "".join("01"[int(dark)] for dark in modules.flatten().tolist())


def _cells(state: Mapping[str, float]) -> list[list]:
    words = [READ[int(state["decoded"])], ACCEPTED[int(state["accepted"])]]
    return [[state["test_accuracy"]], *([word] for word in words)]


def _summed(told: Mapping, steps: Sequence[str], first: Mapping) -> pd.DataFrame:
    """Return a row for each ticket and amount, as texts."""
    bytes_, count = len(first["block"]), len(first["logs"]) - 1
    rows = []
    for name, states in told.items():
        for step, state in zip(steps, states, strict=True):
            agree = round(state["modules"] * count)
            row = {"ticket": name, "pruned": step}
            row[ACCURACY] = moving.text("percent", state["test_accuracy"])
            row["modules that agree"] = f"{agree} of {count}"
            row["damaged bytes"] = f"{state['damaged bytes']:.0f} of {bytes_}"
            row["text, by error correction alone"] = READ[int(state["corrected"])]
            row[TEXT] = READ[int(state["decoded"])]
            row["log₁₀ of p"] = f"{state['log p']:.1f}".replace("-", "−")
            row["claim"] = ACCEPTED[int(state["accepted"])]
            rows.append(row)
    return pd.DataFrame(rows)
