"""Find the numbers in a page's prose that look measured, each with its sentence.

What is typed but no measurement is left out: code, formulas, links' targets, headings,
quotations; what is counted from (Table 3, seeds 0 to 2, chapter 5), names (ResNet-20),
sizes (28×28), fractions (8/255), years, the 95 % of an interval; clauses that say what
the paper does or cite; and whole numbers up to 12 without a unit, which count things.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

MOST_COUNTED = 12
NUMBER = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?"
_SEVERAL = rf"(?:{NUMBER})(?:(?:, | ?[-–] ?| and | or | to |, and )(?:{NUMBER}))*"
_NUMBER = re.compile(
    rf"(?<![\w.,/^_~×])(?<![^\W\d]-)({NUMBER})"
    r"(?!\w|[.,]?\d|[/^⁻]\w?|×\s?\d|-(?:bit|pixel|digit))"
)
_BLANKED = [
    re.compile(pattern, re.MULTILINE | re.DOTALL)
    for pattern in (
        r"^(`{3,}|~{3,}).*?^\1",  # fenced code, and directives that are fenced so
        r"<!--.*?-->",
        r"\$\$.*?\$\$(?: *\([\w-]+\))?",
        r"(?<![\\$])\$[^$]+\$",
        r"(?:\{[\w:]+\})?(`+)[^`]+\1",  # code, or a role such as {numref}`fig-keys`
        r"^:::.*?$|^:[\w-]+:.*?$|^\([\w-]+\)=$|^#.*?$|^ *\d+\. ",
        r"(?<=\])\([^)\s]*\)",
        r"<[^<>\n]*>|https?://\S+",
        r"“[^”]*”|(?<!\w)\"[^\"]{1,300}\"",
        r"(?i)\b(?:tables?|fig(?:ure|\.)s?|sections?|equations?|eqs?\.|chapters?|"
        r"algorithms?|steps?|exercises?|lines?|theorems?|seeds?|epochs?|papers?|"
        rf"rounds?|editions?|python|torch|version|solutions? of)[  \n]+{_SEVERAL}",
        rf"§+ ?{_SEVERAL}",
        r"\b(?:19|20)\d\d\b(?! *%)",
        r"95 ?%(?=,? (?:confidence )?(?:intervals?|bounds?|limits?))",
    )
]
_PARAGRAPH = re.compile(r"\n[ \t]*\n|\n(?= *(?:[-*]|\d+\.) )|\n(?=\|)|\n(?=:::)")
_SENTENCE = re.compile(r"(?<=[.!?:])[\"”)*]*\s+(?=[\"“(*\[{`$A-Z0-9−-])")
_CLAUSE = re.compile(r"[;:()—]|, |\. ")
_OTHERS = re.compile(r"\bpapers?\b|\{cite|§|\b(?:Table|Figure)s? \d|\bet al\b", re.I)
_UNIT = re.compile(
    rf"(?:(?: ?[-–] ?|, | to | and | or | against | of )-?(?:{NUMBER}))*\s?"
    r"(%|percent\b|points?\b|times\b|×|x\b|fold\b)"
)
_PARTS = re.compile(r"%|\bpercent|\bpoints?\b|\bhundredths?\b")
_FACTORS = {"thousand": 1e3, "million": 1e6, "billion": 1e9}


@dataclass(frozen=True)
class Typed:
    """A number of a page's prose.

    `value` is without its sign, which prose turns around (a loss of 2 is a −2); `unit`
    is that of its last typed place; `shares` says that its sentence speaks of percent.
    """

    text: str
    value: float
    unit: float
    shares: bool
    sentence: str
    paragraph: str


def numbers(markdown: str) -> Iterator[Typed]:
    """Yield the numbers of a markdown text that look measured, in their order."""
    plain = _blanked(markdown)
    ends = [m.end() for m in _PARAGRAPH.finditer(markdown)]
    for start, end in zip([0, *ends], [*ends, len(markdown)], strict=True):
        paragraph, rest = markdown[start:end], plain[start:end]
        for a, b in _pieces(_SENTENCE, rest):
            sentence = " ".join(paragraph[a:b].split())
            shares = bool(_PARTS.search(paragraph[a:b]))
            for found in _NUMBER.finditer(rest, a, b):
                if not _is_others(paragraph, rest, found) and _looks(rest, found):
                    value, unit = _read(found[1], rest[found.end() :])
                    yield Typed(found[1], value, unit, shares, sentence, paragraph)


def _blanked(text: str) -> str:
    """Return the text with a stop in place of each sign that is not checked."""
    text = text.replace("−", "-").replace("\u202f", " ").replace("\xa0", " ")
    for pattern in _BLANKED:
        text = pattern.sub(lambda m: re.sub(r"[^\n]", "¤", m[0]), text)
    return text


def _pieces(separator: re.Pattern, text: str) -> list[tuple[int, int]]:
    ends = [m.end() for m in separator.finditer(text)]
    return list(zip([0, *ends], [*ends, len(text)], strict=True))


def _is_others(paragraph: str, rest: str, found: re.Match) -> bool:
    """Say whether a number's clause tells what the paper, or another, has found."""
    for a, b in _pieces(_CLAUSE, rest):
        if a <= found.start() < b:
            return bool(_OTHERS.search(paragraph, a, b))
    return False


def _looks(rest: str, found: re.Match) -> bool:
    """Say whether a number looks measured, and does not only count a few things."""
    whole = found[1].isdigit() and int(found[1]) <= MOST_COUNTED
    return not whole or bool(_UNIT.match(rest, found.end()))


def _read(digits: str, after: str) -> tuple[float, float]:
    """Return a number's value, and the unit of its last place that tells something.

    Whole numbers are round at two digits or fewer: 4,000 is what rounds to hundreds.
    """
    plain = digits.replace(",", "")
    _, point, decimals = plain.partition(".")
    zeros = 0 if point else min(len(plain) - len(plain.rstrip("0")), len(plain) - 2)
    unit = 10.0 ** (max(zeros, 0) if not point else -len(decimals))
    word = re.match(r"\s?(thousand|million|billion)\b", after)
    factor = _FACTORS[word[1]] if word else 1.0
    return float(plain) * factor, unit * factor
