"""The stages of chapter 3, on libraries of four tiny networks."""

import numpy as np
import pandas as pd
import pytest
import torch
import trainings

from lottolab.ensembles import masking, sampler
from lottolab.ensembles.attacks import gradient
from lottolab.ensembles.experiments import bounded, libraries, scenes, studies, trials
from lottolab.ensembles.queries import correct
from lottolab.ensembles.tickets import kept
from lottolab.images import datasets
from lottolab.nets import train

pytestmark = [
    pytest.mark.filterwarnings("ignore:there are"),
    pytest.mark.usefixtures("on_one_thread"),
]
NAMES = ("cnn4", "resnet8", "vgg16_bn", "resnet18")
RECIPE = {"epochs": 2, "batch": 20, "crop": 0, "flip": False}
RADIUS = 0.1
RATIOS = [0.4, 0.7]
SETTING = {
    "dataset": "digits",
    "background": "plain",
    "sizes": {"train": 200, "val": 30, "test": 40},
    "inner": {"epsilon": RADIUS, "step": 0.12, "steps": 1},
    "recipe": RECIPE | {"lr": 0.1},
    "search": RECIPE | {"lr": 1.0},
    "structures": [
        {"network": {"name": name, "width": 4}, "ratios": RATIOS} for name in NAMES
    ],
    "seed": 3,
}
ALL = {k: v for k, v in SETTING.items() if k != "seed"}
ONE = {k: v for k, v in ALL.items() if k not in ("structures", "recipe")}
TAUGHT = ONE | {"sizes": {"train": 200, "val": 0, "test": 0}}
PGD = {"name": "pgd", "epsilon": RADIUS, "step": 0.03, "steps": 4}
PGD |= {"eot": 3, "over": "losses"}
BALL = {"epsilon": RADIUS, "eot": 3}
ATTACKS = {
    "none": {"name": "none", "epsilon": 0.0},
    "pgd": PGD,
    "logits": PGD | {"over": "logits"},
    "ce": {"name": "apgd", "steps": 4, "loss": "ce"} | BALL,
    "dlr": {"name": "apgd", "steps": 4, "loss": "dlr"} | BALL,
    "square": {"name": "square", "queries": 5} | BALL,
    "candidates": {k: v for k, v in PGD.items() if k not in ("eot", "over")}
    | {"name": "candidates"},
    "targeted": {"name": "apgd", "steps": 4, "loss": "targeted", "targets": 2} | BALL,
    "arc": {"name": "arc", "epsilon": RADIUS, "step": 0.03, "steps": 2},
    "arc, teams": {"name": "arc", "epsilon": RADIUS, "step": 0.03, "steps": 2}
    | {"teams": 3},
    "universal": {"name": "universal", "step": 0.03, "epochs": 2} | BALL,
}
DEFENCES = {
    "dense": {"name": "dense", "place": 1},
    "ticket": {"name": "ticket", "place": 2, "rank": 1},
    "best": {"name": "best", "epsilon": RADIUS},
    "one": {"name": "one", "place": 1},
    "theta": {"name": "theta"},
    "matched": {"name": "matched", "place": 3},
    "team": {"name": "team"},
    "static": {"name": "static"},
}


@pytest.fixture(scope="module", autouse=True)
def fits(tmp_path_factory):
    """Give the module a store of its own and list its trainings."""
    libraries._networks.cache_clear()
    with trainings.noted(tmp_path_factory.mktemp("store")) as found:
        yield found
    libraries._networks.cache_clear()


@pytest.fixture(scope="module")
def shown():
    """Return the test images and labels, and the networks by place."""
    images = libraries.test(libraries.read(**SETTING))
    return *images, libraries.networks(**SETTING)


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------ libraries


