"""Membership by a network that sees prediction and label (Nasr et al., 2018).

"Machine learning with membership privacy using adversarial regularization", CCS 2018,
section 3.2 and the architecture of its section 4: the black-box inference model, which
its defence also trains against.
"""

import itertools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lottolab.checks import check_seed, one_of, require, tensors, whole, within
from lottolab.membership.metrics import members
from lottolab.membership.signals import checked
from lottolab.nets.device import back, here

FEATURES = ("probabilities", "logits")


class InferenceNetwork(nn.Module):
    """Join a branch on the prediction and a branch on the label into one logit.

    Prediction: C → 1024 → 512 → 64. Label, one-hot: C → 512 → 64. Both together:
    128 → 256 → 64 → 1, with ReLU between, as in the text of the paper. Its public
    code differs: labels of −1 and +1, and a label branch of C → 128 → 64.
    `width` > 0 scales all hidden layers.

    It maps features, float[B, C], and labels, int64[B] in [0, C), to logits of
    membership, float[B]. Which features is the caller's choice, see `inputs`.

    >>> net = InferenceNetwork(10, width=0.1)
    >>> net(torch.zeros(3, 10), torch.tensor([0, 4, 9])).shape
    torch.Size([3])
    """

    def __init__(self, classes: int, *, width: float = 1.0) -> None:
        super().__init__()
        require(classes >= 2, "classes must be at least 2", classes)
        within("width", width, "(0, inf)")
        w64, w256, w512, w1024 = (
            max(1, round(n * width)) for n in (64, 256, 512, 1024)
        )
        self.classes = classes
        self.prediction = _hidden(classes, w1024, w512, w64)
        self.label = _hidden(classes, w512, w64)
        self.joint = _hidden(2 * w64, w256, w64).append(nn.Linear(w64, 1))

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        one_hot = F.one_hot(labels, self.classes).to(features.dtype)
        both = torch.cat((self.prediction(features), self.label(one_hot)), 1)
        return self.joint(both)[:, 0]


def inputs(logits: Tensor, features: str) -> Tensor:
    """Return what the network sees of logits, float32: themselves or their softmax."""
    one_of("features", features, FEATURES)
    return (logits.softmax(1) if features == "probabilities" else logits).float()


def fit(
    logits: Tensor,
    labels: Tensor,
    is_member: Tensor,
    *,
    features: str = "probabilities",
    epochs: int = 15,
    batch: int = 128,
    lr: float = 1e-3,
    width: float = 1.0,
    seed: int = 0,
) -> Callable[[Tensor, Tensor], Tensor]:
    """Train the network on examples whose membership is known; return the attack.

    It maximises the mean log-likelihood of membership, with Adam. The paper draws the
    weights from N(0, 0.01²) and trains long; here, with few steps, torch's default
    initialisation is used. More epochs are no better: with 60 the network learns 2,000
    examples by heart and attacks worse.

    Args:
        logits: float[n, C], finite, of the target model. labels: int64[n] in [0, C).
        is_member: bool[n] (or 0 and 1), True for a member, with some of both.
            (The paper's code marks a member by 0.)
        features: "probabilities" or "logits", what the network sees. Logits are not
            normalised, and with thousands of examples, not more, they attack worse.
        epochs, batch: integers >= 1. lr: > 0. width: see `InferenceNetwork`.
        seed: of weights and order; torch's global generator is not touched.

    Returns `attack(logits, labels)` -> the probability of membership, float64[n] in
    [0, 1], which checks its input in the same way.

    Raises:
        ValueError: anything is not as above.
    """
    one_of("features", features, FEATURES)
    logits, labels = here(_finite(logits, labels))
    is_member = members(is_member, len(logits))
    whole("epochs", epochs, 1)
    whole("batch", batch, 1)
    within("lr", lr, "(0, inf)")
    check_seed(seed)
    x, y = inputs(logits, features), here(torch.from_numpy(is_member).float())
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would seed the GPUs too.
        torch.default_generator.manual_seed(seed)
        network = InferenceNetwork(x.shape[1], width=width).to(x.device)
        orders = [torch.randperm(len(x)).to(x.device) for _ in range(epochs)]
    optimiser = torch.optim.Adam(network.parameters(), lr=lr)
    for rows in (rows for order in orders for rows in order.split(batch)):
        found = network(x[rows], labels[rows])
        optimiser.zero_grad()
        F.binary_cross_entropy_with_logits(found, y[rows]).backward()
        optimiser.step()

    @torch.no_grad()
    def attack(logits: Tensor, labels: Tensor) -> Tensor:
        logits, labels = here(_finite(logits, labels))
        given, classes = logits.shape[1], network.classes
        require(given == classes, f"logits must be of {classes} classes", given)
        return back(network(inputs(logits, features), labels).double().sigmoid())

    return attack


def _finite(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Check logits and labels, also in float32, which the network sees."""
    logits, labels = checked(logits, labels)
    tensors.finite("logits", logits.float(), " in float32")
    require(labels is not None, "this attack needs labels", labels)
    return logits, labels


def _hidden(*widths: int) -> nn.Sequential:
    """Stack linear layers, each with a ReLU behind it."""
    layers = nn.Sequential()
    for before, after in itertools.pairwise(widths):
        layers.append(nn.Linear(before, after)).append(nn.ReLU(inplace=True))
    return layers
