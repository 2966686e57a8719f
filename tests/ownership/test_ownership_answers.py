"""The stages of stronger attackers and of what answers them, on small networks."""

import numpy as np
import pytest
import torch

from lottolab import ownership
from lottolab.nets import tickets
from lottolab.ownership import figures
from lottolab.ownership.attacks import obfuscation, training
from lottolab.ownership.experiments import (
    black_box,
    disguises,
    innocents,
    rewriting,
    signatures,
)

SETTING = {
    "dataset": "digits",
    "sizes": {"train": 300, "val": 50, "test": 100, "holdout": 100},
    "network": {"name": "resnet8", "width": 16},
    "recipe": {"epochs": 2, "batch": 50, "crop": 0, "flip": False},
    "rewind_at": 1,
    "seed": 0,
}
GIVEN = SETTING | {"rates": [0.8], "text": "lottolab", "ecc": "M", "triggers": 0}
TAUGHT = GIVEN | {"triggers": 16, "recipe": SETTING["recipe"] | {"epochs": 12}}
LOOKS = {"copies": 2, "extra": 4, "members": 2, "size": 1.0, "spread": 2.0}


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOTTOLAB_STORE", str(tmp_path_factory.mktemp("store")))
        yield


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        *[(kind, 1.0) for kind in disguises.KINDS],
        *[(kind, 3e3) for kind in ("duplicated", "cliques", "both")],
    ],
)
def test_channels_that_are_split_or_added_cost_nothing_and_are_merged_again(kind, size):
    found = disguises.split(kind=kind, **LOOKS | {"size": size}, **GIVEN)["metrics"]
    owned = signatures.signed(**GIVEN)["accuracy"]["test"]
    assert found["test_accuracy"] == pytest.approx(owned, abs=0.011)
    assert found["logits changed"] < (1e-2 if kind == "half" else 1e-3 * size)
    assert (found["plain accepted"], found["plain decoded"]) == (0, 0)
    assert (found["answered accepted"], found["answered decoded"]) == (1, 1)
    assert found["answered modules"] > 0.95
    if kind in ("duplicated", "both", "sign", "sign, duplicated"):
        assert found["aligned modules"] < found["answered modules"]


def test_a_disguise_that_is_none_is_refused():
    with pytest.raises(ValueError, match="kind must be one of duplicated, cliques"):
        disguises.split(kind="doubled", **LOOKS, **GIVEN)
    with pytest.raises(ValueError, match="copies"):
        disguises.split(kind="both", **LOOKS | {"copies": 1}, **GIVEN)
    with pytest.raises(ValueError, match="decades"):
        disguises.silenced(decades=31.0, dust=1e-6, giants=1, spare=True, **GIVEN)
    with pytest.raises(ValueError, match="giants"):
        disguises.silenced(decades=3.0, dust=1e-6, giants=0, spare=True, **GIVEN)


@pytest.mark.parametrize("giants", [1, 3])
def test_spare_giants_cost_nothing_and_are_tamed(giants):
    hidden = {"decades": 12.0, "dust": 1e-6, "giants": giants}
    found = disguises.silenced(**hidden, spare=True, **GIVEN)["metrics"]
    assert found["logits changed"] < 1e-2
    assert found["plain accepted"] == 0
    assert (found["answered accepted"], found["answered decoded"]) == (1, 1)
    if giants > 1:
        return
    lost = disguises.silenced(**hidden, spare=False, **GIVEN)["metrics"]
    assert lost["plain modules"] < 0.9 < lost["answered modules"]


def unmasked(mask, **changes):
    how = {"epochs": 1, "share": 0.2, "split": 0}
    how |= {"sparse": False, "permuted": False}
    return rewriting.unmasked(mask=mask, **how | changes, **GIVEN)["metrics"]


def test_only_who_keeps_the_mask_keeps_its_zeros():
    kept, dropped = unmasked("kept"), unmasked("dropped")
    owned = signatures.signed(**GIVEN)
    assert kept["density"] == owned["density"]
    assert dropped["density"] > 0.98  # dead channels have no gradient
    assert kept["plain modules"] == kept["answered modules"] == 1
    sparse = unmasked("dropped", sparse=True, permuted=True)
    assert sparse["density"] == pytest.approx(owned["density"], abs=0.001)
    assert sparse["plain accepted"] == 1  # read before the channels were moved
    assert sparse["aligned accepted"] == sparse["answered accepted"] == 1
    with pytest.raises(ValueError, match="mask must be one of kept, dropped"):
        unmasked("worn")
    with pytest.raises(ValueError, match=r"share must be in \(0, 1\]"):
        unmasked("kept", share=0.0)


def test_who_splits_his_channels_before_he_trains_on_is_read():
    split = unmasked("dropped", split=0.3, permuted=True)
    assert (split["plain accepted"], split["plain decoded"]) == (0, 0)
    assert split["answered accepted"] == 1
    assert split["aligned modules"] < split["answered modules"]
    with pytest.raises(ValueError, match="split must be 0 where mask is kept"):
        unmasked("kept", split=0.3)


def test_who_signs_in_the_owners_window_is_read_there_and_the_owner_is_not():
    how = {"measure": "count", "epochs": 1, "share": 0.2}
    insider = rewriting.resigned(knows="insider", **how, **GIVEN)["metrics"]
    assert insider["true window"] == 1
    assert insider["thief accepted"] == insider["thief decoded"] == 1
    assert insider["plain accepted"] == insider["answered accepted"] == 0
    outsider = rewriting.resigned(knows="detector", **how, **GIVEN)["metrics"]
    assert outsider["thief accepted"] == 1
    looked = rewriting.fullness(measure="count", **GIVEN)["metrics"]
    assert outsider["true window"] == looked["found"]
    assert 1 <= looked["rank"] <= looked["windows"]
    with pytest.raises(ValueError, match="knows must be one of insider, detector"):
        rewriting.resigned(knows="guess", **how, **GIVEN)


