"""Make canaries: examples that an auditor puts into a training set, or not.

Nasr et al. (2023), "Tight auditing of differentially private machine learning",
USENIX Security, tell them apart by what they need. *Gradient* canaries are the
strongest that the guarantee covers: DP-SGD promises to hide any gradient of the norm
`clip`, and the one that is easiest to see is a Dirac, which moves one weight that no
other example moves. *Input* canaries are images with labels, which show what a training
set could hold.
"""

import numpy as np
import torch
from scipy import optimize, stats
from torch import Tensor, nn

from lottolab.checks import check_seed, require, tensors, whole, within

PIXELS = 64  # that carry the code of a canary
FEWEST = 24  # of them, below which the codes of a few thousand would meet
FAR = 1000.0  # how far a canary's logit starts below the others'
STEEP = 10.0  # its slope; the norm of a canary's gradient before clipping
Examples = tuple[Tensor, Tensor]  # images and labels


def coins(count: int, seed: int) -> Tensor:
    """Toss a fair coin for each canary: bool[count], True for present.

    Raises ValueError unless `count` >= 1, or for a bad seed.
    """
    whole("count", count, 1)
    check_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, generator=generator) < 0.5


class Trapdoor(nn.Module):
    """Wrap a network so that a canary's gradient is a Dirac, as large as `clip` allows.

    Each canary is an image with a code in its first pixels. The wrapper knows it by
    that, and answers it with logits that one weight of the canary's own sets, with a
    slope of 10 and far from where the cross-entropy is flat: its gradient has the norm
    10 and touches no other weight. All else passes through to `network`, whose
    gradients touch no canary's weight. So any trainer (`dp_train` as it is, with
    Opacus' clipping and noise) is audited on the strongest canaries that there are,
    and at no cost to what the network learns.

    An absent canary leaves an *empty* place, whose gradient is 0. Thus number of
    examples, rate, steps and expected batch are the same whatever the coins say, and
    neighbours differ as add/remove wants it: in one example's summand alone.

    Args:
        network: maps float32 B×C×H×W to logits, as `dp_train` asks.
        canaries: >= 1. shape: (C, H, W) of the images, 24 pixels or more.
        mean_std: what the trainer normalises with; it must be given to it too.
        seed: of the codes.

    Raises ValueError for anything else.
    """

    def __init__(
        self,
        network: nn.Module,
        canaries: int,
        shape: tuple[int, int, int],
        mean_std: tuple[Tensor, Tensor],
        seed: int = 0,
    ) -> None:
        super().__init__()
        whole("canaries", canaries, 1)
        check_seed(seed)
        tensors.scale(mean_std)
        right = len(shape) == 3 and torch.Size(shape).numel() >= FEWEST
        require(right, f"shape must be C×H×W of {FEWEST} pixels or more", shape)
        self.network, self.shape = network, tuple(shape)
        self.used = min(PIXELS, torch.Size(shape).numel())
        generator = torch.Generator().manual_seed(seed)
        bits = torch.rand(canaries + 1, self.used, generator=generator) < 0.5
        apart = len(bits.unique(dim=0)) == len(bits)
        require(apart, "shape must have more pixels, that codes differ", shape)
        self.weight = nn.Parameter(torch.zeros(canaries))
        self.register_buffer("codes", 2 * bits.float() - 1)
        for name, part in zip(("mean", "std"), mean_std, strict=True):
            self.register_buffer(name, part.float().view(-1, 1, 1).clone())

    def forward(self, x: Tensor) -> Tensor:
        pixels = (x * self.std + self.mean).flatten(1)[:, : self.used]
        signs = torch.where(pixels > 0.5, 1.0, -1.0)
        # 1 where all pixels agree, else 0: one that does not costs 2.
        known = (signs @ self.codes.T - (self.used - 1)).relu()
        logits = self.network(x) * (1 - known.sum(1, keepdim=True))
        mine = known[:, :-1]
        level = STEEP * (mine @ self.weight) - FAR * mine.sum(1)
        return torch.cat([logits[:, :1] + level[:, None], logits[:, 1:]], 1)

    def examples(self, present: Tensor) -> Examples:
        """Return the canaries' images, uint8 m×C×H×W, and labels, int64[m], all 0.

        `present` is bool[m]; those that are not get the empty place's image.
        """
        count = len(self.weight)
        tensors.tensor("present", present)
        right = present.dtype == torch.bool and present.shape == (count,)
        what = f"present must be bool of shape [{count}]"
        require(right, what, tensors.described(present))
        which = torch.where(present, torch.arange(count), count)
        codes = self.codes.cpu()[which] > 0
        images = torch.zeros(count, torch.Size(self.shape).numel(), dtype=torch.uint8)
        images[:, : self.used] = 255 * codes.to(torch.uint8)
        labels = torch.zeros(count, dtype=torch.int64)
        return images.view(-1, *self.shape), labels

    def scores(self) -> Tensor:
        """Return how far each canary's weight has gone its way, float64[m].

        With plain SGD it is lr / batch times the sum of what every step released in
        that coordinate: `clip` whenever the canary was drawn, and the noise.
        """
        return self.weight.detach().cpu().double()


