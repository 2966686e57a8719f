"""Chapter 2's figures draw what a groupby finds, and say what was not measured."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_hex
from scipy import stats

from lottolab.membership import figures
from lottolab.pages.plots import COLOURS

pytestmark = [
    pytest.mark.filterwarnings("error"),
    pytest.mark.usefixtures("rendered"),
]

LEVELS = {"none": 0.0, "ticket": 0.8, "high": 0.95}
SEEDS = range(3)
SKY = "#56B4E9"
NAMES = ["coat", "bag"]


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """Rows of every point, and others beside them that no figure may count."""
    rows = []

    def add(arms=(None,), levels=(None,), **axes):
        made = [(arm, level) for arm in arms for level in levels if arm != "dense"]
        made += [("dense", "none")] if "dense" in arms else []
        for (arm, level), *marks, seed in itertools.product(
            made, *axes.values(), SEEDS
        ):
            row = dict(zip(axes, marks, strict=True)) | {"seed": seed}
            rows.append(row | {"arm": arm, "level": level})

    pair, levels = ["dense", "one-shot"], ["ticket", "high"]
    every = [*pair, "late", "random mask", "iterative", "snip", "grasp", "synflow"]
    every += ["partner's mask", "outsiders' mask"]
    both = {"network": ["small", "larger"]}
    mlp = {"attack": ["mlp", "svm"], "metric": ["accuracy", "auc"]}
    asked = {"metric": ["member_accuracy", "nonmember_accuracy", "fresh_accuracy"]}
    add(every[:4], levels, point=["curve"], **both, **mlp)
    add(every[:4], levels, point=["curve"], **both, **asked)
    add(pair, levels[:1], point=["samples"], **both, **mlp, samples=[8, 500, 2000])
    designs = {"point": ["fixed total", "fixed per class", "same images"]}
    designs |= {"attack": ["mlp, chosen", "loss threshold", "mlp"]}
    designs |= {"classes": [10, 100, 1000]}
    add(pair, **designs, metric=["accuracy", "auc"])
    known = ["small, dense", "small, ticket", "larger, dense"]
    both = {"source": known, "target": known, "metric": ["accuracy", "auc"]}
    add(point=["transfer"], **both)
    attacks = ["correctness", "loss", "lira, offline_tail", "lira, online", "mlp"]
    attacks += ["strongest"]
    family = {"point": ["family", "other"], "attack": attacks}
    add(every, levels, **family, metric=["auc", "tpr at 1% fpr", "accuracy"])
    add(every, levels, **family, metric=["auc in class"], **{"class": [0, 1]})
    found = pd.DataFrame(rows)
    found["sparsity"] = found["level"].map(LEVELS)
    return found.assign(value=np.random.default_rng(0).uniform(0.1, 0.9, len(found)))


def dots(axis) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Return the label, x and y of every set of dots."""
    found = [(c.get_label(), c.lines[0].get_data()) for c in axis.containers]
    return [(name, x.astype(float), y.astype(float)) for name, (x, y) in found]


def means(table: pd.DataFrame, by: str, query: str) -> np.ndarray:
    return 100 * table.query(query).groupby(by)["value"].mean().to_numpy()


def texts(axis) -> list[str]:
    return [t.get_text() for t in axis.texts]


def ticks(side) -> list[str]:
    return [t.get_text() for t in side.get_ticklabels()]


def level_lines(axis) -> list[float]:
    """Return the heights of the lines that cross the axis and are no measurement."""
    own = {id(line) for c in axis.containers for line in [c.lines[0]]}
    lines = [x for x in axis.lines if id(x) not in own and len(x.get_ydata()) == 2]
    return [
        float(x.get_ydata()[0]) for x in lines if x.get_label() in ("chance", "paper")
    ]


