"""The contradicting study's attack and defence, and the audit of private training."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from scipy.optimize import brentq
from sklearn.metrics import roc_auc_score
from torch import nn

from lottolab.images import datasets
from lottolab.membership import metrics
from lottolab.membership.attacks import nasr
from lottolab.mia_pruning import audit
from lottolab.mia_pruning.attacks import samia
from lottolab.mia_pruning.defences import ppb
from lottolab.nets import models, predict, train

pytestmark = pytest.mark.usefixtures("on_one_thread")
MEAN_STD = (torch.tensor([0.5]), torch.tensor([0.25]))


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def digits(parts, noise=0.0):
    """Return images and labels of parts of the digits, some labels at random."""
    found = datasets.load("digits")
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(1797, generator=generator)[: sum(parts)]
    random = torch.randint(10, (1797,), generator=generator)
    wrong = torch.rand(1797, generator=generator) < noise
    labels = found.labels.where(~wrong, random)
    return [(found.images[rows], labels[rows]) for rows in order.split(parts)]


def plain(**settings):
    return train.Recipe(
        **{"batch": 50, "crop": 0, "flip": False, "lr": 0.05} | settings
    )


def network(width=4, seed=0):
    shape = {"channels": 1, "classes": 10, "size": 8}
    return models.build("cnn4", width=width, seed=seed, **shape)


# --- the sensitivity of a prediction


def linear(scale=1.0):
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 4))
    model[1].weight.data = scale * drawn(4, 9, seed=1)
    model[1].bias.data = torch.tensor([20.0, 0.0, 0.0, 0.0]) * (scale - 1)
    return model


def pictures(n, seed=2):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (n, 1, 3, 3), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_the_sensitivity_is_the_norm_of_the_gradient(scale):
    """Of a softmax of a linear map that is p_c · |w_c − Σ p_k w_k|.

    The mean of |N(0, 1)| is √(2/π). With scale 2 class 0 has a probability of nearly
    one, and yet it changes.
    """
    model, images = linear(scale), pictures(12)
    found = samia.sensitivity(model, images, MEAN_STD, copies=3000, seed=0)
    x = ((images / 255 - 0.5) / 0.25).flatten(1).double()
    w = model[1].weight.detach().double()
    p = (x @ w.T + model[1].bias.detach()).softmax(1)
    gradient = p[:, :, None] * (w - (p @ w)[:, None])
    expected = math.sqrt(2 / math.pi) * gradient.norm(dim=2)
    assert p.max() > 1 - 1e-6 or scale == 1
    np.testing.assert_allclose(found, expected, rtol=0.06)
    assert found.dtype == torch.float32


def test_the_sensitivity_is_the_mean_change_over_the_size_of_the_noise():
    """Also where that is no gradient; and every batch of images is asked about."""
    model, images = linear(), pictures(1).repeat(1003, 1, 1, 1)
    options = {"copies": 20, "sigma": 1.5, "seed": 0}
    found = samia.sensitivity(model, images, MEAN_STD, **options)
    x = (images[:1] / 255 - 0.5) / 0.25
    noisy = x + 1.5 * drawn(50_000, 1, 3, 3)
    change = (model(noisy).softmax(1) - model(x).softmax(1)).abs() / 1.5
    assert found.shape == (1003, 4)
    assert (found > 0).all()
    np.testing.assert_allclose(found.mean(0), change.mean(0).detach(), rtol=0.05)


def test_the_sensitivity_depends_on_its_seed_alone_and_leaves_the_model_as_it_was():
    model, (images, _) = network().train(), digits([20])[0]
    before = {k: v.clone() for k, v in model.state_dict().items()}
    found = []
    for outside, seed in ((1, 3), (2, 3), (2, 4)):
        torch.manual_seed(outside)
        state = torch.get_rng_state()
        found.append(samia.sensitivity(model, images, MEAN_STD, seed=seed))
        assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[1], found[2])
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert not found[0].requires_grad


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"copies": 0}, "copies must be a whole number >= 1, got 0"),
        ({"sigma": 0}, "sigma must be >= 1e-05 and finite, got 0"),
        ({"sigma": math.inf}, "sigma must be >= 1e-05 and finite, got inf"),
        (
            {"images": torch.zeros(2, 1, 3, 3)},
            "N×C×H×W, N >= 1, got torch.float32",
        ),
        ({"images": pictures(2)[0]}, r"N×C×H×W, N >= 1, got .* \[1, 3,"),
    ],
)
def test_the_sensitivity_refuses_bad_input(changed, message):
    given = {"images": pictures(2), "mean_std": MEAN_STD, "seed": 0} | changed
    with pytest.raises(ValueError, match=message):
        samia.sensitivity(linear(), **given)


# --- the attack


def examples(n=1200, gap=0.0, told=0.0, wrong=0.0, seed=0):
    """Draw logits, labels, sensitivities and who is a member.

    Members have the label's logit larger by `gap` and the sensitivity smaller by a
    factor exp(`told`); of non-members a share `wrong` has another label.
    """
    z, s = 2 * drawn(n, 5, seed=seed), drawn(n, 5, seed=seed + 1).exp()
    generator = torch.Generator().manual_seed(seed + 2)
    member = torch.rand(n, generator=generator) < 0.5
    y = z.argmax(1)
    other = (torch.rand(n, generator=generator) < wrong) & ~member
    y = torch.where(other, (y + 1) % 5, y)
    z = z + gap * F.one_hot(y, 5) * member[:, None]
    return {
        "logits": z,
        "labels": y,
        "sensitivity": s * (-told * member[:, None]).exp(),
    }, member


def halves(**options):
    given, member = examples(**options)
    cut = len(member) // 2
    first = {k: v[:cut] for k, v in given.items()}
    return first, member[:cut], {k: v[cut:] for k, v in given.items()}, member[cut:]


@pytest.mark.parametrize("told", [{"gap": 2.0}, {"told": 1.0}, {"wrong": 0.6}])
def test_the_attack_learns_from_confidences_sensitivity_and_label(told):
    """Each alone tells; the last only where confidences and label are compared."""
    given, member, unseen, asked = halves(**told)
    attack = samia.fit(**given, is_member=member)
    scores = attack(**unseen)
    assert scores.dtype == torch.float64
    assert ((scores >= 0) & (scores <= 1)).all()
    assert roc_auc_score(asked, scores) > 0.7
    assert metrics.accuracy(scores, asked, 0.5) > 0.6


def test_the_attack_finds_nothing_where_nothing_is():
    given, member, unseen, asked = halves()
    found = metrics.report(samia.fit(**given, is_member=member)(**unseen), asked)
    assert found["auc"].low < 0.5 < found["auc"].high


def test_the_attack_is_as_good_as_nasrs_on_an_overfitted_network():
    inside, outside = digits([600, 600], noise=0.3)
    model = network(width=8)
    train.fit(model, *inside, plain(epochs=30), seed=0)
    images, labels = (torch.cat(pair) for pair in zip(inside, outside, strict=True))
    scale, member = datasets.normalisation(inside[0]), torch.arange(1200) < 600
    z = predict.logits(model, images, scale)
    s = samia.sensitivity(model, images, scale, seed=0)
    order = torch.randperm(1200, generator=torch.Generator().manual_seed(0))
    a, b = order[:700], order[700:]
    ours = samia.fit(z[a], member[a], labels=labels[a], sensitivity=s[a])
    theirs = nasr.fit(z[a], labels[a], member[a])
    found = metrics.rates(ours(z[b], labels[b], s[b]), member[b])
    known = metrics.rates(theirs(z[b], labels[b]), member[b])
    assert found["accuracy"] > 0.55
    assert found["accuracy"] > known["accuracy"] - 0.05
    assert found["auc"] > known["auc"] - 0.05


def test_the_units_of_the_sensitivity_do_not_matter():
    given, member, unseen, _ = halves(told=1.0)
    expected = samia.fit(**given, is_member=member, epochs=2)(**unseen)
    for part in (given, unseen):
        part["sensitivity"] = part["sensitivity"] * 1000
    found = samia.fit(**given, is_member=member, epochs=2)(**unseen)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_sensitivity_that_is_always_the_same_does_no_harm():
    given, member, unseen, asked = halves(gap=2.0)
    for part in (given, unseen):
        part["sensitivity"] = torch.zeros_like(part["sensitivity"])
    assert roc_auc_score(asked, samia.fit(**given, is_member=member)(**unseen)) > 0.7


def test_a_seed_decides_the_attack_and_an_answer_hangs_on_nothing_else():
    given, member, unseen, _ = halves(n=400, told=1.0)
    found = []
    for outside, seed in ((1, 3), (2, 3), (2, 4)):
        torch.manual_seed(outside)
        before = torch.get_rng_state()
        attack = samia.fit(**given, is_member=member, epochs=2, seed=seed)
        found.append(attack(**unseen))
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[1], found[2])
    alone = attack(**{k: v[:1] for k, v in unseen.items()})
    np.testing.assert_allclose(alone, found[2][:1], atol=1e-6)


def test_all_members_score_and_labels_of_numpy_are_taken():
    given, member, unseen, _ = halves(n=200)
    plainly = samia.fit(**given, is_member=member, epochs=1)(**unseen)
    found = samia.fit(**given, is_member=member.int().tolist(), epochs=1)(**unseen)
    assert torch.equal(found, plainly)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"epochs": 0}, "epochs must be a whole number >= 1, got 0"),
        ({"batch": 0}, "batch must be a whole number >= 1, got 0"),
        ({"lr": 0}, "lr must be > 0 and finite, got 0"),
        ({"labels": None}, "this attack needs labels, got None"),
        ({"labels": torch.full((30,), 5)}, r"labels must be in \[0, 4\], got \[5\]"),
        ({"logits": torch.full((30, 5), math.nan)}, "logits must be finite"),
        (
            {"sensitivity": torch.ones(30)},
            r"sensitivity must be of shape \[30, 5\], as the logits are, got \[30\]",
        ),
        (
            {"sensitivity": torch.full((30, 5), -1.0)},
            r"sensitivity must be finite and >= 0, got \[-1.0\]",
        ),
        (
            {"sensitivity": torch.full((30, 5), math.nan)},
            r"sensitivity must be finite and >= 0, got \[nan\]",
        ),
        ({"is_member": torch.ones(29)}, "is_member must hold 30 values"),
        ({"is_member": torch.ones(30)}, "members and non-members, got 30 and 0"),
    ],
)
def test_training_the_attack_refuses_bad_input(changed, message):
    given, member = examples(n=30)
    with pytest.raises(ValueError, match=message):
        samia.fit(**given | {"is_member": member} | changed)


def test_the_attack_refuses_what_it_was_not_trained_on():
    given, member = examples(n=30)
    attack = samia.fit(**given, is_member=member, epochs=1)
    with pytest.raises(ValueError, match="logits must be of 5 classes, got 3"):
        attack(torch.zeros(2, 3), torch.tensor([0, 1]), torch.zeros(2, 3))
    with pytest.raises(ValueError, match="sensitivity must be finite"):
        attack(torch.zeros(1, 5), torch.tensor([0]), torch.full((1, 5), -1.0))


# --- pair-based posterior balancing


def by_pairs(logits):
    """Add up scipy's divergences of each row and the one before."""
    p = np.sort(logits.softmax(1).numpy(), 1)
    return np.mean([stats.entropy(p[i], p[i - 1]) for i in range(len(p))])


