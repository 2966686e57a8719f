"""The detector, the second signature in the window that it finds, and the filter."""

import numpy as np
import pytest
import torch
from scipy import stats

from lottolab.ownership import triggers
from lottolab.ownership.attacks import detector, filtering, removal, resigning
from lottolab.ownership.signatures import qr, signature
from lottolab.ownership.signatures.key import SignatureKey

SIDE, PLACE = 32, (4, 7)


def layer(seed, density=0.1, place=None, more=0.5):
    """Draw a layer; in the window of a version 1 code living kernels hold more."""
    generator = torch.Generator().manual_seed(seed)
    shape = (SIDE, SIDE, 3, 3)
    weights = torch.randn(shape, generator=generator)
    kept = torch.rand(shape, generator=generator) < density
    if place is not None:
        rows, columns = qr.places(1).T
        inside = torch.zeros(shape[:2], dtype=torch.bool)
        inside[place[0] + rows, place[1] + columns] = True
        extra = torch.rand(shape, generator=generator) < more * density
        kept |= extra & (kept.flatten(2).any(2) & inside)[:, :, None, None]
    return weights * kept


def brute_force(weights, version, measure):
    side = 17 + 4 * version
    rows, columns = (n - side + 1 for n in weights.shape[:2])
    table = np.zeros((rows, columns))
    for top, left in np.ndindex(rows, columns):
        here = {(top + r, left + c) for r, c in qr.places(version).tolist()}
        parts = {True: [], False: []}
        for place in np.ndindex(*weights.shape[:2]):
            kernel = weights[place].abs()
            if not kernel.any():
                continue
            count = int((kernel > 0).sum())
            held = count if measure == "count" else float(kernel.double().sum()) / count
            parts[place in here].append(held)
        t = stats.ttest_ind(parts[True], parts[False], equal_var=False).statistic
        table[top, left] = t
    return table


@pytest.mark.parametrize("measure", detector.MEASURES)
def test_fullness_is_welchs_t(measure):
    weights = layer(0, place=PLACE)[:23, :22]
    found = detector.fullness(weights, 1, measure)
    assert found.shape == (3, 2)
    np.testing.assert_allclose(found, brute_force(weights, 1, measure), rtol=1e-6)


def test_a_planted_window_is_the_first_or_nearly_so():
    ranks = []
    for seed in range(20):
        table = detector.fullness(layer(seed, place=PLACE, more=1.0), 1)
        ranks.append(detector.rank(table, *PLACE))
    assert np.median(ranks) == 1
    assert np.mean(np.array(ranks) <= 3) >= 0.9


def test_without_a_signature_the_rank_is_uniform():
    windows = (SIDE - 20) ** 2
    ranks = [
        detector.rank(detector.fullness(layer(seed), 1), *PLACE) / windows
        for seed in range(100)
    ]
    assert 0.35 < np.mean(ranks) < 0.65
    assert np.mean(np.array(ranks) < 0.1) < 0.2
    # from any place on: neighbours are alike, so that the mean over places is exact
    table = detector.fullness(layer(0), 1)
    every = [detector.rank(table, *place) for place in np.ndindex(table.shape)]
    assert np.mean(every) == pytest.approx((windows + 1) / 2)


def test_the_true_window_of_a_sparse_signed_layer_is_found():
    ranks = []
    for seed in range(8):
        masks = {"a.weight": layer(seed, density=0.04) != 0}
        secret = f"{seed + 1:064x}"
        signed, key = signature.embed(masks, "us", ecc="H", seed=seed, secret=secret)
        table = detector.fullness(signed["a.weight"], key.version)
        ranks.append(detector.rank(table, key.row, key.column) / table.size)
    assert np.median(ranks) < 0.05


def test_equals_share_a_place_and_a_layer_without_difference_has_no_first():
    table = detector.fullness(torch.ones(22, 22, 3, 3), 1)
    assert not table.any()
    assert detector.rank(table, 0, 0) == 2.5
    assert detector.rank(np.array([[3.0, -4.0], [1.0, 3.0]]), 0, 1) == 1
    assert detector.rank(np.array([[3.0, -4.0], [1.0, 3.0]]), 0, 0) == 2.5
    assert detector.found(layer(1, place=PLACE, more=3.0), 1) == PLACE


def stolen(seed=3):
    masks = {"a.weight": layer(seed, density=0.15) != 0}
    secret = f"{7:064x}"
    signed, key = signature.embed(masks, "owner", ecc="L", seed=1, secret=secret)
    state = {"a.weight": layer(seed, density=1.0) * signed["a.weight"]}
    return state, signature.calibrate(state, key)


