"""Simulate how often intervals hold: the book's designs, with the truth known.

A *setting* says how a pool of images and the models that share it come about. The
signal of model m on image i, the log-odds of its label, is

    x = h + a + exp(c + d) s t + e,

with h how easy the image is, a and c the model's luck (that of a pair included), s how
much membership shows in this image, 1 or 0 as t says, and e noise whose spread is the
image's own. Everything is drawn anew for each pool. The settings are chosen so that
LiRA's AUC and TPRs, and their spread over the models of a pool, are those of the dense
network of chapter 2 on clothes and on photographs (`data/results/membership`), and two
more: networks that leak nothing, and networks that differ more than ours do.

The truth is the mean over all simulated pools: what a design measures on average.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lottolab.checks import one_of, require, whole


@dataclass(frozen=True)
class Setting:
    """Say how models and images differ.

    Args:
        shape: of the gamma distribution of how much membership shows.
        scale: of the same; 0 where nothing leaks.
        noise: standard deviation of the logarithm of an image's spread.
        luck: standard deviation of c, for pairs and for models each.
        level: standard deviation of a.
    """

    shape: float
    scale: float
    noise: float
    luck: float
    level: float = 0.2


SETTINGS = {
    "clothes": Setting(shape=0.7, scale=2.2, noise=0.45, luck=0.01),
    "photographs": Setting(shape=4.0, scale=1.6, noise=0.65, luck=0.01),
    "no leak": Setting(shape=1.0, scale=0.0, noise=0.45, luck=0.0),
    "unlike networks": Setting(shape=0.7, scale=2.2, noise=0.45, luck=0.1),
}


@dataclass(frozen=True)
class Pool:
    """Hold the signals of two families on one pool, float64 [models, images] each.

    The families have the same members, bool [models, images]: the dense networks and
    their tickets, of which an image shows up to 5 % less.
    """

    first: np.ndarray
    second: np.ndarray
    member: np.ndarray


def pools(
    setting: str, count: int, seed: int, models: int = 16, images: int = 4200
) -> Iterator[Pool]:
    """Draw independent pools of a setting; models 2k and 2k + 1 share their luck.

    Raises ValueError for an unknown setting, or an odd number or fewer than
    six of models.
    """
    one_of("the setting", setting, SETTINGS)
    whole("models", models, 6)
    require(models % 2 == 0, "models must be even", models)
    how, random = SETTINGS[setting], np.random.default_rng(seed)
    for _ in range(count):
        easy = random.normal(0, 3, images)
        shows = random.gamma(how.shape, how.scale, images)
        spread = np.exp(random.normal(0, how.noise, images))
        half = random.random((models // 2, images)).argsort(1) < images // 2
        member = np.stack([half, ~half], 1).reshape(models, images)
        found = []
        for share in (1.0, 0.95):
            luck = random.normal(0, how.luck, models)
            luck += random.normal(0, how.luck, models // 2).repeat(2)
            own = share * shows * np.exp(random.normal(0, 0.3, images))
            x = easy + random.normal(0, how.level, models)[:, None]
            x += np.exp(luck)[:, None] * own * member
            found.append(x + spread * random.normal(size=(models, images)))
        yield Pool(*found, member)


def scored(signals: np.ndarray, member: np.ndarray) -> np.ndarray:
    """Score each model by the others but its partner, as chapter 2's LiRA does.

    Online, with one variance for all images (Carlini et al., 2022): float64 [models,
    images] of both. Every image must be a member of one model of each pair.
    """
    pairs, images = len(signals) // 2, signals.shape[1]

    def fitted(side: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        one = np.where(side, signals, 0).reshape(pairs, 2, images).sum(1)
        mean = (one.sum(0) - one) / (pairs - 1)
        squares = np.square(one).sum(0) - np.square(one) - (pairs - 1) * mean**2
        variance = squares.sum(1, keepdims=True) / (images * (pairs - 2))
        return mean.repeat(2, 0), variance.repeat(2, 0)

    (inside, v_in), (outside, v_out) = fitted(member), fitted(~member)
    ratio = (signals - outside) ** 2 / v_out - (signals - inside) ** 2 / v_in
    return (ratio + np.log(v_out / v_in)) / 2
