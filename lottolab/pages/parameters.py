"""Read and check the parameters of a chapter before anything is computed.

A chapter's parameters cell holds lines such as

    seeds: list[int] = [0, 1, 2]  # one run each; in [0, 1000000]
    stem: str = "stride2"  # the first convolution; one of same, stride2

The type, the range `in [low, high]` (round brackets leave the end out) and the choice
`one of …` that the reader sees are those that are enforced.
"""

import ast
import io
import json
import re
import tokenize
from dataclasses import dataclass
from pathlib import Path

import yaml

from lottolab.checks import one_of, require

BOOK = Path(__file__).resolve().parents[2] / "book"
SCALES = ("edition", "laptop", "cifar", "smoke", "paper")
KINDS = {"int": int, "float": float, "str": str, "bool": bool}
RANGE = re.compile(r"in ([\[(])\s*([^,]+?)\s*,\s*([^,]+?)\s*([\])])\s*$")
CHOICE = re.compile(r"one of ([^;]+)$")
# What `ast.literal_eval` raises, on `{[]: 1}` and on deep nesting too.
_NOT_LITERAL = (SyntaxError, ValueError, TypeError, RecursionError, MemoryError)


@dataclass(frozen=True)
class Parameter:
    """One line of a parameters cell; `kind` is `int`, `list[float]` and the like."""

    name: str
    kind: str
    default: object
    comment: str

    def check(self, value: object) -> object:
        """Return the value, a whole number as float where a float is asked.

        Raises:
            ValueError: the type is another or the value is out of range.
        """
        many = self.kind.startswith("list[")
        kind = self.kind.removeprefix("list[").removesuffix("]")
        if many and (not isinstance(value, list | tuple) or not value):
            raise ValueError(self._wrong(value))
        values = list(value) if many else [value]
        checked = [self._check_one(v, kind, value) for v in values]
        return checked if many else checked[0]

    def parse(self, text: str) -> object:
        """Read the value from a command line and check it."""
        if self.kind == "str":
            return self.check(text)
        try:
            value = ast.literal_eval(text)
        except _NOT_LITERAL as error:
            raise ValueError(self._wrong(text)) from error
        return self.check(value)

    def _check_one(self, value, kind: str, whole) -> object:
        if kind == "float" and type(value) is int:
            value = float(value)
        if type(value) is not KINDS[kind]:
            raise ValueError(self._wrong(whole))
        if found := RANGE.search(self.comment):
            left, low, high, right = found.groups()
            above = value >= float(low) if left == "[" else value > float(low)
            below = value <= float(high) if right == "]" else value < float(high)
            if not (above and below):
                span = f"{left}{low}, {high}{right}"
                raise ValueError(f"{self.name} must be in {span}, got {value}")
        if found := CHOICE.search(self.comment):
            one_of(
                self.name, value, [KINDS[kind](c.strip()) for c in found[1].split(",")]
            )
        return value

    def _wrong(self, value) -> str:
        return (
            f"{self.name} must be {self.kind}, such as "
            f"{self.name}={self.default!r}, got {value!r}"
        )


def chapters() -> list[str]:
    """Return the names of the book's notebooks, in the order of its contents."""
    toc = yaml.safe_load((BOOK.parent / "_toc.yml").read_bytes())
    files = re.findall(r"book/(\w+)", json.dumps(toc))
    return [name for name in files if (BOOK / f"{name}.ipynb").is_file()]


def having(scale: str) -> list[str]:
    """Return the chapters that have the scale, in the order of the book.

    Raises:
        ValueError: there is no such scale.
    """
    one_of("the scale", scale, SCALES)
    return [name for name in chapters() if scale in scales(name)]


def rehearsed(scale: str) -> list[str]:
    """Return the chapters that have the scale and results of their own to compute.

    Raises:
        ValueError: nothing is rehearsed at the scale.
    """
    one_of("the scale", scale, ["smoke", "laptop", "paper"])
    return [name for name in having(scale) if "seeds" in of(name)]


def scales(chapter: str) -> list[str]:
    """Return the scales at which the chapter can run."""
    found = sorted(p.parent.name for p in BOOK.glob(f"scales/*/{chapter}.yaml"))
    return ["laptop", *found]


def of(chapter: str) -> dict[str, Parameter]:
    """Return the parameters of a chapter, by name.

    Raises:
        ValueError: there is no such chapter, or its cell is no list of typed literals.
    """
    one_of("the chapter", chapter, chapters())
    notebook = json.loads((BOOK / f"{chapter}.ipynb").read_text(encoding="utf-8"))
    cells = [
        "".join(cell["source"])
        for cell in notebook["cells"]
        if "parameters" in cell["metadata"].get("tags", [])
    ]
    if len(cells) != 1:
        raise ValueError(f"{chapter} must have one parameters cell, got {len(cells)}")
    return parse_cell(cells[0])


def parse_cell(source: str) -> dict[str, Parameter]:
    """Read the lines `name: type = literal  # comment` of a parameters cell.

    Raises:
        ValueError: a line is something else.
    """
    wanted = "a parameter must be `name: type = literal  # comment`"
    try:
        nodes = ast.parse(source).body
    except SyntaxError as error:
        raise ValueError(f"{wanted}, got {(error.text or source).strip()!r}") from error
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {t.start[0]: t.string for t in tokens if t.type == tokenize.COMMENT}
    found = {}
    for node in nodes:
        line = f"{wanted}, got {ast.unparse(node)!r}"
        if not isinstance(node, ast.AnnAssign) or node.end_lineno not in comments:
            raise ValueError(line)
        name, kind = ast.unparse(node.target), ast.unparse(node.annotation)
        one_of(f"the type of {name}", kind, [*KINDS, *(f"list[{k}]" for k in KINDS)])
        comment = comments[node.end_lineno].lstrip("# ")
        try:
            default = ast.literal_eval(node.value)
        except _NOT_LITERAL as error:
            raise ValueError(line) from error
        parameter = Parameter(name, kind, default, comment)
        parameter.check(parameter.default)
        found[name] = parameter
    return found


def resolve(chapter: str, scale: str, given: dict[str, object]) -> dict[str, object]:
    """Return the parameters to put in: the scale's, overridden by the given ones.

    A chapter that has the parameter `scale` is told another scale than laptop by it.

    Args:
        given: name to value, or to text from a command line.

    Raises:
        ValueError: the chapter, the scale, a name, a type or a value is not allowed.
    """
    chosen = given.get("scale", scale)
    require(chosen == scale, "the scale is chosen by --scale, not by -p scale", chosen)
    known = of(chapter)
    one_of(f"the scale of {chapter}", scale, scales(chapter))
    path = BOOK / "scales" / scale / f"{chapter}.yaml"
    values = (yaml.safe_load(path.read_bytes()) if scale != "laptop" else None) or {}
    for name, value in {**values, **given}.items():
        one_of(f"a parameter of {chapter}", name, known)
        text = isinstance(value, str) and name in given
        check = known[name].parse if text else known[name].check
        values[name] = check(value)
    if scale != "laptop" and "scale" in known:
        values["scale"] = scale
    return values
