"""The controls and stronger attacks of chapter 2, on networks of a second each."""

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score
from small_pools import DENSE, SETTING, TICKET

from lottolab.images import datasets, partition
from lottolab.membership import metrics, signals
from lottolab.membership.attacks import supervised
from lottolab.membership.experiments import (
    apart,
    attacks,
    borrowed,
    encodings,
    families,
    relative,
    targets,
)
from lottolab.nets import masks, tickets, train

pytestmark = pytest.mark.usefixtures("own_store")


@pytest.fixture(scope="module")
def seen():
    return families.known(DENSE, 0, **SETTING)[1]


@pytest.fixture(scope="module")
def strongest():
    return relative.strongest(treatment=DENSE, groups=[0], **SETTING)


# ---------------------------------------------------- masks of other images


def images_of(found_on):
    """Return images and labels on which the mask of seed 2 is to be found."""
    if found_on == "outsiders":
        images, labels, member = apart.disjoint(0, 2, 6, **SETTING)
        return images[member], labels[member]
    source = datasets.load("digits")
    out = partition.halves(source, **SETTING["sizes"], seed=2)["out"]
    partner = partition.halves(source, **SETTING["sizes"], seed=3)["train"]
    assert set(out.tolist()) == set(partner.tolist())
    return source.images[out], source.labels[out]


@pytest.mark.parametrize("found_on", ["partner", "outsiders"])
def test_a_borrowed_mask_is_found_on_other_images_from_the_same_weights(found_on):
    given = SETTING | {"seed": 2}
    outcome = borrowed.ticket(rates=[0.5], found_on=found_on, **given)
    parts = tickets.read(**given)
    model = tickets.build(parts=parts, **given)
    start = {k: v.clone() for k, v in model.state_dict().items()}
    recipe = train.recipe(SETTING["recipe"])
    train.fit(model, *images_of(found_on), recipe, seed=2)
    state = {k: v.cpu() for k, v in model.state_dict().items()}
    wanted = masks.magnitude(state, masks.dense(model), 0.5)
    own = tickets.iterative(rates=[0.5], **given)["masks"]
    for name, mask in wanted.items():
        assert torch.equal(outcome["masks"][name], mask)
        assert not outcome["weights"][name][~mask].any()
    assert any(not torch.equal(own[name], mask) for name, mask in wanted.items())
    trained = tickets.retrain(start, wanted, **given)["weights"]
    for name, weight in trained.items():
        torch.testing.assert_close(outcome["weights"][name], weight)


def test_a_borrowed_mask_needs_one_step_back_to_the_initialisation():
    with pytest.raises(ValueError, match="one pruning rate"):
        borrowed.ticket(rates=[0.5, 0.5], found_on="partner", seed=0, **SETTING)
    late = SETTING | {"rewind_at": 1}
    with pytest.raises(ValueError, match="rewind_at must be 0"):
        borrowed.ticket(rates=[0.5], found_on="partner", seed=0, **late)
    with pytest.raises(ValueError, match="found_on must be one of"):
        borrowed.ticket(rates=[0.5], found_on="pool", seed=0, **SETTING)
    apart_sizes = {"train": 100, "val": 0, "test": 50}
    with pytest.raises(ValueError, match="sizes must be those of"):
        borrowed.partner(seed=0, **SETTING | {"sizes": apart_sizes})


def test_the_answers_of_a_borrowed_mask_have_the_seeds_own_members():
    how = {"name": "borrowed", "rates": [0.5], "found_on": "outsiders"}
    found = borrowed.answers(treatment=how, seed=2, **SETTING)
    seeds, pool = relative.known(how, 0, **SETTING)
    assert seeds == list(range(6))
    assert torch.equal(pool[2]["pool"], found["pool"])
    own = targets.answers(treatment=DENSE, seed=2, **SETTING)
    assert torch.equal(found["member"], own["member"])
    assert not torch.equal(found["pool"], own["pool"])


# ---------------------------------------------------------------- encodings


