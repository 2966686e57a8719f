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

from lottolab import parameters, progress, results
from lottolab.checks import require

ROOT = Path(__file__).resolve().parents[1]


class Failed(RuntimeError):
    """A notebook did not run to its end."""


def build_folder(scale: str) -> Path:
    """Return the folder of what runs at this scale leave: `_build/<scale>`."""
    return ROOT / "_build" / scale


def execute(chapter: str, scale: str, given: dict | None = None) -> Path:
    """Run a chapter into `_build/<scale>/notebooks` and return the notebook's path.

    Its measurements go to `_build/<scale>/results`. A run that fails leaves the older
    notebook alone and itself as `<chapter>.unfinished.ipynb`.

    Raises:
        ValueError: chapter, scale or parameters are not allowed; nothing has run.
        Failed: a cell raised, or the kernel died.
    """
    import papermill

    given = given or {}
    chosen = given.get("scale", scale)
    require(chosen == scale, "the scale is chosen by --scale, not by -p scale", chosen)
    values = parameters.resolve(chapter, scale, given)
    if scale != "laptop" and "scale" in parameters.of(chapter):
        values["scale"] = scale
    target = build_folder(scale) / "notebooks" / f"{chapter}.ipynb"
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_suffix(".unfinished.ipynb")
    logging.getLogger("papermill").setLevel(logging.ERROR)
    try:
        with _environment(chapter, scale), progress.watch(chapter):
            warnings.filterwarnings("ignore", module="(papermill|nbformat|zmq).*")
            notebook = papermill.execute_notebook(
                parameters.BOOK / f"{chapter}.ipynb",
                unfinished,
                parameters=values,
                kernel_name="python3",
                progress_bar=False,
                cwd=str(parameters.BOOK),
                extra_arguments=["--IPKernelApp.log_level=40"],
            )
    except Exception as error:
        raised = hasattr(error, "ename")  # else the kernel died, or could not start
        said = f"{error.ename}: {error.evalue}" if raised else str(error)
        first = (said.strip() or type(error).__name__).splitlines()[0]
        raise Failed(f"{chapter} stopped: {first}; see {unfinished}") from error
    if faults := incomplete(notebook):
        raise Failed(f"{chapter} did not run to its end: {faults[0]}; see {unfinished}")
    os.replace(unfinished, target)
    return target


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
        if path.name.endswith(".unfinished.ipynb"):
            continue
        notebook = nbformat.read(path, as_version=4)
        notebook.metadata.pop("papermill", None)
        for cell in notebook.cells:
            for key in ("papermill", "execution"):
                cell.metadata.pop(key, None)
        new = parameters.BOOK / f".{path.name}"
        nbformat.write(notebook, new)
        os.replace(new, parameters.BOOK / path.name)
    shutil.copytree(
        build_folder(scale) / "results", results.COMMITTED, dirs_exist_ok=True
    )


@contextmanager
def _environment(chapter: str, scale: str) -> Iterator[None]:
    """Tell the kernel where results go and what the last edition took."""
    stages = results.read_stages(chapter, scale)
    seconds = stages.groupby("function")["seconds"].apply(list).to_dict()
    new = {
        results.FOLDER: str(build_folder(scale) / "results"),
        "LOTTOLAB_EXPECTED": json.dumps(seconds),
    }
    old = {key: os.environ.get(key) for key in new}
    os.environ.update(new)
    try:
        yield
    finally:
        for key, value in old.items():
            os.environ.pop(key)
            if value is not None:
                os.environ[key] = value
