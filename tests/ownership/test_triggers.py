"""Secret pictures recognise their owner's network, and only with an honest claim."""

import hashlib
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy import stats

from lottolab.images import datasets
from lottolab.nets import models, predict, train
from lottolab.ownership import triggers as trigger
from lottolab.ownership.triggers import Triggers

SECRET = "ab" * 32
SHAPE = {"classes": 10, "channels": 1, "size": 16}


@pytest.fixture(autouse=True, scope="module")
def on_one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def secret(place):
    return f"{place:064x}"


def blank(labels, classes=10):
    """Return triggers whose pictures do not matter."""
    labels = torch.as_tensor(labels)
    return Triggers(torch.zeros(len(labels), 1, 8, 8).byte(), labels, classes)


def always(answers):
    """Return a service that gives these answers, whatever it is asked."""
    return lambda images: torch.as_tensor(answers)


def agreeing(triggers, count):
    """Return a service that is right about the first `count` triggers only."""
    wrong = (torch.arange(len(triggers.labels)) >= count).long()
    return always((triggers.labels + wrong) % triggers.classes)


# --- labels and pictures from a secret


@pytest.mark.parametrize("classes", [2, 7, 10])
def test_labels_are_uniform_and_independent(classes):
    drawn = np.stack(
        [
            trigger.secret_labels(50, classes=classes, secret=secret(i))
            for i in range(2000)
        ]
    )
    assert stats.chisquare(np.bincount(drawn.ravel(), minlength=classes)).pvalue > 1e-3
    pairs = drawn[:, :-1] * classes + drawn[:, 1:]  # neighbours in one trigger set
    counts = np.bincount(pairs[:, ::2].ravel(), minlength=classes**2)
    assert stats.chisquare(counts).pvalue > 1e-3
    across = drawn[::2] * classes + drawn[1::2]  # the same place, for two secrets
    counts = np.bincount(across.ravel(), minlength=classes**2)
    assert stats.chisquare(counts).pvalue > 1e-3
    # Balanced labels would have no spread: the counts of one class are binomial.
    ones = (drawn == 0).sum(1)
    assert ones.var() == pytest.approx(50 * (classes - 1) / classes**2, rel=0.15)


def test_anybody_with_the_secret_can_recompute_the_labels():
    stream = hashlib.shake_256(b"lottolab labels:" + bytes.fromhex(SECRET)).digest(240)
    words = [int.from_bytes(stream[i : i + 8], "little") for i in range(0, 240, 8)]
    labels = trigger.secret_labels(30, classes=7, secret=SECRET)
    assert labels.tolist() == [word % 7 for word in words]


def test_pictures_do_not_follow_from_the_labels_stream():
    stream = hashlib.shake_256(b"lottolab labels:" + bytes.fromhex(SECRET)).digest(16)
    seed = int.from_bytes(stream, "big")
    images = trigger.abstract(3, channels=1, size=16, seed=seed)
    assert not torch.equal(images, trigger.draw(3, **SHAPE, secret=SECRET).images)


def test_a_secret_decides_pictures_and_labels():
    drawn = trigger.draw.__wrapped__  # not what the first call left in the cache
    first, again, other = (
        drawn(20, **SHAPE, secret=s) for s in (SECRET, SECRET, secret(1))
    )
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.labels, again.labels)
    assert torch.equal(
        first.labels, trigger.secret_labels(20, classes=10, secret=SECRET)
    )
    assert not torch.equal(first.labels, other.labels)
    same = (first.images == other.images).flatten(1).all(1)
    assert not same.any()


def test_a_secret_is_drawn_once(monkeypatch):
    drawn, abstract = [], trigger.abstract

    def counted(*given, **options):
        drawn.append(given)
        return abstract(*given, **options)

    monkeypatch.setattr(trigger, "abstract", counted)
    first, again, other = (
        trigger.draw(2, **SHAPE, secret=s) for s in ("f1", "f1", "f2")
    )
    assert first is again is not other
    assert len(drawn) == 2
    with pytest.raises(ValueError, match="count must be a whole number >= 1"):
        trigger.draw(2.0, **SHAPE, secret="f1")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [8, 28, 32])
def test_pictures_have_contrast_and_differ_clearly(channels, size):
    images = trigger.abstract(100, channels=channels, size=size, seed=1)
    assert images.shape == (100, channels, size, size)
    assert images.dtype == torch.uint8
    pixels = images.flatten(1).double()
    assert pixels.std(1).min() > 20
    distances = torch.nn.functional.pdist(pixels) / pixels.shape[1] ** 0.5
    assert distances.min() > 25  # root mean square, in grey levels
    grey = images.double().mean(1, keepdim=True)
    assert (channels == 3) == bool((images - grey).abs().mean() > 10)


