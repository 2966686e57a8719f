"""Robust scratch tickets: the right weights, a gradient by hand, the same bits."""

import doctest
import itertools
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import nn

from lottolab.ensembles import library, queries, tickets
from lottolab.images import datasets
from lottolab.nets import models, train
from lottolab.runs import store

pytestmark = pytest.mark.usefixtures("on_one_thread")
SPEC = {"network": {"name": "cnn4", "width": 4}, "channels": 2, "classes": 3, "seed": 7}
WIDE = SPEC | {"network": {"name": "resnet8", "width": 3}}
BALL = {"epsilon": 0.05, "step": 0.06}


def pictures(n=48, seed=0):
    """Return images whose class shows in the brightness of a corner."""
    made = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (n,), generator=made)
    images = torch.randint(100, (n, 2, 8, 8), generator=made)
    images[:, :, :4, :4] += (labels * 75)[:, None, None, None]
    return images.to(torch.uint8), labels


def recipe(**settings):
    return train.Recipe(**{"epochs": 2, "batch": 16, "lr": 1.0, "crop": 1} | settings)


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def state(model):
    return {k: v.clone() for k, v in model.state_dict().items()}


# The random network


@pytest.mark.parametrize("name", ["cnn4", "resnet18", "vgg16_bn", "lenet5"])
def test_the_random_network_is_of_signed_constants(name):
    spec = SPEC | {"network": {"name": name, "width": 6}, "size": 16}
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    model = tickets.scratch(**spec)
    assert torch.equal(torch.rand(2), expected)
    signs = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = nn.init._calculate_fan_in_and_fan_out(module.weight)[0]
            sizes = module.weight.abs().unique()
            assert sizes.tolist() == pytest.approx([(2 / fan_in) ** 0.5])
            signs.append(module.weight.flatten() > 0)
            if module.bias is not None:
                assert not module.bias.any()
        elif isinstance(module, nn.BatchNorm2d):
            assert module.weight is None
            assert module.bias is None
    signs = torch.cat(signs)
    assert stats.binomtest(int(signs.sum()), len(signs)).pvalue > 1e-3
    assert not any(p.requires_grad for p in model.parameters())
    assert same(model.state_dict(), tickets.scratch(**spec).state_dict())
    other = tickets.scratch(**spec | {"seed": 8})
    assert not same(model.state_dict(), other.state_dict())
    assert model.train()(torch.rand(4, 2, 16, 16)).shape == (4, 3)


# The choice of weights


@pytest.mark.parametrize("count", [1, 7, 24])
def test_the_largest_scores_are_chosen_whatever_their_sign(count):
    score = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    chosen = tickets.choose(score, count)
    assert set(chosen.unique().tolist()) <= {0.0, 1.0}
    assert chosen.sum() == count
    if count < 24:
        assert score.abs()[chosen == 1].min() >= score.abs()[chosen == 0].max()
    assert tickets.choose(torch.ones(50), count).sum() == count  # also among equals


def test_the_gradient_goes_straight_through_with_the_scores_sign():
    """Of a linear layer under a mask, by hand: ∂L/∂s = ∂L/∂W_masked · W · sign(s)."""
    made = torch.Generator().manual_seed(0)
    weight, score = (torch.randn(3, 5, generator=made) for _ in range(2))
    x, target = torch.randn(7, 5, generator=made), torch.randn(7, 3, generator=made)
    score.requires_grad_()
    output = x @ (weight * tickets.choose(score, 6)).T
    ((output - target) ** 2).sum().backward()
    by_hand = 2 * (output.detach() - target).T @ x * weight * torch.sign(score.detach())
    assert torch.allclose(score.grad, by_hand, rtol=1e-5)
    assert (by_hand < 0).any()


@pytest.mark.parametrize("ratio", [0.001, 0.07, 0.5, 1.0])
def test_every_layer_keeps_its_share_exactly(ratio):
    frame = tickets.scratch(**WIDE)
    found = tickets.Scored(frame, ratio, seed=0).ticket()
    weights = {n for n, p in frame.named_parameters() if p.ndim > 1}
    assert set(found.masks) == weights
    for name, mask in found.masks.items():
        size = frame.get_parameter(name).numel()
        assert mask.sum() == max(1, round(ratio * size)), name
        assert mask.dtype == torch.bool
    norms = [n for n in frame.state_dict() if "running" in n]
    assert sorted(found.statistics) == sorted(norms)