@pytest.mark.parametrize(("batch", "classes"), [(2, 2), (7, 10), (64, 100)])
def test_the_divergence_is_that_of_ranked_predictions(batch, classes):
    z = 3 * drawn(batch, classes).double()
    assert ppb.divergence(z).item() == pytest.approx(by_pairs(z), rel=1e-9)


def test_which_class_is_large_does_not_matter():
    z = 3 * drawn(6, 10).double()
    mixed = torch.stack([row[torch.randperm(10)] for row in z])
    assert ppb.divergence(mixed).item() == pytest.approx(ppb.divergence(z).item())
    shifted = z + drawn(6, 1)
    assert ppb.divergence(shifted).item() == pytest.approx(ppb.divergence(z).item())
    alike = torch.stack([z[0][torch.randperm(10)] for _ in range(6)])
    assert ppb.divergence(alike).item() == pytest.approx(0, abs=1e-12)
    assert ppb.divergence(z).item() > 0.1


def test_the_gradient_of_the_divergence_is_that_of_finite_differences():
    z = (3 * drawn(5, 4).double()).requires_grad_()
    assert torch.autograd.gradcheck(ppb.divergence, z)
    ppb.divergence(z).backward()
    assert (z.grad.abs().sum(1) > 1e-3).all()


def test_huge_logits_give_a_finite_divergence():
    z = torch.tensor([[100.0, 0.0, -100.0], [0.0, 0.0, 0.0]], requires_grad=True)
    ppb.divergence(z).backward()
    assert z.grad.isfinite().all()