def test_more_pictures_begin_with_the_same_ones():
    few, many, other = (
        trigger.abstract(n, channels=3, size=12, seed=s)
        for n, s in ((3, 0), (9, 0), (3, 1))
    )
    assert torch.equal(few, many[:3])
    assert not torch.equal(few, other)


# --- the owner's own pictures


def stripes(wide, high):
    """Draw a red, a green and a blue third along the longer side."""
    line = np.repeat(255 * np.eye(3, dtype=np.uint8), max(wide, high) // 3, axis=0)
    rows = np.tile(line, (min(wide, high), 1, 1))
    return Image.fromarray(rows if wide > high else rows.swapaxes(0, 1).copy())


def test_a_folder_is_sorted_cropped_and_resized(tmp_path):
    stripes(90, 30).save(tmp_path / "b.png")
    stripes(20, 60).save(tmp_path / "a.bmp")
    Image.new("RGB", (40, 40), (200, 10, 30)).save(tmp_path / "c.JPG", quality=95)
    Image.new("RGBA", (20, 20), (0, 0, 0, 0)).save(tmp_path / "d.png")
    (tmp_path / "notes.txt").write_text("no picture")
    options = {"classes": 10, "size": 16, "secret": SECRET}
    colour = trigger.from_folder(tmp_path, channels=3, **options)
    assert colour.images.shape == (4, 3, 16, 16)
    expected = [[0, 255, 0], [0, 255, 0], [200, 10, 30], [255, 255, 255]]
    for image, rgb in zip(colour.images, expected, strict=True):
        # Two pixels at the edge may mix with the neighbouring stripe.
        middle = image[:, 2:-2, 2:-2].flatten(1).float()
        assert (middle - torch.tensor(rgb)[:, None]).abs().max() <= 4
    grey = trigger.from_folder(tmp_path, channels=1, **options)
    assert grey.images.shape == (4, 1, 16, 16)
    assert grey.images[0, 0, 8, 8] == 150  # ITU-R 601: 0.587 × 255
    for found in (grey, colour):
        wanted = trigger.secret_labels(4, classes=10, secret=SECRET)
        assert torch.equal(found.labels, wanted)


def test_a_turned_photograph_is_set_upright(tmp_path):
    pixels = np.zeros((20, 20), np.uint8)
    pixels[:10] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    found = trigger.from_folder(tmp_path, **SHAPE, secret=SECRET).images[0, 0]
    assert (found[:, 9:] == 255).all()
    assert (found[:, :7] == 0).all()


def test_a_folder_without_good_pictures_is_refused(tmp_path):
    def read(path):
        trigger.from_folder(path, **SHAPE, secret=SECRET)

    with pytest.raises(ValueError, match=r"a folder of pictures, got .*nowhere"):
        read(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(ValueError, match="must hold a picture"):
        read(tmp_path)
    stripes(60, 60).save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    for name, content in {
        "cut.png": whole[: len(whole) // 2],
        "text.jpg": b"x",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name} must be a picture that opens"):
            read(tmp_path)
        (tmp_path / name).unlink()


# --- what answers prove


@pytest.mark.parametrize("classes", [2, 10, 100])
@pytest.mark.parametrize(
    ("correct", "total"), [(0, 40), (7, 40), (91, 100), (100, 100)]
)
def test_the_p_value_is_the_exact_binomial_tail(classes, correct, total):
    triggers = blank(
        trigger.secret_labels(total, classes=classes, secret=SECRET), classes
    )
    found = trigger.verify_triggers(agreeing(triggers, correct), triggers)
    test = stats.binomtest(correct, total, 1 / classes, alternative="greater")
    assert found.p_value == pytest.approx(test.pvalue, rel=1e-9, abs=0)
    assert (found.correct, found.total) == (correct, total)
    assert found.agreement == correct / total
    assert math.isnan(found.p_unmarked)
    assert found.accepted is bool(test.pvalue < 1e-6)


def too_small(p_values):
    """Say for which levels the share of p-values below them is too large."""
    p_values, levels = np.array(p_values), (0.05, 0.01, 0.001)
    limits = [stats.binom.ppf(0.999, len(p_values), level) for level in levels]
    counts = [(p_values <= level).sum() for level in levels]
    return [a for a, c, m in zip(levels, counts, limits, strict=True) if c > m]


SKEWED = np.random.default_rng(0).choice(10, 50, p=[0.6, 0.2, 0.2, *[0] * 7])


@pytest.mark.parametrize(
    "answers", [np.full(50, 3), SKEWED], ids=["constant", "skewed"]
)
def test_p_values_are_valid_whatever_an_unrelated_network_answers(answers):
    p_values = []
    for place in range(3000):
        labels = trigger.secret_labels(50, classes=10, secret=secret(place))
        found = trigger.verify_triggers(always(answers), blank(labels))
        p_values.append(found.p_value)
    assert too_small(p_values) == []
    assert np.mean(np.array(p_values) <= 0.05) > 0.01  # and not empty-handed


def test_labels_that_prefer_a_class_would_be_noticed():
    random = np.random.default_rng(0)
    p_values = []
    for _ in range(1000):
        labels = random.choice(10, 50, p=[0.19, *[0.09] * 9])
        found = trigger.verify_triggers(always(np.zeros(50, int)), blank(labels))
        p_values.append(found.p_value)
    assert too_small(p_values) == [0.05, 0.01, 0.001]


def test_unmarked_networks_raise_the_bar_to_the_upper_bound_of_the_best():
    triggers = blank(trigger.secret_labels(100, classes=10, secret=SECRET))
    others = [agreeing(triggers, count) for count in (12, 30, 9)]
    upper = stats.beta.ppf(0.95, 31, 70)  # Clopper and Pearson's closed form
    for correct, accepted in ((45, False), (75, True)):
        suspect = agreeing(triggers, correct)
        found = trigger.verify_triggers(suspect, triggers, unmarked=others)
        tail = stats.binom.pmf(np.arange(correct, 101), 100, upper).sum()
        assert found.p_unmarked == pytest.approx(tail, rel=1e-6)
        assert trigger.verify_triggers(suspect, triggers).accepted
        assert found.accepted is accepted


def test_the_best_answers_prove_nothing_that_an_unmarked_network_gives_too():
    triggers = blank(trigger.secret_labels(100, classes=10, secret=SECRET))
    perfect = always(triggers.labels)
    found = trigger.verify_triggers(perfect, triggers, unmarked=[perfect])
    assert (found.p_unmarked, found.accepted) == (1.0, False)


# --- training


class Spy(torch.nn.Module):
    """Remember what it is shown, and answer with a linear function of it."""

    def __init__(self):
        super().__init__()
        self.seen, self.linear = [], torch.nn.Linear(3 * 8 * 8, 5)

    def forward(self, x):
        self.seen.append(x)
        return self.linear(x.flatten(1))


@pytest.mark.parametrize("per_batch", [1, 4])
def test_the_loss_appends_normalised_triggers_to_the_batch(per_batch):
    triggers = trigger.draw(12, classes=5, channels=3, size=8, secret=SECRET)
    mean, std = torch.tensor([0.2, 0.5, 0.7]), torch.tensor([0.3, 0.2, 0.25])
    loss, spy = trigger.with_triggers(triggers, (mean, std), per_batch), Spy()
    x = torch.randn(16, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    y = torch.arange(16) % 5
    real = triggers.images.double() / 255
    wanted = (real - mean[:, None, None]) / std[:, None, None]
    shown = []
    for step in range(100):
        torch.manual_seed(step)
        value = loss(spy, x, y, torch.arange(16))
        seen = spy.seen[-1]
        assert seen.shape == (16 + per_batch, 3, 8, 8)
        assert seen.dtype == torch.float32
        assert seen.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(seen[:16], x)
        gaps = (seen[16:, None] - wanted).abs().flatten(2).amax(2)
        drawn = gaps.argmin(1)
        assert gaps.amin(1).max() < 1e-5
        assert len(set(drawn.tolist())) == per_batch
        labels = torch.cat([y, triggers.labels[drawn]])
        expected = F.cross_entropy(spy.linear(seen.flatten(1)), labels)
        assert torch.allclose(value, expected)
        shown += drawn.tolist()
    counts = np.bincount(shown, minlength=12)
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.fixture(scope="module")
def digits():
    source = datasets.load("digits", size=16)
    part = source.images[:800], source.labels[:800]
    return (
        part,
        datasets.normalisation(part[0]),
        (source.images[800:], source.labels[800:]),
    )


def fitted(digits, seed, loss=train.cross_entropy, **options):
    images, labels = digits[0]
    kind = {"channels": 1, "classes": 10, "width": 8, "stem": "stride2"}
    model = models.build("cnn4", **kind, size=16, seed=seed)
    recipe = train.Recipe(epochs=6, batch=32, lr=0.05, crop=1, flip=False)
    options = {"precision": "float32", "device": "cpu"} | options
    train.fit(model, images, labels, recipe, seed=seed, loss=loss, **options)
    return model


@pytest.fixture(scope="module")
def owned():
    return trigger.draw(40, **SHAPE, secret=SECRET)


@pytest.fixture(scope="module")
def networks(digits, owned):
    """Return the owner's network and three that were trained without triggers."""
    loss = trigger.with_triggers(owned, digits[1], 8)
    return [fitted(digits, 0, loss), *(fitted(digits, seed) for seed in (1, 2, 3))]


@pytest.fixture(scope="module")
def services(networks, digits):
    return [trigger.predictor(network, digits[1]) for network in networks]


def test_the_owners_network_is_recognised_and_no_other(
    networks, services, digits, owned
):
    own, *others = services
    found = trigger.verify_triggers(own, owned, unmarked=others)
    assert found.agreement > 0.9
    assert found.accepted
    for place, other in enumerate(others):
        innocent = trigger.verify_triggers(other, owned)
        assert innocent.agreement <= 0.35
        assert not innocent.accepted
        rest = others[:place] + others[place + 1 :]
        assert not trigger.verify_triggers(other, owned, unmarked=rest).accepted
    _, scale, (images, labels) = digits
    accuracies = [
        predict.accuracy(predict.logits(network, images, scale), labels)
        for network in networks
    ]
    assert accuracies[0] > np.mean(accuracies[1:]) - 0.05


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_follows_from_its_seed_alone(digits, owned, precision):
    loss = trigger.with_triggers(owned, digits[1], 1)
    states = []
    for before in (1, 2):
        torch.manual_seed(before)
        model = fitted(digits, 0, loss, stop=1, precision=precision)
        states.append(model.state_dict())
    assert all(torch.equal(states[0][n], states[1][n]) for n in states[0])


def test_a_service_gives_the_networks_classes_and_leaves_batch_norm_alone(
    networks, digits, services
):
    _, (mean, std), (images, _) = digits
    before = {n: v.clone() for n, v in networks[0].state_dict().items()}
    networks[0].train()
    answers = services[0](images)
    x = (images.double() / 255 - mean) / std
    with torch.no_grad():
        expected = networks[0].eval()(x.float()).argmax(1)
    assert answers.dtype == torch.int64
    assert (answers == expected).double().mean() > 0.99  # ties of rounding
    after = networks[0].state_dict()
    assert all(torch.equal(before[n], after[n]) for n in before)


# --- dishonest claims


def test_a_forged_trigger_set_always_agrees(services):
    suspect = services[1]
    images = trigger.abstract(60, channels=1, size=16, seed=7)
    forged = trigger.forge(suspect, images, classes=10)
    found = trigger.verify_triggers(suspect, forged)
    assert (found.agreement, found.accepted) == (1.0, True)
    assert torch.equal(forged.images, images)
    assert found.p_value == pytest.approx(1e-60, rel=1e-6)


@pytest.fixture(scope="module")
def fair():
    return trigger.draw(100, **SHAPE, secret=secret(5))


def test_unmarked_networks_expose_the_malicious_accuser(
    networks, services, digits, fair, owned
):
    own, accuser, *innocent = services
    before = trigger.verify_triggers(accuser, fair)
    assert not before.accepted
    options = {"epsilon": 96, "steps": 30, "step_size": 9.6}
    unfair = trigger.accuse(networks[1], fair, digits[1], **options)
    assert torch.equal(unfair.labels, fair.labels)
    assert trigger.verify_triggers(accuser, unfair).agreement > 0.9
    alone = [trigger.verify_triggers(suspect, unfair) for suspect in innocent]
    assert any(found.accepted for found in alone)
    for suspect, judge in (innocent, innocent[::-1]):
        found = trigger.verify_triggers(suspect, unfair, unmarked=[judge])
        assert not found.accepted
    honest = trigger.verify_triggers(own, owned, unmarked=innocent)
    assert honest.accepted


@pytest.mark.parametrize("epsilon", [1, 8])
def test_the_accuser_stays_within_epsilon_and_gains(
    networks, services, digits, fair, epsilon
):
    state = {n: v.clone() for n, v in networks[1].state_dict().items()}
    before = fair.images.clone()
    options = {"epsilon": epsilon, "steps": 20, "step_size": 0.6 * epsilon}
    unfair = trigger.accuse(networks[1], fair, digits[1], **options)
    change = unfair.images.int() - fair.images.int()
    assert change.abs().max() == epsilon
    assert torch.equal(fair.images, before)
    after = networks[1].state_dict()
    assert all(torch.equal(state[n], after[n]) for n in state)
    gain = [trigger.verify_triggers(services[1], t).correct for t in (fair, unfair)]
    assert gain[1] > gain[0]


# --- bad input

GOOD = {"count": 4, **SHAPE, "secret": SECRET}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": 0}, "count must be a whole number >= 1, got 0"),
        ({"count": 2.0}, "count must be a whole number"),
        ({"classes": 1}, "classes must be a whole number >= 2, got 1"),
        ({"channels": 2}, "channels must be one of 1, 3, got 2"),
        ({"size": 7}, "size must be a whole number >= 8, got 7"),
        ({"secret": ""}, "secret must be hexadecimal"),
        ({"secret": "owner"}, "secret must be hexadecimal.*got 'owner'"),
        ({"secret": 7}, "secret must be hexadecimal"),
    ],
)
def test_a_trigger_set_out_of_range_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        trigger.draw(**GOOD | change)


def test_a_negative_seed_is_refused():
    with pytest.raises(ValueError, match="seed must be a whole number >= 0, got -1"):
        trigger.abstract(1, channels=1, size=8, seed=-1)


PICTURES, LABELS = torch.zeros(2, 1, 8, 8).byte(), torch.tensor([0, 9])


@pytest.mark.parametrize(
    ("images", "labels", "classes", "message"),
    [
        (PICTURES.float(), LABELS, 10, "images must be uint8"),
        (PICTURES[0], LABELS, 10, "images must be uint8 of shape"),
        (PICTURES[:0], LABELS[:0], 10, "N >= 1"),
        (PICTURES, LABELS[:1], 10, r"labels must be int64 of shape \(2,\)"),
        (PICTURES, LABELS.int(), 10, "labels must be int64"),
        (PICTURES, LABELS, 9, r"labels must be in \[0, 9\), got \(0, 9\)"),
        (PICTURES, LABELS - 1, 10, r"labels must be in \[0, 10\), got \(-1, 8\)"),
        (PICTURES, LABELS, 1, "classes must be a whole number >= 2"),
    ],
)
def test_triggers_are_checked_when_made(images, labels, classes, message):
    with pytest.raises(ValueError, match=message):
        Triggers(images, labels, classes)


@pytest.mark.parametrize(
    "answers",
    [
        torch.tensor([0, 10]),
        torch.tensor([-1, 0]),
        torch.zeros(3).long(),
        torch.zeros(2, 10),
        torch.zeros(2),
        [0, 1],
    ],
)
@pytest.mark.parametrize("role", ["suspect", "unmarked"])
def test_a_service_that_gives_no_classes_is_refused(answers, role):
    triggers, good = Triggers(PICTURES, LABELS, 10), always([0, 1])
    bad = lambda images: answers  # noqa: E731
    pair = (bad, []) if role == "suspect" else (good, [good, bad])
    with pytest.raises(ValueError, match="answers must be"):
        trigger.verify_triggers(pair[0], triggers, unmarked=pair[1])


def test_training_with_triggers_that_do_not_fit_is_refused(owned):
    scale = torch.tensor([0.5]), torch.tensor([0.2])
    for per_batch in (0, 41, 1.0):
        with pytest.raises(ValueError, match="per_batch must be"):
            trigger.with_triggers(owned, scale, per_batch)
    three = torch.ones(3)
    with pytest.raises(ValueError, match=r"mean_std must be 1 each, got \[3, 3\]"):
        trigger.with_triggers(owned, (three, three), 1)
    loss = trigger.with_triggers(owned, scale, 1)
    with pytest.raises(ValueError, match=r"\[1, 16, 16\], got \[3, 16, 16\]"):
        loss(Spy(), torch.zeros(2, 3, 16, 16), torch.zeros(2).long(), torch.arange(2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epsilon": 0}, "epsilon must be a whole number >= 1"),
        ({"epsilon": 0.03}, "epsilon must be a whole number >= 1, got 0.03"),
        ({"epsilon": 256}, "epsilon must be at most 255 grey levels, got 256"),
        ({"steps": 0}, "steps must be a whole number >= 1"),
        ({"step_size": 0}, "step_size must be > 0"),
        ({"step_size": math.nan}, "step_size must be > 0"),
    ],
)
def test_an_accusers_settings_out_of_range_are_refused(owned, change, message):
    scale = torch.tensor([0.5]), torch.tensor([0.2])
    options = {"epsilon": 8, "steps": 1, "step_size": 1.0} | change
    with pytest.raises(ValueError, match=message):
        trigger.accuse(Spy(), owned, scale, **options)
