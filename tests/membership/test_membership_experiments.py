"""The stages of chapter 2, on networks of a second each."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from small_pools import DENSE, SETTING, TICKET

from lottolab.images import datasets, partition
from lottolab.images.batches import normalise
from lottolab.membership import metrics, signals
from lottolab.membership.attacks import supervised, thresholds
from lottolab.membership.experiments import attacks, families, targets
from lottolab.nets import foresight, masks, predict, tickets
from lottolab.runs import places as run_places
from lottolab.truth import results

pytestmark = pytest.mark.usefixtures("own_store")


@pytest.fixture(scope="module")
def seen():
    return targets.answers(treatment=DENSE, seed=3, **SETTING)


@pytest.fixture(scope="module")
def family():
    return families.family(treatment=DENSE, group=0, thorough=True, **SETTING)


# ------------------------------------------------------------------ targets


def test_answers_are_the_networks_own_and_members_are_what_it_trained_on(seen):
    source = datasets.load("digits")
    places = partition.halves(source, **SETTING["sizes"], seed=3)
    outcome = tickets.dense(seed=3, **SETTING)
    model = tickets.build(
        parts={"train": (source.images[:1], None), "classes": 10}, seed=3, **SETTING
    )
    model.load_state_dict(outcome["weights"])
    scale = datasets.normalisation(source.images[places["train"]])
    for name, part in {"pool": "pool", "fresh": "test"}.items():
        wanted = predict.logits(model, source.images[places[part]], scale)
        torch.testing.assert_close(seen[name], wanted)
    assert torch.equal(seen["labels"], source.labels[places["pool"]])
    assert torch.equal(seen["fresh_labels"], source.labels[places["test"]])
    trained_on = set(places["train"].tolist())
    assert [p in trained_on for p in places["pool"].tolist()] == seen["member"].tolist()
    assert not trained_on & set(places["test"].tolist())
    right = (seen["pool"].argmax(1) == seen["labels"]).double()
    found = seen["metrics"]
    assert found["member_accuracy"] == pytest.approx(right[seen["member"]].mean())
    assert found["nonmember_accuracy"] == pytest.approx(right[~seen["member"]].mean())


def test_a_treatment_may_change_the_setting():
    stage, given = targets.training({**TICKET, "rewind_at": 1}, seed=0, **SETTING)
    assert stage is tickets.iterative
    assert (given["rewind_at"], given["rates"]) == (1, [0.5])
    with pytest.raises(ValueError, match="did you mean dense"):
        targets.training({"name": "dens"}, seed=0, **SETTING)


def test_ones_own_images_enter_a_stage(tmp_path):
    source = datasets.load("digits")
    parts = {"images": source.images.flip(0), "labels": source.labels.flip(0)}
    mine = datasets.Dataset(
        "mine", **parts, classes=10, test=source.test, synthetic=False
    )
    named = datasets.save(mine, tmp_path / "mine.safetensors")
    given = SETTING | {"dataset": named, "treatment": DENSE, "seed": 0}
    seen = targets.answers(**given)
    places = partition.halves(mine, **SETTING["sizes"], seed=0)
    assert torch.equal(seen["labels"], mine.labels[places["pool"]])
    first = places_of(given)
    datasets.save(
        replace(mine, images=255 - mine.images, checksum=""), Path(named["file"])
    )
    os.utime(named["file"], ns=(1, 1))
    assert places_of(given) != first  # other bytes are another result


def places_of(given):
    return run_places.place(targets.answers, **given)


def test_a_shift_moves_by_pixels_and_repeats_the_edge():
    images = torch.arange(2 * 3 * 4).to(torch.uint8).view(2, 1, 3, 4)
    moved = targets.shift(images, 1, -1)[0, 0].tolist()
    assert moved == [[1, 2, 3, 3], [1, 2, 3, 3], [5, 6, 7, 7]]
    assert torch.equal(targets.shift(images, 0, 0), images)


def test_robustness_counts_right_shifts_of_what_is_right():
    score = targets.robustness(treatment=DENSE, seed=3, **SETTING)["score"]
    model, parts = targets.trained(DENSE, seed=3, **SETTING)
    images, labels = parts["pool"]
    scale = datasets.normalisation(parts["train"][0])
    padded = torch.nn.functional.pad(images.float(), [1] * 4, mode="replicate")
    right = torch.zeros(len(images))
    for i, j in [(i, j) for i in range(3) for j in range(3) if (i, j) != (1, 1)]:
        copy = padded[:, :, i : i + 8, j : j + 8].to(torch.uint8)
        right += predict.logits(model, copy, scale).argmax(1) == labels
    own = predict.logits(model, images, scale).argmax(1) == labels
    torch.testing.assert_close(score, torch.where(own, 1 + right.double() / 8, 0.0))


@pytest.mark.parametrize("method", foresight.METHODS)
def test_foresight_prunes_at_the_start_and_trains_what_is_left(method):
    rate = 0.6
    outcome = tickets.foresight(method=method, rate=rate, seed=3, **SETTING)
    parts = tickets.read(seed=3, **SETTING)
    model = tickets.build(parts=parts, seed=3, **SETTING)
    images, labels = parts["train"]
    x = normalise(images[:128], *datasets.normalisation(images))
    wanted = foresight.prune(method, model, x, labels[:128], rate)
    for name, mask in wanted.items():
        assert torch.equal(outcome["masks"][name], mask)
        assert not outcome["weights"][name][~mask].any()
    assert masks.density(wanted) == pytest.approx(1 - rate, abs=1e-3)


@pytest.mark.parametrize(
    ("sparsities", "classes", "message"),
    [
        ([0.5, 0.9], [10, 100, 1000], "sparsities must be 5 different, rising"),
        ([0.1, 0.3, 0.2, 0.4, 0.5], [10, 100, 1000], "sparsities must be 5"),
        ([0.1, 0.2, 0.3, 0.4, 0.5], [10, 10, 100], "classes must be 3 different"),
    ],
)
def test_a_grid_that_no_claim_can_read_is_refused(sparsities, classes, message):
    with pytest.raises(ValueError, match=message):
        targets.check(sparsities, classes, **SETTING)


# ------------------------------------------------------------------ attacks


def test_a_split_is_balanced_and_disjoint():
    member = torch.rand(301, generator=torch.Generator().manual_seed(0)) < 0.4
    known, judged = attacks.split(member, seed=1)
    half = int(member.sum()) // 2
    assert len(known) == len(judged) == 2 * half
    assert not set(known.tolist()) & set(judged.tolist())
    for places in (known, judged):
        assert member[places].tolist() == [True] * half + [False] * half
    assert torch.equal(attacks.split(member, seed=1)[0], known)
    assert not torch.equal(attacks.split(member, seed=2)[0], known)


def test_an_attack_learns_from_known_examples_alone(seen, monkeypatch):
    asked = []

    def spy(logits, is_member, *, seed):
        asked.append((logits, is_member))
        return lambda logits, labels=None: torch.zeros(len(logits))

    monkeypatch.setitem(attacks.ATTACKS, "mlp", spy)
    attacks.learn("mlp", seen, 40, seed=3)
    logits, member = asked[0]
    assert len(logits) == 40
    assert int(member.sum()) == 20
    known, _ = attacks.split(seen["member"], 3)
    there = (logits[:, None] == seen["pool"][known][None]).all(2).any(1)
    assert there.all()
    attacks.learn("mlp", seen, 10**6, seed=3)
    assert len(asked[1][0]) == len(known)


def test_few_samples_and_unknown_classifiers_are_refused(seen):
    with pytest.raises(ValueError, match="samples must be at least 4, got 3"):
        attacks.learn("mlp", seen, 3, seed=0)
    with pytest.raises(ValueError, match="did you mean mlp"):
        attacks.learn("mpl", seen, 10, seed=0)


def test_an_attack_is_judged_on_the_other_half(seen):
    given = SETTING | {"seed": 3, "treatment": DENSE, "samples": 200}
    found = attacks.attacked(classifier="loss threshold", **given)["metrics"]
    known, judged = attacks.split(seen["member"], 3)
    loss = signals.loss(seen["pool"], seen["labels"])
    limit = thresholds.best(loss[known], seen["member"][known])
    told = loss[judged] > limit
    truth = seen["member"][judged]
    assert found["accuracy"] == pytest.approx((told == truth).double().mean())
    assert found["fpr"] == pytest.approx(told[~truth].double().mean())
    assert found["recall"] == pytest.approx(told[truth].double().mean())
    fresh = signals.loss(seen["fresh"], seen["fresh_labels"]) > limit
    assert found["fresh_fpr"] == pytest.approx(fresh.double().mean())


def test_an_attack_that_stays_at_home_is_the_ordinary_one():
    given = SETTING | {"seed": 3, "samples": 200}
    home = {"here": DENSE, "there": TICKET}
    moved = attacks.transferred(source=DENSE, targets=home, **given)["measurements"]
    plain = attacks.attacked(classifier="mlp", treatment=DENSE, **given)["metrics"]
    assert moved["target"].tolist() == ["here", "there"]
    assert moved["value"][0] == plain["accuracy"]


def test_shadows_must_be_of_another_pool():
    given = SETTING | {"shadow_treatment": DENSE, "per_class": False, "top": 0}
    given |= {"treatment": TICKET, "group": 0}
    with pytest.raises(ValueError, match=r"of the target's pool 0, got \[0, 1\]"):
        attacks.shadowed(shadows=[1, 6], **given)


def test_a_shadow_attack_is_learned_elsewhere_and_judged_on_each_model():
    given = SETTING | {"shadow_treatment": DENSE, "treatment": TICKET, "group": 0}
    found = attacks.shadowed(shadows=[6, 7], per_class=False, top=3, **given)
    outputs = []
    for seed in (6, 7):
        seen = targets.answers(treatment=DENSE, seed=seed, **SETTING)
        places = torch.cat(attacks.split(seen["member"], seed))
        outputs.append([seen[k][places] for k in ("pool", "labels", "member")])
    attack = supervised.shadow(outputs, top=3, seed=0)
    table = found["measurements"].set_index(["seed", "metric"])["value"]
    assert sorted(set(table.index.get_level_values("seed"))) == [*range(6)]
    target = targets.answers(treatment=TICKET, seed=4, **SETTING)
    _, judged = attacks.split(target["member"], 4)
    told = attack(target["pool"][judged], target["labels"][judged]) > 0.5
    right = (told == target["member"][judged]).double().mean()
    assert table[4, "accuracy"] == pytest.approx(right)


def test_a_confounded_attack_accuses_what_is_shifted():
    network = SETTING | {"recipe": SETTING["recipe"] | {"epochs": 8}, "seed": 3}
    found = attacks.confounded(samples=200, treatment=DENSE, **network)["metrics"]
    assert found["accuracy"] > found["accuracy, equal"] + 0.1
    assert found["fresh_fpr"] > found["fpr"] + 0.2


# ------------------------------------------------------------------ families


def test_the_references_are_all_but_the_target_and_its_partner():
    assert families.others(3, 6).tolist() == [True, True, False, False, True, True]


def test_a_familys_numbers_are_those_of_each_model(family):
    table, answers = family["measurements"], []
    for seed in range(6):
        answers.append(targets.answers(treatment=DENSE, seed=seed, **SETTING))
    loss = torch.stack([signals.loss(s["pool"], s["labels"]) for s in answers])
    member = torch.stack([s["member"] for s in answers])
    assert torch.equal(family["member"], member)
    rows = table[(table["attack"] == "loss") & table["class"].isna()]
    rows = rows.set_index(["seed", "metric"])["value"]
    for seed in range(6):
        auc = roc_auc_score(member[seed], loss[seed])
        assert rows[seed, "auc"] == pytest.approx(auc, abs=1e-12)
        rest = [s for s in range(6) if s // 2 != seed // 2]
        limit = thresholds.best(loss[rest].flatten(), member[rest].flatten())
        right = ((loss[seed] > limit) == member[seed]).double().mean()
        assert rows[seed, "accuracy"] == pytest.approx(right)
    assert "tpr at 1% fpr" not in set(table["metric"]), "200 non-members are too few"


def test_the_auc_of_a_class_is_that_of_its_images(family):
    table, labels = family["measurements"], None
    rows = table[(table["attack"] == "lira, online") & table["class"].notna()]
    labels = targets.answers(treatment=DENSE, seed=0, **SETTING)["labels"]
    row = rows[(rows["seed"] == 2) & (rows["class"] == 4)]["value"].item()
    here = labels == 4
    scores, truth = family["scores"][2][here], family["member"][2][here]
    assert row == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)


def test_every_attack_of_the_suite_is_measured(family):
    names = set(family["measurements"]["attack"])
    assert names >= {"correctness", "loss", "entropy", "label only"}
    assert names >= {"lira, online", "lira, offline_tail", "lira, offline_density"}
    assert names >= {"rmia, online", "rmia, offline", "modified entropy, by class"}


def test_the_common_threshold_has_the_rate_it_is_asked_for():
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(5000, generator=generator)
    limit = thresholds.at_rate(scores, 0.01)
    assert int((scores > limit).sum()) == 50
    tied = torch.ones(100)
    assert int((tied > thresholds.at_rate(tied, 0.01)).sum()) == 0


def test_thresholds_by_class_come_from_the_references(family):
    generator = torch.Generator().manual_seed(1)
    scores = torch.rand(6, 80, generator=generator, dtype=torch.float64)
    member, labels = partition.subsets(80, 6, 0), torch.arange(80) % 3
    found = families.by_own_class(scores, member, labels)
    rest = [0, 1, 4, 5]
    for label in range(3):
        here = labels == label
        limit = thresholds.best(
            scores[rest][:, here].flatten(), member[rest][:, here].flatten()
        )
        torch.testing.assert_close(found[2][here], scores[2][here] - limit)


def test_exposure_is_the_mean_in_minus_the_mean_out():
    scaled = torch.tensor([[1.0, 5.0], [3.0, 7.0], [8.0, 9.0]], dtype=torch.float64)
    member = torch.tensor([[True, True], [False, True], [False, True]])
    found = families.exposure(scaled, member)
    assert found[0] == 1.0 - 5.5
    assert found[1].isnan(), "no model without it"


def test_exposed_compares_models_that_share_nothing():
    given = SETTING | {"group": 0}
    found = families.exposed(first=DENSE, second=TICKET, **given)
    scaled, member = {}, None
    for name, how in {"first": DENSE, "second": TICKET}.items():
        answers = [targets.answers(treatment=how, seed=s, **SETTING) for s in range(6)]
        member = torch.stack([s["member"] for s in answers]).numpy()
        scaled[name] = np.stack(
            [signals.scaled_confidence(s["pool"], s["labels"]) for s in answers]
        )

    def mean(x, m):
        with np.errstate(invalid="ignore"):
            return np.array(
                [x[m[:, i], i].sum() / m[:, i].sum() for i in range(x.shape[1])]
            )

    def exposure(x, m):
        return mean(x, m) - mean(x, ~m)

    whole = exposure(scaled["first"], member)
    np.testing.assert_allclose(found["first"], whole, atol=1e-9)
    a = exposure(scaled["first"][::2], member[::2])
    b = exposure(scaled["second"][1::2], member[1::2])
    both = np.isfinite(a) & np.isfinite(b)
    table = found["measurements"].set_index("metric")["value"]
    assert table["between"] == pytest.approx(spearmanr(a[both], b[both])[0])


def test_rows_of_a_family_carry_the_seeds_of_its_models():
    given = SETTING | {"group": 0, "treatment": DENSE, "thorough": True}
    rows = results.measure([({"arm": "dense"}, families.family, given)])
    found = [r for r in rows if r["attack"] == "loss" and r["metric"] == "auc"]
    assert [r["seed"] for r in found] == [0, 1, 2, 3, 4, 5]
    assert all(r["arm"] == "dense" for r in found)


def test_on_networks_that_overfit_every_attack_finds_members():
    recipe = {"epochs": 30, "batch": 20, "lr": 0.05, "crop": 0, "flip": False}
    sizes = {"pool": 120, "models": 6, "test": 120}
    given = SETTING | {"recipe": recipe, "sizes": sizes, "thorough": True}
    table = families.family(treatment=DENSE, group=0, **given)["measurements"]
    auc = table[table["metric"] == "auc"].groupby("attack")["value"].mean()
    assert (auc > 0.5).all(), auc
    assert metrics.auc([0.1, 0.9], [False, True]) == 1.0
