"""How well do adversarial examples that were made on one model fool another?"""

import pandas as pd
from torch import Tensor

from lottolab.checks import require
from lottolab.ensembles.attacks.gradient import pgd
from lottolab.ensembles.queries import Model, correct


def transfer_matrix(
    sources: dict[str, Model],
    x: Tensor,
    y: Tensor,
    *,
    targets: dict[str, Model] | None = None,
    **attack,
) -> pd.DataFrame:
    """Return the accuracy of each target, a row, on examples of each source, a column.

    Peng et al. (2022), Figure 1: all images count, also those that a target gets wrong
    when they are clean, so that on the diagonal stands the robust accuracy. High off it
    means that attacks transfer poorly.

    Args:
        sources: name to model; the targets too, if `targets` is None.
        x, y: as for `pgd`. attack: its keyword arguments, the same for each source.

    Returns:
        Accuracies in [0, 1].

    Raises:
        ValueError: no models, or what `pgd` refuses.
    """
    targets = sources if targets is None else targets
    fewest = min(len(sources), len(targets))
    require(fewest > 0, "sources and targets must hold at least one model", fewest)
    columns = {}
    for source, model in sources.items():
        found = pgd(model, x, y, **attack)
        scores = [correct(target, found, y) for target in targets.values()]
        columns[source] = [float(score.double().mean()) for score in scores]
    table = pd.DataFrame(columns, index=list(targets))
    return table.rename_axis(index="target", columns="source")
