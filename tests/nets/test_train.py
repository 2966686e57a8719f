"""Training against independent oracles: torchvision, torch's schedulers, numpy."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.optim import lr_scheduler as schedulers
from torchvision.transforms import functional as tv

from lottolab.images.batches import Batches
from lottolab.nets import device, masks, models, predict, train

pytestmark = pytest.mark.usefixtures("on_one_thread")
PLAIN = {"crop": 0, "flip": False}


def pictures(n=50, channels=3, height=8, width=8, classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (n, channels, height, width)
    images = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
    return images, torch.randint(classes, (n,), generator=generator)


def network(seed=0, dropout=0.0):
    model = models.build("cnn4", channels=3, classes=4, width=3, size=8, seed=seed)
    return nn.Sequential(model, nn.Dropout(dropout)) if dropout else model


def recipe(**settings):
    settings = {"epochs": 3, "batch": 16, "crop": 1} | settings
    if settings.get("optimiser") == "adam":
        settings.setdefault("lr", 0.01)
    return train.Recipe(**settings)


def state(model):
    return {k: v.clone() for k, v in model.state_dict().items()}


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def float_normalised(images):
    """Normalise by plain float arithmetic and torchvision."""
    real = images.double() / 255
    columns = real.numpy().transpose(1, 0, 2, 3).reshape(images.shape[1], -1)
    return tv.normalize(real, columns.mean(1).tolist(), columns.std(1).tolist())


def seen(images, labels, settings, seed=0, **options):
    """Train and return what the loss was given, as (x, y, index) of all batches."""
    batches = []

    def loss(model, x, y, index):
        batches.append((x.clone(), y.clone(), index.clone()))
        return train.cross_entropy(model, x, y, index)

    size = images[0].numel()
    model = nn.Sequential(nn.Flatten(), nn.Linear(size, 4))
    train.fit(model, images, labels, settings, seed=seed, loss=loss, **options)
    return batches


# --- tickets' ground: rewinding and masks


def test_the_first_forward_pass_already_sees_the_mask():
    images, labels = pictures()
    model = network()
    name = next(iter(dict(model.named_parameters())))
    mask = torch.zeros_like(dict(model.named_parameters())[name], dtype=torch.bool)
    first = []

    def loss(model, x, y, index):
        first.append(float(dict(model.named_parameters())[name].detach().abs().sum()))
        return train.cross_entropy(model, x, y, index)

    settings = recipe(epochs=1)
    train.fit(model, images, labels, settings, seed=0, masks={name: mask}, loss=loss)
    assert first[0] == 0.0


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_full_masks_from_the_start_give_the_dense_network(optimiser):
    images, labels = pictures()
    dense, settings = network(), recipe(optimiser=optimiser)
    start = state(dense)
    fitted = train.fit(dense, images, labels, settings, seed=5, rewind_at=0)
    assert same(fitted.rewind, start)
    assert not same(state(dense), start)

    again = network(seed=9)
    again.load_state_dict(fitted.rewind)
    full = masks.dense(again, first=True, last=True)
    other = train.fit(again, images, labels, settings, seed=5, masks=full)
    assert same(state(again), state(dense))
    assert other.history.equals(fitted.history)


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_pruned_weights_are_zero_after_every_step(optimiser):
    images, labels = pictures()
    model = network()
    kept = masks.random(masks.dense(model), 0.6, seed=1)
    masks.apply_(model, kept)
    before, steps = state(model), []

    def look(model, step):
        steps.append(step)
        for name, mask in kept.items():
            assert (model.state_dict()[name][~mask] == 0).all()

    settings = recipe(optimiser=optimiser, weight_decay=0.1)
    train.fit(model, images, labels, settings, seed=0, masks=kept, after_step=look)
    assert steps == list(range(9))
    for name, mask in kept.items():
        assert mask.any()
        assert (model.state_dict()[name] != before[name])[mask].all()


@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_rewind_state_is_the_end_of_that_epoch(k):
    images, labels = pictures()
    whole, part = network(), network()
    fitted = train.fit(whole, images, labels, recipe(), seed=2, rewind_at=k)
    train.fit(part, images, labels, recipe(), seed=2, stop=k)
    assert same(fitted.rewind, state(part))
    assert same(fitted.rewind, state(whole)) == (k == 3)


def test_a_late_start_takes_the_later_epochs_batches_and_rates():
    images, labels = pictures()
    whole, parts = network(), network()
    settings = recipe(momentum=0)  # so that the optimiser has no state of its own
    train.fit(whole, images, labels, settings, seed=2)
    train.fit(parts, images, labels, settings, seed=2, stop=2)
    steps = []
    fitted = train.fit(
        parts,
        images,
        labels,
        settings,
        seed=2,
        start=2,
        rewind_at=2,
        after_step=lambda _, step: steps.append(step),
    )
    assert same(state(parts), state(whole))
    assert fitted.history["epoch"].tolist() == [3]
    assert steps == [6, 7, 8]
    middle = network()
    train.fit(middle, images, labels, settings, seed=2, stop=2)
    assert same(fitted.rewind, state(middle))


# --- batches


def test_without_augmentation_a_batch_is_its_normalised_images():
    images, labels = pictures(height=5, width=7)
    expected = float_normalised(images)
    for x, y, index in seen(images, labels, recipe(**PLAIN)):
        assert torch.equal(y, labels[index])
        assert x.dtype == torch.float32
        assert torch.allclose(x.double(), expected[index], atol=1e-5, rtol=0)


def test_a_given_mean_and_deviation_is_used():
    images, labels = pictures()
    mean_std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([1.0, 2.0, 0.5])
    x, _, index = seen(images, labels, recipe(**PLAIN), mean_std=mean_std)[0]
    expected = tv.normalize(images.float() / 255, *map(torch.Tensor.tolist, mean_std))
    assert torch.allclose(x, expected[index], atol=1e-5, rtol=0)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("crop", [0, 1, 2])
def test_augmentation_draws_every_window_alike(crop, flip):
    images, labels = pictures(96, 2, height=4, width=5)
    real = images.double() / 255
    mean = real.mean((0, 2, 3))[:, None, None]
    std = real.std((0, 2, 3), correction=0)[:, None, None]
    padded = np.pad(images.numpy(), [(0, 0), (0, 0), (crop, crop), (crop, crop)])
    windows = [
        padded[:, :, i : i + 4, j : j + 5][..., :: -1 if mirrored else 1]
        for i in range(2 * crop + 1)
        for j in range(2 * crop + 1)
        for mirrored in ([False, True] if flip else [False])
    ]
    assert len(windows) == (2 * crop + 1) ** 2 * (1 + flip)
    counts, together = np.zeros(len(windows), int), []
    settings = recipe(epochs=10, batch=48, crop=crop, flip=flip)
    for x, y, index in seen(images, labels, settings, seed=1):
        assert torch.equal(y, labels[index])
        raw = ((x.double() * std + mean) * 255).numpy()
        assert np.abs(raw - raw.round()).max() < 0.01
        drawn = []
        for image, place in zip(raw.round(), index, strict=True):
            fits = [
                w for w, window in enumerate(windows) if (window[place] == image).all()
            ]
            assert len(fits) == 1
            drawn += fits
        np.add.at(counts, drawn, 1)
        together.append(len(set(drawn)))
    assert counts.sum() == 960
    assert counts.all()
    assert len(windows) == 1 or stats.chisquare(counts).pvalue > 0.001
    assert len(windows) == 1 or min(together) > 1  # each image draws its own


def test_an_epoch_shows_no_image_twice_and_each_epoch_has_its_order():
    images, labels = pictures(50)
    batches = [i for _, _, i in seen(images, labels, recipe(batch=16))]
    assert [len(index) for index in batches] == [16] * 9
    orders = [torch.cat(batches[e : e + 3]).tolist() for e in (0, 3, 6)]
    for order in orders:
        assert len(set(order)) == 48
        assert set(order) <= set(range(50))
    assert len({tuple(order) for order in orders}) == 3
    whole = seen(*pictures(48), recipe(batch=16, epochs=1))
    assert sorted(torch.cat([i for _, _, i in whole]).tolist()) == list(range(48))


def test_a_batch_lies_channels_last():
    images, labels = pictures()
    x, _, _ = next(Batches(images, labels, recipe(), seed=0).epoch(0))
    assert x.shape == (16, 3, 8, 8)
    assert x.is_contiguous(memory_format=torch.channels_last)


# --- rates and steps


def warmed(make, warmup):
    def scheduler(optimiser):
        first = schedulers.LinearLR(optimiser, 1e-12, total_iters=warmup)
        parts = [first, make(optimiser)]
        return schedulers.SequentialLR(optimiser, parts, milestones=[warmup])

    return scheduler


def cosine(epochs):
    return lambda optimiser: schedulers.CosineAnnealingLR(optimiser, epochs)


def steps(*milestones):
    return lambda optimiser: schedulers.MultiStepLR(optimiser, list(milestones))


@pytest.mark.parametrize(
    ("settings", "scheduler"),
    [
        ({"schedule": "constant"}, steps()),
        ({"schedule": "cosine"}, cosine(12)),
        ({"schedule": "step", "milestones": [4, 9]}, steps(4, 9)),
        ({"schedule": "constant", "warmup": 5}, warmed(steps(), 5)),
        ({"schedule": "cosine", "warmup": 3}, warmed(cosine(9), 3)),
        (
            {"schedule": "step", "milestones": [6, 10], "warmup": 2},
            warmed(steps(4, 8), 2),
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:.*lr_scheduler.step:UserWarning")
def test_rates_are_those_of_torchs_schedulers(settings, scheduler):
    given = train.Recipe(epochs=12, lr=0.3, **settings)
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    scheduler, expected = scheduler(optimiser), []
    for _ in range(13):
        expected += scheduler.get_last_lr()
        scheduler.step()
    assert [given.rate(e) for e in range(13)] == pytest.approx(expected, abs=1e-9)


def test_the_history_holds_the_rate_at_each_epochs_end_and_the_mean_loss():
    images, labels = pictures(32)
    values = []

    def loss(*batch):
        values.append(train.cross_entropy(*batch))
        return values[-1]

    settings = recipe(lr=0.2)
    history = train.fit(network(), images, labels, settings, seed=0, loss=loss).history
    assert history["epoch"].tolist() == [1, 2, 3]
    expected = [0.1 * (1 + math.cos(math.pi * e / 3)) for e in (1, 2, 3)]
    assert history["lr"].tolist() == pytest.approx(expected)
    means = torch.stack(values).detach().double().view(3, 2).mean(1).tolist()
    assert history["loss"].tolist() == pytest.approx(means, rel=1e-5)


def test_sgd_is_the_textbooks():
    """Compare six steps with momentum and decay to numpy's softmax regression."""
    images, labels = pictures(n=48, channels=1, height=2, width=3)
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 4))
    weight, bias = (p.detach().double().numpy().copy() for p in model.parameters())
    settings = recipe(epochs=2, lr=0.5, momentum=0.8, weight_decay=0.05, **PLAIN)
    order = []

    def loss(model, x, y, index):
        order.append(index.numpy())
        return train.cross_entropy(model, x, y, index)

    train.fit(model, images, labels, settings, seed=0, loss=loss, precision="float32")
    x_all = float_normalised(images).numpy().reshape(48, 6)
    speed_w, speed_b = np.zeros_like(weight), np.zeros_like(bias)
    for step, index in enumerate(order):
        x, y = x_all[index], labels.numpy()[index]
        odds = np.exp(x @ weight.T + bias)
        error = (odds / odds.sum(1, keepdims=True) - np.eye(4)[y]) / len(y)
        speed_w = 0.8 * speed_w + error.T @ x + 0.05 * weight
        speed_b = 0.8 * speed_b + error.sum(0) + 0.05 * bias
        rate = 0.25 * (1 + math.cos(math.pi * step / 6))
        weight, bias = weight - rate * speed_w, bias - rate * speed_b
    assert len(order) == 6
    assert model[1].weight.detach().numpy() == pytest.approx(weight, abs=1e-5)
    assert model[1].bias.detach().numpy() == pytest.approx(bias, abs=1e-5)


