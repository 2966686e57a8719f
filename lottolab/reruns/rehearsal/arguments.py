"""Change the arguments of a run: shorten them, compare them, carry them to another run.

An argument's value is a JSON value, and its *place* is the tuple of keys and indices
that lead to it.
"""

import json
from collections.abc import Callable, Iterator
from math import prod

from lottolab import runs

IMAGES = ("train", "val", "test", "holdout", "pool", "images", "budget", "jbda")
IMAGES += ("samples", "canaries")
# Other numbers that are cut, and to what: those of a stage or its `sizes` (`models` to
# the least that attacks with references take), and those of an attack.
SHORT = {"models": 6, "draws": 2, "keys": 4, "limit": 4}
IN_ATTACKS = {"steps": 2, "eot": 1, "queries": 4, "teams": 1}
ATTACKS = ("attack", "attacks", "black_box")
RATIOS = 2  # tickets that are left of each structure
ROUNDS = 3  # of a search, unless something is looked up in the rounds
ATTACK_EPOCHS = 4  # of a network that attacks, which is trained on logits
RECIPES = ("recipe", "second", "search")  # which hold the batch, or leave it as it is
IGNORED = ("seed", "group", "shadows", "text", "texts")  # they take no time
EXAMPLES = ("test", "attack.steps", "attack.queries", "attack.eot", "attack.teams")
# With which numbers the work grows that `shortcuts` do in full. That of a stage that is
# not here is taken to stay as it is.
GROWS = {
    "glyphs.drawn": ("images",),
    "modelguard.experiments.over_http.timed": ("budget",),
    "membership.experiments.attacks.attacked": ("samples",),
    "membership.experiments.attacks.transferred": ("samples",),
    "membership.experiments.attacks.confounded": ("samples",),
    "membership.experiments.attacks.shadowed": ("pool",),
    "membership.experiments.families.family": ("pool", "models", "models"),
    "membership.experiments.families.exposed": ("pool", "models"),
    "mia_pruning.experiments.leaks.attacked": ("pool", "attack.epochs"),
    "mia_pruning.experiments.leaks.attended": ("pool",),
    "mia_pruning.experiments.leaks.family": ("pool", "models", "models"),
    "mia_pruning.experiments.studies.learned": ("pool",),
    "mia_pruning.experiments.studies.searched": ("pool", "attack.epochs"),
    "modelguard.experiments.thefts.stolen": ("budget",),
    "modelguard.experiments.studies.served": ("budget",),
    "modelguard.experiments.studies.grown": ("budget",),
    "modelguard.experiments.studies.asked_twice": ("budget",),
    "modelguard.experiments.studies.completed": ("budget", "draws"),
    "ensembles.experiments.libraries.ticket": ("test",),
    "ensembles.experiments.libraries.dense": ("test",),
    "ensembles.experiments.libraries.best": ("val", "tickets"),
    "ensembles.experiments.trials.examples": EXAMPLES,
    "ensembles.experiments.trials.scored": ("test", "draws"),
    "ensembles.experiments.trials.strongest": ("test", "draws"),
    "ensembles.experiments.studies.transferred": ("test", "tickets"),
    "ensembles.experiments.studies.transfer": ("test", "tickets"),
    "ensembles.experiments.studies.masked": ("images", "attack.steps", "attack.eot"),
    "together.echoes.echo": ("pool",),
    "together.echoes.echoed": ("pool", "models", "models"),
    "together.evidence.judged": ("pool",),
    "together.evidence.false_claims": ("pool", "models"),
    "together.leaks.behind": ("pool", "models"),
    "together.leaks.labels_alone": ("pool", "models"),
    "together.leaks.trajectory": ("pool",),
    "together.worth.fooled": ("attack.images", "attack.steps", "attack.eot"),
    "together.worth.measured": ("attack.images", "attack.steps", "attack.eot"),
    "together.worth.memorised": ("pool",),
    "ownership.experiments.signatures.false_claims": ("keys",),
    "ownership.experiments.ambiguity.aligned_claims": ("keys",),
}
STILL = ("dense", "ticket", "best", "team", "static")  # defences that draw nothing
DRAWN = ("attack.eot", "attack.teams", "draws")  # which count for the others alone


def walk(value, place: tuple = ()) -> Iterator[tuple[tuple, object]]:
    """Yield (place, value) of everything inside dicts and lists, outer before inner."""
    inside = enumerate(value) if isinstance(value, list) else ()
    for key, part in value.items() if isinstance(value, dict) else inside:
        yield (*place, key), part
        yield from walk(part, (*place, key))


def at(value, place: tuple):
    """Return what stands at a place.

    Raises LookupError or TypeError where there is no such place.
    """
    for key in place:
        value = value[key]
    return value


def find(full: dict, name: str):
    """Return the outermost value of this name, or at this dotted place; None if none.

    `tickets` is how many tickets a structure of a library has.
    """
    if name == "tickets":
        structures = full.get("structures")
        return structures and sum(len(s["ratios"]) for s in structures)
    path = tuple(name.split("."))
    found = [(p, v) for p, v in walk(full) if p[-len(path) :] == path]
    return min(found, key=lambda pair: len(pair[0]))[1] if found else None


