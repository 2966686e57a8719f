"""What an attack achieves: rates at a threshold, the ROC curve, each with an interval.

`scores` is finite, float64 [N], larger for "more likely a member"; `is_member` holds N
booleans (or 0 and 1), some of each kind. Who is guessed a member has a score above the
threshold. Anything else is a ValueError.

Accuracy and precision depend on the share of members: balance the two kinds, so that
0.5 is chance.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import trapezoid

from lottolab.checks import check_seed, numbers, require, within
from lottolab.membership import resampling
from lottolab.truth import stats
from lottolab.truth.rates import binomial_interval
from lottolab.truth.stats import Interval

FPRS = {"tpr at 1% fpr": 0.01, "tpr at 0.1% fpr": 0.001}
FALSE_ALARMS = 10  # how many an FPR must allow before a TPR is reported at it
DRAWS = 2000
Measure = Callable[[np.ndarray], float]  # of the weights of the examples, [N]


def report(
    scores: ArrayLike,
    is_member: ArrayLike,
    *,
    threshold: float = 0.5,
    model: ArrayLike | None = None,
    seed: int = 0,
) -> dict[str, Interval | None]:
    """Return accuracy, precision, recall, AUC and TPR at 1 % and 0.1 % FPR.

    Each has its 95 % interval. A TPR that the sample cannot support is None, see
    `tpr_at`; no positive guess at all counts as precision 0.

    With `model`, N labels of the trained model that each score is about, the numbers
    are those of all examples pooled, and the intervals resample whole models
    (`stats.bootstrap_interval`; `n` counts models).

    Without it, all scores are about one model, and the intervals say how other examples
    would fare with that same model: *nothing about another model*. Accuracy,
    precision and recall get exact binomial intervals, rather too wide than too narrow
    as the numbers of members and non-members are fixed. AUC and TPR get percentile
    bootstrap intervals that resample each of the two kinds; a number that no resample
    changes has no interval (nan).

    Raises:
        ValueError: also if a model has members only, or non-members only.

    >>> print(report([0.9, 0.8, 0.4, 0.3], [1, 0, 1, 0])["accuracy"])
    0.500 [0.068, 0.932], n = 4
    """
    check_seed(seed)
    s, member = checked(scores, is_member)
    measures = _measures(s, member, threshold)
    if model is None:
        found = _over_examples(measures, s, threshold, member, seed)
    else:
        found = _over_models(measures, member, model, seed)
    return found | {name: None for name in FPRS if name not in found}


def rates(
    scores: ArrayLike, is_member: ArrayLike, *, threshold: float = 0.5
) -> dict[str, float]:
    """Return the numbers of `report` alone; a TPR that it would not give is left out.

    >>> rates([0.9, 0.8, 0.4, 0.3], [1, 0, 1, 0])
    {'accuracy': 0.5, 'precision': 0.5, 'recall': 0.5, 'auc': 0.75}
    """
    s, member = checked(scores, is_member)
    once = np.ones(len(s), int)
    return {name: f(once) for name, f in _measures(s, member, threshold).items()}


def accuracy(scores: ArrayLike, is_member: ArrayLike, threshold: float) -> float:
    """Return the share of examples guessed right, in [0, 1]."""
    s, member = checked(scores, is_member)
    within("threshold", threshold, "[-inf, inf]")
    return float(((s > threshold) == member).mean())


def auc(scores: ArrayLike, is_member: ArrayLike) -> float:
    """Return the probability that a member scores above a non-member, ties half."""
    s, member = checked(scores, is_member)
    return _area(*_roc(s, member)(np.ones(len(s), int)))


def tpr_at(scores: ArrayLike, is_member: ArrayLike, fpr: float) -> float:
    """Return the largest TPR of a threshold whose FPR is `fpr`, in (0, 1), or less.

    Examples of equal score are guessed alike, so a threshold may stay below `fpr`.
    Raises ValueError if fewer than 10 / fpr non-members are there: where fewer than
    ten false alarms are allowed, one more or less decides the TPR.
    """
    s, member = checked(scores, is_member)
    within("fpr", fpr, "(0, 1)")
    what = f"TPR at FPR {fpr} needs at least {needed(fpr)} non-members"
    require((~member).sum() >= needed(fpr), what, (~member).sum())
    return _highest(*_roc(s, member)(np.ones(len(s), int)), fpr)


def checked(scores: ArrayLike, is_member: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return scores as float64 [N] and membership as bool [N], or raise ValueError."""
    s = numbers("scores", scores)
    require(s.ndim == 1, "scores must have one dimension", f"shape {s.shape}")
    odd = s[~np.isfinite(s)]
    require(odd.size == 0, "scores must be finite", odd[:1])
    return s, members(is_member, len(s))


