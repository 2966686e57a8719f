"""What a thief does in one step: exact counts, the right places, the noise asked."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from lottolab.ownership.attacks import removal
from lottolab.ownership.signatures import qr, signature
from lottolab.ownership.signatures.key import SignatureKey

NAMES = ["b", "a"]  # not in the order of the alphabet, as a network's may be
SHAPES = {"a": (20, 16, 3, 3), "b": (12, 10, 3, 3), "fc": (10, 12)}
EMPTY = 0.4
KEY = SignatureKey(
    layer="a",
    shape=(30, 26),
    row=4,
    column=3,
    version=1,
    ecc="M",
    mask=2,
    secret="ab" * 32,
    windows=60,
    threshold=0.0,
    digest="0" * 64,
)


def sparse(shapes):
    """Yield a state dict of which two layers are sparse; it must not be changed."""
    generator = torch.Generator().manual_seed(0)
    found = {k: torch.randn(s, generator=generator) for k, s in shapes.items()}
    for name in NAMES:
        found[name][torch.rand(shapes[name], generator=generator) < EMPTY] = 0
    before = {k: v.clone() for k, v in found.items()}
    yield found
    assert same(found, before)


@pytest.fixture
def state():
    yield from sparse(SHAPES)


@pytest.fixture
def signed():
    """Return a state dict with room for the key's window."""
    yield from sparse(SHAPES | {"a": (*KEY.shape, 3, 3)})


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def flat(tensors, names=("a", "b")) -> np.ndarray:
    """Put the sparse layers in a row."""
    return np.concatenate([tensors[name].numpy().ravel() for name in names])


def looks_normal(noise, size):
    """Accept neither another mean, nor another spread, nor another distribution."""
    assert stats.kstest(noise, "norm", args=(0, size)).pvalue > 1e-4
    spread = stats.chi2.cdf((noise / size) @ (noise / size), len(noise))
    assert 1e-4 < spread < 1 - 1e-4


def fair(chosen, allowed):
    """Tell whether `chosen` of the `allowed` places are a fair share in layer a."""
    first = np.prod(SHAPES["a"])
    drawn = stats.hypergeom(allowed.sum(), allowed[:first].sum(), chosen.sum())
    low, high = drawn.interval(0.9999)
    return low <= chosen[:first].sum() <= high


def test_a_state_wears_the_mask_of_its_weights_that_are_not_zero(state):
    zeros = torch.tensor([0.0, -0.0, 1e-30, -1e-30])
    found = removal.sparsity(state | {"a": zeros}, NAMES)
    assert sorted(found) == ["a", "b"]
    assert found["a"].tolist() == [False, False, True, True]
    assert (found["b"].numpy() == (state["b"].numpy() != 0)).all()


@pytest.mark.parametrize("amount", [0.0, 0.1, 0.37, 0.999])
def test_pruning_by_magnitude_removes_exactly_the_smallest(state, amount):
    found = removal.prune(state, NAMES, amount, "magnitude", seed=0)
    before = flat(state)
    living = before.nonzero()[0]
    smallest = living[np.argsort(np.abs(before[living]))][: round(amount * len(living))]
    expected = before.copy()
    expected[smallest] = 0
    assert (flat(found) == expected).all()
    assert torch.equal(found["fc"], state["fc"])


@pytest.mark.parametrize("amount", [0.0, 0.1, 0.37, 0.999])
def test_pruning_at_random_removes_as_many_and_asks_for_no_size(state, amount):
    found = removal.prune(state, NAMES, amount, "random", seed=0)
    before, after = flat(state), flat(found)
    living = before != 0
    gone = living & (after == 0)
    assert gone.sum() == round(amount * living.sum())
    assert (after == np.where(gone, 0, before)).all()  # so nothing is revived
    assert torch.equal(found["fc"], state["fc"])
    if 0 < amount < 0.9:
        assert fair(gone, living)
        sizes = np.abs(before)
        assert stats.ks_2samp(sizes[gone], sizes[living & ~gone]).pvalue > 1e-3


@pytest.mark.parametrize("method", ["magnitude", "random"])
def test_pruning_twice_multiplies(state, method):
    once = removal.prune(state, NAMES, 0.3, method, seed=0)
    twice = removal.prune(once, NAMES, 0.5, method, seed=1)
    left = flat(once) != 0
    assert (flat(twice)[~left] == 0).all()
    assert (flat(twice) != 0).sum() == left.sum() - round(0.5 * left.sum())


@pytest.mark.parametrize("rate", [0.001, 0.25, 1.0])
@pytest.mark.parametrize("size", [0.01, 2.0])
def test_noise_fills_exactly_a_share_of_the_empty_places(state, rate, size):
    found = removal.add_on(state, NAMES, rate, size, seed=0)
    before, after = flat(state), flat(found)
    empty = before == 0
    filled = empty & (after != 0)
    assert filled.sum() == round(rate * empty.sum())
    assert (after[~filled] == before[~filled]).all()
    assert fair(filled, empty)
    assert all(found[k].dtype == state[k].dtype for k in state)
    assert torch.equal(found["fc"], state["fc"])
    if rate > 0.1:
        looks_normal(after[filled].astype(float), size)


def test_no_noise_is_the_identity(state):
    assert same(removal.add_on(state, NAMES, 0.0, 1.0, seed=0), state)
    full = state | {name: torch.ones(SHAPES[name]) for name in NAMES}
    assert same(removal.add_on(full, NAMES, 1.0, 1.0, seed=0), full)


