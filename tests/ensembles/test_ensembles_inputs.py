"""What chapter 3's functions refuse, in a line, before anything is computed."""

import copy
import itertools
import warnings
from functools import partial

import pytest
import torch
from torch import nn

from lottolab.ensembles import folding, laws, library, masking, queries, tickets
from lottolab.ensembles.attacks import autoattack
from lottolab.ensembles.attacks.arc import arc
from lottolab.ensembles.attacks.gradient import pgd, universal
from lottolab.ensembles.attacks.transfer import transfer_matrix
from lottolab.ensembles.sampler import Ensemble, Sampler, repeated
from lottolab.nets import models, train

pytestmark = pytest.mark.usefixtures("on_one_thread")
MADE = torch.Generator().manual_seed(0)
X = torch.rand(6, 2, 8, 8, generator=MADE)
Y = torch.randint(4, (6,), generator=MADE)
BALL = {"epsilon": 0.1, "step": 0.03, "steps": 2, "seed": 0}


def network(**options):
    shape = {"width": 3, "channels": 2, "classes": 4, "seed": 0}
    return models.build("cnn4", **shape | options).eval()


NET = network()
ATTACKS = {
    "pgd": lambda m, x, y, **k: pgd(m, x, y, **BALL | k),
    "starts": lambda m, x, y, **k: pgd(m, x, y, **BALL | {"restarts": 2} | k),
    "universal": lambda m, x, y, **k: universal(
        m, x, y, **{"epsilon": 0.1, "step": 0.03, "epochs": 1, "seed": 0} | k
    ),
    "arc": lambda m, x, y, **k: arc(
        [m, m], x, y, **{"epsilon": 0.1, "step": 0.03, "steps": 1} | k
    ),
    "apgd": lambda m, x, y, **k: autoattack.apgd(
        m, x, y, **{"epsilon": 0.1, "steps": 3, "seed": 0} | k
    ),
    "targeted": lambda m, x, y, **k: autoattack.apgd(
        m, x, y, **{"epsilon": 0.1, "steps": 3, "seed": 0, "loss": "targeted"} | k
    ),
    "square": lambda m, x, y, **k: autoattack.square(
        m, x, y, **{"epsilon": 0.1, "queries": 3, "seed": 0} | k
    ),
    "findings": lambda m, x, y, **k: masking.findings(
        m, x, y, **BALL | {"corners": 1} | k
    ),
    "surface": lambda m, x, y, **k: masking.surface(
        m, x, y, **{"epsilon": 0.1, "points": 2, "seed": 0} | k
    ),
    "transfer": lambda m, x, y, **k: transfer_matrix({"a": m}, x, y, **BALL | k),
}


@pytest.fixture(params=ATTACKS)
def attack(request):
    if request.param in ("apgd", "targeted", "square"):
        pytest.importorskip("pyautoattack")
    return ATTACKS[request.param]


def refused(message, call, *given, **settings):
    with pytest.raises(ValueError, match=message) as error:
        call(*given, **settings)
    assert "\n" not in str(error.value)
    assert ", got " in str(error.value)


def late(odd):
    """Return a model whose odd logits come with the second image alone."""

    def model(x):
        there = (torch.arange(len(x)) == 1)[:, None]
        return torch.where(there, torch.tensor(odd), NET(x))

    return model


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -float("inf")])
def test_logits_that_are_not_finite_are_not_attacked(attack, odd):
    refused("logits must be finite", attack, lambda x: NET(x) * odd, X, Y)
    refused("logits must be finite", attack, late(odd), X, Y)


def test_what_is_no_rows_of_logits_is_refused(attack):
    for model, message in (
        (lambda x: NET(x)[:, 0], "must be float, examples × classes"),
        (lambda x: NET(x)[:, :1], "must be float, examples × classes"),
        (lambda x: NET(x).long(), "must be float, examples × classes"),
        (lambda x: (NET(x),), "model must return logits"),
        (lambda x: NET(x).softmax(1), "must be logits: leave the softmax out"),
        (lambda x: NET(x)[:1], "of n = 6|must be 6 rows, one an image"),
        ("net", "model must answer images that are"),
    ):
        refused(message, attack, model, X, Y)
    refused("model must answer images that are", attack, NET, X[:, :1], Y)


def test_a_network_in_a_function_is_in_evaluation_mode_or_refused(attack):
    inner = network().train()
    before = copy.deepcopy(inner.state_dict())
    message = "a network in a function must be in evaluation mode"
    refused(message, attack, lambda x: inner(x), X, Y)
    refused(message, queries.correct, lambda x: inner(x), X, Y)
    assert all(torch.equal(v, before[k]) for k, v in inner.state_dict().items())