def test_a_ticket_keeps_its_share_of_every_layer_of_the_library_s_weights(shown):
    shelf = libraries.shelf(**SETTING)
    for i, name in enumerate(NAMES):
        frame = shelf.frames[str(i)]
        for rank, ratio in enumerate(RATIOS):
            network = {"name": name, "width": 4}
            found = libraries.ticket(network=network, ratio=ratio, **TAUGHT, seed=3)
            for layer, mask in found["masks"].items():
                assert int(mask.sum()) == kept(mask.numel(), ratio)
                assert len(frame.get_parameter(layer).abs().unique()) == 1
            loose = shelf.network(str(i), ratio)
            for layer, mask in found["masks"].items():
                assert torch.equal(loose.model.get_parameter(layer) != 0, mask)
            x, _, groups = shown
            close(groups[i][rank](x), loose(x))
            assert found["metrics"] == {"loss": found["history"]["loss"].iloc[-1]}


def test_another_seed_is_another_library():
    network = {"name": "cnn4", "width": 4}
    a, b = (
        libraries.spec(network, libraries.read(**ONE, seed=seed), seed)
        for seed in (3, 4)
    )
    frames = [
        libraries.Library({"": s}, (torch.zeros(1), torch.ones(1))) for s in (a, b)
    ]
    one, other = (f.frames[""].conv2.weight for f in frames)
    assert not torch.equal(one, other)
    first, second = (libraries.read(**ONE, seed=seed)["test"][0] for seed in (3, 4))
    assert not torch.equal(first, second)


def test_tickets_and_dense_networks_learn_from_adversarial_examples(fits):
    given = {"network": {"name": "cnn4", "width": 4}, "seed": 3}
    fits.clear()
    libraries.ticket.__wrapped__(ratio=0.4, **given, **ONE)
    dense = {k: v for k, v in ONE.items() if k != "search"}
    libraries.dense.__wrapped__(recipe=SETTING["recipe"], **given, **dense)
    assert len(fits) == 2
    parts = libraries.read(**SETTING)
    scale = datasets.normalisation(parts["train"][0])
    for training in fits:
        assert torch.equal(training["images"], parts["train"][0])
        assert training["loss"] is not train.cross_entropy
        assert torch.equal(training["after"]["mean"].flatten(), scale[0])
    assert any("scores" in name for name in fits[0]["after"])
    assert not any("scores" in name for name in fits[1]["after"])


def test_a_texture_replaces_black_and_nothing_else():
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 3, (50, 2, 28, 28), np.uint8))
    state = torch.get_rng_state()
    found = libraries.textured(images, 7)
    assert torch.equal(torch.get_rng_state(), state)
    there = images > 0
    assert torch.equal(found[there], images[there])
    assert found.dtype == torch.uint8
    bright = found[~there].float()
    assert 110 < bright.mean() < 145
    assert bright.std() > 40
    assert torch.equal(found, libraries.textured(images, 7))
    assert not torch.equal(found, libraries.textured(images, 8))
    black = torch.zeros(2, 1, 28, 28, dtype=torch.uint8)
    one, other = libraries.textured(black, 7).float()
    assert not torch.equal(one, other)
    assert (one.diff(dim=2)).abs().mean() < 0.5 * one.std()  # smooth


def test_every_split_is_textured_and_nothing_else_changes():
    plain = libraries.read(**SETTING)
    other = libraries.read(**SETTING | {"background": "textured"})
    for name in ("train", "val", "test"):
        assert torch.equal(plain[name][1], other[name][1])
        black = plain[name][0] == 0
        assert torch.equal(plain[name][0][~black], other[name][0][~black])
        assert (other[name][0][black] > 0).double().mean() > 0.9
    for reading in (libraries.read, scenes.shown):
        with pytest.raises(ValueError, match="must be one of plain, textured"):
            reading(**SETTING | {"background": "black"})


def test_no_image_that_is_shown_stands_before_the_texture_of_another_split():
    setting = SETTING | {"background": "textured"}
    trained = libraries.read(**setting)
    shown = scenes.shown(**setting)
    for name in ("val", "test"):
        images, labels = shown[name]
        plain = scenes.shown(**SETTING)[name]
        assert torch.equal(
            plain[0], libraries.pixels(libraries.read(**SETTING)[name])[0]
        )
        assert torch.equal(labels, trained[name][1])
        there = plain[0] > 0
        assert torch.equal(images[there], plain[0][there])
    plain = libraries.read(**SETTING)
    for i in range(min(len(shown[name][0]) for name in shown)):
        grounds = [trained["train"][0][i] / 255, *(shown[n][0][i] for n in shown)]
        black = [plain[name][0][i] == 0 for name in ("train", *shown)]
        every = black[0] & black[1] & black[2]
        for a, b in ((0, 1), (0, 2), (1, 2)):
            assert not torch.equal(grounds[a][every], grounds[b][every])


