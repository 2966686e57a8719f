"""Tell how far a run is, by events that another process may watch.

Each process appends one-line JSON events to a file of its own in the folder that the
environment variable `LOTTOLAB_PROGRESS` names. With no such folder an event costs
nothing.
"""

import contextlib
import json
import os
import time
from pathlib import Path

FOLDER = "LOTTOLAB_PROGRESS"


def emit(event: str, **fields) -> None:
    """Append one event to this process's file; `fields` must be JSON.

    A folder out of reach, as on another machine of a cluster, stops no run.
    """
    folder = os.environ.get(FOLDER)
    if folder:
        fields |= {"event": event, "time": time.time(), "pid": os.getpid()}
        path = Path(folder) / f"{os.getpid()}.jsonl"
        with contextlib.suppress(OSError), open(path, "a") as file:
            file.write(json.dumps(fields) + "\n")