def members(is_member: ArrayLike, n: int) -> np.ndarray:
    """Return bool [n], True for members; raise ValueError unless both kinds are there.

    Values other than 0, 1 and booleans, or another number of them, are refused too.
    """
    x = numbers("is_member", is_member)
    require(x.shape == (n,), f"is_member must hold {n} values, one an example", x.shape)
    odd = x[~np.isin(x, (0, 1))]
    require(odd.size == 0, "is_member must be 0 or 1 (or booleans)", odd[:1])
    member = x.astype(bool)
    counts = f"{member.sum()} and {(~member).sum()}"
    mixed = member.any() and not member.all()
    require(mixed, "is_member must have members and non-members", counts)
    return member


def _measures(
    scores: np.ndarray, member: np.ndarray, threshold: float
) -> dict[str, Measure]:
    """Return each measure as a function of how often each example counts."""
    within("threshold", threshold, "[-inf, inf]")
    guess, roc = scores > threshold, _roc(scores, member)
    right, hit = guess == member, guess & member
    measures: dict[str, Measure] = {
        "accuracy": lambda w: float(w @ right / w.sum()),
        "precision": lambda w: float(w @ hit / max(w @ guess, 1)),
        "recall": lambda w: float(w @ hit / (w @ member)),
        "auc": lambda w: _area(*roc(w)),
    }
    for name, fpr in FPRS.items():
        if (~member).sum() >= needed(fpr):
            measures[name] = lambda w, fpr=fpr: _highest(*roc(w), fpr)
    return measures


def _roc(scores: np.ndarray, member: np.ndarray):
    """Return a function from weights to the (hits, false alarms) of every threshold.

    Each is float [thresholds], from the highest threshold that guesses anybody to the
    lowest, which guesses all.
    """
    order = np.argsort(-scores, kind="stable")
    falling, member = scores[order], member[order]
    last = np.append(falling[1:] != falling[:-1], True)  # of examples of equal score

    def roc(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        w = weights[order]
        return np.cumsum(w * member)[last], np.cumsum(w * ~member)[last]

    return roc


def _area(hits: np.ndarray, alarms: np.ndarray) -> float:
    area = trapezoid(np.append(0, hits), np.append(0, alarms))
    return float(area / (hits[-1] * alarms[-1]))


def _highest(hits: np.ndarray, alarms: np.ndarray, fpr: float) -> float:
    allowed = np.searchsorted(alarms / alarms[-1], fpr, side="right")
    return float(hits[allowed - 1] / hits[-1]) if allowed else 0.0


def needed(fpr: float) -> int:
    """Return how many non-members a TPR at `fpr` needs: ten false alarms' worth."""
    return math.ceil(round(FALSE_ALARMS / fpr, 6))


def _over_models(measures: dict[str, Measure], member, model, seed: int):
    names = np.asarray(model)
    what = f"model must hold {len(member)} labels, one a score"
    require(names.shape == member.shape, what, names.shape)
    which, index = np.unique(names, return_inverse=True)
    for kind, rows in (("members", member), ("non-members", ~member)):
        without = which[np.bincount(index[rows], minlength=len(which)) == 0]
        require(
            len(without) == 0, f"every model must have {kind}", f"{without} without"
        )
    each = np.arange(len(which))

    def interval(measure: Measure) -> Interval:
        def pooled(drawn: np.ndarray) -> float:
            times = np.bincount(drawn.astype(int), minlength=len(which))
            return measure(times[index])

        return stats.bootstrap_interval(each, each, pooled, draws=DRAWS, seed=seed)

    return {name: interval(measure) for name, measure in measures.items()}


def _over_examples(measures: dict[str, Measure], scores, threshold, member, seed: int):
    guess, n = scores > threshold, len(member)
    hits, guesses, right = (guess & member).sum(), guess.sum(), (guess == member).sum()
    found = {
        "accuracy": binomial_interval(right, n),
        "precision": Interval(0.0, 0.0, 1.0, n=0),
        "recall": binomial_interval(hits, member.sum()),
    }
    if guesses:
        found["precision"] = binomial_interval(hits, guesses)
    fprs = {name: FPRS[name] for name in FPRS if name in measures}
    drawn = resampling.drawn([scores], member, list(fprs.values()), DRAWS, seed)[0].T
    once = np.ones(n, int)
    for name, values in zip(("auc", *fprs), drawn, strict=True):
        found[name] = resampling.interval(measures[name](once), values, n)
    return found
