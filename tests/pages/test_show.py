"""What a chapter shows says what the code and the tables say."""

import inspect
import itertools
import json
import math
import re
import shutil

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_hex, to_rgb
from matplotlib.container import ErrorbarContainer
from scipy import stats as scipy_stats

from lottolab.jobs import named
from lottolab.nets import tickets
from lottolab.pages import parameters, plots, show
from lottolab.truth import claims, claims_file, results

SEEDS = (0, 1, 2, 3)
FIFTH, SPARSEST = 0.168, 0.0115
DENSE = dict(zip(SEEDS, (0.90, 0.91, 0.89, 0.90), strict=True))
# what each arm adds to the dense accuracy of its seed, at one density
LUCK = dict(zip(SEEDS, (-0.001, 0.0, 0.001, 0.0), strict=True))
MINUS_DENSE = {
    ("ticket", FIFTH): 0.002,
    ("ticket", 0.069): -0.005,
    ("ticket", SPARSEST): -0.05,
    ("random mask", FIFTH): -0.01,
    ("random mask", SPARSEST): -0.2,
    ("new initialisation", FIFTH): -0.012,
    ("new initialisation", SPARSEST): -0.15,
    ("dense, twice the epochs", 1.0): 0.004,
}
POINTS = {FIFTH: "fifth", SPARSEST: "sparsest"}


CLAIMS = """\
- {id: ownership-matches, chapter: ownership, place: Table 1, whose: paper,
   statement: It matches.,
   paper: {dense: 0.9167}, test: [
   {kind: equal, a: {metric: test_accuracy, arm: ticket, point: fifth},
    b: {metric: test_accuracy, arm: dense}, margin: 0.01}]}
- {id: ownership-breaks, chapter: ownership, place: Table 2, whose: paper,
   statement: It breaks.,
   test: [{kind: less, a: {metric: test_accuracy, arm: ticket, point: sparsest},
    b: {metric: test_accuracy, arm: dense}, margin: 0.01}]}
- {id: ownership-random, chapter: ownership, place: Table 3, whose: paper,
   statement: Any mask does.,
   test: [{kind: equal, a: {metric: test_accuracy, arm: ticket, point: sparsest},
    b: {metric: test_accuracy, arm: random mask, point: sparsest}, margin: 0.01}]}
- {id: ownership-world, chapter: ownership, place: "§1", whose: paper,
   statement: It is used.,
   not_testable: no network here is for sale}
- {id: membership-leaks, chapter: membership, place: "§2", whose: paper,
   statement: It leaks.,
   test: [{kind: at_least, a: {metric: accuracy}, value: 0.5}]}
"""


def table() -> pd.DataFrame:
    """Return measurements whose means and intervals follow from what stands above."""
    rows = [("dense", 1.0, seed, value) for seed, value in DENSE.items()]
    for (arm, density), shift in MINUS_DENSE.items():
        rows += [(arm, density, s, DENSE[s] + shift + LUCK[s]) for s in SEEDS]
    frame = pd.DataFrame(rows, columns=["arm", "density", "seed", "value"])
    return frame.assign(
        claim="",
        metric="test_accuracy",
        point=frame["density"].map(POINTS),
        stage=[f"tickets.dense/{seed}" for seed in frame["seed"]],
        fingerprint="new",
    )


@pytest.fixture
def committed(tmp_path, monkeypatch):
    """Commit a table of measurements; the code is that which made them."""
    monkeypatch.delenv("LOTTOLAB_RESULTS", raising=False)
    monkeypatch.setattr(results, "COMMITTED", tmp_path)
    monkeypatch.setattr(named, "current_of", lambda stage, full: "new")
    monkeypatch.setattr(claims_file, "FILE", tmp_path / "claims.yaml")
    (tmp_path / "claims.yaml").write_text(CLAIMS, encoding="utf-8")
    stages = [
        {"stage": f"tickets.dense/{seed}", "function": "tickets.dense"}
        | {"arguments": json.dumps({"dataset": "fashion-mnist", "seed": seed})}
        | {"data": "0123456789abcdef" * 4, "fingerprint": "new", "digest": "d"}
        | {"seconds": 50.25 * (seed + 1), "peak_mb": 1000 + seed, "device": "a cpu"}
        | {"finished": f"2026-01-0{seed + 1}T00:00:00", "versions": "torch 2.9"}
        for seed in SEEDS
    ]
    (tmp_path / "ownership").mkdir()
    pd.DataFrame(stages)[results.STAGE].to_csv(
        tmp_path / "ownership/laptop.stages.csv", index=False
    )
    table().to_csv(tmp_path / "ownership/laptop.csv", index=False)
    return tmp_path / "ownership"