def test_only_the_given_parameters_are_trained():
    images, labels = pictures()
    model = network()
    before = state(model)
    train.fit(model, images, labels, recipe(), seed=0, parameters=model.fc.parameters())
    named = [name for name, _ in model.named_parameters()]
    moved = [n for n in named if not torch.equal(before[n], model.state_dict()[n])]
    assert moved == ["fc.weight", "fc.bias"]

    model.fc.requires_grad_(False)
    before = state(model)
    train.fit(model, images, labels, recipe(), seed=0)
    moved = [n for n in named if not torch.equal(before[n], model.state_dict()[n])]
    assert moved == [n for n in named if not n.startswith("fc")]


# --- resuming and repeating


class Killed(Exception):
    pass


def interrupted(folder, settings, at, **options):
    """Train until `after_step` raises at step `at`, then resume with a fresh model."""
    images, labels = pictures()

    def kill(_, step):
        if step == at:
            raise Killed

    first = network(dropout=0.2)
    with pytest.raises(Killed):
        train.fit(
            first,
            images,
            labels,
            settings,
            after_step=kill,
            checkpoint=folder,
            **options,
        )
    second, taken = network(seed=7, dropout=0.2), []
    fitted = train.fit(
        second,
        images,
        labels,
        settings,
        after_step=lambda _, step: taken.append(step),
        checkpoint=folder,
        **options,
    )
    return second, fitted, taken


