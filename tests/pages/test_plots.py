"""What the book's shared figures draw."""

import pandas as pd
import pytest

from lottolab.pages import plots, show
from lottolab.truth import claims

PLACES = (("together", 1), ("ownership", 1), ("ownership", 2))
VERDICTS = ["refuted", "refuted", "inconclusive"]
pytestmark = pytest.mark.usefixtures("rendered")


def test_verdicts_are_bars_of_their_counts():
    words = ["reproduced", "refuted", "not testable here"]
    counts = pd.DataFrame([[3, 1, 0], [0, 2, 4]], ["a", "b"], words)
    (axis,) = plots.verdicts(counts).axes
    drawn = {c.get_label(): [b.get_width() for b in c] for c in axis.containers}
    for word in words:
        assert drawn[word] == counts[word].tolist()
    ends = [sum(widths[place] for widths in drawn.values()) for place in (0, 1)]
    assert ends == [4, 6]
    told = [t.get_text() for t in axis.texts if t.get_text()]
    assert sorted(told) == ["1", "2", "3", "4"]


def test_every_claim_is_counted_once(monkeypatch):
    known = [claims.Claim(f"{c}-{n}", c, "", "", {}) for c, n in PLACES]
    card = pd.DataFrame({"claim": [c.id for c in known], "verdict": VERDICTS})
    monkeypatch.setattr(claims, "load", lambda: known)
    counts = show.verdict_counts(card)
    assert counts.index.tolist() == ["ownership", "together"]
    assert counts.loc["ownership"].to_dict() == {"inconclusive": 1, "refuted": 1}
    assert counts.loc["together"].to_dict() == {"inconclusive": 0, "refuted": 1}


def test_coverage_has_a_dot_for_each_design_before_and_after():
    held = pd.DataFrame(
        {
            "measurement": ["AUC", "AUC", "count"],
            "before": [0.5, 0.6, 0.99],
            "after": [0.94, 0.95, 0.96],
        }
    )
    (axis,) = plots.coverage(held).axes
    drawn = {line.get_label(): list(line.get_xdata()) for line in axis.lines}
    for side in ("before", "after"):
        assert drawn[side] == held[side].tolist()
    kinds = [tick.get_text() for tick in axis.get_yticklabels()]
    assert kinds == ["AUC", "count"]