def test_the_scored_network_answers_as_its_subnetwork():
    frame, x = tickets.scratch(**WIDE), torch.rand(5, 2, 8, 8)
    before = state(frame)
    scored = tickets.Scored(frame, 0.3, seed=1)
    scored(x)  # in training mode: the statistics move
    assert same(frame.state_dict(), before)
    ticket = scored.ticket()
    assert not torch.equal(
        ticket.statistics["bn1.running_mean"], before["bn1.running_mean"]
    )
    plain = tickets.scratch(**WIDE)
    for name, mask in ticket.masks.items():
        plain.state_dict()[name].mul_(mask)
    plain.load_state_dict(plain.state_dict() | ticket.statistics)
    assert torch.equal(scored.eval()(x), plain.eval()(x))
    bound = [1 / s[0].numel() ** 0.5 for s in scored.scores]
    assert all(s.abs().max() <= b for s, b in zip(scored.scores, bound, strict=True))
    assert all(
        s.abs().max() > 0.8 * b for s, b in zip(scored.scores, bound, strict=True)
    )
    again, other = (tickets.Scored(frame, 0.3, seed=s).ticket().masks for s in (1, 2))
    assert same(again, ticket.masks)
    assert not same(other, ticket.masks)


# Adversarial training


class Seen(nn.Module):
    """Note what a model is shown, and in which state it is."""

    def __init__(self, model):
        super().__init__()
        self.model, self.shown, self.trained = model, [], []

    def forward(self, x):
        self.shown.append(x.detach().clone())
        self.trained.append(next(self.model.parameters()).requires_grad)
        return self.model(x)


@pytest.mark.parametrize("steps", [1, 7])
def test_the_loss_is_that_of_examples_crafted_first(steps):
    images, y = pictures(16)
    x = images / 255
    model = Seen(models.build("cnn4", width=3, channels=2, classes=3, seed=0)).train()
    loss = tickets.adversarial(**BALL, steps=steps)
    before = state(model)
    torch.manual_seed(0)
    value = loss(model, x, y, torch.arange(16))
    assert model.training
    assert model.trained == [False] * steps + [True]
    *crafted, last = model.shown
    assert len(crafted) == steps
    assert (last - x).abs().max() <= 0.05 + 1e-6
    assert 0 <= last.min() <= last.max() <= 1
    assert (last - crafted[0]).abs().max() > 0.02
    plain = Seen(models.build("cnn4", width=3, channels=2, classes=3, seed=0)).train()
    assert torch.equal(value, F.cross_entropy(plain(last), y))
    for name, moved in model.state_dict().items():
        if "running" in name:  # moved once, by the examples that are learnt from
            assert torch.equal(moved, plain.state_dict()[name])
            assert not torch.equal(moved, before[name])
    momenta = {m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm2d)}
    assert momenta == {0.1}
    clean, start = (F.cross_entropy(plain(v), y) for v in (x, crafted[0]))
    assert value > max(clean, start)
    torch.manual_seed(1)
    loss(model, x, y, torch.arange(16))
    assert not torch.equal(model.shown[steps + 1], crafted[0])


def test_without_a_ball_the_model_is_asked_once_a_batch():
    images, y = pictures(16)
    build = {"width": 3, "channels": 2, "classes": 3, "seed": 0}
    model, plain = (Seen(models.build("cnn4", **build)).train() for _ in "ab")
    loss = tickets.adversarial(epsilon=0, step=0.1, steps=7)
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    value = loss(model, images / 255, y, torch.arange(16))
    assert torch.equal(torch.rand(2), expected)  # nothing was drawn
    assert torch.equal(value, F.cross_entropy(plain(images / 255), y))
    assert model.trained == [True]
    assert same(model.state_dict(), plain.state_dict())


def test_without_a_ball_it_is_plain_training_to_the_last_bit():
    images, labels = pictures()
    scale = datasets.normalisation(images)
    nets = [models.build("cnn4", width=3, channels=2, classes=3, seed=0) for _ in "ab"]
    settings = {"seed": 5, "precision": "float32"}
    ball = {"epsilon": 0.0, "step": 0.1, "steps": 2}
    tickets.adversarial_fit(
        nets[0], images, labels, recipe(lr=0.1), **ball, mean_std=scale, **settings
    )
    pixels = torch.zeros(2), torch.ones(2)
    wrapped = queries.Normalised(nets[1], scale)
    train.fit(wrapped, images, labels, recipe(lr=0.1), mean_std=pixels, **settings)
    states = [state(net) for net in nets]
    kept = [{k: v for k, v in s.items() if "tracked" not in k} for s in states]
    assert same(*kept)


@pytest.fixture(scope="module")
def found():
    images, labels = pictures()
    frame = tickets.scratch(**SPEC)
    before = state(frame)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    ticket, history = tickets.find_ticket(
        frame,
        images,
        labels,
        recipe(epochs=12),
        ratio=0.4,
        **BALL,
        seed=3,
        device="cpu",
    )
    torch.set_num_threads(threads)
    assert same(frame.state_dict(), before)
    return ticket, history


