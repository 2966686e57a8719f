"""Execute the book's notebooks: all of it or nothing appears under its name."""

import json
import logging
import os
import re
import shlex
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat

from lottolab import jobs
from lottolab.checks import require
from lottolab.jobs import display
from lottolab.jobs.environment import absolute
from lottolab.pages import parameters, pictures, prose
from lottolab.runs import files
from lottolab.truth import results

ROOT = Path(__file__).resolve().parents[2]
LINES = 16  # of an error that a page tells
JUDGED = "judged"  # tag of cells that draw from the tables alone
INJECTED = "injected-parameters"  # papermill's tag of the cell that it adds
MARKER = "papermill-error-cell-tag"  # of cells that papermill adds
STOPPED = """

:::{{admonition}} This page is not finished
:class: error

It was run at `{scale}` scale and stopped. What it computed before stands below;
nothing after the place where it stopped was run, and figures are missing there.

``````text
{said}
``````

To try again: `{again}`. Runs that are finished are in the store and not lost.
:::"""
MISSING = """<svg xmlns="http://www.w3.org/2000/svg" width="480" height="40">\
<text x="10" y="25" fill="gray">not drawn: the page stopped before</text></svg>"""
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Failed(RuntimeError):
    """A notebook did not run to its end."""


def build_folder(scale: str) -> Path:
    """Return the folder of what runs at this scale leave: `_build/<scale>`."""
    return ROOT / "_build" / scale


def execute(
    chapter: str, scale: str, given: dict | None = None, folder: Path | None = None
) -> Path:
    """Run a chapter and return the path of `<folder>/notebooks/<chapter>.ipynb`.

    Its measurements go to `<folder>/results`. A run that fails leaves the older
    notebook alone and itself as `<chapter>.unfinished.ipynb`, which says what happened.

    Args:
        given: parameters of one's own; such a run must have a folder of its own.
        folder: `_build/<scale>` unless given, from where an edition is published.

    Raises:
        ValueError: chapter, scale or parameters are not allowed; nothing has run.
        Failed: a cell raised, or the kernel died.
    """
    given = given or {}
    values = parameters.resolve(chapter, scale, given)
    apart = folder is not None
    require(apart or not given, "parameters of one's own need a folder", folder)
    folder = folder or build_folder(scale)
    target = folder / "notebooks" / f"{chapter}.ipynb"
    target.parent.mkdir(parents=True, exist_ok=True)
    left = unfinished(target)
    source = parameters.BOOK / f"{chapter}.ipynb"
    own = {results.FOLDER: str(folder / "results"), results.OWN: "1" if apart else ""}
    left.unlink(missing_ok=True)
    state = display.State()
    try:
        with environment(chapter, scale, own), display.watch(chapter) as state:
            notebook = run_cells(source, left, values)
        if faults := incomplete(notebook):
            raise Failed(f"it did not run to its end: {faults[0]}")
    except Exception as error:
        ran = [stack[-1]["label"] for stack in state.running.values() if stack]
        why = reason(error) + (f" while {' and '.join(ran)} ran" if ran else "")
        own = [word for k, v in given.items() for word in ("-p", f"{k}={v}")]
        again = shlex.join(["lottolab", "run", chapter, "--scale", scale, *own])
        said = last_lines(error) or why
        _explain(left, source, {"scale": scale, "said": said, "again": again})
        raise Failed(f"{chapter} stopped: {why}; see {left}") from error
    os.replace(left, target)
    return target


def unfinished(target: Path) -> Path:
    """Return what a notebook is called that did not run to its end."""
    return target.with_suffix(".unfinished.ipynb")


def run_cells(source: Path, target: Path, values: dict):
    """Run the notebook `source` with these parameters; it is written to `target`."""
    import papermill

    from lottolab.reruns.kernel import Kernel

    logging.getLogger("papermill").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="(papermill|nbformat|zmq).*")
    with files.room(target):
        return papermill.execute_notebook(
            literal(source),
            literal(target),
            parameters=values,
            kernel_name="python3",
            kernel_manager_class=Kernel,
            progress_bar=False,
            cwd=str(parameters.BOOK),
            extra_arguments=["--IPKernelApp.log_level=40"],
        )


def literal(path: Path) -> str:
    """Return the path for papermill, which would fill in what stands in braces."""
    return str(path).replace("{", "{{").replace("}", "}}")


def reason(error: Exception) -> str:
    """Say in one line what stopped a notebook."""
    raised = hasattr(error, "ename")  # else the kernel died, or could not start
    said = f"{error.ename}: {error.evalue}" if raised else str(error)
    return (said.strip() or type(error).__name__).splitlines()[0]


