"""The public functions that `test_fuzz` tries, with what is right about their answers.

What is right is computed anew, by the definition and in numpy where that is short, or
is a property that every answer has.
"""

import math
from functools import cache, partial

import numpy as np
import torch
from fuzzing import Case
from scipy.special import log_softmax, logsumexp, softmax
from scipy.stats import norm
from torch import nn

from lottolab.ensembles import arc, laws, masking, sampler, transfer_matrix
from lottolab.ensembles import library as packing
from lottolab.ensembles.attacks import gradient
from lottolab.membership import metrics, signals
from lottolab.membership.attacks import lira, nasr, rmia, supervised
from lottolab.membership.attacks import thresholds as cuts
from lottolab.modelguard import (
    ModelGuardS,
    ModelGuardW,
    NoDefence,
    ReverseSigmoid,
    Rounding,
    TopOne,
    UnorderedQuantiser,
    lemmas,
    queries,
    utility,
)
from lottolab.modelguard.attacks import averaging, bayes, measures
from lottolab.modelguard.defences import mad, noise

N, C, MODELS = 12, 4, 6


def f64(x) -> np.ndarray:
    """Read what was accepted, in double precision."""
    x = x.detach().double().numpy() if isinstance(x, torch.Tensor) else x
    return np.asarray(x, dtype=float)


def near(found, wanted, size: float = 1e-4) -> bool:
    return np.allclose(f64(found), wanted, rtol=size, atol=size)


def within(found, low: float, high: float) -> bool:
    x = f64(found)
    return bool(((x >= low - 1e-6) & (x <= high + 1e-6)).all())


# What arguments are drawn from


def scores(r, *shape: int):
    return torch.from_numpy(r.normal(size=shape or (N,)).astype(np.float32))


def member(r):
    return torch.from_numpy(r.permutation(N) % 2 == 0)


def labels(r):
    return torch.from_numpy(r.integers(C, size=N))


def rows(r, count: int = N):
    return torch.from_numpy(r.dirichlet(np.ones(C), count)).float()


def images(r):
    return torch.from_numpy(r.integers(256, size=(N, 1, 4, 4), dtype=np.uint8))


@cache
def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(16, C)).eval()


def sides(r):
    return torch.from_numpy(np.argsort(r.random((MODELS, N)), 0) % 2 == 0)


def seeded(r) -> dict:
    return {"seed": int(r.integers(1000))}


# Membership


def marked(r) -> dict:
    return {"scores": scores(r), "is_member": member(r)}


def pairs(g) -> float:
    """Count the pairs that a score has in order, ties half."""
    s, m = f64(g["scores"]), f64(g["is_member"]) == 1
    apart = s[m][:, None] - s[~m][None]
    return float(((apart > 0) + (apart == 0) / 2).mean())


def guessed(g) -> float:
    above = f64(g["scores"]) > g.get("threshold", 0.5)
    return float((above == (f64(g["is_member"]) == 1)).mean())


def balanced(s, m, threshold) -> float:
    return ((s[m] > threshold).mean() + (s[~m] <= threshold).mean()) / 2


def best_cut(s, m, found) -> bool:
    s, m = f64(s), f64(m) == 1
    return near(balanced(s, m, found), max(balanced(s, m, t) for t in s))


def class_cuts(g, found) -> bool:
    s, m, y = f64(g["scores"]), f64(g["is_member"]) == 1, f64(g["labels"])
    right = []
    for label, cut in enumerate(f64(found)):
        own = y == label
        both = m[own].any() and not m[own].all()
        right.append(best_cut(*((s[own], m[own]) if both else (s, m)), cut))
    return all(right) and len(right) == g["classes"]


def signal(name, g, found) -> bool:
    z, y = f64(g["logits"]), f64(g["labels"]).astype(int)
    n, lp = np.arange(len(z)), log_softmax(f64(g["logits"]), 1)
    others = z.copy()
    others[n, y] = -np.inf
    p, odds = softmax(z, 1), z[n, y] - logsumexp(others, 1)
    if name == "modified entropy":
        return bool(np.isfinite(f64(found)).all() and (f64(found) <= 1e-9).all())
    wanted = {
        "correctness": p.argmax(1) == y,
        "loss": lp[n, y],
        "confidence": p[n, y],
        "entropy": (p * lp).sum(1),
        "scaled confidence": odds,
    }
    return near(found, wanted[name])


def shadowed(r) -> dict:
    given = {"target": scores(r), "references": scores(r, MODELS, N)}
    return given | {"member": sides(r)}


