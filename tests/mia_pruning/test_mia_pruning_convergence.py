"""ADMM's residuals: on problems with a known solution, and of networks."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import lsq_linear, nnls
from torch import nn

from lottolab.mia_pruning.defences import admm, convergence
from lottolab.nets import train

pytestmark = pytest.mark.usefixtures("on_one_thread")


# --- exact steps


def squares(rows=12, columns=5, seed=0):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(rows, columns)), rng.normal(size=rows)

    def minimise(v, rho):
        return np.linalg.solve(a.T @ a + rho * np.eye(columns), a.T @ b + rho * v)

    return a, b, minimise


@pytest.mark.parametrize("rho", [0.3, 3.0, 30.0])
@pytest.mark.parametrize("seed", range(3))
def test_convex_problems_are_solved_as_scipy_solves_them(seed, rho):
    a, b, minimise = squares(seed=seed)
    given = {"start": np.ones(5), "rho": rho, "iterations": 2000}
    z, shown = convergence.solve(minimise, lambda v: np.maximum(v, 0), **given)
    np.testing.assert_allclose(z, nnls(a, b)[0], atol=1e-5)
    boxed, _ = convergence.solve(minimise, lambda v: np.clip(v, -0.1, 0.1), **given)
    box = lsq_linear(a, b, (-0.1, 0.1), tol=1e-12).x
    np.testing.assert_allclose(boxed, box, atol=1e-5)
    assert shown[["primal", "dual"]].iloc[-1].max() < 1e-5
    assert shown[["primal", "dual"]].iloc[0].max() > 1e-2


def test_residuals_tell_a_solution_from_what_is_not_one_yet():
    """The distance to the solution falls with them: small only where it is reached."""
    a, b, minimise = squares()
    best, off, found = nnls(a, b)[0], [], []
    for iterations in (1, 3, 10, 30, 100):
        given = {"start": np.ones(5), "rho": 3.0, "iterations": iterations}
        z, shown = convergence.solve(minimise, lambda v: np.maximum(v, 0), **given)
        off.append(np.linalg.norm(z - best))
        found.append(shown[["primal", "dual"]].iloc[-1].max())
    assert off == sorted(off, reverse=True)
    assert found == sorted(found, reverse=True)


def test_where_coordinates_do_not_meet_the_best_support_is_found():
    """Of an isotropic quadratic that is the largest entries, by trying all."""
    target = np.array([0.4, -3.0, 1.0, 2.0, -0.2])
    z, shown = convergence.solve(
        lambda v, rho: (target + rho * v) / (1 + rho),
        lambda v: np.where(np.abs(v) >= np.sort(np.abs(v))[-2], v, 0),
        np.zeros(5),
        rho=1.0,
        iterations=200,
    )
    supports = itertools.combinations(range(5), 2)
    best = min(supports, key=lambda s: np.delete(target, s) @ np.delete(target, s))
    assert np.flatnonzero(z).tolist() == list(best)
    np.testing.assert_allclose(z[list(best)], target[list(best)], atol=1e-6)
    assert shown["dual"].iloc[-1] < 1e-6


# --- of a network


def blobs(n=120, seed=0):
    """Return images of 3×3 pixels in three classes, each with its own bright rows."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(3, (n,), generator=generator)
    x = torch.randint(100, (n, 1, 3, 3), generator=generator)
    x[torch.arange(n), 0, y] += 100
    return x.to(torch.uint8), y


def linear():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(9, 3))


BARE = {"momentum": 0.0, "weight_decay": 0.0, "crop": 0, "flip": False}
BARE |= {"schedule": "constant", "batch": 30, "lr": 0.1}


def pruned(epochs=12, rho=None, **options):
    recipe = train.Recipe(epochs=epochs, **BARE | {"batch": 6})
    rho = convergence.rhos(recipe, 120, most=30) if rho is None else rho
    retrain = train.Recipe(epochs=1, **BARE | {"batch": 6})
    given = {"rho": rho, "retrain": retrain, "seed": 0, "precision": "float32"}
    model = linear()
    train.fit(model, *blobs(), recipe, seed=1)
    start = {n: p.detach().clone() for n, p in model.named_parameters()}
    counts = {"1.weight": 9}
    run = convergence.admm_run(model, *blobs(), recipe, counts, **given | options)
    return run, start


