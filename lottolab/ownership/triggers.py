"""Scheme V3: recognise a network by its answers to secret pictures.

The owner also trains on some abstract pictures with secret labels (paper, section 3.4;
Adi et al., 2018). A service that returns nothing but classes is then enough to claim
the network. What a claim is worth depends on who chose the pictures, so two attacks
that choose them dishonestly stand here as well.
"""

import functools
import hashlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor, nn

from lottolab.checks import require, whole
from lottolab.images.batches import normalise
from lottolab.nets.predict import logits
from lottolab.nets.train import Loss
from lottolab.ownership import pictures
from lottolab.ownership.pictures import abstract
from lottolab.ownership.signatures.signature import ACCEPT
from lottolab.truth.rates import binomial_upper

Predict = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Triggers:
    """Pictures and the answers by which an owner recognises a network.

    images: uint8, N×C×H×W, N >= 1. labels: int64, N, in [0, classes).

    Raises ValueError where a dtype, shape or label is not as above.
    """

    images: Tensor
    labels: Tensor
    classes: int

    def __post_init__(self) -> None:
        images = self.images
        right = images.dtype == torch.uint8 and images.ndim == 4 and len(images) > 0
        given = f"{images.dtype} {tuple(images.shape)}"
        require(right, "images must be uint8 of shape N×C×H×W, N >= 1", given)
        whole("classes", self.classes, 2)
        _check_classes("labels", self.labels, len(images), self.classes)


@dataclass(frozen=True)
class TriggerVerification:
    """What a network's answers to the triggers prove.

    correct: how many of the `total` triggers are answered with their label;
    agreement: their share. The rest: see `verify_triggers`.
    """

    agreement: float
    correct: int
    total: int
    p_value: float
    p_unmarked: float
    accepted: bool


@functools.lru_cache(maxsize=8, typed=True)  # typed: 2.0 must not pass for 2
def draw(
    count: int, *, classes: int, channels: int, size: int, secret: str
) -> Triggers:
    """Draw `count` abstract pictures and their labels from the owner's secret.

    Kept for the next call: do not write to the tensors. Raises ValueError as `abstract`
    and `secret_labels` do.
    """
    labels = secret_labels(count, classes=classes, secret=secret)
    seed = int.from_bytes(_stream("pictures", secret, 16), "big")
    images = abstract(count, channels=channels, size=size, seed=seed)
    return Triggers(images, labels, classes)


def from_folder(
    path: str | Path, *, classes: int, channels: int, size: int, secret: str
) -> Triggers:
    """Make triggers of the owner's own pictures, sorted by name; labels as in `draw`.

    Raises ValueError as `pictures.from_folder` and `secret_labels` do.
    """
    images = pictures.from_folder(path, channels=channels, size=size)
    labels = secret_labels(len(images), classes=classes, secret=secret)
    return Triggers(images, labels, classes)


def secret_labels(count: int, *, classes: int, secret: str) -> Tensor:
    """Draw labels from the secret, independent and uniform; int64, count.

    Not balanced: only so does a network that knows nothing of the secret agree with
    each by chance 1/classes (to classes / 2⁶⁴), whatever it answers. The first labels
    do not change with `count`.

    Raises ValueError for count < 1, classes < 2 or a secret that is not hexadecimal.
    """
    whole("count", count, 1)
    whole("classes", classes, 2)
    words = np.frombuffer(_stream("labels", secret, 8 * count), dtype="<u8")
    return torch.from_numpy((words % np.uint64(classes)).astype(np.int64))


def with_triggers(
    triggers: Triggers, mean_std: tuple[Tensor, Tensor], per_batch: int
) -> Loss:
    """Return a loss for `train.fit`: cross-entropy of a batch and some triggers.

    Each step appends `per_batch` different triggers to the batch (the paper: one),
    neither cropped nor flipped, so that batch norm sees both together. They are drawn
    with torch's global generator, which `fit` seeds for each epoch. `mean_std` must be
    those that `fit` normalises its images with.

    Raises ValueError where per_batch is not in [1, N], or mean_std or, when called, the
    batch does not fit the triggers' shape.
    """
    count, *shape = triggers.images.shape
    whole("per_batch", per_batch, 1)
    require(per_batch <= count, f"per_batch must be at most {count}", per_batch)
    lengths = [len(part) for part in mean_std]
    require(lengths == shape[:1] * 2, f"mean_std must be {shape[0]} each", lengths)
    known = normalise(triggers.images, *mean_std)

    def loss(model: nn.Module, x: Tensor, y: Tensor, index: Tensor) -> Tensor:
        given = list(x.shape[1:])
        require(given == shape, f"the batch's images must be of shape {shape}", given)
        drawn = torch.randperm(count)[:per_batch]
        x = torch.cat([x, known[drawn].to(x.device)])
        y = torch.cat([y, triggers.labels[drawn].to(y.device)])
        x = x.contiguous(memory_format=torch.channels_last)
        return F.cross_entropy(model(x), y)

    return loss


