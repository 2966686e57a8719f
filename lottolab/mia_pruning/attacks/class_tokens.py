"""SAMIA as its authors built and trained it: one token a class, on shadow models.

Yuan & Zhang (2022), "Membership inference attacks and defenses in neural network
pruning", USENIX Security, section 4 and their public code. `samia` beside it is this
book's own attack: three tokens, their mean, trained on the target's known members.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torch import Tensor, nn

from lottolab.checks import check_seed, require, whole, within
from lottolab.jobs.steps import few
from lottolab.membership import metrics
from lottolab.mia_pruning.attacks import samia

WIDTH, HEADS, LAYERS, INNER, DROPOUT = 64, 4, 3, 128, 0.2  # the study's
# (logits [n, C], labels [n], sensitivity [n, C], is_member [n]) of one shadow model
Shadow = tuple[Tensor, Tensor, Tensor, ArrayLike]
Attack = Callable[[Tensor, Tensor, Tensor], Tensor]


class ClassTokens(nn.Module):
    """Let the classes of a prediction attend to each other.

    A class's token is its confidence, its sensitivity and 1 if it is the label. All 3C
    numbers pass a batch norm; a linear layer 3 → 64 and GELU, the same for each class,
    make the tokens; three encoder layers follow, of 4 heads and a feed-forward width of
    128 with GELU, dropout 0.2, the norm behind each part. The C outputs side by side
    pass 64·C → 64, ReLU, and 64 → 2. No place is encoded: what the network knows about
    a class by its number comes from the batch norm and from the layer 64·C → 64.

    It maps float[B, 3, C], as `samia` has them, to two logits, of non-members and of
    members, float[B, 2].

    >>> sum(p.numel() for p in ClassTokens(10).parameters())
    141886
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        whole("classes", classes, 2)
        self.norm = nn.BatchNorm1d(3 * classes)
        self.embed = nn.Linear(3, WIDTH)
        layer = nn.TransformerEncoderLayer(
            WIDTH, HEADS, INNER, DROPOUT, activation="gelu", batch_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.join = nn.Linear(WIDTH * classes, WIDTH)
        self.head = nn.Linear(WIDTH, 2)
        for part in self.modules():
            if type(part) is nn.Linear:
                nn.init.xavier_normal_(part.weight)
                nn.init.zeros_(part.bias)

    def forward(self, groups: Tensor) -> Tensor:
        scaled = self.norm(groups.flatten(1)).view(groups.shape)
        tokens = F.gelu(self.embed(scaled.transpose(1, 2)))
        joined = self.join(self.encoder(tokens).flatten(1))
        return self.head(joined.relu())


def fit(
    shadows: Sequence[Shadow],
    *,
    epochs: int = 100,
    batch: int = 128,
    lr: float = 1e-3,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    seed: int = 0,
) -> Attack:
    """Train the network on shadow models' answers; return the attack.

    The attacker trains his own models, on images like the target's and pruned as it
    was, and knows their members. As in the study: SGD, its rate divided by ten after
    a half and after three quarters of the epochs, and whatever the last epoch leaves.
    All runs on the CPU.

    Held against the authors' program (Machine-Learning-Security-Lab/mia_prune, commit
    db3a7af): the same weights give the same answers, and the same steps the same
    weights. What differs: theirs stops at a batch of one example; theirs takes a
    softmax in float32, which makes a sensitivity uncertain by some 1e-5, and here it is
    in float64; theirs answers with the likelier of the two, which is the probability
    above 0.5. Theirs has five shadow models; here they are as many as are given.

    Args:
        shadows: one or more of (logits float[n, C], labels int64[n] in [0, C),
            sensitivity float[n, C] >= 0, see `samia.sensitivity`, is_member bool[n]),
            finite; all of the same C, each with members and non-members.
        epochs: >= 1. batch: >= 2; a last example alone joins the batch before it.
        lr: > 0. momentum: in [0, 1). weight_decay: >= 0.
        seed: of weights, dropout and order; the global generator is not touched.

    Returns `attack(logits, labels, sensitivity)` -> the probability of membership,
    float64[m] in [0, 1], which checks its input in the same way.

    Raises:
        ValueError: anything is not as above.
    """
    whole("epochs", epochs, 1)
    whole("batch", batch, 2)
    within("lr", lr, "(0, inf)")
    within("momentum", momentum, "[0, 1)")
    within("weight_decay", weight_decay, "[0, inf)")
    check_seed(seed)
    require(len(shadows) > 0, "shadows must be at least one model's answers", "none")
    groups, member = zip(*(_checked(*shadow) for shadow in shadows), strict=True)
    classes = groups[0].shape[2]
    odd = sorted({part.shape[2] for part in groups} - {classes})
    require(not odd, f"shadows must all have {classes} classes", odd)
    x, y = torch.cat(groups), torch.cat(member)
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would seed the GPUs too.
        torch.default_generator.manual_seed(seed)
        network = ClassTokens(classes)
        optimiser = torch.optim.SGD(
            network.parameters(), lr=lr, momentum=momentum, weight_decay=weight_decay
        )
        _train(network, optimiser, x, y, epochs, batch)

    @torch.no_grad()
    def attack(logits: Tensor, labels: Tensor, sensitivity: Tensor) -> Tensor:
        given = samia._groups(logits, labels, sensitivity)
        same = f"logits must be of {classes} classes"
        require(given.shape[2] == classes, same, given.shape[2])
        parts = [network(part).double() for part in given.split(4096)]
        return torch.cat(parts).diff(dim=1)[:, 0].sigmoid()

    return attack


def _train(
    network: ClassTokens,
    optimiser: torch.optim.Optimizer,
    x: Tensor,
    y: Tensor,
    epochs: int,
    batch: int,
) -> None:
    """Minimise the cross-entropy; leave evaluation mode behind."""
    milestones = [epochs // 2, epochs * 3 // 4]
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimiser, milestones)
    network.train()
    for _ in few(range(epochs)):
        for rows in _batches(torch.randperm(len(x)), batch):
            optimiser.zero_grad()
            F.cross_entropy(network(x[rows]), y[rows]).backward()
            optimiser.step()
        scheduler.step()
    network.eval()


def _batches(order: Tensor, batch: int) -> list[Tensor]:
    """Split an order; batch norm has no deviation of one example alone."""
    parts = list(order.split(batch))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def _checked(logits, labels, sensitivity, is_member) -> tuple[Tensor, Tensor]:
    groups = samia._groups(logits, labels, sensitivity)
    member = metrics.members(is_member, len(groups))
    return groups, torch.from_numpy(member).long()
