"""Pruning before training: against finite differences, a whole Hessian, and numpy."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import nn
from torch.func import functional_call

from lottolab.nets import foresight, masks
from lottolab.nets.models import build

CLASSES = 3


def smooth() -> nn.Sequential:
    """Make a smooth net of float64 whose running statistics are not the batch's."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Tanh()]
        layers += [nn.Conv2d(2, 3, 3, bias=False), nn.BatchNorm2d(3), nn.Tanh()]
        model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(12, CLASSES)).double()
    for norm in (model[1], model[4]):
        norm.running_mean.fill_(0.7)
        norm.running_var.fill_(5.0)
    return model


def batch(count=16, dtype=torch.float64, size=6, classes=CLASSES):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, 1, size, size, generator=generator, dtype=dtype)
    return x, torch.arange(count) % classes


def flat_loss(model, names, x, y, temperature=1.0):
    """Return the loss as a function of one vector of weights, and the vector."""
    state = {k: v.detach().clone() for k, v in model.state_dict().items()}
    shapes = [state[n].shape for n in names]
    model.train()

    def loss(vector):
        parts = vector.split([s.numel() for s in shapes])
        new = {n: p.view(s) for n, p, s in zip(names, parts, shapes, strict=True)}
        fresh = {k: v.clone() for k, v in state.items()}
        logits = functional_call(model, fresh | new, (x,))
        return F.cross_entropy(logits / temperature, y)

    return loss, torch.cat([state[n].flatten() for n in names])


def linear(sizes, seed=0) -> nn.Sequential:
    """Stack linear layers without biases."""
    generator = torch.Generator().manual_seed(seed)
    layers = [nn.Flatten()]
    for inputs, outputs in itertools.pairwise(sizes):
        layer = nn.Linear(inputs, outputs, bias=False)
        layer.weight.data = torch.randn(outputs, inputs, generator=generator)
        layers.append(layer)
    return nn.Sequential(*layers)


