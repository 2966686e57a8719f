"""More of the functions that `test_fuzz` tries: pruning, signing, the ground floor.

As in `fuzz_cases`.
"""

import math
from functools import partial

import numpy as np
import torch
from fuzz_cases import (
    C,
    N,
    f64,
    images,
    labels,
    near,
    network,
    scores,
    seeded,
    within,
)
from fuzzing import Case, alike
from scipy.stats import beta

from lottolab import cli
from lottolab.images import datasets, glyphs, partition, relabel
from lottolab.mia_pruning import audit, divergence, theorem
from lottolab.mia_pruning.defences import accounting, ppb
from lottolab.nets import masks, models, predict
from lottolab.ownership import split, triggers
from lottolab.ownership.signatures import decoding, qr, signature
from lottolab.pages import parameters
from lottolab.reruns.sweeps import grids
from lottolab.truth import power, rates, stats

# Pruning against membership


def probabilities(r):
    return torch.from_numpy(r.random(N))


def gained(g, found) -> bool:
    low = g.get("floor", 1e-6)
    f, h = (np.clip(f64(g[k]), low, 1 - low) for k in ("members", "non_members"))
    return near(found, np.log(f).mean() + np.log(1 - h).mean())


def best_gain(g, found) -> bool:
    p, q = f64(g["p"]), f64(g["q"])
    with np.errstate(all="ignore"):
        f = np.where(p + q > 0, p / (p + q), 0.5)
        parts = np.where(p > 0, p * np.log(f), 0), np.where(q > 0, q * np.log1p(-f), 0)
    return near(found, sum(map(np.sum, parts)))


def shares(r):
    return torch.from_numpy(r.dirichlet(np.ones(5)))


def step(r) -> dict:
    return {"rate": 0.1, "steps": 10, "delta": 1e-5}


# What is kept for the next call refuses a list in Python's own words.
CACHED = ("unhashable type", "privacy budget")
MIA_PRUNING = {
    "noise_multiplier": Case(
        accounting.noise_multiplier,
        lambda r: {"epsilon": float(r.uniform(1, 8))} | step(r),
        lambda g, f: (
            accounting.spent(f, g["rate"], g["steps"], g["delta"])
            <= f64(g["epsilon"]) * 1.001
        ),
        CACHED,
    ),
    "spent": Case(
        accounting.spent,
        lambda r: {"sigma": float(r.uniform(0.5, 3))} | step(r),
        lambda g, f: f >= 0 and (math.isfinite(f) or g["sigma"] < 1e-2),
        CACHED,
    ),
    "gain": Case(
        divergence.gain,
        lambda r: (
            {"members": probabilities(r), "non_members": probabilities(r)}
            | {"floor": 1e-6}
        ),
        gained,
    ),
    "best_gain": Case(
        divergence.best_gain, lambda r: {"p": shares(r), "q": shares(r)}, best_gain
    ),
    "jensen_shannon": Case(
        divergence.jensen_shannon,
        lambda r: (
            {"scores_in": scores(r), "scores_out": scores(r), "bins": 5}
            | {"draws": 3}
            | seeded(r)
        ),
        lambda g, f: within(f, 0, math.log(2)),
    ),
    "epsilon_lower_bound": Case(
        audit.epsilon_lower_bound,
        lambda r: (
            {"scores_in": scores(r), "scores_out": scores(r), "delta": 1e-5}
            | {"level": 0.95}
            | seeded(r)
        ),
        lambda g, f: within(f, 0, math.log(len(f64(g["scores_in"])))),
    ),
    "ppb.divergence": Case(
        ppb.divergence,
        lambda r: {"logits": scores(r, N, C)},
        lambda g, f: math.isfinite(f) and f >= -1e-6,
    ),
    "ppb.loss": Case(
        lambda weight: callable(ppb.loss(weight)),
        lambda r: {"weight": 4.0},
        lambda g, f: f and 0 <= g["weight"] < math.inf,
    ),
    "theorem": Case(
        lambda weights, **given: theorem.subnetwork(weights, **given).error,
        lambda r: (
            {"weights": torch.from_numpy(r.uniform(-1, 1, (2, 3)))}
            | {"width": 5}
            | seeded(r)
        ),
        lambda g, f: within(f, 0, f64(g["weights"]).size),
    ),
}


# Ownership