def test_images_and_labels_are_tensors_of_a_precision_that_has_the_ball(attack):
    def whole(x):
        return NET(x.float())

    for x, y, message in (
        (X.bfloat16(), Y, "x must be float32 .* got torch.bfloat16"),
        (X.half(), Y, "x must be float32 .* got torch.float16"),
        (X.numpy(), Y, "x must be a tensor"),
        (X, Y.numpy(), "y must be a tensor"),
        (X, Y.tolist(), "y must be a tensor"),
        (X, Y.float(), "y must be int64"),
    ):
        refused(message, attack, whole, x, y)
    for epsilon in (True, torch.tensor(0.1), "8", None):
        refused(r"epsilon must be in \[0, 1\]", attack, NET, X, Y, epsilon=epsilon)


def test_double_precision_is_attacked_in_the_ball(attack):
    found = attack(network().double(), X.double(), Y)
    if isinstance(found, torch.Tensor) and len(found) == len(X):
        assert found.dtype == torch.float64
        assert (found - X).abs().max() <= 0.1 + 1e-12


def test_without_gradients_of_images_nothing_is_attacked(attack):
    with torch.inference_mode():
        inner = X.clone()
        refused("x must have gradients", attack, NET, X, Y)
    refused("x must have gradients", attack, NET, inner, Y)
    with torch.no_grad():
        attack(NET, X, Y)


def test_labels_and_networks_of_inference_mode_are_not_attacked(attack):
    with torch.inference_mode():
        made, y = network(), Y.clone()
    refused("y must have gradients: clone it outside of", attack, NET, X, y)
    refused("model must have gradients: make or load it outside", attack, made, X, Y)


def test_images_that_collect_a_gradient_are_attacked_as_others_are(attack):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = attack(NET, X.clone().requires_grad_(), Y)
    if isinstance(found, torch.Tensor):
        assert torch.equal(found, attack(NET, X, Y))


