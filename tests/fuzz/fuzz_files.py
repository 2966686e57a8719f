"""Files that are cut off, or have bits, bytes or numbers changed, and their readers.

A reader gives what is in the file, as its own writer would write it, or refuses in a
line that names the file. The file itself stays as it is.
"""

import functools
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from fuzz_cases import rows
from fuzzing import Finding

from lottolab.images import folders, sources
from lottolab.modelguard import ModelGuardS
from lottolab.modelguard.service.state import State
from lottolab.nets import checkpoint, models
from lottolab.ownership import SignatureKey
from lottolab.runs import store
from lottolab.truth import claims_file, results

ODD = [b"null", b"NaN", b"-1", b"1e999", b'"x"', b"[]", b"{}", b"\0", b"\xff", b"\n"]


@dataclass(frozen=True)
class File:
    """A kind of file: who writes one into a folder, and who reads it.

    right: of what was read; false is a finding.
    errors: how a reader may refuse; it must name the file.
    """

    write: Callable[[Path], Path]
    read: Callable[[Path], object]
    right: Callable[[object], object]
    errors: tuple[type[Exception], ...] = (ValueError, OSError)


def tried(kind: File, whole: bytes, seed: int) -> str:
    """Damage the bytes of a file of a kind, read it, and say what came of it."""
    random = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory(prefix="lottolab-") as folder:
        path = kind.write(Path(folder))
        damaged = broken(whole, random)
        path.write_bytes(damaged)
        before = sorted(Path(folder).rglob("*"))
        try:
            found = kind.read(path)
        except kind.errors as error:
            text = str(error)
            if path.name not in text and path.parent.name not in text:
                raise Finding(f"refused without its name: {error!r}") from error
            if len(text) > 2000:
                raise Finding(f"refused at length: {text[:200]}") from error
            return "refused"
        except Exception as error:
            raise Finding(f"{type(error).__name__}: {str(error)[:200]}") from error
        finally:
            same = kind.write is state or path.read_bytes() == damaged
            if not same or sorted(Path(folder).rglob("*")) != before:
                raise Finding("reading changed the folder")
    if not kind.right(found):
        raise Finding(f"accepted what is wrong: {str(found)[:200]}")
    return "right"


@functools.cache
def sample(kind: File) -> bytes:
    """Return the bytes of a whole file; it must be read."""
    with tempfile.TemporaryDirectory(prefix="lottolab-") as folder:
        path = kind.write(Path(folder))
        assert kind.right(kind.read(path))
        return path.read_bytes()


def broken(whole: bytes, random: np.random.Generator) -> bytes:
    """Cut bytes off, flip bits, or put odd words over or between them."""
    way, place = random.integers(6), int(random.integers(len(whole)))
    if way == 0:
        return whole[:place]
    if way == 1:
        return whole + whole[:place]
    word = ODD[random.integers(len(ODD))]
    if way == 2:
        return whole[:place] + word + whole[place:]
    if way == 3:
        return whole[:place] + word + whole[place + len(word) :]
    if way == 4:
        return whole[:place] + whole[place + int(random.integers(1, 9)) :]
    changed = bytearray(whole)
    for _ in range(int(random.integers(1, 4))):
        # Headers are short, and all that a reader can judge.
        end = len(whole) if random.random() < 0.5 else min(len(whole), 400)
        changed[int(random.integers(end))] ^= 1 << int(random.integers(8))
    return bytes(changed)


def network(folder: Path) -> Path:
    path, frame = folder / "network.safetensors", {"name": "cnn4", "width": 1}
    model = models.build(**frame, channels=1, classes=2, seed=0)
    frame |= {"channels": 1, "classes": 2, "stem": "same", "size": 8}
    scale = torch.zeros(1), torch.ones(1)
    checkpoint.save(model, path, network=frame, mean_std=scale)
    return path


def tensors(folder: Path) -> Path:
    models.save({"a": torch.arange(6.0)}, folder / "state.safetensors")
    return folder / "state.safetensors"


def key(folder: Path) -> Path:
    values = {"layer": "a", "shape": (30, 30), "row": 1, "column": 2, "version": 1}
    values |= {"ecc": "L", "mask": 3, "secret": "ab" * 16, "windows": 100}
    SignatureKey(**values, threshold=0.1, digest="cd" * 32).save(folder / "key.json")
    return folder / "key.json"


