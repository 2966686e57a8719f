"""SAMIA as published: its shapes, what it is blind to, what it can learn, and the
answers of its authors' own program on the same numbers."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lottolab.membership import metrics
from lottolab.mia_pruning.attacks import class_tokens, samia

pytestmark = pytest.mark.usefixtures("on_one_thread")


def network(classes=5, seed=0):
    torch.manual_seed(seed)
    made = class_tokens.ClassTokens(classes)
    made.train()
    with torch.no_grad():  # the batch norm shall have seen classes that differ
        for _ in range(3):
            made(drawn(40, classes) * torch.arange(1, classes + 1))
        for p in made.norm.parameters():
            p.add_(0.3 * torch.randn(p.shape))
    return made.eval()


def drawn(n, classes, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, classes, generator=generator)


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_it_has_as_many_parameters_as_the_published_network(classes):
    """Counted by hand from the published shapes; 141,886 for ten classes."""
    width, inner = 64, 128
    attention = 3 * (width * width + width) + width * width + width
    feed_forward = width * inner + inner + inner * width + width
    layer = attention + feed_forward + 2 * 2 * width
    expected = 2 * 3 * classes + (3 * width + width) + 3 * layer
    expected += (width * classes * width + width) + (width * 2 + 2)
    found = class_tokens.ClassTokens(classes)
    assert sum(p.numel() for p in found.parameters()) == expected
    assert expected == 141_886 or classes != 10
    shapes = {name: tuple(p.shape) for name, p in found.named_parameters()}
    assert shapes["embed.weight"] == (64, 3)
    assert shapes["join.weight"] == (64, 64 * classes)
    assert shapes["encoder.layers.2.linear1.weight"] == (128, 64)
    assert shapes["encoder.layers.0.self_attn.in_proj_weight"] == (192, 64)
    assert found(drawn(7, classes)).shape == (7, 2)


def norm(x, part):
    scaled = (x - x.mean(-1, keepdim=True)) / (
        x.var(-1, correction=0, keepdim=True) + part.eps
    ).sqrt()
    return scaled * part.weight + part.bias


def by_hand(net, groups):
    """Compute the network from its weights, a head and a class at a time."""
    n, _, classes = groups.shape
    bn = net.norm
    flat = (groups.flatten(1) - bn.running_mean) / (bn.running_var + bn.eps).sqrt()
    flat = flat * bn.weight + bn.bias
    triples = [flat[:, [c, classes + c, 2 * classes + c]] for c in range(classes)]
    x = torch.stack(
        [F.gelu(t @ net.embed.weight.T + net.embed.bias) for t in triples], 1
    )
    for layer in net.encoder.layers:
        own = layer.self_attn
        q, k, v = (x @ own.in_proj_weight.T + own.in_proj_bias).split(64, -1)
        heads = []
        for h in range(4):
            part = slice(16 * h, 16 * h + 16)
            scores = q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(16)
            heads.append(scores.softmax(-1) @ v[..., part])
        out = torch.cat(heads, -1) @ own.out_proj.weight.T + own.out_proj.bias
        x = norm(x + out, layer.norm1)
        inner = F.gelu(x @ layer.linear1.weight.T + layer.linear1.bias)
        x = norm(x + inner @ layer.linear2.weight.T + layer.linear2.bias, layer.norm2)
    joined = x.reshape(n, -1) @ net.join.weight.T + net.join.bias
    return joined.clamp(min=0) @ net.head.weight.T + net.head.bias


def test_it_computes_what_the_study_writes_down():
    net, groups = network(), drawn(6, 5)
    torch.testing.assert_close(net(groups), by_hand(net, groups), atol=2e-5, rtol=1e-4)


def test_classes_have_no_place_but_in_the_batch_norm_and_the_last_layers():
    """Renumbered classes give the same, where these two are renumbered too."""
    net, other, order = network(), network(), torch.tensor([3, 0, 4, 1, 2])
    every = torch.cat([order + 5 * kind for kind in range(3)])
    with torch.no_grad():
        for name in ("weight", "bias", "running_mean", "running_var"):
            getattr(other.norm, name).copy_(getattr(net.norm, name)[every])
        blocks = net.join.weight.view(64, 5, 64)[:, order]
        other.join.weight.copy_(blocks.reshape(64, 320))
    groups = drawn(6, 5)
    moved = groups[:, :, order]
    torch.testing.assert_close(other(moved), net(groups), atol=2e-5, rtol=1e-4)
    assert (net(moved) - net(groups)).abs().max() > 0.01


def test_each_example_is_judged_alone():
    net, groups = network(), drawn(6, 5)
    alone = torch.cat([net(row[None]) for row in groups])
    torch.testing.assert_close(alone, net(groups), atol=1e-5, rtol=1e-4)


# --- what it learns


class MeanOfTokens(nn.Module):
    """The same tokens, judged by their mean: it cannot know a class by its number."""

    def __init__(self, classes):
        super().__init__()
        self.embed, self.head = nn.Linear(3, 64), nn.Linear(64, 2)
        layer = nn.TransformerEncoderLayer(64, 4, 128, 0.2, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

    def forward(self, groups):
        tokens = F.gelu(self.embed(groups.transpose(1, 2)))
        return self.head(self.encoder(tokens).mean(1))


def shadow(n=300, classes=4, seed=0, told=True):
    """Members of even classes are surer than non-members, those of odd ones less sure.

    Each class has its own calibration; over all classes together, the confidences of
    members and of non-members are alike.
    """
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(classes, (n,), generator=generator)
    member = torch.rand(n, generator=generator) < 0.5
    sure = (member ^ (y % 2 == 1)) if told else torch.rand(n, generator=generator) < 0.5
    noise = 0.3 * torch.randn(n, classes, generator=generator)
    logits = noise + F.one_hot(y, classes) * (1.0 + 2.0 * sure[:, None])
    felt = torch.rand(n, classes, generator=generator)
    return logits, y, felt, member


FAST = {"epochs": 12, "batch": 50, "lr": 0.02}


def judged(attack, told=True):
    logits, y, felt, member = shadow(400, seed=9, told=told)
    return metrics.auc(attack(logits, y, felt), member)


def test_it_learns_what_differs_from_class_to_class_and_a_mean_of_tokens_cannot(
    monkeypatch,
):
    shadows = [shadow(seed=0), shadow(seed=1)]
    assert judged(class_tokens.fit(shadows, **FAST)) > 0.9
    monkeypatch.setattr(class_tokens, "ClassTokens", MeanOfTokens)
    assert judged(class_tokens.fit(shadows, **FAST)) < 0.6


def test_where_nothing_tells_members_apart_it_finds_nothing():
    attack = class_tokens.fit([shadow(told=False)], **FAST | {"epochs": 3})
    assert abs(judged(attack, told=False) - 0.5) < 0.1


def test_an_attack_depends_on_its_seed_alone():
    found = []
    for outside, seed in ((1, 0), (2, 0), (2, 1)):
        torch.manual_seed(outside)
        before = torch.get_rng_state()
        options = {"epochs": 1, "batch": 20, "seed": seed}
        attack = class_tokens.fit([shadow(41)], **options)
        assert torch.equal(torch.get_rng_state(), before)
        found.append(attack(*shadow(30, seed=3)[:3]))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[1], found[2])
    assert found[0].dtype == torch.float64
    assert ((found[0] >= 0) & (found[0] <= 1)).all()


def test_the_rate_falls_as_in_the_study(monkeypatch):
    rates = []
    step = torch.optim.SGD.step

    def noted(self, *given):
        rates.append(self.param_groups[0]["lr"])
        assert self.param_groups[0]["momentum"] == 0.9
        assert self.param_groups[0]["weight_decay"] == 5e-4
        return step(self, *given)

    monkeypatch.setattr(torch.optim.SGD, "step", noted)
    class_tokens.fit([shadow(12)], epochs=8)
    assert rates == pytest.approx([1e-3] * 4 + [1e-4] * 2 + [1e-5] * 2)


def test_a_last_example_alone_joins_the_batch_before_it():
    parts = class_tokens._batches(torch.arange(9), 4)
    assert [len(part) for part in parts] == [4, 5]
    assert torch.equal(torch.cat(parts), torch.arange(9))
    assert [len(p) for p in class_tokens._batches(torch.arange(10), 4)] == [4, 4, 2]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"shadows": []}, "shadows must be at least one model's answers, got none"),
        (
            {"shadows": [shadow(20), shadow(20, classes=5)]},
            r"shadows must all have 4 classes, got \[5\]",
        ),
        ({"epochs": 0}, "epochs must be a whole number >= 1, got 0"),
        ({"batch": 1}, "batch must be a whole number >= 2, got 1"),
        ({"lr": 0.0}, "lr must be > 0 and finite, got 0.0"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), got 1.0"),
        ({"weight_decay": -1.0}, "weight_decay must be >= 0 and finite"),
    ],
)
def test_the_attack_refuses_bad_input(changed, message):
    given = {"shadows": [shadow(20)], "epochs": 1} | changed
    with pytest.raises(ValueError, match=message):
        class_tokens.fit(**given)


@pytest.mark.parametrize(
    ("place", "bad", "message"),
    [
        (0, torch.full((20, 4), math.nan), "logits must be finite"),
        (1, torch.full((20,), 4), r"labels must be in \[0, 3\], got \[4\]"),
        (1, torch.zeros(20), "labels must be"),
        (2, -torch.ones(20, 4), "sensitivity must be finite and >= 0"),
        (2, torch.ones(20, 3), r"sensitivity must be of shape \[20, 4\]"),
        (3, torch.ones(20).bool(), "member"),
    ],
)
def test_a_shadow_models_answers_are_checked(place, bad, message):
    given = list(shadow(20))
    given[place] = bad
    with pytest.raises(ValueError, match=message):
        class_tokens.fit([tuple(given)], epochs=1)


# --- the authors' program on the same numbers
#
# The values below were printed by the code of Yuan and Zhang on torch 2.14.1 (on GitHub
# Machine-Learning-Security-Lab/mia_prune, commit db3a7af), from the formulas that stand
# here: `filled` counts parameters in the order in which both networks list them.


def spread(shape, k):
    """Return numbers from -0.5 to 0.5 that are exact on any machine."""
    i = torch.arange(1, math.prod(shape) + 1)
    mixed = (31 * i * i + 17 * i + 101 * k) % 997
    return (mixed.double() / 997 - 0.5).reshape(shape)


@torch.no_grad()
def filled(net):
    for k, (name, p) in enumerate(net.named_parameters()):
        if p.dim() > 1:
            p.copy_(spread(p.shape, k) * 3.4 / math.sqrt(p.shape[1]))
        else:
            scale = "norm" in name and name.endswith("weight")
            p.copy_(scale + 0.6 * spread(p.shape, k))
    for k, kept in ((91, net.norm.running_mean), (92, net.norm.running_var)):
        kept.copy_(0.3 + 0.4 * spread(kept.shape, k))
    return net


def without_dropout(net):
    for part in net.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
        if isinstance(part, nn.MultiheadAttention):
            part.dropout = 0.0
    return net


def answers(n, classes, k=0):
    """Return logits, labels, sensitivities and who is a member."""
    logits = 6 * spread((n, classes), 200 + k)
    felt = 2 * (spread((n, classes), 201 + k) + 0.5) ** 2
    labels = (torch.arange(n) * 7 + 3 * k) % classes
    return logits.float(), labels, felt.float(), spread((n,), 202 + k) > 0


EVALUATED = [
    [2.82230, 0.26184],
    [2.67848, 0.78257],
    [1.80145, 0.72250],
    [3.06036, 0.53918],
    [2.68154, 0.46672],
    [2.30426, 0.78528],
]
TRAINING = [  # no dropout, the batch norm by these six examples
    [1.89499, 0.58302],
    [2.10482, 1.04269],
    [0.96804, 1.69463],
    [2.48819, 0.85688],
    [2.18464, 1.03643],
    [2.08430, 0.95683],
]


@pytest.mark.parametrize(
    ("training", "known"),
    [(False, EVALUATED), (True, TRAINING)],
    ids=["evaluated", "training"],
)
def test_it_answers_as_the_published_network_of_the_same_weights(training, known):
    net = without_dropout(filled(class_tokens.ClassTokens(10))).train(training)
    found = net(samia._groups(*answers(6, 10)[:3]))
    torch.testing.assert_close(found, torch.tensor(known), atol=1e-4, rtol=0)
    if training:
        moved = [net.norm.running_mean.sum().item(), net.norm.running_var.sum().item()]
        assert moved == pytest.approx([9.24513, 9.09807], abs=1e-4)


def test_it_starts_as_the_published_network_does():
    """Deviations of their fresh weights; biases and the rest are zeros and ones."""
    torch.manual_seed(0)
    net = class_tokens.ClassTokens(10)
    known = {
        "self_attn.in_proj_weight": 0.0887,
        "self_attn.out_proj.weight": 0.0717,
        "linear1.weight": 0.1018,
        "linear2.weight": 0.1023,
    }
    for layer in net.encoder.layers:
        for name, deviation in known.items():
            found = layer.get_parameter(name).std().item()
            assert found == pytest.approx(deviation, rel=0.04)
    assert net.join.weight.std().item() == pytest.approx(0.0530, rel=0.04)
    assert net.embed.weight.std().item() == pytest.approx(0.1739, rel=0.2)
    assert net.head.weight.std().item() == pytest.approx(0.1762, rel=0.25)
    for name, p in net.named_parameters():
        if p.dim() == 1:
            scale = "norm" in name and name.endswith("weight")
            assert (p == float(scale)).all(), name


def test_it_learns_step_by_step_as_their_program_does(monkeypatch):
    """From the same weights, in the same order, no dropout: 24 steps at three rates."""
    made, turns = class_tokens.ClassTokens, iter(range(8))

    def ordered(n):
        return (torch.arange(n) * 7 + 11 * next(turns)) % n

    monkeypatch.setattr(
        class_tokens, "ClassTokens", lambda c: without_dropout(filled(made(c)))
    )
    monkeypatch.setattr(torch, "randperm", ordered)
    options = {"epochs": 8, "batch": 16, "lr": 0.02, "weight_decay": 0.05}
    attack = class_tokens.fit([answers(40, 4)], **options)
    found = attack(*answers(6, 4, k=5)[:3])
    known = [0.86740, 0.69677, 0.33093, 0.53290, 0.94369, 0.41593]
    torch.testing.assert_close(found, torch.tensor(known).double(), atol=2e-4, rtol=0)
    before = [0.2186, 0.2293, 0.1895, 0.1766, 0.1201, 0.2065]
    assert (found - torch.tensor(before)).abs().min() > 0.1


def test_a_confidence_feels_noise_as_in_their_program(monkeypatch):
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 5))
    with torch.no_grad():
        for k, p in enumerate(model.parameters()):
            p.copy_(2 * spread(p.shape, 300 + k))
    images = (torch.arange(64) * 37 % 256).to(torch.uint8).reshape(4, 1, 4, 4)
    copies = iter(range(10))

    def noise(shape, generator):
        return 3.4 * spread(shape, 400 + next(copies)).float()

    monkeypatch.setattr(torch, "randn", noise)
    scale = (torch.tensor([0.5]), torch.tensor([0.25]))
    found = samia.sensitivity(model, images, scale, seed=0)
    known = [
        [0.22168, 0.05950, 0.10832, 0.01409, 0.04443],
        [0.38347, 0.30353, 0.16964, 0.03934, 0.10421],
        [0.01003, 0.13546, 0.08727, 0.02294, 0.03327],
        [0.08477, 0.04446, 0.10295, 0.03342, 0.03259],
    ]
    torch.testing.assert_close(found, torch.tensor(known), atol=3e-4, rtol=0)


def planted(n, seed):
    """Members are surer of their labels and less sensitive, with much overlap."""
    rng = np.random.RandomState(seed)  # whose stream numpy keeps as it is
    y, member = rng.randint(4, size=n), rng.randint(2, size=n)
    logits = rng.normal(size=(n, 4)) + (1.0 + 1.2 * member)[:, None] * np.eye(4)[y]
    felt = np.exp(0.5 * rng.normal(size=(n, 4)) - 0.4 * member[:, None])
    z, s = (torch.from_numpy(part).float() for part in (logits, felt))
    return z, torch.from_numpy(y), s, torch.from_numpy(member).bool()


def test_it_is_as_accurate_as_their_program_on_the_same_scores():
    """Theirs is right for 0.7955 of them, the mean over eight seeds, deviation 0.007.

    The best threshold on the label's confidence is right for 0.703.
    """
    *asked, member = planted(1000, 1)
    options = {"epochs": 6, "batch": 20, "lr": 0.02}
    found = []
    for seed in range(3):
        scores = class_tokens.fit([planted(240, 0)], **options, seed=seed)(*asked)
        found.append(metrics.rates(scores, member)["accuracy"])
    assert np.mean(found) == pytest.approx(0.7955, abs=0.02)
