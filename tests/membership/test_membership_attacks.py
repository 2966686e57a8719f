"""Signals, thresholds, learned attacks and their report, against other ways to them.

Signals are checked in decimal arithmetic, thresholds and ROC points by trying all,
numbers against scikit-learn, intervals against scipy, formulas and simulation.
"""

import math
import pickle
import warnings
from decimal import Decimal, localcontext

import numpy as np
import pytest
import torch
from scipy import stats as scipy_stats
from scipy.special import softmax
from sklearn import metrics
from sklearn.ensemble import RandomForestClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.svm import SVC
from threadpoolctl import threadpool_info

from lottolab.membership import metrics as reporting
from lottolab.membership import signals
from lottolab.membership.attacks import supervised, thresholds
from lottolab.membership.metrics import auc, rates, report, tpr_at
from lottolab.truth import stats

GRADED = [name for name in signals.SIGNALS if name != "correctness"]


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(reporting, "DRAWS", 300)


def victim(gap=3.0, n=400, classes=5, seed=0):
    """Return logits, labels and membership: members' labels stand out by `gap` more."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n, classes, generator=generator)
    y = torch.randint(classes, (n,), generator=generator)
    member = torch.arange(n) % 2 == 0
    z[torch.arange(n), y] += 1.0 + gap * member
    return z, y, member


def ranked(n=300, levels=12, shift=0.5, seed=0, others=None):
    """Return scores with many ties, and membership."""
    rng = np.random.default_rng(seed)
    member = rng.random(n) < 0.4
    if others:
        member = np.arange(n) >= others
    return np.round(rng.normal(size=n) + shift * member, 1) / levels, member


def refused(message):
    return pytest.raises(ValueError, match=message)


# Signals


def exact(row, label):
    """Work out all signals of one prediction with 150 digits."""
    with localcontext() as context:
        context.prec = 150
        powers = [Decimal(value).exp() for value in row]
        total = sum(powers)
        p = [power / total for power in powers]
        # 1 − p without cancelling.
        rest = [sum(powers[:i] + powers[i + 1 :]) / total for i in range(len(p))]
        mixed = [(i, p[i] * rest[i].ln()) for i in range(len(p))]
        return {
            "loss": p[label].ln(),
            "confidence": p[label],
            "entropy": sum(q * q.ln() for q in p),
            "modified entropy": rest[label] * p[label].ln()
            + sum(term for i, term in mixed if i != label),
            "scaled confidence": (p[label] / rest[label]).ln(),
        }


@pytest.mark.parametrize("scale", [0.01, 3, 30, 200, 1e4])
def test_signals_are_exact_for_small_and_huge_logits(scale):
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(40, 4, generator=generator, dtype=torch.float64)
    z, y = (z * scale).clamp(-1e4, 1e4), torch.arange(40) % 4
    z[:4] = torch.tensor([scale, -scale, scale, -scale])
    wanted = [exact(row, label) for row, label in zip(z.tolist(), y, strict=True)]
    for name in GRADED:
        found = signals.SIGNALS[name](z, y)
        assert found.dtype == torch.float64
        numbers = [float(row[name]) for row in wanted]
        smallest = 1e-12 if name == "scaled confidence" else 1e-60
        assert found.numpy() == pytest.approx(numbers, rel=1e-10, abs=smallest), name


@pytest.mark.parametrize("name", GRADED)
def test_signals_of_two_classes_have_closed_forms(name):
    margin = torch.linspace(-300, 300, 601, dtype=torch.float64)
    z = torch.stack([margin, torch.zeros(601)], 1)
    log_p, log_q = -torch.log1p(torch.exp(-margin)), -torch.log1p(torch.exp(margin))
    p, q = torch.exp(log_p), torch.exp(log_q)
    wanted = {
        "loss": log_p,
        "confidence": p,
        "entropy": p * log_p + q * log_q,
        "modified entropy": 2 * q * log_p,
        "scaled confidence": margin,
    }
    found = signals.SIGNALS[name](z, torch.zeros(601, dtype=torch.long))
    assert torch.allclose(found, wanted[name], rtol=1e-10, atol=1e-280)


def test_correctness_counts_the_first_of_equal_logits():
    z = torch.tensor([[2.0, 1.0], [1.0, 2.0], [3.0, 3.0], [3.0, 3.0]])
    found = signals.correctness(z, torch.tensor([0, 0, 0, 1]))
    assert found.tolist() == [1, 0, 1, 0]
    assert found.dtype == torch.float64


@pytest.mark.parametrize("name", GRADED)
def test_the_surest_members_still_differ(name):
    z = torch.tensor([[40.0, 0.0, 0.0], [60.0, 0.0, 0.0], [300.0, 0.0, 0.0]])
    found = signals.SIGNALS[name](z, torch.zeros(3, dtype=torch.long))
    if name == "confidence":  # it cannot
        assert found.tolist() == [1, 1, 1]
    else:
        assert (found.diff() > 0).all()


def test_only_the_entropy_does_without_labels():
    z, y, _ = victim()
    for name, signal in signals.SIGNALS.items():
        same = torch.equal(signal(z, y), signal(z, (y + 1) % 5))
        assert same == (name == "entropy"), name


@pytest.mark.parametrize("name", signals.SIGNALS)
def test_a_common_shift_of_the_logits_changes_nothing(name):
    z, y, _ = victim()
    before = signals.SIGNALS[name](z.double(), y)
    after = signals.SIGNALS[name](z.double() + 1e3, y)
    assert torch.allclose(before, after, atol=1e-9)
    assert torch.allclose(before, signals.SIGNALS[name](z.float(), y.int()), atol=1e-9)


def test_every_signal_is_larger_for_members_of_an_overfitted_model():
    z, y, member = victim()
    for name, signal in signals.SIGNALS.items():
        found = report(signal(z, y), member)["auc"]
        assert found.low > 0.5, name
    generator = torch.Generator().manual_seed(0)
    copies = z + 2 * torch.randn(10, *z.shape, generator=generator)
    votes = copies.argmax(2) == y
    assert report(signals.robustness(votes), member)["auc"].low > 0.5


def test_robustness_is_the_share_of_copies():
    votes = torch.tensor([[True, False, True], [True, False, False]])
    found = signals.robustness(votes)
    assert found.tolist() == [1, 0, 0.5]
    assert found.dtype == torch.float64


@pytest.mark.parametrize("name", signals.SIGNALS)
@pytest.mark.parametrize(
    ("z", "y", "message"),
    [
        ([1.0, 2.0], [0], r"examples × classes, two classes or more, got .* \[2\]"),
        ([[1.0]], [0], r"two classes or more, got .* \[1, 1\]"),
        ([[1.0, math.nan]], [0], r"logits must be finite, got \[nan\]"),
        ([[1.0, math.inf]], [0], r"logits must be finite, got \[inf\]"),
        ([[1.0, 2.0]], [0, 1], r"integers of shape \[1\], got torch.int64 \[2\]"),
        ([[1.0, 2.0]], [0.0], "labels must be integers .*labels.long.*float32"),
        ([[1.0, 2.0]], [True], "labels must be integers .*bool"),
        ([[1.0, 2.0]], [2], r"labels must be in \[0, 1\], got \[2\]"),
        ([[1.0, 2.0]], [-1], r"labels must be in \[0, 1\], got \[-1\]"),
    ],
)
def test_a_signal_refuses(name, z, y, message):
    with refused(message):
        signals.SIGNALS[name](torch.tensor(z), torch.tensor(y))


def test_robustness_refuses():
    with refused(r"votes must be copies × examples, got shape \(2,\)"):
        signals.robustness(torch.tensor([True, False]))
    with refused(r"votes must be copies × examples, got shape \(0, 2\)"):
        signals.robustness(torch.zeros(0, 2, dtype=torch.bool))
    with refused(r"votes must be True or False, got \[0.5\]"):
        signals.robustness(torch.tensor([[1.0, 0.5]]))


# Thresholds


def balanced(scores, member, threshold):
    guess = scores > threshold
    return guess[member].mean() + (~guess[~member]).mean()


def by_trying(scores, member):
    """Return the largest of the best thresholds, trying each from above."""
    values = np.unique(scores)
    tried = [values[-1], *((values[1:] + values[:-1]) / 2)[::-1]]
    found = [balanced(scores, member, threshold) for threshold in tried]
    return tried[next(i for i, f in enumerate(found) if f > max(found) - 1e-9)]


@pytest.mark.parametrize("shift", [-1.0, 0.0, 1.0])
@pytest.mark.parametrize("n", [4, 11, 40, 300])
def test_the_best_threshold_is_the_best_of_all(n, shift):
    for seed in range(10):
        scores, member = ranked(n, shift=shift, seed=seed)
        member[:2] = [True, False]
        found = thresholds.best(torch.from_numpy(scores), torch.from_numpy(member))
        assert found == pytest.approx(by_trying(scores, member), abs=1e-12)


def test_equally_good_thresholds_give_the_largest():
    # Above 1 and above 3 are as good: 3 of 4.
    assert thresholds.best([1, 2, 3, 4], [0, 1, 0, 1]) == 3.5
    assert thresholds.best([4, 3, 2, 1], [0, 0, 1, 1]) == 4  # worse than chance
    assert thresholds.best([7, 7, 7], [0, 1, 1]) == 7


@pytest.mark.parametrize("low", [0.1, -0.1, 5e-324, 1e308, -1.7e308])
def test_a_threshold_separates_neighbours_among_floats(low):
    for _ in range(8):  # half way rounds up for some, and down for others
        high = np.nextafter(low, math.inf)
        assert low <= thresholds.best([low, high], [0, 1]) < high
        low = high


def test_huge_scores_do_not_overflow():
    for low in (-1.7e308, 1.3e308):
        found = thresholds.best([low, 1.7e308], [0, 1])
        assert found == pytest.approx(low / 2 + 1.7e308 / 2, abs=1e300)


def test_a_threshold_for_very_many_examples():
    rng = np.random.default_rng(0)
    member = np.arange(400_000) % 2 == 0
    scores = rng.normal(size=len(member)) + 2 * member
    labels = np.arange(len(member)) // 2 % 1000
    assert thresholds.best(scores, member) == pytest.approx(1, abs=0.05)
    found = thresholds.by_class(scores, labels, member, 1000)
    assert float(found.mean()) == pytest.approx(1, abs=0.05)


def test_thresholds_by_class_are_those_of_each_class_alone():
    scores, member = ranked(600, shift=1.0)
    labels = np.random.default_rng(1).integers(0, 5, 600)
    member[labels == 2] = True
    member[labels == 3] = False
    everybody = thresholds.best(scores, member)
    found = thresholds.by_class(scores, torch.from_numpy(labels), member, 6)
    assert found.dtype == torch.float64
    for label in range(6):
        rows = labels == label
        alone = label in (0, 1, 4)
        one = thresholds.best(scores[rows], member[rows]) if alone else everybody
        assert found[label] == one, label
    guess = scores - found.numpy()[labels] > 0
    assert (guess == (scores > found.numpy()[labels])).all()


def test_thresholds_by_class_help_where_classes_differ():
    z, y, member = victim(gap=2.0, n=2000)
    scores = signals.loss(z, y) + 10 * y  # another scale for each class
    one = scores - thresholds.best(scores, member)
    each = scores - thresholds.by_class(scores, y, member, 5)[y]
    one, each = (rates(s, member, threshold=0)["accuracy"] for s in (one, each))
    assert one < 0.6
    assert each > 0.7


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        ([0, 1], 2, r"labels must be integers of shape \[3\], got torch.int64 \[2\]"),
        ([0.0, 1.0, 1.0], 2, "labels must be integers .*got torch.float32"),
        ([0, 1, 2], 2, r"labels must be in \[0, 1\], got \[2\]"),
        ([0, 1, -1], 2, r"labels must be in \[0, 1\], got \[-1\]"),
        ([0, 0, 0], 0, "classes must be a whole number >= 1, got 0"),
    ],
)
def test_thresholds_by_class_refuse(labels, classes, message):
    with refused(message):
        thresholds.by_class([0.1, 0.2, 0.3], labels, [0, 1, 1], classes)


# Learned attacks


def split(gap=3.0, n=400, seed=0):
    """Return a victim's outputs for training an attack, and others for testing it."""
    z, y, member = victim(gap, 2 * n, seed=seed)
    first = torch.arange(2 * n) < n
    return [(z[rows], y[rows], member[rows]) for rows in (first, ~first)]


