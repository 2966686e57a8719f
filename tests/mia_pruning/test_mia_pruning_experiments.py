"""The stages of chapter 5, on networks of a second each."""

import math

import numpy as np
import pytest
import torch
import trainings
from scipy.spatial.distance import jensenshannon
from scipy.stats import norm, spearmanr
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score
from torch import nn

from lottolab.images import datasets, partition
from lottolab.membership import signals
from lottolab.membership.attacks import nasr
from lottolab.membership.experiments import attacks, targets
from lottolab.mia_pruning import theorem
from lottolab.mia_pruning.defences import control, dp, minmax
from lottolab.mia_pruning.experiments import controls, leaks, studies, treatments
from lottolab.nets import predict, tickets, train
from lottolab.truth import results

pytestmark = [
    pytest.mark.filterwarnings("ignore:Optimal order"),
    pytest.mark.usefixtures("on_one_thread"),
]
RECIPE = {"batch": 20, "lr": 0.05, "crop": 0, "flip": False}
SETTING = {
    "dataset": "digits",
    "sizes": {"pool": 240, "models": 6, "val": 100, "test": 100},
    "network": {"name": "cnn4", "width": 4},
    "recipe": RECIPE | {"epochs": 3},
    "rewind_at": 0,
    "seed": 1,
}
ALL = {k: v for k, v in SETTING.items() if k != "seed"}
SECOND = RECIPE | {"epochs": 2}
# All 120 images are in each batch: then ε has a closed form.
BUDGET = {"epsilon": 4.0, "delta": 1e-3, "clip": 1.0, "lr": 0.5, "batch": 120}
ATTACK = {"epochs": 5, "width": 0.1, "lr": 0.01}
PRUNABLE = ["conv2.weight", "conv3.weight", "conv4.weight"]
RATE = 0.37
PLAIN = {"prune": "none", "rate": 0.0, "loss": "cross-entropy", "strength": 0.0}
ADMM = {"rate": RATE, "rho": [0.01, 1.0], "admm_epochs": 1, "admm_lr": 0.02}
OWN = {
    "dense": {},
    "one-shot": {"rates": [RATE]},
    "early": {"stop": 1},
    "continued": {"second": SECOND, **PLAIN},
    "pruned": {"second": SECOND, **ADMM, "gamma": 0.0, "attacker": 0.1},
    "guarded": {"second": SECOND, "gamma": 50.0, "attacker": 0.1},
    "private": {"second": SECOND, "budget": BUDGET},
    "group norm": {"second": SECOND},
    "borrowed": {"rates": [RATE, RATE]},
    "joint": {"rates": [RATE, RATE]},
}
DENSE = {"name": "dense"}


@pytest.fixture(scope="module", autouse=True)
def fits(tmp_path_factory):
    """Give the module a store of its own and list its trainings."""
    with trainings.noted(tmp_path_factory.mktemp("store")) as found:
        yield found


@pytest.fixture(scope="module")
def parent():
    return tickets.dense(**SETTING)["weights"]


def continued(**changed):
    return treatments.continued(**SETTING | OWN["continued"] | changed)


def pruned(**changed):
    return treatments.pruned(**SETTING | OWN["pruned"] | changed)


def anew(stage, **changed):
    """Run a treatment without reading or writing its own result."""
    name = stage.__name__.replace("_", " ")
    return stage.__wrapped__(**SETTING | OWN[name] | changed)


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def confidences(outcome):
    """Return the softmax of a trained network's logits on the pool."""
    parts = tickets.read(**SETTING)
    model = tickets.build(parts=parts, **SETTING)
    model.load_state_dict(outcome["weights"])
    scale = datasets.normalisation(parts["train"][0])
    return predict.logits(model, parts["pool"][0], scale).softmax(1)


# ------------------------------------------------------------------ treatments


@pytest.mark.parametrize("prune", ["magnitude", "random"])
def test_each_layer_loses_exactly_its_share(prune, parent):
    outcome = continued(prune=prune, rate=RATE)
    assert sorted(outcome["masks"]) == PRUNABLE
    for name, mask in outcome["masks"].items():
        count = mask.numel() - round(RATE * mask.numel())
        assert int(mask.sum()) == count
        assert torch.equal(outcome["weights"][name] != 0, mask)
        largest = np.argsort(-parent[name].abs().numpy().ravel())[:count]
        chosen = np.flatnonzero(mask.numpy())
        assert (set(largest) == set(chosen)) == (prune == "magnitude")
    assert outcome["density"] == pytest.approx(1 - RATE, abs=1e-3)
    other = continued(prune=prune, rate=RATE, seed=2)
    assert not same(other["masks"], outcome["masks"])


