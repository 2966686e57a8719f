"""Run a chapter with parameters of one's own, beside the committed edition."""

import hashlib
import json
import re
from pathlib import Path

import pandas as pd
from rich.table import Table

from lottolab.checks import LONGEST, folder_name, require
from lottolab.jobs import display
from lottolab.pages import parameters
from lottolab.pages.site import render
from lottolab.pages.verdicts import machines
from lottolab.reruns import compare, execute, verify
from lottolab.truth import claims, results

MOST = 15  # lines of a printed table; `changes.csv` has all
NOTE = """\
:::{{warning}}
This page is a run of one's own: `{chapter}` at `{scale}` scale with {changed}. Its
numbers, tables and figures are that run's. The words around them were written for the
committed edition and may not fit.
:::"""


def changed(chapter: str, scale: str, given: dict) -> dict[str, object]:
    """Return those given parameters whose values differ from the scale's, checked.

    Raises:
        ValueError: chapter, scale or parameters are not allowed.
    """
    values = parameters.resolve(chapter, scale, given)
    plain = {p.name: p.default for p in parameters.of(chapter).values()}
    plain |= parameters.resolve(chapter, scale, {})
    return {k: values[k] for k in sorted(given) if values[k] != plain[k]}


def name(chapter: str, scale: str, own: dict[str, object]) -> str:
    """Return a name for the run that says what was changed and is safe in any folder.

    Six digits at its end tell runs apart whose names would be the same.
    """
    words = [chapter, *([scale] if scale != "laptop" else [])]
    words += [f"{key} {value}" for key, value in own.items()] or ["unchanged"]
    text = re.sub(r"[^a-z0-9_.]+", "-", " ".join(words).lower())
    given = json.dumps([chapter, scale, own], sort_keys=True)
    digest = hashlib.sha256(given.encode()).hexdigest()[:6]
    return f"{text[: LONGEST - 7].strip('-.')}-{digest}"


def reserve(name: str, chapter: str, scale: str, own: dict[str, object]) -> Path:
    """Return the run's folder, `_build/runs/<name>`, with a note of what it is of.

    Raises:
        ValueError: the name is no good, or a run of something else has it.
    """
    folder_name("a run's name", name)
    folder = execute.build_folder("runs") / name
    this = {"chapter": chapter, "scale": scale, "parameters": own}
    note = folder / "run.json"
    if folder.exists():
        there = note.read_text("utf-8") if note.is_file() else "something else"
        free = f"{folder} holds another run ({there}); choose another --name for this"
        require(there == json.dumps(this), free, f"--name {name}")
    folder.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps(this), encoding="utf-8")
    return folder


def rerun(chapter: str, scale: str, given: dict, chosen: str | None = None) -> None:
    """Run the chapter into a folder of its own; print what changed, and where it is.

    Args:
        chosen: the run's name, if it is not to be made of the parameters.

    Raises:
        ValueError: chapter, scale, parameters or name are not allowed; nothing has run.
        Failed: the chapter did not run to its end.
    """
    own = changed(chapter, scale, given)
    called = name(chapter, scale, own) if chosen is None else chosen
    folder = reserve(called, chapter, scale, own)
    notebook = execute.execute(chapter, scale, given, folder)
    table = folder / "results" / chapter / f"{scale}.csv"
    if table.is_file():
        _report(chapter, scale, table)
    values = ", ".join(f"`{k}={v}`" for k, v in own.items())
    note = NOTE.format(chapter=chapter, scale=scale, changed=values or "its defaults")
    page = render.render_page(execute.ROOT, folder / "html", notebook, note)
    for what, path in (("notebook", notebook), ("table", table), ("page", page)):
        if path.is_file():
            print(f"{what:9}{path}")


def baseline(chapter: str, scale: str) -> Path | None:
    """Return the table to compare with: the committed one, else that of a plain run."""
    folders = (results.COMMITTED, execute.build_folder(scale) / "results")
    ends = ("", ".gz")  # the committed edition's
    paths = (f / chapter / f"{scale}.csv{end}" for f in folders for end in ends)
    return next((path for path in paths if path.is_file()), None)


def _report(chapter: str, scale: str, table: Path) -> None:
    """Print what differs from the other table, and write all of it beside the run."""
    path = baseline(chapter, scale)
    if path is None:
        print(f"there is no other table at {scale} scale to compare with")
        return
    before, now = results.load(path), results.load(table)
    found = compare.measurements(before, now)
    twice = machines.read(chapter, scale)
    if twice is not None:
        found["machine"] = compare.beside_machines(found, twice)
    found.to_csv(table.parents[2] / "changes.csv", index=False, lineterminator="\n")
    words = compare.verdicts(chapter, before, now)
    shown, counts = path.relative_to(execute.ROOT), found["what"].value_counts()
    if words.empty and set(counts.index) == {compare.SAME}:
        print(f"nothing changed against {shown}: all {len(found):,} measurements agree")
        return
    said = ", ".join(f"{count:,} {what}" for what, count in counts.items())
    print(f"measurements against {shown}: {said}")
    if path.is_relative_to(results.COMMITTED) and len(verify.stale(chapter, scale)):
        print("that table is stale in part: a difference may come from changed code")
    print(_machines(found, chapter, scale))
    console = display.console()
    console.print(_differences(found))
    if len(found) > counts.get(compare.SAME, 0) + MOST:
        print("the largest shares first; all are in changes.csv beside the run")
    console.print(_verdicts(words) if len(words) else "no claim's verdict changed")


def _machines(found: pd.DataFrame, chapter: str, scale: str) -> str:
    """Say how many changes are such as another machine makes."""
    if "machine" not in found:
        make = f"lottolab machines {chapter} --scale {scale}"
        return f"whether another machine changes as much is not known: {make}"
    changed = found[found["what"] == compare.CHANGED]
    counts = changed["machine"].replace("", "not known").value_counts()
    said = ", ".join(f"{count:,} {what}" for what, count in counts.items())
    return f"of what changed, by what another machine does: {said or 'nothing'}"


def _differences(found: pd.DataFrame) -> Table:
    """Draw the largest changes and some of what only one table has, `MOST` in all."""
    few = [found[found["what"] == w][: MOST // 3] for w in (compare.GONE, compare.NEW)]
    kinds = (compare.CHANGED, compare.SEEDS)
    shared = pd.concat([compare.largest_first(found, what) for what in kinds])
    rows = pd.concat([shared[: MOST - sum(map(len, few))], *few])
    more = ["machine"] if "machine" in found else []
    drawn = Table("measurement", "before", "now", "seeds", "what", *more)
    for _, row in rows.assign(label=compare.labels(found)).iterrows():
        means = ["-" if pd.isna(v) else f"{v:.4g}" for v in row[["before", "now"]]]
        seeds = [str(row["seeds before"]), str(row["seeds now"])]
        drawn.add_row(row["label"], *means, " → ".join(seeds), row["what"], *row[more])
    return drawn


def _verdicts(words: pd.DataFrame) -> Table:
    """Draw the claims whose verdict changed; say why one has none any more."""
    drawn = Table("claim", "before", "now", show_lines=True)
    for _, row in words.iterrows():
        ours = row["note"] if row["now"] == claims.UNJUDGED else row["ours now"]
        before = f"{row['before']}: {row['ours before']}"
        drawn.add_row(row["claim"], before, f"{row['now']}: {ours}")
    return drawn