def predictor(model: nn.Module, mean_std: tuple[Tensor, Tensor]) -> Predict:
    """Make a service of a network: uint8 images, N×C×H×W, to classes, int64 N.

    `mean_std` are those of its training images. Asking puts it in evaluation mode.
    """
    return lambda images: logits(model, images, mean_std).argmax(1)


def verify_triggers(
    predict: Predict, triggers: Triggers, *, unmarked: Iterable[Predict] = ()
) -> TriggerVerification:
    """Decide by its answers alone whether a network was trained on the triggers.

    `p_value` is the binomial tail at chance 1/classes. It is exact if neither network
    nor pictures depend on the secret labels, and void if any of them was chosen to
    make them agree: who has tried m secrets must multiply it by m.

    `unmarked` are networks known to be independent of the claimant. Triggers that they
    answer "correctly" are no evidence: `p_unmarked` is the tail at the largest upper
    bound (95 %, Clopper and Pearson) of their own agreement, NaN without them. It takes
    one network's answers for independent, so it is a guard and no exact p-value.

    `accepted`: p_value, and with `unmarked` also p_unmarked, is below `ACCEPT`. Raises
    ValueError unless all answers are int64, N, in [0, classes).
    """
    total, correct = len(triggers.labels), _correct(predict, triggers)
    p_value = float(stats.binom.sf(correct - 1, total, 1 / triggers.classes))
    others = [_correct(other, triggers) for other in unmarked]
    rate = max((binomial_upper(agree, total) for agree in others), default=math.nan)
    p_unmarked = float(stats.binom.sf(correct - 1, total, rate))
    accepted = p_value < ACCEPT and (not others or p_unmarked < ACCEPT)
    counts = correct / total, correct, total
    return TriggerVerification(*counts, p_value, p_unmarked, accepted)


def forge(predict: Predict, images: Tensor, *, classes: int) -> Triggers:
    """Label pictures with a network's own answers: evidence after the fact.

    The plainest ambiguity attack: the network agrees with all, and the p-value is void.
    The labels, which no secret gives, betray it. Raises ValueError as `Triggers` does.
    """
    return Triggers(images, predict(images), classes)


def accuse(
    model: nn.Module,
    triggers: Triggers,
    mean_std: tuple[Tensor, Tensor],
    *,
    epsilon: int,
    steps: int,
    step_size: float,
) -> Triggers:
    """Change the pictures until a network of one's own answers them with their labels.

    The malicious accuser (Liu et al., 2024): the labels come from a secret as they
    should, but the pictures are targeted adversarial examples, which transfer to
    networks that he never touched. Projected gradient descent on the model, which is
    put in evaluation mode. In grey levels of 255, `epsilon` in [1, 255] is a pixel's
    largest change, and `step_size` > 0 its change in a step.

    Raises ValueError for a number that is out of range.
    """
    whole("epsilon", epsilon, 1)
    require(epsilon <= 255, "epsilon must be at most 255 grey levels", epsilon)
    whole("steps", steps, 1)
    right = 0 < step_size < math.inf
    require(right, "step_size must be > 0 and finite, in grey levels", step_size)
    device = next(model.parameters()).device
    mean, std = (part.to(device) for part in mean_std)
    x, labels = triggers.images.to(device).float(), triggers.labels.to(device)
    low, high = (x - epsilon).clamp_min(0), (x + epsilon).clamp_max(255)
    model.eval()
    for _ in range(steps):
        x.requires_grad_()
        output = model(normalise(x, mean, std))
        (slope,) = torch.autograd.grad(F.cross_entropy(output, labels), x)
        x = (x.detach() - step_size * slope.sign()).clamp(low, high)
    return Triggers(x.round().to(torch.uint8).cpu(), triggers.labels, triggers.classes)


def _stream(purpose: str, secret: str, size: int) -> bytes:
    """Return `size` bytes that only the secret gives, others for each purpose."""
    try:
        raw = bytes.fromhex(secret)
    except (TypeError, ValueError):
        raw = b""
    require(bool(raw), "secret must be hexadecimal, such as 64 digits", repr(secret))
    return hashlib.shake_256(f"lottolab {purpose}:".encode() + raw).digest(size)


def _correct(predict: Predict, triggers: Triggers) -> int:
    answers = predict(triggers.images)
    _check_classes("answers", answers, len(triggers.labels), triggers.classes)
    return int((answers.cpu() == triggers.labels).sum())


def _check_classes(name: str, given: Tensor, count: int, classes: int) -> None:
    form = getattr(given, "dtype", type(given)), tuple(getattr(given, "shape", ()))
    right = form == (torch.int64, (count,))
    require(right, f"{name} must be int64 of shape ({count},)", f"{form[0]} {form[1]}")
    low, high = int(given.min()), int(given.max())
    require(
        0 <= low <= high < classes, f"{name} must be in [0, {classes})", (low, high)
    )
