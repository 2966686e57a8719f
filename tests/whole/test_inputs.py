"""One rule for what users pass to the public functions of all rooms."""

import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from lottolab import checks
from lottolab.checks.taking import floats
from lottolab.ensembles import Library, arc, masking, pgd, transfer_matrix
from lottolab.ensembles.attacks import autoattack, gradient
from lottolab.ensembles.laws import matched, one, theta
from lottolab.ensembles.sampler import Sampler
from lottolab.ensembles.tickets import Scored
from lottolab.membership import metrics, signals
from lottolab.membership.attacks import lira, nasr, rmia, supervised, thresholds
from lottolab.mia_pruning import audit, divergence, theorem
from lottolab.mia_pruning.attacks import samia
from lottolab.mia_pruning.defences import accounting, dp, ppb
from lottolab.modelguard import MAD, ModelGuardS, Rounding, lemmas, utility
from lottolab.modelguard.attacks import bayes, measures
from lottolab.nets import masks as masking_of_networks
from lottolab.nets import predict, train
from lottolab.ownership.signatures import qr
from lottolab.truth import rates, stats


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    """Numbers that bfloat16 holds: eighths."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, 8, shape, generator=generator) / 8


N, C = 12, 3
SCORES, LOGITS = draw(N), draw(N, C, seed=1) * 4
LABELS = torch.arange(N) % C
MEMBER = torch.arange(N) % 2 == 0
SIDES = torch.stack([MEMBER, ~MEMBER, MEMBER, ~MEMBER])
REFERENCES = draw(4, N, seed=2)
IMAGES = torch.randint(256, (N, 1, 4, 4), dtype=torch.uint8)
PIXELS = IMAGES.float() / 255
ONES = torch.zeros(1), torch.ones(1)

# Scores

SCORED = {
    "metrics.accuracy": lambda s: metrics.accuracy(s, MEMBER, 0.5),
    "metrics.auc": lambda s: metrics.auc(s, MEMBER),
    "metrics.rates": lambda s: metrics.rates(s, MEMBER)["auc"],
    "thresholds.best": lambda s: thresholds.best(s, MEMBER),
    "thresholds.at_rate": lambda s: thresholds.at_rate(s, 0.29),
    "thresholds.by_class": lambda s: thresholds.by_class(s, LABELS, MEMBER, C),
    "lira.online": lambda s: lira.online(s, REFERENCES, SIDES),
    "lira.offline_tail": lambda s: lira.offline_tail(s, REFERENCES, SIDES),
    "rmia.online": lambda s: rmia.online(s, REFERENCES, SIDES, SCORES, REFERENCES),
    "rmia.offline": lambda s: rmia.offline(s, REFERENCES, SIDES, SCORES, REFERENCES),
    "audit": lambda s: audit.epsilon_lower_bound(s, SCORES, 1e-5),
    "gain": lambda s: divergence.gain(s, SCORES),
    "jensen_shannon": lambda s: divergence.jensen_shannon(s, SCORES, draws=2)[0],
    "stats.mean_interval": lambda s: stats.mean_interval(s).low,
    "discrete_entropy": lemmas.discrete_entropy,
}
ROWS = {name: (lambda z, f=f: f(z, LABELS)) for name, f in signals.SIGNALS.items()}
ROWS |= {
    "supervised": lambda z: supervised.fit(z, MEMBER, classifier="svm")(z),
    "nasr": lambda z: nasr.fit(z, LABELS, MEMBER, epochs=1, width=0.1)(z, LABELS),
    "fidelity": lambda z: measures.fidelity(z, LOGITS),
    "recovery_distance": lambda z: measures.recovery_distance(z, LOGITS),
    "utility.l1": lambda z: utility.l1(z, LOGITS),
    "utility.log_loss": lambda z: utility.log_loss(z / 4, LABELS),
    "utility.top_k": lambda z: utility.top_k(z, LABELS, 2),
    "softmax_smoothness": lemmas.softmax_smoothness,
    "theorem": lambda z: theorem.subnetwork(z / 4, 3, seed=0).error,
}
FORMS = {
    "bfloat16": torch.Tensor.bfloat16,
    "half": torch.Tensor.half,
    "float64": torch.Tensor.double,
    "gradient": lambda s: s.clone().requires_grad_(),
    "array": torch.Tensor.numpy,
    "turned array": lambda s: s.flip(0).numpy()[::-1],
}
LISTED = FORMS | {"list": torch.Tensor.tolist}


def same(found, expected) -> bool:
    return torch.equal(torch.as_tensor(found), torch.as_tensor(expected))


@pytest.mark.parametrize("form", LISTED)
@pytest.mark.parametrize("name", SCORED)
def test_scores_are_taken_in_every_form(name, form):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = SCORED[name](LISTED[form](SCORES))
    assert same(found, SCORED[name](SCORES))
    assert not getattr(found, "requires_grad", False)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ROWS)
def test_rows_of_scores_are_taken_in_every_form(name, form):
    found, expected = ROWS[name](FORMS[form](LOGITS)), ROWS[name](LOGITS)
    found, expected = (torch.as_tensor(x).double() for x in (found, expected))
    assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("bad", ["words", ["a"], [[1.0], [1.0, 2.0]], None])
@pytest.mark.parametrize("name", SCORED)
def test_what_is_no_numbers_is_refused(name, bad):
    with pytest.raises(ValueError, match="must be numbers, got"):
        SCORED[name](bad)


def test_float_tensors_come_back_as_they_are():
    for x in (SCORES, SCORES.double()):
        assert floats("x", x).data_ptr() == x.data_ptr()


@pytest.mark.parametrize("bad", [PIXELS.numpy(), None, PIXELS.tolist()])
def test_answers_that_are_no_tensors_are_refused_by_a_defence(bad):
    for defence in (ModelGuardS(0.5, 2), Rounding(2)):
        with pytest.raises(ValueError, match="probs must be a tensor"):
            defence(bad)


# Labels

LABELLED = {
    "predict.accuracy": lambda y: predict.accuracy(LOGITS, y),
    "train.fit": lambda y: fitted(y),
    "ppb": lambda y: fitted(y, loss=ppb.loss()),
    "dp_train": lambda y: private(y),
    "samia": lambda y: samia.fit(
        LOGITS, MEMBER, labels=y, sensitivity=LOGITS, epochs=1
    ),
    "pgd": lambda y: pgd(linear(), PIXELS, y, **BALL, steps=1, seed=0),
    "correct": lambda y: attacks_correct(y),
    "log_loss": lambda y: utility.log_loss(LOGITS, y),
    "by_class": lambda y: thresholds.by_class(SCORES, y, MEMBER, C),
    "nasr": lambda y: nasr.fit(LOGITS, y, MEMBER, epochs=1, width=0.1),
    "supervised": lambda y: supervised.fit(LOGITS, MEMBER, labels=y),
} | {name: (lambda y, f=f: f(LOGITS, y)) for name, f in signals.SIGNALS.items()}
BALL = {"epsilon": 0.1, "step": 0.05}
BAD_LABELS = {
    "a column": (LABELS[:, None], r"\[:, 0\]\)|such as"),
    "one-hot": (nn.functional.one_hot(LABELS), "argmax"),
    "float": (LABELS.float(), "long"),
    "ignored": (LABELS.where(LABELS > 0, -100), r"must be (in \[0, 2\]|>= 0)"),
    "classes": (LABELS + 1, r"must be in \[0, 2\]"),
    "too few": (LABELS[1:], r"of shape \[12\]"),
}


def linear(classes: int = C) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(nn.Flatten(), nn.Linear(16, classes))


def fitted(y, model=None, **options):
    recipe = train.Recipe(epochs=1, batch=4, crop=0, flip=False)
    return train.fit(model or linear(), IMAGES, y, recipe, seed=0, **options)


def private(y, model=None):
    settings = {"epochs": 1, "batch": 4, "lr": 0.1, "epsilon": 1.0, "delta": 1e-5}
    return dp.dp_train(model or linear(), IMAGES, y, **settings, clip=1.0, seed=0)


def attacks_correct(y):
    from lottolab.ensembles.queries import correct

    return correct(linear(), PIXELS, y)


@pytest.mark.parametrize("kind", BAD_LABELS)
@pytest.mark.parametrize("name", LABELLED)
def test_labels_of_another_shape_kind_or_class_are_refused(name, kind):
    if name == "dp_train":
        pytest.importorskip("opacus")
    given, message = BAD_LABELS[kind]
    with pytest.raises(ValueError, match=message):
        LABELLED[name](given)


# Models

PLAIN = linear()
MODELS = {
    "tuple": (lambda x: (PLAIN(x), x), "must return logits.*got tuple"),
    "dict": (lambda x: {"logits": PLAIN(x)}, "must return logits.*got dict"),
    "one score": (lambda x: PLAIN(x)[:, 0], "examples × classes"),
    "nan": (lambda x: PLAIN(x) * math.nan, "must be finite, got"),
    "inf": (lambda x: PLAIN(x).abs() * math.inf, "must be finite, got"),
    "softmax": (lambda x: PLAIN(x).softmax(1), "leave the softmax out"),
    "half": (linear().half(), "must answer images that are torch.float32"),
    "moody": (
        nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16), nn.Linear(16, C)).forward,
        "must be in evaluation mode.*BatchNorm1d in training mode",
    ),
}
ATTACKS = {
    "pgd": lambda m, x, y: pgd(m, x, y, **BALL, steps=1, seed=0),
    "universal": lambda m, x, y: gradient.universal(m, x, y, **BALL, epochs=1, seed=0),
    "arc": lambda m, x, y: arc([m], x, y, **BALL, steps=1),
    "apgd": lambda m, x, y: autoattack.apgd(m, x, y, epsilon=0.1, steps=2, seed=0),
    "square": lambda m, x, y: autoattack.square(
        m, x, y, epsilon=0.1, queries=2, seed=0
    ),
    "findings": lambda m, x, y: masking.findings(m, x, y, **BALL, steps=1, seed=0),
    "surface": lambda m, x, y: masking.surface(m, x, y, epsilon=0.1, points=2, seed=0),
    "transfer": lambda m, x, y: transfer_matrix(
        {"m": m}, x, y, **BALL, steps=1, seed=0
    ),
}


def attack(name, model=None, x=PIXELS, y=LABELS):
    if name in ("apgd", "square"):
        pytest.importorskip("pyautoattack")
    return ATTACKS[name](model or linear(), x, y)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("name", ATTACKS)
def test_a_model_that_gives_no_logits_is_not_attacked(name, kind):
    model, message = MODELS[kind]
    with pytest.raises(ValueError, match=message):
        attack(name, model)
    if kind == "moody":
        assert model.__self__[1].num_batches_tracked == 0


@pytest.mark.parametrize("name", ATTACKS)
def test_images_that_rounding_took_out_of_range_are_attacked(name):
    x = PIXELS.clone()
    x[0, 0, 0, 0], x[0, 0, 0, 1] = -3e-8, 1.0000002
    found = attack(name, x=x)
    if isinstance(found, torch.Tensor) and found.shape == x.shape:
        assert found.min() >= 0
        assert found.max() <= 1
    for ends in (-1e-3, 1.001):
        x[0, 0, 0, 0] = ends
        with pytest.raises(ValueError, match=r"x must be in \[0, 1\]"):
            attack(name, x=x)


@pytest.mark.parametrize("name", ATTACKS)
def test_images_without_a_gradient_of_their_own_are_refused(name):
    with pytest.raises(ValueError, match="x must be a tensor"):
        attack(name, x=PIXELS.numpy())
    with pytest.raises(ValueError, match=r"x must be float32.*bfloat16"):
        attack(name, x=PIXELS.bfloat16())
    with (
        torch.inference_mode(),
        pytest.raises(ValueError, match="clone it outside of"),
    ):
        attack(name)


class Wrapped(nn.Module):
    def __init__(self, change) -> None:
        super().__init__()
        self.model, self.change = linear(), change

    def forward(self, x):
        return self.change(self.model(x))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda z: (z, z), "got tuple"),
        (lambda z: {"logits": z}, "got dict"),
        (lambda z: z[:, 0], "examples × classes"),
        (lambda z: z.softmax(1), "leave the softmax out"),
        (lambda z: z * math.nan, "must be finite"),
    ],
)
def test_a_network_without_logits_is_neither_trained_nor_asked(change, message):
    with pytest.raises(ValueError, match=message):
        predict.logits(Wrapped(change), IMAGES, ONES)
    with pytest.raises(ValueError, match=message):
        fitted(LABELS, Wrapped(change))
    with pytest.raises(ValueError, match=message):
        samia.sensitivity(Wrapped(change), IMAGES, ONES, seed=0)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (linear().half(), "must have float32 weights.*float16"),
        (linear().double(), "must have float32 weights.*float64"),
        (nn.Flatten(), "at least one weight"),
    ],
)
def test_a_network_of_other_weights_is_refused(model, message):
    pytest.importorskip("opacus")
    for ask in (
        lambda: predict.logits(model, IMAGES, ONES),
        lambda: fitted(LABELS, model),
        lambda: private(LABELS, model),
        lambda: samia.sensitivity(model, IMAGES, ONES, seed=0),
    ):
        with pytest.raises(ValueError, match=message):
            ask()


def test_dlr_wants_three_classes():
    pytest.importorskip("pyautoattack")
    settings = {"epsilon": 0.1, "steps": 1, "seed": 0, "loss": "dlr"}
    with pytest.raises(ValueError, match="must have 3 classes or more, got 2"):
        autoattack.apgd(linear(2), PIXELS, LABELS % 2, **settings)


def test_a_gradient_that_a_large_scale_hides_is_said():
    model = linear()
    y = model(PIXELS).argmax(1)
    with pytest.warns(UserWarning, match="the gradient is 0 for images"):
        pgd(lambda x: 1e4 * model(x), PIXELS, y, **BALL, steps=1, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pgd(model, PIXELS, y, **BALL, steps=1, seed=0)


def test_arc_refuses_members_that_draw_or_have_other_classes():
    networks = {"a": [linear(), Wrapped(lambda z: -z)]}
    with pytest.raises(ValueError, match="members must not draw"):
        arc([Sampler(networks, law=one, seed=0)], PIXELS, LABELS, **BALL, steps=1)
    with pytest.raises(ValueError, match=r"the same classes, got \[3, 4\]"):
        arc([linear(), linear(4)], PIXELS, LABELS, **BALL, steps=1)


def test_a_law_that_names_nobody_or_finds_nobody_is_refused():
    networks = {"a": [linear()], "b": [linear(), linear()]}
    for member in ((0, 1), (2, 0), (1, -1)):
        with pytest.raises(ValueError, match="law must draw"):
            Sampler(networks, law=lambda *_, m=member: [m], seed=0).teams(1, 0)
    for law in (theta, one, matched):
        with pytest.raises(ValueError, match="counts must be one a structure"):
            law([], torch.Generator())


def test_a_ticket_keeps_the_ratio_that_it_is_filed_under():
    frame = {"name": "cnn4", "width": 2}
    spec = {"network": frame, "channels": 1, "classes": 3, "size": 8, "seed": 0}
    library = Library({"a": spec}, ONES)
    found = Scored(library.frames["a"], 0.3, seed=0).ticket()
    library.add("a", 0.3, found)
    with pytest.raises(ValueError, match=r"must keep the ratio 0.9"):
        library.add("a", 0.9, found)


def test_a_ticket_of_a_network_with_other_layers_is_refused():
    with pytest.raises(ValueError, match=r"in Conv2d and Linear layers alone, got 0.w"):
        Scored(nn.Sequential(nn.Conv1d(1, 2, 3), nn.Linear(4, 3)), 0.5, seed=0)


# Numbers


@pytest.mark.parametrize("bad", [True, "0.1", None, math.nan, torch.tensor([0.1])])
def test_an_epsilon_is_a_number(bad):
    with pytest.raises(ValueError, match="epsilon must be in"):
        pgd(linear(), PIXELS, LABELS, epsilon=bad, step=0.1, steps=1, seed=0)
    with pytest.raises(ValueError, match="epsilon must be in"):
        ModelGuardS(bad, 3)


@pytest.mark.parametrize("n", [1, 7, 100, 1000])
def test_a_share_of_n_is_cut_where_it_should_be(n):
    for k in range(n):
        assert rates.at_most(k / n, n) == k
        low = math.nextafter(k / n, -1)
        assert k == 0 or rates.at_most(low, n) == k - 1
    found = thresholds.at_rate(torch.arange(100.0), 0.29)
    assert int((torch.arange(100.0) > found).sum()) == 29


@pytest.mark.parametrize("bad", [[], [math.nan], [math.inf]])
def test_a_threshold_wants_finite_scores(bad):
    with pytest.raises(ValueError, match="negatives must be finite scores"):
        thresholds.at_rate(bad, 0.5)


@pytest.mark.parametrize("f", signals.SIGNALS.values())
def test_probabilities_are_no_logits_and_a_log_of_zero_has_a_way_on(f):
    p = LOGITS.softmax(1)
    with pytest.raises(ValueError, match="leave the softmax out, or take the log"):
        f(p, LABELS)
    p[0, 0] = 0
    with pytest.raises(ValueError, match="clamp probabilities to 1e-12 before the log"):
        f(p.log(), LABELS)
    f(p.clamp_min(1e-12).log(), LABELS)


def test_nasr_checks_what_the_network_sees():
    huge = LOGITS.double().clone()
    huge[0, 0] = 1e39
    with pytest.raises(ValueError, match="finite in float32"):
        nasr.fit(huge, LABELS, MEMBER, features="logits", epochs=1, width=0.1)


def test_leave_one_out_says_that_the_others_give_the_target_away():
    signal = torch.randn(8, N, generator=torch.Generator().manual_seed(0))
    member = SIDES.repeat(2, 1)
    with pytest.warns(UserWarning, match="each example is in half of the models"):
        lira.leave_one_out(signal, member, lira.online)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lira.leave_one_out(signal, member, lira.offline_tail, paired=True)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((1.0, 1e-5, 0.0, 10), r"rate must be in \(0, 1\], got 0.0"),
        ((1.0, 1e-5, 2, 10), r"rate must be in \(0, 1\], got 2"),
        ((1.0, 1e-5, 0.1, 0), "steps must be a whole number >= 1"),
    ],
)
def test_private_steps_are_counted_or_refused(given, message):
    pytest.importorskip("opacus")
    with pytest.raises(ValueError, match=message):
        accounting.noise_multiplier(*given)
    sigma, delta, rate, steps = given
    with pytest.raises(ValueError, match=message):
        accounting.spent(sigma, rate, steps, delta)


@pytest.mark.parametrize("bad", [LOGITS[:0], LOGITS * math.inf, LOGITS.numpy()])
def test_balancing_wants_finite_logits(bad):
    with pytest.raises(ValueError, match="logits must be"):
        ppb.divergence(bad)


def test_thirds_in_float32_are_shares():
    third = np.full(3, 1 / 3, np.float32)
    assert divergence.best_gain(third, third) == pytest.approx(-math.log(4))
    with pytest.raises(ValueError, match="with the sum 1"):
        divergence.best_gain(third, third * 1.001)


def test_a_step_that_float32_cannot_take_is_refused():
    with pytest.raises(ValueError, match="sigma must be >= 1e-05"):
        samia.sensitivity(linear(), IMAGES, ONES, sigma=1e-12, seed=0)


def test_odd_numbers_of_modelguard_are_refused():
    with pytest.raises(ValueError, match="decimals must be at most 17, got 400"):
        Rounding(400)
    with pytest.raises(ValueError, match="entropy must be at most"):
        lemmas.recovery_bound(1e6, 1)
    with pytest.raises(ValueError, match="substitute must be finite"):
        measures.fidelity(LOGITS * math.nan, LOGITS)
    surrogate = Wrapped(lambda z: z.softmax(1))
    with pytest.raises(ValueError, match="leave the softmax out"):
        MAD(surrogate, ONES, 0.5)(LOGITS.softmax(1), IMAGES)


@pytest.mark.parametrize("bad", [0, 41, "1", torch.tensor([1])])
def test_a_code_has_one_of_forty_versions(bad):
    with pytest.raises(ValueError, match="version must be one of None, 1, 2"):
        qr.encode("a", "L", 21, version=bad)


def test_a_tolerance_is_a_number_that_float32_holds():
    table = bayes.lookup_table(LOGITS.softmax(1), lambda y, x: y, draws=1, seed=0)
    with pytest.raises(ValueError, match="tolerance must be at most 3e38"):
        bayes.recover_partial_bayes(table.clean, table, tolerance=1e300)
    found = bayes.recover_partial_bayes(table.clean, table, tolerance=math.inf)
    assert found.shape == LOGITS.shape


@pytest.mark.parametrize("bad", [torch.tensor(1), torch.tensor([1, 3]), np.ones(2)])
def test_a_tensor_is_none_of_the_allowed_words_or_numbers(bad):
    with pytest.raises(ValueError, match="p must be one of 1, 3, got "):
        checks.one_of("p", bad, (1, 3))
    checks.one_of("p", np.int64(3), (1, 3))


def test_a_mask_is_no_weight():
    masks = {"a": torch.ones(2, 2, dtype=torch.bool)}
    for kind in (torch.bool, torch.int64):
        with pytest.raises(ValueError, match="weights of a must be floating-point"):
            masking_of_networks.check(masks, {"a": torch.ones(2, 2, dtype=kind)})
    masking_of_networks.check(masks, {"a": torch.ones(2, 2, dtype=torch.bfloat16)})


@pytest.mark.parametrize("kind", ["bfloat16", "gradient", "sparse"])
def test_labels_of_clusters_are_what_numpy_holds(kind):
    odd = {"bfloat16": torch.ones(4).bfloat16(), "sparse": torch.eye(4)[0].to_sparse()}
    odd["gradient"] = torch.ones(4, requires_grad=True)
    with pytest.raises(ValueError, match="cluster must be"):
        stats.clustered_interval(torch.ones(4), odd[kind])


def test_the_command_line_checks_its_words_without_torch_or_numpy():
    import subprocess
    import sys

    code = "import sys, lottolab.checks as c; c.number('a', 1, 0); "
    code += "assert not {'torch', 'numpy'} & {*sys.modules}"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert checks.numbers("x", [1]).dtype == float
