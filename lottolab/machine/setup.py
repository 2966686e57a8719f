"""Make the project's own `.venv` and install what `requirements.txt` names, once."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ZBAR = """\
note: the library zbar is missing. Chapter 1 compares readers of QR pictures and then
      leaves zbar's curve out; it reads pictures with zxing-cpp, and all else is whole.
      Debian, Ubuntu: sudo apt install libzbar0     Fedora: sudo dnf install zbar
      macOS: brew install zbar     Windows: it comes with pyzbar; install Microsoft's
      Visual C++ 2013 redistributable if it does not load."""
VENV = """\
lottolab: Python could not make the folder .venv (see above).
On Debian and Ubuntu: sudo apt install python3-venv; then run the same command again."""
PIP = """\
lottolab: pip could not install what requirements.txt names (see above).
Run the same command again: what has been downloaded is not downloaded twice."""


def ready(root: Path = ROOT) -> str:
    """Return the path of the Python in `root/.venv`, installing first if need be.

    Nothing is installed again while requirements.txt, pyproject.toml, the folder and
    the Python are those of the last complete installation. Exits with a message that
    says what to do where venv or pip fail.
    """
    venv, python = root / ".venv", interpreter(root)
    stamp, wanted = venv / "installed", _wanted(root)
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return str(python)
    print(f"lottolab: setting up {venv} (once; torch alone is several GB)", flush=True)
    stamp.unlink(missing_ok=True)
    pip = [python, "-m", "pip"]
    # A venv that was interrupted, or lacked ensurepip, has a Python without pip.
    whole = python.exists() and not subprocess.call([*pip, "--version"], stdout=-3)
    if not whole and subprocess.call([sys.executable, "-m", "venv", venv]):
        sys.exit(VENV)
    pip += ["install", "--disable-pip-version-check"]
    if subprocess.call([*pip, "-r", "requirements.txt"], cwd=root):
        sys.exit(PIP)
    stamp.write_text(wanted)
    if subprocess.call([python, "-c", "import pyzbar.pyzbar"], stderr=-3):
        print(ZBAR, flush=True)
    return str(python)


def interpreter(root: Path = ROOT) -> Path:
    """Return where the Python in `root/.venv` is, or would be."""
    return root / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _wanted(root: Path) -> str:
    """Name what the installation depends on."""
    parts = [str(root), sys.version]
    names = ("requirements.txt", "pyproject.toml")
    parts += [(root / name).read_text("utf-8") for name in names]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
