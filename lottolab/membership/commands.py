"""`lottolab membership …`: what a model's predictions tell about its training set."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Ask what a model tells about its training set.", no_args_is_help=True
)


@app.callback()
def _named() -> None:
    """Keep the word `audit` though it is the only one."""


@app.command()
def audit(
    target: Annotated[
        Path, typer.Argument(help=".npz, .csv or .parquet: the model's answers")
    ],
    output: Annotated[Path, typer.Option(help="writes OUTPUT.html and OUTPUT.json")],
    reference: Annotated[
        list[Path] | None, typer.Option(help="another model's; as often as you like")
    ] = None,
    seed: Annotated[int, typer.Option(help="of halves and resampling")] = 0,
) -> None:
    """Attack a model of yours by what it answered members and non-members.

    A file has a row an example: logits or probabilities (in .npz the arrays `logits` or
    `probabilities`; else columns logit_0, … or probability_0, …), the true `label` (in
    .npz `labels`), and `member`, 1 where this model had it in training, else 0. A
    reference's file has the same examples in the same order; without `member` it had
    none of them.
    """
    from lottolab.membership.audit import files, findings, page

    page.free(output)
    answers = files.read(target)
    others = [files.read(path, reference=True) for path in reference or []]
    found = findings.audit(answers, others, seed=seed)
    best = found.strongest
    paths = page.write(found, output)
    auc = findings.percent(best["auc"])
    typer.echo(f"{best['attack']}: AUC {auc}; see {' and '.join(map(str, paths))}")
