"""Train with differential privacy: DP-SGD (Abadi et al., 2016), by Opacus.

"Deep learning with differential privacy", CCS 2016, Algorithm 1. Each example joins a
batch independently with probability q; its gradient is clipped to a norm of at most
`clip`; noise N(0, (σ · clip)²) joins the sum. Opacus clips and adds the noise, whose
size `accounting` finds. The gradients of single examples are torch.func's: Opacus' own
refuse in-place ReLUs and take longer. It is imported where it is used: that takes a
second.
"""

import itertools
import math
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.nn.modules.batchnorm import _BatchNorm

from lottolab.checks import require, tensors, whole, within
from lottolab.images import datasets
from lottolab.images.batches import normalise
from lottolab.jobs.steps import few
from lottolab.mia_pruning.defences.accounting import noise_multiplier, spent
from lottolab.nets import masks as masking
from lottolab.nets.device import default_device
from lottolab.runs import progress


class Private(NamedTuple):
    """What private training leaves beside the trained model.

    epsilon: spent, at the δ that was asked for. noise_multiplier: σ.
    history: a row an epoch: `epoch`, `loss` (mean over the `examples` that were drawn)
        and `epsilon` (spent so far). ε does not cover publishing losses and examples.
    """

    epsilon: float
    noise_multiplier: float
    history: pd.DataFrame


def dp_train(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epochs: int,
    batch: int,
    lr: float,
    epsilon: float,
    delta: float,
    clip: float,
    seed: int,
    momentum: float = 0.0,
    masks: masking.Masks | None = None,
    mean_std: tuple[Tensor, Tensor] | None = None,
    chunk: int = 128,
    device: str | None = None,
) -> Private:
    """Train `model` in place with (ε, δ)-differential privacy.

    Neighbours differ by one example, present or not (add/remove), all else equal: q,
    the number of steps, and `batch`, by which the noisy sum is divided, are constants.
    All three follow from N here, so N is public, or counts places that may be empty,
    as in `privacy.canaries`. The guarantee is for those who do not know the seed. It
    covers the weights and nothing else that was made of the images: no masks, no
    earlier training, no search for hyperparameters.

    Args:
        images: uint8, N×C×H×W; not augmented. labels: int64, N.
        epochs: each of round(N / batch) steps.
        batch: expected size of a batch, in [1, N]; q = batch / N. The noisy sum is
            divided by it, not by the size drawn.
        lr: constant. momentum: in [0, 1).
        epsilon: ε > 0, the most to spend. delta: δ in (0, 1), well below 1 / N.
        clip: > 0, the largest norm of an example's gradient, over all weights kept.
        masks: state-dict name to bool tensor, True = kept; the others stay 0 exactly.
        mean_std: for normalisation; of `images` if None, which ε does not cover: give
            public ones where that matters.
        chunk: gradients of single examples held at a time; changes rounding, and
            what dropout drops.

    Raises:
        ValueError: anything is not as above, the model has batch norm (see
            `group_norm`) or cannot be trained on one example alone, or the loss is no
            longer finite.
    """
    from opacus.optimizers import DPOptimizer

    _check(model, images, labels, batch)
    whole("epochs", epochs, 1)
    whole("chunk", chunk, 1)
    whole("seed", seed, 0)
    for name, value in (("lr", lr), ("clip", clip)):
        within(name, value, "(0, inf)")
    within("momentum", momentum, "[0, 1)")
    masking.check(masks or {}, dict(model.named_parameters()))
    rate, steps = batch / len(images), round(len(images) / batch)
    sigma = noise_multiplier(epsilon, delta, rate, epochs * steps)
    device = device or default_device()
    masking.apply_(model, masks or {})
    model.to(device).train()
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    kept = {n: m.to(device) for n, m in (masks or {}).items() if n in trained}
    noise, drawing, dropping = _seeds(seed)
    optimiser = DPOptimizer(
        torch.optim.SGD(trained.values(), lr=lr, momentum=momentum),
        noise_multiplier=sigma,
        max_grad_norm=clip,
        expected_batch_size=batch,
        generator=torch.Generator(device).manual_seed(noise),
    )
    mean, std = (part.to(device) for part in mean_std or datasets.normalisation(images))
    gradients = _per_example(model, trained, dropping)
    x, y = images[:1].to(device), labels[:1].to(device)
    _try(gradients, normalise(x, mean, std), y)
    batches = _poisson(len(images), rate, drawing)
    rows = []
    for epoch in few(range(1, epochs + 1), kind="epochs"):
        began, losses = time.perf_counter(), []
        for index in few(itertools.islice(batches, steps), kind="steps"):
            x, y = images[index].to(device), labels[index].to(device)
            x = normalise(x, mean, std)
            losses += _step(optimiser, gradients, trained, kept, x, y, chunk)
        found = torch.cat(losses)
        total = float(found.sum())
        require(math.isfinite(total), "the loss must stay finite; lower lr", total)
        used = spent(sigma, rate, epoch * steps, delta)
        rows.append((epoch, float(found.mean()), len(found), used))
        speed = len(found) / (time.perf_counter() - began)
        progress.emit("epoch", epoch=epoch, epochs=epochs, rate=speed)
    columns = ["epoch", "loss", "examples", "epsilon"]
    return Private(used, sigma, pd.DataFrame(rows, columns=columns))


