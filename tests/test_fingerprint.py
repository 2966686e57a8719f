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
