"""Membership by self-attention: SAMIA.

Yuan & Zhang (2022), "Membership inference attacks and defenses in neural network
pruning", USENIX Security. The attack sees of each example the confidences, how much
they change when the image does (`sensitivity`), and the label. The network here is not
theirs, which makes a token of each class and learns from shadow models: see
`class_tokens`.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torch import Tensor, nn

from lottolab.checks import check_seed, number, require, tensors, whole, within
from lottolab.checks.taking import floats
from lottolab.images.batches import normalise
from lottolab.jobs.steps import by_row, few
from lottolab.membership import metrics
from lottolab.membership.signals import checked

LEAST = 1e-5  # of sigma
Attack = Callable[[Tensor, Tensor, Tensor], Tensor]


class SelfAttention(nn.Module):
    """Let three tokens attend to each other: confidences, sensitivity, label.

    A linear layer for each makes it 64 wide; then three encoder layers of 4 heads and
    a feed-forward width of 128, dropout 0.2 (the study's); then the tokens' mean and a
    linear layer.

    It maps float[B, 3, C] to logits of membership, float[B].
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.embed = nn.ModuleList(nn.Linear(classes, 64) for _ in range(3))
        layer = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.2, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.head = nn.Linear(64, 1)

    def forward(self, groups: Tensor) -> Tensor:
        parts = zip(self.embed, groups.unbind(1), strict=True)
        tokens = torch.stack([embed(part) for embed, part in parts], 1)
        return self.head(self.encoder(tokens).mean(1))[:, 0]


def fit(
    logits: Tensor,
    is_member: ArrayLike,
    *,
    labels: Tensor,
    sensitivity: Tensor,
    epochs: int = 15,
    batch: int = 256,
    lr: float = 1e-3,
    seed: int = 0,
) -> Attack:
    """Train the network on examples whose membership is known; return the attack.

    The study takes 100 epochs of SGD at 1e-3. Here it is Adam, which learns from a few
    thousand examples in 15. Confidences and sensitivities are standardised, each class
    alone, by the mean and deviation of these examples. All runs on the CPU.

    Args:
        logits: float[n, C], finite, of the target model. labels: int64[n] in [0, C).
        is_member: bool[n] (or 0 and 1), True for a member, with some of both.
        sensitivity: float[n, C], finite and >= 0, see `sensitivity`.
        epochs, batch: integers >= 1. lr: > 0.
        seed: of weights, dropout and order; the global generator is not touched.

    Returns `attack(logits, labels, sensitivity)` -> the probability of membership,
    float64[m] in [0, 1], which checks its input in the same way.

    Raises:
        ValueError: anything is not as above.
    """
    whole("epochs", epochs, 1)
    whole("batch", batch, 1)
    within("lr", lr, "(0, inf)")
    check_seed(seed)
    raw = _groups(logits, labels, sensitivity)
    member = torch.from_numpy(metrics.members(is_member, len(raw))).float()
    mean, std = raw.mean(0), raw.std(0, correction=0)
    mean[2], std[2] = 0, 1  # the label stays one-hot
    std = std.where(std > 0, 1.0)
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would seed the GPUs too.
        torch.default_generator.manual_seed(seed)
        network = SelfAttention(raw.shape[2])
        _train(network, (raw - mean) / std, member, epochs, batch, lr)

    @torch.no_grad()
    def attack(logits: Tensor, labels: Tensor, sensitivity: Tensor) -> Tensor:
        given = _groups(logits, labels, sensitivity)
        classes = raw.shape[2]
        same = f"logits must be of {classes} classes"
        require(given.shape[2] == classes, same, given.shape[2])
        return network((given - mean) / std).double().sigmoid()

    return attack


@by_row
@torch.no_grad()
def sensitivity(
    model: nn.Module,
    images: Tensor,
    mean_std: tuple[Tensor, Tensor],
    *,
    copies: int = 10,
    sigma: float = 1e-3,
    seed: int,
) -> Tensor:
    """Return how fast each confidence changes with the image, float32[N, C], >= 0.

    The mean over `copies` of |p_c(x + σu) − p_c(x)| / σ with u standard normal, x the
    normalised image (so σ is in units of a pixel's deviation, not of 1/255). For a
    small σ that is √(2/π) times the norm of the gradient of p_c.

    Args:
        images: uint8, N×C×H×W. mean_std: of the training images.
        copies: an integer >= 1. sigma: >= 1e-5, below
            which float32 images hardly move. The study has 10 and 1e-3.
        seed: of the noise. The model is put in evaluation mode.

    Raises:
        ValueError: anything is not as above.
    """
    whole("copies", copies, 1)
    number("sigma", sigma, LEAST)
    tensors.answering(model, images)
    device = next(model.parameters()).device
    scale = [part.to(device) for part in mean_std]
    check_seed(seed)
    generator = torch.Generator().manual_seed(seed)

    def confidences(x: Tensor) -> Tensor:
        # In float64: a softmax in float32 has steps of 6e-8 / σ near one.
        x = x.contiguous(memory_format=torch.channels_last)
        return model(x).double().softmax(1)

    model.eval()
    parts = []
    for part in images.split(500):
        x = normalise(part.to(device), *scale)
        before, change = confidences(x), 0.0
        for _ in range(copies):
            noise = torch.randn(x.shape, generator=generator).to(device)
            change = change + (confidences(x + sigma * noise) - before).abs()
        parts.append((change / (copies * sigma)).float())
    return torch.cat(parts).cpu()


def _train(network, x: Tensor, member: Tensor, epochs: int, batch: int, lr: float):
    """Maximise the mean log-likelihood of membership; leave evaluation mode behind."""
    optimiser = torch.optim.Adam(network.parameters(), lr=lr)
    network.train()
    for _ in few(range(epochs)):
        for rows in torch.randperm(len(x)).split(batch):
            found = network(x[rows])
            optimiser.zero_grad()
            F.binary_cross_entropy_with_logits(found, member[rows]).backward()
            optimiser.step()
    network.eval()


def _groups(logits: Tensor, labels: Tensor, sensitivity: Tensor) -> Tensor:
    """Return confidences, sensitivity and one-hot label, float32[n, 3, C]."""
    z, y = checked(logits, labels)
    require(y is not None, "this attack needs labels", labels)
    s = floats("sensitivity", sensitivity).double()
    what = f"sensitivity must be of shape {list(z.shape)}, as the logits are"
    require(s.shape == z.shape, what, list(s.shape))
    odd = s[~(s.isfinite() & (s >= 0))]
    require(len(odd) == 0, "sensitivity must be finite and >= 0", odd[:1].tolist())
    one_hot = F.one_hot(y, z.shape[1]).double()
    return torch.stack([z.softmax(1), s, one_hot], 1).float()
