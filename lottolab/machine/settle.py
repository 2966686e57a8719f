"""Make do with the machine: an output that knows few letters, a home of nobody.

Needs only the standard library, because the installation begins with it, too.
"""

import atexit
import io
import os
import shutil
import sys
import tempfile
from pathlib import Path


def settle() -> None:
    """Let this process and its children print every letter and write into their home.

    A letter that the output's encoding lacks is printed as its number, `\\u2265`. Where
    the home cannot be written, as in some containers, Jupyter could start no kernel:
    another one stands in for it until the process ends. Nor could joblib start a worker
    where the letters of the folder for temporary files are beyond ASCII.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    encoding = os.environ.get("PYTHONIOENCODING", "").partition(":")[0]
    os.environ["PYTHONIOENCODING"] = f"{encoding}:backslashreplace"
    if not tempfile.gettempdir().isascii():  # as of a user Jörg; joblib 1.6 needs ASCII
        os.environ.setdefault("JOBLIB_TEMP_FOLDER", os.environ.get("PUBLIC", "/tmp"))
    home = Path(os.path.expanduser("~"))
    if not (home.is_dir() and os.access(home, os.W_OK | os.X_OK)):
        os.environ["HOME"] = tempfile.mkdtemp(prefix="lottolab-home-")
        atexit.register(shutil.rmtree, os.environ["HOME"], ignore_errors=True)