def normal(g, inside: bool):
    """Fit references of a side as the paper does, by masked arrays."""
    held = f64(g["member"]) == 1
    x = np.ma.masked_array(f64(g["references"]), held != inside)
    residual = ((x - x.mean(0)) ** 2).sum()
    spread = residual / (x.count() - x.shape[1])
    if g.get("variance") == "example":
        spread = np.asarray(x.var(0, ddof=1))
    return norm(np.asarray(x.mean(0)), np.sqrt(spread))


def likelier(g, found) -> bool:
    t = f64(g["target"])
    return near(found, normal(g, True).logpdf(t) - normal(g, False).logpdf(t), 1e-3)


def left_out(g, found) -> bool:
    s, m = f64(g["signals"]), f64(g["member"]) == 1
    first = {"references": s[1:], "member": m[1:]}
    return near(found[0], -normal(first, False).logsf(s[0]), 1e-3)


def relative(r) -> dict:
    p = lambda *shape: torch.from_numpy(r.random(shape)).float()  # noqa: E731
    given = {"target": p(N), "references": p(MODELS, N), "member": sides(r)}
    given |= {"population_target": p(9), "population_references": p(MODELS, 9)}
    return given | {"gamma": float(r.uniform(1, 3))}


def shares(g, found) -> bool:
    """Count the population by the definition, where the answer is no tie."""
    held, x = f64(g["member"]) == 1, f64(g["references"])
    tiny = np.finfo(float).tiny
    mean = [np.ma.masked_array(x, ~side).mean(0).data for side in (held, ~held)]
    usual, usual_z = sum(mean) / 2, f64(g["population_references"]).mean(0)
    if "a" in g:
        guess = lambda p: ((1 + g["a"]) * p + 1 - g["a"]) / 2  # noqa: E731
        usual, usual_z = guess(mean[1]), guess(usual_z)
    ratio = np.maximum(f64(g["target"]), tiny) / np.maximum(usual, tiny)
    z = np.maximum(f64(g["population_target"]), tiny) / np.maximum(usual_z, tiny)
    below = z[None] * g["gamma"] <= ratio[:, None] * (1 + 1e-9)
    least = z[None] * g["gamma"] <= ratio[:, None] * (1 - 1e-9)
    return within(f64(found) - least.mean(1), 0, 1) and within(
        below.mean(1) - f64(found), 0, 1
    )


def classified(r) -> dict:
    return {"logits": 3 * scores(r, N, C), "is_member": member(r)}


def reported(g, found) -> bool:
    ends = [i for i in found.values() if i is not None and not math.isnan(i.low)]
    right = all(i.low <= i.estimate <= i.high for i in ends)
    return right and near(found["accuracy"].estimate, guessed(g))


def outputs(r) -> list:
    return [(3 * scores(r, N, C), labels(r), member(r)) for _ in range(2)]


def trained(g, found) -> bool:
    return within(found, 0, 1) and len(found) == N


