"""Look for faults in a notebook's structure. Each checker returns a list of faults.

A checker takes the notebook as nbformat reads it; the cells are counted from 0.
"""

from __future__ import annotations

import ast
import io
import json
import re
import statistics
import tokenize
from collections.abc import Iterator
from pathlib import Path

import nbformat
import yaml

SKELETON = [
    "At a glance",
    "Objectives",
    "Setup",
    "Background",
    "Method",
    "Experiment",
    "Against the paper",
    "What did not reproduce, and limits",
    "Responsible use",
    "Exercises",
    "Recap",
    "Further reading",
    "Provenance",
]
TAGS = {
    "parameters",
    "judged",
    "hide-cell",
    "hide-input",
    "hide-output",
    "remove-cell",
    "remove-input",
    "remove-output",
    "nbval-check-output",
    "nbval-ignore-output",
    "nbval-skip",
}
MOST_LINES, TYPICAL_LINES, MOST_COLUMNS = 25, 12, 79
MOST_OPEN = 3  # lines of a cell that plans, computes or draws
MOST_PARAMETERS, MOST_BYTES = 20, 1_000_000

_ABSOLUTE = re.compile(
    r"(?<![\w.:/~])/(?:home|root|work|tmp|Users|mnt|opt|var|private)/"
    r"|\b[A-Z]:\\{1,2}(?:Users|Windows|Program|Temp|tmp|work|home)\b|file://",
    re.IGNORECASE,
)


def listed(toc: Path) -> list[str]:
    """List the entries of a table of contents in order, such as `book/ownership`."""

    def walk(node) -> Iterator[str]:
        if isinstance(node, dict):
            yield from (node[key] for key in ("root", "file") if key in node)
            for key in ("parts", "chapters", "sections"):
                yield from walk(node.get(key, []))
        elif isinstance(node, list):
            for item in node:
                yield from walk(item)

    return list(walk(yaml.safe_load(toc.read_text(encoding="utf-8"))))


def size(path: Path) -> list[str]:
    """A file that is too big to be read in a diff."""
    given = path.stat().st_size
    allowed = f"must have at most {MOST_BYTES:,} bytes, has {given:,}"
    return [allowed] if given > MOST_BYTES else []


def schema(nb) -> list[str]:
    """What is not a notebook of format 4, or not for the kernel that everyone has."""
    faults = []
    try:
        nbformat.validate(nb)
    except nbformat.ValidationError as error:
        faults.append(f"not a valid notebook: {error.message}")
    name = nb.metadata.get("kernelspec", {}).get("name")
    if name != "python3":
        faults.append(f"kernelspec.name must be python3, got {name}")
    return faults


def skeleton(nb) -> list[str]:
    """A chapter's headings that are not the ones every chapter has, in their order."""
    found = [text for level, text in _headings(nb) if level == 2]
    if found == SKELETON:
        return []
    missing = [text for text in SKELETON if text not in found]
    extra = [text for text in found if text not in SKELETON]
    if missing or extra or len(found) != len(SKELETON):
        return [f"second-level headings: missing {missing}, not allowed {extra}"]
    return [f"second-level headings are out of order: {found}"]


def title(nb) -> list[str]:
    """A page that does not begin with its one title."""
    titles = [text for level, text in _headings(nb) if level == 1]
    first = nb.cells[0] if nb.cells else None
    if len(titles) != 1:
        return [f"there must be one first-level heading, found {titles}"]
    if first.cell_type != "markdown" or not first.source.startswith("# "):
        return ["the first cell must begin with the title"]
    return []


def parameters(nb, *, needed: bool) -> list[str]:
    """A parameters cell that is missing, or holds more than typed, told literals."""
    cells = [cell for _, cell in _code(nb) if "parameters" in _tags(cell)]
    if len(cells) != 1:
        wanted = "exactly" if needed else "at most"
        short = needed or len(cells) > 1
        return [f"{wanted} one parameters cell, found {len(cells)}"] if short else []
    try:
        statements = ast.parse(cells[0].source).body
    except SyntaxError as error:
        return [f"the parameters cell is not Python: {error}"]
    told = _commented_lines(cells[0].source)
    faults = []
    if len(statements) > MOST_PARAMETERS:
        faults.append(f"at most {MOST_PARAMETERS} parameters, got {len(statements)}")
    for statement in statements:
        text = ast.unparse(statement)
        if not _is_typed_literal(statement):
            faults.append(f"parameter must be `name: type = literal`, got: {text}")
        if statement.end_lineno not in told:
            faults.append(f"parameter without a comment behind it: {text}")
    return faults


def outputs(nb) -> list[str]:
    """Cells that failed."""
    return [
        f"cell {i}: stored error {output.get('ename')}"
        for i, cell in _code(nb)
        for output in cell.outputs
        if output.output_type == "error"
    ]


def counts(nb) -> list[str]:
    """Cells that were not run, or not once each from top to bottom."""
    cells = [(i, cell) for i, cell in _code(nb) if cell.source.strip()]
    unrun = [i for i, cell in cells if cell.execution_count is None]
    if unrun:
        return [f"cells that were not run: {unrun}"]
    given = [cell.execution_count for _, cell in cells]
    if given != list(range(1, len(given) + 1)):
        return [f"execution counts must be 1 to {len(given)} in order, got {given}"]
    return []


def lengths(nb) -> list[str]:
    """Code that does not fit a page or a phone."""
    faults, lines = [], []
    for i, cell in _code(nb):
        rows = cell.source.splitlines()
        lines.append(len(rows))
        if len(rows) > MOST_LINES:
            faults.append(f"cell {i}: at most {MOST_LINES} lines, has {len(rows)}")
        wide = max(map(len, rows), default=0)
        if wide > MOST_COLUMNS:
            faults.append(f"cell {i}: at most {MOST_COLUMNS} columns, has {wide}")
    if lines and statistics.median(lines) > TYPICAL_LINES:
        typical = statistics.median(lines)
        faults.append(f"the median cell has {typical} lines, at most {TYPICAL_LINES}")
    return faults


