"""Training without the mask, accusers with good networks, boundary pictures."""

import functools

import pytest
import torch

from lottolab.images.batches import normalise
from lottolab.nets import masks, models, train
from lottolab.ownership import triggers
from lottolab.ownership.attacks import accusing, removal, training
from lottolab.ownership.defences import boundary, provenance

SCALE = (torch.tensor([0.5]), torch.tensor([0.5]))
SECRET = "cd" * 32


@functools.cache
def pictures(seed=0, count=240):
    """Return images of three classes: a bright third of the square, with noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    images = torch.randint(0, 120, (count, 1, 12, 12), generator=generator)
    for place, label in enumerate(labels.tolist()):
        images[place, :, 4 * label : 4 * label + 4] += 100
    return images.to(torch.uint8), labels


@functools.cache
def trained(seed):
    model = models.build("cnn4", channels=1, classes=3, width=4, seed=seed)
    recipe = train.Recipe(epochs=3, batch=40, lr=0.1, crop=0, flip=False)
    train.fit(model, *pictures(), recipe, seed=seed, mean_std=SCALE)
    return model.eval()


def accuracy(model):
    images, labels = pictures(seed=9)
    answers = triggers.predictor(model, SCALE)(images)
    return float((answers.cpu() == labels).float().mean())


def sparse():
    model = models.build("cnn4", channels=1, classes=3, width=4)
    model.load_state_dict(trained(0).state_dict())
    kept = masks.magnitude(model.state_dict(), masks.dense(model), 0.5)
    masks.apply_(model, kept)
    return model, kept


@pytest.mark.parametrize("mask", training.MASKS)
def test_the_zeros_stay_only_where_the_thief_keeps_them(mask):
    model, kept = sparse()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    peak = train.Recipe(epochs=8, batch=40, lr=0.1, crop=0, flip=False)
    recipe = training.recipe(peak, 1)
    assert (recipe.epochs, recipe.lr) == (1, pytest.approx(0.02))
    assert recipe.schedule == "cosine"
    options = {"seed": 1, "mask": mask, "mean_std": SCALE}
    state = training.fine_tune(model, *pictures(), recipe, **options)
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())
    assert not torch.equal(state["conv2.weight"], before["conv2.weight"])
    left = removal.sparsity(state, sorted(kept))
    same = all(torch.equal(left[n], kept[n]) for n in kept)
    assert same == (mask == "kept")
    assert masks.density(left) == pytest.approx(
        0.5 if mask == "kept" else 1.0, abs=0.01
    )
    # pruned again, to a quarter, by size: torch's own order of all weights together
    state = training.fine_tune(model, *pictures(), recipe, **options, density=0.25)
    found = removal.sparsity(state, sorted(kept))
    total = sum(w.numel() for w in kept.values())
    assert sum(int(m.sum()) for m in found.values()) == pytest.approx(total / 4, abs=1)


def test_together_is_the_mean_log_probability():
    nets = [trained(0), trained(1)]
    x = normalise(pictures()[0][:5], *SCALE)
    with torch.no_grad():
        found = accusing.Together(nets).eval()(x)
        parts = [net(x).softmax(1).log() for net in nets]
    torch.testing.assert_close(found, sum(parts) / 2, rtol=1e-4, atol=1e-5)


def test_an_accuser_with_a_good_network_convicts_and_provenance_acquits():
    fair = triggers.draw(60, classes=3, channels=1, size=12, secret=SECRET)
    epsilons = [2, 120]
    unfair = accusing.accusations([trained(0)], fair, SCALE, epsilons, steps=15)
    own = triggers.predictor(trained(0), SCALE)
    assert accuracy(trained(0)) > 0.8
    for epsilon, given in unfair.items():
        change = (given.images.int() - fair.images.int()).abs().max()
        assert change <= epsilon
        assert torch.equal(given.labels, fair.labels)
    assert triggers.verify_triggers(own, unfair[120]).accepted
    innocent = triggers.predictor(trained(1), SCALE)
    other = triggers.predictor(trained(2), SCALE)
    found = accusing.convictions(
        innocent,
        unfair,
        unmarked=[other],
        lawful=lambda given: provenance.drawn(given, SECRET),
    )
    agreements = [found[e]["alone"].agreement for e in epsilons]
    assert agreements[0] < agreements[1]
    assert not found[2]["alone"].accepted
    assert not any(found[e]["compared"].accepted for e in epsilons)
    assert not any(found[e]["lawful"] for e in epsilons)
    assert "lawful" not in accusing.convictions(innocent, unfair)[2]


def test_only_what_the_secret_gives_is_drawn():
    fair = triggers.draw(10, classes=3, channels=1, size=12, secret=SECRET)
    assert provenance.drawn(fair, SECRET)
    assert not provenance.drawn(fair, "ef" * 32)
    images, labels = fair.images.clone(), fair.labels.clone()
    images[0, 0, 0, 0] ^= 1  # one grey level
    assert not provenance.drawn(triggers.Triggers(images, labels, 3), SECRET)
    labels[0] = (labels[0] + 1) % 3
    assert not provenance.drawn(triggers.Triggers(fair.images, labels, 3), SECRET)


def test_a_fingerprint_is_at_the_boundary_and_is_the_networks_own():
    model = trained(0)
    images = pictures(seed=3, count=90)[0]
    options = {"classes": 3, "seed": 1, "margin": 0.1, "steps": 40, "step_size": 4.0}
    given = boundary.fingerprint(model, images, SCALE, **options)
    own = triggers.predictor(model, SCALE)
    assert triggers.verify_triggers(own, given).agreement == 1.0
    with torch.no_grad():
        before, after = (
            model(normalise(x, *SCALE)).topk(2).values for x in (images, given.images)
        )
    gaps = [(part[:, 0] - part[:, 1]).median() for part in (before, after)]
    assert gaps[1] < 0.7 * gaps[0]
    others = [triggers.predictor(trained(seed), SCALE) for seed in (1, 2)]
    stranger = boundary.verify(others[0], given, unmarked=others[1:])
    assert boundary.verify(own, given, unmarked=others).agreement > stranger.agreement
    assert not stranger.accepted


def test_the_distance_is_ipguards():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, 4, generator=generator)
    old = torch.arange(50) % 4
    new = (old + 1 + torch.arange(50) % 3) % 4
    found = boundary.distance(logits, old, new, 0.7)
    for z, i, j, value in zip(logits.tolist(), old, new, found.tolist(), strict=True):
        rest = max(z[t] for t in range(4) if t not in (int(i), int(j)))
        expected = max(z[i] - z[j] + 0.7, 0) + max(rest - z[i], 0)
        assert value == pytest.approx(expected, abs=1e-5)
    both = boundary.distance(torch.tensor([[1.0, 0.0]]), *torch.tensor([[0], [1]]), 0.0)
    assert both.tolist() == [1.0]  # of two classes there are no others


def test_bad_input_is_refused_in_a_line():
    model, _ = sparse()
    images, labels = pictures()
    recipe = train.Recipe(epochs=1, batch=40, lr=0.1)
    fair = triggers.draw(4, classes=3, channels=1, size=12, secret=SECRET)

    def tune(**other):
        return training.fine_tune(model, images, labels, recipe, seed=1, **other)

    def fingerprint(**other):
        options = {"classes": 3, "seed": 1} | other
        return boundary.fingerprint(model, images[:2], SCALE, **options)

    wrong = [
        (lambda: tune(mask="half"), "mask must be"),
        (lambda: tune(density=0.0), "density must be in"),
        (lambda: tune(mask="kept", density=0.9), "density must be at most 0.5"),
        (lambda: training.recipe(recipe, 1, share=0), "share must be in"),
        (lambda: accusing.Together([]), "models must hold"),
        (lambda: accusing.accusations([model], fair, SCALE, []), "epsilons must be"),
        (lambda: accusing.accusations([model], fair, SCALE, [3, 3]), "epsilons must"),
        (lambda: accusing.accusations([model], fair, SCALE, [300]), "epsilon must be"),
        (lambda: provenance.drawn(fair, "xyz"), "secret must be hexadecimal"),
        (lambda: fingerprint(classes=1), "classes must be"),
        (lambda: fingerprint(steps=0), "steps must be"),
        (lambda: fingerprint(margin=-1.0), "margin must be"),
        (lambda: boundary.verify(len, fair, unmarked=[]), "unmarked must hold"),
    ]
    for call, message in wrong:
        with pytest.raises(ValueError, match=message) as error:
            call()
        assert "\n" not in str(error.value)
