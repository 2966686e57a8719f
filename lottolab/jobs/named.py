"""The package's stages by their names, found without importing their code.

So is known what of the committed tables is current, in a second.
"""

import atexit
import contextlib
import functools
import hashlib
import json
import re
from collections.abc import Callable
from importlib import import_module

from lottolab.runs import files, fingerprint, places
from lottolab.runs.definitions import PACKAGE, Place

STAGE = re.compile(
    r"""^@runs\.stage\(\s*["']([^"']+)["']\s*,?\s*\)\n(?:@.*\n)*def (\w+)\(""", re.M
)


@functools.cache
def stages() -> dict[str, Place]:
    """Find the package's stages by the names that they are given: `@runs.stage("a.b")`.

    Raises:
        ValueError: two stages have one name.
    """
    found: dict[str, Place] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        for name, function in STAGE.findall(path.read_text("utf-8")):
            place = Place(".".join(parts), function)
            if name in found:
                raise ValueError(f"{found[name]} and {place} are both called {name}")
            found[name] = place
    return found


def _code() -> str:
    """Return a checksum of all the package's code, comments too."""
    whole = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        whole.update(f"{path.relative_to(PACKAGE)}\n".encode() + path.read_bytes())
    return whole.hexdigest()


def current_of(stage_name: str, full: dict) -> str | None:
    """Return the fingerprint of a stage by its name, importing none of its code; None
    if the code has no such stage any more."""
    return _current_of(stage_name, frozenset(places.words(full)))


@functools.cache
def _current_of(stage_name: str, words: frozenset[str]) -> str | None:
    place = stages().get(stage_name)
    if place is None:
        return None
    known, key = _known(), json.dumps([stage_name, *sorted(words)])
    if key not in known:
        known[key] = fingerprint.of(place, words)
    return known[key]


@functools.cache
def _known() -> dict[str, str]:
    """Return what earlier processes found of the code as it stands; what this one adds
    is kept beside the store when it ends."""
    path, code = places.root() / "fingerprints.json", _code()
    try:
        known = dict(json.loads(path.read_text())[code])
    except (OSError, ValueError, LookupError, TypeError):
        known = {}
    before = len(known)

    def keep() -> None:
        if len(known) > before:
            with contextlib.suppress(OSError):
                path.parent.mkdir(parents=True, exist_ok=True)
                with files.replacing(path) as new:
                    new.write_text(json.dumps({code: known}))

    atexit.register(keep)
    return known


def find(stage_name: str) -> Callable:
    """Return the package's stage of that name.

    Raises:
        LookupError: there is no such stage any more.
    """
    place = stages().get(stage_name)
    if place is None:
        raise LookupError(f"the code has no stage {stage_name} any more")
    return getattr(import_module(place.module), place.name)
