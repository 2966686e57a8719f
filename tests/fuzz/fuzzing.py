"""Give public functions what nobody planned for, and judge what comes of it.

A case knows how to draw arguments that a function must take, and what is right about
its answer. One argument is then bent. Either the answer is still right, or the
function refuses in one line that names what it refuses; all else is a finding.
"""

import copy
import math
import re
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

SECONDS = 30  # of CPU time; a small input that takes longer hangs
JUNK = [None, "words", b"\xff", {}, [], [None], 1j, object(), math.nan, -1, True, "é\n"]
NUMBERS = [math.nan, math.inf, -math.inf, 0, -1, 0.5, 1.5, 2, 1e-300, 1e300, -1e-9]
NUMBERS += [True, "1", None, [1], (), np.float32(0.25), np.int64(2), torch.ones(1)]
KINDS = [torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]
KINDS += [torch.complex64, torch.float64, torch.float32]
TEXTS = ["", "words", "é", "\0", "a" * 5000, "日本", "NaN", "1e999", "[[", "{[]: 1}"]
TEXTS += [
    "(" * 300,
    "9" * 5000,
    "[]",
    "[1,]",
    "[True]",
    "[1, 'a']",
    "1_0",
    "0x1f",
    " 1",
]
TEXTS += ["-0", "1.0", "True", "None", "exit()", "1 2", "0:5", "5:0", "a=b", "=", ","]
TEXTS += ["rounds=1:99999999999", "seed=0:3,5", "rounds=", "rounds=2,2", "=2", "3"]
TEXTS += ["a: int = 1", "a: int = 1  # in [2, 0]", "a: int = 9**9  # b", "a b", "\\"]
TEXTS += [" 1", "a: str = 'b'  # one of c", "../ownership", "H"]


class Finding(AssertionError):
    """A function crashed, was wrong, or refused without saying what."""


@dataclass(frozen=True)
class Case:
    """A public function, how to ask it, and what is right about its answer.

    good: arguments that must be answered, drawn from a generator.
    right: of the arguments and the answer; false is a finding.
    words: what a refusal may name beside the arguments.
    """

    call: Callable
    good: Callable[[np.random.Generator], dict]
    right: Callable[[dict, object], object]
    words: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()  # arguments that are not bent
    typed: bool = False  # on a command line, where all arguments are texts


def tried(case: Case, seed: int, place: int, bend: int) -> str:
    """Ask once, with argument `place` bent by `bend` (0: none); say what came of it.

    Raises Finding.
    """
    random = np.random.default_rng(seed)
    given = case.good(random)
    names = [name for name in given if name not in case.fixed]
    bent, name, same = "nothing", "", False
    if bend and names:
        name = names[place % len(names)]
        ways = of_text() if case.typed else bends(name, given[name])
        way = list(ways)[bend % len(ways)]
        bent, same = f"{name}: {way}", way.startswith("as ")
        changed = given | {name: ways[way](random)}
    else:
        changed = given
    before, start = copied(changed), time.process_time()
    try:
        found = asked(case, changed)
    except Exception as error:
        if bent == "nothing":
            raise Finding(f"refused what is good: {error!r}") from error
        refused(error, [*given, *case.words], bent)
        return "refused"
    finally:
        spent = time.process_time() - start
        if spent > SECONDS:
            raise Finding(f"{bent}: took {spent:.0f} s")
        if not alike(before, changed):
            raise Finding(f"{bent}: an argument was changed")
    plain = asked(case, case.good(np.random.default_rng(seed))) if same else None
    try:
        right = alike(found, plain) if same else case.right(changed, found)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        raise Finding(f"{bent}: accepted, but {error!r} in {where}") from error
    if not right:
        raise Finding(f"{bent}: wrong answer {str(found)[:300]}")
    return "right"


