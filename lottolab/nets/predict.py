"""Ask a trained network for its predictions."""

import torch
from torch import Tensor, nn

from lottolab.checks import tensors, whole
from lottolab.images.batches import normalise
from lottolab.jobs.steps import by_row


@by_row
@torch.no_grad()
def logits(
    model: nn.Module,
    images: Tensor,
    mean_std: tuple[Tensor, Tensor],
    batch: int = 500,
) -> Tensor:
    """Return the model's float32 logits, N×classes, for uint8 images, N×C×H×W.

    `mean_std` are those of the training images. The model is put in evaluation mode.

    Raises ValueError for other images, weights that are not float32, and a model that
    returns something else than finite logits: probabilities too.
    """
    tensors.answering(model, images)
    tensors.scale(mean_std)
    whole("batch", batch, 1)
    device = next(model.parameters()).device
    mean, std = (part.to(device) for part in mean_std)
    model.eval()
    parts = []
    for x in images.split(batch):
        x = normalise(x.to(device), mean, std)
        parts.append(model(x.contiguous(memory_format=torch.channels_last)).float())
        tensors.logits("the model's logits", parts[-1])
        tensors.unnormalised("the model's logits", parts[-1])
    return torch.cat(parts).cpu()


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Return the share of rows whose largest logit is at the label, in [0, 1].

    Raises ValueError unless `logits` are finite, float N×C, and `labels` N integers in
    [0, C).
    """
    tensors.logits("logits", logits)
    tensors.labels("labels", labels, *logits.shape, long=False)
    return float((logits.argmax(1) == labels).double().mean())
