"""Name the code that a function depends on, so that a changed result is noticed.

The fingerprint of a function covers its own source and that of every `lottolab`
function, class and module constant that it reaches by name, however deep. Docstrings,
comments and layout are left out, and so is the plumbing, which moves results about
without changing them, and where things are computed: `here(x)` and `back(x)` of
`lottolab.device` count as `x`.
"""

import ast
import copy
import functools
import hashlib
import importlib
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

# What moves results about, or refuses bad input, without changing a result.
PLUMBING = {"runs", "store", "jobs", "progress", "fingerprint", "results", "checks"}
PLUMBING |= {"files"}
# The bytes of a data set are named by its checksum, so how they were read is not code
# that a result depends on.
NAMED_BY_CHECKSUM = {"lottolab.data.get", "lottolab.data.load"}


def fingerprint(function: Callable, words: frozenset[str] = frozenset()) -> str:
    """Return 16 hexadecimal digits that change when the function's code changes.

    Of a module's table (a dict with constant keys) that the code reaches, only the
    entries count whose keys are among `words`, the strings in a stage's arguments:
    a network added to the table of networks leaves results with another one current.
    If no key is among them, all entries count.

    Raises:
        OSError: the source of the function cannot be found.
    """
    found: dict[str, str] = {}
    todo = [inspect.unwrap(function)]
    while todo:
        thing = todo.pop()
        name = f"{thing.__module__}.{thing.__qualname__}"
        if name in found:
            continue
        node, found[name] = _definition(thing)
        todo += _reached(node, vars(_module(thing.__module__)), found, words)
    text = "\n".join(f"{name}\n{found[name]}" for name in sorted(found))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _reached(node: ast.AST, scope: dict, found: dict[str, str], words: frozenset):
    """List the lottolab functions and classes named in `node`.

    Constants are added to `found` on the way, and what their values name is listed.
    """
    things = []
    for name, value, home in _named(node, scope | _local_imports(node)):
        if _only_places(value):
            continue
        value = inspect.unwrap(value) if callable(value) else value
        if inspect.isfunction(value) or inspect.isclass(value):
            full = f"{value.__module__}.{value.__qualname__}"
            if _is_ours(value.__module__) and full not in NAMED_BY_CHECKSUM:
                things.append(value)
            continue
        key = f"{home}.{name}"
        assignment = _assignment(home, name) if home else None
        if assignment is not None and key not in found:
            chosen = _keys(assignment).intersection(words)
            part, found[key] = _constant(home, assignment, chosen)
            things += _reached(part, vars(_module(home)), found, words)
    return things


