"""Adaptive Misinformation: lie where the query looks foreign (Kariyappa et al., 2020).

"Defending against model stealing attacks with adaptive misinformation", CVPR; paper,
appendix B.2 and B.3. The more confident a prediction, the more of it is answered; the
rest comes from a second network that was trained to be wrong. That asks of the target
to be unsure of foreign images, which `outlier_exposure` trains.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lottolab.checks import require, tensors, within
from lottolab.images import datasets
from lottolab.images.batches import normalise
from lottolab.modelguard.defences import simplex
from lottolab.nets import predict, train


@dataclass(eq=False)
class AdaptiveMisinformation:
    """Answer with (1 − α)·y + α·ŷ, where ŷ is a network's that was trained to be wrong.

    α = 1 / (1 + exp(ν·(max y − τ))): a switch, for a large ν, that lies below τ. Fit
    it, or give the network as `model`, with the `mean_std` that it was trained with.
    Guarantees: on the simplex, and ℓ1 <= 2·α. The top-1 class may change.

    tau: τ in [0, 1]. nu: ν > 0, the paper's by default.

    Raises:
        ValueError: a setting is out of range, it is not fitted, no images are given or
            not as many as predictions, or rows are off the simplex.
    """

    tau: float
    nu: float = 1000.0
    model: nn.Module | None = None
    mean_std: tuple[Tensor, Tensor] | None = None

    def __post_init__(self) -> None:
        within("tau", self.tau, "[0, 1]")
        within("nu", self.nu, "(0, inf)")

    def fit(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        recipe: train.Recipe,
        **options,
    ) -> train.Fit:
        """Train `model` in place to be wrong, with `train.fit`, and keep it.

        The authors train it on the target's own training set, as one should; the
        formula in the paper, on queries that the defender cannot have.

        Args:
            model, images, labels, recipe, options: of `train.fit`.
        """
        mean_std = options.pop("mean_std", None) or datasets.normalisation(images)
        options |= {"loss": misinformation_loss, "mean_std": mean_std}
        fitted = train.fit(model, images, labels, recipe, **options)
        self.model, self.mean_std = model, mean_std
        return fitted

    def __call__(self, probs: Tensor, x: Tensor | None = None) -> Tensor:
        """Return the answers, N×C, in the dtype of `probs`; `x` are the images."""
        fitted = self.model is not None and self.mean_std is not None
        require(fitted, "the defence must be fitted, or get model and mean_std", "none")
        simplex.check(probs)
        simplex.check_images(probs, x)
        wrong = predict.logits(self.model, x, self.mean_std).softmax(1)
        same = wrong.shape == probs.shape
        require(same, f"model must have {probs.shape[1]} classes", wrong.shape[1])
        y = probs.double()
        share = (self.nu * (self.tau - y.amax(1, keepdim=True))).sigmoid()
        return torch.lerp(y, wrong.to(y), share).to(probs.dtype)


def misinformation_loss(model: nn.Module, x: Tensor, y: Tensor, index: Tensor):
    """Return the mean of −log(1 − softmax_y), the reverse cross-entropy of a batch."""
    logits = model(x).float()
    others = logits.scatter(1, y[:, None], -torch.inf)
    return (logits.logsumexp(1) - others.logsumexp(1)).mean()


def outlier_exposure(
    outliers: Tensor, mean_std: tuple[Tensor, Tensor], weight: float = 1.0
) -> train.Loss:
    """Return a loss for `train.fit`: cross-entropy, and uniform labels for outliers.

    Hendrycks et al. (2019); paper, appendix B.3: CE(f(x), y) + λ·CE(f(outlier), U).
    Each batch brings as many outliers, drawn anew with the generator that `train.fit`
    seeds for every epoch; both go through the model together.

    Args:
        outliers: uint8 M×C×H×W, images of no class, not augmented.
        mean_std: of the training images. weight: λ >= 0.

    Raises:
        ValueError: outliers are not as above, or the weight is negative.
    """
    tensors.images("outliers", outliers)
    within("weight", weight, "[0, inf)")

    def loss(model: nn.Module, x: Tensor, y: Tensor, index: Tensor) -> Tensor:
        drawn = outliers[torch.randint(len(outliers), (len(x),))].to(x.device)
        foreign = normalise(drawn, *(part.to(x.device) for part in mean_std))
        both = torch.cat([x, foreign]).contiguous(memory_format=torch.channels_last)
        known, unknown = model(both).split(len(x))
        uniform = -F.log_softmax(unknown.float(), 1).mean()
        return F.cross_entropy(known, y) + weight * uniform

    return loss