def test_a_parent_that_stops_is_the_parent_at_that_epoch(parent):
    whole = treatments.early(stop=3, **SETTING)
    assert same(whole["weights"], parent)
    first = treatments.early(stop=1, **SETTING)
    assert same(first["weights"], tickets.dense(**SETTING | {"rewind_at": 1})["rewind"])
    assert first["history"]["epoch"].tolist() == [1]
    assert first["density"] == 1.0


def test_what_is_continued_starts_from_the_parent(fits, parent):
    fits.clear()
    anew(treatments.continued)
    assert same(fits[-1]["before"], parent)
    still = anew(treatments.continued, second=SECOND | {"lr": 1e-12})
    for name in (*PRUNABLE, "conv1.weight", "fc.weight"):
        torch.testing.assert_close(still["weights"][name], parent[name])
    assert still["history"]["epoch"].tolist() == [1, 2]


def test_the_second_half_shows_other_batches(monkeypatch):
    shown, loss = [], train.cross_entropy

    def spy(model, x, y, index):
        shown.append(index.tolist())
        return loss(model, x, y, index)

    monkeypatch.setattr(train, "cross_entropy", spy)
    anew(treatments.continued)
    second = [set(batch) for batch in shown]
    assert len(second) == 2 * 6
    shown.clear()
    parts = tickets.read(**SETTING)
    model = tickets.build(parts=parts, **SETTING)
    recipe = train.recipe(SETTING["recipe"])
    train.fit(model, *parts["train"], recipe, seed=SETTING["seed"], loss=spy)
    assert set().union(*second) == set(range(120))
    assert not [batch for batch in shown if set(batch) in second]


def test_smoothed_labels_have_the_loss_of_the_closed_form():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    y = torch.tensor([0, 1, 2, 3, 4, 0, 1])
    log_p = (z - z.logsumexp(1, keepdim=True)).numpy()
    ce = -log_p[range(7), y].mean()
    for strength in (0.0, 0.3):
        given = lambda x: x, z, y, torch.arange(7)
        value = treatments.LOSSES["label smoothing"](strength)(*given)
        expected = (1 - strength) * ce - strength * log_p.mean()
        assert float(value) == pytest.approx(expected, abs=1e-12)
        value = treatments.LOSSES["cross-entropy"](strength)(*given)
        assert float(value) == pytest.approx(ce, abs=1e-12)


def test_the_loss_that_is_asked_for_is_trained_with():
    second = SECOND | {"epochs": 8}
    plain = continued(second=second)
    none = continued(second=second, loss="label smoothing", strength=0.0)
    assert same(none["weights"], plain["weights"])
    sure = confidences(plain).amax(1).mean()
    smooth = continued(second=second, loss="label smoothing", strength=0.6)
    assert confidences(smooth).amax(1).mean() < sure - 0.1
    balanced = continued(second=second, loss="posterior balancing", strength=30.0)
    spread = [
        confidences(outcome).sort(1).values.std(0).mean()
        for outcome in (plain, balanced)
    ]
    assert spread[1] < 0.8 * spread[0]


def test_an_attacker_without_weight_changes_nothing():
    given = SETTING | OWN["guarded"]
    watched = treatments.guarded(**given | {"gamma": 0.0})
    plain = continued()
    assert same(watched["weights"], plain["weights"])
    assert watched["history"]["loss"].equals(plain["history"]["loss"])
    heavy = treatments.guarded(**given)
    assert not same(heavy["weights"], plain["weights"])
    assert heavy["history"]["gain"].nunique() == 2


@pytest.mark.parametrize("name", ["guarded", "pruned"])
def test_the_references_of_the_game_are_the_validation_images(name, monkeypatch):
    parts, played, start = tickets.read(**SETTING), [], minmax.Game.__init__

    def spy(self, model, members, references, **options):
        played.append((members, references, options))
        start(self, model, members, references, **options)

    monkeypatch.setattr(minmax.Game, "__init__", spy)
    anew(getattr(treatments, name), gamma=9.0)
    ((members, references, options),) = played
    for found, part in ((members, "train"), (references, "val")):
        assert all(map(torch.equal, found, parts[part]))
    assert (options["gamma"], options["width"]) == (9.0, 0.1)
    assert options["seed"] != SETTING["seed"]