@pytest.mark.parametrize("rewind_at", [0, 1, 3, None])
@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_a_killed_training_resumes_at_its_last_whole_epoch(
    tmp_path, optimiser, rewind_at
):
    images, labels = pictures()
    settings = recipe(epochs=4, optimiser=optimiser)
    whole = network(dropout=0.2)
    options = {"seed": 3, "rewind_at": rewind_at}
    expected = train.fit(whole, images, labels, settings, **options)
    model, fitted, taken = interrupted(tmp_path, settings, at=7, **options)
    assert taken == [6, 7, 8, 9, 10, 11]
    assert same(state(model), state(whole))
    assert same(fitted.rewind, expected.rewind)
    assert bool(fitted.rewind) == (rewind_at is not None)
    assert fitted.history.equals(expected.history)


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_stop_and_resume_from_the_checkpoint(tmp_path, optimiser):
    images, labels = pictures()
    settings = recipe(optimiser=optimiser)
    kept = masks.random(masks.dense(network()), 0.5, seed=0)
    options = {"seed": 3, "masks": kept, "rewind_at": 1}
    whole, parts = network(), network()
    expected = train.fit(whole, images, labels, settings, **options)
    options["checkpoint"] = tmp_path
    short = train.fit(parts, images, labels, settings, stop=2, **options)
    assert short.history["epoch"].tolist() == [1, 2]
    assert not same(state(parts), state(whole))
    parts = network(seed=8)
    fitted = train.fit(parts, images, labels, settings, **options)
    assert same(state(parts), state(whole))
    assert same(fitted.rewind, expected.rewind)
    assert fitted.history.equals(expected.history)


