"""Single questions: transfer, masked gradients, the library's cost; and early checks.

The arguments are those of `trials`.
"""

import time

import pandas as pd
import torch

from lottolab import runs
from lottolab.checks import require
from lottolab.ensembles import masking
from lottolab.ensembles.experiments import libraries, scenes, trials
from lottolab.ensembles.sampler import Sampler
from lottolab.ensembles.tickets import scratch
from lottolab.nets import train
from lottolab.nets.device import here

METRICS = ("accuracy", "lowest accuracy", "highest accuracy")


@runs.stage("ensembles.experiments.studies.transferred")
def transferred(*, place: int, rank: int, attack: dict, **setting) -> dict:
    """Make examples on one ticket and show them to all: a row of the matrix.

    `row` has the `accuracy` of each target by its `place` and `rank`.
    """
    source = {"name": "ticket", "place": place, "rank": rank}
    x = here(trials.examples(defence=source, attack=attack, **setting)["images"])
    y = scenes.shown(**setting)["test"][1]
    rows = [
        {"place": i, "rank": j, "accuracy": libraries.share(network, x, y)}
        for i, group in enumerate(libraries.networks(**setting))
        for j, network in enumerate(group)
    ]
    return {"row": pd.DataFrame(rows)}


@runs.stage("ensembles.experiments.studies.transfer")
def transfer(*, attack: dict, **setting) -> dict:
    """Attack each ticket, and show the examples to every other.

    `matrix` has a row a pair. The `measurements` are, for a structure, the clean and
    the robust accuracies of its tickets (`of` ticket, with the `ratio`), their lowest,
    mean and highest, the `least` robust of all, and the means of the `smallest
    structure` and of the `largest structure`, by their weights; and mean accuracies
    over the pairs that are one ticket, two of one structure, and of two (`relation`),
    of a structure's tickets also the `lowest accuracy` and the `highest accuracy`.
    """
    found, clean = [], {}
    x, y = scenes.shown(**setting)["test"]
    for i, group in enumerate(libraries.networks(**setting)):
        for j, network in enumerate(group):
            row = transferred(place=i, rank=j, attack=attack, **setting)["row"]
            found.append(row.assign(source_place=i, source_rank=j))
            clean[i, j] = libraries.share(network, x, y)
    pairs = pd.concat(found, ignore_index=True)
    kinds = _relations(pairs)
    robust = pairs[kinds["itself"]].set_index(["place", "rank"])["accuracy"]
    rows = [{"metric": "robust_accuracy", "of": "least", "value": robust.min()}]
    weights = libraries.shelf(**setting).sizes()["weights"].tolist()
    for name, of in (("smallest", min), ("largest", max)):
        marks = {"metric": "robust_accuracy", "of": f"{name} structure"}
        value = robust[weights.index(of(weights))].mean()
        rows.append(marks | {"value": value})
    names = [
        {"place": place, "structure": structure["network"]["name"]}
        for place, structure in zip(
            libraries.PLACES, setting["structures"], strict=True
        )
    ]
    for i, structure in enumerate(setting["structures"]):
        for name, values in (("clean", pd.Series(clean)), ("robust", robust)):
            marks = {"metric": f"{name}_accuracy"} | names[i]
            rows += [marks | more for more in _summary(values[i], structure["ratios"])]
    for relation, chosen in kinds.items():
        marks = {"relation": relation}
        value = pairs[chosen]["accuracy"].mean()
        rows.append(marks | {"metric": "accuracy", "place": "all", "value": value})
        for i, group in pairs[chosen].groupby("place"):
            ends = group["accuracy"].agg(["mean", "min", "max"])
            for metric, value in zip(METRICS, ends, strict=True):
                rows.append(marks | names[i] | {"metric": metric, "value": value})
    return {"matrix": pairs, "measurements": pd.DataFrame(rows)}


def _relations(pairs: pd.DataFrame) -> dict[str, pd.Series]:
    """Mark the pairs that are one ticket, two of one structure, and of two."""
    near = pairs["place"] == pairs["source_place"]
    itself = near & (pairs["rank"] == pairs["source_rank"])
    return {"itself": itself, "other ratio": near & ~itself, "other structure": ~near}


