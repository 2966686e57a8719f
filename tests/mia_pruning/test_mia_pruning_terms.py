"""Comparisons at equal terms, the audit and SAMIA, as chapter 5's stages ask."""

import numpy as np
import pandas as pd
import pytest
import torch
import trainings
from sklearn.metrics import roc_auc_score
from test_mia_pruning_experiments import ALL, BUDGET, DENSE, SECOND, SETTING

from lottolab.membership.experiments import attacks, families
from lottolab.mia_pruning.attacks import class_tokens
from lottolab.mia_pruning.comparisons import shared
from lottolab.mia_pruning.experiments import audits, leaks, shadows, terms, treatments
from lottolab.mia_pruning.privacy import canaries
from lottolab.truth.intervals import influence, measured
from lottolab.truth.intervals.influence import Linear

pytestmark = [
    pytest.mark.filterwarnings("ignore:Optimal order"),
    pytest.mark.usefixtures("on_one_thread"),
]
MODELS = 6


@pytest.fixture(scope="module", autouse=True)
def fits(tmp_path_factory):
    """Give the module a store of its own."""
    with trainings.noted(tmp_path_factory.mktemp("store")) as found:
        yield found


# ------------------------------------------------------------- comparisons.shared


def hits(share, seed, images=40):
    return np.random.default_rng(seed).random((MODELS, images)) < share


def weighted_share(x, weights):
    return float((x * weights).sum() / (weights.sum() * len(x)))


def by_hand(pool, fresh, weights):
    """Return the difference at matched accuracy where images count as often as said."""
    leak = [weighted_share(x, weights[:40]) for x in pool]
    known = [weighted_share(x, weights[40:]) for x in fresh]
    order = np.argsort(known[1:])
    corners = [np.array(v[1:])[order] for v in (known, leak)]
    return leak[0] - np.interp(known[0], *corners)


def test_an_influence_at_matched_accuracy_is_what_an_image_moves():
    """Against the derivative: let an image count a little more, interpolate anew."""
    pool = [hits(p, k) for k, p in enumerate((0.6, 0.4, 0.7))]
    fresh = [hits(p, 10 + k) for k, p in enumerate((0.55, 0.3, 0.8))]
    points = [
        shared.point(influence.share(a), influence.share(b))
        for a, b in zip(pool, fresh, strict=True)
    ]
    found, inside = shared.matched(points[0], points[1:])
    ones = np.ones(80)
    assert found.estimate == pytest.approx(by_hand(pool, fresh, ones))
    known = [x.mean() for x in fresh]
    assert inside == pytest.approx(min(known[0] - known[1], known[2] - known[0]))
    for image in (0, 17, 39, 40, 63, 79):
        step = 1e-6 * (np.arange(80) == image)
        ends = [by_hand(pool, fresh, ones + sign * step) for sign in (1, -1)]
        slope = (ends[0] - ends[1]) / 2e-6
        assert found.influence[:, image].mean() / 80 == pytest.approx(slope, abs=1e-6)
    assert found.influence.mean() == pytest.approx(0, abs=1e-12)


def test_a_treatment_is_matched_between_its_neighbours_alone():
    def at(accuracy, leakage):
        flat = np.zeros((2, 3))
        return shared.point(Linear(leakage, flat), Linear(accuracy, flat))

    line = [at(0.9, 0.9), at(0.5, 0.1), at(0.7, 0.2), at(0.7, 0.6)]
    assert shared.matched(at(0.6, 0.5), line)[0].estimate == pytest.approx(0.35)
    assert shared.matched(at(0.8, 0.5), line)[0].estimate == pytest.approx(-0.05)
    outside, room = shared.matched(at(0.4, 0.5), line)
    assert (outside.estimate, room) == (pytest.approx(0.4), pytest.approx(-0.1))
    assert shared.matched(at(0.9, 0.5), line)[1] == pytest.approx(0)
    one, room = shared.matched(at(0.6, 0.5), line[2:])
    assert (one.estimate, room) == (pytest.approx(0.3), pytest.approx(-0.1))
    one, room = shared.matched(at(0.7, 0.5), line[2:])
    assert (one.estimate, room) == (pytest.approx(0.3), pytest.approx(0))
    with pytest.raises(ValueError, match="a family must have a setting"):
        shared.matched(at(0.7, 0.5), [])


