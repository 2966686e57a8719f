"""Looking for a signature without its key: what stands out, and what does not."""

import numpy as np
import pytest
from scipy import stats

from lottolab.ownership.signatures import detection, qr

SIDE, PLACE = 32, (4, 7)  # of the layer, and of the window planted in it
WINDOWS = (SIDE - 21 + 1) ** 2


def layer(density, seed, place=None):
    """Draw a layer with coins on the data modules of a version 1 code at `place`."""
    random = np.random.default_rng(seed)
    kept = random.random((SIDE, SIDE)) < density
    if place is not None:
        rows, columns = qr.places(1).T
        kept[place[0] + rows, place[1] + columns] = random.random(len(rows)) < 0.5
    return kept


def best(found):
    return tuple(int(i) for i in np.unravel_index(found.argmax(), found.shape))


def brute_force(kept, version):
    """Return the table of log-likelihood ratios, summed a kernel at a time."""
    size = 17 + 4 * version
    total = sum(bool(k) for row in kept for k in row) / kept.size
    share = np.empty(kept.shape)
    for r, c in np.ndindex(kept.shape):
        product = sum(kept[r, :]) / kept.shape[1] * sum(kept[:, c]) / kept.shape[0]
        share[r, c] = min(max(product / total, 1 / kept.size), 1 - 1 / kept.size)
    coin, usual = (stats.bernoulli.logpmf(kept, p) for p in (0.5, share))
    each = coin - usual
    rows, columns = (side - size + 1 for side in kept.shape)
    table = np.zeros((rows, columns))
    for top, left in np.ndindex(table.shape):
        table[top, left] = sum(each[top + r, left + c] for r, c in qr.places(version))
    return table


@pytest.mark.parametrize("density", [0.05, 0.5, 0.97])
def test_prominence_is_the_log_likelihood_ratio(density):
    random = np.random.default_rng(0)
    rows, columns = random.random((23, 1)), random.random(24)
    kept = random.random((23, 24)) < density * np.sqrt(rows * columns * 2)
    kept[5], kept[:, 3] = False, True
    found = detection.prominence(kept, 1)
    assert found.shape == (3, 4)
    np.testing.assert_allclose(found, brute_force(kept, 1), rtol=1e-9)


def test_a_larger_code_has_more_modules():
    kept = np.random.default_rng(0).random((25, 26)) < 0.8
    found = detection.prominence(kept, 2)
    assert found.shape == (1, 2)
    np.testing.assert_allclose(found, brute_force(kept, 2), rtol=1e-9)


@pytest.mark.parametrize("density", [0.1, 0.9])
def test_coins_in_a_layer_of_one_kind_are_found(density):
    tables = [detection.prominence(layer(density, s, PLACE), 1) for s in range(50)]
    assert sum(best(table) == PLACE for table in tables) >= 48


@pytest.mark.parametrize("density", [0.1, 0.9])
def test_without_coins_no_place_is_preferred(density):
    tables = [detection.prominence(layer(density, s), 1) for s in range(200)]
    hits = sum(best(table) == PLACE for table in tables)
    assert hits <= stats.binom(200, 1 / WINDOWS).ppf(0.999)
    assert len({best(table) for table in tables}) > 50
    # and nothing stands out as much as a planted one
    planted = [detection.prominence(layer(density, s, PLACE), 1) for s in range(50)]
    assert max(t.max() for t in tables) < min(t.max() for t in planted)


@pytest.mark.parametrize("channels", ["outputs", "inputs"])
def test_channels_half_alive_are_not_taken_for_a_code(channels):
    share = np.full(SIDE, 0.95)
    share[6:22] = 0.55
    for seed in range(20):
        kept = np.random.default_rng(seed).random((SIDE, SIDE)) < share
        kept = kept.T if channels == "outputs" else kept
        assert detection.prominence(kept, 1).max() < 0


@pytest.mark.parametrize("alive", [True, False])
def test_a_layer_of_one_kind_throughout_has_no_place_that_stands_out(alive):
    found = detection.prominence(np.full((24, 30), alive), 1)
    assert found.shape == (4, 10)
    # A kernel that is as expected costs log(1 / 2) under the coin and next to 0 else.
    expected = 208 * (np.log(0.5) - np.log(1 - 1 / 720))
    np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize("shape", [(20, 40), (40, 20)])
def test_a_layer_smaller_than_the_code_is_refused(shape):
    with pytest.raises(ValueError, match="the layer must be 21×21, got"):
        detection.prominence(np.ones(shape, bool), 1)
    assert detection.prominence(np.ones((21, 21), bool), 1).shape == (1, 1)
