"""Read `data/claims.yaml` and refuse it, before anything is judged, if it is wrong.

The file is a list of claims:

    - id: ownership-ticket-matches    # kebab-case, starts with the chapter
      chapter: ownership
      place: "Table 1"                # where the paper says it
      statement: "..."                # plain English, stands alone
      paper: {dense: 0.9167}          # the paper's numbers: flat, may be left out
      test:                           # or `not_testable: "the reason"`
        - kind: equal                 # see the table in `lottolab.truth.claims`
          a: {metric: test_accuracy, arm: ticket, point: fifth}
          b: {metric: test_accuracy, arm: dense}
          margin: 0.01

`equal`, `greater` and `less` compare `a` with `b`; `margin` is > 0 for `equal`, and 0
unless given for the other two. `at_least` and `at_most` compare `a` with `value`, and
`every` asks that `a` is `value` (1 for yes, 0 for no) in each single network.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lottolab.checks import one_of, require

# Both are safe and read the same; the one in C, ten times as fast, may be missing.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# Found from the package, never from the working directory: notebooks run elsewhere.
FILE = Path(__file__).resolve().parents[2] / "data" / "claims.yaml"
CHAPTERS = (
    "ownership",
    "membership",
    "ensembles",
    "modelguard",
    "mia_pruning",
    "together",
)
# kind: the keys that it must have beside `a`, and those that it may have
KINDS = {
    "equal": ({"b", "margin"}, set()),
    "greater": ({"b"}, {"margin"}),
    "less": ({"b"}, {"margin"}),
    "at_least": ({"value"}, set()),
    "at_most": ({"value"}, set()),
    "every": ({"value"}, set()),
}


@dataclass(frozen=True)
class Criterion:
    """Hold one deciding test; `lottolab.truth.claims` says what each kind means."""

    kind: str
    a: dict[str, Any]
    b: dict[str, Any] | None = None
    margin: float = 0.0
    value: float = math.nan


@dataclass(frozen=True)
class Claim:
    """Hold one claim of a paper: `tests` decide it, or `not_testable` says why not."""

    id: str
    chapter: str
    place: str
    statement: str
    paper: dict[str, Any]
    tests: tuple[Criterion, ...] = ()
    not_testable: str | None = None


def load(path: str | Path | None = None) -> list[Claim]:
    """Return all claims of `data/claims.yaml`, or of another file, in its order.

    Raises ValueError, naming file, claim and fix, at the first thing that is wrong.
    """
    path = FILE if path is None else Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        twice = list(_repeated_keys(yaml.compose(text, Loader=LOADER)))
        entries = yaml.load(text, Loader=LOADER)
    except (yaml.YAMLError, UnicodeError) as error:
        raise ValueError(f"{path} is not YAML: {error}") from error
    require(not twice, f"{path}: keys must not repeat in one mapping", twice)
    require(isinstance(entries, list), f"{path} must be a list of claims", entries)
    claims = [_claim(entry, path) for entry in entries]
    ids = [claim.id for claim in claims]
    repeated = sorted({name for name in ids if ids.count(name) > 1})
    require(not repeated, f"{path}: ids must be unique, rename one", repeated)
    return claims


def _claim(entry: Any, path: Path) -> Claim:
    require(isinstance(entry, dict), f"{path}: a claim must be a mapping", entry)
    where = f"{path}: claim {entry.get('id', 'without an id')}"
    needed = {"id", "chapter", "place", "statement"}
    _keys(entry, needed, {"paper", "test", "not_testable"}, where)
    for key in sorted(needed | ({"not_testable"} & entry.keys())):
        text = isinstance(entry[key], str) and entry[key].strip()
        require(text, f"{where}: {key} must be a text", repr(entry[key]))
    one_of(f"{where}: chapter", entry["chapter"], CHAPTERS)
    start = entry["chapter"].replace("_", "-") + "-"
    kebab = re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", entry["id"])
    what = f"{where}: id must be kebab-case and start with {start!r}"
    require(kebab and entry["id"].startswith(start), what, repr(entry["id"]))
    one = ("test" in entry) != ("not_testable" in entry)
    require(one, f"{where}: give either test or not_testable", sorted(entry))
    head = {key: entry[key] for key in ("id", "chapter", "place", "statement")}
    return Claim(
        **head,
        paper=_flat(entry.get("paper", {}), f"{where}: paper"),
        tests=_tests(entry, where),
        not_testable=entry.get("not_testable"),
    )


def _tests(entry: dict[str, Any], where: str) -> tuple[Criterion, ...]:
    if "not_testable" in entry:
        return ()
    tests = entry["test"]
    full = isinstance(tests, list) and len(tests) > 0
    require(full, f"{where}: test must be a list of tests", repr(tests))
    return tuple(_criterion(t, f"{where}: test {i + 1}") for i, t in enumerate(tests))


def _criterion(test: Any, where: str) -> Criterion:
    require(isinstance(test, dict), f"{where} must be a mapping", repr(test))
    require("kind" in test, f"{where} must have a kind: {', '.join(KINDS)}", test)
    one_of(f"{where}: kind", test["kind"], KINDS)
    needed, optional = KINDS[test["kind"]]
    _keys(test, {"kind", "a", *needed}, optional, where)
    for arm in sorted({"a", "b"} & test.keys()):
        selection = _flat(test[arm], f"{where}: {arm}")
        require("metric" in selection, f"{where}: {arm} must name a metric", selection)
        odd = sorted({"seed", "value"} & selection.keys())
        require(not odd, f"{where}: {arm} must select arms, not seeds or values", odd)
    require(test["a"] != test.get("b"), f"{where}: a and b must differ", test["a"])
    for key in sorted({"margin", "value"} & test.keys()):
        x = test[key]
        number = isinstance(x, int | float) and not isinstance(x, bool)
        what = f"{where}: {key} must be a finite number, written like 0.01"
        require(number and math.isfinite(x), what, repr(x))
    if test["kind"] == "equal":
        require(test["margin"] > 0, f"{where}: margin must be > 0", test["margin"])
    return Criterion(**test)


def _keys(entry: dict, needed: set[str], optional: set[str], where: str) -> None:
    for key in entry:
        one_of(f"{where}: key", key, sorted(needed | optional))
    missing = sorted(needed - entry.keys())
    require(not missing, f"{where} must also have {', '.join(missing)}", [*entry])


def _flat(mapping: Any, where: str) -> dict[str, Any]:
    flat = isinstance(mapping, dict) and all(
        isinstance(key, str) and isinstance(value, str | int | float)
        for key, value in mapping.items()
    )
    what = f"{where} must be a flat mapping from names to numbers or texts"
    require(flat, what, repr(mapping))
    return mapping


def _repeated_keys(node: yaml.Node | None) -> Iterator[str]:
    """Find what YAML would silently overwrite, such as a second margin."""
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value]
        for i, (key, value) in enumerate(node.value):
            if key.value in keys[:i]:
                yield f"{key.value}, line {key.start_mark.line + 1}"
            yield from _repeated_keys(value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _repeated_keys(item)
