"""Compute one run of each kind that a chapter needs, and find all the runs it needs."""

import json
import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from lottolab import jobs, runs
from lottolab.images import archives, datasets, folders, sources
from lottolab.jobs import steps
from lottolab.nets import tickets
from lottolab.reruns.rehearsal.arguments import (
    kind,
    lengthened,
    main,
    ratios,
    shortened,
    siblings,
    sparsest,
    walk,
)
from lottolab.reruns.rehearsal.meter import Ledger, Meter
from lottolab.runs import store

# How many images a training has, a batch, how many steps it takes, and how many images
# other functions look at. Small networks are timed on large batches, as they are used;
# of wide networks under attack a single step on two images takes long enough.
SIZES = {"": (240, 4, 1, 2), "ownership": (4500, 64, 1, 64)}
SIZES |= {"ensembles": (49, 2, 1, 1), "together": (96, 4, 1, 2)}
ARCHIVE = (1.5, 0.3)  # pictures in the two parts of an archive, a training's image
MORE = 3840  # images, where a run fails on so few: each of 100 classes needs some
LONG = 60.0  # seconds of a run in full, from which on it is measured how they grow
WORK = ("flop rest", "seconds rest")


@dataclass
class Rehearsal:
    """What a chapter needs, and what was found out about it.

    runs: the stage, the arguments and the kind of each run, by name. ledgers: what the
    computed run of a kind did. grown: by what factor the rest of a kind's work grew,
    and the number that was doubled, by name. disk: bytes that a kind's run left, of
    networks and of all else. errors: of those that did not end, by kind. tiny: the data
    sets that were read from archives written for the purpose.
    """

    runs: dict[str, tuple[Callable, dict, str]] = field(default_factory=dict)
    ledgers: dict[str, Ledger] = field(default_factory=dict)
    grown: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    disk: dict[str, tuple[int, int]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    tiny: list[str] = field(default_factory=list)


def rehearse(work: jobs.Work, sizes: tuple[int, int, int, int]) -> Rehearsal:
    """Compute a shortened run of each kind in the work, and list all runs it needs.

    Nothing is left behind: store and archives are in a temporary folder. A kind that
    fails, on `MORE` images too, is noted with its error, and the others go on. `sizes`
    as in `SIZES`.
    """
    keep, batch, most_steps, rows = sizes
    most, found, meter = max(keep, MORE), Rehearsal(), Meter(most_steps, rows)
    pictures = [int(share * most) for share in ARCHIVE]
    with _apart(work, found, pictures), steps.watched(meter), meter.counter:
        for stage, given in work:
            full = runs.arguments(stage, given)
            key = kind(stage, full)
            if key not in found.ledgers | found.errors:
                error = _attempt(stage, shortened(full, keep, batch))
                error = error and _attempt(stage, shortened(full, most, batch))
                found.errors |= {key: error} if error else {}
            while meter.written:
                ledger = meter.written.pop()
                name = kind(ledger.stage, ledger.arguments)
                if name not in found.ledgers:
                    found.ledgers[name], found.disk[name] = ledger, _disk(ledger)
            _register(found, stage, full)
        by_images = sorted(found.runs.values(), key=lambda run: main(run[1]))
        largest = {key: full for _, full, key in by_images}
        for key in largest.keys() & found.ledgers.keys():
            found.grown[key] = _grown(meter, found.ledgers[key], largest[key])
    return found


def growth(found: Rehearsal, key: str, full: dict, work: str) -> float:
    """Return how often the rest of a run's work is that of its kind's computed run.

    Each number that was cut adds as much for each that is left out as when it was
    doubled; where the work more than doubled, it grows by a power of the number.
    """
    factor, known = 1.0, found.grown.get(key, {})
    for name, times in ratios(found.ledgers[key].arguments, full).items():
        if name in known:
            by, more = known[name]["by"], max(1.0, known[name][work])
            steep = more > by
            slope = math.log(more) / math.log(by) if steep else (more - 1) / (by - 1)
            factor *= times**slope if steep else 1 + slope * (times - 1)
    return factor


def _grown(meter: Meter, ledger: Ledger, full: dict) -> dict[str, dict[str, float]]:
    """Compute a kind's run again with one number doubled after the other, if that can
    matter; return by what the number and the rest of the work grew, by its name."""
    cut, stage = ledger.arguments, ledger.stage
    ratio = ratios(cut, full)
    if ledger.work["seconds rest"] * math.prod(ratio.values()) < LONG:
        return {}
    found = {}
    for name, longer in lengthened(cut, full):
        first = meter.networks.pop(kind(stage, cut), None)
        error = _attempt(stage, longer)
        if first:
            meter.networks[kind(stage, cut)] = first
        own = [one for one in meter.written if one.stage is stage]
        meter.written.clear()
        if own and not error:
            found[name] = {"by": ratios(cut, longer)[name]}
            found[name] |= {w: own[-1].work[w] / (ledger.work[w] or 1) for w in WORK}
    return found


def _attempt(stage: Callable, cut: dict) -> str:
    try:
        stage(**cut)
    except Exception as error:  # whatever it is, the table says so
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    return ""


def _disk(ledger: Ledger) -> tuple[int, int]:
    folder = runs.place(ledger.stage, **ledger.arguments)
    sizes = {True: 0, False: 0}
    for file in store.read_record(folder)["files"].values():
        sizes[file["kind"] == "state"] += (folder / file["file"]).stat().st_size
    return sizes[True], sizes[False]


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
                jobs.adopted(jobs.variables() | changed),
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
