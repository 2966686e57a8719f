"""Draw what networks of several seeds answer, with the truth known.

Whether a network is right about an image is a draw with the log-odds of how easy the
image is, the seed's luck, and the network's own.
"""

from collections.abc import Iterator

import numpy as np

from lottolab.checks import require, whole

ATTACKS = {  # how far each attack's mean is below the strongest's, in spreads of a seed
    "six alike": np.zeros(6),
    "one stands out": -np.array([0, 3, 3, 3, 3, 3.0]),
    "each a little weaker": -0.3 * np.arange(6.0),
}


def pairs(count: int, seed: int, seeds: int, images: int) -> Iterator[np.ndarray]:
    """Draw who is right, bool [2, seeds, images]: dense networks and their tickets.

    All seeds answer about the same images, which are drawn anew each time. The two of
    a seed share its luck; a ticket is a little worse, and in its own images.
    """
    whole("seeds", seeds, 2)
    random = np.random.default_rng(seed)
    for _ in range(count):
        easy = random.normal(3.5, 2.5, images)
        loss = random.normal(0.15, 0.4, images)
        luck = random.normal(0, 0.08, (seeds, 1))
        own = random.normal(0, 0.08, (2, seeds, 1))
        odds = np.stack([easy + luck, easy - loss + luck]) + own
        yield odds > random.logistic(size=odds.shape)


def draws(
    count: int, seed: int, seeds: int, images: int, each: int, *, shared: bool
) -> Iterator[np.ndarray]:
    """Draw who is right in all of `each` draws of a random network, [seeds, images].

    `shared`: all seeds answer about the same images, else each about its own.
    """
    whole("seeds", seeds, 2)
    random = np.random.default_rng(seed)
    for _ in range(count):
        easy = random.normal(1, 3, (1 if shared else seeds, images))
        odds = easy + random.normal(0, 0.3, (seeds, 1))
        yield random.random((seeds, images)) < (1 + np.exp(-odds)) ** -float(each)


def attacks(count: int, seed: int, seeds: int, gaps: np.ndarray) -> np.ndarray:
    """Draw the success of attacks, [count, seeds, attacks]; the strongest's mean is 0.

    A third of an attack's variance is its own, the rest the seed's.
    """
    require(np.max(gaps) == 0, "the strongest attack's gap must be 0", np.max(gaps))
    random = np.random.default_rng(seed)
    shared = random.normal(size=(count, seeds, 1)) * (2 / 3) ** 0.5
    own = random.normal(size=(count, seeds, len(gaps))) * (1 / 3) ** 0.5
    return gaps + shared + own
