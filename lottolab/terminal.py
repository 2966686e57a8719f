"""Print tables to a terminal or, wide enough to be read, to a file."""

import sys

from rich.console import Console


def console() -> Console:
    """Return a console as wide as the terminal, or of 160 characters without one."""
    width = None if sys.stdout.isatty() else 160
    return Console(highlight=False, markup=False, width=width)
