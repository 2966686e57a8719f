"""Read what a model answered, from a file that any program can write.

A file holds a row an example: the logits, or the probabilities, of every class, the
true label, and whether this model had the example in training. In `.npz` these are the
arrays `logits` (or `probabilities`) [N, C], `labels` [N] and `member` [N]; in `.csv`
and `.parquet` the columns `logit_0`, `logit_1`, … (or `probability_0`, …), `label` and
`member`. Labels are integers from 0, `member` is 0 or 1; other columns are ignored.
"""

import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lottolab.checks import numbers, one_of, require, tensors

KINDS = ("logits", "probabilities")
COLUMNS = {"logit": "logits", "probability": "probabilities"}
LEAST = 1e-12  # a smaller probability counts as this, so that its log is finite
NEITHER = "it must hold logits or probabilities, one of the two"


@dataclass(frozen=True)
class Answers:
    """Hold what one model answered.

    logits: float64 [N, C], finite; logs where probabilities were given. labels: int64
    [N] in [0, C). member: bool [N]. source: what to call it. kind: one of KINDS.
    """

    logits: Tensor
    labels: Tensor
    member: Tensor
    source: str
    kind: str


def read(path: Path, *, reference: bool = False) -> Answers:
    """Read and check one model's file.

    `reference`: a file without `member` is of a model that had none in training.

    Raises:
        ValueError: in one line, what the file lacks, or holds that it must not.
    """
    require(path.is_file(), f"{path} must be a file", "none of that name")
    one_of(f"{path}: its ending", path.suffix, READERS)
    try:
        found = READERS[path.suffix](path)
        return _checked(found, str(path), reference)
    except ImportError as error:
        raise ValueError(f"{path}: .parquet needs `pip install pyarrow`") from error
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        text = " ".join(str(error).splitlines())
        raise ValueError(text if str(path) in text else f"{path}: {text}") from error


def same_examples(target: Answers, reference: Answers) -> None:
    """Raise ValueError unless a reference answered the target's examples, in order."""
    shape = list(target.logits.shape)
    what = f"{reference.source} must answer the examples of {target.source}, {shape}"
    require(list(reference.logits.shape) == shape, what, list(reference.logits.shape))
    odd = (reference.labels != target.labels).nonzero().flatten()
    what = f"{reference.source} must have the labels of {target.source}, in its order"
    require(len(odd) == 0, what, f"others in {len(odd)} rows, first {odd[:1].tolist()}")


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as opened:
        require(hasattr(opened, "files"), f"{path} must be of np.savez", "one array")
        names = (*KINDS, "labels", "member")
        return {name: opened[name] for name in names if name in opened.files}


def _table(path: Path) -> dict[str, np.ndarray]:
    frame = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    frame = frame.rename(columns=lambda name: str(name).strip())
    found = {n: frame[n].to_numpy() for n in ("label", "member") if n in frame}
    if "label" in found:
        found["labels"] = found.pop("label")
    for stem, kind in COLUMNS.items():
        places = [
            int(n[len(stem) + 1 :]) for n in frame if re.fullmatch(rf"{stem}_\d+", n)
        ]
        if places:
            missing = set(range(max(places) + 1)) - set(places)
            what = f"columns {stem}_0 to {stem}_{max(places)} must all be there"
            require(not missing, what, f"none of {sorted(missing)[:3]}")
            columns = [f"{stem}_{k}" for k in range(len(places))]
            found[kind] = frame[columns].to_numpy()
    return found


READERS = {".npz": _arrays, ".csv": _table, ".parquet": _table}


def _checked(found: dict, source: str, reference: bool) -> Answers:
    kinds = [kind for kind in KINDS if kind in found]
    require(len(kinds) == 1, NEITHER, " and ".join(kinds) or "neither")
    require("labels" in found, "it must hold the true labels", "none")
    shown = numbers(kinds[0], found[kinds[0]])
    what = f"{kinds[0]} must be examples × classes, two classes or more"
    right = shown.ndim == 2 and shown.shape[1] > 1 and len(shown) > 0
    require(right, what, f"shape {shown.shape}")
    _finite(kinds[0], shown)
    labels = _whole("labels", found["labels"], len(shown), shown.shape[1] - 1)
    if "member" not in found and reference:
        found["member"] = np.zeros(len(shown))
    require(
        "member" in found, "it must say who is a `member`, 0 or 1", "no such column"
    )
    member = _whole("member", found["member"], len(shown), 1)
    if kinds[0] == "probabilities":
        shown = _logs(shown)
    logits = torch.from_numpy(shown)
    tensors.unnormalised("logits", logits)
    parts = torch.from_numpy(labels), torch.from_numpy(member.astype(bool))
    return Answers(logits, *parts, source, kinds[0])


def _logs(shown: np.ndarray) -> np.ndarray:
    odd = np.abs(shown.sum(1) - 1) > tensors.ONE
    odd |= ((shown < 0) | (shown > 1 + tensors.ONE)).any(1)
    what = "probabilities must be >= 0 with the sum 1 in each row"
    first = f"{int(odd.sum())} rows that are not, first {np.flatnonzero(odd)[:1]}"
    require(not odd.any(), what, first)
    return np.log(np.maximum(shown, LEAST))


def _whole(name: str, given, count: int, top: int) -> np.ndarray:
    x = numbers(name, given)
    require(x.shape == (count,), f"{name} must hold {count} values", f"shape {x.shape}")
    _finite(name, x)
    odd = x[(x != np.round(x)) | (x < 0) | (x > top)]
    require(len(odd) == 0, f"{name} must be whole numbers in [0, {top}]", odd[:1])
    return x.astype(np.int64)


def _finite(name: str, x: np.ndarray) -> None:
    odd = ~np.isfinite(x)
    where = f"{int(odd.sum())} that are not, first in row {np.argwhere(odd)[:1, 0]}"
    require(not odd.any(), f"{name} must be finite numbers", where)
