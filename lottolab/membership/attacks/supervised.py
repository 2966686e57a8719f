"""Attacks that learn from examples what a member looks like.

The attack of Bagmar et al. (2021), section 3.2.2: a classifier of confidence vectors,
trained on labelled members and non-members of the target itself. The paper calls it a
shadow model, but it needs to know many members already. `shadow` trains on models of
the attacker's own instead (Shokri et al., 2017).
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from scipy.special import expit
from sklearn.base import ClassifierMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits
from torch import Tensor

from lottolab.checks import check_seed, one_of, require, tensors, whole
from lottolab.membership.metrics import members
from lottolab.membership.signals import checked

# The paper trains an MLP "using the stochastic gradient descent" and "the standard
# implementation from scikit-learn", which is Adam: "mlp" is the second reading. Plain
# SGD with these defaults hardly moves on fewer than some 2,000 examples.
CLASSIFIERS: dict[str, Callable[[int], ClassifierMixin]] = {
    "mlp": lambda seed: MLPClassifier(random_state=seed),
    "mlp, sgd": lambda seed: MLPClassifier(solver="sgd", random_state=seed),
    "svm": lambda seed: SVC(random_state=seed),
    "forest": lambda seed: RandomForestClassifier(n_jobs=1, random_state=seed),
}
SEEDS = 2**32 - 1  # the largest that scikit-learn takes
ENOUGH = 2  # members, and non-members, without which no classifier is trained


@dataclass(frozen=True)
class Attack:
    """Score examples by a trained classifier: attack(logits, labels) -> float64 [N].

    Scores are in [0, 1], above 0.5 where the classifier says "member". An attack that
    does not use labels ignores them. Raises ValueError for logits and labels that a
    signal refuses, another number of classes than in training, or missing labels.
    """

    classifier: ClassifierMixin
    classes: int
    one_hot: bool = False
    top: int | None = None
    by_class: dict[int, ClassifierMixin] | None = None

    def __call__(self, logits: Tensor, labels: Tensor | None = None) -> Tensor:
        z, y = checked(logits, labels)
        same = f"logits must have {self.classes} classes, as in training"
        require(z.shape[1] == self.classes, same, z.shape[1])
        needed = self.one_hot or self.by_class is not None
        require(not needed or y is not None, "this attack needs labels", labels)
        x = features(z, y if self.one_hot else None, self.top)
        with threadpool_limits(1):
            scores = _score(self.classifier, x)
            for label, classifier in (self.by_class or {}).items():
                rows = (y == label).numpy()
                if rows.any():
                    scores[rows] = _score(classifier, x[rows])
        return torch.from_numpy(scores)


def fit(
    logits: Tensor,
    is_member: ArrayLike,
    *,
    labels: Tensor | None = None,
    classifier: str = "mlp",
    seed: int = 0,
) -> Attack:
    """Train the paper's attack on examples of the target whose membership is known.

    Give equal numbers of members and non-members, as the paper does, or a score of 0.5
    means less. With `labels` the attack also knows the label of each example, which the
    paper's does not.

    Args:
        logits: float [N, C] of the target. is_member: bool [N].
        labels: int [N], or None.
        classifier: one of CLASSIFIERS, all with scikit-learn's defaults. "svm" scores
            by the logistic function of its decision value.
        seed: of the classifier.

    Raises:
        ValueError: logits or labels that a signal refuses, an unknown classifier,
            membership that is not binary or of another length, or fewer than two
            examples of either kind.
    """
    one_of("classifier", classifier, CLASSIFIERS)
    check_seed(seed, SEEDS)
    z, y = checked(logits, labels)
    member = members(is_member, len(z))
    _require_enough(member)
    trained = _train(features(z, y), member, classifier, seed)
    return Attack(trained, z.shape[1], one_hot=y is not None)


def shadow(
    outputs: Sequence[tuple[Tensor, Tensor, ArrayLike]],
    *,
    classifier: str = "mlp",
    per_class: bool = False,
    top: int | None = None,
    seed: int = 0,
) -> Attack:
    """Train an attack on the outputs of shadow models, whose members are known.

    `per_class=True` is Shokri et al. (2017): an attack for each class, on the examples
    of that label; a class with fewer than two examples of either kind has the pooled
    attack. `top=3` is Salem et al. (2019): one attack on the three largest confidences,
    sorted.

    Args:
        outputs: (logits [N, C], labels [N], is_member [N]) of each shadow model.
        top: how many of the largest confidences to use, or all, in class order (None).

    Raises:
        ValueError: as in `fit`, no shadow model, shadow models that differ in classes,
            one without labels, members or non-members, or `top` outside [1, C].
    """
    one_of("classifier", classifier, CLASSIFIERS)
    check_seed(seed, SEEDS)
    z, y, member = _pool(outputs)
    x, classes = features(z, top=top), z.shape[1]
    pooled = _train(x, member, classifier, seed)
    if not per_class:
        return Attack(pooled, classes, top=top)
    by_class = {}
    for label in range(classes):
        rows = (y == label).numpy()
        if _fewest(member[rows]) >= ENOUGH:
            by_class[label] = _train(x[rows], member[rows], classifier, seed)
    return Attack(pooled, classes, top=top, by_class=by_class)


def features(logits: Tensor, labels: Tensor | None = None, top: int | None = None):
    """Return what the classifier sees, float64 [N, features].

    Confidences in class order, or the `top` largest, sorted; then the one-hot label.
    """
    p, classes = logits.softmax(1), logits.shape[1]
    if top is not None:
        whole("top", top, 1)
        require(top <= classes, f"top must be at most {classes}, the classes", top)
        p = p.topk(top).values
    if labels is not None:
        p = torch.cat([p, F.one_hot(labels, classes)], 1)
    return p.numpy()


def _pool(outputs: Sequence) -> tuple[Tensor, Tensor, np.ndarray]:
    right = isinstance(outputs, Sequence) and len(outputs) > 0
    right = right and all(isinstance(o, Sequence) and len(o) == 3 for o in outputs)
    what = "outputs must be (logits, labels, is_member) of one shadow model or more"
    require(right, what, tensors.described(outputs))
    unlabelled = [i for i, (_, labels, _) in enumerate(outputs) if labels is None]
    require(not unlabelled, "all outputs must have labels", f"none at {unlabelled}")
    pairs = [checked(logits, labels) for logits, labels, _ in outputs]
    z, y = zip(*pairs, strict=True)
    widths = sorted({part.shape[1] for part in z})
    require(len(widths) == 1, "all shadow models must have the same classes", widths)
    known = [
        members(output[2], len(part)) for output, part in zip(outputs, z, strict=True)
    ]
    member = np.concatenate(known)
    _require_enough(member)
    return torch.cat(z), torch.cat(y), member


def _train(x: np.ndarray, member: np.ndarray, classifier: str, seed: int):
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return CLASSIFIERS[classifier](seed).fit(x, member)


def _score(classifier: ClassifierMixin, x: np.ndarray) -> np.ndarray:
    if hasattr(classifier, "decision_function"):
        return expit(classifier.decision_function(x))
    return classifier.predict_proba(x)[:, 1]


def _fewest(member: np.ndarray) -> int:
    return int(min(member.sum(), (~member).sum()))


def _require_enough(member: np.ndarray) -> None:
    few = f"at least {ENOUGH} members and {ENOUGH} non-members are needed"
    given = f"{member.sum()} and {(~member).sum()}"
    require(_fewest(member) >= ENOUGH, few, given)
