"""A fingerprint changes with the code that a result depends on, and with no other."""

import importlib
import subprocess
import sys
import textwrap

import pytest

from lottolab.nets import tickets
from lottolab.runs import definitions
from lottolab.runs import fingerprint as module
from lottolab.runs.fingerprint import fingerprint

BASE = {
    "leaf": "def leaf(x):\n    return x + 1\n",
    "constant": "FACTOR = 3\n",
    "table": "def one(x):\n    return x\n\n\nTABLE = {'one': one}\n",
    "method": "class Box:\n    def open(self):\n        return leaf(1)\n",
    "main": """
        def main(x):
            '''Say what.'''
            from lottolab.nets import masks
            return leaf(x) * FACTOR + TABLE['one'](x) + Box().open()
    """,
}


def forget():
    """Forget what was read of the code: these tests write it anew."""
    cached = (definitions.read, definitions._file, module._of, module._reached)
    for function in (*cached, module._keys, module._piece):
        function.cache_clear()


@pytest.fixture
def print_of(tmp_path, monkeypatch):
    """Return the fingerprint of `main` in a module made of the given parts."""
    monkeypatch.syspath_prepend(str(tmp_path))
    count = 0

    def make(words=frozenset(), **changes):
        nonlocal count
        count += 1
        folder = tmp_path / str(count)
        folder.mkdir()
        monkeypatch.syspath_prepend(str(folder))
        parts = [textwrap.dedent(p) for p in (BASE | changes).values()]
        (folder / "test_module.py").write_text("\n\n".join(parts))
        sys.modules.pop("test_module", None)
        importlib.invalidate_caches()
        forget()
        return fingerprint(importlib.import_module("test_module").main, words)

    yield make
    sys.modules.pop("test_module", None)


@pytest.mark.parametrize(
    "changes",
    [
        {"leaf": "def leaf(x):\n    '''Add.'''\n    return x + 1  # one\n"},
        {"unused": "def unused():\n    return 5\n"},
        {"main": "def main(x):\n    from lottolab.nets import masks\n"
                 "    return (leaf(x) * FACTOR +\n  TABLE['one'](x)) + Box().open()\n"},
    ],
    ids=["docstring and comment", "another function", "layout"],
)  # fmt: skip
def test_stays(print_of, changes):
    assert print_of() == print_of(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"leaf": "def leaf(x):\n    return x + 2\n"},
        {"constant": "FACTOR = 4\n"},
        {"table": "def one(x):\n    return -x\n\n\nTABLE = {'one': one}\n"},
        {"method": "class Box:\n    def open(self):\n        return leaf(2)\n"},
        {"main": "def main(x):\n    return leaf(x)\n"},
    ],
    ids=["function", "constant", "function in a table", "method", "itself"],
)
def test_changes(print_of, changes):
    assert print_of() != print_of(**changes)


def test_a_cached_function_counts(print_of):
    cached = "import functools\n\n\n@functools.cache\ndef leaf(x):\n    return x + "
    assert print_of(leaf=cached + "1\n") != print_of(leaf=cached + "2\n")


PLACING = "from lottolab.nets.device import back, here\n"
STEPPING = "from lottolab.jobs.steps import by_row, few, taken\n\n\n"


@pytest.mark.parametrize(
    "leaf",
    [
        PLACING + "def leaf(x):\n    return here(x + 1)\n",
        PLACING + "def leaf(x):\n    return back(here(x) + 1)\n",
        "from lottolab.nets import device\n\n\n"
        "def leaf(x):\n    return device.here(x) + 1\n",
        "from lottolab.nets.device import here as there\n\n\n"
        "def leaf(x):\n    return there(x) + 1\n",
        "def leaf(x):\n    from lottolab.nets.device import here\n"
        "    return here(x) + 1\n",
        "from lottolab.nets.strided import subsampled\n\n\n"
        "def leaf(x):\n    return subsampled(x) + 1\n",
        STEPPING + "def leaf(x):\n    return few(x, also=3, kind='steps') + 1\n",
        STEPPING + "def leaf(x):\n    return taken(x) + 1\n",
        STEPPING + "@by_row\ndef leaf(x):\n    return x + 1\n",
    ],
    ids=[
        *("here", "both", "of the module", "another name", "in the body"),
        *("subsampled", "few", "taken", "by_row"),
    ],
)
def test_where_it_is_computed_does_not_count(print_of, leaf):
    plain = "def leaf(x):\n    return x + 1\n"
    if "    from" in leaf:
        plain = plain.replace(
            "    return", "    from lottolab.nets.device import here\n    return"
        )
    assert print_of(leaf=leaf) == print_of(leaf=plain)


