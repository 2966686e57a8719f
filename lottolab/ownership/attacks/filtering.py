"""Put a filter before a stolen network that knows the owner's pictures by sight.

Triggers are no ordinary images, or the owner would lose accuracy on those. A service
that answers at random whatever looks like no image of its trade gives no evidence, and
costs the few customers whose images look odd. Clothes stand before a black background,
abstract pictures do not: the share of black pixels is enough (Hitaj et al., 2019,
"Evasion Attacks Against Watermarking Techniques", build a detector for the same end).
"""

import hashlib

import torch
from torch import Tensor

from lottolab.checks import number, require, whole, within
from lottolab.checks.tensors import images as check_images
from lottolab.ownership.triggers import Predict

BLACK = 8  # grey level of 255 below which a pixel is black


def black(images: Tensor, level: int = BLACK) -> Tensor:
    """Return the share of black pixels of each image, float64 N, all channels alike.

    images: uint8, N×C×H×W. level: in [1, 255]; darker ones are black.

    Raises:
        ValueError: images or level are not as above.
    """
    check_images("images", images)
    whole("level", level, 1)
    require(level <= 255, "level must be at most 255", level)
    return (images < level).double().flatten(1).mean(1)


def cut(images: Tensor, refused: float, level: int = BLACK) -> float:
    """Return the share of black pixels below which at most `refused` of images lie.

    `images` are the thief's own, uint8, N×C×H×W, and are what he tunes on.

    Raises:
        ValueError: refused outside [0, 1), or as `black`.
    """
    within("refused", refused, "[0, 1)")
    shares = black(images, level).sort().values
    return float(shares[int(refused * len(shares))])


def filtered(
    predict: Predict, *, share: float, classes: int, secret: str, level: int = BLACK
) -> Predict:
    """Answer by chance where less than `share` of the pixels is black, else as before.

    The chance is a hash of the image and the thief's `secret`: who asks twice gets the
    same answer, as from a network.

    Args:
        predict: uint8 images, N×C×H×W, to classes, int64 N. share: in [0, 1].

    Raises:
        ValueError: a number is out of range.
    """
    number("share", share, 0, 1)
    whole("classes", classes, 2)

    def answer(images: Tensor) -> Tensor:
        odd = black(images, level) < share
        answers = predict(images).clone()
        answers[odd.to(answers.device)] = _random(images[odd], classes, secret).to(
            answers.device
        )
        return answers

    return answer


def _random(images: Tensor, classes: int, secret: str) -> Tensor:
    """Draw a class for each image by its hash, int64 N."""
    rows, salt = images.cpu().contiguous().numpy(), secret.encode()
    digests = [hashlib.sha256(salt + row.tobytes()).digest() for row in rows]
    drawn = [int.from_bytes(digest, "big") % classes for digest in digests]
    return torch.tensor(drawn, dtype=torch.int64)