MEMBERSHIP = {
    "report": Case(
        metrics.report,
        lambda r: marked(r) | {"threshold": float(r.normal())} | seeded(r),
        reported,
    ),
    "rates": Case(
        metrics.rates,
        lambda r: marked(r) | {"threshold": float(r.normal())},
        lambda g, f: near([f["auc"], f["accuracy"]], [pairs(g), guessed(g)]),
    ),
    "accuracy": Case(
        metrics.accuracy,
        lambda r: marked(r) | {"threshold": float(r.normal())},
        lambda g, f: near(f, guessed(g)),
    ),
    "auc": Case(metrics.auc, marked, lambda g, f: near(f, pairs(g))),
    "tpr_at": Case(
        metrics.tpr_at,
        lambda r: {
            "scores": scores(r, 60),
            "is_member": torch.arange(60) % 2 == 0,
            "fpr": float(r.uniform(0.4, 0.9)),
        },
        lambda g, f: within(f, 0, 1),
        ("FPR",),
    ),
    "best": Case(
        cuts.best, marked, lambda g, f: best_cut(g["scores"], g["is_member"], f)
    ),
    "at_rate": Case(
        cuts.at_rate,
        lambda r: {"negatives": scores(r), "rate": float(r.random())},
        lambda g, f: (f64(g["negatives"]) > f).mean() <= f64(g["rate"]) + 1e-12,
    ),
    "by_class": Case(
        cuts.by_class,
        lambda r: marked(r) | {"labels": labels(r), "classes": C},
        class_cuts,
    ),
    "robustness": Case(
        signals.robustness,
        lambda r: {"votes": sides(r)},
        lambda g, f: near(f, f64(g["votes"]).mean(0)),
    ),
    "lira.online": Case(lira.online, shadowed, likelier),
    "lira.online, example": Case(
        lira.online, lambda r: shadowed(r) | {"variance": "example"}, likelier
    ),
    "lira.offline_tail": Case(
        lira.offline_tail,
        shadowed,
        lambda g, f: near(f, -normal(g, False).logsf(f64(g["target"])), 1e-3),
    ),
    "lira.offline_density": Case(
        lira.offline_density,
        shadowed,
        lambda g, f: near(f, -normal(g, False).logpdf(f64(g["target"])), 1e-3),
    ),
    "leave_one_out": Case(
        partial(lira.leave_one_out, attack=lira.offline_tail),
        lambda r: {"signals": scores(r, MODELS, N), "member": sides(r)},
        left_out,
        ("target", "references"),
    ),
    "rmia.online": Case(rmia.online, relative, shares, ("probabilities",)),
    "rmia.offline": Case(
        rmia.offline, lambda r: relative(r) | {"a": 0.3}, shares, ("probabilities",)
    ),
    "supervised": Case(
        lambda logits, is_member, classifier, seed: supervised.fit(
            logits, is_member, classifier=classifier, seed=seed
        )(logits),
        lambda r: classified(r) | {"classifier": "svm"} | seeded(r),
        lambda g, f: within(f, 0, 1) and len(f) == len(g["logits"]),
        ("members", "examples"),
    ),
    "shadow": Case(
        lambda outputs, top, per_class: supervised.shadow(
            outputs, top=top, per_class=per_class, classifier="svm"
        )(*outputs[0][:2]),
        lambda r: {"outputs": outputs(r), "top": 2, "per_class": True},
        trained,
        ("logits", "labels", "is_member"),
    ),
    "nasr": Case(
        lambda logits, labels, is_member, **options: nasr.fit(
            logits, labels, is_member, **options
        )(logits, labels),
        lambda r: (
            classified(r)
            | {"labels": labels(r), "epochs": 1, "batch": 8, "lr": 0.01, "width": 0.1}
            | {"features": "logits"}
            | seeded(r)
        ),
        lambda g, f: within(f, 0, 1) and len(f) == len(g["logits"]),
    ),
} | {
    name: Case(
        f,
        lambda r: {"logits": 3 * scores(r, N, C), "labels": labels(r)},
        partial(signal, name),
    )
    for name, f in signals.SIGNALS.items()
}


# Ensembles


def attacked(r) -> dict:
    given = {"model": network(), "x": images(r)[:3].float() / 255}
    return given | {"y": labels(r)[:3], "epsilon": 0.1, "step": 0.05}


def inside(g, found) -> bool:
    far = (found - g["x"].clamp(0, 1)).abs().max() <= f64(g["epsilon"]) + 1e-5
    return bool(far) and within(found, 0, 1) and found.shape == g["x"].shape


def drawn(g, found) -> bool:
    counts = g["counts"]
    return len(found) > 0 and all(0 <= j < counts[i] for i, j in found)


def law(f, **more) -> Case:
    good = {"counts": [3, 2, 2]} | more
    call = lambda seed, counts, **options: f(  # noqa: E731
        counts, torch.Generator().manual_seed(seed), **options
    )
    return Case(call, lambda r: seeded(r) | good, drawn, fixed=("seed",))


def networks() -> dict:
    return {"a": [network(), network()], "b": [network(), network()]}


def sampled(seed, per, over, x):
    made = sampler.Sampler(networks(), per=per, over=over, seed=seed)
    with torch.no_grad():
        return made(x)