@pytest.fixture(scope="module")
def solved(fits):
    """Return by γ what ADMM prunes, and its two trainings."""
    found = {}
    for gamma in (0.0, 50.0):
        fits.clear()
        found[gamma] = anew(treatments.pruned, gamma=gamma), list(fits[-2:])
    return found


@pytest.mark.parametrize(("gamma", "prefix"), [(0.0, ""), (50.0, "classifier.")])
def test_admm_leaves_exactly_the_share_of_each_layer(solved, parent, gamma, prefix):
    outcome, (first, second) = solved[gamma]
    assert sorted(outcome["masks"]) == PRUNABLE
    assert outcome["weights"].keys() == parent.keys()
    for name, mask in outcome["masks"].items():
        assert int(mask.sum()) == mask.numel() - round(RATE * mask.numel())
        assert torch.equal(outcome["weights"][name] != 0, mask)
    for name, weight in parent.items():
        assert torch.equal(first["before"][f"network.{prefix}{name}"], weight)
        assert torch.equal(second["after"][prefix + name], outcome["weights"][name])
    attackers = [any("attacker." in k for k in f["before"]) for f in (first, second)]
    assert attackers == [gamma > 0] * 2


def test_admm_and_retraining_share_the_epochs_of_the_second_half(solved):
    second = SECOND | {"epochs": 5}
    history = pruned(second=second, admm_epochs=3)["history"]
    assert history["phase"].tolist() == ["admm"] * 3 + ["retrain"] * 2
    assert history["lr"].tolist()[:3] == [0.02] * 3
    assert history["rho"].tolist()[:3] == pytest.approx([0.01, 0.1, 1.0])
    # A cosine from the second half's own rate.
    assert history["lr"].tolist()[3:] == pytest.approx([0.025, 0.0])
    seeds = {t["seed"] for _, pair in solved.values() for t in pair}
    assert SETTING["seed"] not in seeds
    assert len(seeds) == 2


def test_pruning_against_an_attacker_leaves_another_network(solved):
    plain, guarded = (solved[gamma][0] for gamma in (0.0, 50.0))
    for name in PRUNABLE:
        away = (plain["weights"][name] - guarded["weights"][name]).abs().max()
        assert away > 1e-4


def epsilon(sigma: float, steps: int, delta: float) -> float:
    """Return ε of the Gaussian mechanism, exactly (Balle and Wang, 2018)."""
    mu, values = math.sqrt(steps) / sigma, np.linspace(0, 20, 200_001)
    high, low = norm.logcdf(-values / mu + mu / 2), norm.logcdf(-values / mu - mu / 2)
    return values[(np.exp(high) - np.exp(values + low) <= delta).argmax()]


def test_private_training_spends_what_it_is_asked_for_over_both_halves():
    outcome = treatments.private(**SETTING | OWN["private"])
    assert 0.99 * 4.0 < outcome["epsilon"] <= 4.0
    assert outcome["history"]["epoch"].tolist() == [1, 2, 3, 4, 5]
    exact = epsilon(outcome["sigma"], 5, BUDGET["delta"])
    assert 0.8 * 4.0 < exact <= 4.0


def test_private_training_and_its_control_start_afresh(fits, parent):
    parts = tickets.read(**SETTING)
    start = tickets.build(parts=parts, **SETTING).state_dict()
    fits.clear()
    control = anew(treatments.group_norm)
    assert control["history"]["epoch"].tolist() == [1, 2, 3, 4, 5]
    assert control["history"]["lr"].iloc[-1] == 0
    still = anew(treatments.private, budget=BUDGET | {"lr": 1e-12})
    for name in (*PRUNABLE, "conv1.weight", "fc.weight"):
        assert torch.equal(fits[-1]["before"][name], start[name])
        torch.testing.assert_close(still["weights"][name], start[name])
        assert not torch.allclose(start[name], parent[name])
    for outcome in (control, still):
        assert not [name for name in outcome["weights"] if "running" in name]


