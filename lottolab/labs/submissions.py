"""Find what students have handed in, whatever they have called it."""

import re
from pathlib import Path

import nbformat

from lottolab.checks import one_of, require

PLACE = "<student>/<lab>/<lab>.ipynb"
LITTER = re.compile(r"\..*|__MACOSX|Thumbs\.db|desktop\.ini")  # nobody's work
# What nbgrader cannot find again in a name, or nobody can print.
ODD = re.compile(r"[*?\[\0-\x1f\x7f\ud800-\udfff]|^ | $")


def find(folder: Path, course: Path) -> dict[tuple[str, str], tuple[Path, str | None]]:
    """Find what is handed in: by student and lab, the notebook, or what is wrong.

    What systems leave behind (`.ipynb_checkpoints`, `__MACOSX` …) is passed over. All
    else is somebody's work, and has a problem where it cannot be graded.

    Raises ValueError: no submissions, or the course's own copies of submissions.
    """
    require(folder.is_dir(), "the submissions must be a folder", folder)
    own = folder.resolve().is_relative_to((course / "submitted").resolve())
    require(not own, "the folder must not be the course's own copies", folder)
    labs = sorted(p.name for p in (course / "source").iterdir())
    found = {}
    for student in _entries(folder):
        for path in _entries(student) or [student]:
            lab = "" if path == student else path.name
            problem = _misplaced(student.name, path, lab, labs)
            found[student.name, lab] = path / f"{lab}.ipynb", problem
    require(bool(found), f"the folder must hold {PLACE}", folder)
    return found


def of_lab(course: Path, student: str, lab: str) -> bool:
    """Has the notebook one of the lab's cells, or can it not even be read?"""
    places = [course / "source" / lab, course / "submitted" / student / lab]
    names = []
    for place in places:
        try:
            cells = nbformat.read(place / f"{lab}.ipynb", as_version=4).cells
            metas = [c.metadata.get("nbgrader", {}) for c in cells]
            names.append({m["grade_id"] for m in metas if "grade_id" in m})
        except Exception:  # nbgrader says in the log what is wrong with it
            return True
    return bool(set.intersection(*names))


def instead(folder: Path) -> str:
    """Name what else was handed in, if anything."""
    there = [p for kind in ("*.ipynb", "*/*.ipynb", "*.zip") for p in folder.glob(kind)]
    files = [p.relative_to(folder) for p in there if p.is_file() and not p.is_symlink()]
    named = sorted(str(file) for file in files if not str(file).startswith("."))
    return f"; there is {', '.join(named[:3])}" if named else ""


def shown(text: str) -> str:
    """Write a name so that it can be printed: not all bytes of a name are letters."""
    return text.encode("utf-8", "backslashreplace").decode()


def _entries(folder: Path) -> list[Path]:
    """List what lies in a folder and is not litter; nothing for what is no folder."""
    try:
        return sorted(p for p in folder.iterdir() if not LITTER.fullmatch(p.name))
    except OSError:
        return []


def _misplaced(student: str, path: Path, lab: str, labs: list[str]) -> str | None:
    """Say why nothing can be graded there; None where it can."""
    try:
        require(not ODD.search(student), "rename the student's folder", ascii(student))
        right = path.is_dir() and not path.is_symlink() and lab
        unpacked = "unpack it: " if path.suffix == ".zip" else ""
        require(right, f"{unpacked}submissions must lie in {PLACE}", path.name)
        one_of("the lab", lab, labs)
    except (ValueError, OSError) as error:
        return str(error)
    return None
