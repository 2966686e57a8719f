"""What the images of chapter 3 stand before, in training and when they are shown."""

import torch
import torch.nn.functional as F
from torch import Tensor

from lottolab.checks import one_of
from lottolab.nets import tickets
from lottolab.nets.device import here

Images = tuple[Tensor, Tensor]
APART = 10_000_000  # between the seeds of two splits' textures


def shown(
    *, dataset, background: str, sizes: dict, seed: int, **_
) -> dict[str, Images]:
    """Return `val` and `test` of a setting, as attackers and defences meet them.

    The arguments are those of `libraries.read`, and so are plain images. Textures are
    drawn from a seed of each split: no image stands before that of a training image.

    Returns:
        By split, images float32 n×C×H×W in [0, 1] and labels int64 [n].

    Raises ValueError for a background that is neither `plain` nor `textured`.
    """
    one_of("background", background, ("plain", "textured"))
    parts = tickets.read(dataset=dataset, sizes=sizes, seed=seed)
    found = {}
    for i, name in enumerate(("val", "test"), 1):
        images, labels = parts[name]
        if background == "textured":
            images = textured(images, seed + i * APART)
        found[name] = pixels((images, labels))
    return found


def textured(images: Tensor, seed: int) -> Tensor:
    """Replace the black of each image by a texture of its own; uint8 n×C×H×W, as given.

    A texture is 7×7 grey values of any brightness, drawn and smoothed by bilinear
    interpolation, so that no threshold tells it from what it surrounds.
    """
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(256, (len(images), 1, 7, 7), generator=generator)
    fine = F.interpolate(coarse.float(), size=images.shape[2:], mode="bilinear")
    return images.where(images > 0, fine.round().to(torch.uint8))


def pixels(part: Images) -> Images:
    """Return a split with its images as float32 in [0, 1]."""
    return here((part[0].float() / 255, part[1]))
