"""Random changes of helpers: another implementation notices each, and so must ours."""

import ast
import copy
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lottolab.jobs import named
from lottolab.runs import definitions, fingerprint

CHILD = Path(__file__).with_name("judged.py")
STAGES = (
    "ownership.experiments.thief.attacked",
    "membership.experiments.attacks.attacked",
    "ensembles.experiments.trials.examples",
    "modelguard.experiments.thefts.stolen",
    "mia_pruning.experiments.treatments.guarded",
    "together.worth.measured",
)
OTHER = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult}
OTHER |= {ast.Lt: ast.GtE, ast.Gt: ast.LtE, ast.LtE: ast.Gt, ast.GtE: ast.Lt}
OTHER |= {ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.And: ast.Or, ast.Or: ast.And}
REFUSE = {
    name for module in fingerprint.REFUSING for name in definitions.read(module).defined
}
LEFT_OUT = ("lottolab.runs", "lottolab.checks")  # what moves results, and refuses
LEFT_OUT += ("lottolab.images.datasets:get", "lottolab.images.datasets:load")
LEFT_OUT += ("lottolab.nets.device:", "lottolab.nets.strided:subsampled")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Copy the package, and let the fingerprint read the copy."""
    home = tmp_path / "lottolab"
    shutil.copytree(definitions.PACKAGE, home)
    monkeypatch.setattr(definitions, "PACKAGE", home)
    monkeypatch.setattr(named, "PACKAGE", home)
    forget()
    yield home
    forget()


def forget():
    for module in (definitions, fingerprint, named):
        for thing in vars(module).values():
            if hasattr(thing, "cache_clear"):
                thing.cache_clear()


def ours() -> dict[str, str]:
    forget()
    places = named.stages()
    return {stage: fingerprint.of(places[stage]) for stage in STAGES}


def judged(home: Path) -> dict[str, list]:
    """Return what the other implementation says of the copy."""
    done = subprocess.run(
        [sys.executable, CHILD, *STAGES],
        cwd=home.parent,
        env=os.environ | {"PYTHONPATH": str(home.parent)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def changeable(function: ast.AST) -> list[ast.AST]:
    """Return the nodes of a function's body that `changed` can change, but for those
    of statements that only refuse bad input: they count for the judge alone."""
    found, todo = [], list(function.body)
    while todo:
        node = todo.pop(0)
        called = (
            getattr(node.value, "func", None) if isinstance(node, ast.Expr) else None
        )
        if called is not None and ast.unparse(called).rpartition(".")[2] in REFUSE:
            continue
        found += [node] if changed(node) is not None else []
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "few":
            todo += node.args[:1]  # the others are for rehearsals alone
        else:
            todo += ast.iter_child_nodes(node)
    return found


def changed(node: ast.AST) -> ast.AST | None:
    """Return another node for this one: a number plus 1, or the opposite operation."""
    new = copy.copy(node)
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        new.value = node.value + 1
    elif isinstance(node, ast.BinOp | ast.BoolOp) and type(node.op) in OTHER:
        new.op = OTHER[type(node.op)]()
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in OTHER:
        new.ops = [OTHER[type(node.ops[0])](), *node.ops[1:]]
    else:
        return None
    return new


def mutate(path: Path, name: str, dice: random.Random) -> str | None:
    """Change one node of a function in a file; return what it was and is, or None
    where nothing in it can be changed."""
    tree = ast.parse(path.read_text("utf-8"))
    function = next(n for n in tree.body if getattr(n, "name", "") == name)
    nodes = changeable(function)
    if not nodes:
        return None
    node = dice.choice(nodes)
    before, new = ast.unparse(node), changed(node)
    vars(node).update(vars(new))
    path.write_text(ast.unparse(tree), "utf-8")
    return f"{path.stem}.{name}: {before} → {ast.unparse(node)}"


def campaign(home: Path, count: int, seed: int) -> tuple[list[str], list[str]]:
    """Change helpers, one at a time; return what was tried, and what one alone saw."""
    dice, plain, before = random.Random(seed), ours(), judged(home)
    below = sorted({f for _, reached in before.values() for f in reached})
    helpers = [f for f in below if not f.startswith(LEFT_OUT)]
    helpers = [f for f in helpers if "." not in f.partition(":")[2]]  # no methods
    dice.shuffle(helpers)
    tried, alone = [], []
    for helper in helpers:
        if len(tried) == count:
            break
        module, _, name = helper.partition(":")
        path = home.parent / Path(*module.split(".")).with_suffix(".py")
        if not path.is_file():
            continue
        text = path.read_text("utf-8")
        what = mutate(path, name, dice)
        if what is None:
            continue
        tried.append(what)
        now, theirs = ours(), judged(home)
        path.write_text(text, "utf-8")
        for stage in STAGES:
            noticed = now[stage] != plain[stage], theirs[stage][0] != before[stage][0]
            if noticed == (False, True) or (
                helper in before[stage][1] and not all(noticed)
            ):
                alone.append(f"{what} in {stage}: ours, theirs {noticed}")
    return tried, alone


def test_both_notice_a_change_of_a_helper(package):
    tried, alone = campaign(package, 1, 0)
    assert len(tried) == 1
    assert alone == []


@pytest.mark.long
def test_both_notice_many_changes_of_helpers(package):
    tried, alone = campaign(package, 150, 1)
    print(*tried, sep="\n")
    assert len(tried) == 150
    assert alone == []


@pytest.mark.long
def test_a_change_that_is_none_is_noticed_by_neither(package):
    """The control: the layout of a file is no code."""
    plain, before = ours(), judged(package)
    for path in (package / "nets").glob("*.py"):
        path.write_text(path.read_text("utf-8") + "\n# the end\n", "utf-8")
    assert ours() == plain
    assert judged(package) == before
