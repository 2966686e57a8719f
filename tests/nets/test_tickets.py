"""Tickets on the digits: what is pruned, where training starts, what is reused."""

import itertools
import math

import numpy as np
import pytest
import torch
import trainings
from torchvision.transforms import functional as tv

from lottolab.images import datasets, partition
from lottolab.nets import masks, models, tickets, train
from lottolab.runs import places

SETTING = {
    "dataset": {"name": "digits"},
    "sizes": {"train": 400, "val": 100, "test": 200},
    "network": {"name": "cnn4", "width": 4},
    "recipe": {"epochs": 3, "batch": 20, "crop": 1, "flip": False},
    "rewind_at": 1,
    "seed": 0,
}
RATE = 0.3
PRUNABLE = ["conv2.weight", "conv3.weight", "conv4.weight"]


@pytest.fixture(scope="module")
def fits(tmp_path_factory):
    """Give the module a store of its own and list its trainings."""
    with trainings.noted(tmp_path_factory.mktemp("store")) as found:
        yield found


@pytest.fixture(scope="module")
def dense(fits):
    return tickets.dense(**SETTING)


@pytest.fixture(scope="module")
def rounds(dense, fits):
    """Return the tickets of one to three rounds, each with its trainings."""
    found = {}
    for r in (1, 2, 3):
        fits.clear()
        ticket = tickets.iterative(rates=[RATE] * r, **SETTING)
        found[r] = ticket, list(fits)
    return found


def product(state, kept):
    """Return the state under the masks, by multiplication."""
    return {k: v * kept[k] if k in kept else v for k, v in state.items()}


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("r", [1, 2, 3])
def test_density_is_the_product_to_within_a_weight_a_round(rounds, r):
    ticket, _ = rounds[r]
    kept = sum(int(mask.sum()) for mask in ticket["masks"].values())
    total = sum(mask.numel() for mask in ticket["masks"].values())
    assert abs(kept - total * (1 - RATE) ** r) <= r
    assert ticket["density"] == kept / total


def test_masks_are_nested(rounds):
    for r in (2, 3):
        earlier, later = rounds[r - 1][0]["masks"], rounds[r][0]["masks"]
        for name, mask in later.items():
            assert not (mask & ~earlier[name]).any()


@pytest.mark.parametrize("r", [1, 2, 3])
def test_only_inner_layers_are_pruned_and_pruned_weights_are_zero(rounds, r):
    ticket, _ = rounds[r]
    assert sorted(ticket["masks"]) == PRUNABLE
    for name, mask in ticket["masks"].items():
        assert (ticket["weights"][name][~mask] == 0).all()
        assert (ticket["weights"][name][mask] != 0).all()
    for name in ("conv1.weight", "fc.weight"):
        assert (ticket["weights"][name] != 0).all()


def test_one_round_is_one_shot_magnitude_pruning_of_the_dense_weights(dense, rounds):
    sizes = [dense["weights"][name].abs().numpy().ravel() for name in PRUNABLE]
    flat = np.concatenate(sizes)
    expected = np.ones(len(flat), bool)
    expected[np.argsort(flat, kind="stable")[: round(RATE * len(flat))]] = False
    ticket, _ = rounds[1]
    found = [ticket["masks"][name].numpy().ravel() for name in PRUNABLE]
    assert (np.concatenate(found) == expected).all()


@pytest.mark.parametrize("r", [1, 2, 3])
def test_retraining_starts_from_the_rewound_weights_under_the_mask(dense, rounds, r):
    ticket, fits = rounds[r]
    (fit,) = fits
    assert same(fit["before"], product(dense["rewind"], ticket["masks"]))
    assert (fit["start"], fit["seed"]) == (1, 0)
    assert ticket["history"]["epoch"].tolist() == [2, 3]