def rows_of(html) -> list[list[str]]:
    found = re.findall(r"<tr.*?</tr>", html.data, re.DOTALL)
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in found]
    plain = [[re.sub(r"</?a\b.*?>", "", cell) for cell in row] for row in cells]
    return [[re.sub("&lt;", "<", cell) for cell in row] for row in plain]


# Beside the paper's tables.


def test_each_entry_stands_beside_its_counterpart(committed, monkeypatch):
    ours = "{metric: test_accuracy, arm: ticket, point: sparsest}"
    entries = [("Table 1", "R", "C", "ticket test accuracy", 0.9166, ours)]
    entries += [("Table 1", "R", "C100", "dense test accuracy", 0.66, None)]
    columns = ["place", "network", "dataset", "quantity", "value", "ours"]
    monkeypatch.setattr(
        results, "paper", lambda chapter: pd.DataFrame(entries, columns=columns)
    )
    _, *shown = rows_of(show.beside_tables("ownership", "laptop"))
    values = [100 * (DENSE[s] - 0.05 + LUCK[s]) for s in SEEDS]
    half = scipy_stats.sem(values) * scipy_stats.t.ppf(0.975, len(values) - 1)
    mean = np.mean(values)
    expected = f"{mean:.1f} [{mean - half:.1f}, {mean + half:.1f}]"
    assert shown == [["Table 1", "R, C", "ticket test accuracy", "91.7", expected]]
    entries[0] = (*entries[0][:5], "{metric: test_accuracy, arm: nobody}")
    with pytest.raises(claims.ClaimError, match="nobody"):
        show.beside_tables("ownership", "laptop")
    monkeypatch.setenv(results.OWN, "1")  # whose parameters may leave it out
    assert rows_of(show.beside_tables("ownership", "laptop"))[1][-1] == "not measured"