def test_a_ticket_is_found_without_training_a_weight(found):
    ticket, history = found
    assert history["loss"].iloc[-1] < 0.6 * history["loss"].iloc[0]
    started = tickets.Scored(tickets.scratch(**SPEC), 0.4, seed=3).ticket().masks
    assert any(not torch.equal(ticket.masks[n], started[n]) for n in started)
    images, labels = pictures(n=200, seed=1)
    kept = library.Library({"a": SPEC}, datasets.normalisation(pictures()[0]))
    kept.add("a", 0.4, ticket)
    right = queries.correct(kept.network("a", 0.4), images / 255, labels)
    assert right.double().mean() > 0.8


def test_a_killed_search_goes_on_to_the_same_bits(tmp_path):
    images, labels = pictures()
    settings = {"ratio": 0.4, **BALL, "steps": 2, "seed": 3}
    frame = tickets.scratch(**SPEC)

    def search(epochs=3, **options):
        plan = recipe(epochs=epochs, schedule="constant")
        given = (frame, images, labels, plan)
        return tickets.find_ticket(*given, **settings | options)

    whole, history = search()
    search(stop=1, checkpoint=tmp_path)
    resumed, other = search(checkpoint=tmp_path)
    assert same(whole.masks, resumed.masks)
    assert same(whole.statistics, resumed.statistics)
    assert history.equals(other)
    again, _ = search(seed=4)
    assert not same(whole.masks, again.masks)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"ratio": 0.0}, r"ratio must be in \(0, 1\], got 0.0"),
        ({"ratio": 1.1}, r"ratio must be in \(0, 1\], got 1.1"),
        ({"ratio": float("nan")}, r"ratio must be in \(0, 1\], got nan"),
        ({"epsilon": -0.1}, r"epsilon must be in \[0, 1\], got -0.1"),
        ({"step": -0.1}, "step must be >= 0 and finite, got -0.1"),
        ({"steps": 0}, "steps must be a whole number >= 1, got 0"),
    ],
)
def test_a_search_out_of_range_is_refused(setting, message):
    given = (tickets.scratch(**SPEC), *pictures(), recipe())
    with pytest.raises(ValueError, match=message):
        tickets.find_ticket(*given, **{"ratio": 0.5, **BALL, "seed": 0} | setting)


# The library


def random_ticket(spec, ratio, seed):
    """Return a ticket of random masks and statistics."""
    frame = tickets.scratch(**spec)
    scored = tickets.Scored(frame, ratio, seed)
    scored(torch.rand(9, 2, 8, 8, generator=torch.Generator().manual_seed(seed)))
    return scored.ticket()


@pytest.fixture
def held():
    """Return a library of two structures, its tickets put in out of order."""
    made = library.Library(
        {"small": SPEC, "other/one": WIDE},
        (torch.tensor([0.4, 0.5]), torch.ones(2) / 3),
    )
    for seed, (name, ratio) in enumerate(
        [("small", 0.5), ("small", 0.07), ("other/one", 0.3), ("small", 1.0)]
    ):
        made.add(name, ratio, random_ticket(made.structures[name], ratio, seed))
    return made


KEYS = [("small", 0.07), ("small", 0.5), ("small", 1.0), ("other/one", 0.3)]


