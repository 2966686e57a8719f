"""The doctor holds a card against the CPU; a pretended one stands in for it."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from pretended import NAME, pretended

from lottolab import cli
from lottolab.machine import card
from lottolab.nets import tickets, train
from lottolab.nets.device import default_device
from lottolab.reruns.rehearsal import plan

TINY = {
    "dataset": {"name": "digits", "size": 16},
    "sizes": {"train": 120, "val": 40, "test": 40},
    "network": {"name": "cnn4", "width": 4, "stem": "same"},
    "recipe": {"epochs": 1, "batch": 40, "lr": 0.05, "crop": 1},
    "rewind_at": 0,
    "seed": 0,
}
WORK = [
    (tickets.random_mask, TINY | {"rates": [0.5]}),
    (tickets.random_mask, TINY | {"rates": [0.7]}),  # not the first: left out
    (tickets.foresight, TINY | {"rate": 0.5, "method": "snip"}),
]
ASKED = ["tickets.dense", "tickets.iterative", "tickets.random_mask"]
ASKED.append("tickets.foresight")


def fared() -> dict[str, card.Finding]:
    with pretended():
        found = list(card.compared(WORK, NAME))
    assert [one.stage for one in found] == ASKED
    return {one.stage: one for one in found}


def test_without_a_card_it_says_so_in_a_line(monkeypatch, capfd):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cli.main(["doctor", "--gpu"]) == 0
    out, err = capfd.readouterr()
    assert (out.count("\n"), err) == (1, "")
    assert out.startswith("no card")


def test_a_card_that_computes_the_same_is_told_so(on_one_thread):
    for one in fared().values():
        assert (one.mark, one.differs) == (card.SAME, "no difference")


def test_a_stage_that_computes_otherwise_there_is_told_and_no_other(
    on_one_thread, monkeypatch
):
    """What others ask of it they read as the CPU computed it."""
    retrain = tickets.retrain

    def other(state, masks, **setting):
        found = retrain(state, masks, **setting)
        factor = 2.0 if default_device() == NAME else 1.0
        found["weights"] = {k: v * factor for k, v in found["weights"].items()}
        return found

    monkeypatch.setattr(tickets, "retrain", other)
    found = fared()
    assert found["tickets.dense"].mark == card.SAME
    for name in ASKED[1:]:
        assert found[name].mark == card.DIFFERS
        assert found[name].differs.startswith("1 in ")


def test_a_stage_that_fails_there_is_told_and_the_others_go_on(
    on_one_thread, monkeypatch
):
    monkeypatch.setattr(tickets, "here", lambda x: x)
    found = fared()
    assert found["tickets.foresight"].mark == card.FAILS
    assert "all tensors on one device" in found["tickets.foresight"].differs
    assert all(found[name].mark == card.SAME for name in ASKED[:3])


@pytest.mark.parametrize("wrong", [False, True])
def test_the_page_names_each_chapter_and_counts(
    wrong, on_one_thread, monkeypatch, capfd
):
    monkeypatch.setattr(card, "found", lambda: NAME)
    monkeypatch.setattr(card, "CHAPTERS", ("first", "second"))
    monkeypatch.setattr(plan, "planned", lambda chapter, scale: WORK[:1])
    if wrong:
        epoch = train._epoch

        def failing(model, *rest):
            if next(model.parameters()).device.type == NAME:
                raise RuntimeError("not here")
            return epoch(model, *rest)

        monkeypatch.setattr(train, "_epoch", failing)
    with pretended():
        assert cli.main(["doctor", "--gpu"]) == int(wrong)
    out = capfd.readouterr().out
    assert out.isascii()
    assert max(map(len, out.splitlines())) <= 100
    assert "\nfirst\n" in out
    assert "\nsecond\n" in out
    mark = card.FAILS if wrong else card.SAME
    assert f"6 runs of stages: {0 if wrong else 6} same" in out
    assert out.count(f"\n {mark:8}tickets.dense: ") == 2


@pytest.mark.parametrize(
    ("a", "b", "far", "place"),
    [
        (torch.ones(4), torch.ones(4) * 1.5, 0.5, "x"),
        (np.array([0.0, 3.0]), np.array([0.0, 3.3]), 0.1, "x"),
        ({"deep": torch.ones(2)}, {"deep": torch.zeros(2)}, 1.0, "deep"),
        (pd.DataFrame({"v": [1.0, 4.0]}), pd.DataFrame({"v": [1.0, 2.0]}), 0.5, "v"),
        (0.2, 0.3, 0.1, "x"),
        (200, 300, 0.5, "x"),
        ("a", "b", 1.0, "x"),
        ([1, None], [1, None], 0.0, "x"),
        (math.nan, math.nan, 0.0, "x"),
        (math.nan, 1.0, math.inf, "x"),
        (torch.ones(2), torch.tensor([1.0, math.nan]), math.inf, "x"),
        (torch.ones(2), torch.ones(3), math.inf, "x"),
        ([1], [1, 2], math.inf, "x"),
        ({"a": 1}, {"b": 1}, math.inf, "x"),
        (torch.tensor([True, False]), torch.tensor([True, True]), 1.0, "x"),
    ],
)
def test_the_distance_of_two_results(a, b, far, place):
    found = card.distance({"x": a}, {"x": b})
    assert found[0] == pytest.approx(far)
    assert found[1] == place or far == 0
