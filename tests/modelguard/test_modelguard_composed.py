"""Composed attacks and defences by their authors' rules, on networks of a second."""

import pytest
import torch
import trainings
from test_modelguard_experiments import ASKED, GLYPHS, NONE, PLAN, SETTING, S, W

from lottolab.modelguard.attacks import measures
from lottolab.modelguard.experiments import attackers, composed, rules, thefts

pytestmark = pytest.mark.usefixtures("on_one_thread")
MAD = {"name": "MAD", "epsilon": 1.0}
REVSIG = {"name": "RevSig", "beta": 0.2, "gamma": 0.2}


@pytest.fixture(scope="module", autouse=True)
def fits(tmp_path_factory):
    """Give the module a store of its own and list its trainings."""
    with trainings.noted(tmp_path_factory.mktemp("store")) as found:
        yield found


def steal(defence, **attack):
    given = PLAN | SETTING
    return composed.stolen(attack=attack, defence=defence, **given)["metrics"]


def begin(defence):
    return rules.begun({}, defence, **PLAN, **SETTING)[0]


def test_an_attack_of_no_parts_is_the_naive_one():
    given = PLAN | SETTING
    for defence in (NONE, S):
        plain = thefts.stolen(attack={}, defence=defence, jbda=0, **given)["metrics"]
        assert steal(defence) == plain
        assert rules.stolen(attack={}, defence=defence, jbda=0, **given) == {
            "metrics": plain
        }


def test_shifts_undone_by_nothing_are_smoothing():
    theft = begin(NONE)
    found = composed.recovered(theft, composed.shifts(theft), "none")
    assert torch.allclose(found, attackers.smoothed(theft, theft.images), atol=1e-6)


def test_exact_answers_are_kept_and_the_others_looked_up():
    theft = begin(S)
    versions = composed.once(theft)
    found = composed.recovered(theft, versions, "oracle, exact kept")
    clean, exact = theft.clean(theft.images), theft.exact
    assert 0 < exact.sum() < len(exact)
    assert torch.equal(found[exact], clean[exact])
    plain = composed.recovered(begin(S), versions, "oracle")
    assert torch.equal(found[~exact], plain[~exact])
    off = measures.recovery_distance
    assert off(found, clean) < off(plain, clean)


def test_no_undoing_but_the_oracles_asks_for_the_targets_predictions():
    for defence, undo in (
        (S, "own, exact kept"),
        (W, "inverse"),
        (REVSIG, "inverse"),
        (MAD, "inverse"),
        ({"name": "Rounding", "decimals": 1}, "inverse"),
        ({"name": "AM", "tau": 0.7}, "inverse"),
    ):
        theft = begin(defence)
        theft.clean = None  # whoever asks it fails
        found = composed.recovered(theft, composed.once(theft), undo)
        assert found.shape == (PLAN["budget"], 10)
        assert ((found.sum(1) - 1).abs() < 1e-4).all()


@pytest.mark.parametrize(
    ("defence", "most"), [(REVSIG | {"beta": 0.02}, 0.5), (MAD, 0.8)]
)
def test_an_inverse_recovers_what_the_defence_has_hidden(defence, most):
    """Not all: where MAD's answer is its vertex nothing is left of the prediction."""
    theft = begin(defence)
    clean = theft.clean(theft.images)
    answers = theft.service(theft.images)
    found = composed.recovered(theft, composed.once(theft), "inverse")
    off = measures.recovery_distance
    assert off(found, clean) < most * off(answers, clean)


def test_guesses_are_of_images_that_their_maker_has_not_seen(fits):
    theft = begin(W)
    answers = theft.service(theft.images)
    first, second = composed.guesses(theft, answers)
    assert first.model is not second.model
    before = fits[-2:]
    assert len(before) == 2


def test_what_misinformation_does_not_lie_about_is_kept():
    theft = begin({"name": "AM", "tau": 0.7})
    answers = theft.service(theft.images)
    lies = composed._lies(theft, theft.images, answers)
    found = composed.recovered(
        begin({"name": "AM", "tau": 0.7}), [theft.images], "inverse"
    )
    assert torch.equal(found[~lies], answers[~lies])
    assert 0 < lies.sum() < len(lies)


def test_touched_copies_average_noise_that_is_fixed_by_the_image():
    guard = {"name": "noise", "epsilon": 1.0, "fixed": True, "seed": 0}
    theft = begin(guard)
    clean, off = theft.clean(theft.images), measures.recovery_distance
    once = composed.recovered(theft, composed.once(theft), "mean")
    many = composed.recovered(begin(guard), composed.touches(theft), "mean")
    assert off(many, clean) < 0.6 * off(once, clean)


def test_labels_of_what_is_recovered_can_be_learned():
    soft, hard = steal(NONE), steal(NONE, label="hard")
    assert hard["accuracy"] != soft["accuracy"]
    given = PLAN | SETTING
    labels = {"train": "top1"}
    plain = thefts.stolen(attack=labels, defence=NONE, jbda=0, **given)["metrics"]
    assert hard["accuracy"] == plain["accuracy"]


def test_all_choices_are_checked():
    for wrong, message in (
        ({"ask": "shift"}, "did you mean shifts"),
        ({"undo": "inverted"}, "did you mean inverse"),
        ({"label": "softer"}, "did you mean soft"),
        ({"table": "own"}, "a choice of an attack"),
    ):
        with pytest.raises(ValueError, match=message):
            steal(NONE, **wrong)
    with pytest.raises(ValueError, match="a defence with an inverse"):
        steal({"name": "Top-1"}, undo="inverse")


def test_mad_by_its_rule_serves_and_turns():
    given = ASKED | SETTING
    found = rules.turned(epsilon=1.0, **given)["metrics"]
    assert 0 < found["deviation, authors"] <= 4
    assert found["classes, authors"] >= 1
    served = rules.served(defence=MAD, foreign=GLYPHS, **given)["metrics"]
    assert served["kept"] == 1
    assert served["maximal ℓ1, queries"] <= 1 + 1e-6
    timed = rules.timed(defence=MAD, **given)["metrics"]
    assert timed["times none"] > 1


def rows(arm, values):
    return [
        {"target": "many", "arm": arm, "metric": "accuracy", "attack": attack}
        | {"seed": seed, "value": value, "point": point}
        for attack, (point, own) in values.items()
        for seed, value in enumerate(own)
    ]


def test_compositions_are_chosen_on_half_of_the_targets():
    table = rows(
        "ModelGuard-S",
        {
            "naive": ("many", (0.1, 0.2, 0.1, 0.2)),
            "a": ("composed", (0.9, 0.3, 0.9, 0.3)),
            "b": ("adaptive", (0.5, 0.8, 0.5, 0.8)),
            "unused": ("sweep", (1.0, 1.0, 1.0, 1.0)),
        },
    )
    found = {row["seed"]: row for row in measures.composed_rows(table)}
    assert {s: (r["attack"], r["value"]) for s, r in found.items()} == {
        0: ("b", 0.5),
        1: ("a", 0.3),
        2: ("b", 0.5),
        3: ("a", 0.3),
    }
    assert {r["point"] for r in found.values()} == {"strongest composition"}
    (single,) = measures.composed_rows([r for r in table if r["seed"] == 0])
    assert (single["attack"], single["value"]) == ("a", 0.9)
