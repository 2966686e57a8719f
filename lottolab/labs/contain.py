"""What a submission may touch while it is graded: a kernel inside bubblewrap.

nbgrader itself runs outside and reads the kernel's answers; only the kernel, in which
the submission's code runs, is contained. It talks through sockets in one folder, so
that it needs no network.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import lottolab

PACKAGE = Path(lottolab.__file__).resolve().parent


def missing() -> str:
    """Say why grading cannot be contained here; empty where it can."""
    if sys.platform != "linux":
        return "bubblewrap is for Linux only"
    if not shutil.which("bwrap"):
        return "bubblewrap is not installed"
    done = subprocess.run(
        [*_walls(Path("/tmp/lab"), []), "true"], capture_output=True, text=True
    )
    return done.stderr.strip() if done.returncode else ""


def kernelspec(
    folder: Path, *, at: Path, files: list[Path], memory: int, walls: bool
) -> None:
    """Write the Jupyter kernel "lab" into `folder/kernels`.

    Args:
        folder: also holds the kernel's sockets, under `runtime`.
        at: where the notebook lies; what is written there is gone afterwards.
        files: to be read there.
        memory: bytes that one process may have.
        walls: whether bubblewrap contains it. Limits hold in either case on Linux.
    """
    runtime = folder / "runtime"
    runtime.mkdir()
    start = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    if shutil.which("prlimit"):
        start = [*_limits(memory), *start]
    if walls:
        start = [*_walls(at, files), "--bind", *[str(runtime)] * 2, *start]
    # A signal would kill bubblewrap and not interrupt the cell.
    spec = {"argv": start, "display_name": "lab", "language": "python"}
    spec |= {"interrupt_mode": "message", "env": environment()}
    place = folder / "kernels" / "lab" / "kernel.json"
    place.parent.mkdir(parents=True)
    place.write_text(json.dumps(spec))


def environment() -> dict[str, str]:
    """Return the variables that a kernel sees; one thread, so that scores repeat."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    threads |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1")
    fixed = {"PYTHONHASHSEED": "0", "NBGRADER_EXECUTION": "autograde"}
    return threads | fixed | {"PYTHONPATH": str(PACKAGE.parent)}


def _limits(memory: int) -> list[str]:
    # Not --as: torch reserves far more addresses than it uses.
    limits = [f"--data={memory}", "--nproc=256", "--core=0", f"--fsize={2**28}"]
    return ["prlimit", *limits]


def _walls(at: Path, files: list[Path]) -> list[str]:
    """Return bubblewrap's command: Python and the lab's files, and nothing else."""
    command = ["bwrap", "--unshare-all", "--die-with-parent", "--cap-drop", "ALL"]
    command += ["--clearenv", "--proc", "/proc", "--dev", "/dev"]
    for name in ("/usr", "/bin", "/sbin", "/lib", "/lib64"):
        path = Path(name)
        link = path.is_symlink()
        command += ["--symlink", os.readlink(path)] if link else ["--ro-bind-try", name]
        command.append(name)
    for size, place in ((2**28, "/tmp"), (2**20, "/dev/shm")):
        command += ["--size", str(size), "--tmpfs", place]
    own = [sys.base_prefix, sys.prefix, str(PACKAGE)]
    for path in [*own, "/etc/ld.so.cache", "/etc/localtime"]:
        command += ["--ro-bind-try", path, path]
    for font in _font_lists():
        command += ["--ro-bind", str(font), f"/tmp/home/matplotlib/{font.name}"]
    command += ["--size", str(2**28), "--tmpfs", str(at)]
    for file in files:
        command += ["--ro-bind", str(file), str(at / file.name)]
    for key, value in (environment() | _home()).items():
        command += ["--setenv", key, value]
    return [*command, "--chdir", str(at)]


def _home() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    home = {"HOME": "/tmp/home", "USER": "student", "LANG": "C.UTF-8", "PATH": path}
    return home | {"MPLCONFIGDIR": "/tmp/home/matplotlib"}


def _font_lists() -> list[Path]:
    """Find matplotlib's list of fonts, which takes seconds to make anew."""
    try:
        import matplotlib
    except ModuleNotFoundError:  # the doctor looks before anything is installed
        return []
    return sorted(Path(matplotlib.get_cachedir()).glob("fontlist-*.json"))
