"""Shares are told in percent, their differences in points, and all else as it is."""

import pytest

from lottolab.truth import claims, percent
from lottolab.truth.claim import Criterion
from lottolab.truth.deciding import asked
from lottolab.truth.stats import Interval

# Metrics of claims that are no shares: counts, yes or no, distances, factors, nats.
OTHERS = """
1-QPI; 2-QPI; accepted; accused; aligned accepted; answered accepted; answered decoded;
auc difference, probit; auc, probit; bound; cap; changed; class correlation; convicted;
convicted, compared; decoded; decoded, threshold absolute; decoded, threshold none;
deviation, authors; deviation, while it helps; dual; fingerprint accepted; found;
inside; js; kept; label changed; log-loss; logits changed; maximal ℓ1, queries;
members accepted; owner accepted; plain accepted; plain decoded; primal; recovery ℓ1;
recovery ℓ2; signature accepted; signs; thief accepted; times none; triggers accepted;
unsigned found
"""


def test_every_metric_of_a_claim_is_a_share_or_is_known_to_be_none():
    tests = [t for c in claims.load() for t in (*c.tests, *c.given)]
    named = {s["metric"] for t in tests for s in (t.a, t.b) if s is not None}
    others = {name.strip() for name in OTHERS.replace("\n", " ").split(";")}
    assert not others & (percent.SHARES | percent.DIFFERENCES)
    assert not percent.SHARES & percent.DIFFERENCES
    assert named <= others | percent.SHARES | percent.DIFFERENCES


@pytest.mark.parametrize(
    ("test", "values", "share", "question"),
    [
        (Criterion("at_least", {"metric": "auc"}, value=0.52), [0.5], " %", "≥ 52 %"),
        (Criterion("at_most", {"metric": "auc"}, value=0.0), [0.1], " points", "≤ 0"),
        (Criterion("at_most", {"metric": "auc"}, value=0.02), [-0.1], " points", "2 p"),
        (Criterion("at_least", {"metric": "gain"}, value=-0.01), [0], " points", "−1"),
        (
            Criterion("at_most", {"metric": "recovery ℓ1"}, value=0.3),
            [0.2],
            "",
            "≤ 0.3",
        ),
        (Criterion("at_most", {"metric": "log-loss"}, value=0.3), [-1], "", "≤ 0.3"),
        (
            Criterion(
                "equal", {"metric": "auc"}, {"metric": "auc"}, 0.05, scale="probit"
            ),
            [0.5],
            "",
            "± 0.05",
        ),
        (
            Criterion("equal", {"metric": "auc"}, {"metric": "auc"}, margin=0.01),
            [0.5],
            " %",
            "± 1 point",
        ),
    ],
)
def test_a_measurement_is_told_in_the_unit_of_what_was_measured(
    test, values, share, question
):
    unit = percent.unit(test, values)
    assert unit.share == share
    assert question in asked(test, unit)


def test_no_decimal_is_lost_or_invented():
    narrow, wide = Interval(0.52, 0.5198, 0.5202, n=8), Interval(0.52, 0.3, 0.7, n=8)
    unit = percent.PERCENT
    assert unit.interval(narrow, unit.share) == "52.00 % [51.98, 52.02], n = 8"
    assert unit.interval(wide, unit.share) == "52.0 % [30.0, 70.0], n = 8"
    assert percent.Unit().interval(wide, "") == "0.520 [0.300, 0.700], n = 8"
    below = Interval(-0.012, -0.02, -0.004, n=3)
    told = percent.POINTS.interval(below, percent.POINTS.share)
    assert told == "−1.2 points [−2.0, −0.4], n = 3"


def test_the_papers_own_numbers_stand_in_the_same_unit():
    stated = {c.id: c for c in claims.load()}
    assert percent.paper(stated["modelguard-auroc-top-one"]) == "AUROC 50 %"
    assert percent.paper(stated["modelguard-unordered-leaks"]).startswith("1-QPI 0.372")
