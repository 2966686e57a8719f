"""Import a package's modules when its names are asked for, and not before."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from lottolab import definitions


def lazily(package: str) -> Callable[[str], Any]:
    """Return a package's `__getattr__`, for what it imports under `TYPE_CHECKING`.

    So a room has its public names that has commands: to import these is to import the
    room, and `lottolab --help` shall not wait for torch.

    >>> lazily("lottolab.ownership")("commit").__module__
    'lottolab.ownership.key'
    """

    def ask(name: str) -> Any:
        if found := definitions.read(package).imported.get(name):
            return getattr(import_module(found[0]), found[1])
        if definitions.read(f"{package}.{name}"):
            return import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return ask
