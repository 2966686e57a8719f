"""Rehearsals: what they predict, against the whole thing really run and counted."""

import json
from collections import Counter
from contextlib import contextmanager

import pandas as pd
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lottolab import cli, jobs, runs
from lottolab.images import datasets
from lottolab.jobs import named, steps
from lottolab.membership.experiments import families, targets
from lottolab.mia_pruning.experiments import treatments
from lottolab.nets import foresight, predict, tickets, train
from lottolab.reruns.rehearsal import (
    arguments,
    cost,
    meter,
    page,
    rehearsal,
    report,
    throughput,
)
from lottolab.reruns.rehearsal.meter import Held, Ledger, Meter
from lottolab.reruns.rehearsal.plan import planned
from lottolab.runs import places, store
from lottolab.truth import results

SETTING = {
    "dataset": {"name": "digits", "size": 16},
    "sizes": {"pool": 360, "models": 8, "test": 60},
    "network": {"name": "cnn4", "width": 8, "stem": "same"},
    "recipe": {"epochs": 3, "batch": 20, "lr": 0.05, "crop": 1},
    "rewind_at": 1,
}
ADMM = {"rate": 0.5, "rho": [0.01, 1.0], "admm_epochs": 2, "admm_lr": 0.02}
ADMM |= {"attacker": 0.1}
BUDGET = {"epsilon": 4.0, "delta": 1e-3, "clip": 1.0, "lr": 0.5, "batch": 20}
DENSE = {"name": "dense"}
TICKET = {"name": "ticket", "rates": [0.2, 0.3, 0.4]}


def asked() -> jobs.Work:
    """Ask for a pool's tickets, its attacks, and one network that is deeper down."""
    seeds = range(8)
    given = [SETTING | {"treatment": TICKET, "seed": s} for s in seeds]
    work = [(targets.answers, g) for g in given]
    group = SETTING | {"treatment": DENSE, "group": 0, "thorough": True}
    work.append((families.family, group))
    late = SETTING | {"treatment": {"name": "random mask", "rates": [0.5]}, "seed": 9}
    return [*work, (targets.answers, late)]


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LOTTOLAB_STORE", str(tmp_path / "store"))
    return tmp_path


def test_what_is_predicted_is_what_happens(home, on_one_thread):
    """Run everything; the rehearsal knows each run, its operations and its bytes."""
    with FlopCounterMode(display=False) as counter:
        for stage, given in asked():
            stage(**given)
    records = [
        (path, store.read_record(path.parent))
        for path in (home / "store").glob("*/*/record.json")
    ]
    found = rehearsal.rehearse(asked(), (120, 10, 2, 10))
    assert found.errors == {}
    names = {
        rehearsal._name(named.find(r["stage"]), r["arguments"]) for _, r in records
    }
    assert set(found.runs) == names
    assert len(names) == 8 * 5 + 8 * 2 + 1 + 4
    table = cost.table(found)
    counted = counter.get_total_flops() / 1e15
    assert table[cost.WORK].sum().sum() == pytest.approx(counted, rel=0.03)
    wanted = 8 * (3 + 3 * 2) * 9 + (3 + 2 + 2) * 9
    assert table["steps"].sum() == pytest.approx(wanted, rel=1e-6)
    assert table["runs"].sum() == len(names)
    written = sum(
        (path.parent / file["file"]).stat().st_size
        for path, record in records
        for file in record["files"].values()
    )
    assert table["disk GB"].sum() * 1e9 == pytest.approx(written, rel=0.1)


@contextmanager
def measuring(most: int, rows: int):
    meter = Meter(most, rows)
    with steps.watched(meter), meter.counter:
        yield meter


def test_nothing_is_left_and_the_store_is_not_touched(home):
    before = jobs.variables()
    work = [(tickets.dense, SETTING | {"seed": 1})]
    rehearsal.rehearse(work, (120, 10, 2, 10))
    assert jobs.variables() == before
    assert not (home / "store").exists()
    assert steps.watcher() is steps.NOBODY


