"""Compute one run of each kind that a chapter needs, and find all the runs it needs."""

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

from lottolab import runs
from lottolab.images import datasets, folders, sources
from lottolab.nets import tickets
from lottolab.reruns.rehearsal import archives, shortcuts
from lottolab.reruns.rehearsal.arguments import (
    kind,
    shortened,
    siblings,
    sparsest,
    walk,
)
from lottolab.reruns.rehearsal.ledger import Ledger
from lottolab.runs import jobs

# How many images a training has, a batch, how many steps it takes, and how many images
# other functions look at. Small networks are timed on large batches, as they are used;
# of wide networks under attack a single step on two images takes long enough.
SIZES = {"": (240, 4, 1, 2), "ownership": (4500, 64, 2, 64)}
SIZES |= {"ensembles": (49, 2, 1, 1), "together": (96, 4, 1, 2)}
ARCHIVE = (1.5, 0.3)  # pictures in the two parts of an archive, a training's image
MORE = 3840  # images, where a run fails on so few: each of 100 classes needs some


@dataclass
class Rehearsal:
    """What a chapter needs, and what was found out about it.

    runs: the stage, the arguments and the kind of each run, by name. ledgers: what the
    computed run of a kind did. errors: of those that did not end, by kind. tiny: the
    data sets that were read from archives written for the purpose.
    """

    runs: dict[str, tuple[Callable, dict, str]] = field(default_factory=dict)
    ledgers: dict[str, Ledger] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    tiny: list[str] = field(default_factory=list)


def rehearse(work: jobs.Work, sizes: tuple[int, int, int, int]) -> Rehearsal:
    """Compute a shortened run of each kind in the work, and list all runs it needs.

    Nothing is left behind: store and archives are in a temporary folder. A kind that
    fails, on `MORE` images too, is noted with its error, and the others go on. `sizes`
    as in `SIZES`.
    """
    keep, batch, steps, rows = sizes
    most, found = max(keep, MORE), Rehearsal()
    pictures = [int(share * most) for share in ARCHIVE]
    with _apart(work, found, pictures), shortcuts.measuring(steps, rows) as written:
        for stage, given in work:
            full = runs.arguments(stage, given)
            key = kind(stage, full)
            if key not in found.ledgers | found.errors:
                error = _attempt(stage, shortened(full, keep, batch))
                error = error and _attempt(stage, shortened(full, most, batch))
                found.errors |= {key: error} if error else {}
            while written:
                ledger = written.pop()
                name = kind(ledger.stage, ledger.arguments)
                found.ledgers.setdefault(name, ledger)
            _register(found, stage, full)
    return found


def _attempt(stage: Callable, cut: dict) -> str:
    try:
        stage(**cut)
    except Exception as error:  # whatever it is, the table says so
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    return ""


def _register(found: Rehearsal, stage: Callable, full: dict) -> None:
    """Note a run, and those that it asks for as its kind's computed run has asked."""
    name, key = _name(stage, full), kind(stage, full)
    if name in found.runs:
        return
    found.runs[name] = (stage, full, key)
    ledger = found.ledgers.get(key)
    for other, theirs in ledger.asked if ledger else ():
        for nested in siblings(theirs, ledger.arguments, full):
            _register(found, other, nested)
    if stage is tickets.extreme and ledger:
        most = min(full["limit"], len(sparsest(full)) + len(full["rates"]))
        for count in range(2, most + 1):
            _register(found, other, {**nested, "rates": full["rates"][:1] * count})


def _name(stage: Callable, full: dict) -> str:
    return runs.name(stage) + json.dumps(full, sort_keys=True)


@contextmanager
def _apart(work: jobs.Work, found: Rehearsal, pictures: list[int]) -> Iterator[None]:
    """Within the block, store and data sets are in a temporary folder."""
    named = {value for _, given in work for value in _sets(given)}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        there = Path(folder) / "data"
        there.mkdir()
        real = [name for name in sorted(named) if _linked(name, there)]
        found.tiny = sorted(named - set(real))
        changed = {"LOTTOLAB_STORE": str(Path(folder) / "store")}
        changed |= {"LOTTOLAB_DATA": str(there)}
        datasets._load.cache_clear()
        try:
            with (
                patch.dict(os.environ, changed),
                archives.standing_in(found.tiny, there, *pictures),
            ):
                yield
        finally:
            datasets._load.cache_clear()


def _sets(given: dict) -> Iterator[str]:
    """Yield the data sets with files of their own that the arguments name."""
    for _, value in walk(given):
        if isinstance(value, str) and value in archives.WRITERS:
            yield value


def _linked(name: str, there: Path) -> bool:
    """Link the real files of a set into a folder; False where one is missing."""
    if name in folders.FORMS:
        files = [folders.folder(name)]
    else:
        files = [sources.root() / file for file in sources.files(name)]
    if not all(file.exists() for file in files):
        return False
    for file in files:
        link = there / file.relative_to(sources.root())
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file.resolve())
    return True
