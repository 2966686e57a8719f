"""Train against an attacker who trains too: adversarial regularisation, or Min-Max.

Nasr, Shokri & Houmansadr (2018), "Machine learning with membership privacy using
adversarial regularization", CCS, Algorithm 1; Wang et al. (2021), Equation 3 with no
pruning. The classifier f and the inference network h play

    min_f  CE(f) + γ max_h  E_D log h(f(x), y) + E_D' log(1 − h(f(x), y)),

a turn at each minibatch: h first takes `inner_steps` steps on fresh members from D and
fresh reference data from D', then f takes one step against this h. Of the gain only
the first expectation, over members, moves f.
"""

import hashlib
import math
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lottolab.checks import require, tensors, whole, within
from lottolab.images import datasets
from lottolab.images.batches import normalise
from lottolab.jobs.steps import taken
from lottolab.membership.attacks.nasr import InferenceNetwork, inputs
from lottolab.nets import predict, train
from lottolab.nets.masks import Masks

Examples = tuple[Tensor, Tensor]  # images and labels
PREFIX = "classifier."
MOMENTS = ("exp_avg", "exp_avg_sq")
ATTACKER = 2_000_000  # is added to the seed: no other attack starts from these weights


def minmax_train(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    reference_images: Tensor,
    reference_labels: Tensor,
    recipe: train.Recipe,
    *,
    gamma: float,
    inner_steps: int = 1,
    attack_lr: float = 1e-3,
    width: float = 1.0,
    seed: int,
    masks: Masks | None = None,
    mean_std: tuple[Tensor, Tensor] | None = None,
    **options,
) -> train.Fit:
    """Train `model` in place, as `train.fit` does, against an inference network.

    With γ = 0 the model gets the same bits as from `train.fit`, and the attacker only
    looks on. A killed run goes on at its last whole epoch, with the same bits.

    Args:
        images, labels, recipe, masks, mean_std: as for `train.fit`; the members, D.
        reference_images: uint8, M×C×H×W, the images of D': none of them is a member,
            and none may be used to evaluate. reference_labels: int64, M.
        gamma: γ >= 0, the weight of the attacker's gain (Nasr et al. call it λ).
        inner_steps: steps of the attacker before each step of the classifier, each on
            `recipe.batch` members and as many reference examples.
        attack_lr: of the attacker's Adam. width: see `InferenceNetwork`.
        seed: >= 0, of the order, the augmentation, the attacker and what it is shown.
        options: of `train.fit`, but `loss` and `parameters`. `after_step` gets the
            `Game`, whose `classifier` is the model.

    Returns:
        The fit; the history's `loss` has the γ-term, and its `gain` is the attacker's
        in nats, the epoch's mean: −log 4 for guessing, 0 for certainty.

    Raises:
        ValueError: anything is not as above, or `train.fit`'s.
    """
    mean_std = mean_std or datasets.normalisation(images)
    game = Game(
        model,
        (images, labels),
        (reference_images, reference_labels),
        gamma=gamma,
        batch=recipe.batch,
        inner_steps=inner_steps,
        attack_lr=attack_lr,
        width=width,
        seed=seed,
        mean_std=mean_std,
    )
    options |= {"masks": {PREFIX + name: m for name, m in (masks or {}).items()}}
    options |= {"loss": Game.loss, "mean_std": mean_std}
    fitted = train.fit(game, images, labels, recipe, seed=seed, **options)
    gains = torch.tensor(game.gains).view(-1, taken(len(images) // recipe.batch))
    history = fitted.history.assign(gain=gains.mean(1).tolist())
    own = {k: v for k, v in fitted.rewind.items() if k.startswith(PREFIX)}
    return train.Fit(history, {k.removeprefix(PREFIX): v for k, v in own.items()})


class Game(nn.Module):
    """Hold both players, so that one checkpoint keeps the whole game.

    Any trainer that takes a `train.Loss` can play it: give it the game in place of the
    classifier, and `Game.loss`; the names of weights get `PREFIX`. The attacker's
    parameters require no gradient, so that only its own Adam moves them.

    `members` and `references` are D and D'; the rest, and what is raised, is as in
    `minmax_train`. `gains` holds the attacker's gain at each turn.
    """

    def __init__(
        self,
        classifier: nn.Module,
        members: Examples,
        references: Examples,
        *,
        gamma: float,
        batch: int,
        inner_steps: int = 1,
        attack_lr: float = 1e-3,
        width: float = 1.0,
        seed: int,
        mean_std: tuple[Tensor, Tensor],
    ) -> None:
        super().__init__()
        within("gamma", gamma, "[0, inf)")
        right = 0 < attack_lr < math.inf
        require(right, "attack_lr must be > 0 and finite", attack_lr)
        whole("inner_steps", inner_steps, 1)
        whole("seed", seed, 0)
        _check_images(members[0], references[0])
        classes = predict.logits(classifier, members[0][:1], mean_std).shape[1]
        tensors.labels("labels", members[1], len(members[0]), classes)
        tensors.labels("reference_labels", references[1], len(references[0]), classes)
        self.classifier = classifier
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed, which would seed the GPUs too.
            torch.default_generator.manual_seed(seed + ATTACKER)
            self.attacker = InferenceNetwork(classes, width=width)
        self.attacker.requires_grad_(False)
        self.sides, self.mean_std = (members, references), mean_std
        self.gamma, self.batch, self.inner_steps = gamma, batch, inner_steps
        self.attack_lr, self.seed = attack_lr, seed
        self.gains: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(x)

    def loss(self, x: Tensor, y: Tensor, index: Tensor) -> Tensor:
        """Train the attacker, then return CE + γ · mean log h of a batch of members."""
        self._train_attacker()
        logits = self.classifier(x)
        return F.cross_entropy(logits, y) + self.gamma * self.log_h(logits, y).mean()

    def log_h(self, logits: Tensor, labels: Tensor, sign: int = 1) -> Tensor:
        """Return log h, or log(1 − h) where `sign` is −1, float32[n], finite."""
        seen = inputs(logits, "probabilities")
        with torch.autocast(seen.device.type, enabled=False):
            return F.logsigmoid(sign * self.attacker(seen, labels))

    def _train_attacker(self) -> None:
        """Take the inner steps, and note their mean gain, each before its step."""
        numbers = np.random.default_rng((self.seed, len(self.gains)))
        self.attacker.requires_grad_(True)
        gains = []
        for _ in range(self.inner_steps):
            logits, labels = self._asked(numbers)
            member, other = slice(self.batch), slice(self.batch, None)
            gain = self.log_h(logits[member], labels[member]).mean()
            gain = gain + self.log_h(logits[other], labels[other], -1).mean()
            self._adam.zero_grad()
            (-gain).backward()
            self._adam.step()
            gains.append(gain.detach())
        self._adam.zero_grad()
        self.attacker.requires_grad_(False)
        self.gains.append(torch.stack(gains).mean())

    @torch.no_grad()
    def _asked(self, numbers: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Ask the classifier about `batch` members and then as many references.

        All go through it at once and in evaluation mode, as an attacker's queries do:
        so batch norm cannot tell the two apart, and takes no notice of either.
        """
        drawn = []
        for images, labels in self.sides:
            rows = torch.from_numpy(numbers.integers(len(labels), size=self.batch))
            drawn.append((images[rows], labels[rows]))
        images, labels = (torch.cat(part) for part in zip(*drawn, strict=True))
        device = next(self.classifier.parameters()).device
        scale = (part.to(device) for part in self.mean_std)
        x = normalise(images.to(device), *scale)
        self.classifier.eval()
        logits = self.classifier(x.contiguous(memory_format=torch.channels_last))
        self.classifier.train()
        return logits, labels.to(device)

    @cached_property
    def _adam(self) -> torch.optim.Adam:
        # Made when it is first needed: by then the network is on its device.
        return torch.optim.Adam(self.attacker.parameters(), lr=self.attack_lr)

    def get_extra_state(self) -> Tensor:
        """Return the gains, and Adam's two moments of each weight, as one row."""
        if not self.gains:
            return torch.zeros(0)
        states = [self._adam.state[p] for p in self.attacker.parameters()]
        moments = [s[key].flatten() for key in MOMENTS for s in states]
        return torch.cat([torch.stack(self.gains), *moments])

    def set_extra_state(self, row: Tensor) -> None:
        """Go on where the game was that returned `row`."""
        weights = list(self.attacker.parameters())
        sizes = [p.numel() for p in weights]
        row = row.to(weights[0].device, copy=True)
        turns = max(0, len(row) - 2 * sum(sizes))
        self.gains = list(row[:turns])
        self._adam.state.clear()
        if turns:
            halves = [half.split(sizes) for half in row[turns:].view(2, -1)]
            for weight, *moments in zip(weights, *halves, strict=True):
                state = {"step": torch.tensor(float(turns * self.inner_steps))}
                for key, moment in zip(MOMENTS, moments, strict=True):
                    state[key] = moment.view_as(weight)
                self._adam.state[weight] = state


def _check_images(images: Tensor, references: Tensor) -> None:
    tensors.images("images", images)
    tensors.images("reference_images", references)
    shapes = [list(x.shape[1:]) for x in (images, references)]
    what = "images and reference_images must be of one shape C×H×W"
    require(shapes[0] == shapes[1], what, f"{shapes[0]} and {shapes[1]}")
    shared = len(_digests(images) & _digests(references))
    require(shared == 0, "reference_images must hold no training image", shared)


def _digests(images: Tensor) -> set[bytes]:
    rows = images.flatten(1).contiguous().numpy()
    return {hashlib.blake2b(row, digest_size=16).digest() for row in rows}