def last_lines(error: Exception) -> str:
    """Return the end of what a cell's error says, "" if no cell raised one."""
    text = _COLOUR.sub("", "\n".join(getattr(error, "traceback", None) or []))
    most = LINES + getattr(error, "evalue", "").count("\n")
    return "\n".join(text.splitlines()[-most:])


def _explain(left: Path, source: Path, told: dict[str, str]) -> None:
    """Make what a run left a page that says why it stopped.

    What others link to is there: a figure that was not drawn is replaced.
    """
    begun = left.is_file()
    page = nbformat.read(left if begun else source, as_version=4)
    cells = [c for c in page.cells if MARKER not in c.metadata.get("tags", [])]
    page.cells = cells if begun else cells[:1]
    page.cells[0].source += STOPPED.format(**told)
    for cell in page.cells:
        figure = cell.metadata.get("mystnb", {}).get("figure")
        if figure and not any("image/png" in o.get("data", {}) for o in cell.outputs):
            drawn = {"image/svg+xml": MISSING}
            cell.outputs.append(nbformat.v4.new_output("display_data", drawn))
    nbformat.write(page, left)


def incomplete(notebook) -> list[str]:
    """Return what says that the notebook did not run to its end without an error."""
    faults = []
    for place, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] != "code" or not "".join(cell["source"]).strip():
            continue
        if cell["execution_count"] is None:
            faults.append(f"cell {place} was never run")
        if any(output["output_type"] == "error" for output in cell["outputs"]):
            faults.append(f"cell {place} raised an error")
    return faults


def publish_notebook(path: Path) -> None:
    """Copy one executed notebook to where it is committed.

    What papermill noted of the run, and the parameters that it put in, are left out:
    the notebook's own values stay the laptop's, and its page says what was run.
    """
    notebook = nbformat.read(path, as_version=4)
    notebook.cells = [
        c for c in notebook.cells if INJECTED not in c.metadata.get("tags", [])
    ]
    notebook.metadata.pop("papermill", None)
    ran = [c for c in notebook.cells if c.cell_type == "code" and c.execution_count]
    for count, cell in enumerate(ran, start=1):
        _numbered(cell, count)
    for cell in notebook.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        pictures.lean(cell)
    _replace(parameters.BOOK / path.name, notebook)


def redraw(chapter: str) -> None:
    """Draw anew what a committed page draws from committed tables alone.

    Another claim, or another rule, makes other verdicts of the same measurements. The
    cells with the tag `judged` are run, and no other.

    Raises:
        papermill.PapermillExecutionError: a cell raised; the page is left alone.
    """
    path = parameters.BOOK / f"{chapter}.ipynb"
    page = nbformat.read(path, as_version=4)
    wanted = {JUDGED, "parameters"}
    own = [c for c in page.cells if wanted & {*c.metadata.get("tags", [])}]
    shown = nbformat.v4.new_code_cell("from lottolab.pages import show")
    part = nbformat.v4.new_notebook(cells=[shown, *own], metadata=page.metadata)
    values = parameters.resolve(chapter, "laptop", {})
    with tempfile.TemporaryDirectory(prefix="lottolab-") as folder:
        source, target = Path(folder, "cells.ipynb"), Path(folder, "drawn.ipynb")
        nbformat.write(part, source)
        drawn = {c.id: c for c in run_cells(source, target, values).cells}
    for cell in page.cells:
        if JUDGED in cell.metadata.get("tags", []):
            cell.outputs = drawn[cell.id].outputs
            _numbered(cell, cell.execution_count)
    _replace(path, page)


def _replace(path: Path, page: nbformat.NotebookNode) -> None:
    """Write a committed page; print the numbers in its prose that it left behind."""
    before = path.read_text("utf-8") if path.is_file() else None
    with files.replacing(path) as new:
        nbformat.write(page, new)
    for line in prose.left_behind(path, before):
        print(line, flush=True)


def _numbered(cell: nbformat.NotebookNode, count: int) -> None:
    """Give a cell and its outputs the place in which it ran."""
    for each in (cell, *cell.outputs):
        if "execution_count" in each:
            each.execution_count = count


@contextmanager
def environment(chapter: str, scale: str, new: dict[str, str]) -> Iterator[None]:
    """Give the kernel these variables, and what the last edition took.

    On a CPU it trains in float32 unless `LOTTOLAB_PRECISION` asks for something else:
    in bfloat16, which CPUs with AMX are faster with, a network of chapter 5 breaks.
    """
    from lottolab.nets.device import default_device

    stages = results.read_stages(chapter, results.shown(chapter, scale))
    seconds = stages.groupby("function")["seconds"].apply(list).to_dict()
    own = absolute(jobs.variables() | new)
    if default_device() == "cpu":
        own.setdefault("LOTTOLAB_PRECISION", "float32")
    with jobs.adopted(own | {"LOTTOLAB_EXPECTED": json.dumps(seconds)}):
        yield