def group_norm(model: nn.Module, groups: int = 1) -> nn.Module:
    """Return a copy with group norm, freshly made, in place of each batch norm.

    One group normalises over all channels. As many groups as channels would give each
    channel a mean of 0, of which a global average pool leaves little.

    Raises ValueError unless `groups` divides the channels of every batch norm.

    >>> group_norm(nn.Sequential(nn.BatchNorm2d(6)), groups=2)[0]
    GroupNorm(2, 6, eps=1e-05, affine=True, bias=True)
    """
    from opacus.validators import ModuleValidator

    whole("groups", groups, 1)
    for name, norm in _batch_norms(model).items():
        what = f"groups must divide the {norm.num_features} channels of {name}"
        require(norm.num_features % groups == 0, what, groups)
    return ModuleValidator.fix(model, num_groups=groups)


def _step(optimiser, gradients, trained, kept, x, y, chunk) -> list[Tensor]:
    """Take one noisy step, also on no example at all; return the examples' losses."""
    losses, parts = [], list(zip(x.split(chunk), y.split(chunk), strict=True))
    for place, part in enumerate(parts):
        found, values = gradients(*part)
        for name, weight in trained.items():
            # Opacus marks what it has seen, and two weights may share a gradient.
            sample = found[name].detach()
            weight.grad_sample = sample * kept[name] if name in kept else sample
        optimiser.signal_skip_step(place < len(parts) - 1)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        losses.append(values)
    with torch.no_grad():
        for name, mask in kept.items():
            trained[name].mul_(mask)
    return losses


def _per_example(model: nn.Module, trained: dict[str, nn.Parameter], seed: int):
    """Return f(x, y) -> gradients by name, B×shape, and losses, B, of each example.

    What the network draws, as dropout does, is each example's own and follows `seed`.
    """
    weights = {name: p.detach() for name, p in trained.items()}
    seeds = np.random.default_rng(seed)

    def loss(weights, x, y):
        return F.cross_entropy(functional_call(model, weights, (x[None],)), y[None])

    every = vmap(grad_and_value(loss), in_dims=(None, 0, 0), randomness="different")

    def gradients(x, y):
        if len(x):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(int(seeds.integers(2**63)))
                return every(weights, x, y)
        return {n: w.new_zeros(0, *w.shape) for n, w in weights.items()}, x.new_zeros(0)

    return gradients


def _try(gradients, x: Tensor, y: Tensor) -> None:
    """Refuse a model before its first step if an example alone has no gradient."""
    try:
        gradients(x, y)
    except (RuntimeError, TypeError, AttributeError) as error:
        what = "model must give logits of one image alone, without running statistics"
        said = str(error).splitlines()[0]
        raise ValueError(f"{what}, and torch.func their gradient: {said}") from error


def _poisson(count: int, rate: float, seed: int) -> Iterator[Tensor]:
    """Yield without end who is in a batch: each with probability `rate`."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield (torch.rand(count, generator=generator) < rate).nonzero()[:, 0]


def _seeds(seed: int) -> list[int]:
    """Return hashes of the seed: for the noise, the batches and what is dropped."""
    # The guarantee wants noise that depends on neither batches nor initial weights.
    return np.random.SeedSequence(seed).generate_state(3).tolist()


def _batch_norms(model: nn.Module) -> dict[str, nn.Module]:
    return {n: m for n, m in model.named_modules() if isinstance(m, _BatchNorm)}


def _check(model: nn.Module, images: Tensor, labels: Tensor, batch: int) -> None:
    tensors.network(model)
    tensors.images("images", images)
    tensors.labels("labels", labels, len(images))
    whole("batch", batch, 1)
    most = len(images)
    require(batch <= most, f"batch must be at most the {most} images", batch)
    norms = list(_batch_norms(model))
    what = "model must have no batch norm, which mixes examples (see dp.group_norm)"
    require(not norms, what, ", ".join(norms))
    tensors.trainable(model, images, labels, plain=True)
    free = any(p.requires_grad for p in model.parameters())
    require(free, "model must have a weight that is not frozen", "none")
