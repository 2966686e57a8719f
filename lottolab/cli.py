"""The command line: `python -m lottolab COMMAND`, or `lottolab COMMAND` when installed.

A room of the package adds its own commands by a module `commands` with a typer `app`.
"""

import importlib
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

# Help and complaints about typos import nothing else of lottolab: each command checks
# its words first, and imports what it runs when it does.
from lottolab import checks
from lottolab.machine import settle
from lottolab.pages import parameters
from lottolab.reruns.sweeps import grids
from lottolab.runs.progress import duration

Scale = Annotated[str, typer.Option(help="smoke, laptop, cifar or paper")]

ROOMS = Path(__file__).parent
app = typer.Typer(
    help="Run, check and render the book.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console(highlight=False)


@app.command()
def book(scale: Scale = "smoke") -> None:
    """Run every chapter at a scale and render the book; who failed has a page too."""
    parameters.having(scale)
    from lottolab.reruns import edition as whole

    notebooks, failures = whole.attempt_all(scale)
    for failure in failures:
        print(f"lottolab: {failure}", file=sys.stderr, flush=True)
    _render(scale, notebooks, strict=not failures)
    raise SystemExit(1 if failures else 0)


@app.command()
def render() -> None:
    """Render the committed edition; nothing is run."""
    _render("laptop", {})


@app.command()
def edition() -> None:
    """Run the book at laptop scale and write outputs and results to be committed."""
    from lottolab.reruns import edition as whole
    from lottolab.reruns import execute

    whole.run_all("laptop")
    execute.publish()
    _render("laptop", {})


@app.command()
def run(
    chapter: Annotated[
        str | None, typer.Argument(help="a chapter's name, e.g. ownership")
    ] = None,
    scale: Scale = "laptop",
    parameter: Annotated[
        list[str] | None,
        typer.Option("--parameter", "-p", metavar="NAME=VALUE", help="may be repeated"),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="of the run's folder in _build/runs")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="every chapter")] = False,
    dry: Annotated[
        bool, typer.Option("--dry-run", help="say what would be computed")
    ] = False,
) -> None:
    """Run one chapter, with parameters of your own, or all; the edition stays."""
    if every != (chapter is None):
        raise ValueError("run takes a chapter, such as `run ownership`, or --all")
    if every and (parameter or name):
        raise ValueError("-p and --name belong to one chapter, not to --all")
    given = {}
    for text in parameter or []:
        key, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"-p must be NAME=VALUE, got {text!r}")
        given[key.strip()] = value.strip()
    chapters = parameters.having(scale) if every else [chapter]
    if not every:
        parameters.resolve(chapter, scale, given)
    if name is not None:
        checks.folder_name("a run's name", name)
    from lottolab.reruns import dryrun, edition, rerun

    if dry:
        dryrun.dry_run(chapters, scale, given)
    elif every:
        edition.run_all(scale)
    elif given or name is not None:
        rerun.rerun(chapter, scale, given, name)
    else:
        print(edition.run(chapter, scale))


@app.command()
def rehearse(
    chapter: Annotated[
        str | None, typer.Argument(help="a chapter's name; all if none is given")
    ] = None,
    scale: Scale = "paper",
    keep: Annotated[
        bool, typer.Option(help="the table, in data/results/rehearsal.csv")
    ] = False,
) -> None:
    """Take the first steps of every kind of stage; say what the whole would cost."""
    allowed = parameters.rehearsed(scale)
    if chapter is not None:
        checks.one_of(f"the chapter to rehearse at {scale} scale", chapter, allowed)
    from lottolab.reruns.rehearsal.report import report

    chosen = allowed if chapter is None else [chapter]
    raise SystemExit(0 if report(chosen, scale, keep) else 1)


@app.command()
def sweep(
    chapter: Annotated[str, typer.Argument(help="a chapter's name, e.g. ownership")],
    parameter: Annotated[
        list[str],
        typer.Option("--parameter", "-p", metavar="NAME=VALUES", help="a=1,2 or a=0:5"),
    ],
    scale: Scale = "laptop",
    output: Annotated[
        Path | None, typer.Option(help="a folder; _build/sweeps/CHAPTER")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="of a Dask cluster, tcp://…")
    ] = None,
    gpus: Annotated[int, typer.Option(help="a point takes of a worker's GPU")] = 0,
    metric: Annotated[str | None, typer.Option(help="what the figure shows")] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN=VALUES", help="of the rows that it shows"),
    ] = None,
    stage: Annotated[
        str | None, typer.Option(help="of the chapter, to sweep it alone")
    ] = None,
) -> None:
    """Run a chapter at every point of a grid; a second time, only what is missing."""
    grids.marks(where or [])
    if stage is None:
        grids.of_chapter(chapter, scale, parameter)
    else:
        grids.read(parameter)
        parameters.resolve(chapter, scale, {})
    from lottolab.reruns import execute
    from lottolab.reruns.sweeps.sweep import sweep as over

    folder = output or execute.ROOT / "_build" / "sweeps" / chapter
    side = {"scheduler": scheduler, "gpus": gpus, "stage": stage}
    side |= {"metric": metric, "where": where}
    failed = over(chapter, scale, parameter, folder, **side)
    for path in (folder / "table.csv", folder / "figure.png"):
        if path.exists():
            print(path)
    if failed:
        raise RuntimeError(f"points that failed: {failed}; their rows say why")


