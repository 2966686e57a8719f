"""Ask a prediction service: which images, how often, and what the answers are.

A *service* is a callable `service(images) -> answers`: uint8 N×C×H×W to float N×K, a
row of probabilities an image, after the defence. A defence may return rows that do not
sum to 1, as Rounding does. Query strategies: KnockoffNet (random) and JBDA-TR; paper,
section 4.1 and appendix B.1.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lottolab.checks import check_seed, require, tensors, whole
from lottolab.checks.taking import floats
from lottolab.images.batches import normalise
from lottolab.jobs.steps import by_row
from lottolab.nets import predict

Ask = Callable[[Tensor], Tensor]
Defence = Callable[[Tensor, Tensor | None], Tensor]
BATCH = 500


@dataclass
class Service:
    """Answer queries by a network behind a defence, and count the images.

    model: images to logits. mean_std: of the model's own training images.
    defence: `defence(probabilities, images)`, or None for the clean predictions.
    asked: images answered so far; a repeated image counts again.
    """

    model: nn.Module
    mean_std: tuple[Tensor, Tensor]
    defence: Defence | None = None
    asked: int = 0

    def __call__(self, images: Tensor) -> Tensor:
        """Return an answer an image, in this order, in float32 on the CPU."""
        check_images(images)
        clean = predict.logits(self.model, images, self.mean_std).softmax(1)
        self.asked += len(images)
        return self.defence(clean, images) if self.defence else clean


def check_images(images: Tensor) -> None:
    """Raise ValueError unless `images` are uint8 of shape N×C×H×W with N >= 1."""
    tensors.images("images", images)


def checked(answers: Tensor, count: int | None = None) -> Tensor:
    """Return answers as float32 without gradient, which the attacks compute in.

    Raises ValueError unless they are N×K with N >= 1 and K >= 2, finite and not
    negative, and `count` of them if that is given.
    """
    inexact = not isinstance(answers, Tensor) or answers.is_floating_point()
    given, answers = answers, floats("answers", answers)
    shape = list(answers.shape)
    right = inexact and answers.ndim == 2 and shape[0] >= 1 and shape[1] >= 2
    what = "answers must be float [N, classes] with N >= 1 and classes >= 2"
    require(right, what, tensors.described(given))
    same = count is None or shape[0] == count
    require(same, f"answers must be {count}, one an image", shape[0])
    odd = answers[~(answers.isfinite() & (answers >= 0))]
    require(len(odd) == 0, "answers must be finite and >= 0", odd[:1].tolist())
    return answers.float()


def knockoff(pool: int, budget: int, *, seed: int) -> Tensor:
    """Choose `budget` of `pool` public images at random; int64 places, all different.

    KnockoffNet with its random strategy. A smaller budget gives the first of a
    larger one's places.

    Raises ValueError unless 1 <= budget <= pool.

    >>> knockoff(5, 5, seed=0).sort().values
    tensor([0, 1, 2, 3, 4])
    """
    whole("pool", pool, 1)
    whole("budget", budget, 1)
    require(budget <= pool, f"budget must be at most the pool, {pool} images", budget)
    return torch.randperm(pool, generator=_generator(seed))[:budget]


def jbda(
    service: Ask,
    images: Tensor,
    budget: int,
    train: Callable[[Tensor, Tensor], nn.Module],
    *,
    mean_std: tuple[Tensor, Tensor],
    copies: int = 3,
    epsilon: float = 0.1,
    steps: int = 8,
    step: float | None = None,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """Grow a query set from a few images by JBDA-TR (Juuti et al., 2019).

    Each round trains a fresh substitute on all that is known and moves `copies` copies
    of every image, old and synthetic, towards random classes; only these are asked
    for. In the last round all images get as many copies as the budget allows, to
    within one.

    Args:
        images: uint8 N×C×H×W, the seeds (1,000 in the paper).
        budget: images at the end, and queries in all; the paper leaves it blank.
        train: `train(images, answers)` -> a new substitute, images to logits.
        mean_std: for normalisation, those that `train` uses.
        epsilon, steps, step: see `perturbed`.

    Returns:
        The images, uint8 [budget, C, H, W], seeds first, and their answers.

    Raises:
        ValueError: a setting is out of range or the budget below the number of seeds.
    """
    check_images(images)
    whole("copies", copies, 1)
    whole("budget", budget, len(images))
    generator, answers = _generator(seed), service(images)
    moves = {"epsilon": epsilon, "steps": steps, "step": step, "generator": generator}
    while len(images) < budget:
        model = train(images, answers)
        origin = images.repeat(copies, 1, 1, 1)[: budget - len(images)]
        fresh = perturbed(model, origin, answers.shape[1], mean_std, **moves)
        images = torch.cat([images, fresh])
        answers = torch.cat([answers, service(fresh)])
    return images, answers


@by_row
def perturbed(
    model: nn.Module,
    images: Tensor,
    classes: int,
    mean_std: tuple[Tensor, Tensor],
    *,
    epsilon: float = 0.1,
    steps: int = 8,
    step: float | None = None,
    generator: torch.Generator,
) -> Tensor:
    """Move images towards random classes by I-FGSM; returns uint8, as given.

    At every step each image gets a new target, uniform over the classes, and moves by
    `step` (1.85 · epsilon / steps if None) against the sign of the gradient of the
    target's cross-entropy. Sizes are in pixel values of [0, 1]: the result is within
    `epsilon` of the image in ℓ∞, rounded down to whole levels of 255, and within
    [0, 1]. The authors' public code clips the normalised input to [0, 1] instead,
    which cuts away most of an image.

    Raises ValueError for sizes that are not positive or a radius below one level.
    """
    whole("steps", steps, 1)
    radius = math.floor(255 * epsilon) if 0 < epsilon <= 1 else 0
    require(radius >= 1, "epsilon must be in [1/255, 1]", epsilon)
    length = 255 * (1.85 * epsilon / steps if step is None else step)
    require(0 < length < math.inf, "step must be > 0 and finite", step)
    device = next(model.parameters()).device
    mean, std = (part.to(device) for part in mean_std)
    targets = torch.randint(classes, (len(images), steps), generator=generator)
    model.eval()
    parts = []
    for clean, goal in zip(images.split(BATCH), targets.split(BATCH), strict=True):
        clean, goal = clean.to(device).float(), goal.to(device)
        low, high = (clean - radius).clamp(min=0), (clean + radius).clamp(max=255)
        x = clean
        for target in goal.unbind(1):
            x = x.detach().requires_grad_()
            logits = model(normalise(x, mean, std)).float()
            value = F.cross_entropy(logits, target, reduction="sum")
            (gradient,) = torch.autograd.grad(value, x)
            x = (x - length * gradient.sign()).clamp(low, high)
        parts.append(x.detach().round().to(torch.uint8).cpu())
    return torch.cat(parts)


def _generator(seed: int) -> torch.Generator:
    check_seed(seed)
    return torch.Generator().manual_seed(seed)
