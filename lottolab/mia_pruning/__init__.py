"""Chapter 5: is pruning all you need against membership inference (Wang et al., 2021)?

`admm` prunes while training, as MIA-Pruning does; `minmax` and `dp` train the defences
it is compared with; `divergence` measures what the best attack could gain. The page is
not written yet; the attacks are chapter 2's.
"""

from lottolab.mia_pruning.admm import admm_prune
from lottolab.mia_pruning.divergence import gain
from lottolab.mia_pruning.dp import dp_train
from lottolab.mia_pruning.minmax import minmax_train

__all__ = ["admm_prune", "dp_train", "gain", "minmax_train"]