def test_a_control_of_private_training_lacks_its_noise_and_nothing_else(monkeypatch):
    found, real = [], control.dp_control

    def spy(model, *data, **options):
        found.append(options)
        return real(model, *data, **options)

    monkeypatch.setattr(control, "dp_control", spy)
    budget = {k: v for k, v in BUDGET.items() if k != "epsilon"}
    silent = anew(treatments.group_norm, budget=budget)
    assert found == [budget | {"epochs": 5, "seed": 1, "sigma": 0.0}]
    free = anew(treatments.group_norm, budget=budget | {"clip": None})
    assert found[1] == found[0] | {"clip": None}
    private = anew(treatments.private)
    rows = [o["history"]["examples"].tolist() for o in (silent, free, private)]
    assert rows[0] == rows[1] == rows[2]  # the same batches
    assert not same(silent["weights"], free["weights"])
    assert not same(silent["weights"], private["weights"])


def test_a_borrowed_ticket_has_seen_no_image_of_the_pool(monkeypatch, parent):
    ticket = anew(controls.borrowed, rates=[RATE, RATE])
    assert ticket["density"] == pytest.approx((1 - RATE) ** 2, abs=2e-3)
    read = tickets.read

    def other(**setting):
        parts = read(**setting)
        images, labels = parts["train"]
        return parts | {"train": (255 - images, labels)}

    monkeypatch.setattr(tickets, "read", other)
    again = anew(controls.borrowed, rates=[RATE, RATE])
    assert same(again["masks"], ticket["masks"])
    assert not same(again["weights"], ticket["weights"])

    def borrowed(**setting):
        parts = read(**setting)
        images, labels = parts["val"]
        return parts | {"val": (255 - images, labels)}

    monkeypatch.setattr(tickets, "read", borrowed)
    moved = anew(controls.borrowed, rates=[RATE, RATE])
    assert not same(moved["masks"], ticket["masks"])


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_joint_ticket_has_seen_both(monkeypatch, parent, part):
    ticket = anew(controls.joint, rates=[RATE, RATE])
    assert ticket["density"] == pytest.approx((1 - RATE) ** 2, abs=2e-3)
    read = tickets.read

    def other(**setting):
        parts = read(**setting)
        images, labels = parts[part]
        return parts | {part: (255 - images, labels)}

    monkeypatch.setattr(tickets, "read", other)
    moved = anew(controls.joint, rates=[RATE, RATE])
    assert not same(moved["masks"], ticket["masks"])


def test_a_joint_ticket_takes_as_many_steps_as_a_borrowed_one(monkeypatch, parent):
    fit, seen = train.fit, []

    def spy(model, images, labels, recipe, **options):
        seen.append(len(images) * recipe.epochs)
        return fit(model, images, labels, recipe, **options)

    monkeypatch.setattr(train, "fit", spy)
    recipe = RECIPE | {"epochs": 22}
    anew(controls.borrowed, rates=[RATE], recipe=recipe)
    anew(controls.joint, rates=[RATE], recipe=recipe)
    assert seen == [22 * 100, 22 * 120, 10 * 220, 22 * 120]


@pytest.mark.parametrize("stage", [controls.borrowed, controls.joint])
def test_a_borrowed_ticket_needs_a_rate(stage):
    with pytest.raises(ValueError, match="rates must hold at least one pruning rate"):
        stage(rates=[], **SETTING)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"prune": "magnitud"}, "prune must be one of .*; did you mean magnitude"),
        ({"loss": "label smoting"}, "loss must be one of .* mean label smoothing"),
        ({"prune": "random", "rate": 1.0}, r"rate must be in \[0, 1\), got 1.0"),
        ({"loss": "posterior balancing", "strength": -1.0}, "weight must be >= 0"),
        ({"second": {"epoch": 2}}, "a recipe's setting must be one of .* epochs"),
    ],
)
def test_a_continuation_refuses_bad_arguments(changed, message):
    with pytest.raises(ValueError, match=message):
        continued(**changed)


def test_admm_refuses_to_leave_no_epoch_for_retraining():
    with pytest.raises(ValueError, match="epochs must be a whole number >= 1, got 0"):
        pruned(admm_epochs=2)


def test_admm_spares_depthwise_convolutions():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.Conv2d(4, 4, 3, groups=4),
        nn.Conv2d(4, 8, 1),
        nn.Conv2d(8, 8, 3, groups=2),
        nn.Linear(8, 8),
        nn.Linear(8, 2),
    )
    assert sorted(treatments.wide(model)) == ["2.weight", "3.weight", "4.weight"]


