"""A fingerprint changes with the code that a result depends on, and with no other."""

import importlib
import sys
import textwrap

import pytest

from lottolab.fingerprint import fingerprint

BASE = {
    "leaf": "def leaf(x):\n    return x + 1\n",
    "constant": "FACTOR = 3\n",
    "table": "def one(x):\n    return x\n\n\nTABLE = {'one': one}\n",
    "method": "class Box:\n    def open(self):\n        return leaf(1)\n",
    "main": """
        def main(x):
            '''Say what.'''
            from lottolab import masks
            return leaf(x) * FACTOR + TABLE['one'](x) + Box().open()
    """,
}


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
        from lottolab import fingerprint as module

        module._tree.cache_clear()
        return fingerprint(importlib.import_module("test_module").main, words)

    yield make
    sys.modules.pop("test_module", None)


@pytest.mark.parametrize(
    "changes",
    [
        {"leaf": "def leaf(x):\n    '''Add.'''\n    return x + 1  # one\n"},
        {"unused": "def unused():\n    return 5\n"},
        {"main": "def main(x):\n    from lottolab import masks\n"
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


PLACING = "from lottolab.device import back, here\n"


@pytest.mark.parametrize(
    "leaf",
    [
        PLACING + "def leaf(x):\n    return here(x + 1)\n",
        PLACING + "def leaf(x):\n    return back(here(x) + 1)\n",
        "from lottolab import device\n\n\n"
        "def leaf(x):\n    return device.here(x) + 1\n",
        "from lottolab.device import here as there\n\n\n"
        "def leaf(x):\n    return there(x) + 1\n",
        "def leaf(x):\n    from lottolab.device import here\n    return here(x) + 1\n",
    ],
    ids=["here", "both", "of the module", "another name", "in the body"],
)
def test_where_it_is_computed_does_not_count(print_of, leaf):
    plain = "def leaf(x):\n    return x + 1\n"
    if "    from" in leaf:
        plain = plain.replace(
            "    return", "    from lottolab.device import here\n    return"
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


def test_a_module_may_import_here_and_have_a_local_one(print_of):
    """A local of that name is not followed into `lottolab.device`."""
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


def test_reaches_through_modules_and_stops_at_plumbing(monkeypatch):
    from lottolab import progress, runs, tickets, train

    before = fingerprint(tickets.dense)
    assert before == fingerprint(tickets.dense)
    real = tickets.train.Recipe.rate

    def rate(self, epoch):
        return 0.0

    rate.__module__ = "lottolab.progress"
    monkeypatch.setattr(progress, "emit", rate)
    monkeypatch.setattr(runs, "scratch", rate)
    assert fingerprint(tickets.dense) == before
    rate.__module__ = "test_fingerprint"
    monkeypatch.setattr(train, "cross_entropy", rate)
    assert fingerprint(tickets.dense) != before
    assert real is train.Recipe.rate
