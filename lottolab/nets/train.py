"""Train a network: one loop for dense networks, tickets and whatever comes later.

The data set stays in memory as uint8; a batch is cropped, flipped and normalised as
one tensor. Everything random is drawn from (seed, epoch), so a run that was killed
goes on at its last whole epoch and ends with the same bits.
"""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lottolab import runs
from lottolab.checks import one_of, require, tensors, whole, within
from lottolab.images.batches import Batches
from lottolab.jobs.steps import few
from lottolab.nets import masks as masking
from lottolab.nets.checkpoint import resume_training, save_training
from lottolab.nets.device import choose_precision, default_device
from lottolab.nets.strided import subsampled
from lottolab.runs import progress

Loss = Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Recipe:
    """How to train; plain values, so that it can be an argument of a stage.

    epochs: passes over the training images, at least 1.
    batch: images a step, at least 2; a last, smaller batch is left out.
    optimiser: `sgd` (with `momentum`) or `adam`.
    lr: peak learning rate, > 0. weight_decay: >= 0, on all trained parameters.
    schedule: `constant`, `step` (× 0.1 at each of `milestones`, in epochs) or
        `cosine` (to 0 at the end).
    warmup: epochs of linear growth from 0 at the start.
    crop: pixels of zero padding for random crops; 0 for none. flip: mirror half.
    """

    epochs: int = 8
    batch: int = 128
    optimiser: str = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: str = "cosine"
    milestones: tuple[float, ...] = ()
    warmup: float = 0.0
    crop: int = 2
    flip: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "milestones", tuple(self.milestones))
        for name, low in (("epochs", 1), ("batch", 2), ("crop", 0)):
            whole(name, getattr(self, name), low)
        within("lr", self.lr, "(0, inf)")
        within("momentum", self.momentum, "[0, 1)")
        require(self.weight_decay >= 0, "weight_decay must be >= 0", self.weight_decay)
        require(
            0 <= self.warmup <= self.epochs,
            f"warmup must be in [0, epochs = {self.epochs}]",
            self.warmup,
        )
        one_of("optimiser", self.optimiser, ("sgd", "adam"))
        one_of("schedule", self.schedule, ("constant", "step", "cosine"))

    def rate(self, epoch: float) -> float:
        """Return the learning rate at `epoch` (a fraction of one is allowed)."""
        if epoch < self.warmup:
            return self.lr * epoch / self.warmup
        if self.schedule == "step":
            return self.lr * 0.1 ** sum(epoch >= m for m in self.milestones)
        if self.schedule == "cosine":
            part = (epoch - self.warmup) / max(self.epochs - self.warmup, 1e-9)
            return self.lr * (1 + math.cos(math.pi * part)) / 2
        return self.lr


def recipe(settings: dict) -> Recipe:
    """Make a recipe of a dict.

    Raises:
        ValueError: a name is unknown or a value is out of range.
    """
    known = [f.name for f in fields(Recipe)]
    for key in settings:
        one_of("a recipe's setting", key, known)
    return Recipe(**settings)


@dataclass
class Fit:
    """What training leaves beside the trained model.

    history: a row an epoch: `epoch`, `loss` (mean over the augmented batches as they
        were seen), `lr` at the epoch's end.
    rewind: the state dict at the end of epoch `rewind_at` (0: before training).
    """

    history: pd.DataFrame
    rewind: dict[str, Tensor] = field(default_factory=dict)


def cross_entropy(model: nn.Module, x: Tensor, y: Tensor, index: Tensor) -> Tensor:
    """Return the mean cross-entropy of a batch, the default loss."""
    return F.cross_entropy(model(x), y)


