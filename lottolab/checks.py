"""Refuse bad input in one line: what was given, what is allowed, what to do."""

import difflib
from collections.abc import Iterable


def require(ok: bool, what: str, given) -> None:
    """Raise ValueError "`what`, got `given`" unless `ok`."""
    if not ok:
        raise ValueError(f"{what}, got {given}")


def whole(name: str, given, low: int) -> None:
    """Raise ValueError unless `given` is an int, and no bool, of at least `low`."""
    right = type(given) is int and given >= low
    require(right, f"{name} must be a whole number >= {low}", repr(given))


def one_of(what: str, given, allowed: Iterable) -> None:
    """Raise ValueError with the closest allowed names unless `given` is allowed."""
    allowed = list(allowed)
    if given in allowed:
        return
    near = difflib.get_close_matches(str(given), [str(a) for a in allowed], n=2)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    names = ", ".join(str(a) for a in allowed)
    raise ValueError(f"{what} must be one of {names}, got {given!r}{hint}")