def test_the_loss_is_cross_entropy_plus_weight_times_divergence():
    model = nn.Linear(6, 4)
    x, y = drawn(8, 6), torch.arange(8) % 4
    logits = model(x)
    for weight in (0.0, 2.5):
        expected = F.cross_entropy(logits, y) + weight * by_pairs(logits.detach())
        found = ppb.loss(weight)(model, x, y, torch.arange(8))
        assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_training_with_it_makes_the_predictions_alike_and_repeats():
    images, labels = digits([300], noise=0.3)[0]
    scale, found = datasets.normalisation(images), []
    for outside, weight in ((1, 4.0), (2, 4.0), (2, 0.0)):
        torch.manual_seed(outside)
        model = network()
        train.fit(model, images, labels, plain(epochs=8), seed=0, loss=ppb.loss(weight))
        found.append(predict.logits(model, images, scale))
    assert torch.equal(found[0], found[1])
    assert ppb.divergence(found[1]) < 0.5 * ppb.divergence(found[2])
    assert predict.accuracy(found[1], labels) > 0.4
    alone = network()
    train.fit(alone, images, labels, plain(epochs=8), seed=0)
    assert torch.equal(predict.logits(alone, images, scale), found[2])


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_a_bad_weight_is_refused(weight):
    with pytest.raises(ValueError, match="weight must be >= 0 and finite, got"):
        ppb.loss(weight)


