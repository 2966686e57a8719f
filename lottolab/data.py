"""Data sets as tensors in memory, and their splits.

A set is read once per process and kept whole as uint8; a batch is then an index.
Where every byte comes from is written in `data/README.md`.
"""

import hashlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial

import torch
from torch import Tensor

from lottolab import glyphs, sources
from lottolab.checks import one_of, require


@dataclass(frozen=True, eq=False)
class Dataset:
    """Hold one data set; `load` hands the same object to all, so never write to it.

    `images` uint8 [N, C, H, W] in 0..255; `labels` int64 [N] in [0, classes); `test`
    bool [N], True where the official source puts the example in its test partition
    (all False for sets without one); `synthetic`, True where no camera or pen made the
    images; `checksum`, sha256 in hex of images, labels and test, computed here unless
    the loader has already verified the bytes and names them by that.

    Raises ValueError where a dtype, shape or label is not as above.
    """

    name: str
    images: Tensor
    labels: Tensor
    classes: int
    test: Tensor
    synthetic: bool
    checksum: str = ""

    def __post_init__(self) -> None:
        n = len(self.images)
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            given = f"{self.images.dtype} {list(self.images.shape)}"
            raise ValueError(f"images must be uint8 [N, C, H, W], got {given}")
        for key, dtype in (("labels", torch.int64), ("test", torch.bool)):
            value = getattr(self, key)
            if value.dtype != dtype or value.shape != (n,):
                given = f"{value.dtype} {list(value.shape)}"
                raise ValueError(f"{key} must be {dtype} [{n}], got {given}")
        if n and not 0 <= self.labels.min() <= self.labels.max() < self.classes:
            given = f"{self.labels.min()}..{self.labels.max()}"
            raise ValueError(f"labels must be in [0, {self.classes}), got {given}")
        if not self.checksum:
            object.__setattr__(self, "checksum", self._digest())

    def _digest(self) -> str:
        digest = hashlib.sha256(repr(tuple(self.images.shape)).encode())
        for part in (self.images, self.labels, self.test):
            digest.update(part.contiguous().numpy())
        return digest.hexdigest()

    @cached_property
    def first(self) -> Tensor:
        """Mark the first occurrence of each image; bool [N].

        The official test partition comes last in that order: an image that is also in
        the training part is not a first occurrence there.
        """
        rows = self.images.flatten(1).contiguous().numpy()
        mark, seen = torch.zeros(len(rows), dtype=torch.bool), set()
        for i in self.test.to(torch.uint8).argsort(stable=True).tolist():
            key = hashlib.blake2b(rows[i], digest_size=16).digest()
            mark[i] = key not in seen
            seen.add(key)
        return mark


def load(name: str, **options: int) -> Dataset:
    """Read a data set by name, once per process.

    `fashion-mnist` (embedded), `digits` (option `size`), `glyphs` (options `classes`,
    `images`, `first_class`, `seed`), and through torchvision `cifar10`, `cifar100`,
    `mnist`, `svhn`. The last four lie in the folder that LOTTOLAB_DATA names, else in
    `data/downloads`, and are downloaded where the network allows.

    Raises ValueError for an unknown name or option or a damaged file,
    FileNotFoundError for a file that is missing and cannot be had.

    >>> load("digits").images.shape
    torch.Size([1797, 1, 8, 8])
    """
    one_of("data set", name, LOADERS)
    allowed = inspect.signature(LOADERS[name]).parameters
    require(bool(allowed) or not options, f"{name} takes no options", list(options))
    for key, value in options.items():
        one_of(f"option of {name}", key, allowed)
        require(type(value) is int, f"{key} must be an integer", repr(value))
    defaults = {key: parameter.default for key, parameter in allowed.items()}
    return _load(name, tuple((defaults | options).items()))


def get(named: str | dict) -> Dataset:
    """Read a data set by what a stage's argument holds: a name, or name and options.

    >>> get({"name": "digits", "size": 28}).images.shape
    torch.Size([1797, 1, 28, 28])
    """
    return load(named) if isinstance(named, str) else load(**named)