def test_a_kind_that_fails_is_named_and_the_rest_goes_on(home):
    bad = {"name": "cnn4", "width": 9, "stem": "imagenet"}
    work = [(tickets.dense, SETTING | {"network": bad, "seed": 1})]
    work.append((tickets.dense, SETTING | {"seed": 1}))
    table = cost.table(rehearsal.rehearse(work, (120, 10, 2, 10)))
    assert table["in training"].gt(0).tolist() == [False, True]
    assert table["error"].str.contains("ValueError: stem of cnn4").tolist() == [
        True,
        False,
    ]


def test_what_fails_on_few_images_is_tried_on_more(home):
    """Batches of 100 do not fit into 60 images, but into sixteen times as many."""
    recipe = SETTING["recipe"] | {"batch": 100}
    sizes = SETTING["sizes"] | {"pool": 1200}
    work = [(tickets.dense, SETTING | {"recipe": recipe, "sizes": sizes, "seed": 1})]
    found = rehearsal.rehearse(work, (60, 100, 1, 10))
    assert found.errors == {}
    (ledger,) = found.ledgers.values()
    assert ledger.arguments["sizes"]["pool"] == 1200


# ---------------------------------------------------------------- shortcuts


def test_networks_that_differ_in_the_seed_are_made_once(home):
    given = [SETTING | {"treatment": DENSE, "seed": seed} for seed in range(3)]
    with measuring(1, 4) as meter:
        answers = [targets.answers(**g) for g in given]
    names = [places.name(ledger.stage).split(".")[-1] for ledger in meter.written]
    assert sorted(names) == ["answers"] * 3 + ["dense"]
    assert not torch.equal(answers[0]["member"], answers[1]["member"])
    assert not torch.equal(answers[0]["pool"], answers[1]["pool"])


@pytest.mark.parametrize("method", ["snip", "synflow"])
def test_scores_before_training_are_counted_in_full(method, home, on_one_thread):
    with measuring(1, 4) as meter:
        tickets.foresight(method=method, rate=0.5, seed=0, **SETTING)
    (ledger,) = (one for one in meter.written if one.stage is tickets.foresight)
    parts = tickets.read(seed=0, **SETTING)
    model, x = tickets.build(parts=parts, seed=0, **SETTING), parts["train"][0][:128]
    with FlopCounterMode(display=False) as counter:
        foresight.prune(method, model, x / 255, parts["train"][1][:128], 0.5)
    assert ledger.work["flop rest"] == pytest.approx(
        counter.get_total_flops(), rel=0.02
    )


@pytest.mark.filterwarnings("ignore:Optimal order")
@pytest.mark.parametrize(
    ("stage", "own"),
    [
        (treatments.pruned, ADMM | {"gamma": 0.0}),
        (treatments.pruned, ADMM | {"gamma": 1.0}),  # its game is a training, too
        (treatments.guarded, {"gamma": 1.0, "attacker": 0.1}),
        (treatments.private, {"budget": BUDGET}),
    ],
    ids=["ADMM", "ADMM and a game", "game", "private"],
)
def test_trainings_of_every_kind_are_counted_in_full(stage, own, home, on_one_thread):
    second = SETTING["recipe"] | {"epochs": 4}
    setting = SETTING | {"sizes": SETTING["sizes"] | {"val": 60}, "rewind_at": 0}
    given = setting | {"second": second, "seed": 1} | own
    tickets.dense(**setting, seed=1)
    with FlopCounterMode(display=False) as counter:
        stage(**given)
    found = rehearsal.rehearse([(stage, given)], (180, 10, 1, 10))
    assert found.errors == {}
    table = cost.table(found).set_index("stage")
    row = table.loc[places.name(stage)]
    counted = counter.get_total_flops() / 1e15
    # Private training draws its batches: 90 ± 9 images an epoch.
    rough = 0.25 if stage is treatments.private else 0.05
    assert row[cost.WORK].sum() == pytest.approx(counted, rel=rough)
    assert row["in training"] > 0.6 * counted
    epochs = 7 if stage is treatments.private else 4
    assert row["steps"] == pytest.approx(epochs * 9)


