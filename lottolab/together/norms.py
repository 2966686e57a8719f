"""Let batch norm get used to weights that nothing has trained."""

import torch
from torch import Tensor, nn

from lottolab.images.batches import normalise
from lottolab.nets.device import here


@torch.no_grad()
def settle(model: nn.Module, images: Tensor, mean_std: tuple[Tensor, Tensor]) -> None:
    """Set batch norm's statistics to those of the images; nothing else moves.

    `images`, uint8 [N, C, H, W], are normalised by `mean_std`, float [C] each. The
    statistics are the mean over all batches of 500. The model is left in evaluation
    mode.
    """
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
    model.train()
    for batch in images.split(500):
        model(here(normalise(batch, *mean_std)))
    model.eval()
