"""Say what a Dask cluster lacks, while work waits for it in silence."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from lottolab.jobs import display

GOING = "going on: a worker is there"
EVERY = 2.0  # seconds from one look to the next


@contextmanager
def watched(client, needed: dict[str, float] | None = None) -> Iterator[None]:
    """Within the block, say when no worker can take the work, and when one can again.

    Args:
        client: of the cluster; where it is None, nothing is watched.
        needed: how much of a worker's resources a piece of the work takes, by name.
    """
    if client is None:
        yield
        return
    stop = threading.Event()
    look = threading.Thread(
        target=_look, args=(client, needed or {}, stop), daemon=True
    )
    look.start()
    try:
        yield
    finally:
        stop.set()
        look.join(EVERY)


def _look(client, needed: dict[str, float], stop: threading.Event) -> None:
    said = ""
    while not stop.wait(EVERY):
        lacks = _lacks(client, needed)
        if lacks != said and not stop.is_set():
            display.say(f"waiting: {lacks}" if lacks else GOING)
        said = lacks


def _lacks(client, needed: dict[str, float]) -> str:
    """Say what is asked and what is there; nothing where a worker has what is asked."""
    asked = _written(needed)
    try:
        workers = list(client.scheduler_info()["workers"].values())
    except (OSError, TimeoutError, KeyError) as error:
        return f"the scheduler does not answer ({error})"
    if not workers:
        with_it = f' --resources "{asked}"' if asked else ""
        return f"the cluster has no worker; start one by dask worker ADDRESS{with_it}"
    for worker in workers:
        if all(worker["resources"].get(k, 0) >= v for k, v in needed.items()):
            return ""
    most = {k: max(w["resources"].get(k, 0) for w in workers) for k in needed}
    best = f"the best of {len(workers)} has {_written(most)}"
    return f"{asked} of one worker is asked; {best}"


def _written(resources: dict[str, float]) -> str:
    return " ".join(f"{name}={amount:g}" for name, amount in resources.items())