DRAWS = {
    "pruned": lambda s, seed: removal.prune(s, NAMES, 0.5, "random", seed),
    "filled": lambda s, seed: removal.add_on(s, NAMES, 0.5, 1.0, seed),
    "guessed": lambda s, seed: removal.guess_key(
        s, removal.sparsity(s, NAMES), 900, seed
    )[0],
}


@pytest.mark.parametrize("draw", DRAWS)
def test_a_seed_fixes_what_is_drawn_and_another_draws_anew(state, draw):
    first, again, other = (DRAWS[draw](state, seed) for seed in (0, 0, 1))
    assert same(first, again)
    before = flat(state)
    drawn = [flat(found) != before for found in (first, other)]
    allowed = (before != 0) if draw == "pruned" else (before == 0)
    # The places of one seed tell nothing of another's.
    both = stats.hypergeom(allowed.sum(), drawn[0].sum(), drawn[1].sum())
    low, high = both.interval(0.9999)
    assert low <= (drawn[0] & drawn[1]).sum() <= high


@pytest.mark.parametrize(
    ("rate", "size", "message"),
    [
        (-0.1, 1.0, r"rate must be in \[0, 1\], got -0.1"),
        (1.1, 1.0, r"rate must be in \[0, 1\], got 1.1"),
        (float("nan"), 1.0, r"rate must be in \[0, 1\], got nan"),
        (0.5, 0.0, "size must be > 0, got 0.0"),
        (0.5, float("nan"), "size must be > 0, got nan"),
    ],
)
def test_an_add_on_out_of_range_is_refused(state, rate, size, message):
    with pytest.raises(ValueError, match=message):
        removal.add_on(state, NAMES, rate, size, seed=0)


@pytest.mark.parametrize("method", ["magnitude", "random"])
@pytest.mark.parametrize("amount", [-0.1, 1.0, float("nan")])
def test_an_amount_out_of_range_is_refused(state, method, amount):
    with pytest.raises(ValueError, match=r"must be in \[0, 1\)"):
        removal.prune(state, NAMES, amount, method, seed=0)


def test_overwriting_replaces_the_window_and_nothing_else(signed):
    wanted = torch.rand(21, 21, generator=torch.Generator().manual_seed(2)) < 0.5
    found = removal.overwrite(signed, KEY, wanted, seed=0)
    inside = torch.zeros(30, 26, dtype=torch.bool)
    inside[4:25, 3:24] = True
    assert torch.equal(found["a"][~inside], signed["a"][~inside])
    assert same(found | {"a": signed["a"]}, signed)
    window = found["a"][inside].view(21, 21, 9)
    assert torch.equal((window != 0).all(2), wanted)
    assert torch.equal((window != 0).any(2), wanted)
    noise = window[wanted].flatten().numpy().astype(float)
    looks_normal(noise, 0.1)
    again = removal.overwrite(signed, KEY, wanted, seed=0)
    other = removal.overwrite(signed, KEY, wanted, seed=1)
    assert same(found, again)
    assert not torch.equal(found["a"], other["a"])


def test_what_is_written_over_a_code_is_read_by_the_thief_alone(signed):
    modules, form = qr.encode("thief", "M", version=1)
    theirs = replace(KEY, secret="cd" * 32, mask=form.mask)
    wanted = torch.from_numpy(signature.covered(modules, theirs))
    found = removal.overwrite(signed, KEY, wanted, seed=0)
    assert signature.verify(found, theirs).text == "thief"
    assert signature.verify(signed, theirs).text is None
    assert signature.verify(found, KEY).text is None


@pytest.mark.parametrize("count", [0, 1, 800])
def test_a_guessed_key_is_of_the_count_asked_and_outside_of_the_lock(state, count):
    locked = removal.sparsity(state, NAMES)
    start = state | {name: torch.full(SHAPES[name], 7.0) for name in NAMES}
    found, masks = removal.guess_key(start, locked, count, seed=0)
    lock, kept = flat(locked), flat(masks)
    guess = kept & ~lock
    assert guess.sum() == count
    assert (kept >= lock).all()
    assert ((flat(found) != 7) == guess).all()
    assert torch.equal(found["fc"], start["fc"])
    assert same(locked, removal.sparsity(state, NAMES))
    assert fair(guess, ~lock)
    if count > 1:
        looks_normal(flat(found)[guess].astype(float), 0.01)


def test_a_key_may_be_all_that_is_free_but_no_more(state):
    locked = removal.sparsity(state, NAMES)
    free = int((~flat(locked)).sum())
    _, masks = removal.guess_key(state, locked, free, seed=0)
    assert flat(masks).all()
    with pytest.raises(ValueError, match=f"at most {free}, got {free + 1}"):
        removal.guess_key(state, locked, free + 1, seed=0)
    with pytest.raises(ValueError, match="count must be a whole number >= 0, got -1"):
        removal.guess_key(state, locked, -1, seed=0)


def test_below_the_threshold_means_below():
    limit = np.float32(0.1)
    less, more = np.nextafter(limit, np.float32([0, 1]))
    sizes = torch.from_numpy(np.float32([0, less, limit, more, 5]))
    weights = torch.cat([sizes, -sizes])
    kept = torch.cat([sizes, -sizes])
    kept[[1, 6]] = 0
    found = removal.below({"a": weights, "b": weights}, ["a"], float(limit))
    assert torch.equal(found["a"], kept)
    assert torch.equal(found["b"], weights)
    assert same(removal.below({"a": weights}, ["a"], 0.0), {"a": weights})
