"""Single questions of the paper: learning, searching, its theorem, ADMM at rest.

The arguments are those of `leaks`.
"""

import copy

import pandas as pd
from torch import Tensor, nn

from lottolab import runs
from lottolab.checks import require
from lottolab.membership import metrics, signals
from lottolab.membership.experiments import targets
from lottolab.mia_pruning import divergence, theorem
from lottolab.mia_pruning.defences import admm, convergence
from lottolab.mia_pruning.experiments import leaks
from lottolab.nets import tickets
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
    quarter is at most `slack` below the best one's. `accuracy` is that of the paper's
    attack, `auc` that of the loss, on the last quarter.
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
        told = outcomes.loc[place, ["accuracy", "auc", "fresh"]]
        values = {"chosen": place + 1, **told}
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
    loss = signals.loss(seen["pool"], seen["labels"])[judged]
    return {
        "chosen_by_gain": divergence.gain(first[0][first[1]], first[0][~first[1]]),
        "chosen_by_accuracy": float(right[chosen][~first[1]].mean()),
        "accuracy": metrics.accuracy(scores[told], member[told], 0.5),
        "auc": metrics.auc(loss[told], member[told]),
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


@runs.stage("mia_pruning.experiments.studies.residual")
def residual(*, treatment: dict, **setting) -> dict:
    """Say whether the ADMM of a treatment has come to rest.

    `metrics`: `primal` and `dual`, the residuals of its last epoch beside the norm of
    the parent's weights (see `convergence.residuals`), and `overlap`, the share of its
    kept weights that pruning the parent by magnitude keeps too.
    """
    stage, given = leaks.training(treatment, **setting)
    outcome = stage(**given)
    weights = tickets.dense(**setting)["weights"]
    start = {name: weights[name] for name in outcome["masks"]}
    scale = sum(float(w.double().square().sum()) for w in start.values()) ** 0.5
    shown = convergence.residuals(outcome["history"], scale)
    counts = {name: int(mask.sum()) for name, mask in outcome["masks"].items()}
    found = {name: shown[f"{name}_relative"].iloc[-1] for name in ("primal", "dual")}
    by_size = admm.support(start, counts)
    found["overlap"] = convergence.overlap(outcome["masks"], by_size)
    return {"metrics": {name: float(value) for name, value in found.items()}}
