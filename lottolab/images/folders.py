"""The papers' sets that come as folders of pictures, with labels in text files.

TinyImageNet-200, CUB-200-2011 and MIT Indoor67, each in its authors' own layout. The
pictures of a set are decoded once, kept in the run store, and made one size: the
shorter side is resized and the centre cut out (bilinear, with antialiasing), in colour
whatever they were. A set is held in memory whole, 3 × size² bytes a picture.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lottolab import runs
from lottolab.checks import require, within
from lottolab.images import sources

Entry = tuple[str, int, bool]  # path within the folder, label, in the test part


@dataclass(frozen=True)
class Form:
    """Say what a set looks like on disk, and where it comes from.

    `size`, pixels a side, is what the papers use; `margin` is how much of the resized
    shorter side is left, 1 for pictures that are square already.
    """

    title: str
    folder: str
    archive: str
    home: str
    entries: Callable[[Path], Iterator[Entry]]
    size: int
    margin: float


def read(name: str, size: int) -> tuple[Tensor, Tensor, Tensor, int]:
    """Return a set's images, uint8 [N, 3, size, size]; labels; test; and its classes.

    `labels` int64 [N] and `test` bool [N], as in `data.Dataset`.

    Raises FileNotFoundError where the folder, a label file or a picture is missing;
    ValueError for a label file that is not of its form, a picture that is listed twice
    or cannot be decoded, and a size out of [8, 256].
    """
    within("size", size, "[8, 256]")
    listed, digest = _listed(name)
    images = decoded(name=name, size=size, files=digest)["images"]
    labels = torch.tensor([label for _, label, _ in listed])
    test = torch.tensor([test for _, _, test in listed])
    return images, labels, test, int(labels.max()) + 1


def folder(name: str) -> Path:
    """Return where the set's folder belongs, whether it is there or not."""
    return sources.root() / FORMS[name].folder


def pixels(path: Path, size: int, margin: float) -> np.ndarray:
    """Decode a picture of any format and colours; uint8 [3, size, size].

    The shorter side becomes `size` / `margin` pixels long and the centre is kept. Of
    an animation it is the first frame; transparency is dropped.
    """
    from PIL import Image
    from torchvision.transforms.functional import center_crop, resize

    with Image.open(path) as picture:
        colours = picture.convert("RGB")
    cut = center_crop(resize(colours, [round(size / margin)]), [size])
    return np.asarray(cut).transpose(2, 0, 1)


@runs.stage("folders.decoded")
def decoded(*, name: str, size: int, files: str) -> dict:
    """Decode a set's pictures; `files` is the digest of what is listed, see `_listed`.

    In the store they are read by many processes in the time of a copy.
    """
    listed, _ = _listed(name)
    images = np.empty((len(listed), 3, size, size), np.uint8)
    broken = []
    for place, (file, _, _) in enumerate(listed):
        path = folder(name) / file
        try:
            images[place] = pixels(path, size, FORMS[name].margin)
        except (OSError, SyntaxError, ValueError) as error:  # all that Pillow raises
            broken.append(f"{file} ({' '.join(str(error).split())})")
    if broken:
        shown = "; ".join(broken[:3]) + ("; …" if len(broken) > 3 else "")
        raise ValueError(
            f"{len(broken)} of {len(listed)} pictures in {folder(name)} cannot be "
            f"decoded: {shown}: replace them by good copies or take them off the list"
        )
    return {"images": torch.from_numpy(images)}


def _listed(name: str) -> tuple[list[Entry], str]:
    """List a set's pictures; digest the list, and the files' sizes and dates."""
    form, where = FORMS[name], folder(name)
    if not where.is_dir():
        raise FileNotFoundError(
            f"{form.title} is not at {where}: unpack {form.archive} ({form.home}) so "
            "that this folder is there, or name the folder around it in LOTTOLAB_DATA"
        )
    listed, seen, digest = list(form.entries(where)), set(), hashlib.sha256()
    for file, label, test in listed:
        require(file not in seen, f"{where} must list each picture once", file)
        seen.add(file)
        path = where / file
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} is listed but missing: unpack {form.archive} again"
            )
        state = path.stat()
        changed = f"{state.st_size} {state.st_mtime_ns}"
        digest.update(f"{file}\n{label} {test} {changed}\n".encode())
    require(bool(listed), f"{where} must list at least one picture", "none")
    return listed, digest.hexdigest()