@pytest.mark.parametrize(
    "leaf",
    [
        "def here(x):\n    return x\n\n\ndef leaf(x):\n    return here(x) + 1\n",
        PLACING + "def leaf(x):\n    here = abs\n    return here(x) + 1\n",
        PLACING + "def leaf(x, here=abs):\n    return here(x) + 1\n",
    ],
    ids=["its own", "a local one", "an argument"],
)
def test_somebody_elses_here_counts(print_of, leaf):
    assert print_of(leaf=leaf) != print_of(leaf=leaf.replace("here(x) +", "x +"))


def test_somebody_elses_by_row_counts(print_of):
    own = "def by_row(f):\n    return f\n\n\n"
    leaf = "@by_row\ndef leaf(x):\n    return x + 1\n"
    assert print_of(leaf=own + leaf) != print_of(leaf=own + leaf[8:])


def test_a_module_may_import_here_and_have_a_local_one(print_of):
    """A local of that name is not followed into `lottolab.nets.device`."""
    leaf = "def leaf(x):\n    here = x\n    return here + 1\n"
    assert print_of(leaf=leaf) == print_of(leaf=PLACING + leaf)


def test_only_the_named_entries_of_a_table_count(print_of):
    wider = {
        "table": "def one(x):\n    return x\n\n\ndef two(x):\n    return 2\n\n\n"
        "TABLE = {'one': one, 'two': two}\n"
    }
    assert print_of() != print_of(**wider)
    assert print_of({"one"}) == print_of({"one"}, **wider)
    assert print_of({"one"}) != print_of({"two"}, **wider)


CHECKED = "from lottolab import checks\nfrom lottolab.checks import require\n\n\n"


@pytest.mark.parametrize(
    "leaf",
    [
        "def leaf(x):\n    require(x > 0, 'x', x)\n    return x + 1\n",
        "def leaf(x):\n    checks.whole('x', x, 0)\n    return x + 1\n",
        "def leaf(x):\n    if x:\n        require(x > 0, 'x', x)\n    return x + 1\n",
    ],
    ids=["require", "of the module", "within a block"],
)
def test_what_only_refuses_does_not_count(print_of, leaf):
    plain = "".join(
        line
        for line in leaf.splitlines(True)
        if "require" not in line and "checks" not in line
    ).replace("if x:\n", "if x:\n        pass\n")
    assert print_of(leaf=CHECKED + leaf) == print_of(leaf=plain)


