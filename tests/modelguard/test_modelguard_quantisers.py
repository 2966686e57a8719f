"""ModelGuard-S is Algorithm 1, keeps its state, and never changes an answer."""

import copy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from predictions import dirichlet, distance, hard, on_simplex
from safetensors.torch import save_file

from lottolab.modelguard import ModelGuardS, UnorderedQuantiser
from lottolab.modelguard.defences import centroids
from lottolab.nets import models

KINDS = [ModelGuardS, UnorderedQuantiser]
FLOATS = [torch.float32, torch.float64]


def answers_of_a_classifier(count, classes, seed=0):
    """Draw float32 softmax outputs, some sure, some not, of classes that look alike."""
    rng = np.random.default_rng(seed)
    likeness = rng.normal(0, 1.5, (classes, classes))
    label = rng.integers(classes, size=count)
    logits = likeness[label] + rng.normal(0, 1.5, (count, classes))
    logits[np.arange(count), label] += rng.uniform(3, 14, count)
    return torch.from_numpy(logits).softmax(1).float()


class Loop:
    """Answer row by row, with one distance to all centroids of the class."""

    def __init__(self, epsilon, classes, nearest=False):
        self.epsilon, self.nearest = epsilon, nearest
        self.known = [np.empty((0, classes)) for _ in range(classes)]

    def __call__(self, probs):
        answers = []
        for y in probs.double().numpy():
            known = self.known[y.argmax()]
            far = np.abs(known - y).sum(1)
            near = np.flatnonzero(far <= self.epsilon)
            if len(near) == 0:
                self.known[y.argmax()] = np.vstack([known, y])
                answers.append(y)
            else:
                answers.append(known[far.argmin() if self.nearest else near[0]])
        return torch.from_numpy(np.array(answers)).to(probs.dtype)

    @property
    def count(self):
        return sum(map(len, self.known))


def equals_the_loop(kind, probs, epsilon):
    """Compare answers and the number of centroids on a fresh and on a full state."""
    defence = kind(epsilon, probs.shape[1])
    loop = Loop(epsilon, probs.shape[1], nearest=kind is UnorderedQuantiser)
    for _ in range(2):
        assert torch.equal(defence(probs), loop(probs))
        assert defence.count == loop.count
    return defence


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("epsilon", [0.5, 1.0, 1.75])
def test_a_batch_is_answered_as_the_loop_answers_its_rows(kind, epsilon):
    probs = answers_of_a_classifier(5000, 100)
    defence = equals_the_loop(kind, probs, epsilon)
    assert 100 < defence.count < 5000


@pytest.mark.long
def test_100000_predictions_are_answered_as_the_loop_answers_them():
    defence = equals_the_loop(ModelGuardS, answers_of_a_classifier(100_000, 100), 1.0)
    assert defence.count > 1000


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("classes", [2, 3, 10, 1000])
def test_the_quantisers_keep_their_promises(kind, dtype, classes):
    probs = torch.cat([hard(classes, seed) for seed in range(2)]).to(dtype)
    predicted = {row.tobytes() for row in probs.numpy()}
    for epsilon in (0.0, 0.1, 1.0, 2.0):
        defence = kind(epsilon, classes)
        answers = defence(probs)
        assert answers.dtype == dtype
        assert on_simplex(answers)
        limit = max(epsilon, classes * 2.0**-40)
        assert distance(answers, probs).max() <= limit + 1e-12
        assert torch.equal(answers.argmax(1), probs.argmax(1))
        assert {row.tobytes() for row in answers.numpy()} <= predicted
        assert torch.equal(defence.peek(probs), defence(probs))
        if kind is ModelGuardS:
            assert torch.equal(defence(probs), answers)


@pytest.mark.parametrize("kind", KINDS)
def test_batches_of_any_size_give_the_same_answers_and_state(kind, tmp_path):
    probs = answers_of_a_classifier(600, 10)
    saved = set()
    for size in (1, 7, 600):
        defence = kind(0.5, 10)
        answers = torch.cat([defence(part) for part in probs.split(size)])
        assert torch.equal(answers, Loop(0.5, 10, kind is UnorderedQuantiser)(probs))
        defence.save(tmp_path / "state.safetensors")
        saved.add((tmp_path / "state.safetensors").read_bytes())
    assert len(saved) == 1


