"""Canaries, the controls of DP-SGD, and what the audit of one run says of both."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import nn

from lottolab.mia_pruning.defences import accounting, control, dp
from lottolab.mia_pruning.privacy import canaries, one_run

pytestmark = [
    pytest.mark.filterwarnings("ignore:Optimal order"),
    pytest.mark.usefixtures("on_one_thread"),
]
SCALE = (torch.tensor([0.5]), torch.tensor([0.25]))
SHAPE = (1, 8, 8)


def pictures(n=30, classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (n, *SHAPE), dtype=torch.uint8, generator=generator)
    return images, torch.randint(classes, (n,), generator=generator)


def linear(classes=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))


def trapped(count=20):
    return canaries.Trapdoor(linear(), count, SHAPE, SCALE)


def normalised(images):
    return (images / 255 - 0.5) / 0.25


def gradients(model, x, y):
    model.zero_grad()
    F.cross_entropy(model(x), y).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def test_a_canary_moves_its_own_weight_and_nothing_else():
    model = trapped()
    images, labels = model.examples(torch.ones(20).bool())
    for i in (0, 7, 19):
        found = gradients(model, normalised(images[i : i + 1]), labels[i : i + 1])
        expected = torch.zeros(20)
        expected[i] = -canaries.STEEP
        torch.testing.assert_close(found.pop("weight"), expected)
        assert all(not g.any() for g in found.values())


def test_an_empty_place_moves_nothing_and_other_images_move_no_canary():
    model = trapped()
    images, labels = model.examples(torch.zeros(20).bool())
    assert all(
        not g.any() for g in gradients(model, normalised(images), labels).values()
    )
    x, y = pictures()
    found = gradients(model, normalised(x), y)
    assert not found.pop("weight").any()
    plain = gradients(model.network, normalised(x), y)
    assert all(torch.equal(found[f"network.{name}"], g) for name, g in plain.items())
    assert torch.equal(model(normalised(x)), model.network(normalised(x)))


def test_a_canary_stays_as_steep_wherever_training_takes_its_weight():
    """It must not learn itself away, nor be clipped to less than `clip`."""
    model = trapped()
    model.weight.data[:] = torch.linspace(-50, 50, 20)
    images, labels = model.examples(torch.ones(20).bool())
    for i in (0, 19):
        found = gradients(model, normalised(images[i : i + 1]), labels[i : i + 1])
        assert found["weight"][i] == pytest.approx(-canaries.STEEP, rel=1e-4)


# --- the controls


def run(model, x, y, train=control.dp_control, **options):
    given = {"epochs": 2, "batch": 10, "lr": 0.1, "delta": 1e-5, "seed": 3}
    given |= {"mean_std": SCALE, "clip": 1.0}
    return train(model, x, y, **given | options)


def test_with_the_noise_of_an_epsilon_it_is_private_training_to_the_bit():
    x, y = pictures()
    one, two = linear(), linear()
    kept = {"1.weight": torch.rand(3, 64) < 0.5}
    options = {"momentum": 0.5, "masks": kept}
    private = run(one, x, y, dp.dp_train, epsilon=3.0, **options)
    sigma = private.noise_multiplier
    other = run(two, x, y, sigma=sigma, **options)
    pairs = zip(one.parameters(), two.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert other.history.equals(private.history)
    assert other.epsilon == private.epsilon


@pytest.mark.parametrize("clip", [None, 0.3])
def test_without_noise_it_is_descent_on_the_clipped_sum(clip):
    """The same batches as with noise, divided by the expected size of a batch."""
    x, y = pictures()
    found, expected = linear(), linear()
    run(found, x, y, sigma=0.0, clip=clip)
    drawing = np.random.SeedSequence(3).generate_state(3).tolist()[1]
    generator = torch.Generator().manual_seed(drawing)
    for _ in range(2 * 3):
        drawn = torch.rand(30, generator=generator) < 10 / 30
        total = [torch.zeros_like(p) for p in expected.parameters()]
        for i in drawn.nonzero()[:, 0].tolist():
            own = gradients(expected, normalised(x[i : i + 1]), y[i : i + 1])
            norm = math.sqrt(sum(float(g.square().sum()) for g in own.values()))
            factor = 1 if clip is None else min(1, clip / norm)
            for sum_, g in zip(total, own.values(), strict=True):
                sum_ += factor * g
        with torch.no_grad():
            for p, sum_ in zip(expected.parameters(), total, strict=True):
                p -= 0.1 * sum_ / 10
    for a, b in zip(found.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_without_noise_no_epsilon_is_spent_less_than_infinity():
    found = run(linear(), *pictures(), sigma=0.0)
    assert found.epsilon == math.inf
    assert found.history["epsilon"].eq(math.inf).all()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"sigma": 1.0, "clip": None}, "sigma must be 0 where clip is None, got 1.0"),
        ({"sigma": -1.0}, "sigma must be >= 0 and finite|sigma must be in"),
        ({"clip": 0.0}, r"clip must be > 0 and finite, got 0.0"),
        ({"lr": 0.0}, "lr must be > 0 and finite, got 0.0"),
        ({"batch": 31}, "batch must be at most the 30 images, got 31"),
    ],
)
def test_a_control_refuses_bad_input(changed, message):
    with pytest.raises(ValueError, match=message):
        run(linear(), *pictures(), **{"sigma": 0.0} | changed)


# --- the audit of a training


CLAIMED, DELTA, COUNT = 4.0, 1e-5, 220
SHARES = (0.8,)


def audited(sigma: float, seed: int = 0) -> one_run.Found:
    """Train with canaries and this σ, and bound ε by what became of their weights.

    The twelve steps of rate ½ draw everyone, but for one in four thousand.
    """
    present = canaries.coins(COUNT, seed)
    model = trapped(COUNT)
    x, y = pictures(20)
    more, labels = model.examples(present)
    given = torch.cat([x, more]), torch.cat([y, labels])
    run(model, *given, batch=120, epochs=6, sigma=sigma, seed=seed)
    return one_run.audit(model.scores(), present, DELTA, shares=SHARES)


def noise():
    return accounting.noise_multiplier(CLAIMED, DELTA, 0.5, 12)


@pytest.mark.parametrize(
    ("sigma", "rate", "steps", "share"),
    [(1.7, 0.1, 400, 0.9), (0.4, 0.3, 20, 0.5), (3.0, 1.0, 5, 1.0)],
)
def test_the_share_that_noise_lets_be_right_is_that_of_a_simulation(
    sigma, rate, steps, share
):
    m, rng = 400_000, np.random.default_rng(0)
    present = rng.random(m) < 0.5
    scores = rng.normal(0, sigma * steps**0.5, m)
    scores[present] += rng.binomial(steps, rate, present.sum())
    shown = one_run.audit(scores, present, 1e-5, shares=(share,))
    error = 0.5 / shown.guesses**0.5
    found = canaries.expected_right(sigma, rate, steps, share)
    assert found == pytest.approx(shown.correct / shown.guesses, abs=4 * error)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"sigma": 0.0}, "sigma must be > 0"),
        ({"rate": 1.5}, "rate must be in"),
        ({"steps": 0}, "steps must be"),
        ({"share": 0.0}, "share must be in"),
    ],
)
def test_an_expected_share_needs_a_mechanism(changed, message):
    given = {"sigma": 1.0, "rate": 0.1, "steps": 10, "share": 0.9} | changed
    with pytest.raises(ValueError, match=message):
        canaries.expected_right(**given)


def test_so_many_canaries_can_show_what_is_claimed():
    assert one_run.canaries_needed(CLAIMED, DELTA, share=0.8) <= COUNT


@pytest.mark.parametrize("divided", [math.inf, 20])
def test_training_without_noise_or_with_too_little_is_caught(divided):
    """The positive control: it must fail the audit that the private run passes."""
    found = audited(noise() / divided)
    assert found.epsilon > CLAIMED
    if divided == math.inf:
        assert found.correct == found.guesses
        assert found.epsilon == found.cap


def test_the_private_run_passes():
    found = [audited(noise(), seed) for seed in range(3)]
    assert max(one.epsilon for one in found) <= CLAIMED
    # And not because nothing is seen: more guesses are right than by chance.
    right, made = (sum(one[k] for one in found) for k in (2, 1))
    assert stats.binomtest(right, made, alternative="greater").pvalue < 1e-3


def test_the_run_is_dp_train_as_it_is_also_with_the_trapdoor():
    model, present = trapped(COUNT), canaries.coins(COUNT, 0)
    (x, y), (more, labels) = pictures(20), model.examples(present)
    given = torch.cat([x, more]), torch.cat([y, labels])
    options = {"batch": 120, "epochs": 1, "epsilon": 500.0}
    found = run(model, *given, dp.dp_train, **options)
    assert found.noise_multiplier < 0.3
    # Two steps of rate ½ draw each once on average, for lr · clip / batch.
    inside, outside = (model.scores()[side].mean() for side in (present, ~present))
    assert inside == pytest.approx(0.1 / 120, rel=0.15)
    assert abs(outside) < 0.02 * inside


# --- canaries that are images


def test_mislabelled_images_have_every_other_label_and_never_their_own():
    images, labels = pictures(3000, classes=3)
    same, wrong = canaries.mislabelled(images, labels, 3, seed=0)
    assert same is images
    assert (wrong != labels).all()
    assert ((wrong >= 0) & (wrong < 3)).all()
    shares = [float((((wrong - labels) % 3) == k).double().mean()) for k in (1, 2)]
    assert shares == pytest.approx([0.5, 0.5], abs=0.04)


def test_distinctive_images_agree_with_each_other_in_half_of_their_pixels():
    images, labels = canaries.distinctive(40, (1, 16, 16), 5, seed=0)
    assert images.dtype == torch.uint8
    assert set(images.unique().tolist()) == {0, 255}
    bits = images.flatten(1).double() / 255
    agree = (bits @ bits.T + (1 - bits) @ (1 - bits).T) / 256
    apart = agree[~torch.eye(40).bool()]
    assert apart.mean() == pytest.approx(0.5, abs=0.01)
    assert apart.max() < 0.7
    assert set(labels.tolist()) == set(range(5))
    again = canaries.distinctive(40, (1, 16, 16), 5, seed=0)
    assert torch.equal(again[0], images)


def test_coins_are_fair_and_repeat():
    found = canaries.coins(4000, 1)
    assert found.double().mean() == pytest.approx(0.5, abs=0.03)
    assert torch.equal(found, canaries.coins(4000, 1))
    assert not torch.equal(found, canaries.coins(4000, 2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: canaries.coins(0, 0), "count must be a whole number >= 1, got 0"),
        (lambda: trapped(0), "canaries must be a whole number >= 1, got 0"),
        (
            lambda: canaries.Trapdoor(linear(), 2, (1, 4, 4), SCALE),
            "shape must be C×H×W of 24 pixels or more",
        ),
        (
            lambda: trapped(5).examples(torch.ones(5)),
            r"present must be bool of shape \[5\], got torch.float32 \[5\]",
        ),
        (
            lambda: canaries.mislabelled(*pictures(), 1, seed=0),
            "classes must be a whole number >= 2, got 1",
        ),
        (
            lambda: canaries.distinctive(2, (1, 4), 2, seed=0),
            "shape must be C×H×W, each >= 1",
        ),
    ],
)
def test_canaries_refuse_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