def test_the_best_ticket_is_the_most_accurate_on_validation_images(shown):
    parts, groups = libraries.read(**SETTING), shown[2]
    x, y = libraries.pixels(parts["val"])
    found = libraries.best(steps=3, epsilon=RADIUS, **SETTING)
    ball = {"epsilon": RADIUS, "step": 2.5 * RADIUS / 3, "steps": 3}
    scores = {}
    for i, group in enumerate(groups):
        for j, network in enumerate(group):
            moved = gradient.pgd(network, x, y, **ball, seed=3)
            scores[i, j] = float(correct(network, moved, y).double().mean())
    assert scores[found["place"], found["rank"]] == max(scores.values())


def test_the_best_ticket_is_chosen_at_the_radius_at_which_it_is_judged(monkeypatch):
    asked = []

    def keep(model, x, y, **options):
        asked.append(options)
        return x

    monkeypatch.setattr(libraries, "pgd", keep)
    libraries.best.__wrapped__(steps=5, epsilon=0.3, **SETTING)
    assert {(a["epsilon"], a["step"]) for a in asked} == {(0.3, 0.15)}
    monkeypatch.setattr(libraries, "best", lambda **given: asked.append(given) or found)
    found = {"place": 2, "rank": 1}
    how = {"name": "best", "epsilon": 0.3}
    chosen = libraries.model(defence=how, **SETTING)
    assert asked[-1]["epsilon"] == 0.3
    assert chosen is libraries.networks(**SETTING)[2][1]


def test_each_defence_answers_as_its_name_says(shown):
    x, _, groups = shown
    every = [network(x) for group in groups for network in group]
    close(libraries.model(defence=DEFENCES["static"], **SETTING)(x), sum(every) / 8)
    ticket = libraries.model(defence=DEFENCES["ticket"], **SETTING)
    close(ticket(x), groups[2][1](x))
    one = libraries.model(defence=DEFENCES["one"], **SETTING)
    drawn = {
        next(j for j, n in enumerate(groups[1]) if torch.allclose(n(x), said))
        for said in (one(x) for _ in range(12))
    }
    assert drawn == {0, 1}
    matched = libraries.model(defence=DEFENCES["matched"], **SETTING)
    assert list(matched.networks) == groups[3]
    assert max(len(matched.draw()) for _ in range(50)) == 2
    team = libraries.model(defence=DEFENCES["team"], **SETTING)
    assert not isinstance(team, sampler.Sampler)
    theta = libraries.model(defence=DEFENCES["theta"], **SETTING)
    assert list(team.networks) == list(theta.ensemble(theta.draw()).networks)
    for _ in range(3):
        last = theta.ensemble(theta.draw())
    later = libraries.model(defence=DEFENCES["team"] | {"draw": 3}, **SETTING)
    assert list(later.networks) == list(last.networks)
    found = libraries.best(steps=5, epsilon=RADIUS, **SETTING)
    best = libraries.model(defence=DEFENCES["best"], **SETTING)
    assert best is groups[found["place"]][found["rank"]]
    dense = libraries.model(defence=DEFENCES["dense"], **SETTING)
    given = {k: v for k, v in TAUGHT.items() if k != "search"}
    trained = libraries.dense(
        network={"name": "resnet8", "width": 4},
        recipe=SETTING["recipe"],
        **given,
        seed=3,
    )
    bias = trained["weights"]["fc.bias"]
    assert torch.equal(dense.model.fc.bias, bias)


