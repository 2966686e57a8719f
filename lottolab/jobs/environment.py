"""The project's environment variables, which a worker takes from who asks it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from lottolab.runs import progress

PREFIX = "LOTTOLAB_"  # of all variables of the project
FOLDERS = {"LOTTOLAB_STORE", "LOTTOLAB_DATA", "LOTTOLAB_RESULTS", progress.FOLDER}


def variables() -> dict[str, str]:
    """Return the project's environment variables, for a worker to adopt."""
    found = {k: v for k, v in os.environ.items() if k.startswith(PREFIX)}
    return absolute(found)


def absolute(variables: dict[str, str]) -> dict[str, str]:
    """Make the folders absolute that variables name: who reads them runs elsewhere."""
    named = {k: os.path.abspath(v) for k, v in variables.items() if k in FOLDERS and v}
    return variables | named


@contextmanager
def adopted(environment: dict[str, str]) -> Iterator[None]:
    """Take these for the project's variables while a worker works for somebody.

    It outlives who started it, and may be the process that asked.
    """
    own = {k: v for k, v in os.environ.items() if k.startswith(PREFIX)}
    _replace(environment)
    try:
        yield
    finally:
        _replace(own)


def _replace(environment: dict[str, str]) -> None:
    for key in [k for k in os.environ if k.startswith(PREFIX)]:
        del os.environ[key]
    os.environ.update(environment)
