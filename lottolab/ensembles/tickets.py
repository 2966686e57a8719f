"""Robust scratch tickets: subnetworks of a random network, robust without training it.

Fu et al. (2021), "Drawing robust scratch tickets"; Peng et al. (2022), Equation 2. The
weights stay as they were drawn. What is trained, adversarially, is a score a weight; of
each layer the weights with the largest |score| are kept, and the gradient passes
straight through that choice. A ratio is the share of weights that REMAINS, in (0, 1].

Of Fu et al.'s code this keeps: the same ratio in every layer; signed constants as
weights; batch norm without scale and shift. It mends that crafting an adversarial
example also moved the running statistics.
"""

import copy
from dataclasses import dataclass

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from lottolab.checks import check_seed, number, require, tensors, whole, within
from lottolab.ensembles.attacks.gradient import climb, gradient
from lottolab.ensembles.queries import Normalised, ball, frozen, uniform, unmoved
from lottolab.images import datasets
from lottolab.nets import masks as masking
from lottolab.nets import models, train

Scale = tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class Ticket:
    """Hold what a subnetwork has of its own, on the CPU.

    masks: by state-dict name, bool, True = kept.
    statistics: running mean and variance of each batch norm, by state-dict name.
    """

    masks: masking.Masks
    statistics: dict[str, Tensor]


def scratch(
    network: dict, *, channels: int, classes: int, size: int = 32, seed: int
) -> nn.Module:
    """Build a random network; all tickets of a structure share it, none trains it.

    Weights are ±√2 / √fan-in, with fair signs (Ramanujan et al., 2020), biases 0, batch
    norm has no scale and shift. The constant is not divided by the root of the ratio,
    so that one copy serves all ratios; it matters to the logits alone, because batch
    norm takes it out of the convolutions. `network` holds arguments of `models.build`,
    the rest is passed on.
    """
    require(
        isinstance(network, dict) and "name" in network,
        "network must be a dict with a name (see models.build)",
        network,
    )
    shape = {"channels": channels, "classes": classes, "size": size}
    model = models.build(**network, **shape, seed=seed).requires_grad_(False)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.affine, module.weight, module.bias = False, None, None
        elif isinstance(module, nn.Conv2d | nn.Linear):
            size = (2 / module.weight[0].numel()) ** 0.5
            module.weight.copy_(torch.where(module.weight < 0, -size, size))
            if module.bias is not None:
                module.bias.zero_()
    return model


def find_ticket(
    frame: nn.Module,
    images: Tensor,
    labels: Tensor,
    recipe: train.Recipe,
    *,
    ratio: float,
    epsilon: float,
    step: float,
    steps: int = 1,
    seed: int,
    mean_std: Scale | None = None,
    **options,
) -> tuple[Ticket, pd.DataFrame]:
    """Search a robust subnetwork of `frame`, which stays as it is.

    A killed search goes on at its last whole epoch, with the same bits.

    Args:
        frame: a network of `scratch`.
        images: uint8, N×C×H×W. labels: int64, N.
        recipe: for the scores. The gradient of a score is small: Fu et al. take a rate
            of 0.1 for 160 epochs; for few epochs 1.0 is better.
        ratio: share of each layer's weights that is kept, in (0, 1].
        epsilon, step, steps: of the attack on the training images, see `adversarial`.
        seed: of the scores' start, the order, the augmentation and the attacks' starts.
        mean_std: for normalisation; of `images` if None.
        options: `checkpoint`, `device`, `precision`, `stop` … of `train.fit`.

    Returns:
        The ticket, and the history of `train.fit`.

    Raises:
        ValueError: anything is not as above, or `train.fit`'s.
    """
    scored = Scored(frame, ratio, seed)
    options |= {"epsilon": epsilon, "step": step, "steps": steps}
    options |= {"seed": seed, "mean_std": mean_std}
    fitted = adversarial_fit(scored, images, labels, recipe, **options)
    return scored.ticket(), fitted.history


def adversarial_fit(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    recipe: train.Recipe,
    *,
    epsilon: float,
    step: float,
    steps: int,
    seed: int,
    mean_std: Scale | None = None,
    **options,
) -> train.Fit:
    """Train a network, in place, on adversarial examples: the dense baseline.

    Madry et al. (2018); with one step, Wong et al. (2020). `network` takes normalised
    images; the names in `rewind` and `masks` get the prefix "model.". Arguments and
    errors are those of `find_ticket`.
    """
    require(
        not torch.is_inference_mode_enabled(),
        "training must be outside of torch.inference_mode()",
        "inside",
    )
    tensors.images("images", images)
    tensors.given_scale(mean_std)
    scale = mean_std or datasets.normalisation(images)
    require(
        len(scale[0]) in (1, images.shape[1]),
        f"mean_std must have the {images.shape[1]} channels of images",
        len(scale[0]),
    )
    pixels = torch.zeros_like(scale[0]), torch.ones_like(scale[1])
    options |= {"loss": adversarial(epsilon=epsilon, step=step, steps=steps)}
    options |= {"seed": seed, "mean_std": pixels}
    return train.fit(Normalised(network, scale), images, labels, recipe, **options)


