"""Write the papers' data sets in their true on-disk formats, tiny and full of noise.

A rehearsal reads them where the real ones are absent, so that the code that decodes a
set is the code that will decode the real one. Nothing is learned from them.
"""

import gzip
import io
import pickle
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import md5
from pathlib import Path

import numpy as np

from lottolab.checks import one_of
from lottolab.images import sources


def write(name: str, root: Path, train: int, test: int) -> dict[str, dict]:
    """Write a set with about so many pictures under `root`; return what differs.

    torchvision checks its archives by the md5 of the real ones. What is returned holds,
    by the name of torchvision's class, the attributes that stand for the tiny one; for
    folders of pictures it is empty. Labels go through the classes in turn.
    """
    one_of("the archive", name, WRITERS)
    return WRITERS[name](root, train, test)


@contextmanager
def standing_in(names: list[str], root: Path, train: int, test: int) -> Iterator[None]:
    """Within the block, torchvision takes tiny archives of these sets for the real."""
    import torchvision.datasets as sets

    try:
        for name in names:
            for kind, change in write(name, root, train, test).items():
                sources.STANDING_IN[kind] = type(kind, (getattr(sets, kind),), change)
        yield
    finally:
        sources.STANDING_IN.clear()


def noise(count: int, *shape: int, seed: int) -> np.ndarray:
    """Return `count` different arrays of random bytes."""
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


def _cifar10(root: Path, train: int, test: int) -> dict:
    return _cifar("CIFAR10", root, train, test, "labels", 10)


def _cifar100(root: Path, train: int, test: int) -> dict:
    return _cifar("CIFAR100", root, train, test, "fine_labels", 100)


def _cifar(kind: str, root: Path, train: int, test: int, key: str, classes: int):
    """Write pickled batches in a gzipped tar: rows of 1,024 red, green, blue bytes."""
    import torchvision.datasets as sets

    source, files = getattr(sets, kind), {}
    for part, count in (("train_list", train), ("test_list", test)):
        names = [name for name, _ in getattr(source, part)]
        sizes = [len(places) for places in np.array_split(range(count), len(names))]
        for seed, (name, size) in enumerate(zip(names, sizes, strict=True)):
            rows = noise(size, 3072, seed=seed + 10 * (part == "test_list"))
            batch = {"data": rows, key: [k % classes for k in range(size)]}
            files[name] = pickle.dumps(batch, protocol=2)
    meta = pickle.dumps({source.meta["key"]: [str(k) for k in range(classes)]})
    files[source.meta["filename"]] = meta
    path = root / source.filename
    with tarfile.open(path, "w:gz") as archive:
        for name, raw in files.items():
            entry = tarfile.TarInfo(f"{source.base_folder}/{name}")
            entry.size = len(raw)
            archive.addfile(entry, io.BytesIO(raw))
    change = {"tgz_md5": _md5(path), "meta": source.meta | {"md5": _hex(meta)}}
    for part in ("train_list", "test_list"):
        change[part] = [[name, _hex(files[name])] for name, _ in getattr(source, part)]
    return {kind: change}


def _mnist(root: Path, train: int, test: int) -> dict:
    """Write four gzipped IDX files: 0, 0, 8, how many axes, big-endian sizes, bytes."""
    import torchvision.datasets as sets

    folder, resources = root / "MNIST" / "raw", []
    folder.mkdir(parents=True, exist_ok=True)
    arrays = []
    for seed, count in enumerate((train, test)):
        arrays += [noise(count, 28, 28, seed=seed), np.arange(count, dtype=np.int64)]
    for (name, _), array in zip(sets.MNIST.resources, arrays, strict=True):
        array = (array % 10 if array.ndim == 1 else array).astype(np.uint8)
        head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
        (folder / name).write_bytes(gzip.compress(head + array.tobytes()))
        resources.append((name, _md5(folder / name)))
    return {"MNIST": {"resources": resources}}