def equal(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# ---------------------------------------------------------------- all three


@pytest.mark.parametrize("method", foresight.METHODS)
@pytest.mark.parametrize("rate", [0.0, 0.123, 0.5, 0.98])
def test_exactly_the_asked_number_is_left_over_all_layers(method, rate):
    x, y = batch(8, torch.float32, 12)
    for name in ("lenet5", "resnet8"):
        model = build(name, channels=1, classes=3, width=4, size=12, seed=0)
        found = foresight.prune(method, model, x, y, rate)
        every = masks.dense(model)
        assert list(found) == list(every)
        total = sum(m.numel() for m in every.values())
        left = [kept for kept, _ in masks.sizes(found).values()]
        assert sum(left) == total - round(rate * total)
        masks.check(found, model.state_dict())
        shares = {kept / n for kept, n in masks.sizes(found).values()}
        assert (len(shares) > 1) == (rate > 0), "one threshold for all layers"


@pytest.mark.parametrize("method", foresight.METHODS)
@pytest.mark.parametrize("training", [True, False])
def test_the_network_and_the_generators_are_as_they_were(method, training):
    model, (x, y) = smooth(), batch()
    model.train(training)
    model[1].train(not training)
    model[3].weight.requires_grad_(False)
    model[3].weight.grad = torch.ones_like(model[3].weight)
    modes = [m.training for m in model.modules()]
    state = {k: v.clone() for k, v in model.state_dict().items()}
    draws = torch.get_rng_state()
    found = foresight.prune(method, model, x, y, 0.5)
    with pytest.raises(ValueError, match="must be"):
        foresight.prune(method, model, x / 0, y, 1.5)
    assert equal(state, model.state_dict())
    assert modes == [m.training for m in model.modules()]
    assert model[3].weight.grad.eq(1).all()
    assert [p.grad is None for p in model.parameters()].count(False) == 1
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == [
        "3.weight"
    ]
    assert torch.equal(draws, torch.get_rng_state())
    model.train(not training)
    assert equal(found, foresight.prune(method, model, x, y, 0.5))


def test_prune_calls_the_method_that_it_is_asked_for():
    model = build("lenet5", channels=1, classes=3, size=12, seed=0)
    x, y = batch(8, torch.float32, 12)
    direct = {
        "snip": foresight.snip(model, x, y, 0.7),
        "grasp": foresight.grasp(model, x, y, 0.7),
        "synflow": foresight.synflow(model, (1, 12, 12), 0.7),
    }
    found = {m: foresight.prune(m, model, x, y, 0.7) for m in foresight.METHODS}
    for method in direct:
        for other in direct:
            assert equal(direct[method], found[other]) == (method == other)
    assert equal(found["synflow"], foresight.prune("synflow", model, x * 9, y, 0.7))
    assert not equal(found["snip"], foresight.snip(model, x, y.flip(0), 0.7))
    with pytest.raises(ValueError, match=r"method must be one of snip.*did you mean"):
        foresight.prune("synflo", model, x, y, 0.5)


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
@pytest.mark.parametrize("method", foresight.METHODS)
def test_a_rate_outside_the_range_is_refused(method, rate):
    with pytest.raises(ValueError, match=r"rate must be in \[0, 1\), got"):
        foresight.prune(method, smooth(), torch.zeros(3), torch.zeros(3), rate)


def test_bad_input_is_refused():
    model, (x, y) = smooth(), batch()
    nan = x.clone()
    nan[0, 0, 0, 0] = torch.nan
    cases = [
        (r"x must be float \[B, C, H, W\]", x.to(torch.uint8), y),
        (r"x must be float .* got torch.float64 \[16, 6, 6\]", x[:, 0], y),
        (r"x must be float .* got torch.float64 \[0, 1, 6, 6\]", x[:0], y[:0]),
        (r"y must be torch.int64 \[16\], got torch.int64 \[15\]", x, y[1:]),
        (r"y must be torch.int64 \[16\], got torch.int32", x, y.int()),
        (r"weight of \S+ must be finite, got \d+ NaN or infinite", nan, y),
    ]
    for message, images, labels in cases:
        for method in ("snip", "grasp"):
            with pytest.raises(ValueError, match=message):
                foresight.prune(method, model, images, labels, 0.5)
    for temperature in (0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="temperature must be > 0 and finite"):
            foresight.grasp(model, x, y, 0.5, temperature)
    for rounds in (0, -3, 1.5):
        with pytest.raises(ValueError, match="rounds must be a whole number >= 1"):
            foresight.synflow(model, (1, 6, 6), 0.5, rounds)
    for shape in ((6, 6), (1, 0, 6), (1, 6.0, 6)):
        with pytest.raises(ValueError, match=r"shape must be \(C, H, W\)"):
            foresight.synflow(model, shape, 0.5)
    model[3].weight.data[0, 0, 0, 0] = torch.inf
    with pytest.raises(ValueError, match=r"gradient × weight of 3.weight must be"):
        foresight.synflow(model, (1, 6, 6), 0.5)


# ---------------------------------------------------------------- SNIP


def test_snip_is_what_the_loss_feels_of_a_gate_on_each_weight():
    model, (x, y) = smooth(), batch()
    scores = foresight.connection_sensitivity(model, x, y)
    assert list(scores) == ["3.weight"]
    loss, weights = flat_loss(model, ["3.weight"], x, y)
    step, felt = 1e-5, []
    for i in range(len(weights)):
        gate = torch.zeros_like(weights)
        gate[i] = step
        change = loss(weights * (1 + gate)) - loss(weights * (1 - gate))
        felt.append(abs(change.item()) / (2 * step))
    np.testing.assert_allclose(scores["3.weight"].flatten(), felt, rtol=1e-4, atol=1e-9)
    for rate in (0.2, 0.5, 0.9):
        count = len(felt) - round(rate * len(felt))
        kept = foresight.snip(model, x, y, rate)["3.weight"].flatten().nonzero()
        assert set(kept.flatten().tolist()) == set(np.argsort(felt)[-count:].tolist())


# ---------------------------------------------------------------- GraSP

SMOOTH_WEIGHTS = ["0.weight", "3.weight", "7.weight"]
PRUNED = slice(18, 18 + 54)  # the second convolution's among these


@pytest.mark.parametrize("temperature", [1.0, 200.0])
def test_grasp_is_the_whole_hessian_times_the_gradient(temperature):
    model, (x, y) = smooth(), batch()
    model[7].weight.data *= 500  # logits so large that a temperature is felt
    loss, weights = flat_loss(model, SMOOTH_WEIGHTS, x, y, temperature)
    hessian = torch.autograd.functional.hessian(loss, weights)
    gradient = torch.autograd.functional.jacobian(loss, weights)
    expected = (weights * (hessian @ gradient))[PRUNED]
    options = {} if temperature == 200 else {"temperature": temperature}
    found = foresight.gradient_flow(model, x, y, **options)["3.weight"].flatten()
    scale = expected.abs().max().item()
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9 * scale)
    for rate in (0.2, 0.5, 0.9):
        gone = ~foresight.grasp(model, x, y, rate, **options)["3.weight"].flatten()
        cost = (-expected).argsort(descending=True)[: round(rate * len(expected))]
        assert set(gone.nonzero().flatten().tolist()) == set(cost.tolist())


def gradient_norm(loss, weights) -> float:
    """Return the squared norm of the gradient."""
    return torch.autograd.functional.jacobian(loss, weights).square().sum().item()


def test_grasp_foresees_how_the_gradient_norm_changes():
    model, (x, y) = smooth(), batch()
    flow = foresight.gradient_flow(model, x, y)["3.weight"].flatten()
    loss, weights = flat_loss(model, SMOOTH_WEIGHTS, x, y, 200.0)
    before = gradient_norm(loss, weights)
    slopes, changes = [], []
    for i in range(PRUNED.start, PRUNED.stop):
        part = torch.zeros_like(weights)
        part[i] = weights[i]
        less = gradient_norm(loss, weights - 1e-3 * part)
        more = gradient_norm(loss, weights + 1e-3 * part)
        slopes.append((less - more) / 2e-3)
        changes.append(gradient_norm(loss, weights - part) - before)
    scale = flow.abs().max().item()
    np.testing.assert_allclose(slopes, -2 * flow, rtol=1e-3, atol=1e-4 * scale)
    assert stats.spearmanr(changes, -flow).statistic > 0.6