ENSEMBLES = {
    "pgd": Case(
        gradient.pgd,
        lambda r: (
            attacked(r)
            | {"steps": 2, "restarts": 2, "eot": 1, "loss": "ce", "over": "losses"}
            | {"batch": 2, "stop": False}
            | seeded(r)
        ),
        inside,
    ),
    "universal": Case(
        gradient.universal,
        lambda r: attacked(r) | {"epochs": 1} | seeded(r),
        lambda g, f: within(f, -f64(g["epsilon"]), f64(g["epsilon"])),
    ),
    "arc": Case(
        lambda model, **given: arc([model], **given),
        lambda r: attacked(r) | {"steps": 1, "targets": 1, "inner": "rescale"},
        inside,
    ),
    "findings": Case(
        masking.findings,
        lambda r: attacked(r) | {"steps": 1, "corners": 2, "slack": 0.02} | seeded(r),
        lambda g, f: within(f["value"], -1, 1),
    ),
    "surface": Case(
        lambda step, **given: masking.surface(**given),
        lambda r: attacked(r) | {"points": 2} | seeded(r),
        lambda g, f: np.isfinite(f["margin"]).all() and len(f) == g["points"] ** 2,
    ),
    "transfer_matrix": Case(
        lambda model, **given: transfer_matrix({"m": model}, **given),
        lambda r: attacked(r) | {"steps": 1} | seeded(r),
        lambda g, f: within(f, 0, 1),
    ),
    "theta": law(laws.theta, sizes={1: 0.65, 2: 0.35}, replace=False),
    "one": law(laws.one),
    "matched": law(laws.matched, sizes={1: 0.65, 2: 0.35}, structures=4),
    "sampler": Case(
        sampled,
        lambda r: (
            seeded(r)
            | {"per": "image", "over": "probabilities", "x": images(r).float() / 255}
        ),
        lambda g, f: near(f.exp().sum(1), 1, 1e-3),
        fixed=("x",),
    ),
    "pack": Case(
        lambda mask: packing.unpack(packing.pack(mask), mask.shape),
        lambda r: {"mask": sides(r)},
        lambda g, f: torch.equal(f, g["mask"].bool()),
    ),
}


# ModelGuard


def simplex(g, found) -> bool:
    y = f64(g["probs"])
    right = np.shape(found) == y.shape and near(f64(found).sum(1), 1, 1e-3)
    return right and within(found, 0, 1) and str(found.dtype) == str(g["probs"].dtype)


def close(g, found) -> bool:
    y, e = f64(g["probs"]), f64(g["epsilon"])
    kept = (f64(found).argmax(1) == y.argmax(1)).all()
    return simplex(g, found) and bool(
        kept and (np.abs(f64(found) - y).sum(1) <= e + 1e-4).all()
    )


def rounded(g, found) -> bool:
    return near(found, np.round(f64(g["probs"]), g["decimals"]), 1e-5)


def defence(make, right, **settings) -> Case:
    return Case(
        lambda probs, **given: make(**given)(probs),
        lambda r: {"probs": rows(r)} | settings,
        right,
    )


def answered(r) -> dict:
    return {"answers": rows(r), "labels": labels(r)}


def own(g) -> np.ndarray:
    answers = f64(g["answers"])
    return answers[np.arange(len(answers)), f64(g["labels"]).astype(int)]


def top(g, found) -> bool:
    larger = (f64(g["answers"]) > own(g)[:, None]).sum(1)
    equal = (f64(g["answers"]) == own(g)[:, None]).sum(1)
    return near(found, np.clip((g["k"] - larger) / equal, 0, 1).mean())


def both(r) -> dict:
    return {"recovered": rows(r), "clean": rows(r)}


def tabled(means, draws, concentration, answers, tolerance, seed):
    options = {"draws": draws, "concentration": concentration, "seed": seed}
    table = bayes.lookup_table(means, NoDefence(), **options)
    return bayes.recover_partial_bayes(answers, table, tolerance=tolerance)


def moved(images, crop, flip, copies, seed):
    ask = lambda x: x.flatten(1).float()  # noqa: E731
    settings = {"copies": copies, "crop": crop, "flip": flip, "seed": seed}
    return averaging.smoothed(ask, images, **settings)


