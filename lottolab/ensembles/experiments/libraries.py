"""Libraries of robust tickets, and what may answer in their name.

The stages share these arguments, called a `setting` where they are handed on whole:

dataset: a name for `data.get`. background: `plain`, or `textured`, see there.
sizes: how many images `train`, `val` and `test` hold. What is trained depends on the
    first alone (see `taught`): scales that attack more or fewer images share it.
inner: the attack of adversarial training: `epsilon`, `step` and `steps`; with ε = 0 it
    is standard training, the control without any attack.
recipe, search: arguments of `train.Recipe`, for dense networks and for scores.
structures: a list of four dicts: `network`, arguments of `models.build`, and `ratios`,
    those of its tickets, rising. A `place` is a structure's in this list, a `rank` a
    ratio's, both from 0; in tables a place is one of `PLACES`.
seed: a library's: of its split, of the random weights, which all tickets of a structure
    share, of the scores and of whatever else is drawn.
"""

import json
from functools import lru_cache, partial

import pandas as pd
from torch import Tensor, nn

from lottolab import runs
from lottolab.checks import one_of
from lottolab.ensembles.attacks.gradient import pgd
from lottolab.ensembles.experiments.scenes import pixels, shown, textured
from lottolab.ensembles.folding import folded
from lottolab.ensembles.laws import matched, one, theta
from lottolab.ensembles.library import Library
from lottolab.ensembles.queries import Normalised, correct
from lottolab.ensembles.sampler import Ensemble, Sampler
from lottolab.ensembles.tickets import Ticket, adversarial_fit, find_ticket
from lottolab.images import datasets
from lottolab.nets import tickets, train
from lottolab.nets.device import here

LAWS = {"theta": theta, "one": one, "matched": matched, "team": theta}
PLACES = ("first", "second", "third", "fourth")
DEFENCES = ("dense", "ticket", "best", "static", *LAWS)


@runs.stage("ensembles.experiments.libraries.ticket")
def ticket(
    *, network: dict, ratio: float, dataset, background, sizes, inner, search, seed
) -> dict:
    """Search one robust ticket; its masks, its statistics and the history of it.

    `metrics` has the mean `loss` of the last epoch.
    """
    parts = read(dataset=dataset, background=background, sizes=sizes, seed=seed)
    drawn = Library({"": spec(network, parts, seed)}, scale(parts))
    found, history = find_ticket(
        drawn.frames[""],
        *parts["train"],
        train.recipe(search),
        ratio=ratio,
        **inner,
        seed=seed,
    )
    kept = {"masks": found.masks, "statistics": found.statistics}
    return kept | {"history": history, "metrics": last(history)}


@runs.stage("ensembles.experiments.libraries.dense")
def dense(*, network: dict, dataset, background, sizes, inner, recipe, seed) -> dict:
    """Train a whole network adversarially: its `weights`, and `metrics` as `ticket`."""
    parts = read(dataset=dataset, background=background, sizes=sizes, seed=seed)
    whole = tickets.build(network=network, parts=parts, seed=seed)
    given = *parts["train"], train.recipe(recipe)
    fitted = adversarial_fit(whole, *given, **inner, seed=seed)
    weights = {k: v.cpu() for k, v in whole.state_dict().items()}
    history = fitted.history
    return {"weights": weights, "history": history, "metrics": last(history)}


@runs.stage("ensembles.experiments.libraries.library")
def library(*, structures: list[dict], recipe, seed, **common) -> dict:
    """Find all tickets of a library; what comes back is `Library.values`."""
    parts = read(**common, seed=seed)
    specs = {
        str(i): spec(structure["network"], parts, seed)
        for i, structure in enumerate(structures)
    }
    kept = Library(specs, scale(parts))
    for i, structure in enumerate(structures):
        for ratio in structure["ratios"]:
            given = {"network": structure["network"], "ratio": ratio, "seed": seed}
            found = ticket(**given, **common)
            chosen = Ticket(found["masks"], found["statistics"])
            kept.add(str(i), ratio, chosen)
    return kept.values()


@runs.stage("ensembles.experiments.libraries.best")
def best(*, steps: int, epsilon: float, **setting) -> dict:
    """Choose the ticket that PGD with `steps` steps leaves most accurate on `val`.

    `epsilon` is that of the attack by which the ticket will be judged. Returns its
    `place` and its `rank`.
    """
    scores, (x, y) = {}, shown(**setting)["val"]
    ball = {"epsilon": epsilon, "step": 2.5 * epsilon / steps, "steps": steps}
    for i, group in enumerate(networks(**setting)):
        for j, network in enumerate(group):
            found = pgd(network, x, y, **ball, stop=True, seed=setting["seed"])
            scores[i, j] = share(network, found, y)
    place, rank = max(scores, key=scores.__getitem__)
    return {"place": place, "rank": rank}