def asked(case: Case, given: dict):
    """Call without warnings, which are no findings, and from torch's default seed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return case.call(**given)


def refused(error: Exception, words: list[str], bent: str) -> None:
    """Raise Finding unless an error is of a documented type and names its reason."""
    text = str(error)
    kind = isinstance(error, (ValueError, TypeError, LookupError, OSError))
    inside = isinstance(error, (IndexError, KeyError, UnicodeError))
    named = any(re.search(rf"(?<!\w){re.escape(w)}(?!\w)", text) for w in words)
    if not kind or inside or "\n" in text.strip() or not named:
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{where.filename.split('/lottolab/')[-1]}:{where.lineno}"
        raise Finding(f"{bent}: {type(error).__name__}: {text[:200]} ({place})")


def bends(name: str, value) -> dict[str, Callable]:
    """Return ways to bend an argument; those called "as …" do not change its values."""
    found: dict[str, Callable] = {
        f"junk {i}": lambda _, j=junk: j for i, junk in enumerate(JUNK)
    }
    if isinstance(value, Tensor):
        return found | of_tensor(value)
    if isinstance(value, np.ndarray):
        ways = of_tensor(torch.from_numpy(value))
        return found | {k: lambda r, w=w: arrayed(w(r)) for k, w in ways.items()}
    if isinstance(value, bool | str | bytes):
        return found | of_text()
    if isinstance(value, int | float):
        return found | of_number(name, value)
    if isinstance(value, list | tuple) and len(value):
        return found | of_list(value)
    if isinstance(value, dict) and value:
        return found | of_dict(value)
    return found


def of_text() -> dict[str, Callable]:
    """Return texts that somebody may type, in place of any."""
    return {f"text {t!r:.20}": lambda _, t=t: t for t in TEXTS}


def of_number(name: str, value) -> dict[str, Callable]:
    numbers = [*NUMBERS, value + 1, -value]
    if name == "seed":
        numbers += [2**32, 2**63, 2**64, 2**70, -(2**63)]
    return {f"number {n!r:.9}": lambda _, n=n: n for n in numbers}


def of_tensor(x: Tensor) -> dict[str, Callable]:
    """Bend values, shape, dtype and strides of a tensor."""
    ways: dict[str, Callable] = {
        "as strided": lambda _: x.repeat_interleave(2, 0)[::2],
        "as another object": lambda _: x.clone(),
        "empty": lambda _: x[:0],
        "shorter": lambda _: x[1:],
        "longer": lambda _: torch.cat([x, x]),
        "narrow": lambda _: x[..., :1],
        "no width": lambda _: x[..., :0],
        "column": lambda _: x[..., None],
        "row": lambda _: x[None],
        "flat": lambda _: x.flatten(),
        "a scalar": lambda _: x.flatten()[0] if x.numel() else x.sum(),
        "turned": lambda _: x.transpose(0, -1),
        "reversed": lambda _: x.flip(0),
        "all the same": lambda _: x[:1].expand_as(x) if len(x) else x,
        "zeros": lambda _: torch.zeros_like(x),
        "an array": lambda _: x.numpy(),
        "a list": lambda _: x.tolist(),
        "a tuple of rows": lambda _: tuple(x),
        "big endian": lambda _: x.numpy().astype(x.numpy().dtype.newbyteorder(">")),
        "sparse": lambda _: x.to_sparse(),
        "meta": lambda _: x.to("meta"),
        "objects": lambda _: x.numpy().astype(object),
    }
    ways |= {f"{kind}": lambda _, k=kind: x.to(k) for kind in KINDS}
    if x.is_floating_point():
        ways["gradient"] = lambda _: x.clone().requires_grad_()
        odd = [math.nan, math.inf, -math.inf, 3e38, -3e38, 1e-45, -1e-3, 1.001, 0]
    else:
        odd = [0, 1, 2, 3, 99, 255] + (
            [-1, -100, 2**31, 2**62] if x.itemsize > 1 else []
        )
    ways |= {f"one {o}": lambda r, o=o: with_one(x, r, o) for o in odd}
    return ways


def with_one(x: Tensor, random: np.random.Generator, value) -> Tensor:
    """Put a value in one place."""
    flat = x.clone().flatten()
    if len(flat):
        flat[int(random.integers(len(flat)))] = value
    return flat.view(x.shape)


def arrayed(x):
    return x.detach().numpy() if isinstance(x, Tensor) and not odd_kind(x) else x


def odd_kind(x: Tensor) -> bool:
    return x.is_sparse or x.is_meta or x.dtype == torch.bfloat16


def of_list(value) -> dict[str, Callable]:
    kind = type(value)
    more = [None, "x", -1, math.nan, math.inf, 2.5, [], value[0]]
    ways = {f"with {m!r:.9}": lambda _, m=m: kind([*value, m]) for m in more}
    ways |= {f"first {m!r:.9}": lambda _, m=m: kind([m, *value[1:]]) for m in more}
    other = tuple if kind is list else list
    return ways | {
        "shorter": lambda _: kind(value[1:]),
        "other": lambda _: other(value),
    }


def of_dict(value: dict) -> dict[str, Callable]:
    first = next(iter(value))
    ways: dict[str, Callable] = {
        "without one": lambda _: {k: v for k, v in value.items() if k != first},
        "with another": lambda _: value | {"other": value[first]},
        "numbered": lambda _: dict(enumerate(value.values())),
        "reversed": lambda _: dict(reversed(value.items())),
    }
    inner = bends(str(first), value[first])
    return ways | {
        f"{first}: {k}": lambda r, w=w: value | {first: w(r)} for k, w in inner.items()
    }


def copied(given):
    """Copy what can be changed in place; a network's state stands for it."""
    if isinstance(given, nn.Module):
        return {k: v.clone() for k, v in given.state_dict().items()}
    if isinstance(given, dict):
        return {k: copied(v) for k, v in given.items()}
    if isinstance(given, list | tuple):
        return [copied(v) for v in given]
    if isinstance(given, Tensor):
        return given.detach().clone()
    return copy.deepcopy(given) if isinstance(given, np.ndarray) else given


def alike(a, b) -> bool:
    """Are two values the same, up to the last bits of floats? NaN equals NaN."""
    if isinstance(b, nn.Module):
        return alike(a, copied(b))
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        if a.is_meta or a.is_sparse:
            return True
        a, b = (x.detach().to(torch.complex128) for x in (a, b))
        if a.shape != b.shape:
            return False
        return torch.allclose(a, b, rtol=1e-4, atol=1e-6, equal_nan=True)
    if isinstance(a, np.ndarray):
        return a is b or np.array_equal(a, b, equal_nan=a.dtype.kind in "fc")
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(alike(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(alike, a, b))
    if isinstance(a, float | np.floating):
        return math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-9) or (a != a and b != b)
    if hasattr(a, "equals"):
        return a.equals(b)
    return a is b or repr(a) == repr(b)
