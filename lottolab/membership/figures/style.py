"""How the chapter's figures look."""

import pandas as pd

from lottolab.pages.plots import COLOURS

# More of Okabe and Ito's colours: sky blue and orange.
LOOKS = {
    "dense": {"color": COLOURS["dense"], "marker": "s"},
    "one-shot": {"color": COLOURS["ticket"], "marker": "o"},
    "sparser": {"color": "#56B4E9", "marker": "D"},
    "random mask": {"color": COLOURS["random mask"], "marker": "v"},
    "late": {"color": "#E69F00", "marker": "^"},
}


def percent(rows: pd.DataFrame) -> str:
    return f"{100 * rows['sparsity'].iloc[0]:g} %"