def model(*, defence: dict, **setting) -> nn.Module:
    """Return what answers, on images in [0, 1]; stochastic if it is a `Sampler`.

    `defence` has a `name`, and where it is of one structure its `place`:

    `dense`: the structure, whole, trained adversarially.
    `ticket`: the ticket of `rank`. `best`: the best of all on `val`, at `epsilon`.
    `one`: a ticket of the structure, drawn at each query: R2S.
    `theta`: the paper's ensemble; `chances` are those of n_i = 1, 2 …
    `matched`: a team as large as `theta`'s, of one structure.
    `team`: one team of `theta`, which answers always; `draw` says the how many-th that
        is drawn, from 0. `static`: all tickets at once.
    """
    name, place = defence["name"], defence.get("place")
    one_of("defence", name, DEFENCES)
    if name == "dense":
        return _whole(place, **setting)
    if name == "best":
        found = best(steps=5, epsilon=defence["epsilon"], **setting)
        place, rank = found["place"], found["rank"]
    elif name == "ticket":
        rank = defence["rank"]
    groups = networks(**setting, only=place)
    if name in ("best", "ticket"):
        return groups[0][rank]
    if name == "static":
        return Ensemble([network for group in groups for network in group])
    law = LAWS[name]
    if name == "matched":
        law = partial(law, structures=len(setting["structures"]))
    if "chances" in defence:
        law = partial(law, sizes=dict(enumerate(defence["chances"], 1)))
    named = dict(enumerate(groups))
    sampler = Sampler(named, law=law, seed=setting["seed"])
    if name != "team":
        return sampler
    drawn = [sampler.draw() for _ in range(1 + defence.get("draw", 0))]
    return sampler.ensemble(drawn[-1])


def networks(*, only: int | None = None, **setting) -> list[list[nn.Module]]:
    """Return the tickets' networks by place, quick to attack; `only` those of one."""
    groups = _networks(json.dumps(setting, sort_keys=True))
    return groups if only is None else [groups[only]]


# Many stages of one process ask for them, and to make them takes a second.
@lru_cache(maxsize=4)
def _networks(setting: str) -> list[list[nn.Module]]:
    given = json.loads(setting)
    found = shelf(**given)
    x = test(read(**given))[0][:4]
    return [
        [folded(found.network(name, ratio), x) for ratio in sorted(held)]
        for name, held in found.tickets.items()
    ]


def shelf(**setting) -> Library:
    """Return the library of a setting."""
    return Library.of(library(**taught(setting)))


def taught(setting: dict) -> dict:
    """Return the setting with no images but those that are trained on."""
    sizes = {"train": setting["sizes"]["train"], "val": 0, "test": 0}
    return setting | {"sizes": sizes}


def last(history: pd.DataFrame) -> dict[str, float]:
    return {"loss": float(history["loss"].iloc[-1])}


def read(*, dataset, background: str, sizes: dict, seed: int, **_) -> dict:
    """Return the splits by name, each as (uint8 images, labels), and the `classes`."""
    one_of("background", background, ("plain", "textured"))
    parts = tickets.read(dataset=dataset, sizes=sizes, seed=seed)
    if background == "textured":
        for name in ("train", "val", "test"):
            images, labels = parts[name]
            parts[name] = textured(images, seed), labels
    return parts


def test(parts: dict) -> tuple[Tensor, Tensor]:
    return pixels(parts["test"])


def scale(parts: dict) -> tuple[Tensor, Tensor]:
    return datasets.normalisation(parts["train"][0])


def spec(network: dict, parts: dict, seed: int) -> dict:
    """Return the arguments of `tickets.scratch` for a structure and these images."""
    channels, size = parts["train"][0].shape[1:3]
    shape = {"channels": channels, "classes": parts["classes"], "size": size}
    return {"network": network, **shape, "seed": seed}


def share(found: nn.Module, x: Tensor, y: Tensor) -> float:
    """Return the accuracy of one draw, in [0, 1]."""
    return float(correct(found, x, y).double().mean())


def _whole(place: int, **setting) -> nn.Module:
    """Return an adversarially trained dense network, quick to attack."""
    network, parts = setting["structures"][place]["network"], read(**setting)
    names = ("dataset", "background", "sizes", "inner", "recipe", "seed")
    given = {name: taught(setting)[name] for name in names}
    built = tickets.build(network=network, parts=parts, seed=setting["seed"])
    built.load_state_dict(dense(network=network, **given)["weights"])
    return folded(here(Normalised(built, scale(parts)).eval()), test(parts)[0][:4])
