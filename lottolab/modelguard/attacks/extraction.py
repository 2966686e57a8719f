"""Train a substitute on what a prediction service answered.

The attacks of the paper differ in what they ask, in what they make of the answers and
in how they train on the result (appendix B.1):

- naive: `extract` on the answers. top1, s4l: the strategy of that name.
- smoothing, m-QPI: naive on `averaging.smoothed`, `averaging.repeated`.
- partial Bayes: naive on `bayes.recover_partial_bayes`.
- D-DAE, D-DAE+: naive on `restorer.restore`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lottolab.checks import one_of, require
from lottolab.images import datasets
from lottolab.modelguard.queries import check_images, checked
from lottolab.nets import models, train

ROTATIONS = 4


def extract(
    images: Tensor,
    answers: Tensor,
    network: dict,
    recipe: train.Recipe,
    *,
    strategy: str = "naive",
    loss: train.Loss = train.cross_entropy,
    seed: int,
    mean_std: tuple[Tensor, Tensor] | None = None,
    **options,
) -> nn.Module:
    """Train a fresh substitute to answer as the service did.

    Args:
        images: uint8 N×C×H×W, the queries. answers: float N×K, the service's or what
            was recovered from them.
        network: arguments of `models.build` (`name`, `width`, `stem`).
        strategy: "naive", cross-entropy with the answers; "top1", with their largest
            class alone; "s4l", naive and a head that tells by how many quarter turns
            an image was rotated (weight 1; Jagielski et al., 2020).
        loss: replaces the cross-entropy, see `adaptive`; its `y` are the answers, or
            classes for "top1". Not for "s4l".
        seed: of the weights, the order and the augmentation.
        mean_std: for normalisation; of `images` if None. Predictions need the same.
        options: of `train.fit`.

    Returns:
        The substitute, images to logits.

    Raises:
        ValueError: anything is not as above, or `train.fit`'s.
    """
    one_of("strategy", strategy, STRATEGIES)
    check_images(images)
    answers = checked(answers, len(images))
    alone = strategy != "s4l" or loss is train.cross_entropy
    require(alone, "loss must be left alone with s4l", loss)
    channels, height, width = images.shape[1:]
    shape = {"channels": channels, "classes": answers.shape[1], "size": height}
    model = models.build(**network, **shape, seed=seed)
    options |= {"seed": seed, "mean_std": mean_std or datasets.normalisation(images)}
    if strategy == "s4l":
        require(height == width, "images must be square for s4l", [height, width])
    else:
        options["loss"] = loss
    STRATEGIES[strategy](model, images, answers, recipe, **options)
    return model


def _naive(model, images, answers, recipe, **options) -> None:
    # F.cross_entropy, and so the default loss, takes probabilities as well as classes.
    train.fit(model, images, answers, recipe, **options)


def _top1(model, images, answers, recipe, **options) -> None:
    train.fit(model, images, answers.argmax(1), recipe, **options)


def _s4l(model, images, answers, recipe, *, seed, **options) -> None:
    """Train with a second head, for rotations, beside the last linear layer.

    The four rotations of a batch go through the network together, so that batch norm
    sees the same mixture in training and, by its running statistics, afterwards.
    """
    # In all networks of `models` the last linear layer gives the logits.
    last = [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would seed the GPUs too.
        torch.default_generator.manual_seed(seed)
        head = nn.Linear(last.in_features, ROTATIONS)
    both = nn.ModuleDict({"substitute": model, "head": head})

    def loss(both: nn.Module, x: Tensor, y: Tensor, index: Tensor) -> Tensor:
        seen = []
        hook = last.register_forward_pre_hook(lambda _, given: seen.extend(given))
        logits = both["substitute"](rotations(x))
        hook.remove()
        quarter = torch.arange(ROTATIONS, device=x.device).repeat_interleave(len(x))
        turned = F.cross_entropy(both["head"](seen[0]), quarter)
        return F.cross_entropy(logits[: len(x)], y) + turned

    train.fit(both, images, answers, recipe, seed=seed, loss=loss, **options)


STRATEGIES = {"naive": _naive, "top1": _top1, "s4l": _s4l}


def rotations(x: Tensor) -> Tensor:
    """Return a batch turned by 0, 90, 180 and 270 degrees, B×C×S×S to 4B×C×S×S."""
    turned = torch.cat([x.rot90(j, (2, 3)) for j in range(ROTATIONS)])
    return turned.contiguous(memory_format=torch.channels_last)