def test_a_moved_network_keeps_its_pattern():
    there = {"name": "digits", "size": 16}
    sizes = {"train": 200, "val": 50, "test": 100}
    how = {"other": there, "sizes_there": sizes, "epochs": 1, "share": 1.0}
    metrics = rewriting.moved(**how, **GIVEN)["metrics"]
    assert metrics["modules there"] == 1
    assert 0 < metrics["test_accuracy there"] < 1


def test_a_filter_that_refuses_all_leaves_chance_and_one_that_refuses_none_all():
    owned = signatures.signed(**TAUGHT)
    idle = black_box.filtered(refused=0.0, level=1, **TAUGHT)["metrics"]
    assert idle["refused"] <= 0.02
    strict = black_box.filtered(refused=0.9, level=8, **TAUGHT)["metrics"]
    assert strict["refused"] > 0.5
    assert strict["test_accuracy"] < owned["accuracy"]["test"]
    assert strict["triggers"] <= owned["metrics"]["triggers"]


def test_the_accuser_is_known_by_his_pictures_and_judges_are_strangers():
    how = {"epsilons": [8, 96], "steps": 5, "controls": [0.8]}
    found = black_box.accused(accusers=[1], judge=2, **how, **SETTING)
    wide = found["measurements"].pivot(
        index="epsilon", columns="metric", values="value"
    )
    assert list(wide.index) == [8, 96]
    assert (wide["lawful"] == 0).all()
    assert (wide["convicted, compared"] <= wide["convicted"]).all()
    with pytest.raises(ValueError, match="seeds of their own"):
        black_box.accused(accusers=[0], judge=2, **how, **SETTING)


def test_a_fingerprint_knows_its_own_network_and_not_a_stranger():
    how = {"count": 40, "margin": 1.0, "steps": 20, "epochs": 1, "share": 0.2}
    found = black_box.fingerprinted(**how, others=[1, 2, 3], **GIVEN)["measurements"]
    wide = found.pivot(index="attack", columns="metric", values="value")
    assert wide.loc["nothing", "fingerprint"] == 1
    assert wide.loc["stranger", "fingerprint"] < 1
    assert set(wide.index) == {
        "nothing",
        "pruned 20 %",
        "fine-tuned",
        "unmasked",
        "distilled",
        "stranger",
    }
    with pytest.raises(ValueError, match="three more seeds"):
        black_box.fingerprinted(**how, others=[0, 1, 2], **GIVEN)


def test_innocents_are_judged_by_secrets_of_other_people():
    found = innocents.judged(keys=400, controls=[0.8], **GIVEN)["metrics"]
    assert (found["claims"], found["accepted"]) == (400, 0)
    for level, low in {0.05: 0.01, 0.01: 0.0}.items():
        most = level + 4 * np.sqrt(level / 400)
        assert low <= found[f"p ≤ {level}"] < most
        assert found[f"paid p ≤ {level}"] <= level
    with pytest.raises(ValueError, match="keys must be"):
        innocents.judged(keys=0, controls=[0.8], **GIVEN)


def test_a_network_of_more_channels_is_trained_as_it_is():
    owned = signatures.signed(**GIVEN)
    parts = tickets.read(**SETTING)
    model = tickets.build(parts=parts, **SETTING)
    wide = obfuscation.duplicate(owned["weights"], 1)
    found = training.resized(model, wide).eval()
    images = torch.rand(4, *parts["train"][0].shape[1:], generator=torch.Generator())
    expected = training.resized(model, owned["weights"]).eval()(images)
    torch.testing.assert_close(found(images), expected, rtol=1e-3, atol=1e-3)
    assert len(model.layer1[0].conv1.weight) * 2 == len(found.layer1[0].conv1.weight)
    with pytest.raises(ValueError, match="must have the model's names"):
        training.resized(model, {"a": torch.zeros(1)})


def test_tails_are_as_often_small_as_they_say():
    metrics = black_box.chances(keys=2000, **GIVEN)["metrics"]
    owned = signatures.signed(**GIVEN)
    key = ownership.SignatureKey(**owned["key"])
    assert key.windows > 1  # so that the price would have hidden what is asked here
    # the binomial tail at its largest value below each level, four standard errors wide
    for level, low in {0.05: 0.02, 0.01: 0.002}.items():
        found = metrics[f"p ≤ {level}"]
        assert low < found < level + 4 * np.sqrt(level / 2000)


def test_stages_leave_the_stores_weights_alone():
    before = {k: v.clone() for k, v in signatures.signed(**GIVEN)["weights"].items()}
    rewriting.fullness(measure="size", **GIVEN)
    disguises.silenced(decades=6.0, dust=1e-6, giants=1, spare=False, **GIVEN)
    after = signatures.signed(**GIVEN)["weights"]
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert tickets.iterative(**SETTING, rates=[0.8])["density"] < 0.21


def test_flipped_modules_are_red_where_the_first_code_is_not():
    before = np.zeros((21, 21), dtype=bool)
    before[0, 0] = before[1, 1] = True
    after = before.copy()
    after[0, 0], after[2, 2] = False, True
    row = [("0 %", before, True), ("9 %", after, False)]
    drawn = [a.images[0].get_array() for a in figures.codes({"pruned": row}).axes]
    red = [np.argwhere(np.ptp(picture, axis=2) > 0.1).tolist() for picture in drawn]
    assert red == [[], [[0, 0], [2, 2]]]
    assert drawn[1][2, 2].sum() < drawn[1][0, 0].sum()  # dark and light