def sparse(r) -> dict:
    return {"a": torch.from_numpy(r.random((26, 24, 3, 3)) < 0.08)}


def signed(masks, text, ecc, layer, seed, claim):
    """Sign and verify; the mask itself stands for the weights."""
    own = {"seed": seed, "secret": signature.public(0)}
    made, key = signature.embed(masks, text, ecc=ecc, layer=layer, **own)
    state = {name: mask.float() for name, mask in made.items()}
    kept = all(int(made[n].sum()) == int(m.sum()) for n, m in masks.items())
    return kept, signature.verify(state, key, claim=text if claim else None).text


def written(text, ecc, largest, version, mask):
    return qr.decode(*qr.encode(text, ecc, largest, version=version, mask=mask)).text


OWNERSHIP = {
    "signature": Case(
        signed,
        lambda r: (
            {"masks": sparse(r), "text": "Zoë 1", "ecc": "L", "layer": "a"}
            | {"claim": False}
            | seeded(r)
        ),
        lambda g, f: f == (True, g["text"]),
        ("mask", "a"),
    ),
    "qr": Case(
        written,
        lambda r: (
            {"text": "owner 日本", "ecc": "M", "largest": 60}
            | {"version": 3, "mask": 2}
        ),
        lambda g, f: f == g["text"],
    ),
    "expected": Case(
        decoding.expected,
        lambda r: {"version": 2, "ecc": "H", "flip": float(r.uniform(0, 0.2))},
        lambda g, f: within(f, 0, 1),
    ),
    "secret_labels": Case(
        triggers.secret_labels,
        lambda r: {"count": 9, "classes": C, "secret": "a1b2c3d4" * 8},
        lambda g, f: within(f, 0, g["classes"] - 1) and len(f) == g["count"],
    ),
    "triggers.draw": Case(
        triggers.draw,
        lambda r: (
            {"count": 2, "classes": C, "channels": 1, "size": 12}
            | {"secret": "a1b2c3d4" * 8}
        ),
        lambda g, f: len(f.images) == g["count"] and f.images.shape[2] == g["size"],
        CACHED,
    ),
    "split_key": Case(
        split.split_key,
        lambda r: (
            {"masks": sparse(r)}
            | {"weights": {"a": scores(r, 26, 24, 3, 3)}, "fraction": 0.2}
            | {"score": "magnitude"}
            | seeded(r)
        ),
        lambda g, f: (
            sum(int(m.sum()) for m in f[0].values())
            == round(g["fraction"] * sum(int(m.sum()) for m in g["masks"].values()))
        ),
        ("mask", "name"),
    ),
}


# The ground floor


def interval(g, found) -> bool:
    x = f64(g["values"])
    if len(x) == 1:
        return math.isnan(found.low) and near(found.estimate, x[0])
    half = found.high - found.estimate
    return near(found.estimate, x.mean()) and half >= -1e-9 and found.n == len(x)


def rate(g, found) -> bool:
    k, n, level = g["successes"], g["trials"], g["level"]
    high = beta.ppf((1 + level) / 2, k + 1, n - k) if k < n else 1.0
    return near([found.estimate, found.high], [k / n, high])


def counted(r) -> dict:
    return {"successes": int(r.integers(20)), "trials": 20, "level": 0.95}


def pruned(g, found) -> bool:
    kept = {n: int(m.sum()) for n, m in g["masks"].items()}
    left = sum(int(m.sum()) for m in found.values())
    inner = all(bool((~m | g["masks"][n]).all()) for n, m in found.items())
    goes = sum(round(g["rate"] * k) for k in kept.values())
    if g["scope"] == "global":
        goes = round(g["rate"] * sum(kept.values()))
    return inner and left == sum(kept.values()) - goes


def masked(r) -> dict:
    return {"masks": {n: torch.from_numpy(r.random((4, 5)) < 0.7) for n in "ab"}}


def weighed(r) -> dict:
    weights = {n: scores(r, 4, 5) for n in "ab"}
    return {"weights": weights, **masked(r), "rate": 0.4, "scope": "layer"}


def normal(g, found) -> bool:
    x = f64(g["images"]) / 255
    std = x.std((0, 2, 3))
    wanted = [x.mean((0, 2, 3)), np.where(std > 0, std, 1)]
    return near(found[0], wanted[0]) and near(found[1], wanted[1])


