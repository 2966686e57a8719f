"""Grade what students hand in: side by side, each contained and on its own."""

import builtins
import contextlib
import logging
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pandas as pd
import psutil

from lottolab.checks import require, whole
from lottolab.labs import build, contain, submissions

CELL_SECONDS = 60
SECONDS = 300
MEMORY = 4 * 2**30
LARGEST = 20 * 2**20
ERROR = re.compile(r"(\w+\.)*\w*(Error|Exception)\b")
LATE = ("CellTimeoutError", "KeyboardInterrupt")
COLUMNS = ["student", "lab", "score", "max_score", "by_hand", "problem"]


def grade(
    folder: Path,
    course: Path,
    *,
    jobs: int = 2,
    cell_seconds: int = CELL_SECONDS,
    seconds: int = SECONDS,
    walls: bool = True,
) -> pd.DataFrame:
    """Grade `folder/<student>/<lab>/<lab>.ipynb`, replacing earlier automatic scores.

    A submission that fails in any way, or lies elsewhere, gets its zeros and a problem,
    and no other one notices. Nothing but the notebook is taken from a submission.

    Args:
        folder: the submissions, as nbgrader collects them.
        course: what `build` made.
        jobs: submissions at the same time.
        cell_seconds, seconds: how long a cell and a submission may take.
        walls: contain them by bubblewrap; see `contain.missing`.

    Returns a row a submission: student, lab, score and max_score of what is graded
    automatically, by_hand, the points that a person still has to give, and problem.

    Raises:
        ValueError: no submissions, or the course's own copies of submissions.
    """
    for name, value in (("jobs", jobs), ("seconds", seconds)):
        whole(name, value, 1)
    whole("cell_seconds", cell_seconds, 1)
    require((course / "gradebook.db").is_file(), "course must be built before", course)
    handed_in = submissions.find(folder, course)
    _enter(course, [pair for pair, (_, problem) in handed_in.items() if not problem])
    limits = {"cell_seconds": cell_seconds, "seconds": seconds, "walls": walls}

    def problem(item) -> str:
        pair, (path, odd) = item
        try:
            return odd or _one(course, pair, path, **limits)
        except OSError as error:
            return f"{type(error).__name__}: {error}"

    with ThreadPoolExecutor(jobs) as pool:
        found = list(pool.map(problem, handed_in.items()))
    tasks = scores(course)
    rows = []
    for (student, lab), said in zip(handed_in, found, strict=True):
        own = tasks[(tasks["student"] == student) & (tasks["lab"] == lab)]
        sums = [own[c].sum() for c in ("score", "max_score", "by_hand")]
        *who, what = (submissions.shown(text) for text in (student, lab, said))
        rows.append([*who, *sums, what])
    return pd.DataFrame(rows, columns=COLUMNS)


def scores(course: Path) -> pd.DataFrame:
    """Read the gradebook: a row a student, lab and task.

    `by_hand` holds the points that wait for a person, who gives them in nbgrader's
    formgrader; until then they do not count in `max_score`.
    """
    from nbgrader.api import Gradebook

    rows = []
    with Gradebook(build.configuration(course).CourseDirectory.db_url) as gradebook:
        for assignment in gradebook.assignments:
            for submission in assignment.submissions:
                for grade in (g for n in submission.notebooks for g in n.grades):
                    waits = grade.cell.cell_type == "markdown"
                    waits &= grade.needs_manual_grade and grade.manual_score is None
                    points = [0.0, grade.max_score] if waits else [grade.max_score, 0.0]
                    who = [submission.student.id, assignment.name, grade.name]
                    rows.append([*who, grade.score, *points])
    columns = ["student", "lab", "task", "score", "max_score", "by_hand"]
    return pd.DataFrame(rows, columns=columns).sort_values(columns[:3])


def _one(
    course: Path, pair: tuple[str, str], path: Path, *, seconds: int, **how
) -> str:
    """Grade one submission in a process of its own; return what went wrong, or ""."""
    student, lab = pair
    place = course / "submitted" / student / lab
    shutil.rmtree(place, ignore_errors=True)
    if not path.is_file() or path.is_symlink():
        return f"{path.name} is missing{submissions.instead(path.parent)}"
    if path.stat().st_size > LARGEST:
        return f"{path.name} is larger than {LARGEST // 2**20} MiB"
    place.mkdir(parents=True)
    shutil.copy(path, place / path.name)
    with tempfile.TemporaryDirectory(prefix="lab-", ignore_cleanup_errors=True) as work:
        arguments = (course.resolve(), student, lab, Path(work), how)
        worker = _processes().Process(target=_autograde, args=arguments)
        worker.start()
        worker.join(seconds)
        late = worker.is_alive()
        if late:
            _kill(worker.pid)
        worker.join()
        log = Path(work, "log")
        said = log.read_text("utf-8", "replace") if log.exists() else ""
    if late:
        return f"stopped after {seconds} s"
    if worker.exitcode:
        return _reason(said)
    return _troubles(course / "autograded" / student / lab / path.name)