@pytest.mark.parametrize("name", ["pgd", "universal", "apgd", "transfer"])
def test_logits_that_hide_their_gradient_are_said_to(name):
    if name == "apgd":
        pytest.importorskip("pyautoattack")
    y = NET(X).argmax(1)
    with pytest.warns(UserWarning, match="the gradient is 0 for images that"):
        ATTACKS[name](lambda x: 1e4 * NET(x), X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ATTACKS[name](NET, X, y)


@pytest.mark.parametrize("seed", [True, -1, 1.5, "a"])
def test_a_seed_is_a_whole_number(seed):
    pytest.importorskip("pyautoattack")
    for name in ATTACKS.keys() - {"arc"}:
        refused("seed must be an int in", ATTACKS[name], NET, X, Y, seed=seed)
    refused("seed must be an int in", Sampler, {"a": [NET]}, law=laws.one, seed=seed)
    refused("seed must be an int in", search, seed=seed)


def test_scoring_refuses_what_it_cannot_count():
    for model, x, y, message in (
        (NET, X.numpy(), Y, "x must be a tensor"),
        (NET, X[0], Y, "x must be n×C×H×W"),
        (NET, X[:0], Y[:0], "x must be n×C×H×W"),
        (NET, X, Y.tolist(), "y must be a tensor"),
        (NET, X, Y + 4, "y must be in"),
        (NET, X[:, :1], Y, "model must answer images that are"),
        (lambda x: (NET(x),), X, Y, "model must return logits"),
        (lambda x: NET(x)[:2], X, Y, "of n = 6"),
        (lambda x: NET(x) * float("nan"), X, Y, "logits must be finite"),
        ("net", X, Y, "model must answer images"),
    ):
        refused(message, queries.correct, model, x, y)
    refused("batch must be a whole number", queries.correct, NET, X, Y, 0)


# Laws and samplers


@pytest.mark.parametrize("law", [laws.theta, laws.one, laws.matched])
def test_a_law_refuses_counts_and_generators_that_are_none(law):
    made = torch.Generator()
    for counts, message in (
        ([], "counts must be one a structure and at least one"),
        (None, "counts must be one a structure"),
        (3, "counts must be one a structure"),
        ([2, 0], "counts must be a whole number >= 1, got 0"),
        ([1.5], "counts must be a whole number >= 1, got 1.5"),
        ([True], "counts must be a whole number >= 1, got True"),
        ([1] * 63, "counts must be at most 62, got 63"),
    ):
        refused(message, law, counts, made)
    for generator in (None, 3):
        refused("generator must be a torch.Generator", law, [2, 2], generator)
    refused("structures must be at most 62", laws.matched, [2], made, structures=63)


@pytest.mark.parametrize(
    ("law", "message"),
    [
        (lambda c, g: [(0, 5)], r"law must draw \(structure, network\) of \[2, 2\]"),
        (lambda c, g: [(2, 0)], "law must draw .* got"),
        (lambda c, g: [(0, -1)], "law must draw .* got"),
        (lambda c, g: [(0.0, 1)], "law must draw .* got"),
        (lambda c, g: [(True, 0)], "law must draw .* got"),
        (lambda c, g: [0, 1], "law must draw .* got 0"),
        (lambda c, g: None, "law must draw a list .* got NoneType"),
        ("theta", "law must be a function"),
    ],
)
def test_a_law_that_names_who_is_not_there_is_not_answered_by_another(law, message):
    networks = {"a": [NET, NET], "b": [NET, NET]}
    for per in ("batch", "image"):
        refused(message, Sampler, networks, law=law, per=per, seed=0)
    refused(message, laws.votes, law, [2, 2], 3, torch.Generator())


def test_a_team_is_of_networks_with_the_same_classes():
    other = network(classes=5)
    refused("networks must be a dict", Sampler, [NET], seed=0)
    bare = {"a": [NET, lambda x: x]}
    refused("networks must be torch.nn.Module", Sampler, bare, seed=0)
    refused("networks must be torch.nn.Module", Ensemble, [lambda x: x])
    refused("a team must have", Ensemble, None)
    both = partial(laws.theta, sizes={2: 1.0})
    for per in ("batch", "image"):
        uneven = Sampler({"a": [NET, other]}, law=both, per=per, seed=0)
        refused("must be of the same classes", uneven, X)
        refused("must be of the same classes", uneven.many, X, 2)
        refused("must be of the same classes", repeated, uneven, X, Y, draws=1, seed=0)
        even = Sampler({"a": [NET, NET]}, per=per, seed=0)
        refused("count must be a whole number >= 1, got 0", even.many, X, 0)
    for x, y, message in (
        (X.numpy(), Y, "x must be a tensor"),
        (X[:0], Y[:0], "x must be n×C×H×W"),
        (X, Y.tolist(), "y must be a tensor"),
    ):
        refused(message, repeated, even, x, y, draws=1, seed=0)
    refused("sampler must be a Sampler", repeated, NET, X, Y, draws=1, seed=0)


def test_arc_takes_no_members_that_draw_or_that_know_other_classes():
    given = {"epsilon": 0.1, "step": 0.03, "steps": 1}
    for seed in range(12):  # of some, the first few draws are the same
        drawing = Sampler({"a": [NET, network(seed=1)]}, law=laws.one, seed=seed)
        refused("members must not draw", arc, [NET, drawing], X, Y, **given)
    other, calls = network(seed=1), itertools.count()
    silent = [NET, lambda x: (NET, other)[next(calls) % 2](x)]
    refused("members must not draw", arc, silent, X, Y, **given)
    uneven = [NET, network(classes=5)]
    refused("members must be of the same classes", arc, uneven, X, Y, **given)


def test_arc_takes_lists():
    given = {"epsilon": 0.1, "step": 0.03, "steps": 1}
    for odd in (None, NET, {"a": NET}, "ab", iter([NET])):
        what = "members must be a list of models|model must answer images"
        refused(what, arc, odd, X, Y, **given)
    for odd in ([], ()):
        refused("members must hold at least one model", arc, odd, X, Y, **given)
    halves = torch.tensor([0.5, 0.5])
    for odd in (halves, halves.numpy(), [0.5, "a"], [float("nan"), 0.5], [], "ab", 1):
        what = "probabilities must be > 0, one a member, in sum 1, in a list"
        refused(what, arc, [NET, NET], X, Y, probabilities=odd, **given)
    found = arc([NET, NET], X, Y, probabilities=halves.tolist(), **given)
    assert torch.equal(found, arc(nn.ModuleList([NET, NET]), X, Y, **given))


# Tickets and libraries

SPEC = {"network": {"name": "cnn4", "width": 3}, "channels": 2, "classes": 4, "seed": 0}
SCALE = torch.tensor([0.4, 0.5]), torch.ones(2) / 3
IMAGES = (X * 255).to(torch.uint8)


def search(frame=None, images=IMAGES, labels=Y, recipe=None, **settings):
    frame = tickets.scratch(**SPEC) if frame is None else frame
    recipe = train.Recipe(epochs=1, batch=6) if recipe is None else recipe
    given = {"ratio": 0.4, "epsilon": 0.1, "step": 0.1, "seed": 0} | settings
    return tickets.find_ticket(frame, images, labels, recipe, **given)


def conv1d():
    return nn.Sequential(
        nn.Flatten(2), nn.Conv1d(2, 4, 3), nn.Flatten(), nn.Linear(248, 4)
    )


def turned():
    return nn.Sequential(nn.ConvTranspose2d(2, 2, 3), nn.Flatten(), nn.Linear(200, 4))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"frame": conv1d()}, "frame must hold weights in Conv2d and Linear .* 1.wei"),
        ({"frame": turned()}, "frame must hold weights in Conv2d and Linear layers"),
        ({"frame": "cnn4"}, "model must be a network"),
        ({"frame": lambda x: x}, "model must be a network"),
        ({"frame": tickets.scratch(**SPEC).double()}, "must have float32 weights"),
        ({"images": IMAGES.numpy()}, "images must be a tensor"),
        ({"images": X}, "images must be uint8"),
        ({"labels": Y.tolist()}, "labels must be a tensor"),
        ({"labels": Y + 4}, "labels must be in"),
        ({"step": True}, "step must be >= 0 and finite, got True"),
        ({"step": float("inf")}, "step must be >= 0 and finite, got inf"),
        ({"step": "a"}, "step must be >= 0 and finite, got a"),
        ({"epsilon": True}, r"epsilon must be in \[0, 1\], got True"),
        ({"steps": True}, "steps must be a whole number >= 1, got True"),
        ({"ratio": True}, r"ratio must be in \(0, 1\], got True"),
        ({"mean_std": (1, 2)}, "mean of mean_std must be a tensor"),
        ({"mean_std": SCALE[0]}, "mean_std must be two tensors"),
        (
            {"mean_std": (torch.ones(3), torch.ones(3))},
            "mean_std must have the 2 channels of images, got 3",
        ),
        ({"mean_std": (torch.ones(2), torch.zeros(2))}, "std of mean_std must be > 0"),
    ],
)
def test_a_search_refuses_what_it_would_get_wrong(settings, message):
    refused(message, search, **settings)


