"""The audit of one run: its theorem against enumeration, and what it can say."""

import functools
import itertools
import math

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import brentq

from lottolab.mia_pruning.privacy import one_run

ALPHA = 0.05


def logistic(epsilon):
    return math.exp(epsilon) / (1 + math.exp(epsilon))


def chances(r, q):
    return [math.comb(r, k) * q**k * (1 - q) ** (r - k) for k in range(r + 1)]


@pytest.mark.parametrize("delta", [0.0, 1e-5, 0.01])
@pytest.mark.parametrize(("v", "r", "m"), [(7, 9, 9), (9, 9, 20), (1, 5, 5), (0, 3, 8)])
def test_the_p_value_is_the_theorems(v, r, m, delta):
    mass = chances(r, logistic(1.3))
    above = sum(mass[v:])
    spans = [sum(mass[v - i : v]) / i for i in range(1, v + 1)]
    expected = min(above + 2 * m * delta * max(spans, default=0), 1)
    assert one_run.p_value(v, r, m, 1.3, delta) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("delta", [0.0, 1e-3, 0.1])
@pytest.mark.parametrize("epsilon", [0.0, 0.5, 2.0])
def test_of_a_single_canary_it_bounds_what_the_definition_allows(epsilon, delta):
    """The best guess of one coin is right with probability (e^ε + δ) / (e^ε + 1)."""
    exact = (math.exp(epsilon) + delta) / (math.exp(epsilon) + 1)
    found = one_run.p_value(1, 1, 1, epsilon, delta)
    q = logistic(epsilon)
    assert found >= exact - 1e-12
    assert found == pytest.approx(min(q + 2 * delta * (1 - q), 1))


def every_guesser(epsilon, m):
    """Yield the chances of right guesses, by enumeration, of those that share a coin.

    The mechanism shows each coin by randomised response; a guesser guesses all of them
    or, where the first two answers agree, all by the first.
    """
    q = logistic(epsilon)
    for rule in (lambda seen: seen, lambda seen: seen[:1] * m if seen[0] else seen):
        mass = np.zeros(m + 1)
        for coins in itertools.product((0, 1), repeat=m):
            for seen in itertools.product((0, 1), repeat=m):
                agree = sum(a == b for a, b in zip(coins, seen, strict=True))
                chance = 0.5**m * q**agree * (1 - q) ** (m - agree)
                guessed = rule(seen)
                hits = sum(a == b for a, b in zip(coins, guessed, strict=True))
                mass[hits] += chance
        yield mass


@pytest.mark.parametrize("epsilon", [0.0, 1.0])
def test_no_guesser_is_right_more_often_than_the_p_value_says(epsilon):
    for mass in every_guesser(epsilon, 5):
        for v in range(6):
            bound = one_run.p_value(v, 5, 5, epsilon, 0.0)
            assert mass[v:].sum() <= bound + 1e-12


@functools.cache
def bound(correct, guesses, canaries, delta):
    return one_run.epsilon_lower_bound(correct, guesses, canaries, delta)