def claims(folder: Path) -> Path:
    path = folder / "claims.yaml"
    lines = claims_file.FILE.read_text(encoding="utf-8").split("\n\n")
    path.write_text("\n\n".join(lines[:4]), encoding="utf-8")
    return path


def table(folder: Path) -> Path:
    path = folder / "laptop.csv"
    values = {"claim": ["a", ""], "metric": "m", "value": [0.5, 1.0], "seed": [0, 1]}
    values |= {"seconds": 1.0, "fingerprint": "12e4", "stage": "a.b/c"}
    pd.DataFrame(values).to_csv(path, index=False)
    return path


def record(folder: Path) -> Path:
    result = folder / "result"
    values = {"a": torch.arange(4.0), "b": pd.DataFrame({"x": [1]}), "c": [1, None]}
    store.write(values, result, {"stage": "a.b", "fingerprint": "1", "seconds": 1.0})
    return result / "record.json"


def part(folder: Path) -> Path:
    return record(folder).parent / "a.safetensors"


def state(folder: Path) -> Path:
    kept, defence = State(folder / "service.db", {"a": 1}), ModelGuardS(0.1, 4)
    defence(rows(np.random.default_rng(0)))
    kept.keep({"": defence}, [])
    kept.close()
    return folder / "service.db"


def restored(path: Path) -> ModelGuardS:
    kept, defence = State(path, {"a": 1}), ModelGuardS(0.1, 4)
    try:
        kept.restore(defence)
    finally:
        kept.close()
    return defence


def centroids(folder: Path) -> Path:
    defence = ModelGuardS(0.1, 4)
    defence(rows(np.random.default_rng(0)))
    defence.save(folder / "centroids.safetensors")
    return folder / "centroids.safetensors"


def digits(folder: Path) -> Path:
    path = folder / "t10k-labels-idx1-ubyte.gz"
    shutil.copy(sources.FOLDER / "fashion-mnist" / path.name, path)
    return path


def archive(path: Path) -> bytes:
    before, sources.FOLDER = sources.FOLDER, path.parent
    (path.parent / "fashion-mnist").symlink_to(path.parent)
    try:
        return sources._embedded(path.name, sources.FASHION_MNIST[path.name])
    finally:
        (path.parent / "fashion-mnist").unlink()
        sources.FOLDER = before


def picture(folder: Path) -> Path:
    from PIL import Image

    pixels = np.random.default_rng(0).integers(256, size=(9, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "picture.png")
    return folder / "picture.png"


def pictured(path: Path) -> np.ndarray:
    """Refuse as `folders.decoded` does, which knows the name."""
    try:
        return folders.pixels(path, 8, 1.0)
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def kept_whole(found: dict) -> bool:
    """Are all values those that were written, whatever the record calls them?"""
    a, b, c = found.values()
    right = torch.equal(a, torch.arange(4.0)) and c == [1, None]
    return right and b["x"].tolist() == [1]


def sound(found) -> bool:
    tensors = found.model.state_dict().values()
    return all(bool(t.isfinite().all()) for t in tensors) and found.network["size"] > 0


def usable(key: SignatureKey) -> bool:
    """Can a key be used: all that `verify` reads of it?"""
    return key.stream().any() and key.window and key.threshold >= 0


FILES = {
    "network": File(network, checkpoint.load, sound),
    "tensors": File(tensors, models.load_state, lambda f: isinstance(f, dict)),
    "centroids": File(centroids, ModelGuardS.load, lambda f: f.count >= 0),
    "key": File(key, SignatureKey.load, usable),
    "claims": File(claims, claims_file.load, lambda f: isinstance(f, list)),
    "table": File(table, results.load, lambda f: "claim" in f.columns),
    "record": File(
        record,
        lambda path: store.read(path.parent),
        kept_whole,
        (store.Damaged,),
    ),
    "result": File(
        part, lambda path: store.read(path.parent), kept_whole, (store.Damaged,)
    ),
    "state": File(
        state, restored, lambda f: f.count <= 12, (ValueError, OSError, RuntimeError)
    ),
    "data set": File(digits, archive, lambda f: len(f) > 0),
    "picture": File(
        picture,
        pictured,
        lambda f: f.shape == (3, 8, 8),
    ),
}