CHECKED = ALL | {"sparsities": [0.1, 0.2, 0.3, 0.4], "rho": [0.1, 1]}
CHECKED |= {"epsilons": [1.0, 2.0, 4.0], "stops": [0, 1, 2]}
CHECKED |= {"gammas": [0.5, 1.0, 2.0]}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"sparsities": [0.1, 0.3, 0.2]}, "sparsities must be 4 different, rising"),
        ({"gammas": [1.0]}, "gammas must be 3 different, rising values"),
        ({"epsilons": [1.0, 1.0, 2.0]}, "epsilons must be 3 different, rising values"),
        ({"stops": [1, 2]}, "stops must be 3 different, rising values"),
        ({"stops": [0, 1, 3]}, "stops must be below epochs = 3"),
        ({"rho": [1.0, 0.0]}, "rho must be a number or two, both > 0"),
        ({"rewind_at": 3}, "rewind_at must be a whole number"),
    ],
)
def test_a_grid_that_no_claim_can_read_is_refused(changed, message):
    treatments.check(**CHECKED)
    with pytest.raises(ValueError, match=message):
        treatments.check(**CHECKED | changed)


# ------------------------------------------------------------------ leaks


def planted(leak, *, n=2000, wrong=0.0, fresh=0.5, seed=0):
    """Make answers in which members are by `leak` more sure of their label.

    `wrong` is the share, of members and others alike, that gets another answer.
    """
    rng = np.random.default_rng(seed)
    labels = torch.from_numpy(rng.integers(4, size=n))
    member = torch.from_numpy(rng.permutation(n) < n // 2)
    moved = torch.from_numpy(rng.random(n) < wrong)
    pool = torch.from_numpy(rng.normal(size=(n, 4)) / 4).float()
    pool[range(n), (labels + moved) % 4] += 1.5 + leak * member
    metrics = {"fresh_accuracy": fresh}
    return {"pool": pool, "labels": labels, "member": member, "metrics": metrics}


def give(monkeypatch, seen):
    monkeypatch.setattr(leaks, "answers", lambda **_: seen)


def values(outcome):
    return outcome["measurements"].set_index("metric")["value"]


@pytest.mark.parametrize("name", OWN)
def test_every_treatment_is_asked_for_its_own_answers(name):
    given = SETTING | {"treatment": {"name": name} | OWN[name]}
    stage, own = leaks.training(**given)
    assert own == SETTING | OWN[name]
    seen, parts = leaks.answers(**given), tickets.read(**SETTING)
    weights = stage(**own)["weights"]
    model = tickets.build(parts=parts, **SETTING)
    if name in ("private", "group norm"):
        model = dp.group_norm(model)
    model.load_state_dict(weights)
    scale = datasets.normalisation(parts["train"][0])
    pool = predict.logits(model, parts["pool"][0], scale)
    torch.testing.assert_close(seen["pool"], pool)
    right = predict.accuracy(
        predict.logits(model, parts["test"][0], scale), parts["test"][1]
    )
    assert seen["metrics"]["fresh_accuracy"] == right
    places = partition.halves(datasets.load("digits"), **SETTING["sizes"], seed=1)
    inside = set(places["train"].tolist())
    assert seen["member"].tolist() == [p in inside for p in places["pool"].tolist()]


def test_treatments_have_a_stage_and_arguments_of_their_own():
    stages = [leaks.training({"name": n} | OWN[n], **SETTING)[0] for n in OWN]
    assert list(OWN) == list(leaks.TREATMENTS)
    assert len(set(stages)) == len(stages)
    _, given = leaks.training({"name": "dense", "rewind_at": 2}, **SETTING)
    assert given == SETTING | {"rewind_at": 2}
    with pytest.raises(ValueError, match="did you mean guarded"):
        leaks.training({"name": "gaurded"}, **SETTING)


def test_an_attack_is_judged_where_it_has_not_learned(monkeypatch):
    seen, learned, tested = planted(1.0, n=60), [], []
    seen["pool"] += torch.arange(60)[:, None]  # a row tells its place

    def place(logits):
        found = (logits[:, None] == seen["pool"]).all(2).nonzero()
        assert found[:, 0].tolist() == list(range(len(logits)))
        return found[:, 1].tolist()

    def spy(logits, labels, is_member, **options):
        learned.extend(place(logits))
        assert torch.equal(labels, seen["labels"][learned])
        assert torch.equal(is_member, seen["member"][learned])
        assert options == ATTACK | {"seed": 1}

        def attack(logits, labels):
            tested.extend(place(logits))
            assert torch.equal(labels, seen["labels"][tested])
            return torch.full((len(logits),), 0.7, dtype=torch.float64)

        return attack

    monkeypatch.setattr(nasr, "fit", spy)
    give(monkeypatch, seen)
    leaks.attacked.__wrapped__(attack=ATTACK, treatment=DENSE, **SETTING)
    assert sorted(learned + tested) == list(range(60))
    for places in (learned, tested):
        assert int(seen["member"][places].sum()) == 15


def test_the_numbers_of_an_attack_are_those_of_scikit_learn():
    given = SETTING | {"treatment": DENSE, "attack": ATTACK | {"epochs": 40}}
    found, seen = (
        values(leaks.attacked(**given)),
        leaks.answers(**SETTING, treatment=DENSE),
    )
    known, judged = attacks.split(seen["member"], 1)
    parts = [seen[k] for k in ("pool", "labels", "member")]
    attack = nasr.fit(*(x[known] for x in parts), **given["attack"], seed=1)
    scores, truth = attack(*(x[judged] for x in parts[:2])), parts[2][judged]
    assert found["accuracy"] == pytest.approx(accuracy_score(truth, scores > 0.5))
    assert found["auc"] == pytest.approx(roc_auc_score(truth, scores))
    assert found["fpr"] == pytest.approx((scores[~truth] > 0.5).double().mean())
    assert found["gain"] == pytest.approx(-2 * log_loss(truth, scores))
    assert found["recall"] != found["fpr"] > 0


def test_a_planted_signal_is_found_and_none_where_there_is_none(monkeypatch):
    seen = planted(2.0)
    order = torch.randperm(2000, generator=torch.Generator().manual_seed(1))
    mixed = {k: seen[k][order] for k in ("pool", "labels")}
    found = []
    for answers in (seen, seen | mixed):
        give(monkeypatch, answers)
        given = SETTING | {"attack": ATTACK, "treatment": DENSE}
        found.append(values(leaks.attacked.__wrapped__(**given)))
    leak, none = found
    assert leak["accuracy"] > 0.9
    assert leak["js"] > 0.3
    assert leak["gain"] > -1
    assert none["accuracy"] == pytest.approx(0.5, abs=3 * 0.5 / math.sqrt(1000))
    # 19 degrees of freedom, with n = m = 500: JS has the deviation √38 · (2/500) / 8.
    assert none["js"] == pytest.approx(0, abs=3 * math.sqrt(38) / 2000)
    assert -math.log(4) - 0.05 < none["gain"] < -math.log(4) + 0.02


def test_classes_by_hand():
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2])
    member = torch.tensor([1, 1, 0, 0, 1, 0, 0, 1, 0]).bool()
    answer = torch.tensor([0, 0, 0, 1, 0, 1, 2, 2, 2])
    seen = {"labels": labels, "member": member, "pool": 5 * torch.eye(3)[answer]}
    judged = torch.tensor([6, 0, 2, 3])
    right = torch.tensor([True, True, False, False])
    table = leaks.in_classes(seen, judged, right)
    found = table.set_index(["metric", "class"])["value"].to_dict()
    assert found == {
        ("accuracy in class", 0): pytest.approx(1 / 3),
        ("gap in class", 0): 1.0 - 0.5,
        ("accuracy in class", 1): 1.0,
        ("gap in class", 1): 0.0 - 0.5,
        ("gap in class", 2): 0.0,
    }


