"""What several test files ask for."""

import os
import sys

import matplotlib.pyplot as plt
import pytest
import torch

# Tests ask their own servers only, which no proxy reaches.
for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
    del os.environ[name]
# Notebooks are checked by a library that would compile a grammar of addresses at first,
# which takes seconds; no notebook has one to check.
sys.modules.setdefault("rfc3987_syntax", None)
# Every CPU rounds alike, also one with AMX, and so do the processes that tests start.
os.environ["LOTTOLAB_PRECISION"] = "float32"


# Files of a minute and more begin first, or one of them ends long after all others.
LONGEST = ("test_labs", "test_rehearsal", "test_serving", "defences", "test_jobs")
LONGEST += ("samia", "test_edition", "test_staging", "test_sweep", "test_render")


def pytest_collection_modifyitems(items):
    """Begin with the longest files, which `lottolab test` names at its end."""
    items.sort(key=lambda item: not any(name in item.path.stem for name in LONGEST))


def pytest_runtest_logreport(report):
    """Name a failed test at once: a long run may be ended before its summary."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        print(f"\nfailed: {report.nodeid}", file=sys.__stderr__, flush=True)


@pytest.fixture(autouse=True, scope="module")
def _no_variable_left_behind():
    """Name the file whose code leaves a variable of ours to all that run after it."""
    before = _variables()
    yield
    left = _variables()
    for name in left.keys() - before.keys():  # those after it must not suffer
        del os.environ[name]
    os.environ.update(before)
    if "LOTTOLAB_RESULTS" not in before:
        left.pop("LOTTOLAB_RESULTS", None)  # `results.write` says that it stays
    assert left == before, "variables were left behind in the environment"


def _variables() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k.startswith("LOTTOLAB_")}


@pytest.fixture(scope="module")
def own_store(tmp_path_factory):
    """Give a file a run store of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOTTOLAB_STORE", str(tmp_path_factory.mktemp("store")))
        yield


@pytest.fixture
def on_one_thread(monkeypatch):
    """Train on the CPU with one thread, which repeats to the last bit."""
    monkeypatch.setenv("LOTTOLAB_DEVICE", "cpu")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def rendered():
    """Render every figure, where most warnings come from, and close it."""
    plt.switch_backend("Agg")
    yield
    for number in plt.get_fignums():
        plt.figure(number).canvas.draw()
    plt.close("all")
