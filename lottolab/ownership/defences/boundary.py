"""Recognise a network by pictures at its class boundary: a peer of triggers.

IPGuard (Cao et al., 2021, "IPGuard: Protecting Intellectual Property of Deep Neural
Networks via Fingerprinting the Classification Boundary", section 4): pictures which the
network just so gives to a class, or not, are answered in the same way by what was
derived from it and otherwise by networks that were trained anew. Nothing is embedded,
so accuracy costs nothing and no thief finds it in the weights. But no secret gives the
labels: chance is not 1/classes, and what other networks answer has to be measured.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lottolab.checks import number, require, whole
from lottolab.checks.tensors import images as check_images
from lottolab.images.batches import normalise
from lottolab.ownership.triggers import (
    Predict,
    Triggers,
    TriggerVerification,
    predictor,
    verify_triggers,
)


def fingerprint(
    model: nn.Module,
    images: Tensor,
    mean_std: tuple[Tensor, Tensor],
    *,
    classes: int,
    seed: int,
    margin: float = 1.0,
    steps: int = 100,
    step_size: float = 1.0,
) -> Triggers:
    """Move images to the boundary between their class and another, drawn at random.

    Minimises (IPGuard, equation 9, with Adam) ReLU(z_i − z_j + margin) + ReLU(max over
    all others of z − z_i) over the pixels, for the logits z: class j, the new one,
    leads class i, the old one, by the margin, and i leads all others. Each picture's
    label is what the model answers to it in whole grey levels.

    Args:
        images: uint8, N×C×H×W, one for each picture. margin: in logits, >= 0; the
            larger, the more robust and the less the network's own.
        step_size: in grey levels of 255.

    Raises:
        ValueError: a number is out of range, or images are none.
    """
    check_images("images", images)
    whole("classes", classes, 2)
    whole("steps", steps, 1)
    number("margin", margin, 0)
    number("step_size", step_size, 1e-6)
    predict = predictor(model, mean_std)
    old = predict(images).cpu()
    generator = torch.Generator().manual_seed(seed)
    new = (old + torch.randint(1, classes, old.shape, generator=generator)) % classes
    device = next(model.parameters()).device
    mean, std = (part.to(device) for part in mean_std)
    x = images.to(device).float().requires_grad_()
    optimiser = torch.optim.Adam([x], lr=step_size)
    for _ in range(steps):
        optimiser.zero_grad(set_to_none=True)
        logits = model(normalise(x, mean, std))
        losses = distance(logits, old.to(device), new.to(device), margin)
        (x.grad,) = torch.autograd.grad(losses.sum(), x)
        optimiser.step()
        with torch.no_grad():
            x.clamp_(0, 255)
    moved = x.detach().round().to(torch.uint8).cpu()
    return Triggers(moved, predict(moved).cpu(), classes)


def distance(logits: Tensor, old: Tensor, new: Tensor, margin: float) -> Tensor:
    """Return how far each picture is from where it should be, float N; see above."""
    first = logits.gather(1, old[:, None])[:, 0]
    second = logits.gather(1, new[:, None])[:, 0]
    pair = F.one_hot(old, logits.shape[1]) + F.one_hot(new, logits.shape[1])
    others = logits.masked_fill(pair > 0, -torch.inf).amax(1)
    return F.relu(first - second + margin) + F.relu(others - first)


def verify(
    predict: Predict, given: Triggers, *, unmarked: list[Predict]
) -> TriggerVerification:
    """Decide whether a network was derived from the one with this fingerprint.

    `verify_triggers` with networks that are known to be independent, of which there
    must be one: against chance nearly every network of the trade would be convicted.

    Raises:
        ValueError: no such networks, and as `verify_triggers`.
    """
    known = "unmarked must hold a network that is known to be independent"
    require(len(unmarked) > 0, known, "none")
    return verify_triggers(predict, given, unmarked=unmarked)
