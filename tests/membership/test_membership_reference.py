"""Attacks with reference models, and Nasr's network, against closed forms and loops.

Gaussian signals have known AUCs; everything else is written out with scipy and plain
loops. Where a number is random, its standard error is computed, and four are allowed.
"""

import functools
import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score

from lottolab.membership.attacks import lira, nasr, rmia

OFFLINE = [lira.offline_tail, lira.offline_density]
LIRA = [lira.online, *OFFLINE]
VARIANCES = ["global", "example"]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def normal(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def half(seed, models, examples):
    """Put every example into exactly half of the models, at random."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(models, examples, generator=generator).argsort(0) < models // 2


@functools.cache
def gaussian(seed, models, examples, shift, spread=1.0):
    """Return target, its membership, references and theirs: members `shift` higher."""
    member = half(seed, models, examples)
    truth = torch.arange(examples) % 2 == 0
    hardness = 5 * normal(seed + 1, examples)
    signals = hardness + spread * normal(seed + 2, models + 1, examples)
    signals += shift * torch.cat((truth[None], member))
    return signals[0], truth, signals[1:], member


def auc(scores, truth) -> float:
    return roc_auc_score(truth.flatten(), scores.flatten())


def auc_error(shift, examples) -> float:
    """Return the standard error of the AUC of N(shift, 1) and N(0, 1), half of each.

    Hoeffding: P(X > Y, X' > Y), here a bivariate normal with correlation 1/2.
    """
    a, n = stats.norm.cdf(shift / math.sqrt(2)), examples / 2
    both = stats.multivariate_normal(cov=[[1, 0.5], [0.5, 1]])
    q = both.cdf(np.full(2, shift / math.sqrt(2)))
    return math.sqrt((a * (1 - a) + 2 * (n - 1) * (q - a * a)) / n**2)


def tiny(seed=0, models=7, examples=5):
    """Return a target, references and membership with two or more of each side."""
    member = torch.tensor([[i % 7 < 2 + j % 4 for j in range(5)] for i in range(7)])
    member = member[:, torch.arange(examples) % 5][:models]
    return normal(seed, examples), normal(seed + 1, models, examples), member


def moments(references, side, variance):
    """Return each example's mean and standard deviation of one side, by loops."""
    groups = [
        [float(r) for r, s in zip(column, chosen, strict=True) if s]
        for column, chosen in zip(references.T, side.T, strict=True)
    ]
    means = [sum(g) / len(g) for g in groups]
    if variance == "example":
        return means, [float(np.std(g, ddof=1)) for g in groups]
    total = sum((x - m) ** 2 for g, m in zip(groups, means, strict=True) for x in g)
    free = sum(len(g) - 1 for g in groups)
    return means, [math.sqrt(total / free)] * len(groups)


# LiRA


@pytest.mark.parametrize("variance", VARIANCES)
def test_the_scores_are_scipys_on_tiny_arrays(variance):
    target, references, member = tiny()
    inside = moments(references, member, variance)
    outside = moments(references, ~member, variance)
    found = [f(target, references, member, variance=variance) for f in LIRA]
    for i, t in enumerate(target.tolist()):
        density = stats.norm.logpdf(t, outside[0][i], outside[1][i])
        ratio = stats.norm.logpdf(t, inside[0][i], inside[1][i]) - density
        tail = -stats.norm.logsf(t, outside[0][i], outside[1][i])
        expected = (ratio, tail, -density)
        assert [float(f[i]) for f in found] == pytest.approx(expected, rel=1e-12)
    assert all(f.dtype == torch.float64 for f in found)


@pytest.mark.parametrize("attack", [lira.online, lira.offline_tail])
@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize("shift", [0.0, 0.5, 2.0])
def test_with_many_references_the_auc_is_that_of_the_means(attack, variance, shift):
    target, truth, references, member = gaussian(0, 1000, 2000, shift)
    found = auc(attack(target, references, member, variance=variance), truth)
    expected = stats.norm.cdf(shift / math.sqrt(2))
    assert abs(found - expected) < 4 * auc_error(shift, 2000)


def test_with_few_references_the_auc_is_that_of_a_simulation():
    """Four references of each side; the pooled variance is as good as known."""
    shift, examples = 1.5, 200_000
    target, truth, references, member = gaussian(0, 8, examples, shift)
    found = auc(lira.online(target, references, member), truth)
    rng, scores = np.random.default_rng(1), []
    for up in (shift, 0):
        t = rng.normal(up, 1, examples // 2)
        inside = rng.normal(shift, 1, (4, examples // 2)).mean(0)
        outside = rng.normal(0, 1, (4, examples // 2)).mean(0)
        scores.append(stats.norm.logpdf(t, inside) - stats.norm.logpdf(t, outside))
    simulated = stats.mannwhitneyu(*scores).statistic / (examples / 2) ** 2
    assert abs(found - simulated) < 4 * math.sqrt(2) * auc_error(shift, examples)
    many = stats.norm.cdf(shift / math.sqrt(2))
    assert found < many - 20 * auc_error(shift, examples)


def test_the_variance_of_each_example_helps_where_they_differ_and_are_many():
    """The spread of half the examples is ten times that of the others."""
    spread = torch.where(torch.arange(4000) % 4 < 2, 0.3, 3.0).double()
    target, truth, references, member = gaussian(0, 400, 4000, 1.0, spread)
    one, each = (
        auc(lira.online(target, references, member, variance=v), truth)
        for v in VARIANCES
    )
    assert each > one + 0.02


@pytest.mark.parametrize("attack", LIRA)
@pytest.mark.parametrize("variance", VARIANCES)
def test_the_order_of_models_and_a_common_offset_do_not_matter(attack, variance):
    target, references, member = tiny()
    attack = functools.partial(attack, variance=variance)
    found = attack(target, references, member)
    order = [3, 0, 6, 2, 5, 1, 4]
    again = attack(target + 7, references[order] + 7, member[order])
    torch.testing.assert_close(again, found, rtol=1e-9, atol=1e-9)


def test_only_the_density_calls_an_unusually_low_signal_a_member():
    references, member = gaussian(0, 400, 3, 0.0)[2:]
    means = torch.where(member, 0, references).sum(0) / 200
    low, high = means - 30, means + 30
    for attack, trapped in ((lira.offline_tail, False), (lira.offline_density, True)):
        usual, down, up = (attack(t, references, member) for t in (means, low, high))
        assert (up > usual + 100).all()
        assert ((down > usual + 100) == trapped).all()
        assert (down >= 0).all() or trapped
    torch.testing.assert_close(
        lira.offline_density(low, references, member),
        lira.offline_density(high, references, member),
    )
    # Above the mean both rank alike.
    above = means[0] + torch.linspace(0.01, 40, 100)
    many = references[:, :1].expand(-1, 100), member[:, :1].expand(-1, 100)
    for attack in OFFLINE:
        assert (attack(above, *many, variance="example").diff() > 0).all()


def test_the_tail_does_not_tie_where_the_papers_form_rounds_to_one():
    references, member = normal(0, 400, 1), torch.zeros(400, 1, dtype=torch.bool)
    far = torch.linspace(9, 300, 50)
    copies = references.expand(-1, 50), member.expand(-1, 50)
    assert (lira.offline_tail(far, *copies).diff() > 0).all()
    near = torch.linspace(-5, 5, 50)
    mean, spread = references.mean(), references.std()
    papers = stats.norm.cdf(near, mean, spread)
    found = 1 - np.exp(-lira.offline_tail(near, *copies).numpy())
    assert found == pytest.approx(papers, rel=1e-9)


@pytest.mark.parametrize("attack", OFFLINE)
def test_offline_scores_need_no_model_that_saw_the_example(attack):
    target, references, _ = tiny()
    none = torch.zeros(7, 5, dtype=torch.bool)
    found = attack(target, references, none)
    # What IN references say, if there are any, does not count.
    more = torch.cat((references, torch.full((2, 5), 99.0, dtype=torch.float64)))
    member = torch.cat((none, torch.ones(2, 5, dtype=torch.bool)))
    assert torch.equal(attack(target, more, member), found)


@pytest.mark.parametrize(
    ("attack", "variance"), [(a, v) for a in LIRA for v in VARIANCES]
)
def test_leave_one_out_is_a_loop(attack, variance):
    signals, member = normal(0, 8, 30), half(1, 8, 30)
    attack = functools.partial(attack, variance=variance)
    with pytest.warns(UserWarning, match="in half of the models"):
        found = lira.leave_one_out(signals, member, attack)
    assert found.shape == (8, 30)
    for i in range(8):
        others = [j for j in range(8) if j != i]
        one = attack(signals[i], signals[others], member[others])
        assert torch.equal(found[i], one)


def test_pairs_are_left_out_together():
    member = (
        half(1, 2, 20).repeat_interleave(4, 0) ^ torch.tensor([[0], [1]] * 4).bool()
    )
    member[:, 17:] = False  # never trained on
    signals = normal(0, 8, 20)
    found = lira.leave_one_out(signals, member, lira.offline_tail, paired=True)
    for i in range(8):
        others = [j for j in range(8) if j // 2 != i // 2]
        one = lira.offline_tail(signals[i], signals[others], member[others])
        assert torch.equal(found[i], one)


def group_aucs(scores, truth, groups=20):
    """Return mean and standard error over independent groups of examples."""
    columns = torch.arange(scores.shape[1]).chunk(groups)
    found = [auc(scores[:, c], truth[:, c]) for c in columns]
    return np.mean(found), stats.sem(found)


def test_models_that_leak_nothing_give_one_half_unless_counts_leak():
    """Exactly half of the models: see the docstring of `leave_one_out`."""
    signals = normal(0, 8, 20_000)
    attacked = functools.partial(lira.leave_one_out, attack=lira.online)
    member = half(1, 8, 20_000)
    with pytest.warns(UserWarning, match="in half of the models"):
        mean, error = group_aucs(attacked(signals, member), member)
    assert mean < 0.5 - 10 * error
    assert mean == pytest.approx(0.473, abs=0.004)
    coin = torch.rand(4, 20_000, generator=torch.Generator().manual_seed(2)) < 0.5
    coin[:, coin.all(0) | ~coin.any(0)] = torch.tensor([True, False] * 2)[:, None]
    paired = torch.stack((coin, ~coin), 1).flatten(0, 1)
    mean, error = group_aucs(attacked(signals, paired, paired=True), paired)
    assert abs(mean - 0.5) < 4 * error
    free = torch.rand(24, 20_000, generator=torch.Generator().manual_seed(3)) < 0.5
    mean, error = group_aucs(attacked(normal(4, 24, 20_000), free), free)
    assert abs(mean - 0.5) < 4 * error


TARGET, REFERENCES, MEMBER = tiny()
ALL, NONE = torch.ones_like(MEMBER), torch.zeros_like(MEMBER)
ONE_IN, ONE_OUT = NONE.clone(), ALL.clone()
ONE_IN[:2], ONE_IN[1, 3] = True, False
ONE_OUT[:2], ONE_OUT[1, 3] = False, True
FIRST = NONE.clone()
FIRST[0] = True
NAN = REFERENCES.clone()
NAN[2, 1] = float("nan")
SHAPES = [
    ((TARGET[None], REFERENCES, MEMBER), r"target must be \[N\], N > 0, got \(1, 5\)"),
    ((TARGET[:0], REFERENCES[:, :0], MEMBER[:, :0]), r"N > 0, got \(0,\)"),
    ((TARGET, REFERENCES[:, :4], MEMBER), r"references must be \[M, 5\].*got \(7, 4\)"),
    ((TARGET, TARGET, MEMBER), r"references must be \[M, 5\].*got \(5,\)"),
    ((TARGET, REFERENCES, MEMBER[:6]), r"member must be \(7, 5\), got \(6, 5\)"),
    ((TARGET, REFERENCES, MEMBER.int()), "member must be bool, got torch.int32"),
    ((NAN[2], REFERENCES, MEMBER), r"target must be finite, got \[nan\]"),
    ((TARGET, NAN, MEMBER), r"references must be finite, got \[nan\]"),
    ((TARGET, REFERENCES / 0, MEMBER), r"references must be finite, got \[-?inf\]"),
    ((TARGET, REFERENCES, ALL), "each example needs >= 1 references trained without"),
]


@pytest.mark.parametrize("attack", LIRA)
@pytest.mark.parametrize(("given", "message"), SHAPES)
def test_bad_signals_are_refused(attack, given, message):
    with pytest.raises(ValueError, match=message):
        attack(*given)


@pytest.mark.parametrize(
    ("attack", "member", "variance", "message"),
    [
        (lira.online, NONE, "global", "needs >= 1 references trained with it, got 0"),
        (lira.online, ONE_IN, "example", "needs >= 2 .* with it, got 1 for example 3"),
        (lira.online, ONE_OUT, "example", "needs >= 2 .* without it, got 1 for exa"),
        (OFFLINE[0], ONE_OUT, "example", "needs >= 2 .* without it, got 1 for exa"),
        (OFFLINE[1], ONE_OUT, "example", "too few shadows.* got 1 for example 3"),
        (lira.online, FIRST, "global", "some example needs >= 2 .* with it, got 1 for"),
        (OFFLINE[0], ~FIRST, "global", "some example needs >= 2 .* without it, got 1"),
        (lira.online, MEMBER, "globl", "must be one of global, .* did you mean global"),
    ],
)
def test_too_few_shadows_are_refused(attack, member, variance, message):
    with pytest.raises(ValueError, match=message):
        attack(TARGET, REFERENCES, member, variance=variance)


@pytest.mark.parametrize("attack", LIRA)
def test_one_of_a_side_is_enough_for_a_global_variance_if_another_has_two(attack):
    member = ONE_OUT if attack in OFFLINE else ONE_IN
    assert attack(TARGET, REFERENCES, member).isfinite().all()


@pytest.mark.parametrize("attack", LIRA)
def test_references_that_agree_are_refused(attack):
    same = REFERENCES.clone()
    same[:, 2] = 0.1
    with pytest.raises(ValueError, match="same signal for 1 of 5 examples"):
        attack(TARGET, same, MEMBER, variance="example")
    attack(TARGET, same, MEMBER)
    with pytest.raises(ValueError, match="an example must differ"):
        attack(TARGET, torch.full_like(same, 0.1), MEMBER)


@pytest.mark.parametrize(
    ("signals", "member", "paired", "message"),
    [
        (TARGET, MEMBER, False, r"signals must be \[M, N\], got \(5,\)"),
        (REFERENCES, MEMBER[:3], False, r"member must be \(7, 5\), got \(3, 5\)"),
        (REFERENCES, MEMBER.int(), False, "member must be bool, got torch.int32"),
        (REFERENCES, MEMBER, True, "paired models must be even in number, got 7"),
        (REFERENCES[:2], ALL[:2], True, "once a pair, .*, got 5 examples that differ"),
        (REFERENCES[:4], ~FIRST[:4], True, "got 5 examples that differ"),
        (REFERENCES[:1], MEMBER[:1], False, "needs >= 1 references"),
    ],
)
def test_bad_input_of_leave_one_out_is_refused(signals, member, paired, message):
    with pytest.raises(ValueError, match=message):
        lira.leave_one_out(signals, member, lira.online, paired=paired)


# RMIA


def probabilities(seed=0, models=7, examples=5, population=40):
    """Return the five arguments of an RMIA attack."""
    target, references, member = tiny(seed, models, examples)
    z = normal(seed + 2, models + 1, population).sigmoid()
    return target.sigmoid(), references.sigmoid(), member, z[0], z[1:]


def brute_force(target, references, member, z, z_references, gamma, a=None):
    """Count pairs one by one; `a` is None online."""
    scores = []
    for i, p in enumerate(target.tolist()):
        column = list(zip(references[:, i].tolist(), member[:, i], strict=True))
        inside = [q for q, m in column if m]
        outside = [q for q, m in column if not m]
        outside = sum(outside) / len(outside)
        guess = sum(inside) / len(inside) if a is None else a * outside + (1 - a)
        usual, wins = (guess + outside) / 2, 0
        for j, q in enumerate(z.tolist()):
            usual_z = float(z_references[:, j].mean())
            if a is not None:
                usual_z = (a * usual_z + (1 - a) + usual_z) / 2
            wins += (p / usual) / (q / usual_z) >= gamma
        scores.append(wins / len(z))
    return scores


@pytest.mark.parametrize("gamma", [1.0, 1.3, 2.0, 5.0])
@pytest.mark.parametrize("seed", range(3))
def test_rmia_counts_the_pairs_that_brute_force_counts(gamma, seed):
    given = probabilities(seed, examples=20, population=101)
    found = rmia.online(*given, gamma=gamma)
    assert found.tolist() == brute_force(*given, gamma)
    for a in (0.0, 0.3, 1.0):
        found = rmia.offline(*given, gamma=gamma, a=a)
        assert found.tolist() == brute_force(*given, gamma, a)
    assert found.dtype == torch.float64
    assert len(found.unique()) > 3


def test_the_defaults_are_the_papers():
    given = probabilities(0, examples=20)
    assert torch.equal(rmia.online(*given), rmia.online(*given, gamma=2))
    assert torch.equal(rmia.offline(*given), rmia.offline(*given, gamma=2, a=0.3))


def test_a_ratio_of_exactly_gamma_counts():
    p, member = torch.tensor([[0.5], [0.5]]), torch.tensor([[True], [False]])
    z = torch.tensor([0.25, 0.25 + 1e-6, 0.125])
    for attack, a in ((rmia.online, {}), (rmia.offline, {"a": 1.0})):
        found = attack(p[0], p, member, z, torch.full((2, 3), 0.5), gamma=2.0, **a)
        assert found.tolist() == [2 / 3]


@pytest.mark.parametrize("attack", [rmia.online, rmia.offline])
def test_a_common_factor_of_the_target_cancels(attack):
    target, references, member, z, z_references = probabilities(1, examples=20)
    found = attack(target, references, member, z, z_references)
    scaled = attack(target / 4, references, member, z / 4, z_references)
    assert torch.equal(scaled, found)
    assert not torch.equal(
        attack(target / 4, *(references, member, z, z_references)), found
    )


def test_online_p_of_x_is_the_middle_of_in_and_out_whatever_their_numbers():
    target, references, member, z, z_references = probabilities(2, examples=20)
    found = rmia.online(target, references, member, z, z_references, gamma=1)
    order = torch.arange(7).repeat(2)
    doubled = references[order], member[order], z, z_references[order]
    torch.testing.assert_close(rmia.online(target, *doubled, gamma=1), found)
    # Example by example, the IN references alone are doubled.
    more = torch.where(member, references, 0).sum(0) / member.sum(0)
    extended = (
        torch.cat((references, more[None])),
        torch.cat((member, ALL[:1, [0] * 20])),
    )
    again = torch.cat((z_references, z_references.mean(0)[None]))
    torch.testing.assert_close(rmia.online(target, *extended, z, again, gamma=1), found)


@pytest.mark.parametrize("attack", [rmia.online, rmia.offline])
def test_rmia_finds_members_with_raised_confidence(attack):
    target, truth, references, member = gaussian(0, 16, 2000, 1.0)
    z = (5 * normal(9, 3000) + normal(10, 17, 3000)).sigmoid()
    x = target.sigmoid(), references.sigmoid(), member
    assert auc(attack(*x, z[0], z[1:], gamma=1.0), truth) > 0.5 + 4 * auc_error(0, 2000)


@pytest.mark.parametrize("a", [0.3, 1.0])
def test_a_non_members_offline_score_is_uniform_at_gamma_one(a):
    """It and the population are alike if p(z) is made as p(x) is."""
    signals = (2 * normal(0, 1, 51_000) + normal(1, 9, 51_000)).sigmoid()
    x, z = signals[:, :1000], signals[:, 1000:]
    member = torch.zeros(8, 1000, dtype=torch.bool)
    given = (x[0], x[1:], member, z[0], z[1:])
    scores = rmia.offline(*given, gamma=1.0, a=a)
    assert stats.kstest(scores.numpy(), "uniform").pvalue > 1e-3


def test_for_one_target_neither_gamma_nor_population_changes_the_order():
    target, references, member, z, z_references = probabilities(3, examples=200)
    usual = (
        1.3 * torch.where(member, 0, references).sum(0) / (~member).sum(0) + 0.7
    ) / 2
    order = (target / usual).argsort()
    for gamma, cut in ((1.0, 40), (2.0, 40), (1.5, 7)):
        population = z[:cut], z_references[:, :cut]
        found = rmia.offline(target, references, member, *population, gamma=gamma)
        assert (found[order].diff() >= 0).all()
        assert len(found.unique()) <= cut + 1


def test_probabilities_that_underflow_do_no_harm():
    zero = torch.zeros(1, dtype=torch.float64)
    two, member = torch.zeros(2, 1), torch.tensor([[True], [False]])
    z, usual = torch.tensor([0.0, 0.75, 0.25]), torch.tensor([[0.0, 0.25, 0.75]] * 2)
    nothing = rmia.online(zero, two, member, z, usual, gamma=1.0)
    assert nothing.tolist() == [2 / 3]  # 0/0 counts as 1, against 1, 3 and 1/3
    sure = rmia.online(zero + 1, two, member, zero, two, gamma=1e300)
    assert sure.tolist() == [1.0]
    never = rmia.online(zero, two + 1, member, zero + 1, two + 1, gamma=1.0)
    assert never.tolist() == [0.0]


def test_rmia_is_left_one_out_with_the_population_as_columns():
    p, member = normal(0, 8, 50).sigmoid(), half(1, 8, 50)
    member[:, 30:] = False

    def attack(target, references, member):
        z = target[30:], references[:, 30:]
        return rmia.online(target[:30], references[:, :30], member[:, :30], *z)

    found = lira.leave_one_out(p, member, attack)
    assert found.shape == (8, 30)
    for i in range(8):
        others = [j for j in range(8) if j != i]
        x = p[i, :30], p[others, :30], member[others, :30]
        assert torch.equal(found[i], rmia.online(*x, p[i, 30:], p[others, 30:]))


GIVEN = probabilities()


@pytest.mark.parametrize("attack", [rmia.online, rmia.offline])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: GIVEN[0] + 1}, r"probabilities must be in \[0, 1\], got \[1"),
        ({0: -GIVEN[0]}, r"probabilities must be in \[0, 1\], got \[-0"),
        ({1: GIVEN[1] * 5}, r"probabilities must be in \[0, 1\], got \[[1-5]"),
        ({3: GIVEN[3] * 5}, r"probabilities must be in \[0, 1\], got \[[1-5]"),
        ({3: GIVEN[3] * math.nan}, r"probabilities must be in \[0, 1\], got \[nan"),
        ({4: GIVEN[4] - 1}, r"probabilities must be in \[0, 1\], got \[-0"),
        ({0: GIVEN[0][:3]}, r"references must be \[M, 3\]"),
        ({2: GIVEN[2].float()}, "member must be bool, got torch.float32"),
        ({1: GIVEN[1] * math.nan}, "references must be finite"),
        ({2: ALL}, "too few shadows.* >= 1 references trained without it, got 0"),
        ({3: GIVEN[4]}, r"population_target must be \[Z\].*got \(7, 40\)"),
        ({3: GIVEN[3][:0], 4: GIVEN[4][:, :0]}, r"must be \[Z\], Z > 0, got \(0,\)"),
        ({4: GIVEN[4][:, 1:]}, r"population_references must be \(7, 40\), got \(7, 39"),
        ({4: GIVEN[4][1:]}, r"population_references must be \(7, 40\), got \(6, 40"),
        ({"gamma": 0.99}, "gamma must be >= 1 and finite, got 0.99"),
        ({"gamma": math.nan}, "gamma must be >= 1 and finite, got nan"),
        ({"gamma": math.inf}, "gamma must be >= 1 and finite, got inf"),
    ],
)
def test_bad_input_of_rmia_is_refused(attack, change, message):
    given = [change.get(i, one) for i, one in enumerate(GIVEN)]
    options = {k: v for k, v in change.items() if isinstance(k, str)}
    with pytest.raises(ValueError, match=message):
        attack(*given, **options)


def test_each_mode_of_rmia_asks_for_what_it_needs():
    given = (*GIVEN[:2], NONE, *GIVEN[3:])
    assert rmia.offline(*given).isfinite().all()
    with pytest.raises(ValueError, match="references trained with it, got 0"):
        rmia.online(*given)
    for a in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=rf"a must be in \[0, 1\], got {a}"):
            rmia.offline(*GIVEN, a=a)


# The network of Nasr et al.


def layers(network):
    linear = [m for m in network.modules() if isinstance(m, torch.nn.Linear)]
    return [(m.in_features, m.out_features) for m in linear]


def test_the_network_has_the_layers_of_the_paper():
    paper = [(7, 1024), (1024, 512), (512, 64), (7, 512), (512, 64)]
    paper += [(128, 256), (256, 64), (64, 1)]
    assert layers(nasr.InferenceNetwork(7)) == paper
    small = [(7, 256), (256, 128), (128, 16), (7, 128), (128, 16)]
    small += [(32, 64), (64, 16), (16, 1)]
    assert layers(nasr.InferenceNetwork(7, width=0.25)) == small
    assert layers(nasr.InferenceNetwork(7, width=1e-9))[-1] == (1, 1)


def test_the_forward_pass_is_that_of_the_paper():
    network = nasr.InferenceNetwork(4, width=0.1)
    labels, x = torch.tensor([3, 0, 2]), normal(0, 3, 4).float()
    w = [p.detach().double().numpy() for p in network.parameters()]

    def through(x, first, count):
        for i in range(2 * first, 2 * (first + count), 2):
            x = np.maximum(x @ w[i].T + w[i + 1], 0)
        return x

    branches = through(x.double().numpy(), 0, 3), through(np.eye(4)[labels], 3, 2)
    expected = through(np.concatenate(branches, 1), 5, 2) @ w[14].T + w[15]
    found = network(x, labels).detach().numpy()
    assert found == pytest.approx(expected[:, 0], rel=1e-4, abs=1e-5)


def sharp(seed, n, up):
    """Return logits, labels, membership: the label's logit is by `up` higher if in."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(5, (n,), generator=generator)
    member = torch.rand(n, generator=generator) < 0.5
    height = 1 + up * member + normal(seed + 100, n)
    return height[:, None] * torch.nn.functional.one_hot(labels, 5), labels, member


def accuracy(attack, logits, labels, member) -> float:
    return float(((attack(logits, labels) > 0.5) == member).double().mean())


@pytest.mark.parametrize("features", nasr.FEATURES)
def test_the_network_is_nearly_as_good_as_bayes(features):
    attack = nasr.fit(*sharp(0, 2000, 2.0), width=0.25, features=features)
    bayes = stats.norm.cdf(1.0)
    found = accuracy(attack, *sharp(1, 4000, 2.0))
    gain = (found - 0.5) / (bayes - 0.5)
    assert 0.9 < gain < 1 + 4 * math.sqrt(bayes * (1 - bayes) / 4000) / (bayes - 0.5)


def test_the_network_learns_where_all_members_come_first():
    logits, labels, member = sharp(0, 400, 2.0)
    order = (~member).int().argsort()
    data = logits[order], labels[order], member[order]
    attack = nasr.fit(*data, width=0.25, batch=200)
    assert accuracy(attack, *sharp(1, 4000, 2.0)) > 0.75


def test_the_network_finds_nothing_where_there_is_nothing():
    attack = nasr.fit(*sharp(0, 1000, 0.0), width=0.25)
    logits, labels, member = sharp(1, 4000, 0.0)
    scores = attack(logits, labels)
    assert abs(auc(scores, member) - 0.5) < 4 * auc_error(0, 4000)
    assert abs(accuracy(attack, logits, labels, member) - 0.5) < 4 * 0.5 / 4000**0.5


def matched(seed, n):
    """Return logits of a random class: the label of a member, and of no other."""
    generator = torch.Generator().manual_seed(seed)
    top = torch.randint(4, (n,), generator=generator)
    member = torch.rand(n, generator=generator) < 0.5
    other = (top + torch.randint(1, 4, (n,), generator=generator)) % 4
    logits = 3.0 * torch.nn.functional.one_hot(top, 4)
    return logits, torch.where(member, top, other), member


def test_the_network_uses_the_label():
    attack = nasr.fit(*matched(0, 2000), width=0.25)
    assert accuracy(attack, *matched(1, 1000)) > 0.98


def test_scores_are_probabilities_in_float64():
    logits, labels, member = sharp(0, 400, 3.0)
    attack = nasr.fit(logits, labels, member, width=0.25)
    scores = attack(logits.float(), labels)
    assert scores.dtype == torch.float64
    assert not scores.requires_grad
    assert ((scores >= 0) & (scores <= 1)).all()
    # Fitted by likelihood, so that they add up to the number of members.
    assert float(scores.mean()) == pytest.approx(float(member.double().mean()), abs=0.1)


def test_features_are_what_they_are_called():
    logits, labels, member = sharp(0, 200, 1.0)
    assert torch.equal(nasr.inputs(logits, "logits"), logits.float())
    rows = nasr.inputs(logits, "probabilities")
    expected = logits.exp() / logits.exp().sum(1, keepdim=True)
    torch.testing.assert_close(rows, expected.float())
    for features, blind in (("probabilities", True), ("logits", False)):
        options = {"features": features, "width": 0.1, "epochs": 2}
        attack = nasr.fit(logits, labels, member, **options)
        shifted = attack(logits + 5, labels)
        assert torch.allclose(shifted, attack(logits, labels), atol=1e-5) == blind


def test_a_seed_fixes_every_bit_and_the_global_generator_is_left_alone():
    data = sharp(0, 300, 1.0)
    fit = functools.partial(nasr.fit, *data, width=0.1, epochs=2)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = fit(seed=3)(*data[:2])
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert torch.equal(fit(seed=3)(*data[:2]), first)
    assert not torch.equal(fit(seed=4)(*data[:2]), first)
    assert not torch.equal(fit(seed=3, epochs=3)(*data[:2]), first)
    assert not torch.equal(fit(seed=3, batch=100)(*data[:2]), first)
    assert not torch.equal(fit(seed=3, lr=1e-4)(*data[:2]), first)


def test_zero_and_one_do_as_membership():
    logits, labels, member = sharp(0, 100, 1.0)
    fit = functools.partial(nasr.fit, logits, labels, width=0.1, epochs=1)
    first = fit(is_member=member)(logits, labels)
    assert torch.equal(fit(is_member=member.int())(logits, labels), first)


LOGITS, LABELS, IS_MEMBER = sharp(0, 6, 1.0)
IS_MEMBER[:3], IS_MEMBER[3:] = True, False
CRACKED = LOGITS.clone()
CRACKED[1, 1] = math.nan


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logits": CRACKED}, r"logits must be finite, got \[nan\]"),
        ({"logits": LOGITS[0]}, "logits must be float, examples × classes"),
        ({"logits": LOGITS[:4]}, r"labels must be integers of shape \[4\]"),
        ({"labels": LABELS[:4]}, r"labels must be integers of shape \[6\]"),
        ({"labels": LABELS.float()}, "labels must be integers .*labels.long"),
        ({"labels": LABELS + 5}, r"labels must be in \[0, 4\]"),
        ({"labels": LABELS - 5}, r"labels must be in \[0, 4\]"),
        ({"is_member": IS_MEMBER[:4]}, r"is_member must hold 6 values.*, got \(4,\)"),
        ({"is_member": IS_MEMBER * 2}, r"is_member must be 0 or 1 .*got \[2.\]"),
        ({"is_member": IS_MEMBER / 0}, "is_member must be 0 or 1"),
        ({"is_member": IS_MEMBER | True}, "members and non-members, got 6 and 0"),
        ({"is_member": IS_MEMBER & False}, "members and non-members, got 0 and 6"),
        ({"features": "logit"}, "features must be one of.*did you mean logits"),
        ({"epochs": 0}, "epochs must be a whole number >= 1, got 0"),
        ({"epochs": 1.5}, "epochs must be a whole number >= 1, got 1.5"),
        ({"batch": 0}, "batch must be a whole number >= 1, got 0"),
        ({"lr": 0.0}, "lr must be > 0 and finite, got 0.0"),
        ({"lr": math.nan}, "lr must be > 0 and finite, got nan"),
        ({"width": 0.0}, "width must be > 0 and finite, got 0.0"),
    ],
)
def test_bad_input_of_the_network_is_refused(change, message):
    given = {"logits": LOGITS, "labels": LABELS, "is_member": IS_MEMBER, **change}
    with pytest.raises(ValueError, match=message):
        nasr.fit(**given)


def test_bad_input_of_a_fitted_attack_is_refused():
    attack = nasr.fit(LOGITS, LABELS, IS_MEMBER, width=0.1, epochs=1)
    with pytest.raises(ValueError, match="logits must be of 5 classes, got 6"):
        attack(torch.zeros(3, 6), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"logits must be finite, got \[nan\]"):
        attack(CRACKED, LABELS)
    with pytest.raises(ValueError, match="classes must be at least 2, got 1"):
        nasr.InferenceNetwork(1)
    with pytest.raises(ValueError, match="features must be one of"):
        nasr.inputs(LOGITS, "softmax")


# What was starved, hidden or promised


def constant(models=8, each=2, n=900, seed=0):
    """Return noise, and membership of every example in `each` of the models."""
    rng = np.random.default_rng(seed)
    order = rng.random((models, n)).argsort(0)
    signals = torch.from_numpy(rng.normal(size=(models, n)))
    return signals, torch.from_numpy(order < each)


@pytest.mark.parametrize(
    "case", ["two of eight", "half, and some never", "almost half"]
)
def test_examples_in_equally_many_models_are_warned_of(case):
    """Each of these gives LiRA less than 0.5 on noise, and gave it without a word."""
    signals, member = constant(each=2 if case == "two of eight" else 4)
    if case == "almost half":
        member[0, :90] = True
    never = torch.zeros(8, 100, dtype=torch.bool)
    if case == "half, and some never":
        member = torch.cat([member, never], 1)
        signals = torch.cat([signals, torch.zeros(8, 100)], 1)

    def attack(target, references, had):
        some = slice(None, 900)
        return lira.online(target[some], references[:, some], had[:, some])

    with pytest.warns(UserWarning, match="almost equally many models"):
        found = lira.leave_one_out(signals, member, attack)
    aucs = [roc_auc_score(m[:900], s) for m, s in zip(member, found, strict=True)]
    assert np.mean(aucs) < 0.49


@pytest.mark.filterwarnings("error")
def test_models_that_draw_their_own_examples_are_not_warned_of():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        member = torch.from_numpy(rng.random((10, 300)) < 0.5)
        signals = torch.from_numpy(rng.normal(size=(10, 300)))
        lira.leave_one_out(signals, member, lambda t, r, m: t)


@pytest.mark.parametrize("variance", VARIANCES)
def test_the_published_score_is_by_medians_and_the_spread_of_all(variance):
    rng = np.random.default_rng(2)
    references, target = rng.normal(size=(7, 30)), rng.normal(size=30)
    references += 3 * rng.normal(size=30)
    member = rng.random((7, 30)) < 0.5
    member[:2] = False
    outside = [references[~member[:, j], j] for j in range(30)]
    least = min(map(len, outside))
    kept = np.array([row[:least] for row in outside])
    spread = kept.std() if variance == "global" else kept.std(1)
    wanted = -stats.norm.logpdf(target, np.median(kept, 1), spread)
    given = [torch.from_numpy(x) for x in (target, references, member)]
    found = lira.offline_published(*given, variance=variance)
    assert found.numpy() == pytest.approx(wanted)
    ours = lira.offline_density(*given, variance=variance)
    assert not torch.allclose(found, ours, rtol=0.05)


@pytest.mark.parametrize("count", [4, 5])
def test_the_largest_half_of_the_references_of_z_makes_z_likelier(count):
    rng = np.random.default_rng(0)
    p, z = rng.random((count, 6)), rng.random((count, 40))
    member = torch.from_numpy(np.arange(count)[:, None] % 2 == np.zeros(6))
    target, own = torch.from_numpy(rng.random(6)), torch.from_numpy(rng.random(40))
    half = rmia.largest_half(torch.from_numpy(z))
    large = np.sort(z, 0)[::-1][: math.ceil(count / 2)].mean(0)
    assert half.shape == (count, 40)
    assert half.numpy() == pytest.approx(np.tile(large, (count, 1)))
    given = (target, torch.from_numpy(p), member, own)
    for attack in (rmia.online, rmia.offline):
        plain = attack(*given, torch.from_numpy(z), gamma=1.0)
        assert (attack(*given, half, gamma=1.0) >= plain).all()
        wanted = attack(*given, torch.from_numpy(np.tile(large, (count, 1))), gamma=1.0)
        assert torch.equal(attack(*given, half, gamma=1.0), wanted)
    with pytest.raises(ValueError, match=r"must be \[M, Z\], got \(40,\)"):
        rmia.largest_half(own)


def test_nasr_refuses_what_float32_cannot_hold():
    z = torch.tensor([[1e300, 0.0], [0.0, 1.0]], dtype=torch.float64)
    with pytest.raises(ValueError, match="finite in float32"):
        nasr.fit(z, torch.tensor([0, 1]), torch.tensor([True, False]))
