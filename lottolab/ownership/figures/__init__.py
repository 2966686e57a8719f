"""The chapter's own figures; look and colours are those of `lottolab.pages.plots`."""

from lottolab.ownership.figures.moving import pruned_codes
from lottolab.ownership.figures.still import (
    against_strength,
    codes,
    contact_sheet,
    decoders,
    evidence,
    keys,
    modules,
)

__all__ = [
    "against_strength",
    "codes",
    "contact_sheet",
    "decoders",
    "evidence",
    "keys",
    "modules",
    "pruned_codes",
]