def test_grasp_leaves_more_gradient_than_chance_does():
    model, (x, y) = smooth(), batch()
    loss, weights = flat_loss(model, SMOOTH_WEIGHTS, x, y, 200.0)

    def left(kept):
        pruned = weights.clone()
        pruned[PRUNED] *= kept["3.weight"].flatten()
        return gradient_norm(loss, pruned)

    every = masks.dense(model)
    chance = [left(masks.random(every, 0.2, seed)) for seed in range(40)]
    assert left(foresight.grasp(model, x, y, 0.2)) > max(chance)


# ---------------------------------------------------------------- SynFlow


def numpy_synflow(model, rate, rounds):
    """Prune a stack of three linear layers by the closed form of its scores."""
    a, b, c = (abs(p.detach().double().numpy()) for p in model.parameters())
    a, b, total = a.copy(), b.copy(), a.size + b.size
    for k in range(1, rounds + 1):
        left = total - round((1 - (1 - rate) ** (k / rounds)) * total)
        first = a * (c.sum(0) @ b)[:, None]
        second = b * c.sum(0)[:, None] * a.sum(1)[None, :]
        scores = np.concatenate([first.ravel(), second.ravel()])
        kept = np.zeros(total, dtype=bool)
        kept[np.argsort(scores)[total - left :]] = True
        a *= kept[: a.size].reshape(a.shape)
        b *= kept[a.size :].reshape(b.shape)
    return {"1.weight": a > 0, "2.weight": b > 0}


@pytest.mark.parametrize("rounds", [1, 3, 100])
@pytest.mark.parametrize("rate", [0.31, 0.8, 0.93])
def test_synflow_is_numpys_closed_form_on_linear_layers(rate, rounds):
    model = linear((9, 30, 30, 4))
    options = {} if rounds == 100 else {"rounds": rounds}
    found = foresight.synflow(model, (1, 3, 3), rate, **options)
    expected = numpy_synflow(model, rate, rounds)
    assert found.keys() == expected.keys()
    for name, mask in found.items():
        assert np.array_equal(mask, expected[name]), name


def test_the_flow_is_conserved_from_layer_to_layer():
    model = linear((9, 7, 8, 4))
    kept = masks.random(masks.dense(model), 0.4, seed=0)
    masks.apply_(model, kept)
    flow = foresight.synaptic_flow(model, (1, 3, 3))
    a, b, c = (abs(p.detach().double().numpy()) for p in model.parameters())
    through = (c @ b @ a).sum()
    assert [s.sum().item() for s in flow.values()] == pytest.approx([through] * 2)
    assert all((flow[n][~kept[n]] == 0).all() for n in kept)


def test_the_flow_is_conserved_through_batch_norm_in_evaluation_mode():
    model = build("cnn4", channels=1, classes=3, width=4, seed=0)
    nn.init.zeros_(model.fc.bias)
    for i in range(1, 5):
        model.get_submodule(f"bn{i}").running_var.fill_(2.0 * i)
    flow = foresight.synaptic_flow(model, (1, 8, 8))
    sums = [s.sum().item() for s in flow.values()]
    model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()
        through = model(torch.ones(1, 1, 8, 8).double()).sum().item()
    assert sums == pytest.approx([through] * 3)


def test_synflow_spares_the_layer_that_magnitude_empties():
    model = build("cnn4", channels=1, classes=10, width=8, seed=0)
    model.conv3.weight.data *= 1e-3
    every = masks.dense(model)
    by_size = masks.sizes(masks.magnitude(model.state_dict(), every, 0.99))
    assert by_size["conv3.weight"][0] == 0
    kept = foresight.synflow(model, (1, 12, 12), 0.99)
    assert min(left for left, _ in masks.sizes(kept).values()) >= 5
    masks.apply_(model, kept)
    flow = foresight.synaptic_flow(model, (1, 12, 12))
    assert all(s.sum() > 0 for s in flow.values())


def test_synflow_does_not_overflow_where_float32_would():
    model, huge = linear((9, 7, 8, 4)), linear((9, 7, 8, 4))
    for parameter in huge.parameters():
        parameter.data *= 2.0**80
    found = foresight.synflow(huge, (1, 3, 3), 0.8)
    assert equal(found, foresight.synflow(model, (1, 3, 3), 0.8))


def test_synflow_goes_on_where_the_network_is_cut():
    model = linear((9, 30, 30, 4))
    one = foresight.synflow(model, (1, 3, 3), 0.97, rounds=1)
    assert masks.sizes(one) == {"1.weight": (35, 270), "2.weight": (0, 900)}
    two = foresight.synflow(model, (1, 3, 3), 1 - 0.03**2, rounds=2)
    assert masks.sizes(two) == {"1.weight": (1, 270), "2.weight": (0, 900)}
    assert (two["1.weight"] <= one["1.weight"]).all(), "what is gone stays gone"