def test_batches_of_any_size_are_counted_by_their_images(monkeypatch):
    clock, seen = [0.0], []
    monkeypatch.setattr(meter.time, "perf_counter", lambda: clock[0])
    counted = Meter(1, 4)
    batches = [torch.zeros(n) for n in (3, 0, 5, 2, 0)]
    with steps.watched(counted):
        for batch in steps.few(batches, kind="steps"):
            seen.append(len(batch))
            clock[0] += 0.05 * len(batch)
    assert seen == [5]
    assert counted.total["steps"] == 5
    seconds = sum(counted.total[f"seconds {k}"] for k in ("rest", "training"))
    assert seconds == pytest.approx(0.5)  # of ten images, five of them looked at


def test_a_training_takes_its_last_steps_and_counts_all(on_one_thread):
    seen = []
    images = torch.randint(256, (100, 1, 16, 16), dtype=torch.uint8)
    labels = torch.randint(10, (100,))
    recipe = train.Recipe(epochs=5, batch=20, crop=0)
    parts = {"train": (images, labels), "classes": 10}
    model = tickets.build(network={"name": "cnn4", "width": 4}, parts=parts, seed=0)

    def short():
        return train.fit(
            model,
            images,
            labels,
            recipe,
            seed=0,
            after_step=lambda m, s: seen.append(s),
            rewind_at=1,
        )

    with measuring(2, 8) as meter:
        fitted = short()
        assert meter.now()["steps"] == 25
    # the last two steps of the last two epochs, and of that which is rewound to
    assert seen == [3, 4, 18, 19, 23, 24]
    assert fitted.history["epoch"].tolist() == [1, 4, 5]
    assert set(fitted.rewind) == set(model.state_dict())
    seen.clear()
    with FlopCounterMode(display=False) as counter:
        short()
    assert len(seen) == 25
    counted = meter.total["flop training"]
    assert counted == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_rows_are_computed_for_the_first_images_alone(on_one_thread):
    images = torch.randint(256, (50, 1, 16, 16), dtype=torch.uint8)
    parts = {"train": (images, torch.zeros(50).long()), "classes": 10}
    model = tickets.build(network={"name": "cnn4", "width": 4}, parts=parts, seed=0)
    seen = []
    model.register_forward_hook(lambda m, given, out: seen.append(len(out)))
    scale = (torch.tensor([0.5]), torch.tensor([0.2]))
    with measuring(2, 8):
        found = predict.logits(model, images, scale)
    assert seen == [1, 8]  # one that is asked before, see `checks`
    true = predict.logits(model, images, scale)
    assert found.shape == true.shape
    assert (found[:8] - true[:8]).abs().max() < 1
    assert len(found.unique(dim=0)) == 50


def test_what_waits_for_the_backward_pass_is_weighed():
    layers = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Sigmoid())
    for _ in range(2):
        with (held := Held()):
            for _ in range(3):  # one graph after the other
                layers(torch.zeros(11, 5)).sum().backward()
        assert held.most == 4 * (11 * 5 + 11 * 7)  # the input, and the sigmoid's output
        assert held.kept == {}


def test_the_counter_counts_what_a_formula_says():
    layer = torch.nn.Conv2d(3, 5, 3, padding=1, bias=False)
    with FlopCounterMode(display=False) as counter:
        layer(torch.zeros(2, 3, 8, 8)).sum().backward()
    forward = 2 * 2 * 5 * 64 * 3 * 9
    assert (
        counter.get_total_flops() == 2 * forward
    )  # no gradient for the first layer's input


# ---------------------------------------------------------------- arguments


