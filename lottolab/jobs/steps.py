"""Let a rehearsal take a few steps of what is long, and count the others.

What trains a network or asks it about images says so by these. Each is the identity
unless somebody watches, and counts for nothing in a fingerprint: `few(x, …)` is `x`.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from lottolab.runs import staging


class Watcher:
    """Look on while stages are computed; this one leaves everything as it is."""

    def few(self, items: Iterable, also: object, kind: str) -> Iterable:
        """Return the items that a loop is to take."""
        return items

    def taken(self, count: int) -> int:
        """Return how many of so many steps a loop takes."""
        return count

    def by_row(self, function: Callable, *given, **options):
        """Call a function that gives a row an image."""
        return function(*given, **options)

    def asked(self, stage: Callable, full: dict) -> dict:
        """Return the arguments with which a stage is to answer."""
        return full

    def computed(self, stage: Callable, full: dict) -> dict:
        """Return what a stage returns."""
        return stage.__wrapped__(**full)

    def announced(self, work: list) -> list:
        """Return the work of which the time that is left is told."""
        return work

    def compute(self, work: list, keep: tuple[str, ...] | None) -> list[dict] | None:
        """Return the results of work; None where it is to be computed."""
        return None

    def dataset(self, name: str, options: dict) -> object | None:
        """Return a data set; None where it is to be read."""
        return None


NOBODY = Watcher()


def watcher() -> Watcher:
    """Return who watches."""
    return staging.WATCHING[-1] if staging.WATCHING else NOBODY


@contextmanager
def watched(by: Watcher) -> Iterator[None]:
    """Within the block, everything is watched by this one."""
    staging.WATCHING.append(by)
    try:
        yield
    finally:
        staging.WATCHING.pop()


def few(items: Iterable, also: object = None, kind: str = "") -> Iterable:
    """Return the items of a loop whose steps cost alike; in a rehearsal a few.

    also: an item that is not to be left out. kind: `epochs` of a training, its `steps`,
    or another loop's.

    >>> few(range(3))
    range(0, 3)
    """
    return watcher().few(items, also, kind)


def taken(count: int) -> int:
    """Return how many items `few` leaves of so many, `also` aside."""
    return watcher().taken(count)


def by_row(function: Callable) -> Callable:
    """Declare that `function(model, images, …)` returns a row an image; in a rehearsal
    it is asked about the first images alone."""

    @functools.wraps(function)
    def called(*given, **options):
        return watcher().by_row(function, *given, **options)

    return called
