"""What a claim is: a sentence, whose it is, and the tests that decide it."""

import math
from dataclasses import dataclass
from typing import Any

COUNTS = ("every", "every_at_least", "every_at_most")  # kinds of test that count
WHOSE = {
    "paper": "stated by the paper",
    "table": "implied by its numbers",
    "other": "another paper's",
    "ours": "added by this book",
}


@dataclass(frozen=True)
class Criterion:
    """Hold one deciding test; `lottolab.truth.verdicts` says what each kind means."""

    kind: str
    a: dict[str, Any]
    b: dict[str, Any] | None = None
    margin: float = 0.0
    value: float = math.nan
    scale: str = "plain"


@dataclass(frozen=True)
class Headline:
    """Hold the sentence that the authors would put on a poster, and where it stands.

    `words` are those of it that stand for the whole where there is room for a line, and
    `here` says in a few words what number of ours stands beside it.
    """

    says: str
    words: str
    place: str
    here: str


@dataclass(frozen=True)
class Claim:
    """Hold one claim of a paper: `tests` decide it, or `not_testable` says why not.

    `given` is what it presupposes, `whose` one of `WHOSE`. `replaces` names the claim
    that was `withdrawn`, which says why; `changed` says what was changed in it.
    """

    id: str
    chapter: str
    place: str
    statement: str
    paper: dict[str, Any]
    tests: tuple[Criterion, ...] = ()
    not_testable: str | None = None
    given: tuple[Criterion, ...] = ()
    whose: str = "paper"
    headline: Headline | None = None
    replaces: str | None = None
    withdrawn: str | None = None
    changed: str | None = None