@pytest.fixture(scope="module")
def halves():
    return split()


@pytest.mark.parametrize("classifier", supervised.CLASSIFIERS)
def test_a_learned_attack_finds_members_it_has_not_seen(quick, classifier):
    slow = classifier == "mlp, sgd"  # has hardly moved after 200 passes over 400
    (z, _, member), (other, labels, wanted) = split(n=1500 if slow else 400)
    attack = supervised.fit(z, member, classifier=classifier)
    scores = attack(other)
    assert scores.dtype == torch.float64
    assert 0 <= scores.min() <= scores.max() <= 1
    found = report(scores, wanted)
    assert found["auc"].low > 0.7
    assert found["accuracy"].low > 0.6
    assert torch.equal(attack(other, labels), scores)
    assert torch.equal(pickle.loads(pickle.dumps(attack))(other), scores)


@pytest.mark.parametrize("classifier", supervised.CLASSIFIERS)
def test_a_learned_attack_finds_nothing_where_nothing_is(classifier):
    (z, _, member), (other, _, wanted) = split(gap=0.0)
    attack = supervised.fit(z, member, classifier=classifier)
    # Three standard errors.
    assert auc(attack(other), wanted) == pytest.approx(0.5, abs=0.09)


SKLEARN = {
    "mlp": MLPClassifier(random_state=3),
    "mlp, sgd": MLPClassifier(solver="sgd", random_state=3),
    "forest": RandomForestClassifier(random_state=3),
    "svm": SVC(),
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("classifier", supervised.CLASSIFIERS)
def test_a_learned_attack_is_scikit_learns_with_its_defaults(halves, classifier):
    (z, _, member), (other, _, _) = halves
    attack = supervised.fit(z, member, classifier=classifier, seed=3)
    theirs = SKLEARN[classifier].fit(softmax(z.double().numpy(), 1), member)
    x = softmax(other.double().numpy(), 1)
    found = attack(other).numpy()
    if classifier == "svm":
        distance = theirs.decision_function(x)
        assert np.log(found / (1 - found)) == pytest.approx(distance, abs=1e-6)
        assert ((found > 0.5) == theirs.predict(x)).all()
    else:
        assert found == pytest.approx(theirs.predict_proba(x)[:, 1], abs=1e-9)


def test_an_attack_that_knows_the_label_uses_it():
    """Members have their label's logit largest, and others another one's."""
    z, y, member = victim(gap=0.0, n=800)
    z = 6 * torch.nn.functional.one_hot(torch.where(member, y, (y + 1) % 5), 5)
    train, test = slice(0, 400), slice(400, 800)
    blind = supervised.fit(z[train], member[train])
    knowing = supervised.fit(z[train], member[train], labels=y[train])
    assert auc(knowing(z[test], y[test]), member[test]) > 0.9
    assert auc(blind(z[test]), member[test]) < 0.6
    with refused("this attack needs labels, got None"):
        knowing(z[test])


def two_worlds(n=600, seed=0):
    """Return outputs of a model sure of its members in class 0 alone.

    In class 1 it is sure of non-members; class 2 has members only.
    """
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 3
    member = (torch.arange(n) // 3 % 2 == 0) | (y == 2)
    sure = torch.where(y == 1, ~member, member)
    z = torch.randn(n, 3, generator=generator)
    z[torch.arange(n), (y + 1) % 3] += 5.0 * sure
    return z, y, member


def test_an_attack_for_each_class_learns_what_a_pooled_one_cannot():
    shadows = [two_worlds(seed=1), two_worlds(seed=2)]
    # The same confidences mean one thing in class 0 and another in class 1.
    shadows = [(z.sort(1).values, y, member) for z, y, member in shadows]
    z, y, member = two_worlds(seed=3)
    z = z.sort(1).values
    each = supervised.shadow(shadows, per_class=True, classifier="forest")
    pooled = supervised.shadow(shadows, classifier="forest")
    rows = y < 2
    assert auc(each(z, y)[rows], member[rows]) > 0.95
    assert auc(pooled(z)[rows], member[rows]) < 0.7
    assert torch.equal(each(z, y)[~rows], pooled(z)[~rows])  # all of class 2 are in
    with refused("this attack needs labels, got None"):
        each(z)


def test_an_attack_for_a_class_sees_that_class_alone():
    shadows = [two_worlds(seed=1), two_worlds(seed=2)]
    z, y, member = (torch.cat(parts) for parts in zip(*shadows, strict=True))
    other, labels, wanted = two_worlds(seed=3)
    attack = supervised.shadow(shadows, per_class=True, classifier="svm")
    found = attack(other, labels)
    for label in (0, 1):
        rows = y == label
        alone = supervised.fit(z[rows], member[rows], classifier="svm")
        rows = labels == label
        assert torch.allclose(found[rows], alone(other[rows]), atol=1e-9)
    two = supervised.shadow(shadows, per_class=True, top=2, classifier="svm")
    turned = two(other[:, [1, 2, 0]], labels)
    assert torch.allclose(two(other, labels), turned, atol=1e-9)
    assert auc(two(other, labels)[labels == 1], wanted[labels == 1]) > 0.9


def test_the_largest_confidences_do_not_know_their_classes(halves):
    train, (z, _, member) = halves
    turned = z[:, [3, 1, 4, 0, 2]]
    attack = supervised.shadow([train], top=3)
    assert torch.allclose(attack(z), attack(turned), atol=1e-9)
    assert auc(attack(z), member) > 0.7
    in_order = supervised.shadow([train])
    assert not torch.allclose(in_order(z), in_order(turned))
    three = np.sort(softmax(z.double().numpy(), 1), 1)[:, :-4:-1]
    assert supervised.features(z.double(), top=3) == pytest.approx(three)
    assert torch.equal(in_order(z), supervised.fit(train[0], train[2])(z))


@pytest.mark.parametrize("classifier", ["mlp", "forest"])
def test_a_seed_fixes_a_learned_attack_and_leaves_the_rest_alone(halves, classifier):
    (z, _, member), (other, _, _) = halves
    before = np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    first, again, second = (
        supervised.fit(z, member, classifier=classifier, seed=s)(other)
        for s in (0, 0, 1)
    )
    after = np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert before == after


class Recorder:
    """Stand in for a classifier and note how many threads it may use."""

    seen: tuple[int, ...] = ()

    def fit(self, x, member):
        self.note()
        return self

    def predict_proba(self, x):
        self.note()
        return np.full((len(x), 2), 0.5)

    def note(self):
        Recorder.seen += tuple(pool["num_threads"] for pool in threadpool_info())


def test_learned_attacks_run_in_one_thread_and_restore_the_others(halves, monkeypatch):
    table = {"mlp": lambda seed: Recorder()}
    monkeypatch.setattr(supervised, "CLASSIFIERS", table)
    (z, y, member), _ = halves
    before = threadpool_info(), torch.get_num_threads()
    attack = supervised.fit(z, member)
    assert Recorder.seen
    assert set(Recorder.seen) == {1}
    Recorder.seen = ()
    attack(z, y)
    assert set(Recorder.seen) == {1}
    assert before == (threadpool_info(), torch.get_num_threads())
    monkeypatch.undo()
    assert supervised.CLASSIFIERS["forest"](0).n_jobs == 1


def test_a_classifier_that_does_not_converge_is_quiet_and_warnings_stay(halves):
    (z, _, member), _ = halves
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = list(warnings.filters)
        attack = supervised.fit(z, member)
        assert attack.classifier.n_iter_ == attack.classifier.max_iter
        assert warnings.filters == before


Z, M = torch.randn(8, 3, generator=torch.Generator().manual_seed(0)), [0, 1] * 4
NAN = Z.clone().fill_(math.nan)


@pytest.mark.parametrize(
    ("z", "member", "more", "message"),
    [
        (NAN, M, {}, r"logits must be finite, got \[nan\]"),
        (Z, M[:7], {}, r"is_member must hold 8 values, one an example, got \(7,\)"),
        (Z, [0] * 8, {}, "must have members and non-members, got 0 and 8"),
        (Z, [1] * 8, {}, "must have members and non-members, got 8 and 0"),
        (Z, [1] * 7 + [2], {}, r"is_member must be 0 or 1 .*got \[2.\]"),
        (Z, [1] * 7 + [0], {}, "at least 2 members and 2 non-members .*got 7 and 1"),
        (Z, [0] * 7 + [1], {}, "at least 2 members and 2 non-members .*got 1 and 7"),
        (Z, M, {"labels": torch.tensor([0])}, r"integers of shape \[8\]"),
        (Z, M, {"classifier": "mpl"}, "classifier must be one of .*did you mean mlp"),
    ],
)
def test_training_an_attack_refuses(z, member, more, message):
    with refused(message):
        supervised.fit(z, member, **more)
    if "labels" not in more:
        y = torch.zeros(len(z), dtype=torch.long)
        with refused(message):
            supervised.shadow([(z, y, member)], **more)


def test_an_attack_refuses_other_classes_than_in_training():
    attack = supervised.fit(Z, M, classifier="forest")
    with refused("logits must have 3 classes, as in training, got 2"):
        attack(Z[:, :2])
    with refused("logits must be finite"):
        attack(NAN)
    with refused(r"labels must be in \[0, 2\], got \[3\]"):
        attack(Z, torch.full((8,), 3))


def test_shadows_that_do_not_fit_are_refused():
    y = torch.zeros(8, dtype=torch.long)
    with refused("of one shadow model or more, got list"):
        supervised.shadow([])
    with refused(r"must have the same classes, got \[2, 3\]"):
        supervised.shadow([(Z, y, M), (Z[:, :2], y, M)])
    with refused(r"all outputs must have labels, got none at \[1\]"):
        supervised.shadow([(Z, y, M), (Z, None, M)])
    with refused(r"is_member must hold 8 values"):  # though there are 16 of each
        supervised.shadow([(Z, y, [*M, 0]), (Z, y, M[:-1])])
    with refused("top must be at most 3, the classes, got 4"):
        supervised.shadow([(Z, y, M)], top=4)
    for top in (0, 2.0, True):
        with refused("top must be a whole number >= 1, got"):
            supervised.shadow([(Z, y, M)], top=top)


# Numbers of the report


def by_sklearn(scores, member, threshold):
    guess = scores > threshold
    fpr, tpr, _ = metrics.roc_curve(member, scores, drop_intermediate=False)
    return {
        "accuracy": metrics.accuracy_score(member, guess),
        "precision": metrics.precision_score(member, guess, zero_division=0),
        "recall": metrics.recall_score(member, guess),
        "auc": metrics.roc_auc_score(member, scores),
        "tpr at 1% fpr": tpr[fpr <= 0.01].max(),
        "tpr at 0.1% fpr": tpr[fpr <= 0.001].max(),
    }


@pytest.mark.parametrize("threshold", [-9.0, -0.1, 0.0, 0.05, 9.0])
@pytest.mark.parametrize("levels", [12, 1e-3])
def test_rates_agree_with_scikit_learn(levels, threshold):
    for seed in range(3):
        scores, member = ranked(13_000, levels, seed=seed, others=10_000 + seed)
        scores = scores.round(2) if levels == 12 else scores
        found = rates(scores, member, threshold=threshold)
        wanted = by_sklearn(scores, member, threshold)
        assert found == pytest.approx(wanted, abs=1e-12, rel=0)
        assert list(found) == list(wanted)
        assert all(type(value) is float for value in found.values())
        assert auc(scores, member) == found["auc"]
        accuracy = reporting.accuracy(scores, member, threshold)
        assert accuracy == found["accuracy"]


@pytest.mark.parametrize("levels", [1, 12])
def test_auc_counts_pairs(levels):
    scores, member = ranked(200, levels)
    above = scores[member][:, None] - scores[~member]
    assert auc(scores, member) == pytest.approx((np.sign(above) / 2 + 0.5).mean())
    assert auc(-scores, member) == pytest.approx(1 - auc(scores, member))
    assert auc(torch.from_numpy(scores), torch.from_numpy(member)) > 0.55


@pytest.mark.parametrize("fpr", [0.01, 0.011, 0.05, 0.1, 0.3])
def test_tpr_is_the_largest_of_all_thresholds(fpr):
    for seed in range(5):
        scores, member = ranked(1500, 1, seed=seed, others=1000 + seed)
        tried = [scores >= threshold for threshold in [*np.unique(scores), 99]]
        rows = [(g[member].mean(), g[~member].mean()) for g in tried]
        wanted = max(tpr for tpr, alarms in rows if alarms <= fpr)
        assert tpr_at(scores, member, fpr) == pytest.approx(wanted, abs=1e-12)


def test_examples_of_equal_score_are_not_split():
    member = np.repeat([True, False], 1000)
    assert tpr_at(np.zeros(2000), member, 0.01) == 0
    assert auc(np.zeros(2000), member) == 0.5
    # Ten false alarms are 1 %, and an eleventh that ties with members is too many.
    scores = np.where(member, np.arange(2000) // 500, 0.0)
    scores[1000:1010] = 5
    assert tpr_at(scores, member, 0.01) == 0.5
    scores[1010] = 1
    assert tpr_at(scores, member, 0.01) == 0
    scores[1010] = 0.5
    assert tpr_at(scores, member, 0.01) == 0.5


def test_a_point_on_a_straight_stretch_of_the_curve_counts():
    """By default scikit-learn drops it, and with it half of the TPR."""
    member = np.repeat([True, False], 1000)
    scores = np.repeat([4, 3, 2, 1] * 2, [5, 5, 5, 985] * 2)
    fpr, tpr, _ = metrics.roc_curve(member, scores)
    assert tpr[fpr <= 0.01].max() == 0.005
    assert tpr_at(scores, member, 0.01) == 0.01


@pytest.mark.parametrize(("fpr", "needed"), [(0.01, 1000), (0.001, 10_000), (0.3, 34)])
def test_a_tpr_needs_ten_false_alarms(fpr, needed):
    scores, member = ranked(needed + 5, 1, others=needed)
    assert 0 <= tpr_at(scores, member, fpr) <= 1
    scores, member = ranked(needed + 5, 1, others=needed - 1)
    message = f"at FPR {fpr} needs at least {needed} non-members, got {needed - 1}"
    with refused(message):
        tpr_at(scores, member, fpr)


@pytest.mark.parametrize("fpr", [0, 1, -0.1, math.nan])
def test_an_fpr_out_of_range_is_refused(fpr):
    with refused(r"fpr must be in \(0, 1\), got"):
        tpr_at([1, 0], [1, 0], fpr)


FUNCTIONS = {
    "report": report,
    "rates": rates,
    "auc": auc,
    "accuracy": lambda s, m: reporting.accuracy(s, m, 0.5),
    "tpr_at": lambda s, m: tpr_at(s, m, 0.5),
    "best": thresholds.best,
    "by_class": lambda s, m: thresholds.by_class(s, [0] * len(s), m, 1),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(
    ("scores", "member", "message"),
    [
        ([0.1, math.nan], [0, 1], r"scores must be finite, got \[nan\]"),
        ([0.1, -math.inf], [0, 1], r"scores must be finite, got \[-inf\]"),
        ([[0.1], [0.2]], [0, 1], r"scores must have one dimension, got .*\(2, 1\)"),
        ([0.1, 0.2], [0, 1, 1], r"is_member must hold 2 values, .* got \(3,\)"),
        ([0.1, 0.2], [[0], [1]], r"is_member must hold 2 values, .* got \(2, 1\)"),
        ([0.1, 0.2], [1, 1], "members and non-members, got 2 and 0"),
        ([0.1, 0.2], [False, False], "members and non-members, got 0 and 2"),
        ([0.1, 0.2], [1, 2], r"is_member must be 0 or 1 .*, got \[2.\]"),
        ([0.1, 0.2], [1, 0.5], r"is_member must be 0 or 1 .*, got \[0.5\]"),
        ([0.1, 0.2], [1, -1], r"is_member must be 0 or 1 .*, got \[-1.\]"),
        ([0.1, 0.2], [1, math.nan], r"is_member must be 0 or 1 .*, got \[nan\]"),
    ],
)
def test_scores_and_membership_are_refused(name, scores, member, message):
    with refused(message):
        FUNCTIONS[name](scores, member)


# Intervals of the report


def test_a_report_has_every_number_of_rates(quick):
    for others in (900, 1100, 10_000):
        scores, member = ranked(others + 500, 1, others=others)
        numbers = rates(scores, member, threshold=0.1)
        found = report(scores, member, threshold=0.1)
        assert list(found)[:4] == ["accuracy", "precision", "recall", "auc"]
        assert list(found)[4:] == list(reporting.FPRS)
        assert {k: v.estimate for k, v in found.items() if v} == numbers
        assert all(v.low < v.estimate < v.high for v in found.values() if v)
        assert len(numbers) == {900: 4, 1100: 5, 10_000: 6}[others]
        assert found["auc"].n == others + 500


def test_shares_of_one_model_have_exact_binomial_intervals(quick):
    scores, member = ranked()
    found = report(scores, member, threshold=0.05)
    guess = scores > 0.05
    wanted = {
        "accuracy": guess == member,
        "precision": member[guess],
        "recall": guess[member],
    }
    for name, right in wanted.items():
        test = scipy_stats.binomtest(int(right.sum()), len(right))
        low, high = test.proportion_ci(0.95, method="exact")
        interval = found[name]
        assert (interval.low, interval.high) == pytest.approx((low, high))
        assert interval.n == len(right)


def test_without_a_positive_guess_precision_is_zero_and_unknown(quick):
    scores, member = ranked()
    found = report(scores, member, threshold=9)
    precision = found["precision"]
    assert (precision.estimate, precision.low, precision.high) == (0, 0, 1)
    assert precision.n == 0
    assert found["recall"].estimate == 0


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_the_interval_of_an_auc_is_as_wide_as_delongs(shift):
    """DeLong et al. (1988): the variance by the placements of each kind."""
    scores, member = ranked(1000, 1, shift)
    above = np.sign(scores[member][:, None] - scores[~member]) / 2 + 0.5
    error = math.sqrt(
        sum(above.mean(axis).var(ddof=1) / above.shape[1 - axis] for axis in (0, 1))
    )
    found = report(scores, member)["auc"]
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert (found.low + found.high) / 2 == pytest.approx(found.estimate, abs=error / 4)


def test_the_interval_of_a_tpr_is_that_of_resampled_examples():
    scores, member = ranked(2000, 1, shift=1.0, others=1000)
    rng, draws = np.random.default_rng(9), []
    for _ in range(1000):
        two = rng.choice(scores[member], 1000), rng.choice(scores[~member], 1000)
        draws.append(tpr_at(np.concatenate(two), np.repeat([True, False], 1000), 0.01))
    found = report(scores, member)["tpr at 1% fpr"]
    wanted = np.quantile(draws, [0.025, 0.975])
    assert [found.low, found.high] == pytest.approx(wanted, abs=0.01)
    assert found.high - found.low > 0.03


def test_a_model_that_ignores_its_data_is_at_chance(quick):
    """The intervals of 40 such models miss 0.5 about as often as they should."""
    missed = np.zeros(2)
    for seed in range(40):
        z, y, member = victim(gap=0.0, n=200, seed=seed)
        found = report(signals.loss(z, y), member, threshold=-1.0)
        both = [found["auc"], found["accuracy"]]
        missed += [not i.low <= 0.5 <= i.high for i in both]
    low, high = scipy_stats.binom.interval(0.99, 40, 0.05)
    assert low <= missed[0] <= high
    assert missed[1] <= high  # exact, so that it may miss less


def test_perfect_scores_have_no_interval(quick):
    found = report([0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 1])["auc"]
    assert found.estimate == 1
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def several(models=7, each=60, luck=0.0, seed=0):
    rng = np.random.default_rng(seed)
    model = np.repeat(np.arange(models), each)
    member = np.arange(models * each) % 2 == 0
    lucky = rng.normal(0, luck, models)[model]
    return rng.normal(size=len(model)).round(1) + (0.5 + lucky) * member, member, model


def test_intervals_over_models_are_those_of_the_bootstrap_of_rows(quick):
    scores, member, model = several()
    names = np.array(list("gabcdef"))[model]
    order = np.random.default_rng(1).permutation(len(model))
    found = report(
        scores[order], member[order], threshold=0.3, model=names[order], seed=4
    )
    rows = np.column_stack([scores, member])
    rules = {
        "accuracy": lambda r: np.mean((r[:, 0] > 0.3) == r[:, 1]),
        "precision": lambda r: r[r[:, 0] > 0.3, 1].mean(),
        "recall": lambda r: (r[r[:, 1] == 1, 0] > 0.3).mean(),
        "auc": lambda r: metrics.roc_auc_score(r[:, 1], r[:, 0]),
    }
    for name, rule in rules.items():
        wanted = stats.bootstrap_interval(rows, names, rule, draws=300, seed=4)
        for part in ("estimate", "low", "high", "n"):
            ours, theirs = getattr(found[name], part), getattr(wanted, part)
            assert ours == pytest.approx(theirs, abs=1e-12), (name, part)
        assert found[name].n == 7
    assert list(found)[4:] == list(reporting.FPRS)
    assert found["tpr at 1% fpr"] is None


def test_models_that_differ_widen_the_interval_over_models_alone(quick):
    scores, member, model = several(models=12, each=200, luck=0.8)
    over_models = report(scores, member, model=torch.from_numpy(model))
    over_examples = report(scores, member)
    for name in ("auc", "recall", "tpr at 1% fpr"):
        widths = [r[name].high - r[name].low for r in (over_models, over_examples)]
        assert widths[0] > 1.5 * widths[1], name
    assert over_models["auc"].estimate == over_examples["auc"].estimate


def test_one_model_has_no_interval_over_models(quick):
    scores, member, _ = several()
    found = report(scores, member, model=["a"] * len(scores))["auc"]
    assert found.n == 1
    assert math.isnan(found.low)


@pytest.mark.parametrize("model", [None, np.arange(300) % 6])
def test_a_seed_fixes_a_report_and_leaves_the_rest_alone(quick, model):
    scores, member = ranked()
    before = np.random.get_state()[1].tolist()
    first, again, other = (
        report(scores, member, threshold=0, model=model, seed=seed)["auc"]
        for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other
    assert first.low == pytest.approx(other.low, abs=0.03)
    assert np.random.get_state()[1].tolist() == before


def test_a_report_refuses_models_that_do_not_fit():
    scores, member = [0.1, 0.2, 0.3, 0.4], [0, 1, 1, 1]
    with refused(r"model must hold 4 labels, one a score, got \(3,\)"):
        report(scores, member, model=[1, 1, 2])
    with refused(r"every model must have non-members, got \[2\] without"):
        report(scores, member, model=[1, 1, 2, 2])
    with refused(r"every model must have members, got \[1\] without"):
        report(scores, [0, 0, 0, 1], model=[1, 1, 2, 2])


@pytest.mark.parametrize("function", [report, rates])
def test_a_threshold_must_be_a_number(function):
    with refused("threshold must be a number, got nan"):
        function([0.1, 0.2], [0, 1], threshold=math.nan)