def test_curve(table):
    figure = figures.curve(table, {"small": (0.94, 0.96)})
    above, _, below, _ = figure.axes
    for axis, network in zip(figure.axes, ["small", "larger"] * 2, strict=True):
        assert ticks(axis.xaxis) == ["0 %", "80 %", "95 %"] or axis in figure.axes[:2]
        assert axis.get_title() in (f"{network} network", "")
        attack = "attack == 'mlp' and metric == 'accuracy'"
        kinds = ["metric == 'member_accuracy'", "metric == 'nonmember_accuracy'"]
        upper = axis in figure.axes[:2]
        found = iter(dots(axis))
        for kind in [attack] if upper else kinds:
            query = f"point == 'curve' and network == '{network}' and {kind}"
            lines = {
                "arm in ('dense', 'one-shot')": [0, 1, 2],
                "arm == 'dense'": [0],
                "arm == 'late'": [0.8, 1.8],
                "arm == 'random mask'": [1.2, 2.2],
            }
            for arm, places in lines.items():
                _, x, y = next(found)
                np.testing.assert_allclose(x, places)
                expected = means(table, "sparsity", f"{query} and {arm}")
                np.testing.assert_allclose(y, expected)
        assert next(found, None) is None
    assert [name for name, *_ in dots(above)] == [
        "one-shot",
        "dense",
        "late",
        "random mask",
    ]
    assert level_lines(above) == [94, 96, 50]
    fills = [to_hex(c.lines[0].get_markerfacecolor()) for c in below.containers]
    assert fills[0].upper() == COLOURS["ticket"]
    assert fills[4:] == ["#ffffff"] * 4


def test_interval_is_students(table):
    axis = figures.curve(table).axes[0]
    query = "point == 'curve' and network == 'small' and arm == 'late'"
    rows = table.query(f"{query} and attack == 'mlp' and metric == 'accuracy'")
    values = 100 * rows[rows["level"] == "high"]["value"]
    bar = axis.containers[2].lines[2][0].get_segments()[1]
    expected = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
    np.testing.assert_allclose(bar[:, 1], expected)
    assert level_lines(axis) == [50]


def test_classes(table):
    paper = {10: 0.5, 100: 0.74, 1000: 0.94}
    figure = figures.classes(table, paper)
    designs = ["fixed total", "fixed per class", "same images"]
    for axis, design in zip(figure.axes, designs, strict=True):
        found = {name: (x, y) for name, x, y in dots(axis)}
        for arm, attack in itertools.product(
            ["dense", "one-shot"], ["MLP", "loss threshold"]
        ):
            x, y = found.pop(f"{arm}, {attack}")
            query = f"point == '{design}' and arm == '{arm}' and metric == 'accuracy'"
            of = "mlp, chosen" if attack == "MLP" else attack
            expected = means(table, "classes", f"{query} and attack == '{of}'")
            np.testing.assert_allclose(y, expected)
            np.testing.assert_allclose(x, [10, 100, 1000], rtol=0.05)
        assert not found
        dashed = next(x for x in axis.lines if x.get_label() == "paper")
        np.testing.assert_allclose(dashed.get_ydata(), [50, 74, 94])
        assert dashed.get_color() == COLOURS["paper"]
        assert dashed.get_linestyle() == "--"
        assert (axis.get_xscale(), level_lines(axis)) == ("log", [50])
        assert ticks(axis.xaxis) == ["10", "100", "1,000"]
    entries = [t.get_text() for t in figure.legends[0].get_texts()]
    assert len(entries) == len(set(entries)) == 6


def test_samples(table):
    figure = figures.samples(table)
    for axis, network in zip(figure.axes, ["small", "larger"], strict=True):
        for (name, x, y), arm in zip(dots(axis), ["dense", "one-shot"], strict=True):
            assert name == f"{arm}, MLP"
            query = f"point == 'samples' and network == '{network}' and arm == '{arm}'"
            query += " and attack == 'mlp' and metric == 'accuracy'"
            np.testing.assert_allclose(y, means(table, "samples", query))
            np.testing.assert_allclose(x, [8, 500, 2000], rtol=0.05)
        assert ticks(axis.xaxis) == ["8", "500", "2,000"]


def test_transfer(table):
    axis = figures.transfer(table, {"ticket": "80 %"}).axes[0]
    rows = table.query("point == 'transfer' and metric == 'accuracy'")
    order = ["small, dense", "small, ticket", "larger, dense"]
    by = rows.groupby(["source", "target"])["value"].mean()
    expected = [[100 * by[source, target] for target in order] for source in order]
    np.testing.assert_allclose(axis.collections[0].get_array(), expected)
    assert texts(axis) == [f"{v:.1f}" for v in np.ravel(expected)]
    names = ["small, dense", "small, 80 %", "larger, dense"]
    assert ticks(axis.xaxis) == ticks(axis.yaxis) == names


