"""What the honest user pays: how good the answers still are as probabilities.

`answers` are float N×C, rows of at least 0 that need not sum to 1 (Rounding's do not),
`labels` int64 N, the true classes, or `clean` the predictions before the defence.
Anything else is a ValueError. All numbers are plain floats over the N images; for an
interval, repeat with other models.
"""

import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from lottolab.checks import require, tensors, whole, within
from lottolab.checks.taking import floats
from lottolab.modelguard.queries import checked
from lottolab.nets import predict

FLOOR = 1e-6  # the smallest probability that the log-loss believes in


def report(
    answers: Tensor, clean: Tensor, labels: Tensor, foreign: Tensor | None = None
) -> dict[str, float]:
    """Return all measures of one defence.

    Args:
        clean: float N×C, the predictions of the same images without the defence.
        foreign: answers to images of no class, M×C, for the AUROC.

    >>> y = torch.tensor([[0.75, 0.25], [0.5, 0.5]])
    >>> report(y.round(), y, torch.tensor([0, 1]))["maximal ℓ1"]
    1.0
    """
    answers, distance = floats("answers", answers), l1(answers, clean)
    found = {
        "protected accuracy": predict.accuracy(answers, labels),
        "top-5 accuracy": top_k(answers, labels, 5),
        "calibration error": calibration_error(answers, labels),
        "log-loss": log_loss(answers, labels),
        "maximal ℓ1": float(distance.max()),
        "mean ℓ1": float(distance.mean()),
    }
    return found if foreign is None else found | {"AUROC": auroc(answers, foreign)}


def top_k(answers: Tensor, labels: Tensor, k: int) -> float:
    """Return the share of images whose class is among the `k` largest, in [0, 1].

    Ties count by the chance that a fair draw among the equal classes picks the right
    one, so that a one-hot answer is worth no more than it says.
    """
    whole("k", k, 1)
    answers = floats("answers", answers)
    own = _of_class(answers, labels)
    larger = (answers > own).sum(1)
    equal = (answers == own).sum(1)
    return float(((k - larger) / equal).clamp(0, 1).double().mean())


def calibration_error(answers: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Return the expected calibration error, in [0, 1] (Guo et al., 2017, Equation 3).

    Images are put into `bins` of equal width by their largest answer; the error is the
    mean over images of |accuracy − mean largest answer| of their bin.
    """
    whole("bins", bins, 1)
    answers = floats("answers", answers)
    _of_class(answers, labels)
    confidence, label = answers.double().max(1)
    place = (confidence * bins).ceil().long().clamp(1, bins) - 1
    surplus = confidence - (label == labels).double()
    sums = torch.zeros(bins, dtype=torch.float64, device=answers.device)
    return float(sums.index_add_(0, place, surplus).abs().sum() / len(labels))


def log_loss(answers: Tensor, labels: Tensor, floor: float = FLOOR) -> float:
    """Return the mean of −log of the true class's answer, in nats.

    A defence that answers 0 there costs −log `floor`, not infinity: the floor decides
    how bad the few such answers are.
    """
    within("floor", floor, "(0, 1)")
    answers = floats("answers", answers)
    own = _of_class(answers, labels).double()
    return float(-own.clamp(min=floor).log().mean())


def auroc(answers: Tensor, foreign: Tensor) -> float:
    """Return how well the largest answer tells known images from foreign ones.

    The area under the ROC curve of the maximum softmax probability (Hendrycks &
    Gimpel, 2017; paper, Figure 5), 0.5 for chance and for one-hot answers.
    """
    parts = [checked(part).amax(1).cpu() for part in (answers, foreign)]
    known = [torch.full(part.shape, 1 - place) for place, part in enumerate(parts)]
    return float(roc_auc_score(torch.cat(known), torch.cat(parts)))


def l1(answers: Tensor, clean: Tensor) -> Tensor:
    """Return each answer's ℓ1 distance to the prediction: float64 [N], in [0, 2]."""
    answers = floats("answers", answers)
    clean = floats("clean", clean)
    given = f"{list(answers.shape)} and {list(clean.shape)}"
    require(answers.shape == clean.shape, "answers and clean must be alike", given)
    checked(answers)
    return (answers.double() - checked(clean, len(answers)).double()).abs().sum(1)


def _of_class(answers: Tensor, labels: Tensor) -> Tensor:
    """Return what is answered of the true class, N×1."""
    checked(answers)
    tensors.labels("labels", labels, *answers.shape)
    return answers.gather(1, labels[:, None])