def test_tied_weights_resume_to_the_bit_and_stay_tied(tmp_path):
    images, labels = pictures()
    made = []
    for _ in range(3):
        torch.manual_seed(0)
        tied = nn.Sequential(nn.Flatten(), nn.Linear(192, 192), nn.Linear(192, 192))
        tied[2].weight = tied[1].weight
        made.append(nn.Sequential(tied, nn.Linear(192, 4)))
    whole, killed, resumed = made
    options = {"seed": 3, "rewind_at": 1}
    expected = train.fit(whole, images, labels, recipe(), **options)
    options["checkpoint"] = tmp_path
    train.fit(killed, images, labels, recipe(), stop=2, **options)
    fitted = train.fit(resumed, images, labels, recipe(), **options)
    assert same(state(resumed), state(whole))
    assert same(fitted.rewind, expected.rewind)
    assert resumed[0][1].weight is resumed[0][2].weight


def test_a_half_written_checkpoint_is_ignored(tmp_path):
    images, labels = pictures()
    half = tmp_path / "checkpoint.safetensors.new"
    half.write_bytes(b"\x10\0\0\0")
    whole, fresh = network(), network()
    train.fit(whole, images, labels, recipe(), seed=3)
    train.fit(fresh, images, labels, recipe(), seed=3, stop=2, checkpoint=tmp_path)
    sound = (tmp_path / "checkpoint.safetensors").read_bytes()
    half.write_bytes(sound[: len(sound) // 2])
    resumed, taken = network(seed=8), []
    train.fit(
        resumed,
        images,
        labels,
        recipe(),
        seed=3,
        checkpoint=tmp_path,
        after_step=lambda _, step: taken.append(step),
    )
    assert taken == [6, 7, 8]
    assert same(state(resumed), state(whole))


def test_a_run_repeats_whatever_the_global_generator_and_leaves_it_alone():
    images, labels = pictures()
    results = []
    for outside, seed in ((1, 0), (2, 0), (2, 1)):
        model = network(dropout=0.5)
        torch.manual_seed(outside)
        before = torch.get_rng_state()
        fitted = train.fit(model, images, labels, recipe(), seed=seed)
        assert torch.equal(torch.get_rng_state(), before)
        results.append((state(model), fitted.history))
    assert same(results[0][0], results[1][0])
    assert results[0][1].equals(results[1][1])
    assert not same(results[1][0], results[2][0])


def test_noise_in_the_loss_follows_from_seed_and_epoch():
    images, labels = pictures()

    def noise(seed, **options):
        drawn = []

        def loss(model, x, y, index):
            drawn.append(torch.rand(()).item())
            return train.cross_entropy(model, x, y, index)

        train.fit(network(), images, labels, recipe(), seed=seed, loss=loss, **options)
        return drawn

    drawn = noise(0)
    assert len(set(drawn)) == 9
    assert noise(0) == drawn
    assert noise(0, start=2) == drawn[6:]
    assert not set(noise(1)) & set(drawn)


def test_a_training_that_fails_leaves_the_global_generator_alone():
    images, labels = pictures()
    before = torch.get_rng_state()

    def fail(*_):
        raise Killed

    with pytest.raises(Killed):
        train.fit(network(), images, labels, recipe(), seed=0, after_step=fail)
    assert torch.equal(torch.get_rng_state(), before)


# --- what is refused


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs must be a whole number >= 1, got 0"),
        ({"batch": 1}, "batch must be a whole number >= 2, got 1"),
        ({"lr": 0}, "lr must be > 0 and finite, got 0"),
        ({"lr": float("inf")}, "lr must be > 0 and finite, got inf"),
        ({"epochs": 2.5}, "epochs must be a whole number >= 1, got 2.5"),
        ({"crop": 1.5}, "crop must be a whole number >= 0, got 1.5"),
        ({"lr": float("nan")}, "lr must be > 0 and finite, got nan"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), got 1.0"),
        ({"momentum": -0.1}, r"momentum must be in \[0, 1\), got -0.1"),
        ({"weight_decay": -1e-4}, "weight_decay must be >= 0, got -0.0001"),
        ({"warmup": -1}, r"warmup must be in \[0, epochs = 8\], got -1"),
        ({"warmup": 9}, r"warmup must be in \[0, epochs = 8\], got 9"),
        ({"crop": -1}, "crop must be a whole number >= 0, got -1"),
        ({"optimiser": "sdg"}, "optimiser .* sgd, adam, got 'sdg'; did you mean sgd"),
        ({"schedule": "cos"}, "schedule .* got 'cos'; did you mean cosine"),
        ({"epoch": 3}, "setting must be one of .*'epoch'; did you mean epochs"),
    ],
)
def test_a_bad_recipe_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        train.recipe(settings)


