"""Find results whose code has changed, and stamp them current where bytes agree."""

import json

import pandas as pd

from lottolab import results, runs


def committed() -> list[tuple[str, str]]:
    """Return the (chapter, scale) pairs that have committed results."""
    paths = sorted(results.COMMITTED.glob("*/*.stages.csv"))
    return [(p.parent.name, p.name.removesuffix(".stages.csv")) for p in paths]


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
        stage = runs.find(first["function"])
        with runs.verifying():
            stage(**arguments)
    except LookupError as error:
        return f"gone: {error}"
    except runs.NotReproduced:
        return "differs: run the chapter again"
    except TypeError as error:
        return f"gone: {error}"
    same = runs.record(stage, **arguments)["digest"] == first["digest"]
    return "current again" if same else "differs: run the chapter again"


def _seedless(text: str) -> str:
    arguments = json.loads(text)
    arguments.pop("seed", None)
    return json.dumps(arguments, sort_keys=True)