def test_what_is_attacked_changes_nothing_that_is_trained(fits):
    """So scales that attack more or fewer images share their networks."""
    libraries.networks(**SETTING)
    fits.clear()
    more = SETTING | {"sizes": SETTING["sizes"] | {"val": 31, "test": 41}}
    libraries._networks.cache_clear()
    groups = libraries.networks(**more)
    x = libraries.test(libraries.read(**SETTING))[0]
    close(groups[0][0](x), libraries.networks(**SETTING)[0][0](x))
    libraries.model(defence=DEFENCES["dense"], **SETTING)
    fits.clear()
    libraries.model(defence=DEFENCES["dense"], **more)
    assert not fits


def test_a_matched_team_is_as_large_as_the_ensemble_s(monkeypatch):
    asked = []
    monkeypatch.setattr(libraries, "networks", lambda **_: [[torch.nn.Identity()] * 8])
    found = libraries.model(defence=DEFENCES["matched"], **SETTING)
    theta = libraries.theta
    generator = torch.Generator().manual_seed(0)
    for _ in range(3000):
        asked.append((len(found.draw()), len(theta([8] * 4, generator))))
    ours, theirs = np.array(asked).T
    assert abs(ours.mean() - theirs.mean()) < 0.12
    assert abs(ours.mean() - 32 / 15 * 1.35) < 0.08


def test_other_chances_draw_other_sizes():
    drawn = {}
    for chances in ([1.0, 0.0], [0.0, 1.0]):
        how = {"name": "theta", "chances": chances}
        found = libraries.model(defence=how, **SETTING)
        drawn[chances[0]] = [found.draw() for _ in range(30)]
    for team in drawn[1.0]:
        assert len({i for i, _ in team}) == len(team)
    for team in drawn[0.0]:
        assert 2 * len({i for i, _ in team}) == len(team)


def test_an_unknown_defence_is_refused():
    with pytest.raises(
        ValueError, match=r"defence must be one of dense, .* got 'bets'"
    ):
        libraries.model(defence={"name": "bets"}, **SETTING)


# ------------------------------------------------------------------ trials


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("defence", ["theta", "dense", "one"])
def test_examples_stay_in_the_ball_and_do_harm(name, defence, shown):
    x = shown[0]
    how = {"defence": DEFENCES[defence], "attack": ATTACKS[name]}
    found = trials.examples(**how, **SETTING)["images"]
    assert found.shape == x.shape
    assert float((found - x).abs().max()) <= ATTACKS[name]["epsilon"] + 1e-6
    assert 0 <= found.min() <= found.max() <= 1
    if name == "none":
        assert torch.equal(found, x)
    else:
        assert not torch.equal(found, x)
    if name not in ("none", "square", "universal"):
        rates = trials.scored(**how, draws=10, **SETTING)["metrics"]
        before = trials.scored(
            defence=DEFENCES[defence], attack=ATTACKS["none"], draws=10, **SETTING
        )["metrics"]
        assert rates["accuracy"] < before["accuracy"]


def test_attacks_know_what_is_drawn(monkeypatch):
    asked = []

    def keep(model, x, y, **options):
        asked.append((model, options))
        return x

    monkeypatch.setattr(trials, "pgd", keep)
    monkeypatch.setattr(trials, "arc", keep)
    for name in ("theta", "static"):
        how = {"defence": DEFENCES[name]}
        trials.examples.__wrapped__(**how, attack=PGD, **SETTING)
        trials.examples.__wrapped__(**how, attack=PGD | {"stop": False}, **SETTING)
    drawn, drawn_on, fixed, fixed_on = (options for _, options in asked)
    for options in (drawn, drawn_on):
        assert (options["eot"], options["stop"]) == (3, False)
    assert (fixed["eot"], fixed["stop"]) == (1, True)
    assert (fixed_on["eot"], fixed_on["stop"]) == (1, False)
    asked.clear()
    for name in ("one", "theta", "static"):
        how = {"defence": DEFENCES[name]}
        trials.examples.__wrapped__(**how, attack=ATTACKS["arc"], **SETTING)
    members = [found for found, _ in asked]
    assert members[0] == libraries.networks(**SETTING)[1]
    assert members[1] == [n for group in libraries.networks(**SETTING) for n in group]
    assert [len(m) for m in members] == [2, 8, 1]
    asked.clear()
    how = {"defence": DEFENCES["theta"], "attack": ATTACKS["arc, teams"]}
    trials.examples.__wrapped__(**how, **SETTING)
    assert len(asked[0][0]) == 3
    asked.clear()
    for name in ("theta", "dense"):
        how = {"defence": DEFENCES[name], "attack": ATTACKS["candidates"]}
        trials.examples.__wrapped__(**how, **SETTING)
    (every, _), (alone, _) = asked
    assert list(every.networks) == members[1]
    assert not isinstance(alone, sampler.Ensemble)


