"""What tests of single pages share: a browser, or the reason why there is none."""

import pytest
from pages import PATIENCE

from lottolab.machine import capacity


@pytest.fixture(scope="module")
def browser():
    path = capacity.chromium()
    if path is None:
        pytest.skip("no Chromium, Chrome or Edge found")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as tool:
        how = {"executable_path": path, "args": ["--no-sandbox"], "timeout": PATIENCE}
        opened = tool.chromium.launch(**how)
        yield opened
        opened.close()
