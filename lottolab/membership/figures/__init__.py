"""Draw chapter 2's figures; look and colours are those of `lottolab.pages.plots`.

Numbers are means over seeds, one value a trained model, with 95 % t intervals; rows
that hold two values for one model are refused. An axis whose rows the table lacks, as
at smoke scale, says "not measured". A `table` is that of the chapter's results, with
the columns `arm`, `level`, `sparsity`, `network`, `point`, `attack`, `metric`, `seed`,
`value` and those that a function names; values are in [0, 1].
"""

from lottolab.membership.figures.dots import attacks, by_class, treatments
from lottolab.membership.figures.lines import classes, curve, samples
from lottolab.membership.figures.moving import threshold
from lottolab.membership.figures.pictures import examples, exposure, roc, transfer

__all__ = [
    "attacks",
    "by_class",
    "classes",
    "curve",
    "examples",
    "exposure",
    "roc",
    "samples",
    "threshold",
    "transfer",
    "treatments",
]