def test_images_shrink_together_and_other_numbers_to_a_few():
    full = {
        "sizes": {"train": 49_000, "val": 1000, "test": 1000, "holdout": 0},
        "recipe": {"epochs": 160, "batch": 256, "milestones": [80, 120], "lr": 0.1},
        "structures": [{"network": {"width": 160}, "ratios": [0.07, 0.1, 0.2]}],
        "attack": {"name": "pgd", "steps": 20, "eot": 64, "epsilon": 0.03},
        "budget": {"batch": 2400},
        "seed": 3,
    }
    cut = arguments.shortened(full, 98, 2)
    assert cut["sizes"] == {"train": 98, "val": 2, "test": 2, "holdout": 0}
    assert cut["recipe"] == full["recipe"] | {"batch": 2}
    assert arguments.shortened({"recipe": {}}, 98, 2)["recipe"] == {"batch": 2}
    treatment = {"second": {"name": "dense"}}
    assert arguments.shortened(treatment, 98, 2) == treatment
    assert cut["structures"] == [{"network": {"width": 160}, "ratios": [0.07, 0.1]}]
    assert cut["attack"] == full["attack"] | {"steps": 2, "eot": 1}
    assert (cut["budget"], cut["seed"]) == ({"batch": 2}, 3)
    assert arguments.shortened(SETTING, 10_000, 64)["sizes"]["pool"] == 360


def test_a_network_that_attacks_trains_shorter_but_a_thief_does_not():
    full = {"attack": {"width": 1.0, "epochs": 200}, "sizes": {"pool": 900}}
    assert arguments.shortened(full, 450, 8)["attack"]["epochs"] == 4
    full["attack"]["name"] = "distilled"
    assert arguments.shortened(full, 450, 8)["attack"]["epochs"] == 200


def test_runs_are_alike_up_to_seeds_real_numbers_and_images():
    def same(**change):
        other = arguments.kind(tickets.iterative, SETTING | base | change)
        return other == arguments.kind(tickets.iterative, SETTING | base)

    base = {"seed": 1, "rates": [0.5, 0.5]}
    recipe = SETTING["recipe"]
    assert same(seed=2)
    assert same(rates=[0.1, 0.2, 0.3])
    assert same(sizes=SETTING["sizes"] | {"pool": 100})
    assert same(recipe=recipe | {"lr": 0.5})
    first, second = (
        arguments.kind(tickets.iterative, {"ratio": r}) for r in (0.5, 0.3)
    )
    assert first != second
    assert not same(rates=[0.5])
    assert not same(recipe=recipe | {"epochs": 6})
    assert not same(sizes=SETTING["sizes"] | {"test": 0})
    assert not same(network={"name": "cnn4", "width": 16})
    assert not same(dataset="cifar10")


def test_each_number_that_was_cut_is_doubled_alone():
    full = {"sizes": {"test": 1000, "train": 4000}, "recipe": {"batch": 8}, "seed": 3}
    full |= {"structures": [{"ratios": [0.1] * 10}], "rates": [0.1] * 9}
    full |= {"attack": {"name": "pgd", "steps": 20, "eot": 64}}
    cut = arguments.shortened(full, 40, 2)
    assert cut["rates"] == [0.1] * 3
    full["seed"] = 7  # another run of the kind
    wanted = {"images": 100, "steps": 10, "eot": 64, "ratios": 5}
    assert arguments.ratios(cut, full) == wanted
    longer = dict(arguments.lengthened(cut, full))
    assert set(longer) == set(wanted)
    sizes = cut | {"sizes": {"test": 20, "train": 80}}
    assert longer["images"] == sizes
    assert longer["steps"] == cut | {"attack": cut["attack"] | {"steps": 4}}
    assert longer["eot"] == cut | {"attack": cut["attack"] | {"eot": 2}}
    assert longer["ratios"] == cut | {"structures": [{"ratios": [0.1] * 4}]}
    assert arguments.ratios(cut, longer["images"]) == {"images": 2}