# A process that sweeps over glyph sets must not keep them all.
@lru_cache(maxsize=8)
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

    require(8 <= size <= 224, "size must be in [8, 224]", size)
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
    """Draw synthetic images of letters; see `lottolab.glyphs.draw`."""
    pixels, labels = glyphs.draw(classes, images, first_class, seed)
    test = torch.zeros(images, dtype=torch.bool)
    return Dataset("glyphs", pixels, labels, classes, test, True)


LOADERS: dict[str, Callable[..., Dataset]] = {
    "digits": _digits,
    "glyphs": _glyphs,
    **{name: partial(_official, name) for name in sources.NAMES},
}


def splits(
    dataset: Dataset, *, train: int, val: int, test: int, holdout: int = 0, seed: int
) -> dict[str, Tensor]:
    """Draw named, disjoint splits; int64 indices, in random order.

    Only first occurrences are drawn (`Dataset.first`), so that no image is in two
    splits. Where the source has a test partition, `test` comes from it and the rest
    from the training part; otherwise all come from the whole.

    `train` is the head of one permutation that only the seed and the data set decide:
    it does not change with the other sizes, and a smaller one is a prefix of a larger
    one. So is an official `test`. The others are cut from the permutation's end, in
    the order test (where it has no partition of its own), val, holdout: each depends
    on its own size and on those before it.

    Raises ValueError for a negative size or more examples than there are.

    >>> parts = splits(load("digits"), train=1000, val=100, test=200, seed=0)
    >>> [len(part) for part in parts.values()]
    [1000, 100, 200, 0]
    """
    sizes = {"train": train, "val": val, "test": test, "holdout": holdout}
    for key, size in sizes.items():
        require(size >= 0, f"{key} must be at least 0", size)
    generator = torch.Generator().manual_seed(seed)
    pool = _shuffled(dataset.first & ~dataset.test, generator)
    if dataset.test.any():
        apart = _shuffled(dataset.first & dataset.test, generator)
        _enough(f"test={test}", test, len(apart), f"the test part of {dataset.name}")
        shared = ("val", "holdout")
    else:
        apart, shared = pool[:0], ("test", "val", "holdout")
    asked = " + ".join(f"{key}={sizes[key]}" for key in ("train", *shared))
    total = train + sum(sizes[key] for key in shared)
    _enough(asked, total, len(pool), dataset.name)
    parts, end = {"train": pool[:train], "test": apart[:test]}, len(pool)
    for key in shared:
        parts[key] = pool[end - sizes[key] : end]
        end -= sizes[key]
    return {key: parts[key] for key in sizes}


def _shuffled(mark: Tensor, generator: torch.Generator) -> Tensor:
    index = mark.nonzero().flatten()
    return index[torch.randperm(len(index), generator=generator)]


def _enough(asked: str, size: int, available: int, where: str) -> None:
    limit = f"{where} has {available} distinct images: {asked} must not ask for more"
    require(size <= available, limit, size)


def subsets(n: int, models: int, seed: int) -> Tensor:
    """Choose training sets for reference models; bool [models, n].

    Every example is in exactly half of the models, uniformly and independently of the
    other examples, as Carlini et al. (2022, "Membership inference attacks from first
    principles", section V) train their shadow models.

    Raises ValueError unless `models` is even and at least 2 and `n` at least 1.

    >>> subsets(5, 4, seed=0).sum(0)
    tensor([2, 2, 2, 2, 2])
    """
    even = models >= 2 and models % 2 == 0
    require(even, "models must be even and at least 2", models)
    require(n >= 1, "n must be at least 1", n)
    generator = torch.Generator().manual_seed(seed)
    ranks = torch.rand(n, models, generator=generator, dtype=torch.float64)
    return (ranks.argsort(dim=1) < models // 2).T.contiguous()


def normalisation(images: Tensor) -> tuple[Tensor, Tensor]:
    """Measure mean and standard deviation per channel; float32 [C] each, of x / 255.

    `images` uint8 [N, C, H, W]: the training split's, never all. A constant channel
    gets 1 as deviation, so that it can be divided by.

    Raises ValueError for another dtype or shape, or no images.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or not len(images):
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
