"""Points of a sweep, also such as kill their process; imports nothing, so that the
processes that work on them start fast."""

import os
import signal
import time


def measure(slow, point, folder):
    """Leave a small table; point 5 fails."""
    time.sleep(slow)
    if point["x"] == 5:
        raise ValueError("five is right out\nand more")
    (folder / "table.csv").write_text(f"x,value\n{point['x']},{point['x'] ** 2}\n")


def count(point, folder):
    with open(folder / "runs", "a") as file:
        file.write("x")


def kill_once(point, folder):
    """Kill the own process at the first try of point 3, and at every try of point 4."""
    count(point, folder)
    if point["x"] == 4 or (point["x"] == 3 and (folder / "runs").stat().st_size == 1):
        time.sleep(0.3)  # others get on
        os.kill(os.getpid(), signal.SIGKILL)
