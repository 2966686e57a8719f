"""Keep what was computed, say what of it is still current, and compute the rest.

A *stage* is a function whose result is kept on disk: `@runs.stage("room.name")` makes
one. `README.md` beside this says what the modules are for, and how to lift them out.
"""

from lottolab.runs.places import arguments, current, name, place, record, root, told
from lottolab.runs.staging import DRY, DryRun, scratch, stage

__all__ = [
    "DRY",
    "DryRun",
    "arguments",
    "current",
    "name",
    "place",
    "record",
    "root",
    "scratch",
    "stage",
    "told",
]