def test_signing_again_in_the_window_takes_it_from_the_owner():
    state, key = stolen()
    assert signature.verify(state, key, claim="owner").accepted
    place = {"layer": key.layer, "row": key.row, "column": key.column}
    options = {"version": key.version, "ecc": "L", "seed": 5}
    again, theirs = resigning.resign(state, "thief", f"{9:064x}", **place, **options)
    assert signature.verify(again, theirs).text == "thief"
    assert signature.verify(again, theirs, claim="thief").accepted
    owner = signature.verify(again, key, claim="owner")
    assert not owner.accepted
    assert 0.4 < owner.agreement < 0.6
    assert isinstance(theirs, SignatureKey)
    count = (state["a.weight"] != 0).sum()
    assert (again["a.weight"] != 0).sum() == count
    # what lives in both has not changed, and nothing outside the code must live
    both = (state["a.weight"] != 0) & (again["a.weight"] != 0)
    assert torch.equal(state["a.weight"][both], again["a.weight"][both])
    masks = removal.sparsity(again, ["a.weight"])  # what is trained on under
    assert signature.verify({"a.weight": masks["a.weight"].float()}, theirs).accepted


def clothes(count=200):
    """Draw images as clothes are: a bright shape before a black background."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(60, 256, (count, 1, 28, 28), generator=generator)
    half = torch.randint(4, 11, (count,), generator=generator)
    rows = torch.arange(28).view(1, 1, 28, 1) - 14
    inside = (rows.abs() <= half.view(-1, 1, 1, 1)) & (
        rows.transpose(2, 3).abs() <= half.view(-1, 1, 1, 1)
    )
    return (images * inside).to(torch.uint8)


def test_the_filter_answers_triggers_by_chance_and_lets_images_through():
    own = triggers.draw(100, classes=10, channels=1, size=28, secret="ab" * 32)
    ordinary = clothes()
    names = [image.numpy().tobytes() for image in own.images]
    known = dict(zip(names, own.labels.tolist(), strict=True))

    def predict(images):
        names = [image.numpy().tobytes() for image in images]
        return torch.tensor([known.get(name, 3) for name in names])

    share = filtering.cut(ordinary[:100], refused=0.02)
    behind = filtering.filtered(predict, share=share, classes=10, secret="s")
    assert triggers.verify_triggers(predict, own).accepted
    found = triggers.verify_triggers(behind, own)
    assert not found.accepted
    assert found.agreement < 0.25
    answers = behind(ordinary[100:])
    assert (answers != 3).float().mean() <= 0.05
    assert (behind(ordinary[:100]) != 3).float().mean() <= 0.02
    assert torch.equal(behind(own.images), behind(own.images))  # asking twice is no use
    other = filtering.filtered(predict, share=share, classes=10, secret="t")
    assert not torch.equal(behind(own.images), other(own.images))
    nothing = filtering.filtered(predict, share=0.0, classes=10, secret="s")
    assert torch.equal(nothing(own.images), own.labels)


def test_the_answers_of_the_filter_are_uniform():
    generator = torch.Generator().manual_seed(0)
    white = torch.randint(100, 256, (2000, 1, 4, 4), generator=generator)
    behind = filtering.filtered(
        lambda x: torch.zeros(len(x), dtype=torch.int64),
        share=0.5,
        classes=10,
        secret="s",
    )
    counts = torch.bincount(behind(white.to(torch.uint8)), minlength=10)
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_black_is_the_share_of_dark_pixels():
    images = torch.full((2, 3, 2, 2), 9, dtype=torch.uint8)
    images[1, :, 0, 0] = 7
    assert filtering.black(images).tolist() == [0.0, 0.25]
    assert filtering.black(images, level=10).tolist() == [1.0, 1.0]


def test_bad_input_is_refused_in_a_line():
    weights = layer(0)
    images = clothes(3)
    state, key = stolen()
    place = {"layer": key.layer, "row": 0, "column": 0, "version": key.version}
    secret = "ab" * 32

    def resign(text="me", state=state, **other):
        return resigning.resign(state, text, secret, **(place | other))

    wrong = [
        (lambda: detector.fullness(weights, 1, "sum"), "measure must be"),
        (lambda: detector.fullness(weights, 9), "the layer must be 53×53"),
        (lambda: detector.fullness(weights, 0), "version must be"),
        (lambda: detector.fullness(weights[:, :, 0, 0], 1), "must have a kernel"),
        (lambda: detector.fullness(weights * torch.nan, 1), "must be finite"),
        (lambda: detector.rank(np.zeros((2, 2)), 2, 0), "the window must be in"),
        (lambda: resign(layer="b"), "layer must be"),
        (lambda: resign(row=99), "row must be at most"),
        (lambda: resign(seed=-1), "seed must be"),
        (lambda: resign(text="x" * 500), "."),
        (lambda: resign(state={"a.weight": torch.ones(40, 40)}), "a convolution"),
        (lambda: filtering.black(images.float()), "images must be"),
        (lambda: filtering.black(images, level=0), "level must be"),
        (lambda: filtering.black(images, level=256), "level must be at most"),
        (lambda: filtering.cut(images, refused=1.0), "refused must be in"),
        (
            lambda: filtering.filtered(len, share=1.5, classes=2, secret="s"),
            "share must be in",
        ),
        (
            lambda: filtering.filtered(len, share=0.5, classes=1, secret="s"),
            "classes must be",
        ),
    ]
    for call, message in wrong:
        with pytest.raises(ValueError, match=message) as error:
            call()
        assert "\n" not in str(error.value)