def test_a_probit_is_refused_where_there_is_none():
    with pytest.raises(ValueError, match=r"a share must be in \(0, 1\), got 1.0"):
        shared.probit(Linear(1.0, np.zeros((1, 1))))


# ------------------------------------------------------------- terms


def planted(leak, right, seed=0, images=4000):
    """Answers of a pool: members by `leak` surer, so many fresh images right."""
    rng = np.random.default_rng(seed)
    half = rng.random((MODELS // 2, images)) < 0.5
    found = []
    for k in range(MODELS):
        member = torch.from_numpy(half[k // 2] ^ bool(k % 2))
        pool = torch.from_numpy(rng.normal(size=(images, 3)))
        pool[:, 0] += 1 + leak * member
        fresh = torch.from_numpy(rng.normal(size=(images, 3)) / 10)
        fresh[torch.from_numpy(rng.random(images) < right), 0] += 5
        fresh[:, 1] += 2
        labels = torch.zeros(images, dtype=torch.int64)
        row = {"pool": pool.float(), "fresh": fresh.float(), "member": member}
        found.append(row | {"labels": labels, "fresh_labels": labels})
    return found


@pytest.fixture
def pools(monkeypatch):
    """Give planted answers: a treatment is (leak, right), a pool its own seed."""
    kept = {}

    def of(treatment, group):
        key = (*treatment, group)
        kept.setdefault(key, planted(*treatment, seed=hash(key) % 1000))
        return kept[key]

    def answers(*, treatment, seed, **_):
        return of(treatment, seed // MODELS)[seed % MODELS]

    def family(*, treatment, group, **_):
        found, member = families.scored(of(treatment, group))
        seeds = [MODELS * group + k for k in range(MODELS)]
        kept = {"scores": found, "member": member}
        rows = pd.DataFrame(families.judged(found, member, seeds))
        return kept | {"measurements": rows}

    monkeypatch.setattr(leaks, "answers", answers)
    monkeypatch.setattr(leaks, "family", family)
    return {"sizes": {"models": MODELS}}


def select(found, metric, attack=terms.STRONGEST):
    rows = found["measurements"]
    (row,) = rows[(rows["metric"] == metric) & (rows["attack"] == attack)].to_dict(
        "records"
    )
    return row


def test_a_planted_difference_is_found_with_an_error_that_holds_it(pools):
    given = {"group": 0, "elsewhere": [], **pools}
    found = terms.compared.__wrapped__(a=(0.0, 0.9), b=(1.5, 0.8), **given)
    row = select(found, "auc")
    assert row["value"] < -5 * row["error"] < 0
    assert row["clusters"] == MODELS // 2
    accuracy = found["measurements"].query("metric == 'fresh_accuracy'").iloc[0]
    assert accuracy["value"] == pytest.approx(0.1, abs=0.02)
    same = terms.compared.__wrapped__(a=(1.0, 0.9), b=(1.0, 0.9), **given)
    assert (same["measurements"]["value"] == 0).all()


def test_a_treatment_that_is_a_setting_of_the_line_differs_by_nothing(pools):
    given = {"group": 0, "elsewhere": [1], **pools}
    line = [(0.2, 0.5), (0.8, 0.7), (1.5, 0.9)]
    found = terms.matched.__wrapped__(treatment=(0.8, 0.7), family=line, **given)
    rows = found["measurements"].set_index("metric")
    assert rows.loc["inside", "value"] == 1
    assert rows.loc["auc", "value"].abs().max() < 1e-9
    better = terms.matched.__wrapped__(treatment=(0.0, 0.8), family=line, **given)
    row = select(better, "auc")
    assert row["value"] + 5 * row["error"] < 0
    far = terms.matched.__wrapped__(treatment=(0.0, 0.97), family=line, **given)
    rows = far["measurements"].set_index("metric")
    assert rows.loc["inside", "value"] == 0
    assert measured.brought(rows.loc[["inside"]])


def test_an_attack_is_chosen_elsewhere(monkeypatch):
    """In pool 0 the one is best, in pool 1 the other, but for one pair."""
    values = {0: [[0.9, 0.5]] * 4 + [[0.1, 0.99]] * 2, 1: [[0.5, 0.6]] * 6}

    def family(*, treatment, group, **_):
        rows = [
            {"seed": 6 * group + k, "attack": name, "metric": "auc", "value": value}
            for k, pair in enumerate(values[group])
            for name, value in zip(("loss", "lira"), pair, strict=True)
        ]
        return {"measurements": pd.DataFrame(rows)}

    monkeypatch.setattr(leaks, "family", family)
    given = {"sizes": {"models": 6}, "group": 0}
    names = terms.chosen("auc", DENSE, elsewhere=[0, 1], **given)
    assert names == ["lira"] * 6
    # Without the pair 4, 5 loss leads; without another, lira by the mean.
    names = terms.chosen("auc", DENSE, elsewhere=[], **given)
    assert names == ["lira"] * 4 + ["loss"] * 2


def test_what_a_treatment_leaks_is_the_mean_of_its_networks():
    given = {"group": 1, "elsewhere": []} | ALL
    found = terms.leaking(treatment=DENSE, **given)["measurements"]
    table = leaks.family(treatment=DENSE, group=1, **ALL)["measurements"]
    own = table[(table["attack"] == terms.ALONE) & (table["metric"] == "auc")]
    row = select({"measurements": found}, "auc", terms.ALONE)
    assert row["value"] == pytest.approx(own["value"].mean())
    seen = [leaks.answers(treatment=DENSE, **ALL, seed=s) for s in range(6, 12)]
    fresh = np.mean([s["metrics"]["fresh_accuracy"] for s in seen])
    accuracy = found[found["metric"] == "fresh_accuracy"]["value"].item()
    assert accuracy == pytest.approx(fresh)
    assert set(found["chosen"].dropna()) < {*table["attack"], ""}


def test_a_threshold_is_judged_where_it_has_not_learned():
    found = terms.thresholded(treatment=DENSE, **SETTING)["metrics"]
    seen = leaks.answers(treatment=DENSE, **SETTING)
    _, judged = attacks.split(seen["member"], 1)
    logits, labels = seen["pool"][judged].double(), seen["labels"][judged]
    loss = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    auc = roc_auc_score(seen["member"][judged], -loss)
    assert found["auc"] == pytest.approx(auc, abs=1e-6)
    assert 0 <= found["accuracy"] <= 1


# ------------------------------------------------------------- audits


def audited(**changed):
    # Every place is in each batch of the private run: 120 images and 400 canaries.
    given = {"canaries": 400, "budget": BUDGET | {"epsilon": 2.0}, "noise": 1.0}
    return audits.proven.__wrapped__(second=SECOND, **SETTING | given | changed)


def test_a_run_without_noise_is_caught_and_the_honest_one_passes():
    honest, silent = audited()["metrics"], audited(noise=0.0)["metrics"]
    assert honest["cap"] > 2.0
    assert silent["bound"] == silent["cap"] > 2.0
    assert silent["right"] == 1
    assert honest["bound"] <= 2.0
    assert 1.98 < honest["spent"] <= 2.0
    assert "spent" not in silent


def test_half_the_noise_shows_by_the_share_that_is_right():
    honest, half = audited()["metrics"], audited(noise=0.5)["metrics"]
    assert half["spent"] > 2 * honest["spent"]
    # 360 coins that are right for about two thirds: 0.025 is one standard error.
    assert abs(honest["surplus"]) < 0.1 < half["surplus"]
    assert half["right"] - half["surplus"] == honest["right"] - honest["surplus"]


def test_noise_is_not_negative():
    with pytest.raises(ValueError, match="noise must be >= 0"):
        audited(noise=-0.5)


def test_the_audited_run_is_the_private_one_with_more_places(monkeypatch):
    asked, real = [], audits.control.dp_control

    def spy(model, images, labels, **options):
        asked.append((model, images, labels, options))
        return real(model, images, labels, **options)

    monkeypatch.setattr(audits.control, "dp_control", spy)
    budget = BUDGET | {"epsilon": 2.0, "batch": 40}
    audited(budget=budget)
    model, images, labels, options = asked[0]
    assert isinstance(model, canaries.Trapdoor)
    assert len(images) == len(labels) == 520
    assert options["batch"] == round(40 / 120 * 520)
    assert options["epochs"] == 5
    private = treatments.private.__wrapped__(**SETTING, second=SECOND, budget=budget)
    assert options["sigma"] == pytest.approx(private["sigma"], rel=0.02)


# ------------------------------------------------------------- shadows


def test_samia_learns_from_shadows_alone_and_is_judged_beside_nasr(monkeypatch):
    learned = []

    def fit(known, **options):
        learned.append((known, options))
        return lambda logits, labels, felt: logits[:, 0].double().sigmoid()

    monkeypatch.setattr(class_tokens, "fit", fit)
    given = {"shadows": [6, 7], "epochs": 3, "attack": {"epochs": 2, "width": 0.1}}
    given |= {"treatment": DENSE, "group": 0} | ALL
    rows = shadows.attended.__wrapped__(**given)["measurements"]
    ((known, options),) = learned
    assert options == {"epochs": 3, "seed": 0}
    for shadow, seed in zip(known, (6, 7), strict=True):
        seen = leaks.answers(treatment=DENSE, seed=seed, **ALL)
        assert torch.equal(shadow[0], seen["pool"])
        assert torch.equal(shadow[3], seen["member"])
    wide = rows.set_index(["attack", "metric", "seed"])["value"]
    right = {"samia": [], "nasr": []}
    for seed in range(6):
        seen = leaks.answers(treatment=DENSE, seed=seed, **ALL)
        scores, judged = leaks.tried(seen, given["attack"], seed)
        truth = seen["member"][judged]
        auc = roc_auc_score(truth, seen["pool"][judged, 0])
        assert wide["samia", "auc", seed] == pytest.approx(auc)
        right["nasr"].append(float(((scores > 0.5) == truth).double().mean()))
        assert wide["nasr", "accuracy", seed] == pytest.approx(right["nasr"][-1])
        right["samia"].append(wide["samia", "accuracy", seed])
    gained = rows[rows["metric"] == "accuracy gained"].iloc[0]
    difference = np.mean(right["samia"]) - np.mean(right["nasr"])
    assert gained["value"] == pytest.approx(difference)
    assert gained["error"] > 0
    assert gained["clusters"] == 3
    with pytest.raises(ValueError, match="shadows must not be of pool 1, got"):
        shadows.attended.__wrapped__(**given | {"group": 1})


def test_the_error_of_a_gain_is_that_of_what_was_judged():
    """All judged, it is that of `influence.share`; half at random, of half as many."""
    rng = np.random.default_rng(0)
    values = torch.from_numpy(rng.integers(-1, 2, size=(80, 400)).astype(float))
    whole = shadows._mean(values)
    assert whole.estimate == pytest.approx(float(values.mean()))
    np.testing.assert_allclose(whole.influence, values - values.mean(), atol=1e-12)
    half = values.clone()
    half[torch.from_numpy(rng.random((80, 400)) < 0.5)] = torch.nan
    pairs = np.arange(80) // 2
    errors = [measured.row(shadows._mean(v), pairs)["error"] for v in (values, half)]
    assert 1.1 < errors[1] / errors[0] < 1.9  # the root of two