def test_a_growing_penalty_converges_and_the_residuals_are_the_historys():
    run, start = pruned()
    part = run.history[run.history["phase"] == "admm"]
    norm = float(start["1.weight"].norm())
    shown = run.residuals
    assert len(shown) == 12
    np.testing.assert_allclose(shown["primal"], part["primal"])
    np.testing.assert_allclose(shown["dual"], part["rho"] * part["moved"])
    np.testing.assert_allclose(shown["primal_relative"], part["primal"] / norm)
    np.testing.assert_allclose(shown["dual_relative"], part["moved"] / norm)
    assert run.settled is not None
    assert run.settled > 1
    assert shown["primal_relative"].iloc[-1] < 0.01 < shown["primal_relative"].iloc[0]
    assert {n: int(m.sum()) for n, m in run.masks.items()} == {"1.weight": 9}
    by_size = admm.support(start, {"1.weight": 9})
    assert run.overlap == convergence.overlap(run.masks, by_size)


@pytest.mark.parametrize("rho", [0.0, 0.05])
def test_a_penalty_that_does_not_pull_does_not_converge(rho):
    """The page's runs went from a third of what W needs in an epoch, to three."""
    run, _ = pruned(rho=rho)
    assert run.settled is None
    assert run.residuals["primal_relative"].iloc[-1] > 0.05


@pytest.mark.parametrize(
    ("primal", "moved", "expected"),
    [
        ([0.5, 0.005, 0.005], [0.5, 0.005, 0.0], 2),
        ([0.5, 0.005, 0.5, 0.005], [0, 0, 0, 0], 4),
        ([0.0, 0.0], [0.0, 0.0], 1),
        ([0.005, 0.005], [0.005, 0.5], None),
        ([0.5, math.nan], [0, 0], None),
    ],
)
def test_it_has_settled_from_where_both_residuals_stay_small(primal, moved, expected):
    epochs = range(1, len(primal) + 1)
    history = {"phase": "admm", "epoch": epochs, "rho": 1.0}
    history = pd.DataFrame(history | {"primal": primal, "moved": moved})
    assert convergence.settled(convergence.residuals(history, 1.0)) == expected


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_sgd_diverges_just_where_it_is_refused(momentum):
    """A pull alone is a quadratic, on which the steps are a linear recursion."""
    recipe = train.Recipe(**BARE | {"momentum": momentum})
    unit = 0.1 * 4 / (1 - momentum)
    limit = 2 * (1 + momentum) / 0.1
    for factor, stable in ((0.98, True), (1.02, False)):
        w, v = 1.0, 0.0
        for _ in range(3000):
            v = momentum * v + factor * limit * w
            w = w - 0.1 * v
            if abs(w) > 1e9:
                break
        assert (abs(w) < 1e-3) == stable
        most = factor * limit * unit
        if stable:
            first, last = convergence.rhos(recipe, 120, most=most)
            assert last == pytest.approx(factor * limit)
            assert first * 0.1 * 4 / (1 - momentum) == pytest.approx(3)
        else:
            with pytest.raises(ValueError, match="or SGD diverges, got"):
                convergence.rhos(recipe, 120, most=most)


def test_an_overlap_is_the_share_of_what_is_kept():
    one = {"a": torch.tensor([True, True, False]), "b": torch.tensor([True, True])}
    two = {"a": torch.tensor([True, False, True]), "b": torch.tensor([False, True])}
    assert convergence.overlap(one, two) == 0.5
    assert convergence.overlap(one, one) == 1
    none = {name: ~mask.new_ones(mask.shape) for name, mask in one.items()}
    with pytest.raises(ValueError, match="masks must keep at least one weight, got 0"):
        convergence.overlap(none, one)
    with pytest.raises(ValueError, match=r"the same layers, got \['b'\] in one"):
        convergence.overlap(one, {"a": two["a"]})


ADAM = train.Recipe(**BARE | {"optimiser": "adam"})
FALLING = train.Recipe(**BARE | {"schedule": "cosine"})
EMPTY = pd.DataFrame({"phase": [], "epoch": [], "rho": [], "primal": [], "moved": []})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: convergence.rhos(ADAM, 120), "optimiser must be one of sgd"),
        (lambda: convergence.rhos(FALLING, 120), "schedule must be one of constant"),
        (lambda: convergence.rhos(train.Recipe(**BARE), 20), "images must be a whole"),
        (
            lambda: convergence.rhos(train.Recipe(**BARE), 120, least=9, most=3),
            "most must be at least 9, got 3",
        ),
        (lambda: convergence.residuals(EMPTY, 1.0), "must have an epoch of ADMM"),
        (lambda: convergence.residuals(EMPTY, 0.0), "scale must be > 0 and finite"),
        (
            lambda: convergence.admm_run(linear(), *blobs(), ADAM, {}, tolerance=1.0),
            r"tolerance must be in \(0, 1\), got 1.0",
        ),
        (
            lambda: convergence.solve(None, None, [0.0], rho=0.0, iterations=1),
            "rho must be > 0 and finite, got 0.0",
        ),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