def _summary(values: pd.Series, ratios: list[float]) -> list[dict]:
    found = [
        {"of": "ticket", "ratio": ratio, "value": value}
        for ratio, value in zip(ratios, values, strict=True)
    ]
    shown = {"lowest": values.min(), "mean": values.mean(), "highest": values.max()}
    return found + [{"of": of, "value": value} for of, value in shown.items()]


@runs.stage("ensembles.experiments.studies.masked")
def masked(
    *, defence: dict, attack: dict, black_box: dict, images: int, **setting
) -> dict:
    """Look for masked gradients on the first `images` test images.

    `attack` is of PGD, `black_box` one whose examples are looked at too.
    `measurements` are the `value` of each `check`, and `signs`, how many are beyond
    their limit.
    """
    target = libraries.model(defence=defence, **setting)
    x, y = scenes.shown(**setting)["test"]
    other = here(
        trials.examples(defence=defence, attack=black_box, **setting)["images"]
    )
    drawn = isinstance(target, Sampler)
    table = masking.findings(
        target,
        x[:images],
        y[:images],
        **{name: attack[name] for name in ("epsilon", "step", "steps")},
        eot=attack["eot"] if drawn else 1,
        stop=not drawn,
        black_box={black_box["name"]: other[:images]},
        seed=setting["seed"],
    )
    rows = table[["check", "value", "limit"]].assign(metric="finding")
    signs = {"metric": "signs", "value": float(table["masked"].sum())}
    return {"measurements": pd.concat([rows, pd.DataFrame([signs])])}


@runs.stage("ensembles.experiments.studies.cost")
def cost(**setting) -> dict:
    """Weigh a library held as bits, and the same networks stored whole.

    `measurements` are `bytes` by `form`, also of one dense network on average.
    """
    sizes = libraries.shelf(**setting).sizes()
    found = {"bits": sizes["held"].sum(), "whole": sizes["whole"].sum()}
    found["one network"] = sizes["weights"].mean()
    rows = [{"metric": "bytes", "form": k, "value": float(v)} for k, v in found.items()]
    return {"measurements": pd.DataFrame(rows)}


def speed(*, repeats: int, **setting) -> dict[str, float]:
    """Return how many images per second the sampler answers, by form, on one thread.

    No stage, because no two runs agree. Each form answers the same teams, `repeats`
    times 100 images.
    """
    shelf = libraries.shelf(**setting)
    x = scenes.shown(**setting)["test"][0][:1].repeat(100, 1, 1, 1)
    threads, rates = torch.get_num_threads(), {}
    torch.set_num_threads(1)
    for form in ("bits", "whole"):
        networks = shelf.networks(shared=form == "bits")
        sampler = Sampler(networks, seed=setting["seed"])
        with torch.no_grad():
            sampler(x)
            start = time.perf_counter()
            for _ in range(repeats):
                sampler(x)
        rates[form] = repeats * len(x) / (time.perf_counter() - start)
    torch.set_num_threads(threads)
    return rates


def check(epsilon: float, epsilons: list[float], **setting) -> None:
    """Raise ValueError now if the chapter would raise it later.

    `epsilons` must hold four rising radii, all others than `epsilon`; `setting` is that
    of `libraries` without the seed.
    """
    rising = len(epsilons) == 4 and sorted(set(epsilons)) == list(epsilons)
    require(rising, "epsilons must be 4 different, rising values", epsilons)
    what = f"epsilons must be others than epsilon = {epsilon}"
    require(epsilon not in epsilons, what, epsilons)
    structures = setting["structures"]
    names = [s["network"]["name"] for s in structures]
    require(len(names) == len(libraries.PLACES), "structures must be four", names)
    parts = libraries.read(**setting, seed=0)
    for structure in structures:
        ratios = structure["ratios"]
        rising = len(ratios) >= 2 and sorted(set(ratios)) == list(ratios)
        require(rising, "ratios must be 2 or more different, rising values", ratios)
        scratch(**libraries.spec(structure["network"], parts, 0))
    count = len(parts["train"][0])
    for name in ("recipe", "search"):
        batch = train.recipe(setting[name]).batch
        most = f"batch must be at most the training images, {count}"
        require(batch <= count, most, batch)