# --- the audit


@pytest.fixture(params=[100, pytest.param(400, marks=pytest.mark.long)])
def times(request):
    """Return how many audits a rate of errors is counted over."""
    return request.param


def bounds(inside, outside, delta, times, **options):
    """Audit `times` pairs of samples that the functions draw."""
    rng = np.random.default_rng(0)
    return np.array([
        audit.epsilon_lower_bound(inside(rng), outside(rng), delta, **options)
        for _ in range(times)
    ])  # fmt: skip


def gaussian_epsilon(sigma, delta):
    """Solve Balle & Wang (2018), theorem 8, for ε at sensitivity 1."""
    phi = stats.norm.cdf

    def excess(e):
        a, b = 1 / (2 * sigma), e * sigma
        return phi(a - b) - math.exp(e) * phi(-a - b) - delta

    return brentq(excess, 0, 50)


@pytest.mark.parametrize(("sigma", "delta"), [(1.0, 0.1), (0.5, 0.01), (2.0, 0.05)])
def test_the_bound_stays_below_the_epsilon_of_the_gaussian_mechanism(sigma, delta):
    known = gaussian_epsilon(sigma, delta)
    found = bounds(
        lambda rng: rng.normal(1, sigma, 2000),
        lambda rng: rng.normal(0, sigma, 2000),
        delta,
        times=100,
    )
    assert (found <= known).mean() >= 0.95
    assert np.median(found) > 0.4 * known


