"""A ticket without its key, and the thieves who guess, grow or move: where they start.

Each stage is followed by the trainings that it does, from their first weights to their
last, and compared with the ticket that was split.
"""

import math

import numpy as np
import pytest
import torch
import trainings
from scipy import stats
from torchvision.transforms import functional as tv

from lottolab.images import datasets, partition
from lottolab.nets import models, tickets
from lottolab.ownership import split
from lottolab.ownership.experiments import keys

SETTING = {
    "dataset": "digits",
    "sizes": {"train": 200, "val": 50, "test": 100},
    "network": {"name": "resnet8", "width": 8},
    "recipe": {"epochs": 2, "batch": 50, "crop": 0, "flip": False},
    "rewind_at": 1,
    "seed": 3,
}
RATES = [0.4, 0.3]
GIVEN = SETTING | {"rates": RATES, "share": 0.2, "score": "magnitude"}
OTHER = {"name": "glyphs", "classes": 4, "images": 350}
SOURCE = {"dataset": "digits", "sizes": SETTING["sizes"]}
LIKE = {"name": "digits", "size": 16}  # the same layers, and so the same draws
NEW = ["conv1.weight", "fc.weight", "fc.bias"]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Give the module a store of its own and list all trainings, first to last."""
    with trainings.noted(tmp_path_factory.mktemp("store")) as found:
        yield found


@pytest.fixture(scope="module")
def ticket(store):
    """Return the masks of the ticket and the weights that it is rewound to."""
    start = tickets.dense(**SETTING)["rewind"]
    return tickets.iterative(rates=RATES, **SETTING)["masks"], start


@pytest.fixture
def fits(store, ticket):
    """List what a test trains beyond the ticket."""
    store.clear()
    return store


def count(masks) -> int:
    return sum(int(mask.sum()) for mask in masks.values())


def flat(tensors, names) -> np.ndarray:
    return np.concatenate([tensors[name].numpy().ravel() for name in sorted(names)])


def under(state, masks):
    """Return the state under the masks, by multiplication."""
    return {k: v * masks[k] if k in masks else v for k, v in state.items()}


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def known_lock(ticket, share=0.2):
    """Return what is left without the largest weights of the ticket."""
    masks, start = ticket
    lock = {name: mask.clone() for name, mask in masks.items()}
    sizes = np.abs(flat(under(start, masks), masks))
    key = np.argsort(-sizes, kind="stable")[: round(share * count(masks))]
    kept = flat(masks, masks)
    kept[key] = False
    parts = np.split(kept, np.cumsum([masks[n].numel() for n in sorted(masks)])[:-1])
    for name, part in zip(sorted(masks), parts, strict=True):
        lock[name] = torch.from_numpy(part).view(masks[name].shape)
    return lock


def is_noise(values):
    """Accept N(0, 0.01²) alone."""
    assert stats.kstest(values.astype(float), "norm", args=(0, 0.01)).pvalue > 1e-4


def check_told(outcome, fit, dataset="digits"):
    """Compare what a stage reports with the network that it trained last."""
    kept, total = count(fit["masks"]), sum(m.numel() for m in fit["masks"].values())
    source = datasets.get(dataset)
    parts = partition.splits(source, **SETTING["sizes"], seed=SETTING["seed"])
    known = source.images[parts["train"]]
    assert torch.equal(fit["images"], known)
    shape = {"channels": 1, "classes": source.classes}
    model = models.build("resnet8", width=8, **shape).eval()
    model.load_state_dict(fit["after"])
    pixels = known.double() / 255
    scale = [pixels.mean().item()], [pixels.std(correction=0).item()]
    x = tv.normalize(source.images[parts["test"]].float() / 255, *scale)
    with torch.no_grad():
        hits = model(x).argmax(1) == source.labels[parts["test"]]
    told = {"test_accuracy": pytest.approx(hits.double().mean().item())}
    assert outcome == {"metrics": told | {"density": pytest.approx(kept / total)}}
    for name, mask in fit["masks"].items():
        assert (fit["after"][name][~mask] == 0).all()


@pytest.mark.parametrize("share", [0.05, 0.5])
@pytest.mark.parametrize("score", split.SCORES)
def test_the_locked_part_is_trained_without_its_key(fits, ticket, score, share):
    outcome = keys.locked(**GIVEN | {"share": share, "score": score})
    (fit,) = fits
    (masks, start), lock = ticket, fit["masks"]
    key = {name: mask & ~lock[name] for name, mask in masks.items()}
    assert count(key) == round(share * count(masks))
    assert count(key) + count(lock) == count(masks)
    assert same(key, split.split_key(masks, start, share, score, SETTING["seed"])[0])
    assert same(fit["before"], under(start, lock))
    assert all((fit["before"][name][key[name]] == 0).all() for name in masks)
    assert (fit["start"], fit["seed"]) == (1, SETTING["seed"])
    check_told(outcome, fit)


def test_a_magnitude_key_is_the_largest_rewound_weights(fits, ticket):
    keys.locked(**GIVEN)
    (fit,) = fits
    assert same(fit["masks"], known_lock(ticket))


def test_a_guessed_key_has_the_tickets_number_of_weights(fits, ticket):
    outcome = keys.guessed(**GIVEN)
    (fit,) = fits
    (masks, start), lock = ticket, known_lock(ticket)
    assert count(fit["masks"]) == count(masks)
    assert all(fit["masks"][name][lock[name]].all() for name in lock)
    guess = {name: fit["masks"][name] & ~lock[name] for name in lock}
    values, places = flat(fit["before"], masks), flat(guess, masks)
    is_noise(values[places])
    assert (values[~places] == flat(under(start, lock), masks)[~places]).all()
    assert all(torch.equal(fit["before"][k], start[k]) for k in start.keys() - masks)
    # The places of the true key are hit as chance would have it.
    missing = flat(masks, masks) & ~flat(lock, masks)
    free = stats.hypergeom((~flat(lock, masks)).sum(), missing.sum(), places.sum())
    low, high = free.interval(0.9999)
    assert low <= (places & missing).sum() <= high
    assert fit["start"] == 1
    check_told(outcome, fit)


def test_a_regrown_key_is_what_training_made_large(fits, ticket):
    outcome = keys.regrown(**GIVEN)
    dense, fit = fits
    (masks, start), lock = ticket, known_lock(ticket)
    # First all that is not given is noise, and all of it is trained.
    given = flat(lock, masks)
    assert all(mask.all() for mask in dense["masks"].values())
    first = flat(dense["before"], masks)
    assert (first[given] == flat(start, masks)[given]).all()
    is_noise(first[~given])
    # Then the lock and the largest others are kept, as many as the ticket has.
    sizes = np.abs(flat(dense["after"], masks))
    sizes[given] = np.inf
    expected = np.zeros(len(sizes), bool)
    expected[np.argsort(-sizes, kind="stable")[: count(masks)]] = True
    assert (flat(fit["masks"], masks) == expected).all()
    assert count(fit["masks"]) == count(masks)
    assert all(fit["masks"][name][lock[name]].all() for name in lock)
    # And they are rewound.
    assert same(fit["before"], under(dense["before"], fit["masks"]))
    assert dense["start"] == fit["start"] == 1
    check_told(outcome, fit)


@pytest.mark.parametrize("share", [0, 0.2])
@pytest.mark.parametrize("other", [OTHER, LIKE], ids=["glyphs", "as many classes"])
def test_a_moved_ticket_has_new_ends_and_the_sources_mask(fits, ticket, other, share):
    asked = GIVEN | {"dataset": other, "share": share}
    outcome = keys.transferred(source=SOURCE, **asked)
    (fit,) = fits
    masks, start = ticket
    lock = known_lock(ticket) if share else masks
    assert same(fit["masks"], lock)
    for name, kept in under(start, lock).items():
        if name not in NEW:
            assert torch.equal(fit["before"][name], kept)
    assert fit["start"] == 1
    check_told(outcome, fit, other)
    # The new convolution is drawn as a first one is, and from nothing known.
    new = fit["before"]["conv1.weight"].flatten().numpy().astype(float)
    assert stats.kstest(new, "norm", args=(0, math.sqrt(2 / (9 * 8)))).pvalue > 1e-4
    first = models.build(
        "resnet8", channels=1, classes=10, width=8, seed=SETTING["seed"]
    )
    for old in (start, first.state_dict()):
        assert abs(stats.pearsonr(new, old["conv1.weight"].flatten())[0]) < 0.45
    # And so is the classifier, by torch's own rule.
    bound = 1 / math.sqrt(32)
    weights = fit["before"]["fc.weight"].flatten().numpy().astype(float)
    assert stats.kstest(weights, "uniform", args=(-bound, 2 * bound)).pvalue > 1e-4


@pytest.mark.parametrize("stage", [keys.locked, keys.guessed, keys.regrown])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"share": 0}, r"fraction must be in \(0, 1\), got 0"),
        ({"share": 1.5}, r"fraction must be in \(0, 1\), got 1.5"),
        ({"score": "magnitud"}, "did you mean magnitude"),
    ],
)
def test_a_key_that_cannot_be_is_refused_before_training(fits, stage, change, message):
    with pytest.raises(ValueError, match=message):
        stage(**GIVEN | change)
    assert not fits
