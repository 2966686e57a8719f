"""Hold the training images in memory and hand them out as normalised batches."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from lottolab.checks import require, tensors
from lottolab.images.datasets import normalisation


class Batches:
    """The training images of a run, cropped, flipped and normalised batch by batch."""

    def __init__(self, images, labels, recipe, seed, mean_std=None, device="cpu"):
        tensors.images("images", images)
        tensors.targets("labels", labels, len(images))
        require(
            len(images) >= recipe.batch,
            f"images must be at least batch = {recipe.batch}",
            len(images),
        )
        self.recipe, self.seed = recipe, seed
        self.steps = len(images) // recipe.batch
        self.size = images.shape[2:]
        mean, std = mean_std or normalisation(images)
        self.mean, self.std = mean.to(device), std.to(device)
        padded = F.pad(images, [recipe.crop] * 4).permute(0, 2, 3, 1)
        self.images, self.labels = padded.contiguous().to(device), labels.to(device)

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield (x, y, index) of each batch; x is float32, B×C×H×W, channels last."""
        generator = torch.Generator().manual_seed(self.seed * 100_003 + epoch)
        order = torch.randperm(len(self.images), generator=generator)
        for index in order[: self.steps * self.recipe.batch].split(self.recipe.batch):
            index = index.to(self.images.device)
            rows, columns = self._window(len(index), generator)
            x = self.images[index[:, None, None], rows[:, :, None], columns[:, None]]
            x = normalise(x.permute(0, 3, 1, 2), self.mean, self.std)
            yield x, self.labels[index], index

    def _window(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw for each image which rows and columns of the padded image it shows."""
        (height, width), crop = self.size, self.recipe.crop
        corner = torch.randint(2 * crop + 1, (2, count, 1), generator=generator)
        rows, columns = torch.arange(height), torch.arange(width).repeat(count, 1)
        if self.recipe.flip:
            mirrored = torch.rand(count, 1, generator=generator) < 0.5
            columns = torch.where(mirrored, width - 1 - columns, columns)
        device = self.images.device
        return (rows + corner[0]).to(device), (columns + corner[1]).to(device)


def normalise(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Turn uint8 images, N×C×H×W, into float32 of mean 0 and deviation 1 a channel."""
    scale = (1 / (255 * std)).view(-1, 1, 1)
    return x.float() * scale - (mean / std).view(-1, 1, 1)