def test_a_universal_perturbation_has_not_seen_the_test_images(monkeypatch):
    seen = []

    def keep(model, x, y, **options):
        seen.append(x)
        return torch.full_like(x[:1], 0.05)

    monkeypatch.setattr(trials, "universal", keep)
    how = {"defence": DEFENCES["dense"], "attack": ATTACKS["universal"]}
    found = trials.examples.__wrapped__(**how, **SETTING)["images"]
    parts = libraries.read(**SETTING)
    assert torch.equal(seen[0], parts["val"][0] / 255)
    assert torch.equal(found, (parts["test"][0] / 255 + 0.05).clamp(0, 1))


def test_a_score_has_a_draw_for_each_image(shown):
    """The worst case of one draw a batch would leave more images."""
    x, y, groups = shown
    how = {"defence": DEFENCES["one"], "attack": ATTACKS["none"]}
    rates = trials.scored(**how, draws=40, **SETTING)["metrics"]
    right = torch.stack([correct(network, x, y) for network in groups[1]])
    assert rates["worst"] == pytest.approx(float(right.all(0).double().mean()))
    assert rates["accuracy"] == pytest.approx(float(right.double().mean()), abs=0.05)
    target = libraries.model(defence=DEFENCES["one"], **SETTING)
    hit = trials.hits(target, x, y, 40, 0)
    either = right[0] ^ right[1]
    assert hit.shape == (40, len(x))
    shares = hit[:, either].double().mean(0)
    assert len(shares) < 2 or len(shares.unique()) > 1


def test_the_worst_of_several_draws_is_a_mean_over_rounds():
    right = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 1], [1, 1, 0]]).bool()
    found = trials.rates(right, 2)
    assert found["accuracy"] == pytest.approx(8 / 12)
    assert found["worst"] == pytest.approx((1 + 2) / 6)  # one image, then two
    assert trials.rates(right[:1], 20)["worst"] == pytest.approx(2 / 3)


def test_a_drop_is_what_the_attack_takes_and_no_draw(shown):
    """Under no attack the worst of many draws is low already, and nothing dropped."""
    for name in ("one", "dense"):
        how = {"defence": DEFENCES[name], "draws": 5}
        clean, hurt = (
            trials.scored(attack=a, **how, **SETTING)["metrics"]
            for a in (ATTACKS["none"], PGD)
        )
        assert clean["drop"] == clean["worst drop"] == 0
        for drop, of in (("drop", "accuracy"), ("worst drop", "worst")):
            assert hurt[drop] == pytest.approx(clean[of] - hurt[of])
    one = trials.scored(
        defence=DEFENCES["one"], attack=ATTACKS["none"], draws=40, **SETTING
    )["metrics"]
    assert one["worst"] < one["accuracy"]


def test_what_does_not_draw_is_scored_once(shown):
    x, y, _ = shown
    target = libraries.model(defence=DEFENCES["static"], **SETTING)
    assert torch.equal(trials.hits(target, x, y, 9, 0), correct(target, x, y)[None])


def test_scores_are_of_other_draws_than_attacks_had(monkeypatch):
    seeds = []

    def keep(target, x, y, *, draws, seed):
        seeds.append(seed)
        return torch.ones(draws, len(x), dtype=torch.bool)

    monkeypatch.setattr(trials, "repeated", keep)
    how = {"defence": DEFENCES["theta"], "draws": 2}
    trials.scored.__wrapped__(**how, attack=ATTACKS["none"], **SETTING)
    both = [ATTACKS["none"], PGD]
    trials.strongest.__wrapped__(**how, attacks=both, **SETTING)
    score, clean, first, second, last, clean_again = seeds
    assert first == second != score == clean == last == clean_again
    assert 3 not in seeds


