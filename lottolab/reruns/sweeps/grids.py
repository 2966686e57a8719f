"""Read the grid of a sweep, and what its figure shows, from a command line."""

import itertools
import math
import re
from dataclasses import replace

from lottolab.checks import one_of, require
from lottolab.pages import parameters
from lottolab.pages.parameters import Parameter

SPAN = re.compile(r"(-?\d{1,18}):(-?\d{1,18})")
MOST = 10_000  # points of a grid


def of_chapter(chapter: str, scale: str, given: list[str]) -> list[dict]:
    """Return the points of a grid, dicts of parameters, the last name changing fastest.

    Each of `given` is `NAME=VALUES` with values between commas; `0:5` stands for the
    whole numbers from 0 to 4. A parameter that is a list (`seeds`) can be swept by the
    name of one of its elements (`seed=0:5`), which then is the list's only one.

    Raises:
        ValueError: the chapter, the scale, a name or a value is not allowed, or a name
            or a value is given twice.

    >>> of_chapter("ownership", "smoke", ["rounds=2,3", "seed=0:2"])[1:3]
    [{'rounds': 2, 'seeds': [1]}, {'rounds': 3, 'seeds': [0]}]
    """
    known, axes = parameters.of(chapter), {}
    for word, texts in read(given).items():
        name, of_one = _parameter(chapter, word, known)
        require(name not in axes, f"{name} must be given once", word)
        found = [of_one.parse(text) for text in texts]
        if of_one is not known[name]:
            found = [known[name].check([value]) for value in found]
        axes[name] = found
    made = product(axes)
    parameters.resolve(chapter, scale, made[0])
    return made


def words(chapter: str, given: list[str]) -> dict[str, str]:
    """Return what the command line calls each parameter.

    >>> words("ownership", ["rounds=2,3", "seed=0:2"])
    {'rounds': 'rounds', 'seeds': 'seed'}
    """
    known = parameters.of(chapter)
    return {_parameter(chapter, word, known)[0]: word for word in read(given)}


def read(given: list[str]) -> dict[str, list[str]]:
    """Read `NAME=VALUES`: cut at commas outside of brackets, write out whole `a:b`.

    Raises ValueError for anything else, and for a name that is given twice.
    """
    require(bool(given), "a sweep needs -p NAME=VALUES", "none")
    found: dict[str, list[str]] = {}
    for text in given:
        name, equals, values = (part.strip() for part in text.partition("="))
        require(bool(equals), "-p must be NAME=VALUES", repr(text))
        require(name not in found, f"{name} must be given once", repr(text))
        found[name] = []
        for part in re.split(r",(?![^\[]*\])", values):
            span = SPAN.fullmatch(part.strip())
            numbers = range(int(span[1]), int(span[2])) if span else [part.strip()]
            right = not span or 0 < int(span[2]) - int(span[1]) <= MOST
            require(right, f"a span a:b must have a < b, of {MOST} at most", part)
            found[name] += [str(number) for number in numbers]
    return found


def product(axes: dict[str, list]) -> list[dict]:
    """Return every combination of the values, the last name changing fastest.

    Raises ValueError for a value that stands twice.
    """
    for name, values in axes.items():
        twice = [v for i, v in enumerate(values) if v in values[:i]]
        require(not twice, f"the values of {name} must differ", f"{twice[:1]} twice")
    count = math.prod(map(len, axes.values()))
    require(count <= MOST, f"a grid must have {MOST} points at most", count)
    return [dict(zip(axes, p, strict=True)) for p in itertools.product(*axes.values())]


def marks(given: list[str]) -> dict[str, list[str]]:
    """Read `COLUMN=VALUES`, values between commas.

    >>> marks(["attack=naive,votes"])
    {'attack': ['naive', 'votes']}
    """
    found = {}
    for text in given:
        column, equals, values = text.partition("=")
        require(bool(equals), "--where must be COLUMN=VALUES", repr(text))
        # A comma before a blank belongs to the value: "lira, online".
        found[column.strip()] = [v.strip() for v in re.split(r",(?! )", values)]
    return found


def label(point: dict) -> str:
    """Write a point as the command line has it.

    >>> label({"rounds": 2, "seed": 1})
    'rounds=2 seed=1'
    """
    return " ".join(f"{name}={value}" for name, value in point.items())


def _parameter(
    chapter: str, word: str, known: dict[str, Parameter]
) -> tuple[str, Parameter]:
    """Return a parameter's name, and what reads one of the swept values."""
    plurals = [f"{word}s", f"{word}es", f"{word.removesuffix('y')}ies"]
    for name in plurals if word not in known else []:
        if name in known and known[name].kind.startswith("list["):
            kind = known[name].kind.removeprefix("list[").removesuffix("]")
            first = known[name].default[0]
            return name, replace(known[name], name=word, kind=kind, default=first)
    one_of(f"a parameter of {chapter}", word, known)
    return word, known[word]