def _processes():
    """Return a context whose processes start fast and share no thread or lock."""
    context = multiprocessing.get_context("spawn" if os.name == "nt" else "forkserver")
    if os.name != "nt":
        context.set_forkserver_preload(["lottolab.labs.grade", "nbgrader.converters"])
    return context


def _autograde(course: Path, student: str, lab: str, work: Path, how: dict) -> None:
    """Let nbgrader grade one submission; runs in a process of its own."""
    from nbgrader.converters import Autograde
    from nbgrader.converters.base import NbGraderException
    from nbgrader.coursedir import CourseDirectory

    silence = os.open(os.devnull, os.O_WRONLY)  # kernel and database say much
    for stream in (1, 2):
        os.dup2(silence, stream)
    at = course / "autograded" / student / lab
    files = [p for p in (course / "source" / lab).iterdir() if p.suffix != ".ipynb"]
    contain.kernelspec(work, at=at, files=files, memory=MEMORY, walls=how["walls"])
    os.environ["JUPYTER_PATH"] = str(work)
    if sys.platform == "linux":  # what a submission prints is held here
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    if not submissions.of_lab(course, student, lab):
        said = f"ValueError: the notebook has no cell of {lab}: another lab's?"
        (work / "log").write_text(said, "utf-8")
        sys.exit(1)
    config = build.configuration(course)
    config.CourseDirectory.assignment_id = lab
    config.CourseDirectory.student_id = student
    config.Execute.kernel_name = "lab"
    config.Execute.timeout = how["cell_seconds"]
    config.OverwriteCells.add_missing_cells = True
    config.KernelManager.connection_file = str(work / "runtime" / "kernel.json")
    if os.name != "nt":
        config.KernelManager.transport = "ipc"
    graded = Autograde(coursedir=CourseDirectory(config=config), config=config)
    graded.force = True
    graded.log.handlers = [logging.FileHandler(work / "log", encoding="utf-8")]
    try:
        graded.start()
    except NbGraderException:  # the log says why
        sys.exit(1)


def _enter(course: Path, handed_in: Iterable[tuple[str, str]]) -> None:
    """Enter submissions with zeros, which stay where grading fails.

    Workers that entered the same student at the same time would collide.
    """
    from nbgrader.api import Gradebook

    address = build.configuration(course).CourseDirectory.db_url
    # Queries in between would flush, and warn of, what is only half made.
    with Gradebook(address) as gradebook, gradebook.db.no_autoflush:
        for student, lab in handed_in:
            gradebook.update_or_create_student(student)
            submission = gradebook.update_or_create_submission(lab, student)
            for grade in (g for n in submission.notebooks for g in n.grades):
                grade.auto_score, grade.needs_manual_grade = 0.0, False
        gradebook.db.commit()


def _reason(log: str) -> str:
    """Find in nbgrader's log why it gave a submission up."""
    if "unresponsive" in log:
        return "the kernel did not answer and could not be interrupted"
    errors = [line for line in log.splitlines() if ERROR.match(line)]
    if any("DeadKernelError" in line for line in errors):
        return "the kernel died: out of memory, or ended by the submission itself"
    return errors[-1][:200] if errors else "nbgrader failed"


def _troubles(path: Path) -> str:
    """Name the first error of an executed notebook that is more than a wrong answer."""
    for place, cell in enumerate(nbformat.read(path, as_version=4).cells):
        for output in cell.get("outputs", ()):
            if output.output_type == "error" and _grave(output):
                said = f"{output.ename}: {output.evalue}".splitlines()[0][:200]
                said = "took too long" if output.ename in LATE else said.rstrip(": ")
                return f"cell {place}: {said}"
    return ""


def _grave(output) -> bool:
    """Does an error come from a limit, a file or the network? So do unknown ones."""
    kind = getattr(builtins, output.ename, OSError)
    beyond = issubclass(kind, OSError | MemoryError | KeyboardInterrupt | SystemExit)
    return beyond or "allocate memory" in output.evalue  # torch's is a RuntimeError


def _kill(process: int) -> None:
    """End a process and all that it has started."""
    try:
        family = psutil.Process(process).children(recursive=True)
        family.append(psutil.Process(process))
    except psutil.NoSuchProcess:
        return
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