def test_attacks(table):
    figure = figures.attacks(table)
    lines = ["MLP (the paper's)", "gap (correctness)", "loss"]
    lines += ["LiRA, offline (tail)", "LiRA, online", "the strongest, chosen elsewhere"]
    attacks = ["mlp", "correctness", "loss", "lira, offline_tail", "lira, online"]
    attacks += ["strongest"]
    assert ticks(figure.axes[0].yaxis) == lines
    assert figure.axes[0].yaxis_inverted()
    three = {"dense": "none", "one-shot, 80 %": "ticket", "one-shot, 95 %": "high"}
    chance = {"auc": 50, "tpr at 1% fpr": 1}
    for axis, metric in zip(figure.axes, chance, strict=True):
        assert "(%)" in axis.get_xlabel()
        assert [name for name, *_ in dots(axis)] == list(three)
        for (_, x, y), level in zip(dots(axis), three.values(), strict=True):
            query = f"point == 'family' and level == '{level}' and metric == '{metric}'"
            rows = table.query(query + " and arm in ('dense', 'one-shot')")
            expected = rows.groupby("attack")["value"].mean()[attacks]
            np.testing.assert_allclose(x, 100 * expected)
            np.testing.assert_allclose(y, range(6), atol=0.3)
        assert axis.lines[0].get_xdata()[0] == chance[metric]
    assert [a.get_xscale() for a in figure.axes] == ["linear", "log"]


def test_rates_of_zero_have_a_linear_axis(table):
    gap = (table["attack"] == "correctness") & (table["metric"] == "tpr at 1% fpr")
    figure = figures.attacks(table.assign(value=table["value"].where(~gap, 0)))
    assert figure.axes[1].get_xscale() == "linear"
    assert min(dots(figure.axes[1])[0][1]) == 0


def test_an_interval_below_zero_fits_a_logarithmic_axis(table):
    seeds = table["seed"].map({0: 0.3, 1: 0.001, 2: 0.001})
    rates = table.assign(value=seeds.where(table["metric"] == "tpr at 1% fpr", 0.5))
    axis = figures.treatments(rates).axes[1]
    low = axis.containers[0].lines[2][0].get_segments()[0][0, 0]
    assert low < 0
    assert axis.get_xscale() == "log"
    assert 0.01 < axis.get_xlim()[0] <= 1


def test_treatments(table):
    figure = figures.treatments(table)
    ways = {"iterative": "iterative", "SNIP": "snip", "GraSP": "grasp"}
    ways |= {"SynFlow": "synflow", "random mask": "random mask"}
    ways |= {"outsiders’ mask": "outsiders' mask", "partner’s mask": "partner's mask"}
    arms = {"dense": ("dense", "none"), "one-shot, 80 %": ("one-shot", "ticket")}
    arms |= {"one-shot, 95 %": ("one-shot", "high")}
    arms |= {f"{name}, 95 %": (arm, "high") for name, arm in ways.items()}
    assert ticks(figure.axes[0].yaxis) == list(arms)
    rows = table.query("point == 'family' and attack == 'strongest'")
    for axis, metric in zip(figure.axes, ["auc", "tpr at 1% fpr"], strict=True):
        by = rows[rows["metric"] == metric].groupby(["arm", "level"])["value"].mean()
        found = [(x, y) for _, x, y in dots(axis)]
        np.testing.assert_allclose(
            np.ravel(found).reshape(-1, 2),
            [(100 * by[key], line) for line, key in enumerate(arms.values())],
        )
    colours = [c.lines[0].get_color() for c in figure.axes[0].containers]
    assert colours[:3] == [COLOURS["dense"], COLOURS["ticket"], SKY]
    assert colours[3:] == [SKY] * 4 + [COLOURS["random mask"], SKY, SKY]


def test_by_class(table):
    figure = figures.by_class(table, NAMES)
    assert ticks(figure.axes[0].yaxis) == NAMES
    rows = table.query("point == 'family' and metric == 'auc in class'")
    rows = rows[(rows["attack"] == "lira, online")]
    by = rows.groupby(["arm", "level", "class"])["value"].mean()
    keys = [("dense", "none"), ("one-shot", "ticket"), ("one-shot", "high")]
    for (_, x, _), (arm, level) in zip(dots(figure.axes[0]), keys, strict=True):
        np.testing.assert_allclose(x, 100 * by[arm, level])
    assert figure.axes[0].get_xlabel() == "AUC within the class (%)"


