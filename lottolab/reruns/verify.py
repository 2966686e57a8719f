"""Find results whose code has changed, and stamp them current where bytes agree.

On the processor that made a table, a rerun of one seed shows whether they do. Another
processor computes other bits; but two versions of the code can both run on this one:
first the book at `smoke` scale, which has every kind of stage, then of all else that is
stale the cheapest run of each code.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import joblib
import pandas as pd

from lottolab import jobs, runs
from lottolab.checks import require
from lottolab.jobs import named
from lottolab.reruns import execute
from lottolab.runs import store
from lottolab.truth import results

RUN = """import json, sys
try:
    from lottolab.jobs.named import find
except ImportError:  # of before December 2026
    from lottolab.runs import find
find(sys.argv[1])(**json.loads(sys.argv[2]))"""
STALE = """import json
try:
    from lottolab.reruns import verify
except ImportError:  # of before November 2026
    from lottolab import verify
pairs = verify.committed()
print(json.dumps([s for p in pairs for s in verify.stale(*p)["stage"]]))"""
Code = tuple[str, str]  # the name of a stage, and its present fingerprint


def committed() -> list[tuple[str, str]]:
    """Return the (chapter, scale) pairs that have committed results."""
    paths = sorted(results.COMMITTED.glob("*/*.stages.csv*"))
    return [(p.parent.name, p.name.partition(".")[0]) for p in paths]


def stale(chapter: str, scale: str) -> pd.DataFrame:
    """Return the stages behind the committed measurements whose code has changed."""
    stages = results.read_stages(chapter, scale)
    now = [results.current(stage) for stage in stages.to_dict("records")]
    return stages[[a != b for a, b in zip(stages["fingerprint"], now, strict=True)]]


def verify(chapter: str, scale: str) -> pd.DataFrame:
    """Rerun one seed of each stale stage; stamp all its seeds if the bytes agree.

    Runs of one stage whose arguments differ in the seed alone are one group. Returns a
    row a group: `function`, `arguments`, `runs` and `outcome`, which is `current
    again`, `differs: run the chapter again` or `gone: …`.
    """
    rows = []
    todo = stale(chapter, scale)
    groups = todo.groupby([todo["function"], todo["arguments"].map(_seedless)])
    for (function, arguments), group in groups:
        outcome = _rerun(group)
        if outcome == "current again":
            now = {s["stage"]: results.current(s) for _, s in group.iterrows()}
            results.restamp(chapter, scale, now)
        rows.append([function, arguments, len(group), outcome])
    return pd.DataFrame(rows, columns=["function", "arguments", "runs", "outcome"])


def _rerun(group: pd.DataFrame) -> str:
    seeds = group["arguments"].map(lambda text: json.loads(text).get("seed", 0))
    first = group.loc[seeds.idxmin()]
    arguments = json.loads(first["arguments"])
    try:
        stage = named.find(first["function"])
        stage(**arguments)
    except (LookupError, TypeError) as error:
        return f"gone: {error}"
    same = runs.record(stage, **arguments)["digest"] == first["digest"]
    return "current again" if same else "differs: run the chapter again"


def _seedless(text: str) -> str:
    arguments = json.loads(text)
    arguments.pop("seed", None)
    return json.dumps(arguments, sort_keys=True)


def against(revision: str) -> Iterator[tuple[str, str, int, str]]:
    """Yield the name and code of each stale stage, how many runs it has, and how it
    went: `current again`, `differs` or `not run: …`; stamp the committed tables as soon
    as that is known.

    Both stores stay in `_build/against`, so that a second call goes on.

    Raises:
        ValueError: git knows no such revision.
    """
    folder = execute.ROOT / "_build" / "against"
    old = _checkout(revision, folder)
    trees = {old: folder / f"store-{old.name}", execute.ROOT: folder / "store"}
    stale_before = set(json.loads(_python(old, trees[old], "-c", STALE)))
    groups = _stale(stale_before)
    for tree, place in trees.items():
        _python(tree, place, "-m", "lottolab.cli", "run", "--all", "--scale", "smoke")
    left = dict(groups)
    yield from _settle(left, *trees.values())
    cheapest = [rows.sort_values("seconds").iloc[0] for rows in left.values()]
    beside = joblib.Parallel(jobs.processes(), return_as="generator_unordered")
    both = joblib.delayed(_run_with_both)
    cheapest.sort(key=lambda run: run["seconds"])
    for _ in beside(both(trees, run["function"], run["arguments"]) for run in cheapest):
        yield from _settle(left, *trees.values())
    for code, rows in left.items():
        yield *code, len(rows), "not run: see above"


def _run_with_both(trees: dict[Path, Path], function: str, arguments: str) -> None:
    for tree, place in trees.items():
        _python(tree, place, "-c", RUN, function, arguments)


def _settle(
    left: dict[Code, pd.DataFrame], old: Path, new: Path
) -> Iterator[tuple[str, str, int, str]]:
    """Stamp what both stores hold with the same bytes; take what they hold away."""
    known = _compared(old, new)
    groups = {code: left.pop(code) for code in [*left] if code in known}
    agree = [rows for code, rows in groups.items() if known[code]]
    if agree:
        for (chapter, scale), rows in pd.concat(agree).groupby(["chapter", "scale"]):
            now = dict(zip(rows["stage"], rows["now"], strict=True))
            results.restamp(chapter, scale, now)
    for code, rows in groups.items():
        yield *code, len(rows), "current again" if known[code] else "differs"


def _stale(before: set[str]) -> dict[Code, pd.DataFrame]:
    """Return the committed stages that are stale and were not before, by their code."""
    parts = [
        stale(chapter, scale).assign(chapter=chapter, scale=scale)
        for chapter, scale in committed()
    ]
    rows = pd.concat(parts)
    rows = rows[~rows["stage"].isin(before)]
    now = [results.current(row) for _, row in rows.iterrows()]
    rows = rows.assign(now=now).dropna(subset="now")
    return dict(list(rows.groupby(["function", "now"])))


def _compared(old: Path, new: Path) -> dict[Code, bool]:
    """Say of the code of each stage that both stores hold whether all bytes agree."""
    found: dict[Code, bool] = {}
    for path in new.glob("*/*/record.json"):
        theirs = store.read_record(old / path.parent.relative_to(new))
        ours = store.read_record(path.parent)
        if theirs and ours and "digest" in theirs:
            code = ours["stage"], ours["fingerprint"]
            if code[1] == named.current_of(code[0], ours["arguments"]):
                same = theirs["digest"] == ours["digest"]
                found[code] = found.get(code, True) and same
    return found


def _checkout(revision: str, folder: Path) -> Path:
    git = ["git", "-C", str(execute.ROOT)]
    ask = [*git, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}"]
    found = subprocess.run(ask, capture_output=True, text=True)
    require(found.returncode == 0, "--against must be a commit of git's", revision)
    tree = folder / found.stdout[:12]
    if not tree.is_dir():
        add = [*git, "worktree", "add", "--detach", str(tree), found.stdout.strip()]
        subprocess.run(add, check=True, capture_output=True)
    return tree


def _python(tree: Path, place: Path, *call: str) -> str:
    """Run Python on the code in `tree` with a store of its own; return its output."""
    own = {"PYTHONPATH": str(tree), "LOTTOLAB_STORE": str(place)}
    done = subprocess.run(
        [sys.executable, *call],
        cwd=tree,
        env={**os.environ, **own},
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        print(f"lottolab: {tree}: {' '.join(call)} failed", file=sys.stderr)
    return done.stdout