def _rows(path: Path, columns: int, separator: str | None = None) -> Iterator[list]:
    """Yield the fields of each line of a label file; blanks at its ends are ignored."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: it holds the set's labels")
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        fields = line.strip().split(separator)
        if line.strip():
            form = f"line {number} of {path} must have {columns} fields"
            require(len(fields) == columns, form, repr(line.strip()[:60]))
            yield fields


def _place(path: Path, names: dict[str, int], name: str) -> int:
    require(name in names, f"{path} must name only what the set has", repr(name))
    return names[name]


def _tinyimagenet(where: Path) -> Iterator[Entry]:
    """List the 500 training and 50 validation pictures of each of 200 classes.

    A class's number is the line of `wnids.txt` that names it. The validation part is
    the test part here: the test pictures have no public labels.
    """
    order = where / "wnids.txt"
    names = {wnid: place for place, (wnid,) in enumerate(_rows(order, 1))}
    for wnid, label in names.items():
        boxes = where / "train" / wnid / f"{wnid}_boxes.txt"
        for file, *_ in _rows(boxes, 5):
            yield f"train/{wnid}/images/{file}", label, False
    marks = where / "val" / "val_annotations.txt"
    for file, wnid, *_ in _rows(marks, 6):
        yield f"val/images/{file}", _place(marks, names, wnid), True


def _cub200(where: Path) -> Iterator[Entry]:
    """List 11,788 birds of 200 species; classes and pictures are numbered from 1."""
    kinds = where / "image_class_labels.txt"
    parts = where / "train_test_split.txt"
    labels, training = dict(_rows(kinds, 2)), dict(_rows(parts, 2))
    classes = [number for number, _ in _rows(where / "classes.txt", 2)]
    names = {number: place for place, number in enumerate(classes)}
    for number, file in _rows(where / "images.txt", 2):
        label = _place(kinds, names, labels.get(number, f"none for {number}"))
        part = _place(parts, {"0": 0, "1": 1}, training.get(number, f"no {number}"))
        yield f"images/{file}", label, not part


def _indoor67(where: Path) -> Iterator[Entry]:
    """List the 5,360 training and 1,340 test pictures that the authors chose.

    The archive has 15,620; the others are in neither list and are left out. A class's
    number is its place among the names in the two lists, in alphabetical order.
    """
    chosen = [
        (file, test)
        for list_name, test in (("TrainImages.txt", False), ("TestImages.txt", True))
        for (file,) in _rows(where / list_name, 1, "\n")
    ]
    for file, _ in chosen:
        split = file.count("/") == 1
        require(split, f"{where}'s lists must hold lines class/file", repr(file))
    classes = sorted({file.split("/")[0] for file, _ in chosen})
    for file, test in chosen:
        yield f"Images/{file}", classes.index(file.split("/")[0]), test


FORMS = {
    "tinyimagenet": Form(
        "TinyImageNet-200",
        "tiny-imagenet-200",
        "tiny-imagenet-200.zip",
        "from Stanford's course CS231n",
        _tinyimagenet,
        64,
        1.0,
    ),
    "cub200": Form(
        "CUB-200-2011",
        "CUB_200_2011",
        "CUB_200_2011.tgz",
        "from Caltech's vision group",
        _cub200,
        224,
        224 / 256,
    ),
    "indoor67": Form(
        "MIT Indoor67",
        "indoor67",
        "indoorCVPR_09.tar, with TrainImages.txt and TestImages.txt beside Images,",
        "from Antonio Torralba's page at MIT, Indoor Scene Recognition",
        _indoor67,
        224,
        224 / 256,
    ),
}
