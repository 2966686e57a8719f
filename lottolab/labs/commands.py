"""`lottolab labs …`: make the labs for students and grade what they hand in."""

from pathlib import Path
from typing import Annotated

import typer

from lottolab import checks
from lottolab.pages import parameters
from lottolab.runs import files

OUTPUT = parameters.BOOK.parent / "_build" / "labs"
app = typer.Typer(
    help="Make the course labs for students, and grade them.", no_args_is_help=True
)
Output = Annotated[Path, typer.Option(help="where zips and course lie")]


@app.command()
def build(
    output: Output = OUTPUT,
    variant: Annotated[int, typer.Option(help="changes data, keys and numbers")] = 0,
    tests: Annotated[
        Path | None, typer.Option(help="your hidden tests, <lab>/<task>.py")
    ] = None,
    lab: Annotated[list[str] | None, typer.Option(help="may be repeated")] = None,
) -> None:
    """Make student editions, a zip for each lab, and the course that grades them."""
    from lottolab.labs import build as making

    for path in making.build(output, variant=variant, tests=tests, labs=lab or None):
        typer.echo(path)


@app.command()
def pack(
    chapter: Annotated[str, typer.Argument(help="e.g. ownership")],
    output: Output = OUTPUT,
) -> None:
    """Make one zip of a chapter with its code and data, to be read and run alone."""
    checks.one_of("the chapter", chapter, parameters.rehearsed("laptop"))
    from lottolab.labs import pack as packing

    typer.echo(packing.chapter(output, chapter))


@app.command()
def grade(
    folder: Annotated[Path, typer.Argument(help="<student>/<lab>/<lab>.ipynb")],
    output: Output = OUTPUT,
    jobs: Annotated[int, typer.Option(help="submissions at the same time")] = 2,
    uncontained: Annotated[
        bool, typer.Option(help="grade even where nothing contains a submission")
    ] = False,
) -> None:
    """Grade all submissions in a folder; write `grades.csv` and `tasks.csv`.

    The exit code is 1 if a submission could not be graded or had an error.
    """
    from rich.console import Console
    from rich.table import Table

    from lottolab.labs import contain
    from lottolab.labs import grade as grading

    why = contain.missing()
    if why:
        typer.echo(f"Grading is NOT contained: {why}.", err=True)
        if not uncontained:
            raise ValueError(
                "submissions can read and change what you can; "
                "say --uncontained if you accept that"
            )
    course = output / "course"
    found = grading.grade(folder, course, jobs=jobs, walls=not why)
    tables = {"grades.csv": found, "tasks.csv": grading.scores(course)}
    for name, table in tables.items():
        with files.replacing(output / name) as new:
            table.to_csv(new, index=False)
    table = Table(*(c.replace("_", " ") for c in found.columns))
    for row in found.itertuples(index=False):
        table.add_row(*(f"{v:g}" if isinstance(v, float) else v for v in row))
    Console(highlight=False, markup=False, emoji=False).print(table)
    typer.echo(output / "grades.csv")
    raise typer.Exit(int((found["problem"] != "").any()))
