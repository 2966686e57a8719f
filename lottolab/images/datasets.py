"""Data sets as tensors in memory.

A set is read once per process and kept whole as uint8; a batch is then an index.
Where every byte comes from is written in `data/README.md`.
"""

import inspect
import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache, lru_cache, partial
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lottolab.checks import one_of, require, tensors, within
from lottolab.images import folders, glyphs, relabel, sources
from lottolab.images.dataset import Dataset
from lottolab.jobs import steps
from lottolab.runs import places


def load(name: str, **options: int) -> Dataset:
    """Read a data set by name, once per process.

    `fashion-mnist` (embedded), `fashion-cells` (its images with finer labels, option
    `classes`), `digits` (option `size`), `glyphs` (options `classes`, `images`,
    `first_class`, `seed`); through torchvision `cifar10`, `cifar100`, `mnist`, `svhn`;
    and `tinyimagenet`, `cub200`, `indoor67` (option `size`). The last seven lie in the
    folder that LOTTOLAB_DATA names, else in `data/downloads`; those of torchvision are
    downloaded where the network allows.

    Raises ValueError for an unknown name or option or a damaged file,
    FileNotFoundError for a file that is missing and cannot be had.

    >>> load("digits").images.shape
    torch.Size([1797, 1, 8, 8])
    """
    one_of("data set", name, LOADERS)
    if instead := steps.watcher().dataset(name, options):
        return instead
    allowed = inspect.signature(LOADERS[name]).parameters
    require(bool(allowed) or not options, f"{name} takes no options", list(options))
    for key, value in options.items():
        one_of(f"option of {name}", key, allowed)
        require(type(value) is int, f"{key} must be an integer", repr(value))
    defaults = {key: parameter.default for key, parameter in allowed.items()}
    return _load(name, tuple((defaults | options).items()))


def get(named: str | dict | Dataset) -> Dataset:
    """Read a data set by what a stage's argument holds: a name, or name and options.

    One's own is what `save` returned: a stage knows it by the checksum
    of its images and labels. A `Dataset` is returned as it is.

    >>> get({"name": "digits", "size": 28}).images.shape
    torch.Size([1797, 1, 28, 28])
    """
    if isinstance(named, Dataset):
        return named
    if isinstance(named, dict) and "file" in named:
        right = set(named) == {"name", "file"}
        require(right, "a file's keys must be name and file", list(named))
        path = Path(named["file"])
        require(path.is_file(), f"{path} must be a file of datasets.save", "none")
        return _own(path, path.stat().st_mtime_ns)
    return load(named) if isinstance(named, str) else load(**named)


def save(dataset: Dataset, path: Path) -> dict[str, str]:
    """Keep a data set of one's own, .safetensors; return what stages take for it."""
    whole = Path(path).suffix == ".safetensors"
    require(whole, "path must end in .safetensors", path)
    parts = {k: getattr(dataset, k).contiguous() for k in ("images", "labels", "test")}
    about = {"name": dataset.name, "classes": dataset.classes}
    about |= {"synthetic": dataset.synthetic}
    save_file(parts, path, metadata={"dataset": json.dumps(about)})
    return {"name": dataset.name, "file": str(path)}


@lru_cache(maxsize=4)
def _own(path: Path, written: int) -> Dataset:
    """Read what `save` wrote at a time; the checksum is computed, not believed."""
    try:
        with safe_open(path, "pt") as opened:
            about = json.loads((opened.metadata() or {})["dataset"])
            parts = {k: opened.get_tensor(k) for k in ("images", "labels", "test")}
        return Dataset(**about, **parts)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} must be of datasets.save: {error}") from error


# A process that sweeps over glyph sets must not keep them all.
@lru_cache(maxsize=16)
def _load(name: str, options: tuple[tuple[str, int], ...]) -> Dataset:
    return LOADERS[name](**dict(options))