def test_the_rewind_state_is_the_dense_network_after_that_epoch(dense):
    model = models.build("cnn4", channels=1, classes=10, width=4, size=8, seed=0)
    source = datasets.load("digits")
    places = partition.splits(source, **SETTING["sizes"], seed=0)["train"]
    settings = train.Recipe(**SETTING["recipe"])
    train.fit(
        model, source.images[places], source.labels[places], settings, seed=0, stop=1
    )
    assert same(dense["rewind"], model.state_dict())


def test_rewinding_to_the_initialisation(fits):
    setting = SETTING | {"rewind_at": 0, "recipe": {"epochs": 1, "batch": 50}}
    ticket = tickets.iterative(rates=[0.5], **setting)
    model = models.build("cnn4", channels=1, classes=10, width=4, size=8, seed=0)
    assert same(fits[-1]["before"], product(model.state_dict(), ticket["masks"]))
    assert fits[-1]["start"] == 0


def test_what_a_stage_reports_is_true(dense, rounds):
    source = datasets.load("digits")
    places = partition.splits(source, **SETTING["sizes"], seed=0)
    known = source.images[places["train"]].double() / 255
    scale = [known.mean().item()], [known.std(correction=0).item()]
    for outcome in (dense, rounds[2][0]):
        model = models.build("cnn4", channels=1, classes=10, width=4, size=8)
        model.load_state_dict(outcome["weights"])
        model.eval()
        for part in ("val", "test"):
            x = tv.normalize(source.images[places[part]].float() / 255, *scale)
            with torch.no_grad():
                hits = model(x).argmax(1) == source.labels[places[part]]
            assert outcome["accuracy"][part] == pytest.approx(hits.double().mean())
            assert outcome["accuracy"][part] > 0.4
    assert dense["density"] == 1
    assert all(mask.all() for mask in dense["masks"].values())


def test_a_name_and_a_dict_mean_the_same_data_set(dense):
    named = tickets.dense(**SETTING | {"dataset": "digits"})
    assert same(named["weights"], dense["weights"])
    assert named["accuracy"] == dense["accuracy"]


def test_a_random_mask_keeps_the_layers_counts_elsewhere(dense, rounds, fits):
    ticket, _ = rounds[2]
    fits.clear()
    control = tickets.random_mask(rates=[RATE, RATE], **SETTING)
    assert masks.sizes(control["masks"]) == masks.sizes(ticket["masks"])
    for name in PRUNABLE:
        mask, other = control["masks"][name], ticket["masks"][name]
        # A draw that knows nothing of the other agrees as chance would have it.
        density = other.double().mean().item()
        agree = (mask & other).double().mean().item()
        assert abs(agree - density**2) < 5 * math.sqrt(0.25 / mask.numel())
        assert not torch.equal(mask, other)
        assert (control["weights"][name][~mask] == 0).all()
    (fit,) = fits
    assert same(fit["before"], product(dense["rewind"], control["masks"]))


def test_a_new_initialisation_wears_the_tickets_mask(dense, rounds, fits):
    ticket, _ = rounds[2]
    fits.clear()
    control = tickets.new_initialisation(rates=[RATE, RATE], **SETTING)
    assert same(control["masks"], ticket["masks"])
    first, second = fits
    fresh = models.build(
        "cnn4", channels=1, classes=10, width=4, size=8, seed=1_000_000
    )
    assert same(first["before"], fresh.state_dict())
    assert (first["stop"], first.get("masks")) == (1, None)
    source = datasets.load("digits")
    places = partition.splits(source, **SETTING["sizes"], seed=0)["train"]
    settings = train.Recipe(**SETTING["recipe"])
    train.fit(
        fresh, source.images[places], source.labels[places], settings, seed=0, stop=1
    )
    assert same(second["before"], product(fresh.state_dict(), ticket["masks"]))
    assert second["start"] == 1
    for name, mask in ticket["masks"].items():
        assert (second["before"][name] != dense["rewind"][name])[mask].all()
        assert (control["weights"][name][~mask] == 0).all()