def _svhn(root: Path, train: int, test: int) -> dict:
    """Write MATLAB 5 files: X is height × width × RGB × N, y in 1..10, 10 means 0."""
    import torchvision.datasets as sets
    from scipy.io import savemat

    listed = dict(sets.SVHN.split_list)
    for seed, (part, count) in enumerate((("train", train), ("test", test))):
        url, name, _ = listed[part]
        x = noise(count, 3, 32, 32, seed=seed).transpose(2, 3, 1, 0)
        y = (np.arange(count) % 10 + 1).astype(np.uint8)[:, None]
        savemat(root / name, {"X": x, "y": y}, format="5")
        listed[part] = [url, name, _md5(root / name)]
    return {"SVHN": {"split_list": listed}}


def _tinyimagenet(root: Path, train: int, test: int) -> dict:
    """Write 64×64 JPEGs of 200 classes; a class that has no picture has an empty list.

    See `folders._tinyimagenet` for the layout; the numbers behind the names are boxes.
    """
    folder = root / "tiny-imagenet-200"
    wnids = [f"n{10_000_000 + place}" for place in range(200)]
    _lines(folder / "wnids.txt", wnids)
    boxes: dict[str, list[str]] = {wnid: [] for wnid in wnids}
    for place, array in enumerate(noise(train, 64, 64, 3, seed=0)):
        wnid = wnids[place % 200]
        name = f"{wnid}_{place // 200}.JPEG"
        boxes[wnid].append(f"{name}\t0\t0\t63\t63")
        picture(folder / "train" / wnid / "images" / name, array)
    for wnid, rows in boxes.items():
        _lines(folder / "train" / wnid / f"{wnid}_boxes.txt", rows)
    marks = []
    for place, array in enumerate(noise(test, 64, 64, 3, seed=1)):
        marks.append(f"val_{place}.JPEG\t{wnids[place % 200]}\t0\t0\t63\t63")
        picture(folder / "val" / "images" / f"val_{place}.JPEG", array)
    _lines(folder / "val" / "val_annotations.txt", marks)
    return {}


def _cub200(root: Path, train: int, test: int) -> dict:
    """Write JPEGs of several shapes, and the four lists, whose numbers begin with 1."""
    folder, classes = root / "CUB_200_2011", min(200, train)
    names = [f"{place + 1:03d}.Bird_{place + 1}" for place in range(classes)]
    rows: dict[str, list[str]] = {"images": [], "image_class_labels": []}
    rows["train_test_split"] = []
    for place in range(train + test):
        label, shape = place % classes, (40 + place % 7, 50 - place % 5, 3)
        file = f"{names[label]}/Bird_{place:04d}.jpg"
        picture(folder / "images" / file, noise(1, *shape, seed=place)[0])
        values = (file, label + 1, int(place < train))
        for key, value in zip(rows, values, strict=True):
            rows[key].append(f"{place + 1} {value}")
    rows["classes"] = [f"{place + 1} {name}" for place, name in enumerate(names)]
    for key, lines in rows.items():
        _lines(folder / f"{key}.txt", lines)
    return {}


def _indoor67(root: Path, train: int, test: int) -> dict:
    """Write pictures of all formats and colours that are under a .jpg name there."""
    folder, classes = root / "indoor67", min(67, train)
    kinds = (("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("GIF", "P"))
    lists: dict[str, list[str]] = {"TrainImages": [], "TestImages": []}
    for place in range(train + test):
        file = f"room_{place % classes:02d}/picture {place}.jpg"
        format_, mode = kinds[place % len(kinds)]
        array = noise(1, 36, 44, 3, seed=place)[0]
        picture(folder / "Images" / file, array, format_, mode)
        lists["TrainImages" if place < train else "TestImages"].append(file)
    for key, lines in lists.items():
        _lines(folder / f"{key}.txt", lines)
    return {}


def picture(path: Path, array: np.ndarray, format_: str = "JPEG", mode: str = "RGB"):
    """Write an array, uint8 [H, W, 3], as a picture file, whatever its name ends in."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).convert(mode).save(path, format_)


def _lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def _md5(path: Path) -> str:
    return _hex(path.read_bytes())


def _hex(raw: bytes) -> str:
    return md5(raw).hexdigest()


WRITERS = {
    "cifar10": _cifar10,
    "cifar100": _cifar100,
    "mnist": _mnist,
    "svhn": _svhn,
    "tinyimagenet": _tinyimagenet,
    "cub200": _cub200,
    "indoor67": _indoor67,
}