def test_the_strongest_attack_is_chosen_image_by_image(shown):
    y = shown[1]
    how = {"defence": DEFENCES["static"]}
    several = [ATTACKS[name] for name in ("none", "square", "pgd", "dlr")]
    target, right = libraries.model(**how, **SETTING), []
    for attack in several:
        x = trials.examples(**how, attack=attack, **SETTING)["images"]
        right.append(correct(target, x, y))
    rates = trials.strongest(**how, attacks=several, draws=2, **SETTING)["metrics"]
    least = float(torch.stack(right).all(0).double().mean())
    assert rates["accuracy"] == rates["worst"] == pytest.approx(least)
    clean = float(right[0].double().mean())
    assert rates["drop"] == rates["worst drop"] == pytest.approx(clean - least)
    with pytest.raises(ValueError, match="attacks must hold at least one, got 0"):
        trials.strongest(**how, attacks=[], draws=2, **SETTING)


def test_unknown_attacks_are_refused():
    with pytest.raises(ValueError, match=r"attack must be one of none, pgd, .*'pdg'"):
        trials.examples(defence=DEFENCES["dense"], attack={"name": "pdg"}, **SETTING)


def test_asking_names_attack_and_radius_in_255ths():
    attack = PGD | {"epsilon": 8 / 255}
    found = trials.asked(
        ALL, [1, 2], DEFENCES["one"], {"PGD": attack}, 5, arm="R2S", place="first"
    )
    assert [given["seed"] for _, _, given in found] == [1, 2]
    for columns, stage, given in found:
        assert columns.pop("epsilon") == pytest.approx(8)
        assert columns == {"attack": "PGD", "arm": "R2S", "place": "first"}
        assert stage is trials.scored
        assert given["attack"] == attack
        assert given["draws"] == 5


# ------------------------------------------------------------------ studies


def test_transfer_sorts_pairs_by_what_they_share(shown):
    _, y, groups = shown
    found = studies.transfer(attack=PGD, **SETTING)
    pairs, rows = found["matrix"], found["measurements"]
    assert len(pairs) == 8 * 8
    key = ["place", "rank", "source_place", "source_rank"]
    values = pairs.set_index(key)["accuracy"]
    moved = trials.examples(defence=DEFENCES["ticket"], attack=PGD, **SETTING)["images"]
    for place, rank in ((2, 1), (0, 1)):
        share = float(correct(groups[place][rank], moved, y).double().mean())
        assert values[place, rank, 2, 1] == pytest.approx(share)
    groups_of = {"itself": [], "other ratio": [], "other structure": []}
    for (a, b, c, d), value in values.items():
        same = "itself" if b == d else "other ratio"
        groups_of[same if a == c else "other structure"].append((a, value))
    for relation, members in groups_of.items():
        here = rows[rows["relation"] == relation].set_index(["place", "metric"])
        here = here["value"]
        mean = np.mean([v for _, v in members])
        assert here["all", "accuracy"] == pytest.approx(mean)
        third = [v for place, v in members if place == 2]
        assert here["third", "accuracy"] == pytest.approx(np.mean(third))
        assert here["third", "lowest accuracy"] == min(third)
        assert here["third", "highest accuracy"] == max(third)


