"""Judge an audit's scores: what they tell, how surely, and what is too small to say.

Intervals are over examples of this one model: they say nothing about the next model
that is trained in the same way.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from lottolab.checks import check_seed
from lottolab.membership import metrics, resampling, signals
from lottolab.membership.attacks import thresholds
from lottolab.membership.audit.attacks import Scored, scored
from lottolab.membership.audit.files import Answers, same_examples
from lottolab.truth.rates import binomial_interval
from lottolab.truth.stats import Interval

DRAWS = 1_000  # of the examples, for AUC and TPR
MOST = 20  # members that are named as the most exposed
LABELS, UNSEEN = "labels alone", "a reference that saw none of these examples"


@dataclass
class Findings:
    """Hold what an audit found.

    attacks: by name, `accuracy` (the mean of the rates of members and of non-members
    that are recognised), `auc` and each `tpr at …`, or None where too few non-members
    are there. controls: the AUC of what cannot know a member, which must be 0.5.
    strongest: the attack of the largest AUC on one half, and its numbers on the other.
    exposed: the members that it is surest of. unsaid: what is too small to say.
    """

    about: dict
    scored: Scored
    attacks: dict[str, dict[str, Interval | None]]
    controls: dict[str, Interval]
    strongest: dict
    exposed: list[dict]
    unsaid: list[str]

    def plain(self) -> dict:
        """Return all but the scores as JSON can hold it; no interval is null."""
        named = ("about", "attacks", "controls", "strongest", "exposed", "unsaid")
        found = {name: getattr(self, name) for name in named}
        return _plain(found | {"skipped": self.scored.skipped})


def percent(share: Interval) -> str:
    """Write a share in [0, 1] in percent, with its interval where there is one.

    >>> percent(Interval(0.652, 0.63, 0.6741, n=256))
    '65.2 % [63.0, 67.4]'
    """
    told = f"{100 * share.estimate:.1f} %"
    if math.isnan(share.low):
        return told
    return f"{told} [{100 * share.low:.1f}, {100 * share.high:.1f}]"


def audit(
    target: Answers, references: Sequence[Answers] = (), *, seed: int = 0
) -> Findings:
    """Attack a model by its answers, and by those of reference models if there are.

    Args:
        target: of `files.read`; `member` says who was in its training set.
        references: other models' answers to the same examples in the same order;
            their `member` says whom each had in training.
        seed: of halves, classifiers and resampling.

    Raises:
        ValueError: references that do not fit, or too few examples.
    """
    check_seed(seed)
    for reference in references:
        same_examples(target, reference)
    found = scored(target, references, seed)
    attacks = judged(found.scores, found.guesses, found.member, seed)
    strongest = _strongest(found, seed)
    about = {
        "target": target.source,
        "kind": target.kind,
        "references": [r.source for r in references],
        "members": int(found.member.sum()),
        "non-members": int((~found.member).sum()),
        "classes": target.logits.shape[1],
        "left out": found.left_out,
        "seed": seed,
    }
    controls = _controls(found, target, references, seed)
    exposed = _exposed(found, target, strongest["attack"])
    unsaid = _unsaid(found, attacks, controls, references)
    return Findings(about, found, attacks, controls, strongest, exposed, unsaid)


def judged(scores: dict, guesses: dict, member: np.ndarray, seed: int) -> dict:
    """Return each attack's accuracy, AUC and TPRs with their intervals."""
    count = int((~member).sum())
    fprs = {k: f for k, f in metrics.FPRS.items() if count >= metrics.needed(f)}
    every, rates = list(scores.values()), list(fprs.values())
    draws = resampling.drawn(every, member, rates, DRAWS, seed)
    found = {}
    for (name, values), drawn in zip(scores.items(), draws, strict=True):
        once = metrics.rates(values, member)
        found[name] = {"accuracy": balanced(guesses[name], member)}
        for k, key in enumerate(("auc", *fprs)):
            found[name][key] = resampling.interval(once[key], drawn[:, k], len(member))
        found[name] |= {key: None for key in metrics.FPRS if key not in fprs}
    return found


