"""Execute the book's notebooks: all of it or nothing appears under its name."""

import json
import logging
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat

from lottolab import files, jobs, parameters, progress, results
from lottolab.checks import require

ROOT = Path(__file__).resolve().parents[1]


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
    notebook alone and itself as `<chapter>.unfinished.ipynb`.

    Args:
        given: parameters of one's own; such a run must have a folder of its own.
        folder: `_build/<scale>` unless given, from where an edition is published.

    Raises:
        ValueError: chapter, scale or parameters are not allowed; nothing has run.
        Failed: a cell raised, or the kernel died.
    """
    given = given or {}
    values = resolve(chapter, scale, given)
    apart = folder is not None
    require(apart or not given, "parameters of one's own need a folder", folder)
    folder = folder or build_folder(scale)
    target = folder / "notebooks" / f"{chapter}.ipynb"
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_suffix(".unfinished.ipynb")
    source = parameters.BOOK / f"{chapter}.ipynb"
    own = {results.FOLDER: str(folder / "results"), results.OWN: "1" if apart else ""}
    try:
        with environment(chapter, scale, own), progress.watch(chapter):
            notebook = run_cells(source, unfinished, values)
    except Exception as error:
        raise Failed(f"{chapter} stopped: {reason(error)}; see {unfinished}") from error
    if faults := incomplete(notebook):
        raise Failed(f"{chapter} did not run to its end: {faults[0]}; see {unfinished}")
    os.replace(unfinished, target)
    return target


def resolve(chapter: str, scale: str, given: dict) -> dict:
    """Return the values to put in for the chapter's parameters.

    Raises:
        ValueError: chapter, scale or parameters are not allowed.
    """
    chosen = given.get("scale", scale)
    require(chosen == scale, "the scale is chosen by --scale, not by -p scale", chosen)
    values = parameters.resolve(chapter, scale, given)
    if scale != "laptop" and "scale" in parameters.of(chapter):
        values["scale"] = scale
    return values


def run_cells(source: Path, target: Path, values: dict):
    """Run the notebook `source` with these parameters; it is written to `target`."""
    import papermill

    from lottolab.kernel import Kernel

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


def publish(scale: str = "laptop") -> None:
    """Copy the executed notebooks and their measurements to where they are committed.

    What papermill noted of the run is left out; the tables hold it.
    """
    for path in sorted((build_folder(scale) / "notebooks").glob("*.ipynb")):
        if not path.name.endswith(".unfinished.ipynb"):
            publish_notebook(path)
    shutil.copytree(
        build_folder(scale) / "results", results.COMMITTED, dirs_exist_ok=True
    )


def publish_notebook(path: Path) -> None:
    """Copy one executed notebook to where it is committed."""
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
    with files.replacing(parameters.BOOK / path.name) as new:
        nbformat.write(notebook, new)


@contextmanager
def environment(chapter: str, scale: str, new: dict[str, str]) -> Iterator[None]:
    """Give the kernel these variables, and what the last edition took."""
    stages = results.read_stages(chapter, scale)
    seconds = stages.groupby("function")["seconds"].apply(list).to_dict()
    new = jobs.absolute(jobs.variables() | new)
    new |= {"LOTTOLAB_EXPECTED": json.dumps(seconds)}
    old = {key: os.environ.get(key) for key in new}
    os.environ.update(new)
    try:
        yield
    finally:
        for key, value in old.items():
            os.environ.pop(key)
            if value is not None:
                os.environ[key] = value
