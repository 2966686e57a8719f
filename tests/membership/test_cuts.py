"""One threshold for all: rates by hand, thresholds by their rates, a whole stage."""

import json
import re

import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.metrics import precision_score, recall_score, roc_auc_score

from lottolab.membership import signals
from lottolab.membership.experiments import cuts, targets
from lottolab.membership.figures import moving as figures
from lottolab.pages import moving

SETTING = {
    "dataset": "digits",
    "sizes": {"pool": 200, "models": 6, "test": 60},
    "network": {"name": "cnn4", "width": 4},
    "recipe": {"epochs": 2, "batch": 20, "lr": 0.05, "crop": 0, "flip": False},
    "rewind_at": 0,
}
ARMS = {"dense": {"name": "dense"}, "ticket": {"name": "ticket", "rates": [0.5]}}
pytestmark = pytest.mark.usefixtures("own_store")
CASE = {"treatments": ARMS, "group": 0, "cuts": 12, "bins": 8}


@pytest.fixture(scope="module")
def swept():
    kinds = ("scaled confidence", "lira, online")
    return {score: cuts.swept(score=score, **CASE, **SETTING) for score in kinds}


def drawn(models=8, images=400, seed=0):
    """Draw scores of complementary halves; members lie one higher."""
    rng = np.random.default_rng(seed)
    half = rng.permuted(np.arange(images) < images // 2, axis=0)
    rows = [rng.permutation(half) for _ in range(models // 2)]
    member = np.array([row for own in rows for row in (own, ~own)])
    return rng.normal(size=member.shape) + member, member


def test_rates_are_those_of_all_answers_together():
    scores, member = drawn()
    guesses = scores > 0.7
    (tpr, fpr, accuracy, precision) = cuts.rated(guesses, member)[:, 0]
    truth, said = member.ravel(), guesses.ravel()
    assert tpr == pytest.approx(recall_score(truth, said))
    assert fpr == pytest.approx(recall_score(~truth, said))
    assert accuracy == pytest.approx((truth == said).mean())
    assert precision == pytest.approx(precision_score(truth, said))


def test_intervals_hold_the_truth_as_often_as_they_say():
    truth = norm.sf([0.7 - 1, 0.7])
    wanted = [*truth, (truth[0] + 1 - truth[1]) / 2, truth[0] / truth.sum()]
    held = np.zeros(4)
    for seed in range(200):
        scores, member = drawn(seed=seed)
        found = cuts.rated(scores > 0.7, member)
        held += (found[:, 1] <= wanted) & (wanted <= found[:, 2])
    assert np.all(held / 200 > 0.9), held


def test_thresholds_rise_and_leave_ten_false_alarms_in_each():
    first, second = drawn(seed=1), drawn(seed=2)
    second = second[0] - 1.5, second[1]  # accuses fewer
    limits = cuts.thresholds([first, second], 30)
    assert len(limits) > 10
    assert np.all(np.diff(limits) > 0)
    alarms = [(s > limits[-1])[~m].sum() for s, m in (first, second)]
    assert min(alarms) >= 10
    pooled = np.concatenate([s[~m] for s, m in (first, second)])
    rates = np.array([(pooled > limit).mean() for limit in limits])
    np.testing.assert_allclose(rates[1:] / rates[:-1], rates[1] / rates[0], rtol=0.1)


def test_too_few_answers_leave_no_threshold():
    assert len(cuts.thresholds([drawn(2, 6)], 5)) == 0


def test_the_stage_counts_what_its_networks_answer(swept):
    found = swept["scaled confidence"]
    seen = [
        targets.answers(treatment=ARMS["ticket"], seed=s, **SETTING) for s in range(6)
    ]
    scores = torch.stack(
        [signals.scaled_confidence(s["pool"], s["labels"]) for s in seen]
    )
    member = torch.stack([s["member"] for s in seen])
    step = len(found["cuts"]) // 2
    said = scores > found["cuts"][step]
    rates = found["rates"][1, step, :, 0].tolist()
    assert rates[0] == pytest.approx(float(said[member].double().mean()))
    assert rates[1] == pytest.approx(float(said[~member].double().mean()))
    below = scores < found["edges"][1]  # what lies beyond joins the first bin
    share = float((below & member).sum() / member.sum())
    assert float(found["members"][1][0]) == pytest.approx(share, abs=0.002)
    assert found["others"].sum(1).tolist() == pytest.approx([1, 1])
    table = found["measurements"].set_index("treatment")["value"]
    each = [roc_auc_score(m, s) for m, s in zip(member, scores, strict=True)]
    assert table["ticket"] == pytest.approx(np.mean(each))


def test_intervals_hold_their_rate_and_are_within_bounds(swept):
    for found in swept.values():
        middle, low, high = found["rates"].unbind(-1)
        assert ((low <= middle) & (middle <= high)).all()
        assert 0 <= low.min() <= high.max() <= 1
        fpr = middle[:, :, 1]
        assert (fpr.diff(dim=1) <= 0).all()
        assert (fpr * 600 > 9.99).all()  # 6 models, 100 others each


def test_an_unknown_score_is_refused():
    with pytest.raises(ValueError, match="did you mean scaled confidence"):
        cuts.swept(score="scaled confidences", **CASE, **SETTING)


@pytest.mark.usefixtures("rendered")
def test_the_figure_holds_the_stages_numbers(swept, monkeypatch):
    monkeypatch.setattr(moving, "display", lambda figure: figure.canvas.draw())
    page = figures.threshold(swept, ["Dense", "Ticket"]).data
    told = json.loads(re.search(r"json\">(.*?)</script>", page, re.DOTALL)[1])
    cells = np.array(told["readout"]["cells"]["values"])  # scores, cuts, rates, arms, 3
    count = min(len(f["cuts"]) for f in swept.values())
    assert cells.shape == (2, count, 4, 2, 3)
    for place, found in enumerate(swept.values()):
        wanted = found["rates"][:, -count:].permute(1, 2, 0, 3)
        np.testing.assert_allclose(cells[place], wanted, rtol=1e-4)
    curve = told["panels"][-1]["series"][1]
    wanted = swept["lira, online"]["rates"][1, -count:, 1, 0]
    np.testing.assert_allclose(curve["x"]["values"][1], wanted, rtol=1e-3)
    dots = np.array(curve["dot"]["values"])
    np.testing.assert_allclose(dots[1, :, 0], wanted, rtol=1e-3)
