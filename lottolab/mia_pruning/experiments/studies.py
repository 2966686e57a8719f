"""Single questions of the paper: learning, searching, its theorem, a DP guarantee.

The arguments are those of `leaks`.
"""

import copy

import pandas as pd
import torch
from torch import Tensor, nn

from lottolab import runs
from lottolab.checks import require, whole
from lottolab.images import datasets
from lottolab.membership import metrics, signals
from lottolab.membership.experiments import targets
from lottolab.mia_pruning import audit, divergence, theorem
from lottolab.mia_pruning.defences import dp
from lottolab.mia_pruning.experiments import leaks, treatments
from lottolab.nets import predict, train
from lottolab.nets.device import back, here


@runs.stage("mia_pruning.experiments.studies.learned")
def learned(*, epochs: list[int], attack: dict, treatment: dict, **setting) -> dict:
    """Follow the paper's attack while it learns (Figure 2): accuracy after `epochs`."""
    seen, seed = leaks.answers(treatment=treatment, **setting), setting["seed"]
    rows = []
    for count in epochs:
        scores, judged = leaks.tried(seen, attack | {"epochs": count}, seed)
        value = metrics.accuracy(scores, seen["member"][judged], 0.5)
        rows.append({"metric": "accuracy", "value": value, "attack_epoch": count})
    return {"measurements": pd.DataFrame(rows)}


@runs.stage("mia_pruning.experiments.studies.searched")
def searched(*, choices: list[dict], slack: float, attack: dict, **setting) -> dict:
    """Choose the pruning with the least gain of the attack (Equation 2).

    The attack learns from half of what is known; the choice is made on a
    quarter and reported on the last. `choices` are treatments, by rising
    sparsity. The measurements say for two rules (`rule`) which was `chosen`,
    counted from 1, and how it does: `gain`, as printed; `accuracy kept`,
    among those alone whose accuracy on the non-members of the choosing
    quarter is at most `slack` below the best one's.
    """
    require(len(choices) >= 2, "choices must be two treatments or more", len(choices))
    outcomes = pd.DataFrame([_outcome(how, attack, **setting) for how in choices])
    kept = outcomes["chosen_by_accuracy"] >= (
        outcomes["chosen_by_accuracy"].max() - slack
    )
    rules = {"gain": outcomes, "accuracy kept": outcomes[kept]}
    rows = []
    for rule, among in rules.items():
        place = among["chosen_by_gain"].idxmin()
        values = {"chosen": place + 1, **outcomes.loc[place, ["accuracy", "fresh"]]}
        rows += [{"rule": rule, "metric": m, "value": v} for m, v in values.items()]
    return {"measurements": pd.DataFrame(rows)}


def _outcome(treatment: dict, attack: dict, **setting) -> dict[str, float]:
    """Return what a choice is made by, and what is reported of it."""
    seen, seed = leaks.answers(treatment=treatment, **setting), setting["seed"]
    scores, judged = leaks.tried(seen, attack, seed)
    member = seen["member"][judged]
    right = signals.correctness(seen["pool"], seen["labels"])[judged]
    chosen, told = slice(0, None, 2), slice(1, None, 2)
    first = scores[chosen], member[chosen]
    return {
        "chosen_by_gain": divergence.gain(first[0][first[1]], first[0][~first[1]]),
        "chosen_by_accuracy": float(right[chosen][~first[1]].mean()),
        "accuracy": metrics.accuracy(scores[told], member[told], 0.5),
        "fresh": seen["metrics"]["fresh_accuracy"],
    }


@runs.stage("mia_pruning.experiments.studies.replaced")
def replaced(*, width: int, treatment: dict, **setting) -> dict:
    """Put a pruned random network in place of a classifier layer (Theorem 1).

    `change` is the largest change of a logit over the pool's images;
    `agreement` how often the answer stays; `auc` that of the loss, with
    `auc, original` before; `density` what is kept of the random network.
    """
    model, parts = leaks.trained(treatment, **setting)
    last = [n for n, m in model.named_modules() if isinstance(m, nn.Linear)][-1]
    layer = model.get_submodule(last)
    size = float(layer.weight.detach().abs().max())
    weights = layer.weight.detach() / size
    found = theorem.subnetwork(back(weights), width, setting["seed"])
    other = copy.deepcopy(model)
    other.set_submodule(last, _Scaled(here(found.network), size, layer.bias))
    given = {k: setting[k] for k in ("dataset", "sizes", "seed")}
    before, after = (targets.question(m, parts, **given) for m in (model, other))
    labels, member = before["labels"], before["member"]
    aucs = [
        metrics.auc(signals.loss(x["pool"], labels), member) for x in (before, after)
    ]
    same = before["pool"].argmax(1) == after["pool"].argmax(1)
    kept = sum(int(m.sum()) for m in found.masks.values())
    values = {"change": float((before["pool"] - after["pool"]).abs().max())}
    values |= {"agreement": float(same.double().mean())}
    values |= {"auc, original": aucs[0], "auc": aucs[1]}
    values["density"] = kept / sum(m.numel() for m in found.masks.values())
    return {"metrics": values}


class _Scaled(nn.Module):
    def __init__(self, network: nn.Module, size: float, bias: Tensor) -> None:
        super().__init__()
        self.network, self.size, self.bias = network, size, bias

    def forward(self, x: Tensor) -> Tensor:
        return self.size * self.network(x) + self.bias


@runs.stage("mia_pruning.experiments.studies.audited")
def audited(*, canaries: int, budget: dict, private: bool, second, **setting) -> dict:
    """Audit a private training with canaries, or the same training without privacy.

    The canaries are the first 2 × `canaries` of the `val` images with wrong
    labels; the former half joins the training images. Returns `bound`, the
    lower bound of ε at the budget's δ that the losses show, and the `auc`
    of canaries that were in against those that were not.
    """
    whole("canaries", canaries, 4)
    model, parts = treatments.fresh(**setting)
    (images, labels), (more, truth) = parts["train"], parts["val"]
    enough = 2 * canaries <= len(more)
    require(enough, f"canaries must be at most {len(more) // 2}, half of val", canaries)
    seed = setting["seed"]
    generator = torch.Generator().manual_seed(seed)
    shift = torch.randint(1, parts["classes"], truth.shape, generator=generator)
    wrong = (truth + shift) % parts["classes"]
    scale = datasets.normalisation(images)
    images = torch.cat([images, more[:canaries]])
    labels = torch.cat([labels, wrong[:canaries]])
    epochs = treatments.both(second, **setting)
    given = {"seed": seed, "mean_std": scale}
    if private:
        dp.dp_train(model, images, labels, epochs=epochs, **budget, **given)
    else:
        recipe = train.recipe(setting["recipe"] | {"epochs": epochs})
        train.fit(model, images, labels, recipe, **given)
    asked = more[: 2 * canaries], wrong[: 2 * canaries]
    loss = signals.loss(predict.logits(model, asked[0], scale), asked[1])
    member = torch.arange(2 * canaries) < canaries
    scores = loss[member], loss[~member]
    bound = audit.epsilon_lower_bound(*scores, budget["delta"], seed=seed)
    return {"metrics": {"bound": bound, "auc": metrics.auc(loss, member)}}