def fit(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    recipe: Recipe,
    *,
    seed: int,
    masks: dict[str, Tensor] | None = None,
    loss: Loss = cross_entropy,
    after_step: Callable[[nn.Module, int], None] | None = None,
    parameters: Iterable[nn.Parameter] | None = None,
    rewind_at: int | None = None,
    start: int = 0,
    stop: int | None = None,
    mean_std: tuple[Tensor, Tensor] | None = None,
    checkpoint: Path | None = None,
    device: str | None = None,
    precision: str = "auto",
) -> Fit:
    """Train `model` in place.

    Args:
        images: uint8, N×C×H×W. labels: int64, N, in [0, classes); or float, N×classes,
            a row of shares each, if the loss takes them, as the default does.
        seed: order and augmentation of epoch e follow from (seed, e) alone.
        masks: state-dict name to bool tensor, True = kept; the others stay 0 exactly.
        loss: `loss(model, x, y, index)` -> scalar; `index` are places in `images`.
        after_step: called as `after_step(model, step)` after each optimiser step.
        parameters: what is trained; all that require a gradient if None.
        rewind_at: keep the state at the end of this epoch; 0 is before training.
        start: epochs that the model has behind it, > 0 after late rewinding.
        stop: epochs that it shall have behind it; all of the recipe's if None.
        mean_std: for normalisation; of `images` if None.
        checkpoint: folder for the state after each epoch; the running stage's if None.
        device: `cpu`, `cuda` …; see `default_device`.
        precision: `float32`, `bfloat16` (autocast) or `auto`, see `choose_precision`.

    Raises:
        ValueError: shapes or settings do not fit, or the loss is no longer finite.
    """
    device = device or default_device()
    precision = choose_precision(device) if precision == "auto" else precision
    one_of("precision", precision, ("float32", "bfloat16"))
    tensors.trainable(model, images, labels, plain=loss is cross_entropy)
    weights = dict(model.named_parameters())
    masking.check(masks or {}, weights)
    last = recipe.epochs if stop is None else stop
    require(
        rewind_at is None or start <= rewind_at <= last,
        f"rewind_at must be in [{start}, {last}], the epochs that are trained",
        rewind_at,
    )
    masking.apply_(model, masks or {})
    subsampled(model).to(device, memory_format=torch.channels_last).train()
    if parameters is None:
        parameters = (p for p in model.parameters() if p.requires_grad)
    trained = list(parameters)
    require(bool(trained), "parameters must hold at least one", "none")
    optimiser = _optimiser(recipe, trained)
    batches = Batches(images, labels, recipe, seed, mean_std, device)
    folder = checkpoint or runs.scratch()
    rows, rewind = resume_training(folder, model, optimiser)
    if rewind_at == start and not rewind:
        rewind = _copy(model)
    for epoch in few(
        range(start + len(rows), last), also=(rewind_at or 0) - 1, kind="epochs"
    ):
        began = time.perf_counter()
        mean = _epoch(
            model, optimiser, batches, epoch, loss, masks or {}, after_step, precision
        )
        rows.append({"epoch": epoch + 1, "loss": mean, "lr": recipe.rate(epoch + 1)})
        if rewind_at == epoch + 1:
            rewind = _copy(model)
        if folder:
            save_training(folder, model, optimiser, rows, rewind)
        rate = batches.steps * recipe.batch / (time.perf_counter() - began)
        progress.emit("epoch", epoch=epoch + 1, epochs=recipe.epochs, rate=rate)
    return Fit(pd.DataFrame(rows, columns=["epoch", "loss", "lr"]), rewind)


def _epoch(model, optimiser, batches, epoch, loss, masks, after_step, precision):
    """Train for one epoch (counted from 0) and return the mean loss."""
    weights = dict(model.named_parameters())
    kept = [(weights[n], m.to(weights[n].device)) for n, m in masks.items()]
    kind = next(model.parameters()).device.type
    total = 0.0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(batches.seed * 100_003 + epoch)
        for step, (x, y, index) in few(enumerate(batches.epoch(epoch)), kind="steps"):
            for group in optimiser.param_groups:
                group["lr"] = batches.recipe.rate(epoch + step / batches.steps)
            with torch.autocast(kind, torch.bfloat16, precision == "bfloat16"):
                value = loss(model, x, y, index)
            optimiser.zero_grad(set_to_none=True)
            value.backward()
            optimiser.step()
            with torch.no_grad():
                for weight, mask in kept:
                    weight.mul_(mask)
            if after_step:
                after_step(model, epoch * batches.steps + step)
            total = total + value.detach().float()
    mean = float(total) / batches.steps
    require(math.isfinite(mean), "the loss must stay finite; lower lr", mean)
    return mean


def _optimiser(recipe: Recipe, parameters: list[nn.Parameter]):
    settings = {"lr": recipe.lr, "weight_decay": recipe.weight_decay, "foreach": True}
    if recipe.optimiser == "adam":
        return torch.optim.Adam(parameters, **settings)
    return torch.optim.SGD(parameters, momentum=recipe.momentum, **settings)


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}
