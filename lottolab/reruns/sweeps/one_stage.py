"""Sweep one stage instead of a whole chapter: its other arguments are the edition's."""

import json
from collections.abc import Iterator
from pathlib import Path

from lottolab import jobs
from lottolab.checks import one_of, require
from lottolab.jobs import named
from lottolab.pages.parameters import KINDS, Parameter
from lottolab.truth import results

Place = tuple[str, ...]  # of an argument: the keys that lead to it


def find(
    chapter: str, scale: str, word: str, given: dict[str, list[str]]
) -> tuple[str, dict, dict[str, tuple[Place, Parameter]]]:
    """Choose the run of the edition that a sweep of a stage starts from.

    It is the first that has an argument for each name, and of those one that agrees
    with as many as possible of the names that are given one value.

    Args:
        word: the stage's name without its module, such as `served`.
        given: values as texts, by the argument's name; the last key of its place is
            enough where no other argument has it (`epsilon` for `defence.epsilon`).

    Returns the stage's whole name, the run's arguments, and for each name its place
    and what reads its values.

    Raises:
        ValueError: the edition has no such stage, or no run of it these arguments.
    """
    stages = results.read_stages(chapter, scale)
    require(len(stages) > 0, f"{chapter} must have results at the scale", repr(scale))
    names = {name.rpartition(".")[2]: name for name in stages["function"].unique()}
    one_of(f"the stage of {chapter}", word, names)
    texts = stages.loc[stages["function"] == names[word], "arguments"]
    every = [dict(_leaves(json.loads(text))) for text in texts]
    for name in given:
        known = {k for leaves in every for p in leaves for k in (".".join(p), p[-1])}
        one_of(f"an argument of {word}", name, sorted(known))
    fitting = [
        (-_agreeing(leaves, places, given), number, places)
        for number, leaves in enumerate(every)
        if (places := _places(leaves, given))
    ]
    require(bool(fitting), f"a run of {word} must have each of", " and ".join(given))
    _, number, places = min(fitting, key=lambda found: found[:2])
    leaves, read = every[number], {}
    for name, place in places.items():
        kind = type(leaves[place]).__name__
        one_of(f"the type of {name}", kind, KINDS)
        read[name] = place, Parameter(name, kind, leaves[place], "")
    return names[word], json.loads(texts.iloc[number]), read


def run_point(
    chapter: str,
    scale: str,
    point: dict,
    folder: Path,
    *,
    environment: dict,
    function: str,
    base: dict,
    places: dict[str, Place],
) -> None:
    """Run the stage with the point's arguments; its measurements go into the folder."""
    arguments = json.loads(json.dumps(base))
    for name, value in point.items():
        *keys, last = places[name]
        inner = arguments
        for key in keys:
            inner = inner[key]
        inner[last] = value
    with jobs.adopted(environment | {results.FOLDER: str(folder / "results")}):
        rows = results.measure([({}, named.find(function), arguments)])
        results.write(chapter, scale, rows)


def _leaves(arguments: dict, above: Place = ()) -> Iterator[tuple[Place, object]]:
    for key, value in arguments.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*above, key))
        else:
            yield (*above, key), value


def _places(leaves: dict[Place, object], names: dict) -> dict[str, Place] | None:
    """Return where each name stands, or None if one stands nowhere or twice."""
    found = {}
    for name in names:
        whole = [place for place in leaves if ".".join(place) == name]
        every = whole or [place for place in leaves if place[-1] == name]
        if len(every) != 1:
            return None
        found[name] = every[0]
    return found


def _agreeing(leaves: dict, places: dict[str, Place], given: dict) -> int:
    return sum([str(leaves[places[n]])] == texts for n, texts in given.items())
