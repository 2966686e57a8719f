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
    r"(?!(?!x\b)\w|[.,]?\d|[/^⁻]\w?|×\s?\d|-(?:bit|pixel|digit))"
)
_UNITS = r"%|percent\b|points?\b|times\b|×|x\b|fold\b"
_INTERVAL = re.compile(
    rf"(?:(?<![\w.,/^-])[-+]?({NUMBER})(?: ?{_UNITS})?[^\d.;:()¤]{{0,30}})?"
    rf"\([-+]?({NUMBER}) to [-+]?({NUMBER})\)"
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
_PARAGRAPH = re.compile(
    r"\n[ \t]*\n|\n(?= *(?:[-*]|\d+\.) )|\n(?=\||:::)|^:.*\n", re.MULTILINE
)
_SENTENCE = re.compile(r"(?<=[.!?])[\"”)*]*\s+(?=[\"“(*\[{`$A-Z0-9−-])")
_CLAUSE = re.compile(r"[;:()—]|, |\. ")
_OTHERS = re.compile(
    r"\bpapers?\b(?!['’])|\{cite|§|\b(?:Table|Figure)s? \d|\bet al\b", re.IGNORECASE
)
_UNIT = re.compile(
    rf"(?:(?: ?[-–] ?|, | to | and | or | against | of )-?(?:{NUMBER}))*\s?"
    rf"(?:{_UNITS})"
)
_PARTS = re.compile(r"%|\bpercent|\bpoints?\b|\bhundredths?\b")
_FACTORS = {"thousand": 1e3, "million": 1e6, "billion": 1e9}


@dataclass(frozen=True)
class Typed:
    """A number of a page's prose, or an interval with its estimate.

    `parts` are its numbers, each with the unit of its last typed place, and without
    signs, which prose turns around (a loss of 2 is a −2). `shares` says that its
    sentence speaks of percent, `paragraph` is what a mark of its source stands in.
    """

    text: str
    parts: tuple[tuple[float, float], ...]
    shares: bool
    sentence: str
    paragraph: str


def numbers(markdown: str) -> Iterator[Typed]:
    """Yield the numbers of a markdown text that look measured, in their order."""
    plain = _blanked(markdown)
    for start, end in _pieces(_PARAGRAPH, markdown):
        paragraph, rest = markdown[start:end], plain[start:end]
        for a, b in _pieces(_SENTENCE, rest):
            for found in _found(rest, a, b):
                if not _is_others(paragraph, rest, found.start(1)):
                    text = " ".join(paragraph[found.start() : found.end()].split())
                    said = " ".join(paragraph[a:b].split())
                    shares = bool(_PARTS.search(said))
                    yield Typed(text, _parts(found), shares, said, paragraph)


def _found(text: str, start: int, end: int) -> Iterator[re.Match]:
    """Yield what looks measured between two places: intervals, and other numbers."""
    taken = start
    for found in [*_INTERVAL.finditer(text, start, end), None]:
        upto = found.start() if found else end
        singles = _NUMBER.finditer(text, taken, end)
        yield from (m for m in singles if m.start() < upto and _looks(text, m))
        if found:
            yield found
            taken = found.end()


def _blanked(text: str) -> str:
    """Return the text with a sign that is none for each that is not checked."""
    text = text.replace("−", "-").replace("\u202f", " ").replace("\xa0", " ")
    for pattern in _BLANKED:
        text = pattern.sub(lambda m: re.sub(r"[^\n]", "¤", m[0]), text)
    return text


def _pieces(separator: re.Pattern, text: str) -> list[tuple[int, int]]:
    ends = [m.end() for m in separator.finditer(text)]
    return list(zip([0, *ends], [*ends, len(text)], strict=True))


def _is_others(paragraph: str, rest: str, place: int) -> bool:
    """Say whether a number's clause tells what the paper, or another, has found."""
    for a, b in _pieces(_CLAUSE, rest):
        if a <= place < b:
            return bool(_OTHERS.search(paragraph, a, b))
    return False


def _looks(text: str, found: re.Match) -> bool:
    """Say whether a number looks measured, and does not only count a few things."""
    whole = found[1].isdigit() and int(found[1]) <= MOST_COUNTED
    return not whole or bool(_UNIT.match(text, found.end()))


def _parts(found: re.Match) -> tuple[tuple[float, float], ...]:
    """Return each number's value, and the unit of its last place that tells something.

    Whole numbers are round at two digits or fewer: 4,000 is what rounds to hundreds.
    """
    word = re.match(r"\s?(thousand|million|billion)\b", found.string[found.end() :])
    factor = _FACTORS[word[1]] if word else 1.0
    parts = []
    for digits in (group.replace(",", "") for group in found.groups() if group):
        _, point, decimals = digits.partition(".")
        zeros = min(len(digits) - len(digits.rstrip("0")), max(0, len(digits) - 2))
        unit = 10.0 ** (-len(decimals) if point else zeros)
        parts.append((float(digits) * factor, unit * factor))
    return tuple(parts)
