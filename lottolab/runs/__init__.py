"""Keep what was computed, say what of it is still current, and compute the rest.

A *stage* is a function whose result is kept on disk: `@runs.stage("room.name")` makes
one. This page has what a chapter needs; the modules behind it, from the ground up:

`files` writes whole files or none. `definitions` reads code without importing it, and
`fingerprint` names the code that a function depends on. `store` writes a result as
files and reads it back; `places` says where a stage's result lies and whether it is
current, and `staging` whether the stage must run. `steps` are loops of which a
rehearsal takes a few steps. `progress` tells how far runs are, `cluster` what a Dask
cluster lacks, `jobs` runs many side by side, and `results` keeps what was measured in
tables.
"""

from typing import TYPE_CHECKING

from lottolab.runs.definitions import lazily

if TYPE_CHECKING:  # they are imported when they are asked for
    from lottolab.runs.places import (
        arguments,
        current,
        current_of,
        find,
        name,
        place,
        record,
        root,
        told,
    )
    from lottolab.runs.staging import (
        DRY,
        DryRun,
        NotReproduced,
        scratch,
        stage,
        verifying,
    )

__all__ = [
    "DRY",
    "DryRun",
    "NotReproduced",
    "arguments",
    "current",
    "current_of",
    "find",
    "name",
    "place",
    "record",
    "root",
    "scratch",
    "stage",
    "told",
    "verifying",
]

__getattr__ = lazily(__name__)
