"""Turn the book's sources into pages that open without a network."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import nbformat

from lottolab.pages.site import plain_sphinx
from lottolab.runs import files

# Words, symbols and citations of a chapter link to these.
COMPANIONS = ("using", "notation", "glossary", "references")
NO_LABS = (
    "The student editions have not been built: run `make labs`, then render again.\n"
)
_BUILD = (sys.executable, "-c", "from jupyter_book.cli.main import main; main()")
_WORDS = {"PYTHONIOENCODING": "utf-8", "PYTHONUTF8": "1", "NO_COLOR": "1"}
_FAULT = re.compile(r"\b(WARNING|ERROR|CRITICAL|SEVERE)\b|^\w*(Error|Exception)\b")
_LINK = re.compile(r"\[(?P<words>[^][]+)\]\((?P<page>\w+)\.(ipynb|md)[^)]*\)")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def mathjax() -> tuple[Path, Path]:
    """Find MathJax's one-file build and its licence in the installed package.

    The package `django-static-mathjax` holds static files only; Django is neither
    needed nor imported.

    Raises:
        FileNotFoundError: the package is missing or holds no such file.
    """
    spec = importlib.util.find_spec("mathjax")
    for folder in (spec and spec.submodule_search_locations) or ():
        root = Path(folder) / "static" / "mathjax"
        script, licence = root / "es5" / "tex-svg.js", root / "LICENSE"
        if script.is_file() and licence.is_file():
            return script, licence
    raise FileNotFoundError(
        "MathJax's es5/tex-svg.js is not installed; "
        "do: pip install 'django-static-mathjax>=3.2,<4'"
    )


def render(
    source: Path,
    output: Path,
    *,
    strict: bool,
    notebooks: Mapping[str, Path] | None = None,
) -> Path:
    """Render the book that lies in `source` into the folder `output`.

    The pages are built beside `output`, in a temporary folder, and moved into place
    when they are complete: a failed build leaves the earlier pages as they were.
    Nothing is executed and nothing in `source` is written.

    Args:
        source: the folder with `_config.yml`, `_toc.yml` and `book/`.
        output: the folder that will hold `index.html`; replaced if it exists.
        strict: warnings, broken references among them, are errors.
        notebooks: notebooks to take instead of the source's own, by chapter:
            `{"ownership": Path("run/ownership.ipynb")}`.

    Returns:
        The path of `index.html` in `output`.

    Raises:
        ValueError: `output` holds sources, or `notebooks` names no chapter.
        RuntimeError: the build failed; the message holds its complaints only.
    """

    def prepare(work: Path) -> None:
        _copy_sources(source, work, notebooks or {})

    return _render(source, output, strict, prepare) / "index.html"


def render_page(source: Path, output: Path, notebook: Path, note: str) -> Path:
    """Render one executed chapter alone, with the pages that its words link to.

    The folder `output` holds all that the page needs. What refers to other chapters is
    left as plain text.

    Args:
        source: the folder with `_config.yml` and `book/`.
        output: the folder that will hold the page; replaced if it exists.
        notebook: the executed chapter.
        note: Markdown to stand below the page's title.

    Returns:
        The path of the chapter's page.

    Raises:
        ValueError: `output` holds sources.
        RuntimeError: the build failed; the message holds its complaints only.
    """
    source = Path(source).resolve()
    beside = [n for n in COMPANIONS if (source / "book" / f"{n}.md").is_file()]

    def keep(link: re.Match) -> str:
        return link[0] if link["page"] in beside else link["words"]

    def prepare(work: Path) -> None:
        _copy_book(source, work, "*.ipynb")
        page = nbformat.read(notebook, as_version=4)
        for cell in page.cells:
            if cell.cell_type == "markdown":
                cell.source = _LINK.sub(keep, cell.source)
        page.cells[0].source += f"\n\n{note}"
        nbformat.write(page, work / "book" / f"{notebook.stem}.ipynb")
        files = "".join(f"  - file: book/{name}\n" for name in beside)
        toc = f"format: jb-book\nroot: book/{notebook.stem}\n"
        toc += f"chapters:\n{files}" if files else ""
        (work / "_toc.yml").write_text(toc, encoding="utf-8")

    folder = _render(source, output, False, prepare)
    return folder / "book" / f"{notebook.stem}.html"


def _render(
    source: Path, output: Path, strict: bool, prepare: Callable[[Path], None]
) -> Path:
    """Build what `prepare` puts into a folder; swap its pages for those in `output`."""
    source, output = Path(source).resolve(), Path(output).resolve()
    if source.is_relative_to(output) or output.is_relative_to(source / "book"):
        raise ValueError(f"output must not hold or lie in the sources, got {output}")
    output.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="render-", dir=output.parent)).resolve()
    try:
        with files.room(output):
            prepare(work)
            _build(work, strict)
            files.swap(work / "_build" / "html", output, work / "earlier")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return output


def _copy_sources(source: Path, work: Path, notebooks: Mapping[str, Path]) -> None:
    _copy_book(source, work)
    examples = Path(source) / "examples"
    if examples.is_dir():  # which pages show
        shutil.copytree(examples, work / "examples")
    labs = sorted(p.parent.name for p in source.glob("book/labs/source/*/prepare.py"))
    zips = [source / "_build" / "labs" / f"{lab}.zip" for lab in labs]
    place_labs(zips, work / "book")
    shutil.copy(Path(source) / "_toc.yml", work / "_toc.yml")
    _copy_results(Path(source) / "data" / "results", work)
    chapters = set(re.findall(r"\bbook/(\w+)", (work / "_toc.yml").read_text("utf-8")))
    for chapter, notebook in notebooks.items():
        if chapter not in chapters:
            known = ", ".join(sorted(chapters))
            raise ValueError(f"chapter must be one of {known}, got {chapter}")
        shutil.copy(notebook, work / "book" / f"{chapter}.ipynb")
        _copy_results(Path(notebook).resolve().parents[1] / "results", work, chapter)


def _copy_results(folder: Path, work: Path, chapter: str = "*") -> None:
    """Put the tables that the pages link to where pages can load them from."""
    for table in folder.glob(f"{chapter}/*.csv*"):
        target = work / "book" / "_static" / "results" / table.parent.name / table.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(table, target)


def _copy_book(source: Path, work: Path, *without: str) -> None:
    """Copy the settings, the pages and what they show; add MathJax."""
    shutil.copy(Path(source) / "_config.yml", work / "_config.yml")
    skip = shutil.ignore_patterns("labs", "scales", ".*", "__pycache__", *without)
    shutil.copytree(Path(source) / "book", work / "book", ignore=skip)
    static = work / "book" / "_static" / "mathjax"
    static.mkdir(parents=True)
    for file in mathjax():
        shutil.copy(file, static / file.name)


def _command(work: Path, strict: bool) -> list[str]:
    if importlib.util.find_spec("jupyter_book") is None:
        return plain_sphinx.command(work, strict, sys.executable)
    options = ["-W", "-n", "--keep-going"] if strict else []
    return [*_BUILD, "build", str(work), *options]


def _build(work: Path, strict: bool) -> None:
    done = subprocess.run(
        _command(work, strict),
        cwd=work,
        env={**os.environ, **_WORDS},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    page = work / "_build" / "html" / "index.html"
    if done.returncode == 0 and page.is_file():
        return
    said = _COLOUR.sub("", done.stdout).replace(str(work) + os.sep, "")
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    faults = [line for line in lines if _FAULT.search(line)] or lines[-10:]
    unique = "\n  ".join(dict.fromkeys(faults))
    raise RuntimeError(f"the book was not rendered:\n  {unique}")


def place_labs(zips: list[Path], book: Path) -> None:
    """Copy the labs' zips, where they were built, to a copy of the book's static files.

    They are listed in `book/labs/downloads.md`, which the teacher's page includes;
    without zips it says what to do. Nothing else is copied, solutions least of all.
    """
    static, page = book / "_static" / "labs", book / "labs" / "downloads.md"
    page.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for path in filter(Path.is_file, zips):
        static.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, static / path.name)
        size = path.stat().st_size / 2**20
        link = f'<a href="../_static/labs/{path.name}" download>{path.name}</a>'
        lines.append(f"- {link}, {size:.1f} MB\n")
    page.write_text("".join(lines) or NO_LABS, encoding="utf-8")
