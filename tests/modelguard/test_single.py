"""Single predictions: what is seen of them, what is made of it, and the figure."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import torch
import trainings

from lottolab.modelguard import ModelGuardW, utility
from lottolab.modelguard import moving as figures
from lottolab.modelguard.experiments import attackers, services, single, thefts
from lottolab.pages import moving

pytestmark = pytest.mark.usefixtures("on_one_thread")
RECIPE = {"epochs": 2, "batch": 20, "lr": 0.1, "crop": 1, "flip": False}
NET = {"name": "cnn4", "width": 4, "stem": "stride2"}
SETTING = {
    "dataset": {"name": "digits", "size": 28},
    "sizes": {"train": 300, "val": 0, "test": 100, "holdout": 200},
    "network": NET,
    "recipe": RECIPE,
    "rewind_at": 0,
    "outliers": {"name": "glyphs", "classes": 12, "images": 400, "first_class": 50},
    "seed": 3,
}
PLAN = {"public": "holdout", "budget": 120}
PLAN |= {"substitute": {"network": NET, "recipe": RECIPE}, "means": {"draws": 3}}
RANKS = [0.0, 0.5, 1.0]
ORACLE = {"table": "oracle"}


@pytest.fixture(scope="module", autouse=True)
def fits(tmp_path_factory):
    with trainings.noted(tmp_path_factory.mktemp("store")) as found:
        yield found


def seen(attack=ORACLE, **defence):
    return single.seen(attack=attack, defence=defence, ranks=RANKS, **PLAN, **SETTING)


def test_what_is_kept_are_answers_to_the_surest_and_the_least_sure(fits):
    found = seen(name="ModelGuard-W", epsilon=0.5)
    clean, _ = services.trained(**SETTING)
    images, _ = attackers.gathered(PLAN["public"], PLAN["budget"], **SETTING)
    exact = clean(images)
    largest = exact.amax(1).sort().values
    wanted = largest[[0, 60, 119]]
    torch.testing.assert_close(found["exact"].amax(1), wanted)
    torch.testing.assert_close(found["answer"], ModelGuardW(0.5)(found["exact"]))
    table = found["measurements"].set_index(["metric", "rank"])["value"]
    far = (found["answer"] - found["exact"]).abs().sum(1)
    assert table["answer ℓ1"].tolist() == pytest.approx(far.tolist(), abs=1e-5)
    assert far.max() <= 0.5 + 1e-5


def test_what_is_recovered_is_what_a_substitute_would_be_trained_on():
    defence = {"name": "ModelGuard-S", "epsilon": 0.6}
    found = seen(**defence)
    theft, _ = thefts.begun(ORACLE, defence, **PLAN, **SETTING)
    answers = attackers.ask(theft, theft.images)
    guess = attackers.undo(theft, theft.images, answers)
    places = single.ranked(theft.clean(theft.images), RANKS)
    torch.testing.assert_close(found["recovered"], guess[places])
    torch.testing.assert_close(found["answer"], answers[places])


def test_who_undoes_nothing_believes_what_he_is_told():
    found = seen(attack={}, name="Rounding", decimals=1)
    assert torch.equal(found["recovered"], found["answer"])


@pytest.mark.parametrize("ranks", [[], [0.5, 0.5], [0.5, 0.1], [-0.1], [0.2, 1.1]])
def test_ranks_that_do_not_rise_are_refused(ranks):
    with pytest.raises(ValueError, match="ranks must be in"):
        single.ranked(torch.full((3, 2), 0.5), ranks)


def rows() -> pd.DataFrame:
    """Make what is measured over three targets, another number in each row."""
    made, value = [], 0.0
    served = [("none", "paper"), ("W", "half"), ("W", "paper")]
    for arm, level in served:
        for metric in ("mean ℓ1", "log-loss", "kept"):
            for seed in range(3):
                value += 0.01
                one = {"point": "served", "arm": arm, "level": level, "seed": seed}
                made.append(one | {"metric": metric, "value": value, "attack": None})
    for point, arm, level, attack in (
        ("many", "none", None, "naive"),
        ("sweep", "W", "half", "naive"),
        ("sweep", "W", "half", "partial Bayes"),
        ("sweep", "W", "paper", "naive"),
    ):
        for seed in range(1 if level == "paper" else 3):
            value += 0.01
            one = {"point": point, "arm": arm, "level": level, "seed": seed}
            made.append(one | {"metric": "accuracy", "value": value, "attack": attack})
    return pd.DataFrame(made)


@pytest.fixture
def told(monkeypatch):
    monkeypatch.setattr(moving, "display", lambda figure: figure.canvas.draw())
    rng = np.random.default_rng(0)
    exact = torch.from_numpy(rng.dirichlet(np.full(12, 0.3), 2))
    outcomes = [
        {"exact": exact} | {k: exact.roll(shift, 1) for k in ("answer", "recovered")}
        for shift in (1, 2)
    ]
    levels = {"half": 0.5, "paper": 1.0}
    page = figures.answers(rows(), {"W": outcomes}, levels, ["unsure", "sure"]).data
    found = json.loads(re.search(r"json\">(.*?)</script>", page, re.DOTALL)[1])
    return found, outcomes


@pytest.mark.usefixtures("rendered")
def test_the_figure_shows_the_likeliest_classes_and_the_sum_of_all_others(told):
    found, outcomes = told
    bars = found["panels"][0]
    exact = outcomes[0]["exact"]
    for row in range(2):
        order = np.argsort(-exact[row].numpy())
        labels = [f"class {k}" for k in order[:7]] + ["5 others"]
        assert bars["labels"]["values"][row] == labels
        for step, shift in ((1, 1), (2, 2)):
            values = np.roll(exact[row].numpy(), shift)
            wanted = [*values[order[:7]], values[order[7:]].sum()]
            for kind in ("answer", "recovered"):
                given = bars["series"][figures.KINDS[kind]]["values"][0][step][row]
                np.testing.assert_allclose(given, wanted, rtol=1e-3)
        given = bars["series"][figures.KINDS["answer"]]["values"][0][0][row]
        np.testing.assert_allclose(given[0], exact[row].max(), rtol=1e-3)


@pytest.mark.usefixtures("rendered")
def test_the_figure_holds_what_was_measured_at_each_budget(told):
    found, outcomes = told
    table, cells = rows(), found["readout"]["cells"]["values"][0]
    names = list(found["readout"]["rows"])
    wanted = table[(table["arm"] == "W") & (table["level"] == "half")]

    def mean(**marks):
        here = wanted
        for key, value in marks.items():
            here = here[here[key] == value]
        return here["value"].mean()

    half = {n: c[0] for n, c in zip(names, cells[1][1], strict=True)}
    far = utility.l1(outcomes[0]["answer"], outcomes[0]["exact"])[1].item()
    assert half[figures.DISTANCES["answer"]] == pytest.approx(far, rel=1e-4)
    log_loss = half[figures.HONEST["log-loss"][0]]
    assert log_loss[0] == pytest.approx(mean(metric="log-loss"), rel=1e-4)
    assert log_loss[1] < log_loss[0] < log_loss[2]
    bayes = half[figures.COPIES["partial Bayes"]]
    assert bayes[0] == pytest.approx(mean(attack="partial Bayes"), rel=1e-4)
    paper = dict(zip(names, cells[2][0], strict=True))
    naive, missing = (paper[figures.COPIES[a]] for a in ("naive", "partial Bayes"))
    assert isinstance(naive[0], float)  # one target has no interval
    assert missing[0] is None
    assert naive[1] == missing[1]  # nothing is to undo without a defence
