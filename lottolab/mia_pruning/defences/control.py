"""Train as `dp.dp_train` does, with any noise and any clipping, also with neither.

What privacy costs is found by changing one thing at a time. A training with another
optimiser, schedule or batch says what the recipe costs. These controls sample, step
and draw as DP-SGD does, from the same streams; only σ, or the norm that gradients are
clipped to, is another.
"""

import itertools
import math

import pandas as pd
import torch
from torch import Tensor, nn

from lottolab.checks import number, require, whole, within
from lottolab.images import datasets
from lottolab.images.batches import normalise
from lottolab.jobs.steps import few
from lottolab.mia_pruning.defences import dp
from lottolab.mia_pruning.defences.accounting import spent
from lottolab.nets import masks as masking
from lottolab.nets.device import default_device

NO_LIMIT = 1e30  # a norm that no gradient of float32 numbers that can be added has


def dp_control(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epochs: int,
    batch: int,
    lr: float,
    sigma: float,
    clip: float | None,
    delta: float,
    seed: int,
    momentum: float = 0.0,
    masks: masking.Masks | None = None,
    mean_std: tuple[Tensor, Tensor] | None = None,
    chunk: int = 128,
    device: str | None = None,
) -> dp.Private:
    """Train `model` in place by the steps of DP-SGD, with this noise and clipping.

    With the σ that `dp_train` finds for an ε, and its `clip`, it is `dp_train` to the
    bit; with σ = 0 the same run without noise, and with `clip` None too, without
    clipping. As there, neighbours differ by one example, added or removed, and the
    noisy sum is divided by the constant `batch`; q = batch / N and the number of steps
    are constants too, which must not follow who is in (see `privacy.canaries`).

    Args:
        sigma: σ >= 0, the noise's deviation divided by `clip`; 0, or >= 1e-6.
        clip: > 0, or None for no clipping, which noise has no measure without.
        All else is as in `dp_train`.

    Returns what `dp_train` does; ε is that of σ at δ, infinite without noise. It says
    nothing about a run that is not clipped.

    Raises:
        ValueError: anything is not as above, or what `dp_train` refuses.
    """
    from opacus.optimizers import DPOptimizer

    dp._check(model, images, labels, batch)
    whole("epochs", epochs, 1)
    whole("chunk", chunk, 1)
    whole("seed", seed, 0)
    within("lr", lr, "(0, inf)")
    within("momentum", momentum, "[0, 1)")
    number("sigma", sigma, 0, 1e100)
    require(clip is not None or sigma == 0, "sigma must be 0 where clip is None", sigma)
    within("clip", NO_LIMIT if clip is None else clip, "(0, inf)")
    masking.check(masks or {}, dict(model.named_parameters()))
    rate, steps = batch / len(images), round(len(images) / batch)
    device = device or default_device()
    masking.apply_(model, masks or {})
    model.to(device).train()
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    kept = {n: m.to(device) for n, m in (masks or {}).items() if n in trained}
    noise, drawing, dropping = dp._seeds(seed)
    optimiser = DPOptimizer(
        torch.optim.SGD(trained.values(), lr=lr, momentum=momentum),
        noise_multiplier=sigma,
        max_grad_norm=NO_LIMIT if clip is None else clip,
        expected_batch_size=batch,
        generator=torch.Generator(device).manual_seed(noise),
    )
    mean, std = (part.to(device) for part in mean_std or datasets.normalisation(images))
    gradients = dp._per_example(model, trained, dropping)
    x, y = images[:1].to(device), labels[:1].to(device)
    dp._try(gradients, normalise(x, mean, std), y)
    batches, rows = dp._poisson(len(images), rate, drawing), []
    for epoch in few(range(1, epochs + 1), kind="epochs"):
        losses = []
        for index in few(itertools.islice(batches, steps), kind="steps"):
            x, y = images[index].to(device), labels[index].to(device)
            x = normalise(x, mean, std)
            losses += dp._step(optimiser, gradients, trained, kept, x, y, chunk)
        found = torch.cat(losses)
        total = float(found.sum())
        require(math.isfinite(total), "the loss must stay finite; lower lr", total)
        used = spent(sigma, rate, epoch * steps, delta) if sigma else math.inf
        rows.append((epoch, float(found.mean()), len(found), used))
    columns = ["epoch", "loss", "examples", "epsilon"]
    return dp.Private(used, sigma, pd.DataFrame(rows, columns=columns))
