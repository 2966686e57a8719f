"""Accuse strangers with the best that an accuser can have: well-trained networks.

`triggers.accuse` changes pictures until a network of the accuser's own gives them the
labels that a secret gives. Such pictures transfer to networks that he never touched
(Liu et al., 2024), the better the more his network is like them: an ordinary dense one
of another seed, or several, and not a ticket that is too sparse to be any good.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lottolab.checks import require
from lottolab.ownership import triggers as trigger
from lottolab.ownership.triggers import Predict, Triggers, TriggerVerification


class Together(nn.Module):
    """Answer with the mean log-probability of several networks, [B, classes]."""

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__()
        require(len(models) > 0, "models must hold at least one network", "none")
        self.models = nn.ModuleList(models)

    def forward(self, x: Tensor) -> Tensor:
        answers = [F.log_softmax(model(x), 1) for model in self.models]
        return torch.stack(answers).mean(0)


def accusations(
    models: Sequence[nn.Module],
    fair: Triggers,
    mean_std: tuple[Tensor, Tensor],
    epsilons: Sequence[int],
    *,
    steps: int = 40,
) -> dict[int, Triggers]:
    """Change fair triggers by up to each of `epsilons`, until `models` answer them so.

    Steps are a tenth of epsilon, at least one grey level. `models` are put in
    evaluation mode.

    Raises:
        ValueError: no model, an epsilon twice or outside [1, 255], or fewer than one
            step.
    """
    once = len(set(epsilons)) == len(epsilons) > 0
    require(once, "epsilons must be different numbers", list(epsilons))
    joint = Together(models)
    return {
        epsilon: trigger.accuse(
            joint,
            fair,
            mean_std,
            epsilon=epsilon,
            steps=steps,
            step_size=max(epsilon / 10, 1),
        )
        for epsilon in epsilons
    }


def convictions(
    innocent: Predict,
    accusations: dict[int, Triggers],
    *,
    unmarked: Iterable[Predict] = (),
    lawful: Callable[[Triggers], bool] | None = None,
) -> dict[int, dict[str, TriggerVerification | bool]]:
    """Judge an innocent network by each accusation, in three ways.

    `alone`: by the p-value. `compared`: also by networks of the judge, `unmarked`.
    `lawful`: whether the pictures are what the rule says, see `defences.provenance`; if
    not, there is no case. None and left out without a rule.

    Raises:
        ValueError: as `verify_triggers`.
    """
    others, found = list(unmarked), {}
    for epsilon, given in accusations.items():
        alone = trigger.verify_triggers(innocent, given)
        compared = trigger.verify_triggers(innocent, given, unmarked=others)
        found[epsilon] = {"alone": alone, "compared": compared}
        if lawful is not None:
            found[epsilon]["lawful"] = lawful(given)
    return found