def test_what_happens_or_does_not_is_counted(committed, monkeypatch):
    measured = results.read("ownership", "laptop")
    measured["value"] = [1.0, 1.0, 0.0, 1.0] * (len(measured) // 4)
    monkeypatch.setattr(results, "read", lambda *given: measured)
    entry = ("Table 8", "R", "C", "decoded", 1.0, "{arm: dense}")
    columns = ["place", "network", "dataset", "quantity", "value", "ours"]
    monkeypatch.setattr(
        results, "paper", lambda chapter: pd.DataFrame([entry], columns=columns)
    )
    _, (*_, paper, ours) = rows_of(show.beside_tables("ownership", "laptop"))
    assert (paper, ours) == ("100.0", "3 of 4")


# Code and tables.


def test_what_is_shown_is_what_runs():
    text = show.code(tickets.iterative, tickets.retrain).data
    assert text.startswith(
        '```python\n@runs.stage("tickets.iterative")\ndef iterative('
    )
    assert text.endswith("\n```")
    assert inspect.getsource(tickets.iterative.__wrapped__).rstrip() in text
    assert inspect.getsource(tickets.retrain).rstrip() in text
    assert text.index("def iterative") < text.index("def retrain")
    assert "def wrapper" not in text


def test_code_from_inside_another_function_is_not_indented():
    def inner():
        return 1

    assert show.code(inner).data == "```python\ndef inner():\n    return 1\n```"


def test_a_table_formats_what_is_named_and_escapes_the_rest():
    long = "a statement that is far longer than what pandas would show, " * 3 + "."
    frame = pd.DataFrame(
        {
            "name": ["a < b & <script>", long, None],
            "share": [0.5, np.nan, 0.12345],
            "count": [1, 2, 3],
        }
    )
    html = show.table(frame, share=".1%")
    assert rows_of(html) == [
        ["name", "share", "count"],
        ["a < b &amp; <script&gt;", "50.0%", "1"],
        [long, "", "2"],
        ["", "12.3%", "3"],
    ]
    assert "<script>" not in html.data
    assert html.data.startswith('<div class="table-scroll">')
    assert frame["share"][0] == 0.5  # the caller's frame is as it was
    with pytest.raises(KeyError, match="shares"):
        show.table(frame, shares=".1%")


def test_no_table_shows_a_zero_with_a_minus_sign():
    gap = pd.DataFrame({"a": [-0.0004, -0.2], "b": [round(-0.04, 1), -0.2]})
    shown = rows_of(
        show.table(gap.assign(c=gap["a"], d=1200), a=".1%", c="+.1f", d=",.0f")
    )
    assert shown[1:] == [
        ["0.0%", "0.0", "+0.0", "1,200"],
        ["-20.0%", "-0.2", "-0.2", "1,200"],
    ]


def test_a_table_shows_all_rows():
    assert len(rows_of(show.table(pd.DataFrame({"x": range(200)})))) == 201


# Verdicts and provenance.


def test_only_smoke_is_cautioned():
    assert "smoke" in show.caution("smoke").data
    assert "{warning}" in show.caution("smoke").data
    # An empty Markdown would be shown as the name of its class.
    assert show.caution("laptop") is show.caution("paper") is None
    assert show.caution("laptop", "ownership") is None


def test_an_editions_page_says_which_parameters_are_its_own():
    said = show.caution("edition", "ownership").data
    seeds = parameters.resolve("ownership", "edition", {})["seeds"]
    assert f"but `seeds = {seeds}`." in said
    assert "scale =" not in said


def test_the_edition_shows_the_laptops_results_until_it_has_its_own(
    committed, monkeypatch
):
    laptop, edition = show.scorecard("laptop"), show.scorecard("edition")
    pd.testing.assert_frame_equal(laptop, edition)
    said = show.verdicts(edition, "edition").data
    assert "Not run at `edition` yet, so at `laptop`: ownership." in said
    assert "failed or not run: membership" in said
    assert "so at" not in show.verdicts(laptop, "laptop").data
    with monkeypatch.context() as none:
        none.setattr(results, "shown", lambda *_: "laptop")
        said = show.verdicts(edition, "edition").data
    assert said.startswith("5 claims at `laptop` scale: ")
    assert "Not run at `edition` yet, so at `laptop`: all chapters." in said
    table().assign(value=table()["value"] / 2).to_csv(committed / "edition.csv")
    stages = (committed / "laptop.stages.csv").read_text()
    (committed / "edition.stages.csv").write_text(stages)
    card = show.scorecard("edition")
    assert (card["ours"] != laptop["ours"]).any()
    assert "so at" not in show.verdicts(card, "edition").data


def test_a_chapter_that_failed_at_edition_does_not_show_its_old_tables(
    committed, monkeypatch
):
    table().assign(value=0.0).to_csv(committed / "edition.csv")
    monkeypatch.setenv(results.FAILED, "edition/ownership")
    assert results.shown("ownership", "edition") == "laptop"
    assert results.shown("ownership", "cifar") == "cifar"
    assert results.shown("membership", "edition") == "edition"


def test_the_paper_stands_beside_our_numbers(committed):
    table = show.against_paper("ownership", "laptop")
    counts = "2 reproduced, 1 refuted, 1 not testable here"
    assert table.data.startswith(f"<p>4 claims: {counts}.</p>")
    head, *shown = rows_of(table)
    assert head == ["statement", "place", "paper", "ours", "verdict"]
    # 0.2 and -5 points from the dense network, 15 points from the random mask
    verdicts = {row[0]: row[-1] for row in shown}
    assert verdicts == {
        "It matches.": "reproduced",
        "It breaks.": "reproduced",
        "Any mask does.": "refuted",
        "It is used.": "not testable here",
    }
    assert shown[0][2] == "dense 91.67 %"
    mean = np.mean([*DENSE.values()])
    assert f"{100 * mean + 0.2:.1f} − {100 * mean:.1f} = 0.2 points" in shown[0][3]


def test_verdicts_are_counted(committed):
    said, absent, _ = show.verdicts(show.scorecard("laptop"), "laptop").data.split(".")
    head, counts = said.split(": ")
    assert head == "5 claims at `laptop` scale"
    assert sorted(counts.split(", ")) == [
        "1 not run at this scale",
        "1 not testable here",
        "1 refuted",
        "2 reproduced",
    ]
    others = [name for name in claims_file.CHAPTERS if name != "ownership"]
    assert absent == f" Without results, failed or not run: {', '.join(others)}"
    said, absent, _ = show.verdicts(show.scorecard("paper"), "paper").data.split(".")
    assert said.split(": ")[1] == "4 not run at this scale, 1 not testable here"
    assert absent.endswith(", ".join(claims_file.CHAPTERS))


def test_a_chapter_that_failed_in_this_run_has_no_results(committed, monkeypatch):
    monkeypatch.setenv(results.FAILED, "smoke/ownership")  # at another scale
    assert results.find("ownership", "laptop")
    monkeypatch.setenv(results.FAILED, "laptop/membership laptop/ownership")
    assert results.find("ownership", "laptop") is None
    card = show.scorecard("laptop")
    assert set(card["verdict"]) == {claims.NOT_RUN, claims.NOT_TESTABLE}
    assert "failed or not run: ownership, " in show.verdicts(card, "laptop").data


def test_a_claim_that_a_committed_scale_is_too_old_for_was_not_run_there(
    committed, tmp_path_factory, monkeypatch
):
    old = table()[lambda t: t["arm"] != "ticket"]
    old.to_csv(committed / "cifar.csv")
    stages = (committed / "laptop.stages.csv").read_text()
    (committed / "cifar.stages.csv").write_text(stages)
    card = show.scorecard("cifar").set_index("claim")["verdict"]
    assert claims.NOT_RUN in set(card[card.index.str.startswith("ownership")])
    run = shutil.copytree(committed, tmp_path_factory.mktemp("run") / "ownership")
    monkeypatch.setenv(results.FOLDER, str(run.parent))  # a run that goes on
    with pytest.raises(claims.ClaimError, match="no row has"):
        show.scorecard("cifar")


def test_two_scales_stand_side_by_side(committed):
    """Of a scale that was not run, and of claims without a test, there is no row."""
    assert show.two_scales("laptop", "paper").empty
    table().assign(value=table()["value"] / 2).to_csv(committed / "paper.csv")
    stages = (committed / "laptop.stages.csv").read_text()
    (committed / "paper.stages.csv").write_text(stages)
    both = show.two_scales("laptop", "paper", "ownership")
    names = ["claim", "statement", "ours, laptop", "verdict, laptop"]
    assert list(both) == [*names, "ours, paper", "verdict, paper"]
    assert list(show.two_scales("laptop", "laptop")) == names
    card = show.scorecard("laptop").set_index("claim")
    tested = card[~card["verdict"].isin({claims.NOT_RUN, claims.NOT_TESTABLE})]
    assert list(both["claim"]) == list(tested.index)
    assert (both["verdict, laptop"] == both["claim"].map(card["verdict"])).all()
    assert (both["ours, laptop"] != both["ours, paper"]).any()


def test_headings_and_rates_are_in_words():
    columns = [
        "arm",
        "test_accuracy",
        "nonmember_accuracy",
        "auc, original",
        "vgg16_bn",
    ]
    cells = ["tpr at 1% fpr", 0.5, "plain auction", 0.25, 3]
    head, row = rows_of(show.table(pd.DataFrame([cells], columns=columns)))
    told = ["treatment", "test accuracy", "non-member accuracy", "AUC, original"]
    assert head == [*told, "vgg16_bn"]
    assert row == ["TPR at 1% FPR", "0.5", "plain auction", "0.25", "3"]


def test_a_claims_id_stays_as_it_is():
    ids = ["membership-equal-low-fpr", "mia-pruning-low-fpr-lower"]
    _, *rows = rows_of(show.table(pd.DataFrame({"claim": ids})))
    assert rows == [[name] for name in ids]


def test_a_pivoted_table_has_no_column_of_its_own():
    long = pd.DataFrame({"arm": ["dense", "ticket"], "auc": [0.6, 0.7], "seed": [0, 0]})
    wide = long.pivot_table(index="seed", columns="arm", values="auc").reset_index()
    rows = rows_of(show.table(wide))
    assert rows == [["seed", "dense", "ticket"], ["0", "0.6", "0.7"]]


def test_a_claim_on_stale_numbers_says_so(committed, monkeypatch):
    assert not show.scorecard("laptop")["note"].str.contains("stale").any()
    monkeypatch.setattr(named, "current_of", lambda stage, full: "newer")
    card = show.scorecard("laptop")
    judged = ~card["verdict"].isin({claims.NOT_RUN, claims.NOT_TESTABLE})
    assert judged.sum() == 3
    assert card.loc[judged, "note"].str.contains("stale").all()


def test_provenance_adds_up(committed):
    path = committed / "laptop.csv"
    changed = pd.read_csv(path)
    changed.loc[:2, "fingerprint"] = "old"
    changed.to_csv(path, index=False)
    facts = dict(rows_of(show.provenance("ownership", "laptop"))[1:])
    assert facts["data set"] == "fashion-mnist"
    assert facts["its sha256"] == "0123456789abcdef …"
    assert facts["seeds"] == "0, 1, 2, 3"
    assert facts["measurements"] == f"{len(changed)}, on the results of 4 stages"
    assert facts["stale"] == f"3 of {len(changed)} measurements"
    assert facts["computing time"] == "8 min 22 s, one thread each"  # 50.25 × 10
    assert facts["peak memory"].startswith("1,003 MB")
    assert facts["finished"] == "2026-01-01T00:00:00 to 2026-01-04T00:00:00"
    assert facts["device"] == "a cpu"
    assert facts["code"] == "1 fingerprints, one a kind of stage"
    assert facts["tables"].startswith("data/results/ownership/laptop.csv")


def test_provenance_counts_what_the_stages_asked_for(committed):
    path = committed / "laptop.stages.csv"
    stages = pd.read_csv(path, keep_default_na=False)
    nested = stages[:1].assign(stage="tickets.dense/nested", seconds=60)
    pd.concat([stages, nested]).to_csv(path, index=False)
    facts = dict(rows_of(show.provenance("ownership", "laptop"))[1:])
    assert "on the results of 4 stages, which asked 1 more" in facts["measurements"]
    assert facts["computing time"].startswith("9 min 22 s")


def test_only_a_run_of_ones_own_may_lack_the_rows_of_a_claim(committed, monkeypatch):
    path = committed / "laptop.csv"
    measured = pd.read_csv(path)
    measured[measured["arm"] != "random mask"].to_csv(path, index=False)
    with pytest.raises(claims.ClaimError, match="ownership-random"):
        show.against_paper("ownership", "laptop")
    monkeypatch.setenv(results.OWN, "1")
    verdicts = {r[0]: r[-1] for r in rows_of(show.against_paper("ownership", "laptop"))}
    assert verdicts["Any mask does."] == claims.UNJUDGED
    assert verdicts["It matches."] == "reproduced"


def test_provenance_of_stages_without_data_or_seed(committed):
    path = committed / "laptop.stages.csv"
    stages = pd.read_csv(path, keep_default_na=False)
    stages.loc[0, ["arguments", "data"]] = ["{}", ""]
    stages.to_csv(path, index=False)
    facts = dict(rows_of(show.provenance("ownership", "laptop"))[1:])
    assert facts["data set"] == "fashion-mnist"
    assert facts["its sha256"] == "0123456789abcdef …"
    assert facts["seeds"] == "1, 2, 3"


# Figures.


@pytest.fixture
def figure():
    plots.style()
    yield plots.against_density(table(), paper=(0.19369, -0.01))
    plt.close("all")
    mpl.rcdefaults()


def interval(arm: str, density: float) -> tuple[float, float, float]:
    """Compute mean and 95 % interval of the difference, in points, with scipy."""
    x = 100 * (MINUS_DENSE[arm, density] + np.array([*LUCK.values()]))
    half = scipy_stats.t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / math.sqrt(len(x))
    return x.mean(), x.mean() - half, x.mean() + half


def test_the_figure_has_one_line_an_arm_with_its_intervals(figure):
    (axis,) = figure.axes
    bars = [c for c in axis.containers if isinstance(c, ErrorbarContainer)]
    arms = ["ticket", "random mask", "new initialisation"]
    assert [c.get_label() for c in bars] == arms
    for container, arm in zip(bars, arms, strict=True):
        line, _, (segments,) = container
        densities = sorted(d for a, d in MINUS_DENSE if a == arm)
        assert line.get_xdata().tolist() == densities
        assert to_hex(line.get_color()) == plots.COLOURS[arm].lower()
        for density, y, ends in zip(
            densities, line.get_ydata(), segments.get_segments(), strict=True
        ):
            mean, low, high = interval(arm, density)
            assert y == pytest.approx(mean)
            assert ends.tolist() == pytest.approx(
                np.array([[density, low], [density, high]])
            )


def test_the_figure_has_the_paper_and_its_criterion(figure):
    (axis,) = figure.axes
    lines = {line.get_label(): line for line in axis.get_lines()}
    star = lines["paper, CIFAR-10"]
    assert (*star.get_xdata(), *star.get_ydata()) == (0.19369, -0.01)
    dashed = [line for line in axis.get_lines() if line.get_linestyle() == "--"]
    assert [set(line.get_ydata()) for line in dashed] == [{-0.01}]
    for mark in (star, *dashed):
        assert to_hex(mark.get_color()) == plots.COLOURS["paper"].lower()
    (band,) = axis.patches
    assert sorted({y for _, y in band.get_corners()}) == [-1, 1]


def test_the_figure_reads_from_dense_to_sparse(figure):
    (axis,) = figure.axes
    assert axis.get_xscale() == "log"
    left, right = axis.get_xlim()
    assert left >= 1 > SPARSEST >= right
    ticks = [text.get_text() for text in axis.get_xticklabels()]
    assert ticks == [f"{SPARSEST:.1%}", "6.9%", "17%", "100%"]
    assert "density" in axis.get_xlabel()
    assert "points" in axis.get_ylabel()
    legend = {text.get_text() for text in axis.get_legend().get_texts()}
    assert {"ticket", "random mask", "new initialisation"} < legend


def test_an_arm_that_was_not_measured_is_not_drawn():
    some = table()[lambda t: t["arm"].isin(["dense", "ticket"])]
    axis = plots.against_density(some, paper=(0.2, 0.0)).axes[0]
    assert [c.get_label() for c in axis.containers] == ["ticket"]
    plt.close("all")


def test_a_seed_without_its_dense_network_is_refused():
    short = table()[lambda t: (t["arm"] != "dense") | (t["seed"] != 2)]
    with pytest.raises(ValueError, match="same seeds"):
        plots.against_density(short, paper=(0.2, 0.0))
    plt.close("all")


def test_the_summary_is_what_one_computes_by_hand():
    shown = plots.summary(table()).set_index(["arm", "density"])
    assert len(shown) == 1 + len(MINUS_DENSE)
    dense = shown.loc[("dense", 1.0)]
    assert dense["accuracy"] == pytest.approx(0.9)
    assert dense["minus dense, points"] == ""
    for (arm, density), shift in MINUS_DENSE.items():
        row = shown.loc[(arm, density)]
        assert row["accuracy"] == pytest.approx(0.9 + shift)
        mean, low, high = interval(arm, density)
        assert row["minus dense, points"] == f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"
        assert row["seeds"] == len(SEEDS)
    order = [arm.split(",")[0] for arm, _ in shown.index]
    assert list(dict.fromkeys(order)) == list(plots.COLOURS)[:4]
    tickets_only = [density for arm, density in shown.index if arm == "ticket"]
    assert tickets_only == sorted(tickets_only, reverse=True)


def luminance(colour: str) -> float:
    """Compute the relative luminance of WCAG 2."""
    c = np.array(to_rgb(colour))
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_arms_can_be_told_apart_without_colour():
    assert len({to_rgb(c) for c in plots.COLOURS.values()}) == len(plots.COLOURS)
    assert len(set(plots.MARKERS.values())) == len(plots.MARKERS)
    assert set(plots.MARKERS) < set(plots.COLOURS)
    for a, b in itertools.combinations(plots.COLOURS.values(), 2):
        assert np.abs(np.subtract(to_rgb(a), to_rgb(b))).max() > 0.2
    for colour in plots.COLOURS.values():  # WCAG asks 3 : 1 of graphics on white
        assert 1.05 / (luminance(colour) + 0.05) >= 3


def test_samples_are_the_first_of_each_class():
    images = torch.arange(6, dtype=torch.uint8)[:, None, None, None].repeat(1, 1, 4, 4)
    labels = torch.tensor([2, 1, 2, 0, 1, 0])
    drawn = plots.samples(images, labels, ["none", "one", "two"])
    assert [axis.get_title() for axis in drawn.axes] == ["none", "one", "two"]
    shown = [axis.get_images()[0] for axis in drawn.axes]
    assert [int(image.get_array()[0, 0]) for image in shown] == [3, 1, 0]
    assert {image.get_clim() for image in shown} == {(0, 255)}
    plt.close("all")