def test_a_recipe_of_a_dict_holds_its_values():
    given = train.recipe({"epochs": 3, "milestones": [1, 2], "flip": False})
    assert (given.epochs, given.milestones, given.flip) == (3, (1, 2), False)
    assert given.batch == train.Recipe().batch


IMAGES, LABELS = pictures()


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES.float(), LABELS, r"N×C×H×W, N >= 1, got torch.float32 \[50, 3,"),
        (IMAGES[:, 0], LABELS, r"N×C×H×W, N >= 1, got torch.uint8 \[50, 8, 8\]"),
        (
            IMAGES,
            LABELS[:49],
            r"labels must be int64 of shape \[50\], got torch.int64 \[49",
        ),
        (IMAGES[:15], LABELS[:15], "images must be at least batch = 16, got 15"),
    ],
)
def test_bad_images_are_refused(images, labels, message):
    with pytest.raises(ValueError, match=message):
        train.fit(network(), images, labels, recipe(), seed=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "float16"}, "float32, bfloat16, got 'float16'"),
        ({"masks": {"conv.weight": LABELS > 0}}, "mask name .* did you mean conv"),
        ({"masks": {"fc.weight": LABELS > 0}}, r"shape \[4, 12\], got \[50\]"),
        ({"masks": {"fc.bias": LABELS[:4]}}, "must be torch.bool, got torch.int64"),
        ({"rewind_at": 99}, "rewind_at must be in .*, got 99"),
        ({"parameters": []}, "parameters must hold at least one, got none"),
    ],
)
def test_bad_options_are_refused_before_anything_is_trained(options, message):
    model = network()
    before = state(model)
    with pytest.raises(ValueError, match=message):
        train.fit(model, IMAGES, LABELS, recipe(), seed=0, **options)
    assert same(state(model), before)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_refused(tmp_path, value):
    def loss(model, x, y, index):
        return train.cross_entropy(model, x, y, index) * value

    with pytest.raises(ValueError, match=r"must stay finite; lower lr, got (nan|inf)"):
        train.fit(
            network(),
            *pictures(),
            recipe(),
            seed=0,
            loss=loss,
            checkpoint=tmp_path,
        )
    assert not list(tmp_path.iterdir())


