"""Score a target's examples by every attack that its answers, and others', allow.

What needs a threshold, or learns, does so on one random half of the examples and is
used on the other, and the other way round: no example is judged by what it taught.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor

from lottolab.checks import require
from lottolab.membership import signals
from lottolab.membership.attacks import lira, rmia, supervised, thresholds
from lottolab.membership.audit.files import Answers

FEWEST = 20  # members, and non-members, below which nothing is said
LEARNT = 2_000  # examples that a learned attack learns from at most, for time
LARGEST = 10  # confidences, sorted, that it sees beyond that
CLASSES = 100  # up to which a learned attack sees all confidences, and the label
SIGNALS = {
    "gap (correctness)": signals.correctness,
    "loss threshold": signals.loss,
    "entropy": signals.entropy,
    "modified entropy": signals.modified_entropy,
}
WITH_REFERENCES = {
    "LiRA, online": (lira.online, "scaled"),
    "LiRA, offline": (lira.offline_tail, "scaled"),
    "RMIA, online": (partial(rmia.online, gamma=1.0), "confidence"),
    "RMIA, offline": (partial(rmia.offline, gamma=1.0), "confidence"),
}


@dataclass
class Scored:
    """Hold scores of the judged examples, and who they are said to be.

    rows: int64 [n], the judged examples' places in the file. member: bool [n].
    half: bool [n], the random half that each is in. scores: by attack, float64 [n].
    guesses: by attack, bool [n]. skipped: by attack, why there is none. left_out: why
    how many examples are not judged.
    """

    rows: np.ndarray
    member: np.ndarray
    half: np.ndarray
    scores: dict[str, np.ndarray] = field(default_factory=dict)
    guesses: dict[str, np.ndarray] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    left_out: str = ""


def scored(target: Answers, references: Sequence[Answers], seed: int) -> Scored:
    """Attack the target by all that is there; see `Scored`.

    Raises ValueError where fewer than FEWEST examples of a kind can be judged.
    """
    judged, fresh, left_out = chosen(target, references)
    rows, member = np.flatnonzero(judged), target.member.numpy()[judged]
    counts = f"{member.sum()} and {(~member).sum()}"
    enough = min(member.sum(), (~member).sum()) >= FEWEST
    what = f"an audit needs {FEWEST} members and {FEWEST} non-members"
    require(enough, what, f"{counts} ({left_out})" if left_out else counts)
    found = Scored(rows, member, halves(member, seed), left_out=left_out)
    z, y = target.logits[rows], target.labels[rows]
    for name, signal in SIGNALS.items():
        _keep(found, name, signal(z, y).numpy())
    _learn(found, z, y, seed)
    if references:
        _compare(found, target, references, np.flatnonzero(fresh))
    return found


def chosen(target: Answers, references: Sequence[Answers]):
    """Return which examples are judged, which no model had, and who is left out; [N].

    Where references had some examples in training, an example is judged if one of them
    had it and another had not; those that no model had are RMIA's population. If that
    leaves no member or no non-member, or no reference had any, an example is judged if
    some reference had it not.
    """
    member = target.member.numpy()
    had = np.array([r.member.numpy() for r in references]).reshape(-1, len(member))
    fresh = ~member & ~had.any(0)
    if not references:
        return np.ones_like(member), fresh, ""
    both = had.any(0) & ~had.all(0)
    told = []
    if (both & member).any() and (both & ~member).any():
        if fresh.any():
            told = [f"{fresh.sum()} that no model had are RMIA's population"]
        judged, out, why = both, ~both & ~fresh, "all references had them, or none"
    else:
        judged, out, why = ~had.all(0), had.all(0), "all references had them"
    if out.any():
        told.append(f"{out.sum()} left out: {why}")
    return judged, fresh, "; ".join(told)


def halves(member: np.ndarray, seed: int) -> np.ndarray:
    """Mark a random half of the members and of the non-members; bool [n]."""
    rng, half = np.random.default_rng(seed), np.zeros(len(member), dtype=bool)
    for kind in (member, ~member):
        places = rng.permutation(np.flatnonzero(kind))
        half[places[: len(places) // 2]] = True
    return half


def _keep(found: Scored, name: str, scores: np.ndarray) -> None:
    """Keep scores, and what they say of each half by the other's best threshold."""
    guess = np.zeros(len(scores), dtype=bool)
    for here in (found.half, ~found.half):
        limit = thresholds.best(scores[~here], found.member[~here])
        guess[here] = scores[here] > limit
    found.scores[name], found.guesses[name] = scores, guess


def _learn(found: Scored, z: Tensor, y: Tensor, seed: int) -> None:
    """Add the attack that is trained on one half and used on the other."""
    few = z.shape[1] <= CLASSES
    scores = np.empty(len(z))
    for here in (found.half, ~found.half):
        known = _balanced(found.member, ~here)
        told = z[known], y[known], found.member[known]
        if few:
            attack = supervised.fit(told[0], told[2], labels=told[1], seed=seed)
        else:
            attack = supervised.shadow([told], top=LARGEST, seed=seed)
        scores[here] = attack(z[here], y[here]).numpy()
    name = "MLP, with label" if few else f"MLP, {LARGEST} largest"
    found.scores[name], found.guesses[name] = scores, scores > 0.5


def _balanced(member: np.ndarray, here: np.ndarray) -> np.ndarray:
    """Return as many members as non-members; their order in the file means nothing."""
    rng = np.random.default_rng(0)
    kinds = [rng.permutation(np.flatnonzero(k & here)) for k in (member, ~member)]
    each = min(LEARNT // 2, *map(len, kinds))
    return np.concatenate([kind[:each] for kind in kinds])


def _compare(found: Scored, target: Answers, references, fresh: np.ndarray) -> None:
    """Add the attacks with reference models; what refuses says why."""
    here, both = found.rows, np.concatenate([found.rows, fresh])
    had = torch.stack([r.member for r in references])[:, here]
    told = {"scaled": signals.scaled_confidence, "confidence": signals.confidence}
    values = {
        kind: [f(m.logits[both], m.labels[both]) for m in (target, *references)]
        for kind, f in told.items()
    }
    for name, (attack, kind) in WITH_REFERENCES.items():
        mine, theirs = values[kind][0], torch.stack(values[kind][1:])
        given = [mine[: len(here)], theirs[:, : len(here)], had]
        if kind == "confidence":
            given += [mine[len(here) :], theirs[:, len(here) :]]
        try:
            require(kind != "confidence" or len(fresh) > 0, *NOBODY)
            _keep(found, name, attack(*given).numpy())
        except ValueError as error:
            found.skipped[name] = str(error)


NOBODY = ("RMIA needs non-members that no reference had in training", "none")