def balanced(guess: np.ndarray, member: np.ndarray) -> Interval:
    """Return the mean of two rates, members and non-members recognised, each exact.

    The two intervals are joined by square and add (Zou and Donner, 2008).
    """
    parts = [
        binomial_interval(int((guess[kind] == member[kind]).sum()), int(kind.sum()))
        for kind in (member, ~member)
    ]
    middle = sum(p.estimate for p in parts) / 2
    low = math.hypot(*(p.estimate - p.low for p in parts)) / 2
    high = math.hypot(*(p.high - p.estimate for p in parts)) / 2
    return Interval(middle, middle - low, middle + high, len(member))


def _strongest(found: Scored, seed: int) -> dict:
    here, there = found.half, ~found.half
    aucs = {
        name: metrics.auc(scores[here], found.member[here])
        for name, scores in found.scores.items()
    }
    name = max(aucs, key=aucs.get)
    parts = {name: found.scores[name][there]}, {name: found.guesses[name][there]}
    return {"attack": name} | judged(*parts, found.member[there], seed)[name]


def _exposed(found: Scored, target: Answers, name: str) -> list[dict]:
    """Name the members of the largest scores, and how rare these are otherwise."""
    scores, others = found.scores[name], np.sort(found.scores[name][~found.member])
    order = np.argsort(-scores, kind="stable")
    rows = found.rows[order][found.member[order]][:MOST]
    places = order[found.member[order]][:MOST]
    sure = signals.confidence(target.logits[rows], target.labels[rows]).tolist()
    above = len(others) - np.searchsorted(others, scores[places], side="left")
    labels = target.labels[rows].tolist()
    columns = zip(rows, labels, sure, scores[places], above, strict=True)
    return [
        {
            "row": int(row),
            "label": label,
            "probability of the label": p,
            "score": float(score),
            "non-members with as large a score": int(count),
        }
        for row, label, p, score, count in columns
    ]


def _controls(found: Scored, target: Answers, references, seed: int) -> dict:
    """Measure what cannot know a member; another AUC than 0.5 is a difference in kind.

    That of a reference is the mean over all that saw none of the examples.
    """
    member, y = found.member, target.labels[found.rows]
    classes, scores = target.logits.shape[1], np.empty(len(member))
    for here in (found.half, ~found.half):
        counts = [
            np.bincount(y[there & ~here], minlength=classes) + 1.0
            for there in (member, ~member)
        ]
        scores[here] = np.log(counts[0] / counts[1])[y[here]]
    tried = {LABELS: scores}
    unseen = [r for r in references if not r.member[found.rows].any()]
    if unseen:
        losses = [signals.loss(r.logits[found.rows], y).numpy() for r in unseen]
        tried[UNSEEN] = np.mean(losses, axis=0)
    guesses = {k: v > thresholds.best(v, member) for k, v in tried.items()}
    return {k: v["auc"] for k, v in judged(tried, guesses, member, seed).items()}


def _unsaid(found: Scored, attacks: dict, controls: dict, references) -> list[str]:
    told = []
    count = int((~found.member).sum())
    for key, fpr in metrics.FPRS.items():
        if count < metrics.needed(fpr):
            few = f"{metrics.needed(fpr):,} non-members are needed, {count:,} are there"
            told.append(f"The {key.upper().replace('AT', 'at')}: {few}.")
    even = [name for name, n in attacks.items() if n["auc"].low <= 0.5 <= n["auc"].high]
    if even:
        told.append(f"Whether these beat chance (AUC 50 %): {', '.join(even)}.")
    for name, auc in controls.items():
        if auc.estimate != 0.5 and not auc.low <= 0.5 <= auc.high:
            told.append(
                f"How much of the AUCs is memory: {name} cannot know a member and has "
                f"an AUC of {percent(auc)}; members and non-members differ in kind."
            )
    if references and _told_by_counts(found, references):
        told.append(
            "What the online attacks achieve: each example is in the same number of "
            "models, the target among them, so the references give the target away and "
            "LiRA comes out too low (leave out the reference that trained on the rest)."
        )
    told.append("How the next model that is trained in this way would fare.")
    return told


def _told_by_counts(found: Scored, references) -> bool:
    had = sum(r.member[found.rows].numpy().astype(int) for r in references)
    return bool(had.any()) and len(np.unique(had + found.member)) == 1


def _plain(value):
    if isinstance(value, Interval):
        return {k: _plain(v) for k, v in asdict(value).items()}
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value