MODELGUARD = {
    "ModelGuardW": defence(ModelGuardW, close, epsilon=0.5),
    "ModelGuardS": defence(ModelGuardS, close, epsilon=0.5, num_classes=C),
    "UnorderedQuantiser": defence(
        UnorderedQuantiser, close, epsilon=0.5, num_classes=C
    ),
    "Noise": defence(partial(noise.Noise, fixed=False), simplex, epsilon=0.5, seed=1),
    "Rounding": defence(Rounding, rounded, decimals=1),
    "ReverseSigmoid": defence(ReverseSigmoid, simplex, beta=0.5, gamma=0.2),
    "NoDefence": defence(NoDefence, lambda g, f: near(f, f64(g["probs"]))),
    "TopOne": defence(TopOne, simplex),
    "denoised": Case(
        noise.denoised,
        lambda r: {"answers": rows(r), "epsilon": 0.5},
        lambda g, f: near(f64(f).sum(1), 1, 1e-3) and within(f, 0, 1),
    ),
    "deviate": Case(
        mad.deviate,
        lambda r: {"probs": rows(r), "surrogate": rows(r), "epsilon": 0.5},
        close,
    ),
    "top_k": Case(utility.top_k, lambda r: answered(r) | {"k": 2}, top),
    "calibration_error": Case(
        utility.calibration_error,
        lambda r: answered(r) | {"bins": 15},
        lambda g, f: f >= 0 and (within(f, 0, 1) or f64(g["answers"]).max() > 1),
    ),
    "log_loss": Case(
        utility.log_loss,
        lambda r: answered(r) | {"floor": 1e-6},
        lambda g, f: near(f, -np.log(np.maximum(own(g), g["floor"])).mean()),
    ),
    "auroc": Case(
        utility.auroc,
        lambda r: {"answers": rows(r), "foreign": rows(r)},
        lambda g, f: within(f, 0, 1),
    ),
    "l1": Case(
        utility.l1,
        lambda r: {"answers": rows(r), "clean": rows(r)},
        lambda g, f: near(f, np.abs(f64(g["answers"]) - f64(g["clean"])).sum(1)),
    ),
    "utility.report": Case(
        utility.report,
        lambda r: answered(r) | {"clean": rows(r), "foreign": rows(r)},
        lambda g, f: np.isfinite(list(f.values())).all(),
        ("logits",),
    ),
    "fidelity": Case(
        measures.fidelity,
        lambda r: {"substitute": scores(r, N, C), "target": scores(r, N, C)},
        lambda g, f: near(
            f, (f64(g["substitute"]).argmax(1) == f64(g["target"]).argmax(1)).mean()
        ),
        ("both",),
    ),
    "recovery_distance": Case(
        measures.recovery_distance,
        lambda r: both(r) | {"p": 1},
        lambda g, f: near(
            f,
            np.linalg.norm(f64(g["recovered"]) - f64(g["clean"]), g["p"], 1).mean(),
        ),
        ("both", "answers"),
    ),
    "softmax_smoothness": Case(
        lemmas.softmax_smoothness,
        lambda r: {"features": scores(r, N, C)},
        lambda g, f: near(
            f,
            np.linalg.eigvalsh(f64(g["features"]).T @ f64(g["features"])).max()
            / len(g["features"])
            / 2,
        ),
    ),
    "recovery_bound": Case(
        lemmas.recovery_bound,
        lambda r: {"entropy": float(r.normal()), "dimension": 3},
        lambda g, f: math.isfinite(f) and f >= 0,
    ),
    "simplex_entropy": Case(
        lemmas.simplex_entropy,
        lambda r: {"classes": int(r.integers(2, 9))},
        lambda g, f: math.isfinite(f),
    ),
    "discrete_entropy": Case(
        lemmas.discrete_entropy,
        lambda r: {"values": labels(r).float()},
        lambda g, f: within(f, 0, math.log(max(1, f64(g["values"]).size))),
    ),
    "relaxed_optimum": Case(
        lambda probs: lemmas.relaxed_optimum(probs)[0],
        lambda r: {"probs": rows(r)},
        lambda g, f: near(f64(f).sum(1), 1),
    ),
    "bayes": Case(
        tabled,
        lambda r: (
            {"means": rows(r, 3), "draws": 5, "concentration": 8.0}
            | {"answers": rows(r), "tolerance": 0.01}
            | seeded(r)
        ),
        lambda g, f: near(f64(f).sum(1), 1, 1e-3) and within(f, 0, 1),
        ("probs", "table"),
    ),
    "smoothed": Case(
        moved,
        lambda r: (
            {"images": images(r), "crop": 1, "flip": True, "copies": 2} | seeded(r)
        ),
        lambda g, f: within(f, 0, 255) and len(f) == len(g["images"]),
    ),
    "dithered": Case(
        partial(averaging.dithered, lambda x: x.flatten(1).float()),
        lambda r: {"images": images(r), "copies": 2, "noise": 0.02} | seeded(r),
        lambda g, f: within(f, 0, 255) and len(f) == len(g["images"]),
    ),
    "knockoff": Case(
        queries.knockoff,
        lambda r: {"pool": 9, "budget": 4} | seeded(r),
        lambda g, f: (
            len(set(f.tolist())) == g["budget"] and within(f, 0, g["pool"] - 1)
        ),
    ),
}