@pytest.mark.parametrize(
    ("more", "wanted"), [(1.0, 1), (0.9, 1), (1.5, 50.5), (2.0, 100), (4.0, 100**2)]
)
def test_growth_is_a_line_or_where_it_is_steeper_a_power(more, wanted):
    full, cut = ({"sizes": {"pool": n}, "seed": 0} for n in (3000, 30))
    grown = {"kind": {"images": {"by": 2.0, "seconds rest": more}}}
    found = rehearsal.Rehearsal({}, {"kind": Ledger(tickets.dense, cut)}, grown)
    factor = rehearsal.growth(found, "kind", full, "seconds rest")
    assert factor == pytest.approx(wanted)


def test_what_takes_long_is_computed_with_each_number_doubled(home, monkeypatch):
    """A stage that needs no entry anywhere: its work is images × draws²."""
    monkeypatch.setattr(rehearsal, "LONG", 0.0)

    @runs.stage("grows")
    def grows(*, sizes, draws):
        a, b = torch.ones(sizes["pool"], draws), torch.ones(draws, draws)
        return {"metrics": {"sum": float((a @ b).sum())}}

    full = {"sizes": {"pool": 9600}, "draws": 32}
    found = rehearsal.rehearse([(grows, full)], (240, 4, 1, 2))
    assert found.errors == {}
    (row,) = cost.table(found).to_dict("records")
    flop = 2 * 9600 * 32**2
    assert row["in the rest"] == pytest.approx(flop / 1e15, rel=1e-6)
    assert row["runs"] == 1


def test_gradients_of_images_alone_are_counted(home):
    """What attacks ask for: a leaf goes into a module, and its gradient comes out."""

    @runs.stage("attacks")
    def attacks(*, seed):
        model, x = torch.nn.Linear(5, 3), torch.ones(7, 5, requires_grad=True)
        return {"grad": torch.autograd.grad(model(x).sum(), x)[0]}

    found = rehearsal.rehearse([(attacks, {"seed": 0})], (240, 4, 1, 2))
    assert found.errors == {}
    (row,) = cost.table(found).to_dict("records")
    assert sum(row[k] for k in cost.WORK) == pytest.approx(2 * 2 * 7 * 5 * 3 / 1e15)


def test_all_models_of_a_pool_are_asked_and_all_tickets_of_a_library():
    cut = {"sizes": {"models": 6, "pool": 60}, "group": 1, "treatment": DENSE}
    full = {"sizes": {"models": 64, "pool": 900}, "group": 2, "treatment": TICKET}
    asked = [
        {"sizes": cut["sizes"], "treatment": DENSE, "seed": s} for s in range(6, 12)
    ]
    found = [each for a in asked for each in arguments.siblings(a, cut, full)]
    assert sorted(each["seed"] for each in found) == list(range(128, 192))
    assert all(each["sizes"] == full["sizes"] for each in found)
    assert all(each["treatment"] == TICKET for each in found)
    cut, full = (
        {"structures": [{"ratios": [0.1] * n}] * 4, "seed": 5} for n in (2, 10)
    )
    asked = [
        cut | {"place": place, "rank": rank} for place in range(4) for rank in (0, 1)
    ]
    found = [each for a in asked for each in arguments.siblings(a, cut, full)]
    assert len({(each["place"], each["rank"]) for each in found}) == len(found) == 40


def test_what_was_given_is_carried_and_what_was_made_stays():
    cut = {
        "a": {"dataset": "x", "n": 1},
        "dataset": "y",
        "sizes": {"train": 5},
        "seed": 1,
    }
    full = {"a": {"dataset": "p", "n": 7}, "dataset": "q", "sizes": {"train": 500}}
    full["seed"] = 2
    asked = {"dataset": "x", "sizes": {"train": 5}, "seed": 1, "n": 4, "how": "own"}
    (found,) = arguments.siblings(asked, cut, full)
    wanted = {"dataset": "p", "sizes": {"train": 500}, "seed": 2, "n": 4, "how": "own"}
    assert found == wanted
    rates = {"rates": [0.1, 0.2, 0.3]}, {"rates": [0.5, 0.6]}
    (found,) = arguments.siblings({"rates": [0.1, 0.2]}, *rates)
    assert found == {"rates": [0.5]}
    (found,) = arguments.siblings({"rates": []}, {"seed": 1}, {"seed": 2})
    assert found == {"rates": []}


