"""What must be installed for what: a notebook's imports, our list, and megabytes.

Needs only the standard library where `megabytes` is not asked: the doctor reads the
list before anything is installed.
"""

import ast
import re
import sys
import tomllib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

LIST = Path(__file__).resolve().parents[2] / "pyproject.toml"
# Modules that are not called as what brings them.
BROUGHT = {"bs4": "beautifulsoup4", "dask": "distributed", "nbformat": "jupyterlab"}


def groups(path: Path = LIST) -> dict[str, list[str]]:
    """Return the requirements that pyproject.toml lists; key "" has what all need.

    The other keys are the extras. Each line is one of pip's, `torch>=2.9,<3`.
    """
    project = tomllib.loads(path.read_text("utf-8"))["project"]
    return {"": project["dependencies"], **project["optional-dependencies"]}


def lines(cells: Iterable[str], also: Iterable[str] = ()) -> list[str]:
    """Return the lines of pyproject.toml for what cells import, and for `also`.

    Raises:
        LookupError: a cell imports what pyproject.toml does not list.
    """
    every = [line for group in groups().values() for line in group]
    listed = {re.match(r"[\w.-]+", line)[0]: line for line in every}
    wanted = {*also, *(name for cell in cells for name in imported(cell))}
    if unknown := sorted(wanted - listed.keys()):
        raise LookupError(f"pyproject.toml does not list {unknown[0]}")
    return [listed[name] for name in sorted(wanted)]


def extra(module: str) -> str | None:
    """Return the extra that brings a module; None where none does.

    >>> extra("prometheus_client"), extra("bs4"), extra("torch")
    ('service', 'book', None)
    """
    top = module.partition(".")[0]
    name = BROUGHT.get(top, top.replace("_", "-"))
    for group, listed in groups().items():
        if group and any(re.match(r"[\w.-]+", line)[0] == name for line in listed):
            return group
    return None


def imported(cell: str) -> set[str]:
    """Return what Python code imports by its first name, the standard library apart.

    >>> sorted(imported("import os, numpy as np; from scipy.stats import norm"))
    ['numpy', 'scipy']
    """
    found = set()
    for node in ast.walk(ast.parse(cell)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names)


def installed(requirements: Iterable[str]) -> dict[str, metadata.Distribution]:
    """Return what pip has installed here for requirements, and for theirs, by name."""
    from packaging.requirements import Requirement

    found, left, seen = {}, [Requirement(line) for line in requirements], set()
    while left:
        need = left.pop()
        name = re.sub(r"[-_.]+", "-", need.name).lower()
        extras = ("", *sorted(need.extras))
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # another system's
            continue
        for more in map(Requirement, found[name].requires or []):
            holds = more.marker.evaluate if more.marker else lambda _: True
            left += [more] * any(holds({"extra": extra}) for extra in extras)
    return found


def megabytes(requirements: Iterable[str], without: Iterable[str] = ()) -> int:
    """Return what requirements take on this disk, in 10^6 bytes, compiled files too.

    Args:
        requirements: lines of pip's; what these require counts, too.
        without: requirements that are there in any case, and do not count.
    """
    apart = installed(without)
    found = [d for n, d in installed(requirements).items() if n not in apart]
    files = [Path(file.locate()) for dist in found for file in dist.files or []]
    return round(sum(path.stat().st_size for path in files if path.exists()) / 1e6)