def test_classes_are_correlated_as_scipy_does():
    given = SETTING | {"treatment": DENSE, "attack": ATTACK | {"epochs": 40}}
    outcome = leaks.attacked(**given)
    inside = outcome["classes"].set_index(["metric", "class"])["value"]
    columns = [inside[f"{name} in class"].sort_index() for name in ("gap", "accuracy")]
    assert columns[0].index.tolist() == columns[1].index.tolist() == [*range(10)]
    expected = spearmanr(*columns).statistic
    assert values(outcome)["class correlation"] == pytest.approx(expected)


def unbiased(scores, member, seed=0):
    """Estimate JS in 20 bins of equal share, less its mean over random members."""
    edges = np.quantile(scores, np.arange(1, 20) / 20)
    place = np.searchsorted(edges, scores, side="right")

    def estimate(inside):
        p, q = (np.bincount(place[x], minlength=20) for x in (inside, ~inside))
        return jensenshannon(p, q) ** 2

    rng, member = np.random.default_rng(seed), np.asarray(member)
    null = [estimate(rng.permutation(member)) for _ in range(500)]
    return estimate(member) - np.mean(null)


def test_a_family_has_every_number_of_every_model_once():
    outcome = leaks.family(treatment=DENSE, group=1, **ALL)
    table, member = outcome["measurements"], outcome["member"]
    rows = table.set_index(["attack", "metric", "seed"])["value"]
    assert rows.index.is_unique
    assert rows.notna().all()
    counts = table.groupby(["attack", "metric"])["seed"].apply(sorted)
    assert all(seeds == [*range(6, 12)] for seeds in counts)
    names = set(table["attack"])
    assert names >= {"loss", "lira, online", "rmia, offline", "entropy"}
    assert set(counts.index) == {
        *((name, metric) for name in names for metric in ("auc", "accuracy")),
        ("loss", "js"),
    }
    for place, seed in enumerate(range(6, 12)):
        seen = leaks.answers(treatment=DENSE, seed=seed, **ALL)
        assert torch.equal(seen["member"], member[place])
        loss = signals.loss(seen["pool"], seen["labels"])
        auc = roc_auc_score(member[place], loss)
        assert rows["loss", "auc", seed] == pytest.approx(auc)
        js = unbiased(loss.numpy(), member[place])
        assert rows["loss", "js", seed] == pytest.approx(js, abs=4e-3)
        auc = roc_auc_score(member[place], outcome["scores"]["lira, online"][place])
        assert rows["lira, online", "auc", seed] == pytest.approx(auc)