def test_roc_is_that_of_every_threshold():
    rng = torch.Generator().manual_seed(0)
    member = torch.rand(3, 40, generator=rng) < 0.5
    scores = (torch.randn(3, 40, generator=rng) + member).round(decimals=1).double()
    axis = figures.roc({"dense": (scores, member), "ticket": (-scores, member)}).axes[0]
    line, other, _ = axis.lines
    found = [(0.0, 0.0)]
    for threshold in sorted(scores.unique().tolist(), reverse=True):
        told = (scores >= threshold).double()
        found.append([100 * told[kind].mean().item() for kind in (~member, member)])
    np.testing.assert_allclose(np.transpose(line.get_data()), found)
    assert line.get_drawstyle() == "steps-post"
    assert (line.get_color(), other.get_color()) == ("#000000", COLOURS["ticket"])
    assert axis.get_xscale() == axis.get_yscale() == "log"
    assert axis.get_xlim() == (0.01, 100)
    assert other.get_ydata().mean() < line.get_ydata().mean()


def test_exposure():
    rng = np.random.default_rng(1)
    first = torch.from_numpy(rng.normal(size=50))
    second = first + torch.from_numpy(rng.normal(size=50))
    first[3], second[5] = torch.nan, torch.nan
    axis = figures.exposure(first, second, ("dense", "ticket")).axes[0]
    kept = np.delete(np.arange(50), [3, 5])
    pairs = np.stack([first, second], 1)[kept]
    np.testing.assert_array_equal(axis.collections[0].get_offsets(), pairs)
    rank = stats.spearmanr(*pairs.T).statistic
    assert axis.get_title() == f"rank correlation {rank:.2f}, 48 images"
    assert axis.get_xlabel() == "exposure by dense"
    assert axis.get_ylabel() == "exposure by ticket"


@pytest.mark.parametrize("channels", [1, 3])
def test_examples(channels):
    size = (6, channels, 4, 5)
    images = torch.randint(0, 256, size, dtype=torch.uint8)
    figure = figures.examples(images, {"both": [4, 2, 0], "hidden": [1], "none": []})
    grid = np.reshape(figure.axes, (3, 3))
    for line, places in zip(grid, ([4, 2, 0], [1], []), strict=True):
        shown = [axis.images[0].get_array() for axis in line if axis.images]
        for picture, place in zip(shown, places, strict=True):
            expected = images[place].permute(1, 2, 0).squeeze(2).numpy()
            np.testing.assert_array_equal(picture, expected)
    titles = [axis.get_title(loc="left") for axis in grid[:, 0]]
    assert titles == ["both", "hidden", "none"]


DRAW = {
    "curve": figures.curve,
    "classes": lambda table: figures.classes(table, {10: 0.5}),
    "samples": figures.samples,
    "transfer": lambda table: figures.transfer(table, {}),
    "attacks": figures.attacks,
    "treatments": figures.treatments,
    "by_class": lambda table: figures.by_class(table, NAMES),
}


@pytest.mark.parametrize("name", DRAW)
def test_what_is_missing_is_said(table, name):
    figure = DRAW[name](table.iloc[:0])
    assert all(texts(axis) == ["not measured"] for axis in figure.axes)
    assert not any("not measured" in texts(a) for a in DRAW[name](table).axes)


def test_a_missing_rate_leaves_the_other_panel(table):
    for draw in (figures.attacks, figures.treatments):
        left, right = draw(table[table["metric"] != "tpr at 1% fpr"]).axes
        assert "not measured" not in texts(left)
        assert texts(right) == ["not measured"]


@pytest.mark.parametrize("name", DRAW)
def test_one_seed_has_no_interval(table, name):
    figure = DRAW[name](table[table["seed"] == 0])
    bars = [c.lines[2][0] for axis in figure.axes for c in axis.containers]
    assert not any(len(ends) > 1 for bar in bars for ends in bar.get_segments())


@pytest.mark.parametrize("name", [name for name in DRAW if name != "transfer"])
def test_two_values_for_a_model_are_refused(table, name):
    with pytest.raises(ValueError, match=r"one value a seed, got \[0, 1, 2\]"):
        DRAW[name](pd.concat([table, table]))


def test_bad_families_are_refused():
    with pytest.raises(ValueError, match="dense: scores and membership must be alike"):
        figures.roc({"dense": (np.zeros((2, 3)), np.zeros((3, 2)))})
    with pytest.raises(ValueError, match="at most 5 families fit, got 6"):
        figures.roc(dict.fromkeys("abcdef", (np.zeros(2), np.array([0, 1]))))
