"""Pack a lab or a chapter into one zip that stands alone and says what it needs.

A lab needs no `lottolab`: its zip holds the student edition, its data, and the lines of
`pyproject.toml` for what its cells import. A chapter's zip is a small clone: notebook,
scales, claims, results, images, and the package as source.
"""

import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import nbformat

from lottolab.checks import one_of
from lottolab.labs import needs
from lottolab.pages import parameters
from lottolab.truth import results
from lottolab.units import duration

README = """\
{title}

You need Python 3.11 or newer, no GPU, and no network but for the installation.
{disk}

In the folder of this file:

    python3 -m venv venv
    . venv/bin/activate              (Windows: venv\\Scripts\\activate)
    pip install -r requirements.txt
    jupyter lab {notebook}

{more}"""
# 2.14.1 from PyPI; of Linux' CPU edition 2.13.0. What torch itself requires is in it.
TORCH = """
torch takes 0.7 GB more on Windows and macOS. On Linux it takes 5.6 GB; 0.9 GB if you
install its CPU edition first, by the command on torch's own page."""
LAB = """\
Work in the cells that say YOUR CODE HERE, and replace the line that raises
NotImplementedError, too. The cell after each of them checks your work; in the menu Run,
"Restart Kernel and Run All Cells" checks all of it, up to the first cell that fails.
Hand in {name}.ipynb and nothing else. For the next lab, install its requirements.txt
into the same venv; most of it is then there. If your answer imports more than the lab
does, such as scipy: pip install scipy.
"""
CHAPTER = """\
The page shows what was measured. Its cells compute it anew, at the scale laptop: a core
takes {took}, two take half; what is done is kept. A small run takes minutes:

    lottolab run {name} --scale smoke

Links to other pages of the book lead nowhere here.
"""
# What one chapter imports beyond what all do: chapter 4 asks its service over HTTP.
EXTRAS = {"modelguard": ["service"]}
ROOT = parameters.BOOK.parent
ALWAYS = ("LICENSE", "README.md", "_toc.yml", "pyproject.toml", "data/claims.yaml")


def lab(output: Path, release: Path, source: Path) -> Path:
    """Write `output/<lab>.zip` of a student edition; return its path.

    Args:
        output: an empty folder, or one whose zip of that name is replaced.
        release: the student edition, a folder that is named like the lab.
        source: our notebook with its solutions: what they import, a student needs.

    Raises:
        LookupError: the notebook imports what pyproject.toml does not list.
    """
    name, cells = release.name, nbformat.read(source, as_version=4).cells
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    lines = needs.lines(code, also=["jupyterlab"])
    about = {"title": f"Lab: {name}", "notebook": f"{name}.ipynb"}
    about |= {"disk": _disk(lines), "more": LAB.format(name=name)}
    files = [(path.name, path) for path in sorted(release.iterdir())]
    return _write(output / f"{name}.zip", README.format(**about), lines, files)


def chapter(output: Path, name: str) -> Path:
    """Write `output/chapter-<name>.zip`, to be read and run alone; return its path.

    Raises:
        ValueError: there is no such chapter.
    """
    one_of("the chapter", name, parameters.rehearsed("laptop"))
    extras, listed = ["jupyter", *EXTRAS.get(name, [])], needs.groups()
    lines = [line for group in ("", *extras) for line in listed[group]]
    took = duration(results.read_stages(name, "laptop")["seconds"].sum())
    about = {"title": f"Chapter: {name}", "notebook": f"book/{name}.ipynb"}
    about |= {"disk": _disk(lines), "more": CHAPTER.format(name=name, took=took)}
    files = [(path.relative_to(ROOT).as_posix(), path) for path in _parts(name)]
    output.mkdir(parents=True, exist_ok=True)
    text, lines = README.format(**about), [f"-e .[{','.join(extras)}]"]
    return _write(output / f"chapter-{name}.zip", text, lines, files)


def _parts(name: str) -> Iterator[Path]:
    """Yield the files of a clone that a chapter needs, and no lab's."""
    for part in (*ALWAYS, f"book/{name}.ipynb"):
        yield ROOT / part
    patterns = [f"book/scales/*/{name}.yaml", f"data/papers/{name}.csv"]
    patterns += [f"data/results/{name}/*", "data/fashion-mnist/*", "lottolab/**/*"]
    for pattern in patterns:
        for path in sorted(ROOT.glob(pattern)):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path


def _disk(lines: list[str]) -> str:
    """Say what an installation takes, torch apart, which differs between systems."""
    size = needs.megabytes(lines, without=["torch"])
    heavy = any(need.startswith("torch") for need in lines)
    return f"It takes {size / 1000:.2f} GB of disk.{TORCH if heavy else ''}"


def _write(
    path: Path, text: str, lines: list[str], files: Iterable[tuple[str, Path]]
) -> Path:
    """Write a zip whose files all lie in a folder that is named like it."""
    top = path.stem
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{top}/README.txt", text)
        archive.writestr(f"{top}/requirements.txt", "\n".join([*lines, ""]))
        for name, file in files:
            archive.write(file, f"{top}/{name}")
    return path
