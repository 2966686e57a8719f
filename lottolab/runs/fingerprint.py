"""Name the code that a function depends on, so that a changed result is noticed.

The fingerprint of a function covers its own code and that of every function, class and
module constant of ours that it reaches by name, however deep: their bodies, and not
where they stand or what they are called. Left out are docstrings, comments and layout,
and what the tables below name: the plumbing; statements that only ask to refuse bad
input; and what says where, how or how far to compute: `here(x)` counts as `x`.
"""

import ast
import functools
import hashlib
import inspect
import pickle
import textwrap
from collections.abc import Callable
from dataclasses import dataclass

from lottolab.runs import definitions
from lottolab.runs.definitions import Place, Scope

# What moves results about without changing one, or reads a data set, whose bytes are
# named by its checksum.
PLUMBING = ("lottolab.runs.", "lottolab.jobs.", "lottolab.truth.results.")
PLUMBING += ("lottolab.images.datasets.get.", "lottolab.images.datasets.load.")
REFUSING = {f"lottolab.checks{n}" for n in ("", ".attacks", ".taking", ".tensors")}
ONLY_PLACES = {Place("lottolab.nets.device", name) for name in ("here", "back")}
ONLY_PLACES |= {Place("lottolab.nets.strided", "subsampled")}  # how, not what
# What rehearsals alone change; all arguments of `few` but the first are for them.
FEW = Place("lottolab.jobs.steps", "few")
ONLY_PLACES |= {FEW, Place(FEW.module, "taken"), Place(FEW.module, "by_row")}
Node = tuple[Place, frozenset[str]]  # a definition, and which keys of a table


def fingerprint(function: Callable, words: frozenset[str] = frozenset()) -> str:
    """Return 16 hexadecimal digits that change when the function's code changes.

    Of a module's table (a dict with constant keys) that the code reaches, only the
    entries count whose keys are among `words`, the strings in a stage's arguments:
    a network added to the table of networks leaves results with another one current.
    If no key is among them, all entries count.

    Raises:
        OSError: the source of the function cannot be found.
    """
    function = inspect.unwrap(function)
    place = Place(function.__module__, function.__qualname__)
    if not definitions.has(place):
        lines, _ = inspect.getsourcelines(function)  # it stands inside another one
        place = Place(place.module, textwrap.dedent("".join(lines)))
    return of(place, words)


def of(place: Place, words: frozenset[str] = frozenset()) -> str:
    """Return the fingerprint of the function at a place, without importing it."""
    tables = (_keys(reached) for reached, _ in _reached(place, frozenset()))
    return _of(place, frozenset(words).intersection(frozenset().union(*tables)))


@functools.cache
def _of(start: Place, words: frozenset[str]) -> str:
    """Label each piece by its text, then by its text and the labels of what it names,
    again and again until no two pieces that differ have one label."""
    pieces = _reached(start, words)
    labels = {node: _hash(text) for node, (text, _) in pieces.items()}
    while True:
        new = {
            node: _hash(text, *(labels[name] for name in names))
            for node, (text, names) in pieces.items()
        }
        if len(set(new.values())) == len(set(labels.values())):
            return _hash(new[next(iter(pieces))], *sorted(new.values()))[:16]
        labels = new


