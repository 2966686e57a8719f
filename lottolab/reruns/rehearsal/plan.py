"""Read from a chapter's own cells what it would compute, without computing it."""

import contextlib
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib.pyplot as plt
import torch

from lottolab import jobs
from lottolab.images.datasets import Dataset
from lottolab.jobs import steps
from lottolab.nets import tickets
from lottolab.pages import parameters
from lottolab.reruns.rehearsal.arguments import sparsest
from lottolab.truth import results

# Images of the training and of the test part, channels, pixels a side, classes.
OFFICIAL = {
    "cifar10": (50_000, 10_000, 3, 32, 10),
    "cifar100": (50_000, 10_000, 3, 32, 100),
    "mnist": (60_000, 10_000, 1, 28, 10),
    "fashion-mnist": (60_000, 10_000, 1, 28, 10),
    "svhn": (73_257, 26_032, 3, 32, 10),
    "tinyimagenet": (100_000, 10_000, 3, 64, 200),
    "cub200": (5_994, 5_794, 3, 224, 200),
    "indoor67": (5_360, 1_340, 3, 224, 67),
}


class _Planned(Exception):
    """All that the chapter computes is known: its results would be used now."""


def planned(chapter: str, scale: str) -> jobs.Work:
    """Return the stages and settings that the chapter asks for, each once, in order.

    Its cells run up to the measurement whose results they write; data sets are empty
    images as many as the real ones, and nothing is computed. Where a chapter goes on
    from what a search has found (`tickets.extreme`), it goes on from the sparsest that
    it tries.

    Raises ValueError for a chapter or scale that is not there; what a cell raises.
    """
    values = parameters.resolve(chapter, scale, {})
    text = (parameters.BOOK / f"{chapter}.ipynb").read_text(encoding="utf-8")
    cells = [c for c in json.loads(text)["cells"] if c["cell_type"] == "code"]
    planner = Planner()
    scope: dict = {"__name__": "planned"}
    with _quiet(), steps.watched(planner), contextlib.suppress(_Planned):
        for cell in cells:
            planner.source = "".join(cell["source"])
            exec(planner.source, scope)
            if "parameters" in cell["metadata"].get("tags", []):
                scope |= values
    keys = [(stage, json.dumps(given, sort_keys=True)) for stage, given in planner.work]
    return [(stage, json.loads(given)) for stage, given in dict.fromkeys(keys)]


class Planner(steps.Watcher):
    """Note what is asked for in place of computing it; data sets are empty images, but
    for those that `OFFICIAL` lacks, which are read."""

    def __init__(self) -> None:
        self.work: jobs.Work = []
        self.source = ""  # of the cell that runs

    def announced(self, work: jobs.Work) -> jobs.Work:
        return []

    def compute(self, work: jobs.Work, keep: tuple[str, ...] | None) -> list[dict]:
        self.work.extend(work)
        if keep == results.MEASURED and "results.write(" in self.source:
            raise _Planned
        return [_pretended(stage, given) for stage, given in work]

    def dataset(self, name: str, options: dict) -> Dataset | None:
        drawn = name in ("glyphs", "fashion-cells")
        return _empty(name, **options) if drawn or name in OFFICIAL else None


@contextmanager
def _quiet() -> Iterator[None]:
    """Within the block, nothing is printed or drawn on a screen."""
    backend = plt.get_backend()
    plt.switch_backend("Agg")
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        plt.close("all")
        plt.switch_backend(backend)


def _pretended(stage, given: dict) -> dict:
    if stage is not tickets.extreme:
        return {}
    return {"rates": sparsest(given), "found": True, "steps": []}


def _empty(name: str, **given) -> Dataset:
    """Return a set of black images, as many and as large as those of the real one."""
    if name == "glyphs":
        shape = (given.get("images", 10_000), 0, 1, 28, given.get("classes", 100))
    else:
        source = "fashion-mnist" if name == "fashion-cells" else name
        shape = OFFICIAL[source]
    train, tests, channels, size, classes = shape
    count = train + tests
    side = given.get("size", size)
    images = torch.zeros(1, channels, side, side, dtype=torch.uint8)
    classes = given.get("classes", classes)
    found = Dataset(
        name,
        images.expand(count, -1, -1, -1),
        torch.arange(count) % classes,
        classes,
        torch.arange(count) >= train,
        False,
        "empty",
    )
    vars(found)["first"] = torch.ones(count, dtype=torch.bool)
    return found