def prose(nb) -> list[str]:
    """Code that nothing leads to."""
    faults = []
    for i, _ in _code(nb):
        before = nb.cells[i - 1] if i else None
        if (
            before is None
            or before.cell_type != "markdown"
            or not before.source.strip()
        ):
            faults.append(f"cell {i}: no prose before this code")
    return faults


def figures(nb) -> list[str]:
    """Figures without caption, name, alternative text, or a sentence after them."""
    faults, names = [], []
    for i, cell in _code(nb):
        kinds = [kind for output in cell.outputs for kind in output.get("data", {})]
        kinds = [kind for kind in kinds if kind.startswith("image/")]
        if not kinds:
            continue
        if kinds != ["image/png"]:
            faults.append(f"cell {i}: one image/png a cell, got {kinds}")
        about = cell.metadata.get("mystnb", {})
        names.append(about.get("figure", {}).get("name"))
        for part, key in (("figure", "caption"), ("figure", "name"), ("image", "alt")):
            if not str(about.get(part, {}).get(key) or "").strip():
                faults.append(f"cell {i}: figure without mystnb.{part}.{key}")
        after = nb.cells[i + 1] if i + 1 < len(nb.cells) else None
        if after is None or after.cell_type != "markdown" or not after.source.strip():
            faults.append(f"cell {i}: no prose after this figure")
    twice = {name for name in names if name and names.count(name) > 1}
    return faults + [f"figure name used twice: {name}" for name in sorted(twice)]


def paths(nb) -> list[str]:
    """Absolute paths, which are nobody else's, in code, prose, outputs or metadata."""
    faults = []
    for where, text in _texts(nb):
        found = _ABSOLUTE.search(text)
        if found:
            around = text[max(0, found.start() - 10) : found.end() + 20]
            faults.append(f"{where}: absolute path near {around!r}")
    return faults


def tags(nb) -> list[str]:
    """Tags that mean nothing here, or something that a committed page must not have."""
    return [
        f"cell {i}: tag {tag} is not one of {sorted(TAGS)}"
        for i, cell in enumerate(nb.cells)
        for tag in sorted(_tags(cell) - TAGS)
    ]


def folded(nb) -> list[str]:
    """Long code between a chapter's prose and its results that is not folded away."""
    faults, after = [], False
    for i, cell in enumerate(nb.cells):
        if cell.cell_type == "markdown":
            after = after or "Experiment" in [t for _, t in _headings_of(cell)]
        elif after and "hide-input" not in _tags(cell):
            rows = len(cell.source.splitlines())
            told = f"cell {i}: {rows} lines after Experiment want the tag hide-input"
            faults += [told] if rows > MOST_OPEN else []
    return faults


def solved(nb) -> list[str]:
    """Exercises that no toggle solves, shows a path to, or gives a hint for."""
    found = []
    for cell in (cell for cell in nb.cells if cell.cell_type == "markdown"):
        _, head, rest = cell.source.partition("## Exercises\n")
        part = re.split(r"^## ", rest, maxsplit=1, flags=re.MULTILINE)[0]
        if head:
            asked = re.findall(r"^(\d+)\. \*", part, re.MULTILINE)
            toggle = r"^:::\{admonition\} (?:Solution of|Path to|Hint for) (\d+)\n"
            told = re.findall(toggle + ":class: dropdown\n", part, re.MULTILINE)
            found += [f"exercise {n} is not solved" for n in asked if n not in told]
            found += [f"solved, but not asked: {n}" for n in told if n not in asked]
    return found


def _code(nb) -> list:
    return [(i, cell) for i, cell in enumerate(nb.cells) if cell.cell_type == "code"]


def _tags(cell) -> set[str]:
    return set(cell.metadata.get("tags", []))


def _headings(nb) -> list[tuple[int, str]]:
    cells = [cell for cell in nb.cells if cell.cell_type == "markdown"]
    return [heading for cell in cells for heading in _headings_of(cell)]


def _headings_of(cell) -> list[tuple[int, str]]:
    fences = r"^(`{3,}|~{3,}|:{3,}).*?^\1[ \t]*$"
    text = re.sub(fences, "", cell.source, flags=re.MULTILINE | re.DOTALL)
    found = re.findall(r"^(#+) +(.+?)[ #]*$", text, re.MULTILINE)
    return [(len(marks), words) for marks, words in found]


def _is_typed_literal(statement: ast.stmt) -> bool:
    if not isinstance(statement, ast.AnnAssign) or not statement.simple:
        return False
    try:
        ast.literal_eval(statement.value)
    except (ValueError, TypeError):  # not a literal, or no value at all
        return False
    return True


def _commented_lines(source: str) -> set[int]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.start[0] for token in tokens if token.type == tokenize.COMMENT}


def _texts(nb) -> Iterator[tuple[str, str]]:
    yield "metadata", json.dumps(nb.metadata)
    for i, cell in enumerate(nb.cells):
        yield f"cell {i}", cell.source
        yield f"cell {i}, metadata", json.dumps(cell.metadata)
        for output in cell.get("outputs", []):
            yield f"cell {i}, output", output.get("text", "")
            yield f"cell {i}, output", "\n".join(output.get("traceback", []))
            for kind, data in output.get("data", {}).items():
                if not kind.startswith("image/"):
                    yield (
                        f"cell {i}, {kind}",
                        data if isinstance(data, str) else str(data),
                    )
