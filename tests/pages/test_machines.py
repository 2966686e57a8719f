"""What two machines' intervals should hold is what simulated ones do."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from lottolab.pages.verdicts import machines
from lottolab.truth import claims_file, results

CLAIMS = """\
- {id: ownership-more, chapter: ownership, place: "1", whose: paper,
   statement: More., test: [
   {kind: greater, a: {metric: m, arm: a}, b: {metric: m, arm: b}},
   {kind: at_least, a: {metric: m, arm: c}, value: 0}]}
- {id: ownership-all, chapter: ownership, place: "1", whose: paper,
   statement: All., test: [
   {kind: every, a: {metric: does, arm: a}, value: 1}]}
- {id: ownership-gone, chapter: ownership, place: "1", whose: paper,
   statement: No., test: [
   {kind: at_least, a: {metric: m, arm: gone}, value: 0}]}
"""


def pairs(n: int, shared: float, times: int, seed: int) -> tuple[np.ndarray, ...]:
    """Draw what two machines measure: float[times, n] each, correlated by seed."""
    draw = np.random.default_rng(seed).standard_normal((3, times, n))
    both, own = math.sqrt(shared), math.sqrt(1 - shared)
    return both * draw[0] + own * draw[1], both * draw[0] + own * draw[2]


@pytest.mark.parametrize(("n", "shared"), [(3, 0), (10, 0), (10, 0.5), (16, 0.9)])
def test_what_is_expected_is_what_intervals_do(n, shared):
    times = 40_000
    x, y = pairs(n, shared, times, seed=n)
    half = scipy_stats.sem(x, axis=1) * scipy_stats.t.ppf(0.975, n - 1)
    held = np.abs(y.mean(axis=1) - x.mean(axis=1)) <= half
    chance = machines.expected(n, shared)
    assert abs(held.mean() - chance) < 4 * math.sqrt(0.25 / times)
    assert machines.expected(n, 1.0) == 1


@pytest.mark.parametrize(("n", "shared"), [(1, 0.0), (10, 1.5), (10, math.nan)])
def test_impossible_numbers_are_refused(n, shared):
    with pytest.raises(ValueError, match="must be"):
        machines.expected(n, shared)


def test_what_seeds_share_is_found():
    for truth in (0.0, 0.6):
        x, y = pairs(10, truth, 400, seed=7)
        scale = np.linspace(1, 50, 400)[:, None]  # metrics have units of their own
        found = pd.DataFrame({"x": list(x * scale), "y": list(y * scale)})
        assert machines.shared(found) == pytest.approx(truth, abs=0.05)
    same = pd.DataFrame({"x": list(x), "y": list(x)})
    assert machines.shared(same) == pytest.approx(1)
    assert machines.shared(same[:0]) == 0


@pytest.mark.parametrize(("seeds", "known"), [(3, 30), (10, 10)])
def test_19_of_20_changes_are_within_what_another_machine_does(seeds, known):
    rng, inside = np.random.default_rng(seeds), []
    for _ in range(4000):
        rms = math.sqrt(np.mean(rng.standard_normal(known) ** 2))
        moved = rng.standard_normal(seeds).mean()
        inside.append(abs(moved) <= machines.bound(rms, known, seeds))
    assert np.mean(inside) == pytest.approx(0.95, abs=0.015)


def table(shift: float) -> pd.DataFrame:
    """Return what both machines measured; `shift` apart in arm b."""
    rows = []
    for machine, more in (("native", 0.0), ("other", shift)):
        for seed in range(4):
            luck = 0.01 * seed
            rows += [(machine, "a", "m", 0.9 + luck, seed)]
            rows += [(machine, "b", "m", 0.5 + more - luck, seed)]
            rows += [(machine, "c", "m", 0.3 + luck, seed)]
            rows += [(machine, "a", "does", 1.0, seed)]
    columns = ["machine", "arm", "metric", "value", "seed"]
    found = pd.DataFrame(rows, columns=columns).assign(level=np.nan)
    names = {"native": "as this CPU does", "other": "avx2"}
    return found.assign(arithmetic=found["machine"].map(names))


@pytest.fixture
def committed(tmp_path, monkeypatch):
    monkeypatch.delenv("LOTTOLAB_RESULTS", raising=False)
    monkeypatch.setattr(results, "COMMITTED", tmp_path)
    monkeypatch.setattr(claims_file, "FILE", tmp_path / "claims.yaml")
    (tmp_path / "claims.yaml").write_text(CLAIMS)
    (tmp_path / "ownership").mkdir()
    return tmp_path / "ownership" / "edition.machines.csv"


def test_the_share_of_intervals_that_hold_the_others_estimate_is_told(committed):
    said = machines.told(["ownership"], "edition").data
    assert "lottolab machines" in said
    table(shift=0.2).to_csv(committed, index=False)
    found = machines.agreement("ownership", "edition")
    assert found["claim"].tolist() == ["ownership-more"] * 4  # a count has no part
    assert found["held"].tolist() == [False, False, True, True]
    assert found["there"][0] - found["here"][0] == pytest.approx(-0.2)
    said = machines.told(["ownership"], "edition").data
    assert "on this machine and in avx2: ownership." in said
    assert "2 of 4 intervals (50%) hold" in said
    assert f"it is {machines.expected(4):.0%} if the machines share nothing" in said
    assert "correlate by 1.00, and with that 100% are expected" in said


def test_noise_is_that_of_the_same_seed_on_both_machines(committed):
    apart = machines.noise(table(shift=0.2))
    rms, count = apart["m"]
    assert rms == pytest.approx(math.sqrt(0.2**2 / 3))  # one arm in three is apart
    assert count == 12
    assert apart["does"] == (0, 4)
