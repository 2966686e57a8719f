"""Read `data/claims.yaml` and refuse it, before anything is judged, if it is wrong.

The file is a list of claims:

    - id: ownership-ticket-matches    # kebab-case, starts with the chapter
      chapter: ownership
      place: "Table 1"                # where the paper says it
      statement: "..."                # plain English, stands alone
      whose: paper                    # see below
      paper: {dense: 0.9167}          # the paper's numbers: flat, may be left out
      given: [...]                    # tests of what it presupposes, may be left out
      test:                           # or `not_testable: "the reason"`
        - kind: equal                 # see the table in `lottolab.truth.verdicts`
          a: {metric: test_accuracy, arm: ticket, point: fifth}
          b: {metric: test_accuracy, arm: dense}
          margin: 0.01
          scale: probit               # may be left out

`equal`, `greater` and `less` compare `a` with `b`; `margin` is > 0 for `equal`, and 0
unless given for the other two. `at_least` and `at_most` compare `a` with `value`.
`every` asks that `a` is `value` (1 for yes, 0 for no) in each single network,
`every_at_least` and `every_at_most` that it is no less, or no more.

**Whose** claim it is: `paper`, one of the five states it in words; `table`, its numbers
imply it; `other`, another paper states it; `ours`, this book added it.

**What becomes of it.** A test that turns out to be the wrong one stays, and gets a
successor: the old claim is marked `withdrawn:` with the reason, is no longer counted,
and is told with its last verdict; the new one says what it `replaces:`. A precondition
that was a test among others may move to `given` with its bounds as they were, since
that makes no claim easier to reproduce; `changed:` says so.

**Headline claims** carry `headline: {says: ..., words: ..., place: ..., here: ...}`:
the authors' own sentence, to the letter (for chapter 6, the book's), those of its words
that fit in a line, where it stands, and which number of ours is put beside it.
"""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from lottolab.checks import one_of, require
from lottolab.truth.claim import WHOSE, Claim, Criterion, Headline

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
    "equal": ({"b", "margin"}, {"scale"}),
    "greater": ({"b"}, {"margin", "scale"}),
    "less": ({"b"}, {"margin", "scale"}),
    "at_least": ({"value"}, set()),
    "at_most": ({"value"}, set()),
    "every": ({"value"}, set()),
    "every_at_least": ({"value"}, set()),
    "every_at_most": ({"value"}, set()),
}
TEXTS = ("id", "chapter", "place", "statement", "whose")  # of every claim
NOTES = ("not_testable", "replaces", "withdrawn", "changed")  # of some
OPTIONAL = {"paper", "test", "given", "headline"}


def load(path: str | Path | None = None) -> list[Claim]:
    """Return all standing claims of `data/claims.yaml`, or of another file, in order.

    Raises ValueError, naming file, claim and fix, at the first thing that is wrong.
    """
    return [claim for claim in _read(path) if claim.withdrawn is None]


def withdrawn(path: str | Path | None = None) -> list[Claim]:
    """Return the claims that were withdrawn, each with its reason, as `load` does."""
    return [claim for claim in _read(path) if claim.withdrawn is not None]


def _read(path: str | Path | None) -> list[Claim]:
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
    gone = {claim.id for claim in claims if claim.withdrawn is not None}
    for claim in claims:
        known = claim.replaces is None or claim.replaces in gone
        what = f"{path}: claim {claim.id}: replaces must name a withdrawn claim"
        require(known, what, claim.replaces)
    return claims


def _claim(entry: Any, path: Path) -> Claim:
    require(isinstance(entry, dict), f"{path}: a claim must be a mapping", entry)
    where = f"{path}: claim {entry.get('id', 'without an id')}"
    _keys(entry, set(TEXTS), OPTIONAL | {*NOTES}, where)
    for key in (*TEXTS, *(note for note in NOTES if note in entry)):
        _text(entry[key], f"{where}: {key}")
    one_of(f"{where}: chapter", entry["chapter"], CHAPTERS)
    one_of(f"{where}: whose", entry["whose"], WHOSE)
    start = entry["chapter"].replace("_", "-") + "-"
    kebab = re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", entry["id"])
    what = f"{where}: id must be kebab-case and start with {start!r}"
    require(kebab and entry["id"].startswith(start), what, repr(entry["id"]))
    one = ("test" in entry) != ("not_testable" in entry)
    require(one, f"{where}: give either test or not_testable", sorted(entry))
    tested = "test" in entry or not {"given", "headline"} & entry.keys()
    require(tested, f"{where}: given and headline need a test", sorted(entry))
    return Claim(
        **{key: entry[key] for key in TEXTS},
        **{key: entry.get(key) for key in NOTES},
        paper=_flat(entry.get("paper", {}), f"{where}: paper"),
        tests=_tests(entry, "test", where),
        given=_tests(entry, "given", where),
        headline=_headline(entry, where),
    )


def _headline(entry: dict[str, Any], where: str) -> Headline | None:
    if "headline" not in entry:
        return None
    told = _flat(entry["headline"], f"{where}: headline")
    _keys(told, {"says", "words", "place", "here"}, set(), f"{where}: headline")
    told = {k: _text(v, f"{where}: headline: {k}") for k, v in told.items()}
    inside = told["words"] in told["says"]
    require(inside, f"{where}: headline: words must stand in says", told["words"])
    return Headline(**told)


def _text(value: Any, what: str) -> str:
    text = isinstance(value, str) and value.strip()
    require(text, f"{what} must be a text", repr(value))
    return value.strip()


def _tests(entry: dict[str, Any], key: str, where: str) -> tuple[Criterion, ...]:
    if key not in entry:
        return ()
    tests, what = entry[key], f"{where}: {key}"
    full = isinstance(tests, list) and len(tests) > 0
    require(full, f"{what} must be a list of tests", repr(tests))
    return tuple(_criterion(t, f"{what} {i + 1}") for i, t in enumerate(tests))


def _criterion(test: Any, where: str) -> Criterion:
    require(isinstance(test, dict), f"{where} must be a mapping", repr(test))
    require("kind" in test, f"{where} must have a kind: {', '.join(KINDS)}", test)
    one_of(f"{where}: kind", test["kind"], KINDS)
    needed, optional = KINDS[test["kind"]]
    _keys(test, {"kind", "a", *needed}, optional, where)
    if "scale" in test:
        one_of(f"{where}: scale", test["scale"], ["probit"])
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
