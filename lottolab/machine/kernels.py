"""A plugin of pytest: a dead kernel ends nbval's run, which waits for it otherwise."""

import os
import sys
import threading

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Watch the kernel while it runs a cell."""
    done = threading.Event()
    threading.Thread(target=_watch, args=(item, done), daemon=True).start()
    try:
        return (yield)
    finally:
        done.set()


def _watch(item, done: threading.Event) -> None:
    while not done.wait(1):
        if not item.parent.kernel.is_alive():
            capture = item.config.pluginmanager.getplugin("capturemanager")
            capture.suspend_global_capture(in_=True)
            print(f"\nthe kernel died in {item.nodeid}", file=sys.stderr, flush=True)
            os._exit(1)