def built(name, channels, classes, width, stem, size, seed):
    network = models.build(
        name,
        channels=channels,
        classes=classes,
        width=width,
        stem=stem,
        size=size,
        seed=seed,
    )
    return network.eval()(torch.zeros(1, channels, size, size)).shape[1]


def dataset(images, labels, test):
    return datasets.Dataset("own", images, labels, C, test, False).checksum


def cut(train, val, test, holdout, seed):
    sizes = {"train": train, "val": val, "test": test, "holdout": holdout}
    return partition.splits(datasets.load("digits"), **sizes, seed=seed)


def apart(g, found) -> bool:
    every = torch.cat(list(found.values()))
    sizes = [len(part) == g[name] for name, part in found.items()]
    return all(sizes) and len(every.unique()) == len(every)


GROUND = {
    "mean_interval": Case(
        stats.mean_interval, lambda r: {"values": scores(r), "level": 0.9}, interval
    ),
    "clustered_interval": Case(
        stats.clustered_interval,
        lambda r: {"values": scores(r), "cluster": labels(r), "level": 0.9},
        lambda g, f: math.isfinite(f.estimate) and not f.low > f.high,
    ),
    "paired_difference": Case(
        stats.paired_difference,
        lambda r: {"a": scores(r), "b": scores(r), "level": 0.9},
        lambda g, f: near(f.estimate, (f64(g["a"]) - f64(g["b"])).mean()),
        ("values",),
    ),
    "paired_by": Case(
        stats.paired_by,
        lambda r: {"a": {0: 1.0, 1: 2.0}, "b": {1: 2.0, 0: 4.0}},
        lambda g, f: alike(f.tolist(), [g["a"][k] - g["b"][k] for k in g["a"]]),
        ("both",),
    ),
    "equivalence": Case(
        stats.equivalence,
        lambda r: {"differences": scores(r), "margin": 0.5, "level": 0.95},
        lambda g, f: math.isnan(f[0]) or within(f[0], 0, 1),
        ("values",),
    ),
    "points": Case(
        stats.points,
        lambda r: {"differences": scores(r)},
        lambda g, f: "[" in f,
        ("values",),
    ),
    "binomial_interval": Case(rates.binomial_interval, counted, rate),
    "binomial_upper": Case(rates.binomial_upper, counted, lambda g, f: within(f, 0, 1)),
    "at_most": Case(
        rates.at_most,
        lambda r: {"share": float(r.random()), "n": 20},
        lambda g, f: f / g["n"] <= g["share"] < (f + 1) / g["n"],
    ),
    "bootstrap_interval": Case(
        partial(stats.bootstrap_interval, statistic=np.mean),
        lambda r: {"values": scores(r), "cluster": labels(r), "draws": 100} | seeded(r),
        lambda g, f: near(f.estimate, f64(g["values"]).mean()),
    ),
    "power.seeds": Case(
        power.seeds,
        lambda r: {"gap": float(r.random()), "deviation": 1.0, "level": 0.95},
        lambda g, f: f == math.inf or 3 <= f <= 1000,
    ),
    "magnitude": Case(masks.magnitude, weighed, pruned, ("mask", "mask name")),
    "masks.random": Case(
        masks.random,
        lambda r: masked(r) | {"rate": 0.4, "scope": "global"} | seeded(r),
        pruned,
        ("mask",),
    ),
    "shuffled": Case(
        masks.shuffled,
        lambda r: masked(r) | seeded(r),
        lambda g, f: (
            {n: int(m.sum()) for n, m in f.items()}
            == {n: int(m.sum()) for n, m in g["masks"].items()}
        ),
        ("mask",),
    ),
    "density": Case(
        masks.density,
        masked,
        lambda g, f: near(
            f, np.concatenate([f64(m).ravel() for m in g["masks"].values()]).mean()
        ),
        ("mask",),
    ),
    "predict.accuracy": Case(
        predict.accuracy,
        lambda r: {"logits": scores(r, N, C), "labels": labels(r)},
        lambda g, f: near(f, (f64(g["logits"]).argmax(1) == f64(g["labels"])).mean()),
    ),
    "predict.logits": Case(
        predict.logits,
        lambda r: (
            {"model": network(), "images": images(r)}
            | {"mean_std": (torch.zeros(1), torch.ones(1)), "batch": 5}
        ),
        lambda g, f: len(f) == len(g["images"]) and bool(f.isfinite().all()),
    ),
    "normalisation": Case(
        datasets.normalisation, lambda r: {"images": images(r)}, normal
    ),
    "Dataset": Case(
        dataset,
        lambda r: (
            {"images": images(r), "labels": labels(r)} | {"test": torch.zeros(N).bool()}
        ),
        lambda g, f: len(f) == 64,
    ),
    "data.load": Case(
        lambda name, size: tuple(datasets.load(name, size=size).images.shape[2:]),
        lambda r: {"name": "digits", "size": 8},
        lambda g, f: f == (g["size"], g["size"]),
        ("data set", "option", "options"),
    ),
    "splits": Case(
        cut,
        lambda r: {"train": 9, "val": 2, "test": 3, "holdout": 1} | seeded(r),
        apart,
    ),
    "subsets": Case(
        partition.subsets,
        lambda r: {"n": 7, "models": 4} | seeded(r),
        lambda g, f: (
            tuple(f.shape) == (g["models"], g["n"])
            and bool((f.sum(0) * 2 == g["models"]).all())
        ),
    ),
    "halves": Case(
        partial(partition.halves, datasets.load("digits")),
        lambda r: {"pool": 8, "models": 4, "test": 3, "val": 1} | seeded(r),
        lambda g, f: len(f["train"]) + len(f["out"]) == g["pool"],
        ("train", "n"),
    ),
    "glyphs.draw": Case(
        glyphs.draw,
        lambda r: {"classes": 2, "images": 3, "first_class": 0} | seeded(r),
        lambda g, f: len(f[0]) == g["images"] and within(f[1], 0, g["classes"] - 1),
    ),
    "relabel": Case(
        relabel.cells,
        lambda r: {
            "images": torch.from_numpy(
                r.integers(256, size=(240, 1, 28, 28), dtype=np.uint8)
            ),
            "labels": torch.arange(240) % 10,
            "test": torch.arange(240) < 20,
            "classes": 100,
        },
        lambda g, f: torch.equal(f // (g["classes"] // 10), g["labels"]),
    ),
    "build": Case(
        built,
        lambda r: (
            {"name": "cnn4", "channels": 1, "classes": C, "width": 2}
            | {"stem": "same", "size": 8}
            | seeded(r)
        ),
        lambda g, f: f == g["classes"],
        ("model",),
    ),
}


# The command line


def resolved(chapter, scale, name, value):
    return parameters.resolve(chapter, scale, {name: value})


def read_back(g, found) -> bool:
    known = parameters.of(g["chapter"])
    return all(alike(known[k].check(v), v) for k, v in found.items())


def whole_grid(g, found) -> bool:
    return len(found) > 0 and len({str(point) for point in found}) == len(found)


COMMANDS = {
    "resolve": Case(
        resolved,
        lambda r: (
            {"chapter": "ownership", "scale": "smoke"}
            | {"name": "rounds", "value": str(r.integers(1, 4))}
        ),
        read_back,
        ("rounds", "parameter", "type"),
        typed=True,
    ),
    "resolve list": Case(
        resolved,
        lambda r: (
            {"chapter": "membership", "scale": "laptop"}
            | {"name": "seeds", "value": "[0, 1]"}
        ),
        read_back,
        ("seeds", "parameter", "type"),
        typed=True,
    ),
    "grid": Case(
        lambda chapter, scale, given, more: grids.of_chapter(
            chapter, scale, [given, more]
        ),
        lambda r: (
            {"chapter": "ownership", "scale": "smoke"}
            | {"given": "rounds=2,3", "more": "seed=0:2"}
        ),
        whole_grid,
        ("-p", "rounds", "seed", "seeds", "parameter", "span", "grid"),
        typed=True,
    ),
    "cell": Case(
        parameters.parse_cell,
        lambda r: {"source": "a: int = 1  # one; in [0, 5]\n"},
        lambda g, f: all(alike(p.check(p.default), p.default) for p in f.values()),
        ("parameter", "a"),
        typed=True,
    ),
    "run": Case(
        lambda chapter, scale, given: cli.main(
            ["run", chapter, "--scale", scale, "-p", given, "--dry-run"]
        ),
        lambda r: {"chapter": "intro", "scale": "smoke", "given": "a=1"},
        lambda g, f: f == 2,
        typed=True,
    ),
}
