"""Helpers of the book on stolen, leaked and defended sparse networks.

Nothing heavy is imported here: ask for the module you need,
`from lottolab.nets import train, tickets`.
"""

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

__version__ = "0.1.0"


def lazily(package: str) -> Callable[[str], Any]:
    """Return a package's `__getattr__`, for what it imports under `TYPE_CHECKING`.

    So a room has its public names that has commands: to import these is to import the
    room, and `lottolab --help` shall not wait for torch.

    >>> lazily("lottolab.ownership")("commit").__module__
    'lottolab.ownership.signatures.key'
    """

    def ask(name: str) -> Any:
        top = ast.parse(Path(sys.modules[package].__file__).read_text("utf-8"))
        for node in (n for n in ast.walk(top) if isinstance(n, ast.ImportFrom)):
            if name in [alias.name for alias in node.names]:
                return getattr(import_module(node.module), name)
        if not name.startswith("__") and find_spec(f"{package}.{name}"):
            return import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return ask