@pytest.mark.parametrize(
    "leaf",
    [
        "def leaf(x):\n    x = require(x > 0, 'x', x)\n    return x + 1\n",
        "def leaf(x, require=print):\n    require(x)\n    return x + 1\n",
        "def leaf(x):\n    print(x)\n    return x + 1\n",
    ],
    ids=["its value is used", "an argument", "another function"],
)
def test_other_statements_count(print_of, leaf):
    without = leaf.replace("    x = require(x > 0, 'x', x)\n", "")
    without = without.replace("    require(x)\n", "").replace("    print(x)\n", "")
    assert print_of(leaf=CHECKED + leaf) != print_of(leaf=without)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Return what writes a package in the place of lottolab, and reads one print."""
    monkeypatch.setattr(definitions, "PACKAGE", tmp_path)

    def make(files, start="stages.main", words=frozenset()):
        for path in tmp_path.rglob("*.py"):
            path.unlink()
        for name, text in {"__init__": "", **files}.items():
            path = tmp_path / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        forget()
        home, _, name = start.rpartition(".")
        return module.of(definitions.Place(f"lottolab.{home}", name), words)

    yield make
    forget()


HOUSE = {
    "stages": "from lottolab import low, runs\nfrom lottolab.low import helper\n\n"
    "def main(x):\n    runs.scratch()\n    return helper(x) + low.other(x)\n",
    "low": "LIMIT = 3\n\ndef helper(x):\n    return x + deep(x)\n\n"
    "def other(x):\n    return min(x, LIMIT)\n\ndef deep(x):\n    return x * 2\n",
    "runs/__init__": "from lottolab.runs.staging import scratch\n",
    "runs/staging": "def scratch():\n    return 1\n",
}


def test_where_code_stands_and_what_it_is_called_does_not_count(package):
    """Everything moves, behind a package's face, under other names."""
    moved = {
        "room/__init__": "from lottolab.room.work import begin\n",
        "room/work": "from ..nets.deep import aid, another\nfrom lottolab import runs\n"
        "\ndef begin(x):\n    runs.scratch()\n    return aid(x) + another(x)\n",
        "nets/__init__": "",
        "nets/deep": "from .other import twice\nMOST = 3\n\n"
        "def another(x):\n    return min(x, MOST)\n\n"
        "def aid(x):\n    return x + twice(x)\n",
        "nets/other": "def twice(x):\n    return x * 2\n",
        "runs/__init__": "def scratch():\n    return 2\n",
    }
    assert (
        package(HOUSE)
        == package(moved, "room.work.begin")
        != package({**HOUSE, "low": ""})
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("x * 2", "x * 3"),
        ("LIMIT = 3", "LIMIT = 4"),
        ("x + deep(x)", "x - deep(x)"),
        ("min(x", "max(x"),
        ("helper(x) + low.other", "helper(x) + low.helper"),
        ("helper(x) + low.other", "low.other(x) + low.helper"),
    ],
)
def test_a_changed_body_counts_however_deep(package, old, new):
    changed = {name: text.replace(old, new) for name, text in HOUSE.items()}
    assert package(HOUSE) != package(changed)


def test_two_helpers_that_change_places_count(package):
    """The set of bodies is the same; who calls which is not."""
    swapped = HOUSE["low"].replace(
        "deep(x):\n    return x * 2", "deep(x):\n    return 5"
    )
    more = "\ndef again(x):\n    return x * 2\n"
    first = {**HOUSE, "low": swapped + more}
    first["stages"] = first["stages"].replace("low.other", "low.again")
    second = {**first}
    second["low"] = (
        first["low"]
        .replace("return x * 2", "return MARK")
        .replace("return 5", "return x * 2")
        .replace("return MARK", "return 5")
    )
    assert package(first) != package(second)


def test_a_table_that_is_filled_later_counts(package):
    table = "def one(x):\n    return x\n\nTABLE = {}\nTABLE['one'] = one\n"
    main = "def main(x):\n    return TABLE['one'](x)\n"
    changed = table.replace("return x", "return -x")
    first = package({"stages": table + main})
    assert first != package({"stages": changed + main})


def test_names_that_lead_in_a_circle_end(package):
    circle = {
        "stages": "from lottolab.a import f\n\ndef main(x):\n    return f(x)\n",
        "a": "from lottolab.b import f\n",
        "b": "from lottolab.a import f\n",
    }
    assert package(circle) == package(circle)


def test_the_code_of_a_stage_is_known_without_importing_it():
    """Otherwise `lottolab status` would take as long as importing torch does."""
    code = (
        "import sys; from lottolab.runs import definitions, fingerprint as f; "
        "p = definitions.Place('lottolab.nets.tickets', 'iterative'); "
        "print(f.of(p), 'torch' in sys.modules)"
    )
    call = [sys.executable, "-c", code]
    said = subprocess.run(call, capture_output=True, text=True, check=True).stdout
    assert said.split() == [fingerprint(tickets.iterative), "False"]


def test_reaches_what_training_does_and_stops_at_plumbing():
    reached = module._reached(
        definitions.Place("lottolab.nets.tickets", "dense"), frozenset()
    )
    places = {place for place, _ in reached}
    assert definitions.Place("lottolab.nets.train", "_epoch") in places
    assert not {
        p for p in places if p.module.removeprefix("lottolab.") in module.PLUMBING
    }
