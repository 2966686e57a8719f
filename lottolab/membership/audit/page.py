"""Write an audit down: one page that needs no other file, and JSON."""

import base64
import html
import io
import json
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from lottolab.checks import require
from lottolab.membership import figures
from lottolab.membership.audit.findings import DRAWS, Findings, percent
from lottolab.pages import plots

DRAWN = 5  # curves, of the largest AUCs
ENDINGS = (".html", ".json")
HEADINGS = ("accuracy", "auc", "tpr at 1% fpr", "tpr at 0.1% fpr")
STYLE = """body { font: 16px/1.5 sans-serif; max-width: 60em; margin: 2em auto;
padding: 0 1em } table { border-collapse: collapse } th, td { text-align: left;
padding: .2em .8em; border-bottom: 1px solid #ccc } img { max-width: 100% }"""


def free(output: Path) -> None:
    """Raise ValueError unless both files of an audit can be written."""
    require(output.parent.is_dir(), f"{output.parent} must be a folder", "none")
    for ending in ENDINGS:
        path = output.with_name(output.name + ending)
        require(not path.exists(), f"{path} must not exist", "a file: remove it")


def write(found: Findings, output: Path) -> list[Path]:
    """Write `<output>.html` and `<output>.json`, which must not be there yet."""
    free(output)
    texts = page(found), json.dumps(found.plain(), indent=1, allow_nan=False) + "\n"
    paths = [output.with_name(output.name + ending) for ending in ENDINGS]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text, encoding="utf-8")
    return paths


def page(found: Findings) -> str:
    """Return the whole page as HTML."""
    about, best = found.about, found.strongest
    title = f"Membership audit of {about['target']}"
    rates = [
        f"{k.upper().replace('AT', 'at')} {percent(best[k])}"
        for k in HEADINGS[2:]
        if best[k]
    ]
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        _text(
            f"{about['members']:,} members and {about['non-members']:,} non-members of "
            f"{about['classes']} classes, by {about['kind']}; "
            f"{len(about['references'])} reference models. {about['left out']}"
        ),
        _text(
            f"The strongest attack is {best['attack']} (chosen by its AUC on one "
            f"random half of the examples). On the other half: accuracy "
            f"{percent(best['accuracy'])}, "
            + ", ".join([f"AUC {percent(best['auc'])}", *rates])
            + "."
        ),
        "<h2>Attacks</h2>",
        _table([{"attack": k} | _cells(v) for k, v in found.attacks.items()]),
        _text(
            "Accuracy is the mean of the shares of members and of non-members that are "
            "recognised (chance: 50 %), by a threshold of other examples. Intervals "
            f"are at 95 %, over the examples: exact for accuracy, else of {DRAWS:,} "
            "resamples. A TPR is the share of members that are found where at most so "
            "many non-members are accused."
        ),
        _figure(found),
        "<h2>What must fail</h2>",
        _table([{"control": k, "AUC": percent(v)} for k, v in found.controls.items()]),
        _text(
            "These cannot know who was a member: an AUC away from 50 % says that the "
            "two kinds of examples differ otherwise, and that attacks may see this."
        ),
        f"<h2>The members that {html.escape(best['attack'])} is surest of</h2>",
        _table(found.exposed, "{:.4g}".format),
        _text("Rows are counted from 0, in the order of the file."),
        "<h2>What is too small, or too one-sided, to say</h2>",
        _list(found.unsaid),
    ]
    if found.scored.skipped:
        told = [f"{name}: {why}" for name, why in found.scored.skipped.items()]
        parts += ["<h2>Attacks that these files do not allow</h2>", _list(told)]
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title>'
    style = f"<style>{STYLE}</style>"
    body = "\n".join(parts)
    start = f'<!doctype html>\n<html lang="en"><head>{head}{style}</head>'
    return f"{start}\n<body>\n{body}\n</body></html>\n"


def _cells(numbers: dict) -> dict[str, str]:
    told = {h: numbers[h] for h in HEADINGS}
    names = {h: h.upper().replace("AT", "at") if h != "accuracy" else h for h in told}
    return {names[h]: "too few" if i is None else percent(i) for h, i in told.items()}


def _figure(found: Findings) -> str:
    names = sorted(found.attacks, key=lambda k: -found.attacks[k]["auc"].estimate)
    plots.style()
    curves = {k: (found.scored.scores[k], found.scored.member) for k in names[:DRAWN]}
    figure, kept = figures.roc(curves), io.BytesIO()
    figure.savefig(kept, format="png")
    plt.close(figure)
    source = base64.b64encode(kept.getvalue()).decode()
    told = f"ROC curves of {', '.join(curves)}, both axes logarithmic"
    return f'<img alt="{html.escape(told)}" src="data:image/png;base64,{source}">'


def _table(rows: list[dict], form=None) -> str:
    frame = pd.DataFrame(rows)
    return frame.to_html(index=False, border=0, justify="left", float_format=form)


def _text(words: str) -> str:
    return f"<p>{html.escape(words.strip())}</p>"


def _list(lines: list[str]) -> str:
    return "<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in lines) + "</ul>"
