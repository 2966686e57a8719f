"""Change the arguments of a run: shorten them, compare them, carry them to another run.

An argument's value is a JSON value, and its *place* is the tuple of keys and indices
that lead to it.
"""

import json
from collections.abc import Callable, Iterator

from lottolab import runs

IMAGES = ("train", "val", "test", "holdout", "pool", "images", "budget", "jbda")
IMAGES += ("samples", "canaries")
# Other numbers that are cut, and to what: those of a stage or its `sizes` (`models` to
# the least that attacks with references take), and those of an attack.
SHORT = {"models": 6, "draws": 2, "keys": 4, "limit": 4}
IN_ATTACKS = {"steps": 2, "eot": 1, "queries": 4, "teams": 1}
ATTACKS = ("attack", "attacks", "black_box")
# How many are left of a list: tickets of each structure; rounds of a search, unless
# something is looked up in the rounds.
LISTS = {"ratios": 2, "rates": 3}
ATTACK_EPOCHS = 4  # of a network that attacks, which is trained on logits
RECIPES = ("recipe", "second", "search")  # which hold the batch, or leave it as it is
IGNORED = ("seed", "group", "shadows", "text", "texts")  # they take no time
# What takes no other time either: a step's images count one by one, and each round of a
# search is a run of its own.
UNSCALED = {"batch", "rates", *IGNORED}


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
    Epochs stay: a training itself passes over most of them.
    """
    factor = max(1, main(full) // keep)
    lists = LISTS if "at" not in full else {k: LISTS[k] for k in LISTS if k != "rates"}

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
    whether they are 0, or whether a list has one entry or more. A `ratio` stays: a team
    takes no ticket of another ratio for its own.
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
        real = isinstance(value, float) and key != "ratio"
        return bool(value) if cut or real else value

    return runs.name(stage) + json.dumps(shape("", full, ""), sort_keys=True)


def lengthened(cut: dict, full: dict) -> Iterator[tuple[str, dict]]:
    """Yield the name of each number that was cut, and the shortened arguments with it
    doubled, or as it is in full. All numbers of images are `images`.
    """
    names = {_group(place) for place, _ in _cut(cut, full)} - UNSCALED
    for name in sorted(names):
        longer = json.loads(json.dumps(cut))
        for place, whole in _cut(cut, full):
            if _group(place) == name:
                few = at(cut, place)
                more = whole[: 2 * len(few)] if name in LISTS else min(whole, 2 * few)
                at(longer, place[:-1])[place[-1]] = more
        yield name, longer


def ratios(cut: dict, full: dict) -> dict[str, float]:
    """Return how much larger each number that was cut is in full; the sum where several
    have one name."""
    sums: dict[str, list[int]] = {}
    for place, whole in _cut(cut, full):
        name, few = _group(place), at(cut, place)
        pair = (len(few), len(whole)) if name in LISTS else (few, whole)
        sums[name] = [a + b for a, b in zip(sums.get(name, (0, 0)), pair, strict=True)]
    return {n: whole / few for n, (few, whole) in sums.items() if n not in UNSCALED}


def _cut(cut: dict, full: dict) -> Iterator[tuple[tuple, object]]:
    """Yield place and whole value of what is shorter in `cut`, and is not empty."""
    there = dict(walk(full))
    for place, few in walk(cut):
        whole = there.get(place)  # of two runs of a kind, lists may differ in length
        is_list = isinstance(few, list) and place[-1] in LISTS
        if is_list and 0 < len(few) < len(whole or ()):
            yield place, whole
        if type(few) is int and type(whole) is int and 0 < few < whole:
            yield place, whole


def _group(place: tuple) -> str:
    """Return the name of a number that is cut, without its place in lists."""
    names = [key for key in place if isinstance(key, str)]
    return "images" if names[-1] in IMAGES else names[-1]


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
            few, many = LISTS["ratios"], counts[key] // len(full["structures"])
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
