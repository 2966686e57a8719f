"""Average several answers about the same image.

Repeated queries (m-QPI) and smoothing are the paper's; votes, dithering and asking
several independent states of a service are not. `service` is as in `queries`.
"""

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from lottolab.checks import check_seed, number, whole
from lottolab.modelguard.attacks.adaptive import first_seen
from lottolab.modelguard.queries import Ask, check_images

CHANGED = 1e-3


def repeated(service: Ask, images: Tensor, times: int = 2) -> tuple[Tensor, Tensor]:
    """Ask for the whole set `times` times over (m-QPI, paper, section 4.3).

    Returns the mean answers, N×K, and which of them changed: bool N, True where a
    later answer is more than 1e-3 from the first in ℓ2.
    """
    whole("times", times, 1)
    first = total = service(images)
    changed = torch.zeros(len(first), dtype=torch.bool, device=first.device)
    for _ in range(times - 1):
        answers = service(images)
        changed |= (answers - first).norm(dim=1) > CHANGED
        total = total + answers
    return total / times, changed


def smoothed(
    service: Ask,
    images: Tensor,
    *,
    copies: int = 3,
    crop: int = 2,
    flip: bool = True,
    seed: int,
) -> Tensor:
    """Return the mean answer to `copies` random crops and mirrors of each image.

    The smoothing attack (Lukas et al., 2022; paper, appendix B.1). Images are shifted
    by up to `crop` pixels, zeros coming in. The substitute is trained on the image
    itself, which is not asked for.
    """
    check_images(images)
    whole("copies", copies, 1)
    whole("crop", crop, 0)
    check_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    versions = (shifted(images, crop, flip, generator) for _ in range(copies))
    return mean_answers(service, versions)


def voted(
    service: Ask,
    images: Tensor,
    *,
    copies: int = 10,
    crop: int = 2,
    flip: bool = True,
    seed: int,
) -> Tensor:
    """Return how often each class is the largest over random crops and mirrors, N×K.

    Not in the paper: a label-only attack. It uses nothing of an answer but its largest
    class, so that a defence which keeps it changes nothing, and still gets
    probabilities: multiples of 1/copies. Arguments as in `smoothed`.
    """

    def labels(images: Tensor) -> Tensor:
        answers = service(images)
        return F.one_hot(answers.argmax(1), answers.shape[1]).to(answers.dtype)

    options = {"copies": copies, "crop": crop, "flip": flip, "seed": seed}
    return smoothed(labels, images, **options)


def mean_answers(service: Ask, versions: Iterable[Tensor]) -> Tensor:
    """Return the mean of the answers to several versions of the same images."""
    total, count = 0, 0
    for images in versions:
        total, count = total + service(images), count + 1
    return total / count


def shifted(
    images: Tensor, crop: int, flip: bool, generator: torch.Generator
) -> Tensor:
    """Return each image shifted by up to `crop` pixels each way, half of them mirrored.

    As `lottolab.images.batches` does while training, but of uint8 images and in order.
    """
    height, width = images.shape[2:]
    corner = torch.randint(2 * crop + 1, (2, len(images), 1), generator=generator)
    rows, columns = corner[0] + torch.arange(height), torch.arange(width)[None]
    if flip:
        mirrored = torch.rand(len(images), 1, generator=generator) < 0.5
        columns = torch.where(mirrored, width - 1 - columns, columns)
    columns = corner[1] + columns
    padded = F.pad(images, [crop] * 4).permute(0, 2, 3, 1)
    place = torch.arange(len(images))[:, None, None]
    cut = padded[place, rows[:, :, None], columns[:, None, :]]
    return cut.permute(0, 3, 1, 2).contiguous()


def touched(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return each image, uint8 N×C×H×W, with one pixel changed by one level of 255.

    A random one of the first channel; up, or down where it is 255. A person sees no
    difference, and a hash of the bytes sees another image.
    """
    check_images(images)
    size = images[0, 0].numel()
    place = torch.randint(size, (len(images), 1), generator=generator)
    found = images.clone()
    first = found[:, 0].flatten(1)
    old = first.gather(1, place).int()
    new = torch.where(old < 255, old + 1, old - 1).to(torch.uint8)
    found[:, 0] = first.scatter(1, place, new).view_as(found[:, 0])
    return found


def dithered(
    service: Ask,
    images: Tensor,
    *,
    copies: int = 30,
    noise: float = 0.02,
    seed: int,
) -> Tensor:
    """Return the mean answer to `copies` slightly noisy versions of each image.

    Not in the paper. A quantiser answers a prediction by the centre of its cell; noise
    that carries the prediction over the borders makes the mean answer move with the
    prediction, as dither does for an analogue-to-digital converter.

    Args:
        copies: answers an image, so many times the queries.
        noise: standard deviation in pixel values of [0, 1], at least half a level of
            255, below which rounding would swallow it.

    Raises ValueError for settings out of range.
    """
    check_images(images)
    whole("copies", copies, 1)
    number("noise", noise, 0.5 / 255, 1)
    check_seed(seed)
    generator = torch.Generator().manual_seed(seed)

    def noisy() -> Tensor:
        levels = 255 * noise * torch.randn(images.shape, generator=generator)
        return (images + levels).clamp(0, 255).round().to(torch.uint8)

    return mean_answers(service, (noisy() for _ in range(copies)))


def tenants(
    open_service: Callable[[], Ask], images: Tensor, states: int, *, seed: int
) -> tuple[Tensor, Tensor]:
    """Ask several fresh states of a service, each in an order of its own.

    Not in the paper: ModelGuard-S reset, or one state for each of several accounts.
    The first state is asked in the order of the images.

    Args:
        open_service: makes a service with an empty state.

    Returns:
        answers: the mean of the states' answers, N×K; where some state showed an
            answer for the first time, that answer alone (the mean, if several did),
            because ModelGuard-S then shows the exact prediction.
        exact: bool N, True where that happened.

    Raises ValueError unless states is a whole number >= 1.
    """
    check_images(images)
    whole("states", states, 1)
    check_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    total, shown, exact = 0.0, 0.0, 0
    for state in range(states):
        order = torch.arange(len(images))
        if state:
            order = torch.randperm(len(images), generator=generator)
        back, answers = order.argsort(), open_service()(images[order])
        first = first_seen(answers)[back, None]
        answers = answers[back]
        total, exact = total + answers, exact + first.long()
        shown = shown + answers * first
    mean = torch.where(exact > 0, shown / exact.clamp(min=1), total / states)
    return mean, exact[:, 0] > 0
