"""Refuse tensors, and networks, that are not what a function asks for.

Each checker names in one line what was given, what is allowed and what to do. They
change nothing, so that a call of one can stand alone, as a statement.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.module import register_module_forward_pre_hook

from lottolab.checks import require

ONE = 1e-4  # by which a row of probabilities may miss the sum 1, also in bfloat16
_ANSWERED: WeakKeyDictionary[nn.Module, torch.Size] = WeakKeyDictionary()
MOODY = (_BatchNorm, _DropoutNd)  # layers that answer differently in training mode


def described(given) -> str:
    """Write what was given: dtype and shape of a tensor or an array, else its type."""
    if isinstance(given, Tensor) and without_rows(given):
        return f"{given.layout} {given.device}"
    if hasattr(given, "dtype") and hasattr(given, "shape"):
        return f"{given.dtype} {list(given.shape)}"
    return type(given).__name__


def tensor(name: str, given) -> None:
    """Raise ValueError unless `given` is a tensor."""
    what = f"{name} must be a tensor (see torch.as_tensor)"
    right = isinstance(given, Tensor) and not without_rows(given)
    require(right, what, described(given))


def labels(
    name: str, given, count: int, classes: int | None = None, long: bool = True
) -> None:
    """Raise ValueError unless there is an integer a row, in [0, classes).

    int64 if `long`, else any integers. Without `classes` they are >= 0.
    """
    tensor(name, given)
    right = given.dtype == torch.int64 if long else not _inexact(given)
    ways = [".long()", "[:, 0]" if given.shape[1:] == (1,) else ".argmax(1)"]
    odd = not right or given.shape != (count,)
    mended = odd and given.shape[:1] == (count,) and given.ndim < 3
    way = f" (such as {name}{ways[given.ndim - 1]})" if mended else ""
    what = f"{name} must be {'int64' if long else 'integers'} of shape [{count}]{way}"
    require(not odd, what, described(given))
    top = math.inf if classes is None else classes - 1
    outside = given[(given.long() < 0) | (given.long() > top)]
    end = ">= 0" if classes is None else f"in [0, {top}]"
    require(len(outside) == 0, f"{name} must be {end}", outside[:1].tolist())


def targets(name: str, given, count: int) -> None:
    """Raise ValueError unless these are labels, or a row of shares of classes each.

    The rows are float N×classes, finite and >= 0, with two classes or more: what a
    service answers. They need not sum to 1.
    """
    tensor(name, given)
    if given.is_floating_point() and given.ndim == 2 and given.shape[1] > 1:
        same = f"{name} must be {count} rows, one an image"
        require(len(given) == count, same, described(given))
        odd = given[~(given.isfinite() & (given >= 0))]
        require(len(odd) == 0, f"{name} must be finite and >= 0", odd[:1].tolist())
    else:
        labels(name, given, count)


def images(name: str, given) -> None:
    """Raise ValueError unless `given` is uint8 of shape N×C×H×W, N >= 1."""
    tensor(name, given)
    right = given.dtype == torch.uint8 and given.ndim == 4 and given.numel() > 0
    what = f"{name} must be uint8 of shape N×C×H×W, N >= 1"
    require(right, what, described(given))


def scale(mean_std) -> None:
    """Raise ValueError unless these are two tensors, mean and standard deviation."""
    two = isinstance(mean_std, Sequence) and len(mean_std) == 2
    require(two, "mean_std must be two tensors, mean and std", described(mean_std))
    for name, part in zip(("mean", "std"), mean_std, strict=True):
        tensor(f"{name} of mean_std", part)


def given_scale(mean_std) -> None:
    """Raise ValueError as `scale` does, unless none is given."""
    if mean_std is not None:
        scale(mean_std)


def finite(name: str, given: Tensor, where: str = "") -> None:
    """Raise ValueError where a number is NaN or infinite."""
    odd = given[~given.isfinite()]
    zeros = len(odd) > 0 and bool((odd == -math.inf).all())
    way = "; clamp probabilities to 1e-12 before the log" if zeros else ""
    require(len(odd) == 0, f"{name} must be finite{where}{way}", odd[:1].tolist())


def logits(name: str, given) -> None:
    """Raise ValueError unless these are finite scores, float [N, classes]."""
    tensor(name, given)
    right = given.is_floating_point() and given.ndim == 2 and given.shape[1] > 1
    what = f"{name} must be float, examples × classes, two classes or more"
    require(right and len(given) > 0, what, described(given))
    finite(name, given)


def rows(name: str, given, count: int) -> None:
    """Raise ValueError unless these are finite logits, a row for each of `count`."""
    found = len(given) if isinstance(given, Tensor) and given.ndim else 0
    require(found == count, f"{name} must be {count} rows, one an image", found)
    if count:  # an attack may have no image left
        logits(name, given)


def covered(layers, masks) -> None:
    """Raise ValueError unless each of the layers has a mask."""
    missing = sorted(set(layers) - set(masks))
    require(not missing, "masks must be of every layer; without one", missing)


def moments(statistics: dict, state: dict) -> None:
    """Raise ValueError unless batch norm's statistics are finite and fit the state."""
    for name, value in statistics.items():
        tensor(name, value)
        same = value.shape == state[name].shape
        require(same, f"{name} must be {described(state[name])}", described(value))
        right = bool(value.isfinite().all())
        right = right and ("var" not in name or bool((value >= 0).all()))
        ends = [float(value.min()), float(value.max())]
        require(right, f"{name} must be finite, and no variance below 0", ends)