def test_a_structure_s_tickets_are_summarised(shown):
    x, y, groups = shown
    rows = studies.transfer(attack=PGD, **SETTING)["measurements"]
    clean = [float(correct(n, x, y).double().mean()) for n in groups[1]]
    own = rows[(rows["place"] == "second") & (rows["metric"] == "clean_accuracy")]
    kinds = own[own["of"] != "ticket"].set_index("of")["value"].to_dict()
    assert kinds == pytest.approx(
        {"lowest": min(clean), "mean": np.mean(clean), "highest": max(clean)}
    )
    each = own[own["of"] == "ticket"].set_index("ratio")["value"].to_dict()
    assert each == pytest.approx(dict(zip(RATIOS, clean, strict=True)))
    robust = rows[rows["metric"] == "robust_accuracy"]
    means = robust[robust["of"] == "mean"].set_index("place")["value"]
    weights = [sum(p.numel() for p in g[0].parameters()) for g in shown[2]]
    for name, i in (("smallest", np.argmin(weights)), ("largest", np.argmax(weights))):
        value = robust[robust["of"] == f"{name} structure"]["value"].item()
        assert value == pytest.approx(means[libraries.PLACES[i]])
    least = robust[robust["of"] == "least"]["value"].item()
    assert least == pytest.approx(robust[robust["of"] == "ticket"]["value"].min())


def test_signs_of_masked_gradients_are_counted(monkeypatch):
    asked = {}

    def keep(model, x, y, *, black_box, **options):
        asked.update(options, x=x, black_box=black_box)
        table = {"check": ["a", "b", "c"], "value": [0.0, 0.5, 0.9]}
        return pd.DataFrame(table | {"limit": 0.1, "masked": [False, True, True]})

    monkeypatch.setattr(masking, "findings", keep)
    how = {"defence": DEFENCES["static"], "attack": PGD, "black_box": ATTACKS["square"]}
    found = studies.masked.__wrapped__(images=7, **how, **SETTING)["measurements"]
    assert found.set_index("metric").loc["signs", "value"] == 2
    assert found[found["metric"] == "finding"]["value"].tolist() == [0.0, 0.5, 0.9]
    assert (asked["eot"], asked["stop"], len(asked["x"])) == (1, True, 7)
    assert len(asked["black_box"]["square"]) == 7


def test_a_library_costs_one_copy_and_a_bit_a_weight():
    rows = studies.cost(**SETTING)["measurements"].set_index("form")["value"]
    shelf = libraries.shelf(**SETTING)
    weights = [sum(p.numel() for p in f.parameters()) for f in shelf.frames.values()]
    assert rows["one network"] == pytest.approx(4 * np.mean(weights))
    spared = rows["whole"] - rows["bits"]
    # Two copies of 32 bits become one, and twice a bit for what a mask covers.
    assert spared == pytest.approx(sum(weights) * (4 - 2 / 8), rel=0.01)
    rates = studies.speed(repeats=1, **SETTING)
    assert set(rates) == {"bits", "whole"}
    assert min(rates.values()) > 0


def test_the_best_law_is_found_on_some_images_and_scored_on_others(shown):
    x, y, groups = shown
    networks = [network for group in groups for network in group]
    own = {"epsilon": RADIUS, "step": 0.03, "steps": 2}
    given = {"attacks": [ATTACKS["arc"]], "alone": PGD | {"stop": False}, "own": own}
    found = bounded.law(**given, **SETTING)["metrics"]
    made = [({"name": "theta"}, ATTACKS["arc"])]
    made += [
        ({"name": "ticket", "place": i, "rank": j}, given["alone"])
        for i in range(4)
        for j in range(2)
    ]
    table = []
    for defence, attack in made:
        moved = trials.examples(defence=defence, attack=attack, **SETTING)["images"]
        table.append(torch.stack([~correct(n, moved, y) for n in networks]))
    table = torch.stack(table)
    alike = (~table).double().mean(1).amin(0)
    assert found["all alike"] == pytest.approx(float(alike.mean()))
    alone = (~table).all(0).double()  # by its worst example, network by image
    total = 0.0
    for half in (0, 1):
        chosen = int(alone[:, half::2].mean(1).argmax())
        rest = slice(1 - half, None, 2)
        moved = bounded.arc([networks[chosen]], x[rest], y[rest], **own)
        met = alone[chosen, rest].bool() & correct(networks[chosen], moved, y[rest])
        total += float(met.double().mean()) / 2
    assert found["best ticket"] == pytest.approx(total)
    assert found["gain"] == found["best law"] - found["best ticket"]
    # No law of single tickets beats the one that was found on these very images.
    assert max(alone.mean(1).max(), alike.mean()) <= found["bound"] + 1e-9
    assert 0 <= found["best law"] <= 1


