"""Find what this machine has and lacks, one thing each, and what mends it.

Needs only the standard library, so that it can find that all else is missing.
"""

import contextlib
import csv
import gzip
import importlib.util
import re
import shutil
from collections import defaultdict
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from lottolab.labs import contain
from lottolab.machine import capacity
from lottolab.units import duration, gb

GB = 2**30
INSTALLATION, RUN = 8, 1  # GB of disk that they take
OK, LACKS, NEEDED = "ok", "--", "!!"
INSTALL = "make book, or python -m lottolab book: installs it (takes a network)"


class Line(NamedTuple):
    """One finding: what is there, and what mends it where something is not."""

    mark: str
    text: str
    mend: str = ""


def requirements(groups: Mapping[str, list[str]]) -> list[Line]:
    """Return what is missing, or too old or new, of what pyproject.toml lists."""
    asked = [line for lines in groups.values() for line in lines]
    wrong = [told for told in map(_lacking, asked) if told]
    if not wrong:
        return []
    listed = ", ".join(wrong[:8]) + (f" and {len(wrong) - 8} more" * (len(wrong) > 8))
    return [Line(NEEDED, f"not as pyproject.toml asks: {listed}", INSTALL)]


def _lacking(asked: str) -> str:
    name = re.match(r"[\w.-]+", asked)[0]
    try:
        there = version(name)
    except PackageNotFoundError:
        return name
    try:
        from packaging.requirements import Requirement
    except ImportError:  # it may be missing like all else
        return ""
    fits = Requirement(asked).specifier.contains(there, prereleases=True)
    return "" if fits else f"{name} {there} ({asked} is asked)"


def torch_lines() -> list[Line]:
    """Ask torch in a process of its own, which may die, for its CPU and the GPUs."""
    told = capacity.ask_torch()
    if isinstance(told, str):
        return [Line(NEEDED, f"torch cannot be imported: {told}", INSTALL)]
    name, cpu, gpus, memory = told
    lines = [Line(OK, f"torch {name}, CPU capability {cpu}")]
    if cpu == "AVX2" and name.startswith("2.14.1"):
        fault = (
            "this torch corrupts memory on AVX2 in strided 1x1 convolutions of fewer "
        )
        fault += "than 8 channels; all networks of lottolab avoid it"
        mend = "for a network of yours: lottolab.nets.strided.subsampled(model)"
        lines.append(Line(LACKS, fault, mend))
    found = [f"{g}, {gb(m)}" for g, m in zip(gpus, memory, strict=True)]
    if found:
        return [*lines, Line(OK, f"GPU: {'; '.join(found)}")]
    unused = shutil.which("nvidia-smi") is not None
    mend = "install the torch of its CUDA version into .venv" if unused else ""
    told = "GPU: there is one that this torch cannot use" if unused else "GPU: none"
    return [*lines, Line(LACKS, f"{told}; only the scale paper needs one", mend)]


def disk(root: Path, *, installed: bool) -> list[Line]:
    """Say what is free for the installation and a run, and whether one can write."""
    need, free = RUN if installed else INSTALLATION, shutil.disk_usage(root).free
    mark = OK if free >= need * GB else NEEDED
    told = f"{gb(free)} of disk are free in {root}"
    mend = "" if mark == OK else f"make room: {need} GB are needed; lottolab clean"
    lines = [Line(mark, told, mend)]
    if not capacity.writable(root):
        told, mend = (
            f"{root} cannot be written",
            "copy the project to a folder of yours",
        )
        lines.append(Line(NEEDED, told, mend))
    return lines


def store(path: str | Path) -> Line:
    """Say where the run store is, how large, and whether it can be written."""
    path = Path(path).absolute()
    there = next(p for p in (path, *path.parents) if p.exists())
    if not (there.is_dir() and capacity.writable(there)):
        mend = "export LOTTOLAB_STORE=/a/folder/of/yours"
        return Line(NEEDED, f"the run store {path} cannot be written", mend)
    size = 0
    for file in path.rglob("*"):
        with contextlib.suppress(OSError):  # it may have gone meanwhile
            size += file.stat().st_size
    return Line(OK, f"run store {path}, {size / 2**20:,.0f} MB")


