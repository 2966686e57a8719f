"""Randomised smoothing against lines, whose smoothed answer and radius are known."""

import doctest

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import nn

from lottolab.ensembles import laws
from lottolab.ensembles.bounds import smoothing
from lottolab.ensembles.bounds.smoothing import certify
from lottolab.ensembles.sampler import Sampler

pytestmark = pytest.mark.usefixtures("on_one_thread")
PIXELS, SIGMA = 16, 0.25


class Line(nn.Module):
    """Say class 1 where w·x + b > 0, for a w of length 1, else class 0."""

    def __init__(self, seed=0, classes=2):
        super().__init__()
        made = torch.Generator().manual_seed(seed)
        w = torch.randn(PIXELS, generator=made)
        self.register_buffer("w", w / w.norm())
        self.classes = classes

    def distance(self, x):
        return (x - 0.5).flatten(1) @ self.w

    def forward(self, x):
        far = self.distance(x)
        rest = [far.abs().neg() - 1] * (self.classes - 2)
        return torch.stack([-far, far, *rest], 1)


def images(line, distances):
    """Return grey images, so far on the side of class 1."""
    moved = torch.tensor(distances)[:, None] * line.w
    return (0.5 + moved).view(-1, 1, 4, 4).float()


def test_the_radius_is_the_distance_to_the_line_but_for_the_draws():
    line = Line(classes=3)
    distances = [0.05, 0.2, -0.2, 0.4, -0.45]
    x, y = images(line, distances), torch.tensor([1, 1, 0, 1, 1])
    table = certify(line, x, y, sigma=SIGMA, draws=20000, alpha=0.001, seed=0)
    far = np.abs(distances)
    assert table["label"].tolist() == [1, 1, 0, 1, 0]
    assert table["right"].tolist() == [True, True, True, True, False]
    assert (table["radius"] < far).all()
    assert (table["radius"] > 0.9 * far - 0.01).all()
    exact = stats.norm.cdf(far / SIGMA)  # the smoothed probability, in closed form
    for hits, p in zip(table["hits"], exact, strict=True):
        assert stats.binomtest(int(hits), 20000, p).pvalue > 1e-4
    found = smoothing.accuracy(table, [0.0, 0.1, 0.3, 9.0])
    assert found.tolist() == [0.8, 0.6, 0.2, 0.0]


@pytest.mark.parametrize("alpha", [0.001, 0.1])
def test_the_bound_is_the_exact_one(alpha):
    line = Line()
    x, y = images(line, [0.0, 0.1, 0.3, 0.85]), torch.ones(4, dtype=torch.int64)
    table = certify(line, x, y, sigma=SIGMA, draws=150, alpha=alpha, seed=1, batch=40)
    for row in table.itertuples():
        test = stats.binomtest(row.hits, 150, alternative="greater")
        lower = test.proportion_ci(1 - alpha, method="exact").low
        assert row.lower == pytest.approx(lower)
        sure = lower > 0.5
        assert row.radius == pytest.approx(SIGMA * stats.norm.ppf(lower) * sure)
        assert (row.label == -1) == (not sure)
    most = SIGMA * stats.norm.ppf(alpha ** (1 / 150))
    assert table["hits"].iloc[3] == 150
    assert table["radius"].iloc[3] == pytest.approx(most)


def test_too_large_a_radius_is_as_rare_as_alpha_says():
    """And would be every other, were the share taken in place of its bound."""
    line, alpha = Line(), 0.05
    x, y = images(line, [0.15] * 500), torch.ones(500, dtype=torch.int64)
    settings = {"sigma": SIGMA, "first": 20, "draws": 200}
    table = certify(line, x, y, **settings, alpha=alpha, seed=2)
    wrong = int((table["radius"] > 0.15).sum())
    assert stats.binomtest(wrong, 500, alpha, alternative="greater").pvalue > 1e-3
    assert wrong > 5  # the bound is no wider than it must be
    plain = SIGMA * stats.norm.ppf(table["hits"] / 200)
    assert (plain > 0.15).mean() > 0.4


def test_on_the_line_it_abstains_as_often_as_alpha_says():
    line = Line()
    x, y = images(line, [0.0] * 400), torch.ones(400, dtype=torch.int64)
    settings = {"sigma": SIGMA, "first": 20, "draws": 100}
    table = certify(line, x, y, **settings, alpha=0.05, seed=3)
    sure = int((table["label"] != -1).sum())
    assert stats.binomtest(sure, 400, 0.05, alternative="greater").pvalue > 1e-3
    out = table[table["label"] == -1]
    assert (out["radius"] == 0).all()
    assert not out["right"].any()


def test_a_team_that_is_drawn_anew_has_the_mean_of_its_networks():
    lines = [Line(seed) for seed in (0, 1)]
    model = Sampler({"a": lines}, law=laws.one, per="image", seed=0)
    x, y = images(lines[0], [0.3]), torch.tensor([1])
    table = certify(model, x, y, sigma=SIGMA, draws=5000, seed=0)
    shares = [stats.norm.cdf(float(m.distance(x)) / SIGMA) for m in lines]
    assert stats.binomtest(int(table["hits"].iloc[0]), 5000, np.mean(shares)).pvalue > (
        1e-3
    )
    model.per = "batch"
    with pytest.raises(ValueError, match="a sampler must draw for each image"):
        certify(model, x, y, sigma=SIGMA, seed=0)


def test_it_repeats_and_leaves_the_model_and_global_numbers_alone():
    model = nn.Sequential(nn.BatchNorm2d(1), Line()).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    x, y = images(model[1], [0.2, 0.1]), torch.tensor([1, 1])
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    given = {"sigma": SIGMA, "draws": 200}
    a, b, c = (certify(model, x, y, **given, seed=s) for s in (4, 4, 5))
    assert torch.equal(torch.rand(2), expected)
    pd.testing.assert_frame_equal(a, b)
    assert not a.equals(c)
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"sigma": 0}, "sigma must be > 0 and finite, got 0"),
        ({"sigma": float("inf")}, "sigma must be > 0 and finite, got inf"),
        ({"sigma": True}, "sigma must be > 0 and finite, got True"),
        ({"alpha": 0.5}, r"alpha must be in \(0, 0.5\), got 0.5"),
        ({"alpha": 0.0}, r"alpha must be in \(0, 0.5\), got 0.0"),
        ({"draws": 0}, "draws must be a whole number >= 1, got 0"),
        ({"first": 1.5}, "first must be a whole number >= 1, got 1.5"),
        ({"batch": 0}, "batch must be a whole number >= 1, got 0"),
        ({"seed": -1}, "seed must be an int in"),
        ({"x": torch.ones(2, 1, 4, 4) * 2}, r"x must be in \[0, 1\]"),
        ({"y": torch.tensor([1, 2])}, r"y must be in \[0, 1\], got \[2\]"),
        ({"model": lambda x: x.flatten(1)[:, :1]}, "logits must be float"),
    ],
)
def test_a_certificate_of_nothing_is_refused(setting, message):
    x, y = torch.full((2, 1, 4, 4), 0.5), torch.tensor([0, 1])
    given = {"model": Line(), "x": x, "y": y, "sigma": SIGMA, "seed": 0} | setting
    with pytest.raises(ValueError, match=message):
        certify(**given)
    with pytest.raises(ValueError, match="radii must be >= 0"):
        smoothing.accuracy(pd.DataFrame({"right": [True], "radius": [1.0]}), [-1.0])


def test_examples_in_docstrings_run():
    assert doctest.testmod(smoothing).failed == 0