# --- predictions


def test_logits_are_those_of_the_evaluated_model_whatever_the_batch():
    images, labels = pictures()
    model = network(dropout=0.5)
    train.fit(model, images, labels, recipe(), seed=0)
    kept = state(model)
    mean_std = torch.tensor([0.2, 0.4, 0.6]), torch.tensor([0.1, 0.5, 0.9])
    real = tv.normalize(images.float() / 255, *map(torch.Tensor.tolist, mean_std))
    with torch.no_grad():
        expected = model.eval()(real)
    for batch in (1, 7, 50, 500):
        model.train()
        found = predict.logits(model, images, mean_std, batch)
        assert not any(module.training for module in model.modules())
        assert found.shape == (50, 4)
        assert found.dtype == torch.float32
        assert not found.requires_grad
        assert torch.allclose(found, expected, atol=1e-5)
    assert same(state(model), kept)  # batch norm has counted nothing


def test_accuracy_by_hand():
    logits = torch.tensor([[3.0, 1, 2], [0, 5, 1], [-1, -2, -3], [1, 2, 9], [4, 0, 1]])
    assert predict.accuracy(logits, torch.tensor([0, 1, 2, 2, 1])) == 0.6


# --- devices


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"amx_bf16": True}, "bfloat16"),
        ({"avx512_bf16": True, "avx512_f": True, "amx_bf16": False}, "float32"),
        ({}, "float32"),
    ],
)
def test_the_cpus_precision_follows_its_capabilities(monkeypatch, found, expected):
    monkeypatch.delenv("LOTTOLAB_PRECISION")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    assert device.choose_precision("cpu") == expected
    used = []

    def loss(model, x, y, index):
        used.append(model(x).dtype)
        return train.cross_entropy(model, x, y, index)

    model = network()
    train.fit(model, *pictures(), recipe(epochs=1), seed=0, loss=loss)
    assert set(used) == {getattr(torch, expected)}
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_an_old_torch_without_capabilities_computes_in_float32(monkeypatch):
    monkeypatch.delenv("LOTTOLAB_PRECISION")
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert device.choose_precision("cpu") == "float32"
    assert device.describe_device() == "cpu, float32"


@pytest.mark.parametrize(("able", "expected"), [(1, "bfloat16"), (0, "float32")])
def test_a_gpus_precision_follows_what_it_supports(monkeypatch, able, expected):
    monkeypatch.delenv("LOTTOLAB_PRECISION")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: bool(able))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "H100")
    monkeypatch.setenv("LOTTOLAB_DEVICE", "cuda:0")
    assert device.choose_precision("cuda:0") == expected
    assert device.describe_device() == f"H100, {expected}"


def test_the_default_device_is_the_named_one_then_cuda_then_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device.default_device() == "cpu"
    monkeypatch.delenv("LOTTOLAB_DEVICE")
    assert device.default_device() == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device.default_device() == "cpu"


def test_the_description_names_the_processor(monkeypatch):
    monkeypatch.delenv("LOTTOLAB_PRECISION")
    found = {"cpu_name": "Sapphire", "amx_bf16": True}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    assert device.describe_device() == "cpu Sapphire, bfloat16"
