"""Divide a data set: into disjoint splits, or into halves for many models."""

import torch
from torch import Tensor

from lottolab.checks import check_seed, require, whole
from lottolab.images.datasets import Dataset


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

    >>> from lottolab.images import datasets
    >>> parts = splits(datasets.load("digits"), train=1000, val=100, test=200, seed=0)
    >>> [len(part) for part in parts.values()]
    [1000, 100, 200, 0]
    """
    sizes = {"train": train, "val": val, "test": test, "holdout": holdout}
    for key, size in sizes.items():
        whole(key, size, 0)
    check_seed(seed)
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
    """Choose training sets for models that refer to each other; bool [models, n].

    Models 2k and 2k + 1 have complementary random halves of the examples, so that each
    example is in exactly half of the models. Carlini et al. (2022, "Membership
    inference attacks from first principles", section V) draw halves without pairs. But
    then the references that are left for a target hold its members once less than its
    non-members, which gives some of them away; without the target *and its partner*
    they hold all examples equally often.

    Raises ValueError unless `models` is even and at least 2 and `n` at least 2.

    >>> subsets(6, 4, seed=0).sum(0)
    tensor([2, 2, 2, 2, 2, 2])
    """
    _check_models(models)
    whole("n", n, 2)
    check_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(n, generator=generator) for _ in range(models // 2)]
    member = torch.stack([order < n // 2 for order in orders])
    return torch.stack([member, ~member], dim=1).flatten(0, 1)


def halves(
    dataset: Dataset, *, pool: int, models: int, test: int, val: int = 0, seed: int
) -> dict[str, Tensor]:
    """Draw one of `models` training sets, each a random half of one pool of images.

    Seeds `models` × g to `models` × g + `models` − 1 share the pool g (`subsets`), so
    that each model has references that saw an image and as many that did not. Returns
    int64 indices: `pool`, in the order that all those seeds share; `train`, the model's
    half of it; `out`, the other half; and `test` and `val`, which no model of the pool
    trains on.

    Raises ValueError as `splits` and `subsets` do.

    >>> from lottolab.images import datasets
    >>> parts = halves(datasets.load("digits"), pool=100, models=4, test=10, seed=5)
    >>> [len(part) for part in parts.values()]
    [100, 50, 50, 10, 0]
    """
    check_seed(seed)
    _check_models(models)
    group, place = divmod(seed, models)
    apart = splits(dataset, train=pool, val=val, test=test, seed=group)
    member = subsets(pool, models, seed=group)[place]
    both = {"train": apart["train"][member], "out": apart["train"][~member]}
    return {"pool": apart["train"]} | both | {k: apart[k] for k in ("test", "val")}


def _check_models(models: int) -> None:
    whole("models", models, 2)
    even = models % 2 == 0
    require(even, "models must be even and at least 2", models)