def _named(node: ast.AST, scope: dict[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """Yield (name, value, module) for each global that `node` mentions."""
    home = scope.get("__name__", "")
    for part in _mentions(node):
        if isinstance(part, ast.Name) and part.id in scope:
            value = scope[part.id]
            if not isinstance(value, ModuleType):
                yield part.id, value, _origin(home, part.id)
        elif isinstance(part, ast.Attribute):
            owner = _resolve(part.value, scope)
            if isinstance(owner, ModuleType) and hasattr(owner, part.attr):
                value = getattr(owner, part.attr)
                if not isinstance(value, ModuleType):
                    yield part.attr, value, owner.__name__


@functools.cache
def _mentions(node: ast.AST) -> tuple[ast.Name | ast.Attribute, ...]:
    """Return the names and the chains of attributes that `node` mentions, once each."""
    kinds = (ast.Name, ast.Attribute)
    parts = [part for part in ast.walk(node) if isinstance(part, kinds)]
    return tuple({ast.unparse(part): part for part in parts}.values())


def _resolve(node: ast.AST, scope: dict[str, Any]) -> Any:
    if isinstance(node, ast.Name):
        return scope.get(node.id)
    if isinstance(node, ast.Attribute):
        owner = _resolve(node.value, scope)
        return getattr(owner, node.attr, None) if owner is not None else None
    return None


def _is_ours(module: str) -> bool:
    """Say whether code of `module` counts: lottolab's, a notebook's or a test's."""
    package, _, rest = module.partition(".")
    if package == "lottolab":
        return rest.split(".")[0] not in PLUMBING
    return package == "__main__" or package.startswith("test_")


@functools.cache
def _local_imports(node: ast.AST) -> dict[str, Any]:
    """Resolve the imports that a function makes in its own body."""
    names: dict[str, Any] = {}
    for part in ast.walk(node):
        if isinstance(part, ast.ImportFrom) and (part.module or "").startswith("lotto"):
            module = importlib.import_module(part.module)
            for alias in part.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{part.module}.{alias.name}")
                names[alias.asname or alias.name] = getattr(module, alias.name)
    return names


def _origin(home: str, name: str) -> str:
    """Follow `from lottolab.x import NAME` to the module that assigns NAME."""
    tree = _tree(home) if _is_ours(home) else None
    return _imports(tree).get(name, home) if tree else home


def _assignment(home: str, name: str) -> ast.stmt | None:
    tree = _tree(home) if _is_ours(home) else None
    return _assignments(tree).get(name) if tree else None


@functools.cache
def _imports(tree: ast.Module) -> dict[str, str]:
    """Return the module that each name of a module was imported from."""
    nodes = [n for n in tree.body if isinstance(n, ast.ImportFrom) and n.module]
    return {a.asname or a.name: node.module for node in nodes for a in node.names}


@functools.cache
def _assignments(tree: ast.Module) -> dict[str, ast.stmt]:
    """Return the statement that assigns each name of a module."""
    found: dict[str, ast.stmt] = {}
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AnnAssign):
            targets = [node.target]
        for target in targets:
            if isinstance(target, ast.Name):
                found.setdefault(target.id, node)
    return found


@functools.cache
def _keys(assignment: ast.stmt) -> frozenset:
    """Return the constant keys of a module's table; none if it is not a table."""
    table = assignment.value
    keys = table.keys if isinstance(table, ast.Dict) else []
    return frozenset(key.value for key in keys if isinstance(key, ast.Constant))


@functools.cache
def _constant(home: str, assignment: ast.stmt, chosen: frozenset) -> tuple:
    """Return the tree and text of a module's constant, or of a table's chosen entries.

    If no key is chosen, all entries count.
    """
    node = assignment
    if chosen:
        pairs = zip(assignment.value.keys, assignment.value.values, strict=True)
        kept = [(k, v) for k, v in pairs if getattr(k, "value", None) in chosen]
        node = ast.Expr(ast.Dict(*map(list, zip(*kept, strict=True))))
    node = _unplaced(node, vars(_module(home)))
    return node, ast.unparse(node)


@functools.cache
def _tree(module: str) -> ast.Module | None:
    try:
        return ast.parse(inspect.getsource(_module(module)))
    except (OSError, TypeError):  # a notebook's __main__ has no file
        return None


def _module(name: str) -> ModuleType:
    return sys.modules.get(name) or importlib.import_module(name)


@functools.cache
def _definition(thing: Any) -> tuple[ast.AST, str]:
    """Parse the function or class, without docstrings and decorators, and unparse it.

    A decorator that makes a stage is plumbing.
    """
    lines, _ = inspect.getsourcelines(thing)
    node = ast.parse(textwrap.dedent("".join(lines))).body[0]
    node.decorator_list = [
        d for d in node.decorator_list if "stage" not in ast.unparse(d)
    ]
    node = _without_docstrings(node)
    node = _unplaced(node, vars(_module(thing.__module__)) | _local_imports(node))
    return node, ast.unparse(node)


def _unplaced(node: ast.AST, scope: dict[str, Any]) -> ast.AST:
    """Replace `here(x)` and `back(x)` by `x`, unless the code has its own of a name."""

    class Unplace(ast.NodeTransformer):
        def visit_Call(self, call: ast.Call) -> ast.AST:
            self.generic_visit(call)
            alone = len(call.args) == 1 and not call.keywords
            alone = alone and not isinstance(call.args[0], ast.Starred)
            placed = alone and _only_places(_resolve(call.func, known))
            return call.args[0] if placed else call

    hidden = _bound(node)
    known = {name: value for name, value in scope.items() if name not in hidden}
    return Unplace().visit(copy.deepcopy(node))


def _only_places(value: Any) -> bool:
    """Say whether `value` is `here` or `back`: it says where, not what."""
    from lottolab.device import back, here

    return value is here or value is back


def _bound(node: ast.AST) -> set[str]:
    """Return the names that a function takes or assigns; they hide the module's."""
    names = {part.arg for part in ast.walk(node) if isinstance(part, ast.arg)}
    parts = (part for part in ast.walk(node) if isinstance(part, ast.Name))
    return names | {part.id for part in parts if isinstance(part.ctx, ast.Store)}


def _without_docstrings(node: ast.AST) -> ast.AST:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    for part in ast.walk(node):
        if isinstance(part, kinds) and ast.get_docstring(part) is not None:
            part.body = part.body[1:] or [ast.Pass()]
    return node
