"""Run what students unpack as on their machine: nothing but what its zip asks for."""

import os
import sys
import zipfile
from importlib import metadata
from pathlib import Path

from nbclient import NotebookClient
from nbformat import NotebookNode

from lottolab.labs import needs

ROOT = Path(__file__).resolve().parents[2]
GUARD = """\
import os, sys
from importlib.machinery import PathFinder

def refuse(event, given):
    if event == "socket.connect":
        name = given[1][0] if isinstance(given[1], tuple) else "127.0.0.1"
    else:
        name = given[0] if event == "socket.getaddrinfo" else "127.0.0.1"
    if name not in (None, "", "localhost", "127.0.0.1", "::1"):
        raise OSError(f"there is no network here, and {name} was asked")
    if event == "open" and isinstance(given[0], str | bytes | os.PathLike):
        path = os.path.abspath(os.fsdecode(given[0]))
        if path.startswith(ROOT + os.sep) and not path.startswith(sys.prefix + os.sep):
            raise PermissionError(f"this is the repository's: {path}")

class Given(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name in MISSING else super().find_spec(name, path, target)

sys.addaudithook(refuse)
sys.meta_path = [Given if finder is PathFinder else finder for finder in sys.meta_path]
"""
# What a cell finds: no package that was not asked for, no network, no repository.
NOTHING_ELSE = """\
import importlib.util, socket
for name in ("nbgrader", "dask", "pytest"):
    assert importlib.util.find_spec(name) is None, name
try:
    socket.create_connection(("192.0.2.1", 80), 1)
except OSError as error:
    assert "there is no network here" in str(error)
    print("nothing else")
"""


def unpacked(path: Path, folder: Path) -> Path:
    """Unpack a zip into a folder, and return its own, the one that it holds."""
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
        (top,) = {name.partition("/")[0] for name in archive.namelist()}
    return folder / top


def asked(place: Path) -> list[str]:
    """Return the lines of `requirements.txt`, with those of the clone that it names."""
    lines = (place / "requirements.txt").read_text("utf-8").split("\n")[:-1]
    if not lines[0].startswith("-e "):
        return lines
    (line,) = lines
    extras = line.removeprefix("-e .[").removesuffix("]").split(",")
    listed = needs.groups(place / "pyproject.toml")
    return [line for group in ("", *extras) for line in listed[group]]


def there(lines: list[str]) -> set[str]:
    """Return the modules that pip would have installed for these requirements."""
    given = {metadata.distribution(name).name for name in needs.installed(lines)}
    found = metadata.packages_distributions().items()
    return {module for module, dists in found if given & set(dists)}


def execute(notebook: NotebookNode, place: Path, env: dict[str, str]) -> None:
    """Run all cells of a notebook in a kernel of its own, whatever they raise."""
    where = {"metadata": {"path": str(place)}}
    client = NotebookClient(notebook, allow_errors=True, resources=where)
    client.execute(env=env)


def said(cell: NotebookNode) -> str:
    """Return what a cell printed, and its value as text."""
    texts = [
        out.get("text") or out.get("data", {}).get("text/plain", "")
        for out in cell.outputs
    ]
    return "".join(texts)


def environment(
    place: Path, folder: Path, *, home: Path | None = None, ours: bool = False
) -> dict[str, str]:
    """Return the variables of a machine without a network and with an empty home.

    Processes that have them import what `place/requirements.txt` asks for, and nothing
    else that is installed here; they read nothing of this repository.

    Args:
        place: an unpacked zip.
        folder: gets the guard.
        home: where matplotlib's list of fonts may be, which takes seconds; else empty.
        ours: whether the package that lies in `place` can be imported.
    """
    guard, home = folder / "guard", home or folder / "home"
    guard.mkdir(parents=True)
    home.mkdir(exist_ok=True)
    missing = set(metadata.packages_distributions()) - there(asked(place))
    missing = missing - {"lottolab"} if ours else missing | {"lottolab"}
    head = f"ROOT, MISSING = {str(ROOT)!r}, {missing!r}\n"
    (guard / "sitecustomize.py").write_text(head + GUARD, "utf-8")
    paths = [str(guard), *([str(place)] if ours else [])]
    return {
        "HOME": str(home),
        "USERPROFILE": str(home),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.defpath]),
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PIP_NO_INDEX": "1",
        "LOTTOLAB_JOBS": "1",
    }