def test_a_search_is_outside_of_inference_mode():
    with torch.inference_mode():
        refused("training must be outside of torch.inference_mode", search)


def test_a_structure_has_a_name():
    for odd in ("cnn4", {}, {"width": 3}):
        refused(
            "network must be a dict with a name",
            tickets.scratch,
            **SPEC | {"network": odd},
        )


def test_a_library_takes_whole_tickets_of_the_ratio_that_is_said():
    held = library.Library({"a": SPEC}, SCALE)
    ticket = search(ratio=0.3)[0]
    masks, moments = ticket.masks, ticket.statistics
    first = next(iter(masks))
    for odd, ratio, message in (
        (ticket, 0.9, r"mask conv1\.weight must keep the ratio 0\.9, got 0\.29"),
        (masks, 0.3, "ticket must be a tickets.Ticket, got dict"),
        (tickets.Ticket({}, moments), 0.3, "masks must be of every layer"),
        (
            tickets.Ticket({k: v for k, v in masks.items() if k != first}, moments),
            0.3,
            rf"masks must be of every layer; without one, got \['{first}'\]",
        ),
        (
            tickets.Ticket(masks, {k: v[:1] for k, v in moments.items()}),
            0.3,
            r"running_mean must be torch.float32 \[\d+\], got torch.float32 \[1\]",
        ),
        (
            tickets.Ticket(masks, {k: v * float("nan") for k, v in moments.items()}),
            0.3,
            "must be finite, and no variance below 0",
        ),
        (
            tickets.Ticket(masks, {k: v - 100 for k, v in moments.items()}),
            0.3,
            "running_var must be finite, and no variance below 0",
        ),
    ):
        refused(message, held.add, "a", ratio, odd)
    assert held.keys() == []
    held.add("a", 0.3, ticket)
    refused("ticket must be one of", held.network, "b", 0.3)
    for structures in ({}, [SPEC], None):
        refused("structures must be a dict", library.Library, structures, SCALE)
    refused("mean_std must be two tensors", library.Library, {"a": SPEC}, SCALE[0])
    flat = torch.ones(2), torch.zeros(2)
    refused("std of mean_std must be > 0", library.Library, {"a": SPEC}, flat)
    refused("packed must be uint8", library.unpack, torch.ones(1), torch.Size([8]))
    few = torch.ones(1, dtype=torch.uint8)
    refused("packed must be uint8", library.unpack, few, torch.Size([80]))


def test_folding_refuses_what_does_not_answer():
    refused("x must be a tensor", folding.folded, NET, X.numpy())
    refused("model must be a network", folding.folded, lambda x: x, X)
    refused("model must answer images that are", folding.folded, NET, X[:, :1])
    refused("logits must be finite", folding.folded, NET, X * float("nan"))