def unnormalised(name: str, given: Tensor) -> None:
    """Raise ValueError where all rows are probabilities, which are no logits."""
    off = (given.double().sum(1) - 1).abs()
    both = bool((given >= 0).all() and (off <= ONE).all())
    what = f"{name} must be logits: leave the softmax out, or take the log"
    require(not both, what, "rows of probabilities, >= 0 with the sum 1")


def network(model: nn.Module) -> None:
    """Raise ValueError unless `model` is a network with float32 weights."""
    right = isinstance(model, nn.Module) and next(model.parameters(), None) is not None
    what = "model must be a network with at least one weight"
    require(right, what, type(model).__name__)
    kinds = {p.dtype for p in model.parameters() if p.is_floating_point()}
    what = "model must have float32 weights (see model.float())"
    require(kinds == {torch.float32}, what, ", ".join(sorted(map(str, kinds))))


def answering(model: nn.Module, x: Tensor) -> None:
    """Raise ValueError unless a network answers images, uint8, with logits.

    It is asked once a shape: whoever queries it image by image shall not pay twice.
    """
    network(model)
    images("images", x)
    if _ANSWERED.get(model) != x.shape[1:]:
        asked(model, _pixels(model, x))
        _ANSWERED[model] = x.shape[1:]


def trainable(model: nn.Module, x: Tensor, y: Tensor, plain: bool) -> None:
    """Raise ValueError unless `model` can be trained on images and labels as these are.

    `plain`: with the cross-entropy, which wants logits of the labels' classes. Another
    loss may ask a model that gives something else, or has no answer of its own.
    """
    network(model)
    images("images", x)
    targets("labels", y, len(x))
    try:
        classes = asked(model, _pixels(model, x)).shape[1]
    except (NotImplementedError, ValueError):
        if plain:
            raise
        return
    if y.ndim == 1:
        labels("labels", y, len(x), classes)
    else:
        same = y.shape[1] == classes
        require(same, f"labels must be of the model's {classes} classes", y.shape[1])


def _pixels(model: nn.Module, x: Tensor) -> Tensor:
    return x[:1].to(next(model.parameters()).device).float() / 255


def asked(model, x: Tensor) -> Tensor:
    """Return what a model answers images; refuse what are no logits.

    A network is asked in evaluation mode. One that hides in a function is refused in
    training mode, before its batch norm moves.
    """
    parts = list(model.modules()) if isinstance(model, nn.Module) else []
    training = [part for part in parts if part.training]
    for part in training:
        part.training = False
    try:
        with torch.no_grad(), _refusing_training():
            found = model(x)
    except NotImplementedError:
        raise
    except (AttributeError, IndexError, RuntimeError, TypeError) as error:
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        what = f"model must answer images that are {described(x)}"
        raise ValueError(f"{what}, got {text}") from error
    finally:
        for part in training:
            part.training = True
    what = "model must return logits, a tensor [n, classes]"
    require(isinstance(found, Tensor), what, described(found))
    logits("the model's logits", found)
    require(len(found) == len(x), f"{what} of n = {len(x)}", described(found))
    unnormalised("the model's logits", found)
    return found


@contextmanager
def _refusing_training() -> Iterator[None]:
    def refuse(module: nn.Module, _) -> None:
        what = "a network in a function must be in evaluation mode (see model.eval())"
        mood = isinstance(module, MOODY) and module.training
        require(not mood, what, f"{type(module).__name__} in training mode")

    hook = register_module_forward_pre_hook(refuse)
    try:
        yield
    finally:
        hook.remove()


def without_rows(given: Tensor) -> bool:
    """Say whether a tensor is sparse, or has no numbers."""
    return given.layout != torch.strided or given.is_meta


def _inexact(given: Tensor) -> bool:
    return given.is_floating_point() or given.is_complex() or given.dtype == torch.bool