def test_a_library_comes_back_with_the_same_bits(held, tmp_path):
    x = torch.rand(6, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    held.save(tmp_path / "library")
    held.save(tmp_path / "library")  # over the older one
    back = library.Library.load(tmp_path / "library")
    assert [p.name for p in tmp_path.iterdir()] == ["library"]
    assert back.keys() == held.keys() == KEYS
    for key in KEYS:
        a, b = held.ticket(*key), back.ticket(*key)
        assert same(a.masks, b.masks)
        assert same(a.statistics, b.statistics)
        logits = [
            source.network(*key, shared=shared)(x)
            for source, shared in itertools.product((held, back), (False, True))
        ]
        assert all(torch.equal(value, logits[0]) for value in logits)
        assert logits[0].std() > 0
    groups = back.networks()
    assert {name: len(group) for name, group in groups.items()} == {
        "small": 3,
        "other/one": 1,
    }
    assert torch.equal(groups["small"][1](x), held.network("small", 0.5)(x))
    through = library.Library.of(json_and_tensors(held.values()))
    assert torch.equal(through.network(*KEYS[0])(x), held.network(*KEYS[0])(x))


@pytest.mark.parametrize("name", ["small", "other/one"])
def test_a_masked_weight_lies_as_the_structures_own(held, name):
    """Else another kernel may run, slower and with other last bits."""
    layouts = []

    def look(module, *_):
        last = module.weight.is_contiguous(memory_format=torch.channels_last)
        layouts.append((module.weight.stride(), last))

    frame = held.frames[name]
    convs = [m for m in frame.modules() if isinstance(m, nn.Conv2d)]
    own = {conv.weight.stride() for conv in convs}
    for conv in convs:
        conv.register_forward_hook(look)
    held.network(name, 0.5 if name == "small" else 0.3, shared=True)(
        torch.rand(2, 2, 8, 8)
    )
    assert len(layouts) == len(convs)
    assert all(last for _, last in layouts)
    assert {stride for stride, _ in layouts} == own


def json_and_tensors(values):
    """Pass the JSON values through JSON, as a stage does."""
    return {
        k: v
        if isinstance(next(iter(v.values())), torch.Tensor)
        else json.loads(json.dumps(v))
        for k, v in values.items()
    }


def test_a_network_of_the_library_is_the_masked_random_network(held):
    x = torch.rand(6, 2, 8, 8)
    ticket = held.ticket("small", 0.5)
    plain = tickets.scratch(**SPEC)
    plain.load_state_dict(plain.state_dict() | ticket.statistics)
    for name, mask in ticket.masks.items():
        plain.state_dict()[name].mul_(mask)
        assert mask.sum() == max(1, round(0.5 * mask.numel()))
    wanted = plain.eval()((x - torch.tensor([[[0.4]], [[0.5]]])) * 3)
    assert torch.allclose(held.network("small", 0.5)(x), wanted, atol=1e-5)


def test_the_weights_of_a_structure_are_stored_once_and_a_mask_takes_a_bit(
    held, tmp_path
):
    held.save(tmp_path / "one")
    sizes = held.sizes().set_index("structure")
    for name, spec in held.structures.items():
        frame = tickets.scratch(**spec)
        weights = [p.numel() for p in frame.parameters()]
        masked = [p.numel() for p in frame.parameters() if p.ndim > 1]
        moments = sum(
            v.numel() for k, v in frame.state_dict().items() if "running" in k
        )
        row, count = sizes.loc[name], {"small": 3, "other/one": 1}[name]
        assert row["tickets"] == count
        assert row["weights"] == 4 * sum(weights)
        assert row["masks"] == count * sum(-(-m // 8) for m in masked)
        assert row["statistics"] == count * 4 * moments
        assert row["held"] == row["weights"] + row["masks"] + row["statistics"]
        assert row["whole"] == count * 4 * (sum(weights) + moments)
    on_disk = sum(f.stat().st_size for f in (tmp_path / "one").iterdir())
    text = 60 * 8 * 4 + 8_000  # what safetensors and the record say of each tensor
    assert sizes["held"].sum() < on_disk < sizes["held"].sum() + 3 * text
    before = on_disk
    held.add("small", 0.2, random_ticket(SPEC, 0.2, 9))
    held.save(tmp_path / "one")
    grown = sum(f.stat().st_size for f in (tmp_path / "one").iterdir()) - before
    assert grown < sizes.loc["small", "weights"] / 2


@pytest.mark.parametrize("shape", [(1,), (8,), (3, 5), (2, 3, 3, 3), (0,)])
def test_bits_are_packed_as_numpy_packs_them(shape):
    made = torch.Generator().manual_seed(0)
    mask = torch.rand(shape, generator=made) < 0.5
    packed = library.pack(mask)
    wanted = np.packbits(mask.numpy().ravel(), bitorder="little")
    assert packed.dtype == torch.uint8
    assert (packed.numpy() == wanted).all()
    assert torch.equal(library.unpack(packed, mask.shape), mask)


def test_a_library_refuses_what_does_not_fit(held, tmp_path):
    ticket = held.ticket("small", 0.5)
    with pytest.raises(ValueError, match="structure must be one of small, other/one"):
        held.add("smal", 0.5, ticket)
    for ratio in (0.0, 1.5, -0.1):
        with pytest.raises(ValueError, match=r"ratio must be in \(0, 1\]"):
            held.add("small", ratio, ticket)
    with pytest.raises(ValueError, match=r"mask conv1\.weight must have the shape"):
        held.add("other/one", 0.5, ticket)
    bare = tickets.Ticket(ticket.masks, {})
    with pytest.raises(ValueError, match="statistics must be of each batch norm"):
        held.add("small", 0.5, bare)
    with pytest.raises(ValueError, match="ticket must be one of"):
        held.network("small", 0.4)
    empty = library.Library({"small": SPEC}, held.mean_std)
    for ask in (empty.networks, empty.values, lambda: empty.save(tmp_path / "no")):
        with pytest.raises(ValueError, match="a library must hold at least one ticket"):
            ask()
    assert not (tmp_path / "no").exists()
    held.save(tmp_path / "yes")
    path = tmp_path / "yes" / "tickets0.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(store.Damaged, match="tickets0"):
        library.Library.load(tmp_path / "yes")


def test_examples_in_docstrings_run():
    for module in (tickets, library):
        assert doctest.testmod(module).failed == 0