def sparsest(full: dict) -> list[float]:
    """Return the rates to the sparsest ticket that `tickets.extreme` may find by its
    first rate; it tries one more for each other rate if all match until then."""
    rate, left, taken = full["rates"][0], 1.0, []
    while left * (1 - rate) >= full["least"] and len(taken) < full["limit"]:
        taken, left = [*taken, rate], left * (1 - rate)
    return taken


def main(full: dict) -> int:
    """Return how many images there are, of which a training takes all or half; or 0."""
    return find(full, "sizes.pool") or find(full, "sizes.train") or 0


def shortened(full: dict, keep: int, batch: int) -> dict:
    """Return the arguments for a rehearsal: `keep` images and batches of `batch`.

    All numbers of images shrink by one factor, those of `SHORT` to what is there.
    Epochs stay: `shortcuts` passes over all but the first.
    """
    factor = max(1, main(full) // keep)
    lists = {"ratios": RATIOS} | ({} if "at" in full else {"rates": ROUNDS})

    def cut(key, value, parent):
        if isinstance(value, dict):
            is_recipe = key in RECIPES and "name" not in value  # or it is a treatment
            small = {"batch": batch} if is_recipe else {}
            return {k: cut(k, v, key) for k, v in value.items()} | small
        if isinstance(value, list):
            few = value[: lists[key]] if key in lists else value
            return [cut(key, v, parent) for v in few]
        if type(value) is not int:
            return value
        if key in IMAGES:
            return max(1, value // factor) if value else 0
        return min(value, batch if key == "batch" else limit(key, parent, full, value))

    return cut("", full, "")


def limit(key: str, parent: str, full: dict, value: int) -> int:
    """Return what a number is cut to; itself if it is not to be cut."""
    if parent in ATTACKS:
        trains = key == "epochs" and "name" not in full.get("attack", {"name": ""})
        return ATTACK_EPOCHS if trains else IN_ATTACKS.get(key, value)
    return SHORT.get(key, value) if parent in ("", "sizes") else value


def kind(stage: Callable, full: dict) -> str:
    """Return what two runs share that cost alike, up to the factors of `growth`.

    Left out are seeds, texts, real numbers, and the numbers that are cut; but not
    whether they are 0, or whether a list has one entry or more.
    """

    def shape(key, value, parent):
        if key in IGNORED:
            return None
        if isinstance(value, dict):
            return {k: shape(k, v, key) for k, v in value.items() if k != "batch"}
        if isinstance(value, list):
            if value and all(isinstance(v, float) for v in value):
                return "one" if len(value) == 1 else "more"
            return [shape(key, v, parent) for v in value]
        whole = type(value) is int
        cut = whole and (key in IMAGES or limit(key, parent, full, -1) >= 0)
        return bool(value) if cut or isinstance(value, float) else value

    return runs.name(stage) + json.dumps(shape("", full, ""), sort_keys=True)


def growth(stage: Callable, cut: dict, full: dict) -> float:
    """Return how often the rest of a run's work is that of the shortened run."""
    defence = (full.get("defence") or {}).get("name")
    names = [n for n in GROWS.get(runs.name(stage), ()) if find(cut, n)]
    if defence in STILL or "team" not in full.get("defences", ["team"]):
        names = [n for n in names if n not in DRAWN]
    if defence == "static":
        names.append("tickets")
    return prod(find(full, name) / find(cut, name) for name in names)


def siblings(asked: dict, cut: dict, full: dict) -> Iterator[dict]:
    """Carry what the shortened run asked another stage for to the run itself.

    `asked` are the arguments of that stage, `cut` and `full` those of the asking one.
    A value that the asking run was given is replaced by the one in its place. Where a
    stage asks all models of a pool, or all tickets, there are more of them in full.
    """
    given = {key: carried(key, value, cut, full) for key, value in asked.items()}
    spread = {"rank": find(cut, "tickets"), "seed": find(cut, "models")}
    counts = {"rank": find(full, "tickets"), "seed": find(full, "models")}
    for key, few in spread.items():
        if key in cut or key not in asked or not few:
            continue
        if key == "rank":
            few, many = RATIOS, counts[key] // len(full["structures"])
            yield from ({**given, key: r} for r in range(asked[key], many, few))
            return
        if asked[key] // few == cut.get("group"):
            first, many = counts[key] * full["group"], counts[key]
            places = range(asked[key] % few, many, few)
            yield from ({**given, key: first + place} for place in places)
            return
    yield given


def carried(key: str, value, cut: dict, full: dict):
    """Return the value in `full` at the place where `value` is found in `cut`.

    First of the same name, the outermost place; else a dict or list of another name; or
    the beginning of a list.
    """
    same = [place for place, v in walk(cut) if v == value and type(v) is type(value)]
    named = [place for place in same if place[-1] == key]
    if named:
        return at(full, min(named, key=len))
    if isinstance(value, dict | list):
        if same:
            return at(full, same[0])
        longer = cut.get(key)
        if isinstance(value, list) and longer and value == longer[: len(value)]:
            return full[key][: len(full[key]) - len(longer) + len(value)]
    return value
