"""What a data set is: images, their labels, and which are the official test part."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lottolab.checks import tensors


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
        for key in ("images", "labels", "test"):
            tensors.tensor(key, getattr(self, key))
        n = len(self.images) if self.images.ndim else 0
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