def _hash(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


@functools.cache
def _reached(start: Place, words: frozenset[str]) -> dict[Node, tuple[str, list]]:
    """Return what is reached from the start, which comes first: each piece's text, and
    the nodes that its numbers stand for."""
    todo, found = [(start, _keys(start) & words)], {}
    while todo:
        node = todo.pop()
        if node in found:
            continue
        text, places = _piece(*node)
        names = [(place, _keys(place) & words) for place in places]
        found[node] = text, names
        todo += names
    return found


@functools.cache
def _keys(place: Place) -> frozenset[str]:
    """Return the constant keys of a module's table; none if it is not a table."""
    statements = _statements(place)
    table = getattr(statements[0], "value", None) if len(statements) == 1 else None
    keys = table.keys if isinstance(table, ast.Dict) else []
    return frozenset(key.value for key in keys if isinstance(key, ast.Constant))


def _statements(place: Place) -> list[ast.stmt]:
    if definitions.has(place):
        return definitions.read(place.module).defined[place.name]
    return ast.parse(place.name).body  # the source itself, see `fingerprint`


@functools.cache
def _piece(place: Place, chosen: frozenset[str]) -> tuple[str, list[Place]]:
    """Return a definition's text, of a table that of the chosen entries, with each name
    of ours replaced by a number, and what the numbers stand for."""
    nodes = [_bare(statement, chosen) for statement in _statements(place)]
    local: Scope = {}
    package = place.module.rpartition(".")[0]
    hidden: set[str] = set()
    for part in (part for node in nodes for part in ast.walk(node)):
        local |= definitions.imports(part, package)
        hidden |= definitions.bound(part)
    names: list[Place] = []
    visitor = _Numbered(place.module, local, hidden, names)
    texts = [ast.unparse(_filled(visitor.visit(node))) for node in nodes]
    return "\n".join(texts), names


def _bare(statement: ast.stmt, chosen: frozenset[str]) -> ast.AST:
    """Copy a statement without name, docstrings and decorators that make stages."""
    node = pickle.loads(pickle.dumps(statement))  # in a third of deepcopy's time
    if isinstance(node, ast.Assign | ast.AnnAssign):
        if chosen:
            pairs = zip(node.value.keys, node.value.values, strict=True)
            kept = [(k, v) for k, v in pairs if getattr(k, "value", None) in chosen]
            return ast.Expr(ast.Dict(*map(list, zip(*kept, strict=True))))
        plain = isinstance(node, ast.AnnAssign) or len(node.targets) == 1
        return ast.Expr(node.value) if plain and node.value else node
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    if isinstance(node, kinds):
        node.name = "_"
        called = [getattr(d, "func", d) for d in node.decorator_list]
        pairs = zip(node.decorator_list, map(ast.unparse, called), strict=True)
        node.decorator_list = [d for d, name in pairs if not name.endswith("stage")]
    for part in ast.walk(node):
        if isinstance(part, kinds) and ast.get_docstring(part) is not None:
            part.body = part.body[1:]
    return node


@dataclass
class _Numbered(ast.NodeTransformer):
    """Replace what is ours by numbers, in the order in which it is named."""

    module: str
    local: Scope
    hidden: set[str]
    names: list[Place]

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        decorators = node.decorator_list
        node.decorator_list = [d for d in decorators if self._own(d) not in ONLY_PLACES]
        return self.generic_visit(node)

    def visit_Call(self, call: ast.Call) -> ast.AST:
        alone = len(call.args) == 1 and not call.keywords
        alone = alone and not isinstance(call.args[0], ast.Starred)
        own = self._own(call.func)
        if (alone and own in ONLY_PLACES) or (own == FEW and call.args):
            return self.visit(call.args[0])
        return self.generic_visit(call)

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        called = isinstance(node.value, ast.Call) and self._own(node.value.func)
        if called and called.module in REFUSING:
            return None
        return self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> ast.AST | None:
        package = self.module.rpartition(".")[0]
        homes = definitions.imports(node, package).values()
        ours = all(definitions.is_ours(home) for home, _ in homes)
        return None if ours else node

    visit_ImportFrom = visit_Import

    def _own(self, node: ast.AST) -> Place | None:
        """Return what a name stands for, unless the code has its own of that name."""
        chain = definitions.chain(node)
        if not chain or chain[0] in self.hidden:
            return None
        found = definitions.find(self.module, chain, self.local)
        return found[0] if found and found[1] == len(chain) else None

    def visit_Attribute(self, node: ast.Name | ast.Attribute) -> ast.AST:
        chain = definitions.chain(node)
        found = definitions.find(self.module, chain, self.local) if chain else None
        if found is None or isinstance(node.ctx, ast.Store):
            return self.generic_visit(node)
        place, used = found
        word = place.name  # of what is left out: what it is called counts
        if not (place in ONLY_PLACES or place.module == "lottolab.checks") and (
            not f"{place.module}.{place.name}.".startswith(PLUMBING)
        ):
            word = f"_{len(self.names)}"
            self.names.append(place)
        new: ast.expr = ast.Name(word, ast.Load())
        for name in chain[used:]:
            new = ast.Attribute(new, name, ast.Load())
        return new

    visit_Name = visit_Attribute


def _filled(node: ast.AST) -> ast.AST:
    """Put `pass` where nothing was left of a body."""
    for part in ast.walk(node):
        if getattr(part, "body", None) == []:
            part.body = [ast.Pass()]
    return node