def test_a_law_is_attacked_by_those_whom_it_draws_as_often_as_it_does(monkeypatch):
    asked = {}
    monkeypatch.setattr(bounded, "arc", lambda m, x, y, **o: asked.update(o, m=m) or x)
    chances = torch.tensor([0.25, 0.0, 0.75]).double()
    bounded._arc(["a", "b", "c"], chances, None, None, {"steps": 3})
    assert asked == {"m": ["a", "c"], "probabilities": [0.25, 0.75], "steps": 3}


def test_an_average_over_defences_attacks_each_for_itself():
    given = {"attacks": [PGD, ATTACKS["arc"]], "draws": 4} | SETTING
    tickets = [{"name": "ticket", "place": 1, "rank": j} for j in range(2)]
    found = trials.averaged(defences=tickets, **given)["metrics"]
    each = [trials.strongest(defence=t, **given)["metrics"] for t in tickets]
    assert each[0] != each[1]
    for metric, value in found.items():
        assert value == pytest.approx(np.mean([e[metric] for e in each]))
    with pytest.raises(ValueError, match="defences must hold at least one"):
        trials.averaged(defences=[], **given)


def test_what_an_attack_takes_is_also_a_share_of_what_was_there():
    how = {"defence": DEFENCES["theta"], "draws": 5}
    before = trials.scored(**how, attack=ATTACKS["none"], **SETTING)["metrics"]
    after = trials.scored(**how, attack=PGD, **SETTING)["metrics"]
    assert before["share"] == before["worst share"] == 0
    for share, of in (("share", "accuracy"), ("worst share", "worst")):
        assert after[share] == pytest.approx(1 - after[of] / before[of])


def test_a_certificate_is_of_the_defence_that_was_asked_for(shown):
    x, y, groups = shown
    given = {"sigma": 0.05, "radii": [0.0, 0.05], "draws": 40}
    few = SETTING | {"sizes": SETTING["sizes"] | {"test": 6}}
    for name in ("ticket", "theta"):
        found = bounded.certified(defence=DEFENCES[name], **given, **few)
        rows = found["measurements"].set_index(["metric", "radius"])["value"]
        assert 0 <= rows["certified accuracy", 0.05] <= rows["certified accuracy", 0]
        if name == "ticket":
            table = bounded.smoothing.certify(
                groups[2][1], x[:6], y[:6], sigma=0.05, draws=40, seed=3
            )
            wanted = float(table["right"].mean())
            assert rows["certified accuracy", 0] == pytest.approx(wanted)


def changed(**more):
    return {"epsilon": 8.0, "epsilons": [2.0, 4.0, 12.0, 20.0]} | ALL | more


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"epsilons": [2.0, 4.0, 12.0]}, "epsilons must be 4 different, rising values"),
        ({"epsilons": [4.0, 2.0, 12.0, 20.0]}, "epsilons must be 4 different, rising"),
        ({"epsilon": 4.0}, "epsilons must be others than epsilon = 4.0"),
        ({"structures": ALL["structures"][:3]}, "structures must be four, got"),
        (
            {"structures": [s | {"ratios": [0.5]} for s in ALL["structures"]]},
            "ratios must be 2 or more different, rising values, got [0.5]",
        ),
        (
            {"structures": [{"network": {"name": "cnn5"}, "ratios": RATIOS}] * 4},
            "model must be one of",
        ),
        (
            {"search": RECIPE | {"batch": 201}},
            "batch must be at most the training images, 200, got 201",
        ),
        ({"background": "none"}, "background must be one of plain, textured"),
    ],
)
def test_bad_settings_are_refused_before_anything_runs(more, message, fits):
    fits.clear()
    with pytest.raises(ValueError, match=r".") as caught:
        studies.check(**changed(**more))
    assert str(caught.value).startswith(message)
    assert not fits


def test_a_good_setting_passes():
    studies.check(**changed())