def test_sparsest_is_where_the_first_rate_ends():
    found = arguments.sparsest({"rates": [0.2, 0.1], "least": 0.02, "limit": 42})
    assert len(found) == 17  # 0.8 ** 17 = 0.0225, one more is 0.018
    assert set(found) == {0.2}
    short = arguments.sparsest({"rates": [0.2], "least": 0.02, "limit": 3})
    assert len(short) == 3


# ---------------------------------------------------------------- plan, cost


@pytest.mark.parametrize("chapter", ["ownership", "ensembles", "modelguard"])
def test_the_plan_is_what_the_chapter_has_measured(chapter):
    """Each stage behind the committed table is planned, with these very arguments.

    But for `rates`, which a search may have found.
    """

    def name(stage, given):
        full = places.arguments(stage, given)
        return rehearsal._name(stage, {k: v for k, v in full.items() if k != "rates"})

    measured = set(results.read(chapter, "laptop")["stage"])
    there = results.read_stages(chapter, "laptop")
    there = there[there["stage"].isin(measured)]
    found = {
        name(named.find(f), json.loads(a))
        for f, a in zip(there["function"], there["arguments"], strict=True)
    }
    assert found <= {name(stage, given) for stage, given in planned(chapter, "laptop")}
    assert len(found) > 50


def test_planning_leaves_everything_as_it_was():
    before = (jobs.compute, jobs.plan, results.measure, results.write, datasets.get)
    with pytest.raises(ValueError, match="chapter must be one of"):
        planned("membershop", "paper")
    planned("ensembles", "smoke")
    after = (jobs.compute, jobs.plan, results.measure, results.write, datasets.get)
    assert after == before


def a_rehearsal(rest: float, seeds: int = 1) -> rehearsal.Rehearsal:
    """Make one of a kind whose run saw 300 of 3,000 images, in batches of 10."""
    full = SETTING | {"sizes": {"train": 3000}, "recipe": {"batch": 100}, "seed": 0}
    cut = full | {"sizes": {"train": 300}, "recipe": {"batch": 10}}
    work = {"steps": 30, "flop training": 3e12, "seconds training": 6}
    work |= {"flop predictions": 1e12, "seconds predictions": 2}
    work |= {"flop rest": rest, "seconds rest": 1}
    ledger = Ledger(tickets.dense, cut, Counter(work), held=2e6, parameters=10**7)
    wanted = {str(seed): (tickets.dense, full, "kind") for seed in range(seeds)}
    found = rehearsal.Rehearsal(wanted, {"kind": ledger})
    found.disk["kind"] = 10**9, 10**8
    return found


def test_costs_follow_from_the_ledger():
    (row,) = cost.table(a_rehearsal(rest=0.0, seeds=2)).to_dict("records")
    assert (row["stage"], row["network"], row["dataset"]) == (
        "tickets.dense",
        "cnn4 ×8",
        "digits",
    )
    assert (row["runs"], row["steps"]) == (2, 60)
    assert row["seconds a step"] == pytest.approx(2.0)  # 100 images of 0.02 s
    work = [row[name] for name in cost.WORK]
    assert work == pytest.approx([2 * 10 * 3e12 / 1e15, 2 * 10 * 1e12 / 1e15, 0])
    assert row["hours here"] == pytest.approx(2 * (60 + 20 + 1) / 3600)
    assert row["CPU-hours"] == pytest.approx(2 * 1 / 3600)
    assert row["disk GB"] == pytest.approx(2 * (1 + 10 * 0.1))
    assert row["GPU GB"] == pytest.approx(100 * 2e-3 + 12 * 1e-2)