@pytest.mark.parametrize("epsilon", [0.0, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("m", [40, 150])
def test_randomised_response_is_never_accused_more_often_than_alpha(epsilon, m):
    """The number of right guesses is binomial, so that the chance is a sum."""
    mass = stats.binom.pmf(range(m + 1), m, logistic(epsilon))
    accused = [bound(v, m, m, 0.0) > epsilon + 1e-6 for v in range(m + 1)]
    chance = float(mass[accused].sum())
    assert chance <= ALPHA
    # Nor is it hardly ever accused: the bound is as sharp as counts allow.
    least = min(v for v in range(m + 1) if accused[v]) if any(accused) else m
    assert chance + mass[least - 1] > ALPHA


@pytest.mark.parametrize("delta", [1e-4, 1e-3])
def test_a_mechanism_that_uses_its_delta_is_not_accused_either(delta):
    """Each coin is shown plainly with probability δ, else by randomised response."""
    m, q = 150, logistic(1.0)
    mass = stats.binom.pmf(range(m + 1), m, q + delta * (1 - q))
    accused = [bound(v, m, m, delta) > 1.0 for v in range(m + 1)]
    assert 0 < mass[accused].sum() <= ALPHA
    # Or all of them at once, with probability δ.
    mass = (1 - delta) * stats.binom.pmf(range(m + 1), m, q)
    mass[m] += delta
    assert mass[accused].sum() <= ALPHA


def test_simulated_coins_are_covered_too_with_abstention_and_a_choice_of_shares():
    rng, epsilon, m = np.random.default_rng(0), 1.0, 60
    right, accused = logistic(epsilon), 0
    for _ in range(80):
        coins = rng.random(m) < 0.5
        seen = np.where(rng.random(m) < right, coins, ~coins)
        scores = seen + 0.1 * rng.random(m)
        shown = one_run.audit(scores, coins, 0.0, shares=(0.25, 0.5, 1.0))
        accused += shown.epsilon > epsilon
    assert accused <= stats.binom.ppf(0.999, 80, ALPHA)


def exact(sigma, delta):
    """Return the ε of the Gaussian mechanism (Balle & Wang, 2018, Theorem 8)."""
    a = 1 / sigma

    def excess(e):
        left = stats.norm.cdf(a / 2 - e / a)
        return left - math.exp(e) * stats.norm.cdf(-a / 2 - e / a) - delta

    return brentq(excess, 0, 100)


def test_the_gaussian_mechanism_stays_below_its_epsilon_and_is_seen():
    rng, found = np.random.default_rng(1), []
    true = exact(0.5, 1e-5)
    for _ in range(12):
        coins = rng.random(2000) < 0.5
        scores = coins + rng.normal(0, 0.5, 2000)
        shown = one_run.audit(scores, coins, 1e-5, shares=(0.1, 0.3, 1.0))
        found.append(shown.epsilon)
    assert max(found) < true
    assert np.mean(found) > true / 4


@pytest.mark.parametrize("r", [1, 4, 5, 100, 2000])
def test_a_perfect_guesser_reaches_the_cap_whose_form_is_closed(r):
    q = ALPHA ** (1 / r)
    expected = max(math.log(q / (1 - q)), 0)
    assert one_run.cap(r, 0.0) == pytest.approx(expected, abs=1e-6)
    coins = np.arange(r) % 2 == 0
    shown = one_run.audit(coins.astype(float), coins, 0.0)
    # One "in" guess too many or too few would be wrong.
    assert shown.guesses == r
    if (r // 2) == coins.sum():
        assert shown.epsilon == shown.cap == one_run.cap(r, 0.0)


def test_the_bound_grows_with_right_guesses_and_falls_with_delta():
    bounds = [bound(v, 100, 200, 1e-4) for v in range(0, 101, 4)]
    assert bounds == sorted(bounds)
    assert bounds[0] == 0
    assert bounds[-1] > 3
    by_delta = [bound(95, 100, 200, d) for d in (0.0, 1e-5, 1e-4, 1e-3)]
    assert by_delta == sorted(by_delta, reverse=True)
    assert by_delta[0] > by_delta[-1] + 0.1


def test_guesses_of_none_and_guesses_that_are_all_wrong_show_nothing():
    assert bound(0, 0, 100, 0.0) == 0
    assert bound(0, 100, 100, 0.0) == 0
    assert bound(50, 100, 100, 0.0) == 0


@pytest.mark.parametrize("delta", [0.0, 1e-5])
@pytest.mark.parametrize("epsilon", [0.5, 1.0, 6.28])
def test_so_many_canaries_are_needed_and_one_fewer_is_not_enough(epsilon, delta):
    count = one_run.canaries_needed(epsilon, delta)
    assert one_run.cap(count, delta) >= epsilon - 1e-6
    assert one_run.cap(count - 1, delta) < epsilon
    fewer = one_run.canaries_needed(epsilon, delta, share=0.8)
    made = [round(0.8 * m) for m in (fewer, fewer - 1)]
    assert one_run.cap(fewer, delta, guesses=made[0]) >= epsilon - 1e-6
    assert one_run.cap(fewer - 1, delta, guesses=made[1]) < epsilon
    if not delta:
        closed = math.ceil(math.log(ALPHA) / math.log(logistic(epsilon)) - 1e-9)
        assert count == closed


def test_an_epsilon_that_delta_hides_is_refused():
    """With δ = 1e-3, guesses by chance stay possible however many there are."""
    with pytest.raises(ValueError, match="no number of canaries shows an epsilon of 6"):
        one_run.canaries_needed(6.28, 1e-3)
    limit = math.log(ALPHA / 2e-3 - 1)
    assert one_run.cap(20_000, 1e-3) == pytest.approx(limit, abs=0.2)


def test_the_audit_before_it_could_not_fail_and_this_one_can():
    """500 canaries of each kind cap the bound of Jagielski et al. at 4.21."""
    from lottolab.mia_pruning import audit

    count = one_run.canaries_needed(6.28, 1e-5)
    coins = np.random.default_rng(0).random(count) < 0.5
    scores = coins + 0.0
    before = audit.epsilon_lower_bound(scores[coins][:500], scores[~coins][:500], 1e-5)
    assert before < 6.28
    # All are guessed right where as many are in as out.
    even = np.arange(2 * count) % 2 == 0
    assert one_run.audit(even + 0.0, even, 1e-5).epsilon > 6.28


def test_the_surest_are_guessed_and_the_rest_left_out():
    made = one_run.guess([5.0, -5.0, 0.1, 4.0, -0.1], 2, 1)
    assert made.tolist() == [1, -1, 0, 1, 0]
    assert one_run.guess([1.0, 1.0, 1.0], 1, 1).tolist() == [-1, 0, 1]
    # Those that say something are worth more than all together.
    rng = np.random.default_rng(0)
    coins = rng.random(1000) < 0.5
    scores = np.where(rng.random(1000) < 0.2, 10.0 * (2 * coins - 1), 0)
    scores += rng.normal(0, 0.1, 1000)
    few, every = (one_run.audit(scores, coins, 0.0, shares=(s,)) for s in (0.15, 1.0))
    assert few.correct == few.guesses == 150
    assert few.epsilon > every.epsilon + 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"correct": 6}, "correct must be at most 5, got 6"),
        ({"correct": -1}, "correct must be a whole number >= 0, got -1"),
        ({"guesses": 11}, "guesses must be at most 10, got 11"),
        ({"canaries": 0}, "canaries must be a whole number >= 1, got 0"),
        ({"delta": 1.0}, r"delta must be in \[0, 1\), got 1.0"),
        ({"level": 1.0}, r"level must be in \(0, 1\), got 1.0"),
    ],
)
def test_a_bound_refuses_bad_input(changed, message):
    given = {"correct": 3, "guesses": 5, "canaries": 10, "delta": 0.0} | changed
    with pytest.raises(ValueError, match=message):
        one_run.epsilon_lower_bound(**given)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"scores": []}, r"one dimension and an entry, got shape \(0,\)"),
        ({"scores": [1.0, math.nan]}, r"scores must be finite, got \[nan\]"),
        ({"present": [1, 2]}, "present must be 0 or 1"),
        ({"present": [1]}, "present must be 0 or 1"),
        ({"shares": ()}, "shares must hold at least one"),
        ({"shares": (1.5,)}, r"a share must be in \(0, 1\], got 1.5"),
        ({"delta": -0.1}, r"delta must be in \[0, 1\), got -0.1"),
    ],
)
def test_an_audit_refuses_bad_input(changed, message):
    given = {"scores": [1.0, 2.0], "present": [0, 1], "delta": 0.0} | changed
    with pytest.raises(ValueError, match=message):
        one_run.audit(**given)
    with pytest.raises(ValueError, match=r"present \+ absent must be in \[1, 2\]"):
        one_run.guess([1.0, 2.0], 2, 1)