@pytest.mark.parametrize("epsilon", [0.0, 1.0, 3.0])
def test_the_bound_is_tight_for_randomised_response(epsilon, times):
    """A mechanism that tells the truth with probability e^ε / (1 + e^ε) spends ε."""
    truth = 1 / (1 + math.exp(-epsilon))

    def answers(share, n):
        return lambda rng: (rng.random(n) < share).astype(float)

    found = bounds(answers(truth, 400), answers(1 - truth, 400), 0.0, times)
    assert (found <= epsilon).mean() >= 0.95
    # At a level that promises little it must often be wrong, or it is always too low.
    bold = bounds(answers(truth, 400), answers(1 - truth, 400), 0.0, times, level=0.2)
    assert (bold <= epsilon).mean() < 0.9 or epsilon == 0
    large = bounds(answers(truth, 50_000), answers(1 - truth, 50_000), 0.0, times=5)
    assert large.mean() > 0.95 * epsilon - 0.02


@pytest.mark.parametrize("order", [lambda x: x, np.sort], ids=["drawn", "sorted"])
def test_the_threshold_is_not_judged_where_it_was_chosen(order, times):
    """The best of many thresholds looks good by luck: most at a low level."""

    def normal(rng):
        return order(rng.normal(size=400))

    assert (bounds(normal, normal, 0.0, times) > 0).mean() <= 0.05
    assert (bounds(normal, normal, 0.0, times, level=0.5) > 0).mean() < 0.3


def test_a_release_that_is_not_private_is_caught():
    n, claimed = 1000, 4.0
    rng = np.random.default_rng(0)
    caught = audit.epsilon_lower_bound(rng.normal(9, 1, n), rng.normal(0, 1, n), 1e-5)
    upper = 1 - 0.025 ** (1 / (n / 2))  # Clopper and Pearson's for 0 of n / 2
    most = math.log((1 - upper - 1e-5) / upper)
    assert claimed < caught <= most + 1e-9
    assert audit.epsilon_lower_bound(np.ones(n), np.zeros(n), 1e-5) == (
        pytest.approx(most, rel=1e-9)
    )
    assert audit.epsilon_lower_bound(np.zeros(n), np.ones(n), 1e-5) == 0


def test_what_only_non_members_or_only_members_show_is_evidence_too():
    half, whole = np.arange(1000) % 2, np.ones(1000)
    # Some non-members score 0 and no member does; then some members 1, no non-member.
    assert audit.epsilon_lower_bound(whole, half, 0.0) > 3
    assert audit.epsilon_lower_bound(half, 0 * whole, 0.0) > 3


def test_delta_forgives_what_happens_with_that_probability():
    rare = (np.arange(4000) % 20 == 0).astype(float)  # shown in one of twenty runs
    assert audit.epsilon_lower_bound(rare, np.zeros(4000), 0.0) > 2
    assert audit.epsilon_lower_bound(rare, np.zeros(4000), 0.06) == 0


def test_a_seed_decides_the_halves():
    rng = np.random.default_rng(0)
    scores = rng.normal(1, 1, 100), rng.normal(0, 1, 100)
    np.random.seed(1)
    found = [audit.epsilon_lower_bound(*scores, 0.0, seed=s) for s in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    expected = np.random.RandomState(1).random()
    assert np.random.random() == expected


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"delta": 1.0}, r"delta must be in \[0, 1\), got 1.0"),
        ({"delta": -1e-9}, r"delta must be in \[0, 1\), got -1e-09"),
        ({"level": 1.0}, r"level must be in \(0, 1\), got 1.0"),
        ({"seed": -1}, "seed must be a whole number >= 0, got -1"),
        (
            {"scores_in": np.ones(3)},
            r"scores_in must have one dimension and at least 4 scores, got shape \(3",
        ),
        (
            {"scores_out": np.ones((4, 1))},
            r"scores_out must have one dimension .* got shape \(4, 1\)",
        ),
        ({"scores_out": [1, 2, 3, math.inf]}, "scores_out must be finite, got .*inf"),
    ],
)
def test_the_audit_refuses_bad_input(changed, message):
    given = {"scores_in": np.ones(4), "scores_out": np.ones(4), "delta": 0.0}
    with pytest.raises(ValueError, match=message):
        audit.epsilon_lower_bound(**given | changed)
