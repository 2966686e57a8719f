"""What several test files ask for."""

import pytest
import torch


@pytest.fixture
def on_one_thread(monkeypatch):
    """Train on the CPU with one thread, which repeats to the last bit."""
    monkeypatch.setenv("LOTTOLAB_DEVICE", "cpu")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