def environment(variables: Mapping[str, str]) -> list[Line]:
    """Return the variables that change what runs do; of a proxy no password."""
    lines = []
    for name in sorted(variables):
        if re.fullmatch("(https?|all|no)_proxy", name, re.IGNORECASE):
            masked = re.sub(r"^(\w+://)?.*@", r"\1***@", variables[name])
            lines.append(Line(OK, f"{name}={masked}"))
        elif re.fullmatch("LOTTOLAB_[A-Z]+|(OMP|MKL)_NUM_THREADS", name):
            lines.append(Line(OK, f"{name}={variables[name]}"))
    return lines


def scales(results: Path, cores: int, memory: int | None) -> list[Line]:
    """Say what each scale took by the committed tables, and would take here."""
    seconds, peak, chapters = defaultdict(float), defaultdict(float), defaultdict(set)
    for path in sorted(results.glob("*/*.stages.csv*")):
        scale = path.name.partition(".")[0]
        chapters[scale].add(path.parent.name)
        unpacked = gzip.open if path.suffix == ".gz" else open
        with unpacked(path, "rt", encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                seconds[scale] += float(row["seconds"])
                peak[scale] = max(peak[scale], float(row["peak_mb"]) * 2**20)
    lines = [Line(OK, "smoke, which `make book` runs: made for 2 cores and minutes")]
    for scale in sorted(seconds, reverse=True):
        took, all_of_them = seconds[scale], cores * peak[scale]
        told = (
            f"{scale}: {len(chapters[scale])} chapters, {duration(took)} of computing, "
        )
        told += f"by {cores} processes {duration(took / cores)}; a process takes "
        told += f"{gb(peak[scale])}, all together {gb(all_of_them)}"
        fits = memory is None or all_of_them <= memory
        fewer = max(1, int((memory or 0) // peak[scale]))
        mend = "" if fits else f"this machine has {gb(memory)}: LOTTOLAB_JOBS={fewer}"
        lines.append(Line(OK if fits else LACKS, told, mend))
    return lines


def readers() -> list[Line]:
    """Say which readers of QR pictures are there beside our own."""
    try:
        import pyzbar.pyzbar  # noqa: F401 - fails where the library is missing

        zbar = Line(OK, "zbar, a reader of QR pictures")
    except Exception:
        mend = "Debian, Ubuntu: sudo apt install libzbar0; Fedora: sudo dnf install "
        mend += "zbar; macOS: brew install zbar"
        zbar = Line(LACKS, "zbar: chapter 1 leaves its curve out", mend)
    if importlib.util.find_spec("zxingcpp"):
        return [zbar, Line(OK, "zxing-cpp, a reader of QR pictures")]
    told = "zxing-cpp: chapter 1 leaves its curve out"
    return [zbar, Line(LACKS, told, "pip install zxing-cpp, in .venv")]


def make() -> Line:
    """Say whether there is `make`, and what does without it."""
    if shutil.which("make"):
        return Line(OK, "make")
    return Line(LACKS, "make", "python -m lottolab book, instead of make book")


def rendered(build: Path) -> Line:
    """Say which books have been rendered."""
    found = sorted(build.glob("*/html/index.html"))
    told = f"rendered pages: {', '.join(map(str, found)) or 'none yet'}"
    return Line(OK if found else LACKS, told, "" if found else "make render")


def bubblewrap() -> Line:
    """Say whether submissions to labs can be contained."""
    if why := contain.missing():
        mend = "Debian, Ubuntu: sudo apt install bubblewrap; elsewhere grade in a "
        mend += "virtual machine, with --uncontained"
        return Line(LACKS, f"labs are graded uncontained: {why}", mend)
    return Line(OK, "bubblewrap contains what students hand in")


def browser() -> Line:
    """Say whether there is a browser for the tests of pages."""
    if path := capacity.chromium():
        return Line(OK, f"Chromium for the tests of pages: {path}")
    mend = "Debian: sudo apt install chromium; elsewhere install Chrome or Edge"
    return Line(LACKS, "Chromium: the tests of pages are skipped", mend)
