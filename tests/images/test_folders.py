"""Folders of pictures: the layouts of their authors, true pixels, and every fault."""

import numpy as np
import pytest
import torch
from PIL import Image

from lottolab.images import archives, datasets, folders

NAMES = list(folders.FORMS)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("LOTTOLAB_DATA", str(tmp_path))
    monkeypatch.setenv("LOTTOLAB_STORE", str(tmp_path / "store"))
    datasets._load.cache_clear()
    yield tmp_path
    datasets._load.cache_clear()


def expected(path, size: int, shorter: int) -> np.ndarray:
    """Do with Pillow alone what the reader promises."""
    colours = Image.open(path).convert("RGB")
    wide, high = colours.size
    scale = shorter / min(wide, high)
    shape = (shorter, int(scale * high)) if wide <= high else (int(scale * wide), 0)
    shape = shape if shape[1] else (shape[0], shorter)
    if shape != colours.size:
        colours = colours.resize(shape, Image.Resampling.BILINEAR)
    left, top = (round((side - size) / 2) for side in shape)
    return np.asarray(colours.crop((left, top, left + size, top + size)))


def paths(root, name: str) -> list:
    """Say by hand which files are read, in which order: training, then test."""
    if name == "tinyimagenet":
        base = root / "tiny-imagenet-200"
        train = sorted(base.glob("train/*/images/*.JPEG"))
        places = range(len(list(base.glob("val/images/*.JPEG"))))
        return train + [base / f"val/images/val_{k}.JPEG" for k in places]
    if name == "cub200":
        base = root / "CUB_200_2011"
        lines = (base / "images.txt").read_text().split()
        return [base / "images" / file for file in lines[1::2]]
    base = root / "indoor67"
    files = [(base / f"{part}Images.txt").read_text() for part in ("Train", "Test")]
    return [base / "Images" / file for file in "".join(files).splitlines()]


@pytest.mark.parametrize("name", NAMES)
def test_the_pixels_are_pillows(name, root):
    archives.write(name, root, train=11, test=4)
    given = {"tinyimagenet": {"size": 32}}.get(name, {})
    got = datasets.load(name, **given)
    size, shorter = (32, 32) if given else (224, 256)
    assert got.images.shape == (15, 3, size, size)
    assert got.images.dtype == torch.uint8
    assert got.test.tolist() == [False] * 11 + [True] * 4
    assert not got.synthetic
    for image, path in zip(got.images, paths(root, name), strict=True):
        wanted = expected(path, size, shorter).transpose(2, 0, 1)
        assert np.array_equal(image.numpy(), wanted), path
    assert datasets.load(name, **given) is got
    datasets._load.cache_clear()  # as in another process: from the store
    assert datasets.load(name, **given).checksum == got.checksum
    if name == "tinyimagenet":
        whole = datasets.load(name)
        first = np.asarray(Image.open(paths(root, name)[0]))
        assert np.array_equal(whole.images[0].permute(1, 2, 0), first)


def test_the_labels_are_those_of_the_lists(root):
    for name in NAMES:
        archives.write(name, root, train=300, test=10)
    birds, tiny = datasets.load("cub200", size=8), datasets.load("tinyimagenet", size=8)
    rooms = datasets.load("indoor67", size=8)
    assert [birds.classes, tiny.classes, rooms.classes] == [200, 200, 67]
    assert birds.labels.tolist() == [k % 200 for k in range(310)]
    order = (root / "tiny-imagenet-200/wnids.txt").read_text().split()
    for path, label in zip(
        paths(root, "tinyimagenet")[:300], tiny.labels, strict=False
    ):
        assert order[label] == path.parents[1].name
    assert tiny.labels[300:].tolist() == list(range(10))
    assert rooms.labels.tolist() == [k % 67 for k in range(310)]


def test_lines_in_another_order_change_the_labels_with_them(root):
    archives.write("cub200", root, train=6, test=3)
    before = datasets.load("cub200", size=8)
    for name in ("images", "image_class_labels", "train_test_split", "classes"):
        path = root / "CUB_200_2011" / f"{name}.txt"
        lines = path.read_text().splitlines()
        path.write_text("\n".join(lines if name == "images" else lines[::-1]) + "\n")
    datasets._load.cache_clear()
    after = datasets.load("cub200", size=8)
    assert torch.equal(before.images, after.images)
    assert torch.equal(before.test, after.test)
    assert torch.equal(5 - before.labels, after.labels)  # numbered by classes.txt


def test_grey_and_other_formats_become_colours(root):
    path = root / "grey.jpg"
    ramp = np.repeat(np.arange(0, 240, 5, dtype=np.uint8)[None, :, None], 48, 0)
    for format_, mode in (("JPEG", "L"), ("PNG", "LA"), ("GIF", "L"), ("JPEG", "CMYK")):
        archives.picture(path, ramp.repeat(3, 2), format_, mode)
        got = folders.pixels(path, 48, 1.0)
        assert got.shape == (3, 48, 48)
        assert (got.max(0).astype(int) - got.min(0)).max() <= 6
        assert abs(got[0].astype(int) - ramp[:, :, 0]).max() <= 6