def test_no_image_is_in_two_parts():
    for seed in (0, 1):
        parts = tickets.read(**SETTING | {"seed": seed})
        assert parts.pop("classes") == 10
        assert {k: len(x) for k, (x, _) in parts.items()} == {
            **SETTING["sizes"],
            "holdout": 0,
        }
        seen = {k: {i.numpy().tobytes() for i in x} for k, (x, _) in parts.items()}
        for a, b in itertools.combinations(seen, 2):
            assert not seen[a] & seen[b]
        assert len(seen["train"]) == 400


def test_more_rounds_reuse_the_stored_ones(rounds, fits):
    def records():
        return [
            places.record(tickets.iterative, rates=[RATE] * r, **SETTING)
            for r in (1, 2, 3)
        ]

    before = records()
    fits.clear()
    tickets.iterative(rates=[RATE, RATE, RATE], **SETTING)
    assert not fits
    tickets.iterative(rates=[RATE, RATE, RATE, RATE], **SETTING)
    assert len(fits) == 1
    assert records() == before
    fits.clear()
    tickets.iterative(rates=[0.4, 0.4], **SETTING)  # another rate shares the dense
    assert len(fits) == 2


@pytest.mark.parametrize("tolerance", [0.0, 0.05, 1.0])
def test_the_search_steps_back_and_prunes_more_gently(dense, fits, tolerance):
    asked = {"rates": [0.6, 0.3], "tolerance": tolerance, "least": 0.0, "limit": 6}
    found = tickets.extreme(**asked, **SETTING)
    steps, floor = found["steps"], dense["accuracy"]["val"] - tolerance
    # Followed by hand from what it tried: only what matches is kept, a rate is given
    # up at its first failure, and each try is the ticket of the rates kept so far.
    kept, over = [], set()
    for step in steps.itertuples():
        assert step.rate not in over
        ticket = tickets.iterative(rates=[*kept, step.rate], **SETTING)
        assert step.density == ticket["density"]
        assert step.val_accuracy == ticket["accuracy"]["val"]
        assert step.matches == (ticket["accuracy"]["val"] >= floor)
        if step.matches:
            kept.append(step.rate)
        else:
            over.add(step.rate)
    assert len(steps) == 6 or over == {0.6, 0.3}
    assert found["found"] == bool(kept)
    assert found["rates"] == (kept or [0.6])
    if tolerance == 1:
        assert kept == [0.6] * 6
    fits.clear()
    tickets.extreme(**asked, **SETTING)
    assert not fits


def test_the_search_tries_nothing_sparser_than_it_may(fits):
    asked = {"rates": [0.6, 0.3], "tolerance": 1.0, "least": 0.1, "limit": 9}
    found = tickets.extreme(**asked, **SETTING)
    assert found["rates"] == [0.6, 0.6, 0.3]  # 0.4 · 0.4 · 0.7 = 0.112
    assert found["steps"]["matches"].all()


def test_no_round_is_refused(fits):
    fits.clear()
    with pytest.raises(ValueError, match="rates must hold at least one pruning rate"):
        tickets.iterative(rates=[], **SETTING)
    assert not fits


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"rewind_at": -1},
            r"rewind_at must be a whole number in \[0, epochs = 3\), got -1",
        ),
        (
            {"rewind_at": 3},
            r"rewind_at must be a whole number in \[0, epochs = 3\), got 3",
        ),
        ({"recipe": {"batch": 401}}, "at most the training images, 400, got 401"),
        ({"recipe": {"epoch": 3}}, "did you mean epochs"),
        ({"recipe": {"lr": -1}}, "lr must be > 0 and finite, got -1"),
        ({"network": {"name": "cnn5"}}, "got 'cnn5'; did you mean cnn4"),
        ({"dataset": "digit"}, "got 'digit'; did you mean digits"),
        ({"sizes": {"train": 1700, "val": 100, "test": 0}}, "not ask for more"),
    ],
)
def test_check_refuses_before_anything_runs(fits, change, message):
    fits.clear()
    setting = {k: v for k, v in SETTING.items() if k != "seed"}
    tickets.check(**setting)
    with pytest.raises(ValueError, match=message):
        tickets.check(**setting | change)
    assert not fits
