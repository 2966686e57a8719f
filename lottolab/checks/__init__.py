"""Refuse bad input in one line: what was given, what is allowed, what to do.

Here are numbers, names and words; `tensors` refuses tensors and networks, `attacks`
what no attack can work with. `taking` takes numbers as they come.
"""

import difflib
import math
import re
from collections.abc import Iterable
from numbers import Real

NEARLY = 0.2  # a name that is less alike than the closest by this is not meant

LONGEST = 48  # characters of a folder's name, for Windows allows 260 in a whole path
DEVICES = "con|prn|aux|nul|com[0-9]|lpt[0-9]"  # what Windows means by these names


def require(ok: bool, what: str, given) -> None:
    """Raise ValueError "`what`, got `given`" unless `ok`."""
    if not ok:
        raise ValueError(" ".join(f"{what}, got {given}".splitlines()))


def whole(name: str, given, low: int) -> None:
    """Raise ValueError unless `given` is an int, and no bool, of at least `low`."""
    right = type(given) is int and given >= low
    require(right, f"{name} must be a whole number >= {low}", repr(given))


def folder_name(what: str, given: str) -> None:
    """Raise ValueError unless `given` names a folder on every system."""
    good = re.fullmatch(rf"\w([\w.-]{{0,{LONGEST - 2}}}[\w-])?", given, re.ASCII)
    letters = f"1 to {LONGEST} letters, digits, '_', '-' and '.', the last inside only"
    require(bool(good), f"{what} must be {letters}", repr(given))
    device = re.fullmatch(rf"({DEVICES})(\..*)?", given, re.IGNORECASE)
    require(not device, f"{what} must not be that of a device on Windows", given)


def number(name: str, given, low: float, high: float = math.inf) -> None:
    """Raise ValueError unless `given` is a number, and no bool, in [low, high].

    A tensor or an array is no number; without `high` it must be finite.
    """
    right = isinstance(given, Real) and not isinstance(given, bool)
    right = right and low <= given <= high and given < math.inf
    end = f">= {low} and finite" if high == math.inf else f"in [{low}, {high}]"
    require(right, f"{name} must be {end}", given)


def within(name: str, given, span: str) -> None:
    """Raise ValueError unless `given` is a number, and no bool, in `span`.

    >>> within("rate", 0.5, "(0, 1]"), within("size", 3, "(0, inf)")
    (None, None)
    """
    low, high = map(float, span[1:-1].split(","))
    right = isinstance(given, Real) and not isinstance(given, bool)
    right = right and low <= given <= high
    right = right and (given > low or span[0] == "[")
    right = right and (given < high or span[-1] == "]")
    sign = ">=" if span[0] == "[" else ">"
    end = f"{sign} {low:g} and finite" if high == math.inf else f"in {span}"
    end = "a number" if low == -math.inf else end
    require(right, f"{name} must be {end}", given)


def check_seed(seed, most: int = 2**63 - 1) -> None:
    """Raise ValueError unless a seed is an int, and no bool, in [0, `most`]."""
    right = type(seed) is int and 0 <= seed <= most
    require(right, f"seed must be an int in [0, {most}]", repr(seed))


def numbers(name: str, given):
    """Return numbers as a float64 array of its own, and a tensor's without gradient.

    Raises ValueError for what is no numbers: words, dates, rows of unequal length.
    """
    import numpy as np  # late: the command line checks its words without it

    try:
        if hasattr(given, "detach"):
            given = given.detach().cpu().double().numpy()
        x = np.asarray(given)
        right = x.dtype.kind in "biuf"
    except (RuntimeError, TypeError, ValueError):
        right = False
    require(right, f"{name} must be numbers", _short(given))
    return np.array(x, dtype=np.float64)


def held(name: str, given) -> None:
    """Raise ValueError unless numpy can hold `given`.

    It cannot hold a tensor that is bfloat16, sparse or has a gradient, nor rows of
    unequal length.
    """
    import numpy as np  # late: the command line checks its words without it

    try:
        np.asarray(given)
        right = True
    except (RuntimeError, TypeError, ValueError):
        right = False
    require(right, f"{name} must be what a numpy array can hold", _short(given))


def _short(given) -> str:
    text = repr(given)
    return text if len(text) < 60 else f"{text[:57]}..."


def one_of(what: str, given, allowed: Iterable) -> None:
    """Raise ValueError with the closest allowed names unless `given` is allowed."""
    allowed = list(allowed)
    array = hasattr(given, "detach") or getattr(given, "ndim", 0)
    if not array and given in allowed:
        return
    near = difflib.get_close_matches(str(given), [str(a) for a in allowed], n=2)
    alike = [difflib.SequenceMatcher(None, a, str(given)).ratio() for a in near]
    near = [a for a, r in zip(near, alike, strict=True) if r > alike[0] - NEARLY]
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    names = ", ".join(str(a) for a in allowed)
    raise ValueError(f"{what} must be one of {names}, got {given!r}{hint}")