def _official(name: str) -> Dataset:
    """Join the official train and test parts of a set that comes as files."""
    (x, y), (x_test, y_test), checksum = sources.read(name)
    images = torch.cat([x, x_test])
    test = torch.arange(len(images)) >= len(x)
    classes = 100 if name == "cifar100" else 10
    return Dataset(name, images, torch.cat([y, y_test]), classes, test, False, checksum)


def _digits(size: int = 8) -> Dataset:
    """Read scikit-learn's 1,797 digits, 8×8, stretched bilinearly to `size`."""
    from sklearn.datasets import load_digits

    within("size", size, "[8, 224]")
    source = load_digits()
    grey = torch.from_numpy(source.images).float()[:, None] * (255 / 16)
    if size != 8:
        grey = torch.nn.functional.interpolate(grey, size=size, mode="bilinear")
    labels = torch.from_numpy(source.target).long()
    images = grey.round().to(torch.uint8)
    return Dataset("digits", images, labels, 10, torch.zeros(1797).bool(), False)


def _glyphs(
    classes: int = 100, images: int = 10_000, first_class: int = 0, seed: int = 0
) -> Dataset:
    """Draw synthetic images of letters once, see `lottolab.images.glyphs.draw`."""
    glyphs.check(classes, first_class, images)
    given = {"classes": classes, "images": images, "first_class": first_class}
    found = glyphs.drawn(**given, seed=seed, fonts=version("matplotlib"))
    test = torch.zeros(images, dtype=torch.bool)
    return Dataset("glyphs", found["pixels"], found["labels"], classes, test, True)


def _fashion_cells(classes: int = 100) -> Dataset:
    """Label Fashion-MNIST by 10, 100 or 1,000 nested cells; see `relabel.cells`."""
    base = load("fashion-mnist")
    labels = relabel.cells(base.images, base.labels, base.test, classes)
    changed = {"name": "fashion-cells", "labels": labels, "classes": classes}
    return replace(base, **changed, checksum="")


def _pictures(name: str, size: int) -> Dataset:
    """Read a set that comes as a folder of pictures, `size` pixels a side."""
    images, labels, test, classes = folders.read(name, size)
    return Dataset(name, images, labels, classes, test, False)


LOADERS: dict[str, Callable[..., Dataset]] = {
    "digits": _digits,
    "fashion-cells": _fashion_cells,
    "glyphs": _glyphs,
    **{name: partial(_official, name) for name in sources.NAMES},
    **{n: partial(_pictures, n, size=f.size) for n, f in folders.FORMS.items()},
}


def normalisation(images: Tensor) -> tuple[Tensor, Tensor]:
    """Measure mean and standard deviation per channel; float32 [C] each, of x / 255.

    `images` uint8 [N, C, H, W]: the training split's, never all. A constant channel
    gets 1 as deviation, so that it can be divided by.

    Raises ValueError for another dtype or shape, or no images.
    """
    tensors.tensor("images", images)
    if images.dtype != torch.uint8 or images.ndim != 4 or not images.numel():
        given = f"{images.dtype} {list(images.shape)}"
        raise ValueError(f"images must be uint8 [N, C, H, W] with N > 0, got {given}")
    # A histogram is exact and needs no float copy of the data.
    values = torch.arange(256, dtype=torch.float64) / 255
    counts = torch.stack(
        [torch.bincount(c.flatten(), minlength=256) for c in images.cpu().unbind(1)]
    )
    weights = counts.double() / counts.sum(1, keepdim=True)
    mean = weights @ values
    std = (weights * (values - mean[:, None]) ** 2).sum(1).sqrt()
    return mean.float(), std.where(std > 0, 1.0).float()


@cache
def _checksum(named: str) -> str:
    return get(json.loads(named)).checksum


def _now(named: str | dict) -> str:
    """Return the checksum of a named data set; one's own file may change."""
    own = isinstance(named, dict) and "file" in named
    return get(named).checksum if own else _checksum(json.dumps(named, sort_keys=True))


places.CHECKSUMS["dataset"] = _now