def test_the_first_centroid_in_order_answers_not_the_nearest():
    rows = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.9, 0.1]])
    ordered, nearest = ModelGuardS(0.5, 2), UnorderedQuantiser(0.5, 2)
    assert torch.equal(ordered(rows), rows[[0, 1, 0, 0]])
    assert torch.equal(nearest(rows), rows[[0, 1, 1, 0]])
    assert ordered.count == nearest.count == 2


def test_of_equally_near_centroids_the_older_answers():
    rows = torch.tensor([[0.875, 0.125], [0.625, 0.375], [0.75, 0.25]])
    for order in ([0, 1, 2], [1, 0, 2]):
        answers = UnorderedQuantiser(0.375, 2)(rows[order])
        assert torch.equal(answers, rows[[order[0], order[1], order[0]]])


def test_the_limit_itself_is_within():
    """In binary fractions, so that the distance is exactly ε."""
    rows = torch.tensor([[0.75, 0.25], [0.5625, 0.4375], [0.5624, 0.4376]]).double()
    rows[1:] += torch.tensor([2.0**-30, -(2.0**-30)])  # for the room rounding needs
    assert ModelGuardS(0.375, 2)(rows)[:, 0].tolist() == [0.75, 0.75, rows[2, 0]]


def test_once_answered_a_prediction_is_answered_so_for_ever():
    probs = answers_of_a_classifier(3000, 20)
    defence = ModelGuardS(0.5, 20)
    first = defence(probs)
    for seed in range(1, 4):
        defence(answers_of_a_classifier(3000, 20, seed))
        assert torch.equal(defence(probs), first)
    nearest = UnorderedQuantiser(0.5, 20)
    first = nearest(probs)
    assert not torch.equal(nearest(probs), first)  # 2-QPI sees this: Table 6


def test_the_last_bits_of_a_prediction_do_not_move_its_answer():
    """As where another batch size adds up in another order."""
    probs = answers_of_a_classifier(2000, 50)
    defence = ModelGuardS(0.5, 50)
    first = defence(probs)
    for direction in (0.0, 1.0):
        other = torch.nextafter(probs, torch.full_like(probs, direction))
        assert torch.equal(defence(other), first)


@pytest.mark.parametrize("rank", range(2))
def test_a_rough_distance_that_leaves_a_doubt_is_computed_exactly(rank):
    """Rows whose distance is ε to the seventh digit, on either side."""
    rng = np.random.default_rng(rank)
    base = rng.dirichlet(np.full(100, 0.3))
    base[rng.permutation(100)[:2]] += 0.6
    base /= base.sum()
    top, second = base.argsort()[::-1][:2]
    held = ModelGuardS(0.25, 100)
    held(torch.from_numpy(base[None]))
    for shift in 10.0 ** -np.arange(5, 11) * (-1) ** rank:
        row = base.copy()
        others = np.delete(np.arange(100), [top, second])
        row[others] += (0.125 + shift / 2) / len(others)
        row[second] -= 0.125 + shift / 2
        answer = copy.deepcopy(held)(torch.from_numpy(row[None]))[0].numpy()
        assert (answer == (base if shift < 0 else row)).all(), shift


def test_a_float64_lead_below_float32_keeps_its_class():
    probs = torch.tensor([[0.5 - 1e-12, 0.5 + 1e-12]], dtype=torch.float64)
    defence = ModelGuardS(1.0, 2)
    defence(probs)
    ask = torch.tensor([[0.4, 0.6]])
    assert defence(ask).argmax(1) == 1
    assert defence(ask).dtype == torch.float32


@pytest.mark.parametrize("kind", KINDS)
def test_peeking_says_what_would_be_answered_and_changes_nothing(kind):
    probs = answers_of_a_classifier(500, 10)
    defence = kind(0.5, 10)
    defence(probs[:250])
    before = defence.count
    seen = defence.peek(probs[250:])
    assert defence.count == before
    copies = [copy.deepcopy(defence)(row[None]) for row in probs[250:]]
    assert torch.equal(seen, torch.cat(copies))
    assert torch.equal(kind(0.5, 10).peek(probs), probs)


