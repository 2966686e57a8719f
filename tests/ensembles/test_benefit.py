"""What the best law keeps, against brute force and what is known in closed form."""

import itertools

import pytest
import torch

from lottolab.ensembles.bounds import benefit


def slow(fooled, law):
    """Ask every example about every image, one by one."""
    examples, networks, images = fooled.shape
    found = []
    for i in range(images):
        kept = [
            sum(float(law[k]) for k in range(networks) if not fooled[e, k, i])
            for e in range(examples)
        ]
        found.append(min(kept))
    return torch.tensor(found, dtype=torch.float64)


def tables(count, shape=(4, 3, 6)):
    generator = torch.Generator().manual_seed(0)
    for share in torch.linspace(0.1, 0.9, count):
        yield torch.rand(shape, generator=generator) < share


def test_what_is_left_is_the_worst_example_s():
    for fooled in tables(8):
        law = torch.rand(3).double()
        law /= law.sum()
        torch.testing.assert_close(benefit.left(fooled, law), slow(fooled, law))


def test_no_law_on_a_grid_keeps_more_than_the_best():
    grid = [
        torch.tensor(p, dtype=torch.float64) / 20
        for p in itertools.product(range(21), repeat=3)
        if sum(p) == 20
    ]
    above = 0
    for fooled in tables(8):
        best = benefit.best_law(fooled)
        value = float(benefit.left(fooled, best).mean())
        tried = [float(slow(fooled, law).mean()) for law in grid]
        assert value >= max(tried) - 1e-9
        assert value <= max(tried) + 0.15  # the grid's steps are 0.05 wide
        alone = max(float(slow(fooled, law).mean()) for law in torch.eye(3))
        above += value > alone + 1e-6
    assert above > 0  # here and there a draw helps


def test_two_networks_that_no_example_fools_at_once_share_the_loss():
    fooled = torch.zeros(2, 2, 10, dtype=torch.bool)
    fooled[0, 0, :], fooled[1, 1, :] = True, True
    law = benefit.best_law(fooled)
    assert law.tolist() == pytest.approx([0.5, 0.5])
    assert float(benefit.left(fooled, law).mean()) == pytest.approx(0.5)


def test_where_one_example_fools_all_the_best_network_is_as_good_as_any_draw():
    fooled = torch.zeros(1, 3, 10, dtype=torch.bool)
    fooled[0, 0, :6], fooled[0, 1, :4], fooled[0, 2, :5] = True, True, True
    law = benefit.best_law(fooled)
    assert law.tolist() == pytest.approx([0, 1, 0])
    assert float(benefit.left(fooled, law).mean()) == pytest.approx(0.6)


def test_nobody_fooled_and_everybody_fooled():
    for value in (False, True):
        fooled = torch.full((2, 3, 4), value)
        law = benefit.best_law(fooled)
        assert float(law.sum()) == pytest.approx(1)
        assert benefit.left(fooled, law).tolist() == [1 - value] * 4


@pytest.mark.parametrize(
    ("fooled", "law", "message"),
    [
        (torch.zeros(2, 3), torch.ones(3) / 3, "fooled must be bool"),
        (torch.zeros(2, 3, 4), torch.ones(3) / 3, "fooled must be bool"),
        (torch.zeros(0, 3, 4).bool(), torch.ones(3) / 3, "fooled must be bool"),
        ([[[True]]], torch.ones(1), "fooled must be bool"),
        (torch.zeros(2, 3, 4).bool(), torch.ones(3), "law must be one probability"),
        (torch.zeros(2, 3, 4).bool(), torch.ones(2) / 2, "law must be one prob"),
        (torch.zeros(2, 3, 4).bool(), [0.5, 0.5, 0.0], "law must be one prob"),
        (
            torch.zeros(2, 3, 4).bool(),
            torch.tensor([1.5, -0.5, 0]),
            "law must be one probability",
        ),
    ],
)
def test_bad_tables_and_laws_are_refused(fooled, law, message):
    with pytest.raises(ValueError, match=message):
        benefit.left(fooled, law)
