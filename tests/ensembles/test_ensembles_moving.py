"""Chapter 3's figure that moves holds what the table says, at every state."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from scipy import stats

from lottolab.ensembles import moving
from lottolab.pages import moving as frame

pytestmark = pytest.mark.usefixtures("rendered")
RADII, DRAWS = [0.0, 8.0, 20.0], [1, 2, 20]
ARMS = [("dense", "first"), ("dense", "second"), ("R2S", "first"), ("ensemble", "all")]
PAPER = {0: 0.8701, 8: 0.6772}


def measured(libraries=3) -> pd.DataFrame:
    """Make another number for each row; rows of other points would be wrong."""
    rng, rows = np.random.default_rng(0), []
    for arm, place in ARMS:
        for radius in RADII:
            marks = {"arm": arm, "place": place, "epsilon": radius, "attack": "PGD"}
            for seed in range(libraries):
                for point, again, metric in [
                    ("curve", None, "accuracy"),
                    ("curve", None, "worst"),
                    ("main", None, "accuracy"),
                    *(("again", n, m) for n in DRAWS[1:] for m in ("worst", "drop")),
                ]:
                    own = {"point": point, "again": again, "metric": metric}
                    value = rng.uniform(0.2, 0.9)
                    rows.append(marks | own | {"seed": seed, "value": value})
    return pd.DataFrame(rows)


def wanted(table, arm, n, radius):
    """Return mean and interval over libraries, by the formula."""
    own = table[(table["arm"] == arm) & (table["place"] != "second")]
    own = own[own["epsilon"] == radius]
    if n == 1:
        own = own[(own["point"] == "curve") & (own["metric"] == "accuracy")]
    else:
        own = own[(own["again"] == n) & (own["metric"] == "worst")]
    x = own["value"]
    half = stats.t.ppf(0.975, len(x) - 1) * x.std() / np.sqrt(len(x))
    return [x.mean(), x.mean() - half, x.mean() + half]


def page_of(table):
    page = moving.again(table, DRAWS, PAPER).data
    return page, json.loads(re.search(r"json\">(.*?)</script>", page, re.DOTALL)[1])


@pytest.fixture(autouse=True)
def drawn(monkeypatch):
    monkeypatch.setattr(frame, "display", lambda figure: figure.canvas.draw())


def test_each_state_tells_every_defence_with_its_interval():
    table = measured()
    _, found = page_of(table)
    options = {c["name"]: c["options"] for c in found["controls"]}
    assert options[moving.RADIUS] == ["no attack", "8/255", "20/255"]
    assert options[moving.DRAWS] == ["1", "2", "20"]
    arms, cells = list(found["readout"]["rows"]), found["readout"]["cells"]
    assert arms == ["dense", "R2S", "ensemble"]
    assert cells["names"] == [moving.RADIUS, moving.DRAWS]
    for i, radius in enumerate(RADII):
        for j, n in enumerate(DRAWS):
            for arm, (right, taken) in zip(arms, cells["values"][i][j], strict=True):
                own = wanted(table, arm, n, radius)
                assert right == pytest.approx(own, rel=1e-4)
                without = wanted(table, arm, n, 0.0)[0] - own[0]
                assert taken == pytest.approx(without, abs=1e-4)


def test_lines_follow_the_draws_and_dots_the_radius():
    table = measured()
    _, found = page_of(table)
    (panel,) = found["panels"]
    for line in panel["series"][:-1]:
        for j, n in enumerate(DRAWS):
            own = [wanted(table, line["name"], n, radius) for radius in RADII]
            drawn = line["y"]["values"][j]
            assert drawn == pytest.approx([x[0] for x in own], rel=1e-3)
            for i, radius in enumerate(RADII):
                assert line["dot"]["values"][i][j] == [radius, drawn[i]]
                reach = line["reach"]["values"][i][j]
                assert reach == pytest.approx([radius, radius, *own[i][1:]], rel=1e-3)
    paper = panel["series"][-1]
    assert (paper["x"]["values"], paper["y"]["values"]) == ([0, 8], [0.8701, 0.6772])


def test_one_library_has_no_interval_and_still_a_figure():
    _, found = page_of(measured(1))
    assert all(
        len(right) == 1 for right, _ in found["readout"]["cells"]["values"][1][1]
    )


def test_the_folded_table_has_every_state():
    table = measured()
    folded = BeautifulSoup(page_of(table)[0], "html.parser").find("table")
    lines = folded.find("tbody").find_all("tr")
    assert len(lines) == 3 * len(DRAWS)
    mean, low, high = (100 * x for x in wanted(table, "R2S", 20, 8.0))
    assert f"{mean:.1f} % ({low:.1f} to {high:.1f} %)" in folded.text


def test_a_state_that_was_not_measured_is_refused():
    table = measured()
    missing = table["arm"].eq("R2S") & table["again"].eq(20) & table["epsilon"].eq(8)
    with pytest.raises(ValueError, match=r"must be measured in each state.*R2S.*20"):
        page_of(table[~missing])
