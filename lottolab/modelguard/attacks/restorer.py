"""Recover predictions by a network: D-DAE (Chen et al., 2023) and D-DAE+.

Paper, section 4.1 and appendix B.1. A restorer learns y from p(y). D-DAE takes y from
shadow models that the attacker trains himself; D-DAE+ takes the table of the partial
Bayes attack. The defence detector of D-DAE is left out, as in the paper.
"""

import torch
from torch import Tensor, nn

from lottolab.checks import check_seed, require, tensors, whole, within
from lottolab.checks.taking import floats
from lottolab.images import datasets
from lottolab.modelguard.attacks.bayes import Table, pairs
from lottolab.modelguard.attacks.extraction import extract
from lottolab.modelguard.queries import Defence, Service, check_images, checked
from lottolab.nets import train
from lottolab.nets.device import back, here

SHADOW = 4_000_000  # is added to the seed: no other network starts from these weights


def shadow_table(
    images: Tensor,
    labels: Tensor,
    classes: int,
    network: dict,
    recipe: train.Recipe,
    defence: Defence,
    *,
    shadows: int = 20,
    seed: int,
) -> Table:
    """Pass the predictions of shadow models of all queries through the defence.

    Each shadow model is trained on the queries of `classes` classes of their own,
    chosen at random and put in random order; it then predicts all queries.

    Args:
        images: uint8 N×C×H×W, the queries. labels: int64 N, of the public data set
            that they come from; it must have at least `classes` classes.
        classes: K, the target's.
        network, recipe: as for `extract`; small and short (the paper: 5 epochs).

    Returns:
        `shadows` · N pairs, those of a shadow model together.

    Raises:
        ValueError: anything is not as above, or a class choice with fewer images than
            the recipe's batch.
    """
    check_images(images)
    whole("classes", classes, 2)
    whole("shadows", shadows, 1)
    tensors.labels("labels", labels, len(images))
    known = labels.unique()
    enough = len(known) >= classes
    require(enough, f"labels must hold at least {classes} classes", len(known))
    scale = datasets.normalisation(images)

    def predicted(shadow: int):
        number = SHADOW + 1000 * seed + shadow
        generator = torch.Generator().manual_seed(number)
        chosen = known[torch.randperm(len(known), generator=generator)[:classes]]
        which = labels[:, None] == chosen
        rows = which.any(1)
        model = extract(
            images[rows],
            which[rows].float(),
            network,
            recipe,
            seed=number,
            mean_std=scale,
        )
        return Service(model, scale)(images), images

    return pairs((predicted(shadow) for shadow in range(shadows)), defence)


def build(classes: int, widths: tuple[int, int] | None = None) -> nn.Sequential:
    """Make a restorer, probabilities to probabilities: three linear layers.

    Each has batch norm and a leaky ReLU (0.2) behind it, and a softmax ends it. Hidden
    widths are 128 and 64 up to 10 classes, 1024 and 512 up to 100, else 2048 and 1024,
    as in the authors' public code, unless given.
    """
    small, middle, large = (128, 64), (1024, 512), (2048, 1024)
    if widths is None:
        widths = small if classes <= 10 else middle if classes <= 100 else large
    layers, before = nn.Sequential(), classes
    for after in (*widths, classes):
        layers.extend([nn.Linear(before, after), nn.BatchNorm1d(after)])
        layers.append(nn.LeakyReLU(0.2))
        before = after
    return layers.append(nn.Softmax(1))


def fit(
    table: Table,
    *,
    widths: tuple[int, int] | None = None,
    epochs: int = 200,
    batch: int = 1024,
    lr: float = 1e-2,
    seed: int,
) -> nn.Sequential:
    """Train a restorer on a table of pairs, to the least mean ℓ1 distance.

    SGD with momentum 0.9 and weight decay 1e-4; the learning rate is halved at half of
    the epochs. The defaults are the public code's and need a GPU; with 10⁵ pairs of
    100 classes, `widths=(256, 128)` and 20 epochs take 20 s on one core. It keeps no
    checkpoints.

    Args:
        table: float32 M×K each, M >= 2; a last, smaller batch is left out.
        seed: of weights and order; torch's global generator is not touched.

    Raises:
        ValueError: anything is not as above.
    """
    perturbed, clean = (here(checked(part)) for part in table)
    whole("epochs", epochs, 1)
    whole("batch", batch, 2)
    within("lr", lr, "(0, inf)")
    check_seed(seed)
    require(len(clean) >= 2, "the table must hold at least 2 pairs", len(clean))
    batch = min(batch, len(clean))
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would seed the GPUs too.
        torch.default_generator.manual_seed(seed)
        network = build(clean.shape[1], widths).to(clean.device).train()
    generator = torch.Generator().manual_seed(seed)
    settings = {"momentum": 0.9, "weight_decay": 1e-4}
    optimiser = torch.optim.SGD(network.parameters(), lr=lr, **settings)
    for epoch in range(epochs):
        optimiser.param_groups[0]["lr"] = lr if epoch < epochs / 2 else lr / 2
        order = torch.randperm(len(clean), generator=generator).to(clean.device)
        for rows in order[: len(clean) // batch * batch].split(batch):
            loss = (network(perturbed[rows]) - clean[rows]).abs().sum(1).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return network


@torch.no_grad()
def restore(network: nn.Module, answers: Tensor) -> Tensor:
    """Return the predictions that a restorer sees behind answers, N×K, in their dtype.

    The network is put in evaluation mode: an answer is restored alike whatever others
    are asked with it. (The public code leaves batch norm in training mode.)

    Raises ValueError where `answers` are not float N×K, finite and >= 0.
    """
    asked, answers = checked(answers), floats("answers", answers)
    network.eval()
    parts = [back(network(here(part))) for part in asked.split(100_000)]
    return torch.cat(parts).to(answers.dtype)