def judged_by(seen, seed, samples, top):
    known, judged = attacks.split(seen["member"], seed)
    half = len(known) // 2
    places = torch.cat([known[:samples], known[half : half + samples]])
    z = seen["pool"].softmax(1)
    x = (z if top is None else z.sort(1, descending=True).values[:, :top]).numpy()
    mlp = supervised.CLASSIFIERS["mlp"](seed)
    mlp.fit(x[places], seen["member"][places].numpy())
    truth = seen["member"][judged].numpy()
    return (mlp.predict(x[judged]) == truth).mean(), len(places)


@pytest.mark.parametrize(("top", "given"), [(0, None), (3, 3), (99, 10)])
def test_the_attack_learns_from_all_that_is_known_unless_it_is_capped(seen, top, given):
    asked = {"treatment": DENSE, "seed": 1, "top": top} | SETTING
    for samples, each in ((0, 100), (40, 20)):
        wanted, count = judged_by(seen[1], 1, each, given)
        assert count == 2 * each
        found = encodings.learned(samples=samples, **asked)["metrics"]
        assert found["accuracy"] == pytest.approx(wanted)


def test_the_encoding_is_chosen_on_other_networks(monkeypatch):
    others, tops = [0, 2, 3], [0, 2, 10]
    given = {"treatment": DENSE, "samples": 0} | SETTING
    table = np.array(
        [
            [
                encodings.learned(top=t, seed=s, **given)["metrics"]["accuracy"]
                for s in others
            ]
            for t in tops
        ]
    )
    best = tops[int(table.mean(1).argmax())]
    asked = {"treatment": DENSE, "tops": tops, "others": others} | SETTING
    found = encodings.chosen(seed=1, **asked)["metrics"]
    own = encodings.learned(top=best, seed=1, **given)["metrics"]
    assert found == own | {"top": best}
    with pytest.raises(ValueError, match="must not name the target"):
        encodings.chosen(seed=2, **asked)
    with pytest.raises(ValueError, match="at least one seed"):
        encodings.chosen(seed=2, **asked | {"others": []})


# ------------------------------------------------- RMIA and the strongest


def test_rmia_at_one_is_a_share_of_z_and_ties_less(seen):
    member = torch.stack([s["member"] for s in seen])
    found = relative.at_one(seen, member)
    p = torch.stack([signals.confidence(s["pool"], s["labels"]) for s in seen]).numpy()
    z = torch.stack(
        [signals.confidence(s["fresh"], s["fresh_labels"]) for s in seen]
    ).numpy()
    target, rest = 4, [0, 1, 2, 3]  # 5 is the partner
    inside = member[rest].numpy()
    ins = np.where(inside, p[rest], 0).sum(0) / inside.sum(0)
    outs = np.where(inside, 0, p[rest]).sum(0) / (~inside).sum(0)
    ratio = p[target] / ((ins + outs) / 2)
    usual = {
        "rmia, online, gamma 1": z[rest].mean(0),
        "rmia, online, gamma 1, largest half": np.sort(z[rest], 0)[2:].mean(0),
    }
    for name, mean in usual.items():
        share = (ratio[:, None] >= z[target] / mean).mean(1)
        np.testing.assert_allclose(found[name][target], share, atol=1.5 / len(z[0]))
    old = families.ratios(seen, member)["rmia, online"][target]
    assert len(old.unique()) < len(found["rmia, online, gamma 1"][target].unique())
    # within one target γ moves no example past another
    two, one = old.numpy(), found["rmia, online, gamma 1"][target].numpy()
    order = np.lexsort((two, one))
    assert (np.diff(two[order]) >= 0).all()