def test_asking_for_networks_brings_their_answers_and_the_attack(monkeypatch):
    monkeypatch.setenv("LOTTOLAB_JOBS", "1")
    asked = leaks.asked(ALL, DENSE, [1, 2], ATTACK, {"arm": "dense"})
    assert len(asked) == 6
    rows = results.measure(asked)
    assert {row["arm"] for row in rows} == {"dense"}
    for seed in (1, 2):
        names = [(r.get("attack"), r["metric"]) for r in rows if r["seed"] == seed]
        assert {(None, "test_accuracy"), (None, "member_accuracy")} < set(names)
        assert names.count(("nasr", "gain")) == 1


# ------------------------------------------------------------------ studies


def test_an_attack_that_is_followed_is_the_attack_of_that_many_epochs():
    given = SETTING | {"treatment": DENSE}
    table = studies.learned(epochs=[40, 5], attack=ATTACK, **given)["measurements"]
    assert table["attack_epoch"].tolist() == [40, 5]
    for epochs, value in zip((40, 5), table["value"], strict=True):
        attack = ATTACK | {"epochs": epochs}
        assert value == values(leaks.attacked(attack=attack, **given))["accuracy"]


@pytest.mark.parametrize(("slack", "kept"), [(0.1, 2), (0.9, 3), (0.0, 2)])
def test_a_search_takes_the_least_gain(monkeypatch, slack, kept):
    """The last choice leaks nothing, but answers badly."""
    given = [(2.0, 0.0, 0.9), (0.7, 0.0, 0.8), (0.0, 0.4, 0.6)]
    found = [planted(leak, wrong=wrong, fresh=f) for leak, wrong, f in given]
    monkeypatch.setattr(leaks, "answers", lambda *, treatment, **_: found[treatment])
    table = studies.searched.__wrapped__(
        choices=[0, 1, 2], slack=slack, attack=ATTACK, **SETTING
    )["measurements"]
    rows = table.set_index(["rule", "metric"])["value"]
    assert rows["gain", "chosen"] == 3
    assert rows["accuracy kept", "chosen"] == kept
    assert rows["gain", "fresh"] == 0.6
    assert rows["accuracy kept", "fresh"] == given[kept - 1][2]
    assert rows["gain", "accuracy"] == pytest.approx(0.5, abs=3 * 0.5 / math.sqrt(500))
    assert rows["gain", "auc"] == pytest.approx(0.5, abs=0.1)
    if kept == 2:
        assert 0.6 < rows["accuracy kept", "auc"] < 0.99
        assert 0.6 < rows["accuracy kept", "accuracy"] < 0.95