@pytest.mark.parametrize("name", NAMES)
def test_without_the_folder_the_error_says_what_to_put_where(name, root):
    form = folders.FORMS[name]
    with pytest.raises(FileNotFoundError) as caught:
        datasets.load(name)
    message = str(caught.value)
    for part in (form.title, str(root / form.folder), form.archive.split(",")[0]):
        assert part in message
    assert "LOTTOLAB_DATA" in message
    assert "\n" not in message


FAULTS = {
    "tinyimagenet": [
        ("wnids.txt", None, FileNotFoundError, "wnids.txt is missing"),
        ("val/val_annotations.txt", None, FileNotFoundError, "annotations.txt is mis"),
        (
            "val/val_annotations.txt",
            ("\tn10000001\t", "\tn999\t"),
            ValueError,
            "name only what the set has, got 'n999'",
        ),
        (
            "val/val_annotations.txt",
            ("val_2.JPEG\t", "val_1.JPEG\t"),
            ValueError,
            "each picture once, got val/images/val_1.JPEG",
        ),
        (
            "val/val_annotations.txt",
            ("\t63", ""),
            ValueError,
            r"line 1 of .*annotations.txt must have 6 fields, got 'val_0.JPEG",
        ),
        ("val/images/val_1.JPEG", None, FileNotFoundError, "val_1.JPEG is listed but"),
    ],
    "cub200": [
        ("classes.txt", None, FileNotFoundError, "classes.txt is missing"),
        ("image_class_labels.txt", ("3 3\n", ""), ValueError, "got 'none for 3'"),
        ("image_class_labels.txt", ("3 3\n", "3 7\n"), ValueError, "got '7'"),
        ("train_test_split.txt", ("5 0\n", "5 2\n"), ValueError, "got '2'"),
        ("train_test_split.txt", ("5 0\n", "5\n"), ValueError, "must have 2 fields"),
        ("images.txt", ("Bird_0001.jpg", "Bird_9.jpg"), FileNotFoundError, "Bird_9"),
    ],
    "indoor67": [
        ("TestImages.txt", None, FileNotFoundError, "TestImages.txt is missing"),
        (
            "TestImages.txt",
            ("room_00/picture 4.jpg", "room_00/picture 0.jpg"),
            ValueError,
            "each picture once, got Images/room_00/picture 0.jpg",
        ),
        ("TrainImages.txt", ("room_01/", ""), ValueError, "lines class/file, got 'pic"),
    ],
}


@pytest.mark.parametrize(
    ("name", "file", "change", "error", "message"),
    [(name, *fault) for name, faults in FAULTS.items() for fault in faults],
)
def test_faults_are_named(name, file, change, error, message, root):
    archives.write(name, root, train=4, test=3)
    path = root / folders.FORMS[name].folder / file
    if change is None:
        path.unlink()
    else:
        assert change[0] in path.read_text()
        path.write_text(path.read_text().replace(*change, 1))
    with pytest.raises(error, match=message):
        datasets.load(name, size=8)


def test_broken_pictures_are_named_together(root):
    archives.write("indoor67", root, train=6, test=2)
    first, second = paths(root, "indoor67")[:2]
    first.write_bytes(first.read_bytes()[:-400])
    second.write_bytes(b"not a picture")
    with pytest.raises(ValueError, match="2 of 8 pictures") as caught:
        datasets.load("indoor67", size=8)
    for part in (
        "picture 0.jpg (image file is truncated",
        "picture 1.jpg (cannot iden",
    ):
        assert part in str(caught.value)
    archives.write("indoor67", root, train=6, test=2)  # replaced by good copies
    assert len(datasets.load("indoor67", size=8).images) == 8


def test_a_replaced_picture_is_decoded_again(root):
    archives.write("cub200", root, train=4, test=1)
    before = datasets.load("cub200", size=8)
    new = archives.noise(1, 60, 60, 3, seed=99)[0]
    archives.picture(paths(root, "cub200")[2], new)
    datasets._load.cache_clear()
    after = datasets.load("cub200", size=8)
    same = (before.images == after.images).flatten(1).all(1)
    assert same.tolist() == [True, True, False, True, True]


@pytest.mark.parametrize("size", [7, 257])
def test_sizes_out_of_range_are_refused(size, root):
    archives.write("cub200", root, train=2, test=1)
    with pytest.raises(ValueError, match=rf"size must be in \[8, 256\], got {size}"):
        datasets.load("cub200", size=size)
    with pytest.raises(ValueError, match="did you mean size"):
        datasets.load("cub200", sise=8)


# ------------------------------------------------------- torchvision's, tiny


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "mnist", "svhn"])
def test_tiny_archives_stand_in_and_leave_nothing_behind(name, root):
    with archives.standing_in([name], root, train=25, test=10):
        got = datasets.load(name)
        assert len(got.images) == 35
        assert int(got.test.sum()) == 10
        assert got.first.all()
        assert len(got.labels.unique()) > 4
    datasets._load.cache_clear()
    with pytest.raises(ValueError, match="is damaged"):  # they are not the real ones
        datasets.load(name)