def adversarial(*, epsilon: float, step: float, steps: int) -> train.Loss:
    """Return a loss for `train.fit`: the cross-entropy of adversarial examples.

    They are made as `pgd` makes them, from a random start, but with the network in
    training mode; that leaves the running statistics alone, which move once, when the
    network learns from the examples. Images must come in [0, 1]. The papers take
    ε = 8/255 with 7 steps of 2/255; one step of 1.25 ε costs a quarter of that. ε = 0
    is training without an attack: the images as they are, for one question a batch.

    Raises ValueError for ε outside [0, 1], a step below 0, or no steps.
    """
    within("epsilon", epsilon, "[0, 1]")
    number("step", step, 0)
    whole("steps", steps, 1)

    def loss(model: nn.Module, x: Tensor, y: Tensor, index: Tensor) -> Tensor:
        def ascent(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            return gradient(model, x, y, loss="ce", eot=1, over="losses")

        x = x.clamp(0, 1)  # 255 × (1 / 255) may be rounded up
        if epsilon == 0:
            return F.cross_entropy(model(x), y)
        # The start is drawn from the global generator, which `train.fit` has seeded.
        start, box = x + uniform(x, epsilon, None), ball(x, epsilon)
        with frozen(model), unmoved(model):
            x = climb(ascent, start, y, *box, step, steps, batch=len(x))
        return F.cross_entropy(model(x), y)

    return loss


class Scored(nn.Module):
    """Hold a frozen network and a score for each weight; answer as the subnetwork.

    Scores start as Fu et al. start them, uniform in ±1 / √fan-in.
    """

    def __init__(self, frame: nn.Module, ratio: float, seed: int) -> None:
        super().__init__()
        within("ratio", ratio, "(0, 1]")
        check_seed(seed)
        tensors.network(frame)
        self.frame = copy.deepcopy(frame).requires_grad_(False)
        self.names = masking.prunable(frame, first=True, last=True)
        left = [n for n, p in frame.named_parameters() if p.ndim > 1]
        left = [name for name in left if name not in self.names]
        what = "frame must hold weights in Conv2d and Linear layers alone"
        require(not left, what, ", ".join(left))
        weights, generator = frame.state_dict(), torch.Generator().manual_seed(seed)
        shapes = [weights[name].shape for name in self.names]
        drawn = [2 * torch.rand(shape, generator=generator) - 1 for shape in shapes]
        self.scores = nn.ParameterList(s / s[0].numel() ** 0.5 for s in drawn)
        self.counts = [kept(score.numel(), ratio) for score in self.scores]

    def forward(self, x: Tensor) -> Tensor:
        weights = {
            name: self.frame.get_parameter(name) * choose(score, count)
            for name, score, count in zip(
                self.names, self.scores, self.counts, strict=True
            )
        }
        return functional_call(self.frame, weights, (x,))

    @torch.no_grad()
    def ticket(self) -> Ticket:
        """Return the subnetwork that the scores choose now."""
        pairs = zip(self.scores, self.counts, strict=True)
        chosen = [choose(score, count).bool().cpu() for score, count in pairs]
        state = {k: v.cpu().clone() for k, v in self.frame.state_dict().items()}
        moments = {k: v for k, v in state.items() if "running_" in k}
        return Ticket(dict(zip(self.names, chosen, strict=True)), moments)


def kept(size: int, ratio: float) -> int:
    """Return how many of `size` weights remain: the nearest number, at least one.

    >>> kept(100, 0.07)
    7
    """
    return max(1, round(ratio * size))


def choose(score: Tensor, count: int) -> Tensor:
    """Mark the `count` largest |score| with 1, the rest with 0; float, as `score`.

    Backward, the mark counts as |score| itself: the gradient is multiplied by the
    score's sign (Ramanujan et al., 2020, "What's hidden in a randomly weighted neural
    network?", equation 5, there for scores that are positive).
    """
    size = score.abs()
    places = size.detach().flatten().topk(count, sorted=False).indices
    mark = torch.zeros(score.numel(), dtype=score.dtype, device=score.device)
    mark = mark.scatter(0, places, 1).view(score.shape)
    return mark + (size - size.detach())