def test_a_choice_is_reported_on_another_quarter(monkeypatch):
    """Change one answer at a time: it moves the choice, or the report, or neither."""
    rng = np.random.default_rng(0)
    pool = torch.from_numpy(rng.normal(size=(80, 2))).abs()
    pool[:, 1] = 0
    seen = {"pool": pool, "labels": torch.zeros(80).long()}
    seen |= {"member": torch.from_numpy(rng.permutation(80) < 40)}
    seen |= {"metrics": {"fresh_accuracy": 0.5}}
    score = lambda logits, labels: logits[:, 0].sigmoid()  # noqa: E731
    monkeypatch.setattr(nasr, "fit", lambda *_, **__: score)

    def outcome(place=None):
        changed = pool.clone()
        if place is not None:
            changed[place, 0] *= -1
        give(monkeypatch, seen | {"pool": changed})
        return studies._outcome(DENSE, ATTACK, seed=1)

    before = outcome()
    moved = {k: set() for k in before}
    for place in range(80):
        for key, value in outcome(place).items():
            if value != before[key]:
                moved[key].add(place)
    chosen, told = moved["chosen_by_gain"], moved["accuracy"] | moved["auc"]
    assert not chosen & told
    assert chosen | told == set(attacks.split(seen["member"], 1)[1].tolist())
    for places in (chosen, told):
        assert len(places) == 20
        assert int(seen["member"][sorted(places)].sum()) == 10
    outside = {place for place in chosen if not seen["member"][place]}
    assert moved["chosen_by_accuracy"] == outside


@pytest.mark.parametrize("choices", [[], [DENSE]])
def test_a_search_needs_a_choice(choices):
    with pytest.raises(ValueError, match=f"two treatments or more, got {len(choices)}"):
        studies.searched(choices=choices, slack=0.1, attack=ATTACK, **SETTING)


def test_a_wide_random_network_replaces_a_layer():
    widths = (2, 20, 400)
    given = SETTING | {"treatment": DENSE}
    found = [studies.replaced(width=w, **given)["metrics"] for w in widths]
    model, parts = leaks.trained(DENSE, **SETTING)
    asked = []
    model.fc.register_forward_pre_hook(lambda _, x: asked.append(x[0]))
    scale = datasets.normalisation(parts["train"][0])
    logits = predict.logits(model, parts["pool"][0], scale)
    most = float(torch.cat(asked).abs().max())
    weights, (m, d) = model.fc.weight.detach(), model.fc.weight.shape
    size = float(weights.abs().max())
    member = targets.answers(treatment=DENSE, **SETTING)["member"]
    auc = roc_auc_score(member, signals.loss(logits, parts["pool"][1]))
    for width, metrics in zip(widths, found, strict=True):
        error = theorem.subnetwork(weights / size, width, 1).error
        assert 0 < metrics["change"] <= size * error * most + 1e-4
        assert metrics["auc, original"] == pytest.approx(auc)
        # At most two units for a weight, of two weights each.
        most_kept = 4 / (width * (d + m))
        assert metrics["density"] <= most_kept
    assert metrics["density"] > 0.95 * most_kept
    changes, agreement = ([f[k] for f in found] for k in ("change", "agreement"))
    assert changes[0] > 2 * changes[1] > 4 * changes[2]
    assert agreement[0] < agreement[1] < agreement[2]
    assert agreement[2] > 0.9
    assert found[2]["auc"] == pytest.approx(auc, abs=0.02)


def test_the_residuals_are_those_of_the_last_epoch():
    """By hand: |W − Z| beside the parent's weights; with a rate of 0 nothing is cut."""
    treatment = {"name": "pruned"} | OWN["pruned"]
    found = studies.residual(treatment=treatment, **SETTING)["metrics"]
    outcome, weights = pruned(), tickets.dense(**SETTING)["weights"]
    norm_of = math.sqrt(sum(float((weights[n] ** 2).sum()) for n in PRUNABLE))
    last = outcome["history"].query("phase == 'admm'").iloc[-1]
    assert found["primal"] == pytest.approx(last["primal"] / norm_of, rel=1e-5)
    assert found["dual"] == pytest.approx(last["moved"] / norm_of, rel=1e-5)
    kept = shared = 0
    for name, mask in outcome["masks"].items():
        largest = np.argsort(-weights[name].abs().numpy().ravel())[: int(mask.sum())]
        kept += int(mask.sum())
        shared += int(mask.flatten()[largest.copy()].sum())
    assert found["overlap"] == pytest.approx(shared / kept)
