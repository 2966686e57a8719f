"""Find what a name in our code means, by reading the code and importing none of it.

Ours is the package, a test's module and what a notebook has run (`__main__`).
"""

import ast
import functools
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).resolve().parents[1]
Scope = dict[str, tuple[str, str | None]]  # a name: its module, and its name there


class Place(NamedTuple):
    """Where something of ours is defined: a name at the top of a module."""

    module: str
    name: str


class Module(NamedTuple):
    """What stands at the top of a module: statements by the name that they define
    or change, and where each imported name comes from."""

    defined: dict[str, list[ast.stmt]]
    imported: Scope


def is_ours(module: str) -> bool:
    """Say whether the code of `module` counts: ours, a notebook's or a test's."""
    package = module.partition(".")[0]
    return package in ("lottolab", "__main__") or package.startswith("test_")


def find(module: str, chain: tuple[str, ...], local: Scope) -> tuple[Place, int] | None:
    """Follow a chain of names, as `masking.apply_` is one, to what defines it.

    Args:
        module: where the chain stands.
        local: what the code around it imports by itself.

    Returns the place and how many of the names led there, or None for what is not
    ours, for a module, and for a name that is none of a module's.
    """
    if chain[0] in local:
        home, name = local[chain[0]]
    else:
        home, name = module, chain[0]
    used, seen = 1, set()
    while (home, name) not in seen and is_ours(home):
        seen.add((home, name))  # names may lead in a circle
        if name is None:  # the chain has led to a module; its next name is in there
            if used == len(chain):
                return None
            name, used = chain[used], used + 1
        known = read(home)
        if known is None:
            return None
        if name in known.defined:
            return Place(home, name), used
        if known.imported.get(name, (home, name)) != (home, name):
            home, name = known.imported[name]
        elif _file(f"{home}.{name}"):
            home, name = f"{home}.{name}", None
        else:
            return None
    return None


def has(place: Place) -> bool:
    """Say whether something is defined there."""
    known = read(place.module)
    return known is not None and place.name in known.defined


@functools.cache
def read(name: str) -> Module | None:
    """Read a module's top, or return None where there is no such source."""
    text = _text(name)
    if text is None:
        return None
    found = Module({}, {})
    package = name if (_file(name) or Path()).name == "__init__.py" else None
    package = package or name.rpartition(".")[0]
    for statement in _top(ast.parse(text).body):
        found.imported.update(imports(statement, package))
        for target in _targets(statement):
            found.defined.setdefault(target, []).append(statement)
    return found


def imports(node: ast.AST, package: str) -> Scope:
    """Return where each name comes from that an import statement binds."""
    if isinstance(node, ast.Import):
        whole = {a.asname: (a.name, None) for a in node.names if a.asname}
        tops = (a.name.partition(".")[0] for a in node.names if not a.asname)
        return whole | {top: (top, None) for top in tops}
    if not isinstance(node, ast.ImportFrom):
        return {}
    home = node.module or ""
    if node.level:
        home = importlib.util.resolve_name("." * node.level + home, package)
    return {a.asname or a.name: (home, a.name) for a in node.names}


def chain(node: ast.AST) -> tuple[str, ...]:
    """Return the names of `a.b.c`; none for what does not begin with a name."""
    if isinstance(node, ast.Name):
        return (node.id,)
    if isinstance(node, ast.Attribute):
        before = chain(node.value)
        return (*before, node.attr) if before else ()
    return ()


def bound(part: ast.AST) -> set[str]:
    """Return the name that a function takes or assigns here: it hides the module's."""
    if isinstance(part, ast.arg):
        return {part.arg}
    stored = isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)
    return {part.id} if stored else set()


def _top(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements that run when a module is imported, however nested."""
    for statement in body:
        yield statement
        if isinstance(statement, ast.If | ast.Try | ast.With):
            for part in ("body", "orelse", "finalbody"):
                yield from _top(getattr(statement, part, []))
            for handler in getattr(statement, "handlers", []):
                yield from _top(handler.body)


def _targets(statement: ast.stmt) -> set[str]:
    """Return the names that a statement defines or changes, as `TABLE["x"] = 1`."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    if not isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
        return set()
    targets = getattr(statement, "targets", None) or [statement.target]
    names = (part for target in targets for part in ast.walk(target))
    return {part.id for part in names if isinstance(part, ast.Name)}


def _text(name: str) -> str | None:
    if path := _file(name):
        return path.read_text("utf-8")
    cells = getattr(sys.modules.get(name), "In", []) if name == "__main__" else []
    return "\n".join(filter(_parses, cells)) if cells else None


@functools.cache
def _file(name: str) -> Path | None:
    package, *rest = name.split(".")
    if package == "lottolab":
        stem = PACKAGE.joinpath(*rest)
        ends = (stem / "__init__.py", stem.with_suffix(".py"))
        return next(filter(Path.is_file, ends), None)
    path = getattr(sys.modules.get(name), "__file__", None)
    return Path(path) if path and Path(path).suffix == ".py" else None


def _parses(cell: str) -> bool:
    """Say whether a cell is Python alone; one with `%magic` is not."""
    try:
        ast.parse(cell)
    except SyntaxError:
        return False
    return True
