"""Find a browser on this machine; needs only the standard library."""

import os
import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome", "msedge")
PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "C:/Program Files/Google/Chrome/Application/chrome.exe",
    "C:/Program Files (x86)/Microsoft/Edge/Application/msedge.exe",
)


def chromium() -> str | None:
    """Find a browser of the Chromium family on this machine."""
    found = map(shutil.which, NAMES)
    return next(filter(None, (*found, *filter(os.path.isfile, PLACES))), None)