@app.command("test")
def check(
    full: Annotated[bool, typer.Option(help="with the long campaigns")] = False,
) -> None:
    """Run lint, unit tests, notebooks and the book's build."""
    from lottolab.machine.testing import run_all

    raise SystemExit(run_all(full))


@app.command()
def status() -> None:
    """Show what has been run at which scale, for how long, and what is stale."""
    from lottolab import runs
    from lottolab.reruns import verify
    from lottolab.runs import results

    columns = ["chapter", "scale", "measurements", "stages", "stale", "computing time"]
    table = Table(*columns, "last run", title="Committed results")
    for chapter, scale in verify.committed():
        stages = results.read_stages(chapter, scale)
        measured = results.load(results.find(chapter, scale))
        table.add_row(
            *(chapter, scale, str(len(measured)), str(len(stages))),
            str(len(verify.stale(chapter, scale))),
            duration(stages["seconds"].sum()),
            max(stages["finished"])[:16].replace("T", " "),
        )
    console.print(table)
    size = sum(f.stat().st_size for f in runs.root().rglob("*") if f.is_file())
    console.print(f"Run store: {runs.root()}, {size / 2**20:,.0f} MB", soft_wrap=True)


@app.command()
def verify(
    against: Annotated[
        str | None, typer.Option(metavar="COMMIT", help="both codes run here")
    ] = None,
) -> None:
    """Rerun one seed of each stale stage; stamp it current if the bytes agree.

    On another processor than the table's no bytes agree: run both codes, --against a
    commit at which the table was current.
    """
    if against:
        raise SystemExit(_verify_against(against))
    from lottolab.reruns import verify as verification
    from lottolab.runs import progress

    differs = False
    for chapter, scale in verification.committed():
        with progress.watch("verify"):
            outcomes = verification.verify(chapter, scale)
        for _, row in outcomes.iterrows():
            console.print(f"{chapter} {scale}: {row['function']}: {row['outcome']}")
            differs |= row["outcome"] != "current again"
        if outcomes.empty:
            console.print(f"{chapter} {scale}: nothing is stale")
    raise SystemExit(int(differs))


def _verify_against(commit: str) -> int:
    from lottolab.reruns.verify import against

    differs = False
    for function, code, count, outcome in against(commit):
        console.print(f"{function} {code}, {count} runs: {outcome}")
        differs |= outcome != "current again"
    return int(differs)


@app.command()
def claims() -> None:
    """Print every claim with its verdict at laptop scale."""
    from lottolab.pages.show import scorecard

    table = Table("claim", "paper", "ours", "verdict", show_lines=True)
    for _, row in scorecard("laptop").iterrows():
        table.add_row(*(str(row[c]) for c in ("claim", "paper", "ours", "verdict")))
    console.print(table)


@app.command()
def doctor() -> None:
    """Say what this machine has and lacks, and what mends it; for bug reports."""
    from lottolab.machine.doctor import main as examine

    raise SystemExit(examine())


@app.command()
def clean(
    store: Annotated[bool, typer.Option(help="also every result in the store")] = False,
) -> None:
    """Remove `_build/` and what interrupted runs left; with --store all results."""
    from lottolab import runs
    from lottolab.reruns import execute

    leftovers = [p for p in runs.root().glob("*/*") if ".partial-" in p.name]
    leftovers += runs.root().glob("*/*.old")
    for path in [execute.ROOT / "_build", *([runs.root()] if store else leftovers)]:
        if path.exists():
            shutil.rmtree(path)
            console.print(f"removed {path}", soft_wrap=True)


def _render(scale: str, notebooks: dict[str, Path], strict: bool = True) -> None:
    from lottolab.pages.render import render as build
    from lottolab.reruns import execute

    target = execute.build_folder(scale) / "html"
    page = build(execute.ROOT, target, strict=strict, notebooks=notebooks)
    print(page)


def _mount_rooms() -> None:
    """Add each room's own commands, where it has some."""
    for room in sorted(p.parent.name for p in ROOMS.glob("*/commands.py")):
        if room not in [group.name for group in app.registered_groups]:
            module = importlib.import_module(f"lottolab.{room}.commands")
            app.add_typer(module.app, name=room)


def main(arguments: list[str] | None = None) -> int:
    """Run a command; bad input ends in one line and exit code 2, a failure in 1."""
    settle.settle()
    _mount_rooms()
    words = sys.argv[1:] if arguments is None else arguments
    known = [c.name or c.callback.__name__ for c in app.registered_commands]
    known += [g.name for g in app.registered_groups]
    try:
        if words and not words[0].startswith("-"):
            checks.one_of("the command", words[0], known)
        code = app(words, standalone_mode=False)
    except SystemExit as stop:
        return int(stop.code or 0)
    except typer.Abort:
        code = 130
    except (ValueError, LookupError) as error:
        print(f"lottolab: {error}", file=sys.stderr)
        return 2
    except (RuntimeError, OSError) as error:
        print(f"lottolab: {error}", file=sys.stderr)
        return 1
    except Exception as error:  # click's own complaints about options
        if not hasattr(error, "format_message"):
            raise
        if message := error.format_message():  # else click has shown the help
            print(f"lottolab: {message}", file=sys.stderr)
        return 2
    if code == 130:  # typer makes it of Ctrl-C
        print("lottolab: interrupted", file=sys.stderr)
    return code if isinstance(code, int) else 0  # what a room's typer.Exit says


if __name__ == "__main__":
    sys.exit(main())
