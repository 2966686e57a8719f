"""What several test files ask for."""

import os

import matplotlib.pyplot as plt
import pytest
import torch

# Tests ask their own servers only, which no proxy reaches.
for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
    del os.environ[name]
# Every CPU rounds alike, also one with AMX, and so do the processes that tests start.
os.environ["LOTTOLAB_PRECISION"] = "float32"


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
