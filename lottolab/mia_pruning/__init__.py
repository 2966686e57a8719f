"""Chapter 5: is pruning all you need against membership inference (Wang et al., 2021)?

`admm` prunes while training, as MIA-Pruning does; `minmax` and `dp` train the defences
it is compared with, and `audit` tests the latter's guarantee; `divergence` measures
what the best attack could gain; `theorem` builds what Theorem 1 promises. `samia` and
`ppb` are attack and defence of the study that disagrees (Yuan & Zhang, 2022), and
`class_tokens` is the former as its authors built it. All other attacks are chapter 2's.
`privacy` audits private training in one run, `comparisons` compares at equal terms.
`experiments` holds the stages, `figures` draws.
"""

from lottolab.mia_pruning.defences.admm import admm_prune
from lottolab.mia_pruning.defences.dp import dp_train
from lottolab.mia_pruning.defences.minmax import minmax_train
from lottolab.mia_pruning.divergence import gain

__all__ = ["admm_prune", "dp_train", "gain", "minmax_train"]