def test_the_strongest_is_what_is_best_on_the_other_pairs(seen, strongest):
    scores, member = families.scored(seen)
    scores |= relative.at_one(seen, member)
    names = sorted(scores)
    for metric, sort in (("auc", metrics.auc), ("accuracy", None)):
        rows = strongest["measurements"]
        rows = rows[rows["metric"] == metric].set_index("seed")
        table = families.judged(scores, member, list(range(6)))
        values = {(r["attack"], r["seed"]): r for r in table if r["metric"] == metric}
        for seed in range(6):
            rest = [s for s in range(6) if s // 2 != seed // 2]
            means = [
                np.mean(
                    [
                        np.mean([values[name, s]["value"] for s in pair])
                        for pair in zip(rest[::2], rest[1::2], strict=True)
                    ]
                )
                for name in names
            ]
            best = names[int(np.argmax(means))]
            assert rows.loc[seed, "chosen"] == best
            assert rows.loc[seed, "value"] == values[best, seed]["value"]
            kept = strongest[f"{metric} scores"][seed]
            assert torch.equal(kept, scores[best][seed])
            if sort:
                assert sort(kept, member[seed]) == rows.loc[seed, "value"]


def test_differences_have_the_spread_of_models_and_images(strongest):
    other = relative.strongest(treatment=TICKET, groups=[0], **SETTING)
    rows = relative.compared(first=DENSE, second=TICKET, groups=[0], **SETTING)
    rows = rows["measurements"].set_index("metric")
    areas = [
        [
            roc_auc_score(m, s)
            for m, s in zip(side["member"], side["auc scores"], strict=True)
        ]
        for side in (strongest, other)
    ]
    means = np.mean(areas, 1)
    found = rows.loc["auc difference"]
    assert (found["seed"], found["clusters"]) == (0, 3)  # a row; pairs, not models
    assert found["value"] == pytest.approx(means[1] - means[0])
    wanted = stats.norm.ppf(means[1]) - stats.norm.ppf(means[0])
    assert rows.loc["auc difference, probit", "value"] == pytest.approx(wanted)
    # resampling images alone must not spread more than the error that is told
    rng, drawn = np.random.default_rng(0), []
    for _ in range(200):
        places = rng.integers(0, 400, 400)
        sides = [
            np.mean(
                [
                    roc_auc_score(m[places], s[places])
                    for m, s in zip(side["member"], side["auc scores"], strict=True)
                ]
            )
            for side in (strongest, other)
        ]
        drawn.append(sides[1] - sides[0])
    assert found["error"] > 0.5 * np.std(drawn)


# ------------------------------------------------------------ shadows apart


def test_shadows_share_no_image_with_the_pool_that_they_attack():
    source = datasets.load("digits")
    pool = partition.halves(source, **SETTING["sizes"], seed=0)["pool"]
    theirs = {image.numpy().tobytes() for image in source.images[pool]}
    given = {k: SETTING[k] for k in ("dataset", "sizes")}
    trained = []
    for place in range(4):
        images, labels, member = apart.disjoint(0, place, 4, **given)
        assert len(images) == len(labels) == 400
        assert not theirs & {image.numpy().tobytes() for image in images}
        trained.append(member)
    assert torch.equal(trained[0], ~trained[1])
    assert torch.equal(trained[2], ~trained[3])
    assert not torch.equal(trained[0], trained[2])
    beside = partition.halves(source, **SETTING["sizes"], seed=6)["pool"]
    assert theirs & {image.numpy().tobytes() for image in source.images[beside]}


@pytest.mark.parametrize("rates", [[], [0.5]])
def test_a_shadow_apart_is_trained_on_its_members_and_pruned(rates):
    given = {"group": 0, "place": 1, "shadows": 4, "rates": rates, "seed": 7}
    found = apart.shadow(**given, **SETTING)
    images, labels, member = apart.disjoint(
        0, 1, 4, dataset="digits", sizes=SETTING["sizes"]
    )
    assert torch.equal(found["member"], member)
    right = (found["pool"].argmax(1) == labels).double()
    assert found["metrics"]["member_accuracy"] == pytest.approx(right[member].mean())
    parts = {"train": (images[member], labels[member]), "classes": 10}
    model = tickets.build(parts=parts, seed=7, **SETTING)
    recipe = train.recipe(SETTING["recipe"])
    train.fit(model, *parts["train"], recipe, seed=7)
    same = torch.equal(
        found["pool"].argmax(1),
        apart.predict.logits(
            model, images, datasets.normalisation(images[member])
        ).argmax(1),
    )
    assert same == (not rates)


def test_shadows_apart_attack_every_model_of_the_pool():
    given = {"shadows": [12, 13, 14, 15], "rates": [], "per_class": False, "top": 3}
    rows = apart.shadowed(treatment=DENSE, group=0, **given, **SETTING)["measurements"]
    wide = rows.pivot(index="seed", columns="metric", values="value")
    assert list(wide.index) == list(range(6))
    assert wide["auc"].between(0, 1).all()
    assert wide["accuracy"].nunique() > 1