# --- on disk


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_a_loaded_defence_goes_on_as_the_saved_one(kind, dtype, tmp_path):
    probs = torch.cat([answers_of_a_classifier(800, 10), hard(10).float()]).to(dtype)
    defence = kind(0.3, 10)
    defence(probs[:400])
    defence.save(tmp_path / "state.safetensors")
    loaded = kind.load(tmp_path / "state.safetensors")
    assert loaded.count == defence.count
    assert torch.equal(loaded(probs), defence(probs))
    assert list(tmp_path.iterdir()) == [tmp_path / "state.safetensors"]
    empty = kind(0.3, 4)
    empty.save(tmp_path / "empty.safetensors")
    assert kind.load(tmp_path / "empty.safetensors").count == 0


def test_a_save_that_is_cut_off_leaves_the_old_file(tmp_path, monkeypatch):
    defence, path = ModelGuardS(0.3, 10), tmp_path / "state.safetensors"
    defence(answers_of_a_classifier(100, 10))
    defence.save(path)
    before = path.read_bytes()
    defence(answers_of_a_classifier(100, 10, seed=1))

    def cut_off(state, where):
        Path(where).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(models, "save", cut_off)
    with pytest.raises(KeyboardInterrupt):
        defence.save(path)
    assert path.read_bytes() == before


def test_answers_are_the_same_in_another_process(tmp_path):
    probs = answers_of_a_classifier(300, 10)
    defence = ModelGuardS(0.5, 10)
    defence(probs[:150])
    defence.save(tmp_path / "state.safetensors")
    save_file({"probs": probs}, tmp_path / "probs.safetensors")
    code = (
        "import sys; from pathlib import Path; from safetensors.torch import *\n"
        "from lottolab.modelguard import ModelGuardS\n"
        "home = Path(sys.argv[1])\n"
        "defence = ModelGuardS.load(home / 'state.safetensors')\n"
        "answers = defence(load_file(home / 'probs.safetensors')['probs'])\n"
        "save_file({'answers': answers}, home / 'answers.safetensors')\n"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True)
    there = models.load_state(tmp_path / "answers.safetensors")["answers"]
    assert torch.equal(there, defence(probs))


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"centroids": torch.eye(3)}, "must hold epsilon and centroids, got"),
        ({"epsilon": torch.tensor(9.0)}, r"epsilon must be in \[0, 2\], got 9.0"),
        ({"epsilon": torch.tensor(2.0)}, "that are not within epsilon, got 3 with 2.0"),
        ({"centroids": torch.ones(3)}, r"must hold centroids \[K, C\], got \[3\]"),
        ({"centroids": torch.ones(2, 3)}, "must sum to 1"),
    ],
)
def test_a_file_that_is_no_state_is_refused(state, message, tmp_path):
    sound = {"epsilon": torch.tensor(0.5)}
    sound["centroids"] = torch.tensor([[0.9, 0.1, 0], [0.6, 0.4, 0], [0.4, 0.3, 0.3]])
    if "centroids" in state and state["centroids"].shape == (3, 3):
        sound = {}
    save_file(sound | state, tmp_path / "state.safetensors")
    with pytest.raises(ValueError, match=message):
        ModelGuardS.load(tmp_path / "state.safetensors")


def test_a_pickle_is_never_opened(tmp_path):
    torch.save({"epsilon": torch.tensor(1.0)}, tmp_path / "state.pt")
    with pytest.raises(ValueError, match="may be a pickle, which is never opened"):
        ModelGuardS.load(tmp_path / "state.pt")
    with pytest.raises(FileNotFoundError):
        ModelGuardS.load(tmp_path / "none.safetensors")


def test_distances_are_whole_numbers_in_any_order_of_summation():
    a, b = dirichlet(50, 1000, 0.3, seed=0), dirichlet(50, 1000, 0.3, seed=1)
    far = centroids.distance(a, b)
    mixed = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(far, centroids.distance(a[:, mixed], b[:, mixed]))
    assert torch.equal(far, far.round())
    exact = [
        sum(map(abs, (r - s).long().tolist()))
        for r, s in zip(centroids.grid(a), centroids.grid(b), strict=True)
    ]
    assert far.long().tolist() == exact