def expected_right(sigma: float, rate: float, steps: int, share: float) -> float:
    """Return the share of guesses that is right of `Trapdoor.scores`, in expectation.

    A present canary's score is its number of draws and noise, N(0, σ² · steps), an
    absent one's the noise alone. Of many canaries, half of them present, the largest
    scores are guessed in and as many of the smallest out, a `share` of all together.

    Args:
        sigma: > 0, the noise's deviation in units of `clip`. rate: of a batch, in
            (0, 1]. steps: >= 1. share: in (0, 1].

    Raises ValueError for anything else.

    >>> [round(expected_right(s, 0.5, 50, 0.9), 3) for s in (1e-3, 1e6)]
    [1.0, 0.5]
    """
    within("sigma", sigma, "(0, inf)")
    within("rate", rate, "(0, 1]")
    whole("steps", steps, 1)
    within("share", share, "(0, 1]")
    deviation = sigma * steps**0.5
    drawn = np.arange(steps + 1)
    chance = stats.binom.pmf(drawn, steps, rate)

    def below(x: float) -> tuple[float, float]:  # of those that are in, and out
        return (
            float(chance @ stats.norm.cdf((x - drawn) / deviation)),
            float(stats.norm.cdf(x / deviation)),
        )

    ends = (-9.0 * deviation, steps + 9.0 * deviation)

    def quantile(part: float) -> float:
        return optimize.brentq(lambda x: sum(below(x)) / 2 - part, *ends)

    out = below(quantile(share / 2))[1]
    wrongly = below(quantile(1 - share / 2))[0]
    return float(round((out + 1 - wrongly) / (2 * share), 12))


def mislabelled(images: Tensor, labels: Tensor, classes: int, seed: int) -> Examples:
    """Return the images with other labels than theirs, uniform among all others.

    Args:
        images: uint8, N×C×H×W. labels: int64[N] in [0, classes). classes: >= 2.
        seed: of the labels.

    Raises ValueError for anything else.
    """
    tensors.images("images", images)
    whole("classes", classes, 2)
    tensors.labels("labels", labels, len(images), classes)
    check_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    shift = torch.randint(1, classes, labels.shape, generator=generator)
    return images, (labels + shift.to(labels.device)) % classes


def distinctive(
    count: int, shape: tuple[int, int, int], classes: int, seed: int
) -> Examples:
    """Return images that no photograph looks like: each pixel 0 or 255, by a coin.

    Two of them agree in half of the pixels, so that none says anything about another;
    what a network learns of one, it has learned by heart.

    Args:
        count: >= 1. shape: (C, H, W). classes: >= 2, of which the labels are drawn.

    Returns uint8, count×C×H×W, and int64[count].
    """
    whole("count", count, 1)
    whole("classes", classes, 2)
    check_seed(seed)
    right = len(shape) == 3 and min(shape) > 0
    require(right, "shape must be C×H×W, each >= 1", shape)
    generator = torch.Generator().manual_seed(seed)
    bits = torch.randint(2, (count, *shape), generator=generator)
    labels = torch.randint(classes, (count,), generator=generator)
    return (255 * bits).to(torch.uint8), labels