def test_work_of_networks_is_no_work_for_the_processor():
    assert cost.table(a_rehearsal(rest=5e9))["CPU-hours"].tolist() == [0.0]


def test_the_batch_is_that_of_the_training():
    recipe = {"epochs": 3, "batch": 64}
    full = {"thief": {"batch": 256}, "substitute": {"recipe": recipe}}
    assert cost._batch(full) == 64
    assert cost._batch(full | {"budget": {"batch": 2400}}) == 2400
    assert cost._batch({"recipe": {}, "budget": 900}) == train.Recipe.batch


# ---------------------------------------------------------------- throughput


def test_hours_follow_from_the_nearest_loop_that_was_measured(tmp_path):
    rows = [
        ["training", "resnet18", 64, 128, 1, 50.0],
        ["training", "resnet18", 64, 16, 1, 20.0],
        ["training", "resnet18", 64, 128, 4, 90.0],  # four at once
        ["training", "resnet20", 16, 128, 1, 2.0],
        ["ticket search", "resnet18", 64, 256, 1, 100.0],
        ["attack", "resnet18", 64, 128, 1, 10.0],
        ["attack on teams", "library", 0, 32, 1, 5.0],
        ["attack on teams", "library", 0, 128, 1, None],  # failed
    ]
    columns = ["work", "network", "width", "batch", "processes", "TFLOP/s"]
    marks = {"device": "a card", "measured": "2026-11-22T23:00:00Z"}
    table = pd.DataFrame(rows, columns=columns).assign(**marks)
    table.to_csv(tmp_path / "throughput.csv", index=False)
    speeds = throughput.read(tmp_path / "throughput.csv")
    told = "for one a card, at the rates measured on it on 2026-11-22 (6 loops)"
    assert throughput.rule(speeds) == told

    def rate(*given):
        return throughput.rate(speeds, *given) / 1e12

    assert rate("training", "resnet18 ×64", 100) == 50
    assert rate("training", "resnet18 ×64", 20) == 20
    assert rate("training", "vgg16_bn ×64", 128) == 2  # the slowest
    assert rate("private training", "resnet18 ×64", 2400) == 50  # never measured
    assert rate("ticket training", "vgg16_bn ×64", 128) == 2
    assert rate("game", "resnet18 ×64", 128) == 50
    assert rate("attack", "resnet18 ×64", 999) == 10
    assert rate("attack", "library", 999) == 5
    stage = "ensembles.experiments.libraries.ticket"
    row = {"stage": stage, "network": "resnet18 ×64", "batch": 256}
    costs = pd.DataFrame([row | dict.fromkeys(cost.WORK, 1.8)])  # PFLOP
    seconds = 1800 / 100 + 1800 / 50 + 1800 / 50  # searching, and two never measured
    assert throughput.hours(costs, speeds).sum(axis=1)[0] == pytest.approx(
        seconds / 3600
    )


def test_a_speed_is_assumed_where_none_was_measured(tmp_path):
    speeds = throughput.read(tmp_path / "none.csv")
    assert "assumed, not measured" in throughput.rule(speeds)
    assert throughput.rate(speeds, "attack", "library", 8) == 30e12


# ---------------------------------------------------------------- report


def test_a_chapters_rows_replace_its_own(tmp_path):
    path, table = tmp_path / "rehearsal.csv", cost.table(a_rehearsal(rest=0.0))
    for name, runs_of in (("membership", 3), ("ownership", 1), ("membership", 2)):
        own = table.assign(runs=runs_of)
        own.insert(0, "chapter", name)
        report._keep(own, "paper", ["cifar10"], path)
    kept = report.read(path)
    assert kept["chapter"].tolist() == ["ownership", "membership"]
    assert kept["runs"].tolist() == [1, 2]
    assert kept["PFLOP"].tolist() == pytest.approx([0.04, 0.04])
    assert kept["GPU-hours"].gt(0).all()
    assert "GPU-hours" not in path.read_text()  # they follow from what was measured
    assert set(kept["tiny"]) == {"cifar10"}
    assert kept["device"].str.len().min() > 0


