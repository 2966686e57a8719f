"""The command line: `python -m lottolab COMMAND`, or `lottolab COMMAND` when installed.

Here are the commands that look after the book; `reruns.commands` has those that run it.
A room of the package adds its own by a module `commands` with a typer `app`.
"""

import importlib
import math
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
from lottolab.reruns import commands as reruns
from lottolab.units import duration

ROOMS = Path(__file__).parent
BESIDE = {"reruns"}  # its commands stand beside those here, with no word before them
app = typer.Typer(
    help="Run, check and render the book.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.registered_commands += reruns.app.registered_commands
console = Console(highlight=False)


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
    from lottolab.truth import results

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
def claims() -> None:
    """Print every claim with its verdict at edition scale, or else at laptop scale."""
    from lottolab.pages.show import scorecard, verdicts

    table = Table("claim", "paper", "ours", "verdict", show_lines=True)
    card = scorecard("edition")
    for _, row in card.iterrows():
        table.add_row(*(str(row[c]) for c in ("claim", "paper", "ours", "verdict")))
    console.print(table)
    console.print(verdicts(card, "edition").data, soft_wrap=True)


@app.command()
def power(
    scale: Annotated[str, typer.Option(help="whose results")] = "laptop",
) -> None:
    """Say, for each open claim, where the next minute of computing is best spent."""
    from lottolab.pages import parameters

    checks.one_of("the scale", scale, parameters.SCALES)
    from lottolab.truth import power as truth

    table = Table(
        "claim", "seeds", "needed", "minutes, trainings apart", "images", "next"
    )
    for row in truth.plan(scale).itertuples(index=False):
        images = "not held" if math.isnan(row.images) else f"≤ {row.images:.0%}"
        cells = (f"{row.needed:.0f}", f"{row.minutes:.1f}", images, row.next)
        table.add_row(row.claim, str(row.seeds), *cells)
    console.print(table)


@app.command()
def numbers(
    pages: Annotated[
        list[str] | None, typer.Argument(help="e.g. ownership; all if none is named")
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="COMMIT", help="also what has moved since")
    ] = None,
) -> None:
    """Print each number in a page's prose that no output of the page contains."""
    from lottolab.pages import parameters

    book = [*parameters.BOOK.glob("*.ipynb"), *parameters.BOOK.glob("*.md")]
    paths = {path.stem: path for path in sorted(book)}
    for name in pages or []:
        checks.one_of("the page", name, paths)
    from lottolab.pages import prose

    for path in [paths[name] for name in pages or paths]:
        before = prose.committed(path, since) if since else None
        for line in prose.report(path, before):
            print(line)


@app.command()
def doctor(
    gpu: Annotated[
        bool, typer.Option(help="compute each stage on the CPU and on the card")
    ] = False,
) -> None:
    """Say what this machine has and lacks, and what mends it; for bug reports."""
    if gpu:
        from lottolab.machine.card import main as examine
    else:
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


def _mount_rooms() -> None:
    """Add each room's own commands, where it has some."""
    for room in sorted(p.parent.name for p in ROOMS.glob("*/commands.py")):
        if room not in BESIDE | {group.name for group in app.registered_groups}:
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
    except ModuleNotFoundError as error:
        from lottolab.labs import needs

        missing = (error.name or "").partition(".")[0]
        if (extra := needs.extra(missing)) is None:
            raise
        told = f"this needs {missing}, which is not installed; in {ROOMS.parent} do: "
        print(f"lottolab: {told}pip install -e '.[{extra}]'", file=sys.stderr)
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
