"""The commands that run the book, check what was run, and render it.

They are mounted beside those of `lottolab.cli`, with no word before them.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

# As in the command line itself: help and complaints about typos import no more.
from lottolab import checks
from lottolab.pages import parameters
from lottolab.reruns.sweeps import grids

Scale = Annotated[str, typer.Option(help="smoke, laptop, edition, cifar or paper")]
app = typer.Typer()


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
def render(
    pdf: Annotated[
        bool, typer.Option("--pdf", help="the whole book in one file, too")
    ] = False,
) -> None:
    """Render the committed edition; nothing is run."""
    if not pdf:
        _render("edition", {})
        return
    from lottolab.pages.site import printed

    tool = printed.browser_that_prints()  # before half a minute is spent
    page = _render("edition", {})
    print(printed.write(page.parent, page.parents[1] / "book.pdf", tool))


@app.command()
def publish(scale: Scale = "edition") -> None:
    """Write what has been run to where it is committed; nothing is committed.

    Chapters whose runs have not ended stay as they are: `run --all` may go on.
    """
    parameters.having(scale)
    from lottolab.reruns import edition as whole

    ended, left = whole.publish(scale)
    print(f"{scale} scale: written to data/results: {', '.join(ended)}")
    if left:
        print(f"not run to their ends, and left as they are: {', '.join(left)}")


@app.command()
def redraw() -> None:
    """Draw the verdicts on all pages anew, after a claim was changed; runs nothing."""
    from lottolab.reruns import edition

    for name in parameters.having("edition"):
        print(name, flush=True)
        edition.redraw(name)


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


@app.command()
def machines(
    chapter: Annotated[str, typer.Argument(help="a chapter's name, e.g. ownership")],
    scale: Scale = "edition",
    arithmetic: Annotated[
        str | None, typer.Option(help="avx2 or sse41; the one this CPU has not")
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(metavar="TABLE", help="another machine's results; computes none"),
    ] = None,
) -> None:
    """Compute a chapter's headline measurements as another CPU would, too."""
    parameters.resolve(chapter, scale, {})
    from lottolab.pages.verdicts import machines as pages
    from lottolab.reruns import arithmetics

    if against:
        path, lost = arithmetics.beside(chapter, scale, against)
    else:
        path, lost = arithmetics.compute(chapter, scale, arithmetic)
    print(pages.told([chapter], scale).data)
    print(
        f"{path}" + (f", without {lost} rows that only one side holds" if lost else "")
    )


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
    from lottolab.jobs import display
    from lottolab.reruns import verify as verification

    differs = False
    for chapter, scale in verification.committed():
        with display.watch("verify"):
            outcomes = verification.verify(chapter, scale)
        for _, row in outcomes.iterrows():
            print(f"{chapter} {scale}: {row['function']}: {row['outcome']}")
            differs |= row["outcome"] != "current again"
        if outcomes.empty:
            print(f"{chapter} {scale}: nothing is stale")
    raise SystemExit(int(differs))


def _verify_against(commit: str) -> int:
    from lottolab.reruns.verify import against

    differs = False
    for function, code, count, outcome in against(commit):
        print(f"{function} {code}, {count} runs: {outcome}")
        differs |= outcome != "current again"
    return int(differs)


def _render(scale: str, notebooks: dict[str, Path], strict: bool = True) -> Path:
    from lottolab.pages.site.render import render as build
    from lottolab.reruns import execute

    target = execute.build_folder(scale) / "html"
    page = build(execute.ROOT, target, strict=strict, notebooks=notebooks)
    print(page)
    return page