def test_the_command_refuses_what_is_not_there(capsys):
    assert cli.main(["rehearse", "ownershop"]) == 2
    assert "did you mean ownership" in capsys.readouterr().err
    assert cli.main(["rehearse", "ownership", "--scale", "huge"]) == 2
    assert "huge" in capsys.readouterr().err


# ---------------------------------------------------------------- page


def priced() -> pd.DataFrame:
    """Two chapters' rows: one trains, one attacks, and one of its rows has failed."""
    row = dict.fromkeys(cost.COLUMNS, 0.0) | {"error": "", "scale": "paper"}
    row |= {"network": "resnet18 ×64", "batch": 128, "runs": 2, "tiny": "cifar10"}
    rows = [
        {"chapter": "ownership", "stage": "tickets.dense", "dataset": "cifar10"}
        | {"in training": 54_000.0, "GPU GB": 3.0},
        {"chapter": "ensembles", "stage": "a", "dataset": "cifar10"}
        | {"in the rest": 108_000.0, "GPU GB": 5.0},
        {"chapter": "ensembles", "stage": "b", "dataset": "tinyimagenet"}
        | {"error": "ValueError: no"},
    ]
    table = pd.DataFrame([row | each for each in rows])
    speeds = pd.DataFrame([throughput.ASSUMED])
    hours = throughput.hours(table, speeds).sum(axis=1)
    return table.assign(**{"PFLOP": table[cost.WORK].sum(axis=1), "GPU-hours": hours})


def test_the_page_sums_chapters_and_counts_what_failed():
    rows = page.costs(priced()).set_index("chapter")
    assert rows.index.tolist() == ["ownership", "ensembles", "all"]
    # 30 TFLOP/s do 108 PFLOP an hour
    assert rows["GPU-hours"].tolist() == pytest.approx([500, 1000, 1500])
    assert rows["GPU GB"].tolist() == [3, 5, 5]
    assert rows["failed"].tolist() == [0, 1, 1]
    assert rows["data sets"]["all"] == "cifar10, tinyimagenet"


def test_the_page_says_where_the_files_go():
    rows = page.files(priced()).set_index("data set")
    where = rows["in `LOTTOLAB_DATA`"]
    assert where["cifar10"] == "cifar-10-python.tar.gz"
    assert where["tinyimagenet"] == "tiny-imagenet-200/"
    assert rows["read by"]["cifar10"] == "ownership, ensembles"
    assert rows["rehearsed with"].tolist() == ["noise", "the real files"]


def test_the_page_knows_what_was_run(monkeypatch):
    def found(chapter, scale):
        return scale == "laptop" and chapter == "ownership"

    monkeypatch.setattr(page.results, "find", found)
    rows = page.ran(priced()).set_index("chapter")
    assert rows.loc["ownership"].to_dict() == {
        "edition": "not run",
        "laptop": "run",
        "cifar": "not run",
        "paper": "rehearsed",
    }
    assert set(rows.loc["membership"]) == {"not run"}


def test_the_figure_has_a_bar_for_each_part():
    (axis,) = page.draw(priced(), pd.DataFrame([throughput.ASSUMED])).axes
    widths = [bar.get_width() for bars in axis.containers for bar in bars]
    assert sorted(widths) == pytest.approx([0, 0, 0, 0, 500, 1000])
    assert [t.get_text() for t in axis.get_yticklabels()] == ["ownership", "ensembles"]
    assert [t.get_text() for t in axis.texts if t.get_text()] == [" 500", " 1,000"]
    page.plt.close("all")
